"""Approvals of one live generation: asked for, and resolved once.

Owns the open ones, their expiry, and what an answer means. The default is the safe one: whatever is no explicit
yes is a no. What is still open when the generation ends, the engine refuses in the log (rule R4).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import final

import trio
from attrs import define, field, frozen
from uuid_utils import uuid7

from ..codec import encode_json, own_json
from ..errors import ApprovalNotFound, InvalidBody
from ..events import JSON, ApprovalRequested, ApprovalResolved, JSONObject
from ..rules.lifecycle import Draft
from .writer import GenerationWriter

__all__ = ["Approval", "Approvals", "expires_at"]

logger = logging.getLogger("penstock.generation")


@final
@frozen(kw_only=True)
class Approval:
    """How an approval was resolved. ``reason`` is the approver's, or ``expired``.

    ``arguments`` are what was granted: as asked for, or as the approver changed them; None when refused.
    """

    approval_id: str
    approved: bool
    reason: str | None = None
    arguments: JSON = None
    by: str | None = None


@define(eq=False)
class _Open:
    request: ApprovalRequested
    expires: float  # of the trio clock
    resolved: trio.Event = field(factory=trio.Event)
    answer: Approval | None = None


@final
class Approvals:
    """``on_asked`` is called when `next_expiry` may have come nearer."""

    __slots__ = ("_on_asked", "_open", "_resolved", "_writer")

    def __init__(self, writer: GenerationWriter, *, on_asked: Callable[[], object]) -> None:
        self._writer = writer
        self._on_asked = on_asked
        self._open: dict[str, _Open] = {}
        self._resolved: dict[str, str | None] = {}  # id → tool call

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    @property
    def next_expiry(self) -> float:
        """When the next one expires, by the trio clock; infinite if none does."""
        return min((waiting.expires for waiting in self._open.values()), default=math.inf)

    async def ask(self, name: str, *, tool_call_id: str | None, arguments: JSON, expires_in: float) -> Approval | None:
        """Write the request and wait until it is resolved; None when the generation is fenced first.

        Cancelled by the producer's own scope, it is resolved as refused, reason ``cancelled``.
        """
        request = ApprovalRequested(
            approval_id=str(uuid7()),
            tool_call_id=tool_call_id,
            name=name,
            arguments=own_json(arguments, "arguments"),
            expires_at=expires_at(expires_in),
        )
        self._writer.put_nowait(self._writer.structure.asking(request))
        waiting = self._add(request, expires_in)
        try:
            await waiting.resolved.wait()
        finally:
            if request.approval_id in self._open:
                self._resolve(waiting, _refusal(request, "cancelled"), self._writer.part)
        return waiting.answer

    def note(self, request: ApprovalRequested) -> None:
        """A request of a producer in another process was written: it learns of the answer from the events."""
        self._add(request, math.inf if request.expires_at is None else _seconds_until(request.expires_at))

    def _add(self, request: ApprovalRequested, seconds: float) -> _Open:
        waiting = self._open[request.approval_id] = _Open(request, trio.current_time() + seconds)
        self._on_asked()
        return waiting

    def answer(self, content: JSONObject, by: str | None) -> None:
        """Resolve the one that ``content`` names: ``{approval_id, approved, reason?, arguments?}``.

        Raises `ApprovalNotFound` when it is not open, `InvalidBody`.
        """
        approval_id, reason = content.get("approval_id"), content.get("reason")
        if not isinstance(approval_id, str):
            raise InvalidBody("an answer names the approval_id that it is for")
        if reason is not None and not isinstance(reason, str):
            raise InvalidBody("the reason of an answer is text")
        self.expire()
        waiting = self._open.get(approval_id)
        if waiting is None:
            tool_call = self._resolved.get(approval_id)
            logger.warning(
                "session %s, generation %s: an answer came for approval %.100r (tool call %r), which is not open",
                self._writer.session_id,
                self._writer.generation_id,
                approval_id,
                tool_call,
            )
            raise ApprovalNotFound(
                "no approval with this id is open: it was resolved before, or never asked for",
                session_id=self._writer.session_id,
                generation_id=self._writer.generation_id,
            )
        approved = content.get("approved") is True
        arguments = waiting.request.arguments if content.get("arguments") is None else content["arguments"]
        answer = Approval(
            approval_id=approval_id,
            approved=approved,
            reason=reason,
            arguments=arguments if approved else None,
            by=by,
        )
        self._resolve(waiting, answer, self._writer.put_nowait)

    def expire(self) -> None:
        """Refuse those whose time is over."""
        now = trio.current_time()
        for waiting in [waiting for waiting in self._open.values() if waiting.expires <= now]:
            self._resolve(waiting, _refusal(waiting.request, "expired"), self._writer.part)

    def close(self) -> None:
        """The fence is up: who waits learns so, and what is open is left to the engine's end."""
        open_, self._open = self._open, {}
        for waiting in open_.values():
            waiting.resolved.set()

    def _resolve(self, waiting: _Open, answer: Approval, write: Callable[[Draft], None]) -> None:
        asked = waiting.request
        changed = answer.approved and encode_json(answer.arguments) != encode_json(asked.arguments)
        event = ApprovalResolved(
            approval_id=answer.approval_id,
            approved=answer.approved,
            reason=answer.reason,
            arguments=answer.arguments if changed else None,
            by=answer.by,
        )
        write(self._writer.structure.resolving(event))
        del self._open[answer.approval_id]
        self._resolved[answer.approval_id] = asked.tool_call_id
        waiting.answer = answer
        waiting.resolved.set()


def _refusal(request: ApprovalRequested, reason: str) -> Approval:
    return Approval(approval_id=request.approval_id, approved=False, reason=reason)


def expires_at(seconds: float) -> str | None:
    """The moment as events carry it; None where there is none."""
    if type(seconds) not in (int, float) or not seconds > 0:
        raise InvalidBody("an approval expires in a number of seconds above 0")
    if seconds == math.inf:
        return None
    try:
        moment = datetime.now(UTC) + timedelta(seconds=seconds)
    except OverflowError:
        raise InvalidBody("an approval expires before the year 10000; an infinite time means never") from None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _seconds_until(moment: str) -> float:
    """How far off the moment is, as events carry it; below 0 when it is past."""
    return (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()
