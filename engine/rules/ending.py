"""The end of a generation: what is still open is closed, in the order of rule R4, and only then it has finished.

Owns that order, and what is written in place of what never came. Whether the events may stand there is `lifecycle`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, cast, final

from attrs import evolve, field, frozen

from ..codec import encode_data, encode_json, own_json
from ..errors import InvalidBody
from ..events import (
    ApprovalResolved,
    BlockClosed,
    BlockOpened,
    GenerationFinished,
    InputReturned,
    JSONObject,
    MessageClosed,
    MessageOpened,
    MessageRetracted,
)
from ..shapes import check_object
from .lifecycle import Draft, OpenGeneration
from .states import OUTCOMES, Outcome

__all__ = ["PRODUCER_FAILED", "SAFE_TEXTS", "Ending", "closing", "own_usage", "writable"]

# What an end says comes with each snapshot of the generation's messages, and is kept in memory with them. Bytes of JSON
# of a usage, some ten times what providers tell; characters of a text and of a code.
_LARGEST_USAGE: Final = 8 * 1024
_LONGEST_TEXT: Final = 2048
_LONGEST_CODE: Final = 128

# What an end says of itself to readers; ``{idle}`` is the limit of the generation that reached it, in seconds.
SAFE_TEXTS: Final[Mapping[Outcome, str]] = {
    "superseded": "A newer answer took its place.",
    "stopped": "Stopped.",
    "stalled": "Ended because nothing came for {idle:.10g} s.",
    "expired": "It took too long.",
    "deleted": "The session was deleted.",
    "reset": "The session was reset.",
    "shutdown": "The server shut down.",
    "lost": "The process that produced it ended.",
    "failed": "What it wrote could not be stored.",
}

# Those that are nobody's decision and nobody's mistake: the same may go well when it is started again.
_RETRYABLE: Final = frozenset({"stalled", "expired", "lost", "shutdown"})

# The code and the text of a producer that raised something of which readers must not know more.
PRODUCER_FAILED: Final = ("PRODUCER_FAILED", "The producer raised an error.")


def own_usage(given: object) -> JSONObject:
    """A copy that nobody else can change. Raises `InvalidBody` for what is no JSON object, or too large."""
    usage = cast("JSONObject", own_json(check_object(given, "usage"), "usage"))
    size = len(encode_json(usage))
    if size > _LARGEST_USAGE:
        raise InvalidBody(f"usage takes {size} bytes as JSON; at most {_LARGEST_USAGE} may be")
    return usage


def _short(text: str | None) -> str | None:
    return text[:_LONGEST_TEXT] if isinstance(text, str) else text


def _short_code(code: str | None) -> str | None:
    return code[:_LONGEST_CODE] if isinstance(code, str) else code


@final
@frozen(kw_only=True)
class Ending:
    """How a generation ends. ``retract``: its messages leave the transcript (rollback). ``author``: who stopped it.

    ``retryable``: whether the same may go well when it is started again, where the producer said so. A ``code`` and a
    ``message`` that are too long are cut off.
    """

    outcome: Outcome
    code: str | None = field(default=None, converter=_short_code)
    message: str | None = field(default=None, converter=_short)
    superseded_by: str | None = None
    cleanup: str | None = None
    usage: Mapping[str, object] | None = None
    retract: bool = False
    retryable: bool | None = None
    author: str | None = None

    def finished(self) -> GenerationFinished:
        return GenerationFinished(
            outcome=self.outcome,
            code=self.code,
            message=self.message,
            superseded_by=self.superseded_by,
            cleanup=self.cleanup,
            usage=self.usage,  # type: ignore[arg-type]
            retryable=True if self.retryable is None and self.outcome in _RETRYABLE else self.retryable,
            author=self.author,
        )


def writable(ending: Ending) -> Ending:
    """The ending, or in its place one that can be stored and read back whatever a producer put into it."""
    try:
        encode_data(ending.finished())
    except InvalidBody:
        code, message = PRODUCER_FAILED
        return evolve(ending, outcome="failed", code=code, message=message, usage=None, retryable=None)
    return ending


def closing(structure: OpenGeneration, ending: Ending, *, new_message_id: Callable[[], str]) -> Iterator[Draft]:
    """The drafts that end this generation: what is open is closed, then `finished`.

    Every draft is to be placed and recorded before the next one is asked for.
    """
    status = OUTCOMES[ending.outcome]
    for approval_id in [approval_id for approval_id, still in structure.approvals.items() if still]:
        yield structure.resolving(ApprovalResolved(approval_id=approval_id, approved=False, reason=ending.outcome))
    for input_id in [input_id for input_id, still in structure.inputs.items() if still]:
        yield Draft(InputReturned(input_id=input_id))
    open_messages = sorted(structure.open_messages.items(), key=lambda item: item[1].number)
    for message_id, message in open_messages:
        for index in sorted(message.open_blocks):
            yield Draft(BlockClosed(), message_id, index)
    for message_id, _ in open_messages:
        yield Draft(MessageClosed(status=status, finish_reason=ending.outcome), message_id)
    if structure.calls:
        yield from _results(structure.calls, status, ending.outcome, new_message_id())
    if ending.retract:
        for message_id in structure.message_ids:
            yield Draft(MessageRetracted(reason=ending.outcome), message_id)
    yield Draft(ending.finished())


def _results(unanswered: Mapping[str, str], status: str, outcome: str, message_id: str) -> Iterator[Draft]:
    """A result for every call that has none: model providers refuse a transcript with a dangling call."""
    calls = dict(unanswered)
    yield Draft(MessageOpened(role="tool", parent_message_id=next(reversed(calls.values()))), message_id)
    for index, call in enumerate(calls):
        yield Draft(BlockOpened(kind="tool_result", tool_call_id=call), message_id, index)
        yield Draft(BlockClosed(text=f"No result: the answer ended as {outcome}.", is_error=True), message_id, index)
    yield Draft(MessageClosed(status=status), message_id)
