"""A session as applications hold it: an id with the operations on it.

A handle is cheap, stays valid while the session leaves memory and comes back, and may be kept or thrown away.
Every operation answers after its commit; cancelling a caller loses the answer, not what it asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, final

from .codec import check_json, encode_json, structure
from .errors import InvalidBody
from .events import (
    JSON,
    BlockSnapshot,
    Cursor,
    JSONObject,
    MessageSnapshot,
    SessionId,
    check_job_id,
    check_uuid,
    new_generation_id,
    new_message_id,
)
from .generation import Producer
from .parts import StartRequest, user_message
from .policy import Policy
from .reducer import Snapshot
from .results import GenerationInfo, Posted, Started, Stopped
from .subscription import Subscription

if TYPE_CHECKING:
    from .engine import Engine

__all__ = ["Session"]


@final
class Session:
    """One conversation. ``created`` tells whether the call that gave this handle made the session."""

    def __init__(self, engine: Engine, session_id: SessionId, *, created: bool = False) -> None:
        self._engine = engine
        self.session_id: Final = session_id
        self.created: Final = created

    def __repr__(self) -> str:
        return f"<Session {self.session_id}>"

    async def start(
        self,
        producer: str | Producer | AsyncIterable[str] | None = None,
        *,
        text: str | None = None,
        input: JSON = None,  # noqa: A002  the protocol's name
        policy: str = "supersede",
        job_id: str | None = None,
        generation_id: str | None = None,
        metadata: JSONObject | None = None,
    ) -> Started:
        """Start a generation; by default in place of the live one, whose clean-up is awaited first.

        ``producer`` is a registered name, an async function or async generator function of a `Generation`,
        an async iterable of text, or None for the engine's default. ``text`` posts the user's message in the
        same commit. ``policy`` says what a live generation means: ``supersede``, ``rollback`` (its messages
        are retracted too), ``reject`` or ``join``.

        Returns after the commit, just before the producer runs. Raises `GenerationActive`, `ProducerNotFound`,
        `IdInUse`, `InvalidBody`, `InvalidId`, `TooManyStragglers`, `WriteFailed`, `Draining`; nothing was
        cancelled or written then, except where `WriteFailed` came from the very commit.
        """
        call, name = self._engine.producer(producer)
        request = StartRequest(
            generation_id=new_generation_id() if generation_id is None else check_uuid(generation_id, "generation_id"),
            proposed=generation_id is not None,
            producer=call,
            producer_name=name,
            policy=_policy(policy),
            text=text,
            input=input,
            job_id=None if job_id is None else check_job_id(job_id),
            metadata=metadata,
        )
        return await (await self._engine.resident(self.session_id)).start(request)

    async def stop(self, generation_id: str | None = None, *, reason: str = "stopped") -> Stopped:
        """Stop the live generation, or the one with this id, whenever its time comes. The answer is true.

        Waits for the clean-up at most `Config.cleanup_timeout`. What the answer had so far is kept.
        """
        if generation_id is not None:
            generation_id = check_uuid(generation_id, "generation_id")
        encode_json(reason)
        return await (await self._engine.resident(self.session_id)).stop(generation_id, reason)

    async def post(
        self,
        text: str | None = None,
        *,
        blocks: Sequence[JSONObject] | None = None,
        role: str = "user",
        message_id: str | None = None,
        metadata: JSONObject | None = None,
    ) -> Posted:
        """Add a whole message: ``text``, or ``blocks`` as `message.snapshot` has them.

        The same ``message_id`` with the same content again changes nothing; with other content `IdInUse`.
        """
        message = _message(text, blocks, role, metadata)
        proposed = message_id is not None
        mid = new_message_id() if message_id is None else check_uuid(message_id, "message_id")
        return await (await self._engine.resident(self.session_id)).post(message, mid, proposed=proposed)

    @asynccontextmanager
    async def subscribe(
        self, after: Cursor | str | None = None, *, live: bool = True, snapshot: bool = False
    ) -> AsyncIterator[Subscription]:
        """Read from ``after``: a cursor, ``"now"`` for the tail, or None for the start.

        ``live=False`` ends at the tail; ``snapshot=True`` begins with the state and goes on behind it. A reader
        that is slow loses time, never events, and holds nobody up. Raises `InvalidCursor`.
        """
        from_tail = after == "now"
        cursor = Cursor.parse(after) if isinstance(after, str) and not from_tail else after
        resident = await self._engine.resident(self.session_id)
        subscription = Subscription(
            resident.reads,
            cursor if isinstance(cursor, Cursor) else None,
            from_tail=from_tail,
            live=live,
            snapshot=snapshot,
        )
        async with subscription:
            yield subscription

    async def snapshot(self, limit: int | None = None, before: str | None = None) -> Snapshot:
        """The session's state at its committed tail; ``limit`` messages, the newest or those before ``before``."""
        return await (await self._engine.resident(self.session_id)).reads.snapshot(limit, before)

    async def generation(self, generation_id: str) -> GenerationInfo:
        """Where the generation stands. Raises `GenerationNotFound`."""
        generation_id = check_uuid(generation_id, "generation_id")
        return await (await self._engine.resident(self.session_id)).generation(generation_id)

    async def cursor(self) -> Cursor:
        """The committed tail."""
        return (await self._engine.resident(self.session_id)).journal.cursor

    async def delete(self) -> None:
        """End what is live, then this life of the session; creating it again begins a new one."""
        await (await self._engine.resident(self.session_id)).delete()


def _policy(name: str) -> Policy:
    try:
        return Policy(name)
    except ValueError:
        raise InvalidBody(f"policy must be one of {', '.join(p.value for p in Policy)}, not {name!r}") from None


def _message(
    text: str | None, blocks: Sequence[JSONObject] | None, role: str, metadata: JSONObject | None
) -> MessageSnapshot:
    if (text is None) == (blocks is None):
        raise InvalidBody("a message has either text or blocks")
    if metadata is not None:
        check_json(metadata, "metadata")
    if text is not None:
        message = MessageSnapshot(role=role, status="complete", blocks=user_message(text).blocks, metadata=metadata)
    else:
        check_json(blocks, "blocks")
        numbered = [{"seq": 0, **block} for block in blocks or ()]
        parsed = tuple(structure(block, BlockSnapshot) for block in numbered)
        message = MessageSnapshot(role=role, status="complete", blocks=parsed, metadata=metadata)
    encode_json([text, role])
    return message
