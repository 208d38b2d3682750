"""Starts and restores that are asked for more than once under one key: the first answer, kept with the log.

The answer is written in the same part as what was asked for, so that there is never one without the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Final, final

from attrs import frozen

from ..codec import encode_record
from ..errors import IdempotencyConflict
from ..events import Cursor
from ..results import Queued, Restored, Started, Superseded
from ..stream.history import History
from ..stream.journal import Journal
from .transaction import StartRequest

__all__ = ["Answers", "Key"]

_PREFIX: Final = "idempotency/"

# Keys that are too old are looked for this often: a session that uses keys has few of them an hour.
_SWEEP: Final = 3600.0


@final
@frozen(kw_only=True)
class Key:
    """A key and whose it is; ``digest`` tells whether two requests with it ask for the same. None: no key was given."""

    key: str | None
    principal: str
    digest: str

    @property
    def record(self) -> str:
        name = f"{self.principal}\0{self.key}"
        return _PREFIX + sha256(name.encode()).hexdigest()


@final
@frozen(kw_only=True)
class _Answer:
    """What a key stands for. ``at`` is the wall clock in seconds, ``offset`` that of the answer's cursor.

    Of a restore, ``restored`` is how many messages it brought.
    """

    digest: str
    at: float
    offset: int
    generation_id: str = ""
    restored: int | None = None
    turn: int | None = None
    position: int | None = None
    message_id: str | None = None
    superseded: Superseded | None = None
    joined: bool = False


@final
class Answers:
    """The answers of one session, by principal and key."""

    __slots__ = ("_expired", "_history", "_journal", "_swept", "_ttl")

    def __init__(self, journal: Journal, history: History, ttl: float) -> None:
        self._journal = journal
        self._history = history
        self._ttl = ttl
        self._swept = 0.0
        self._expired: Sequence[str] = ()

    async def find(self, request: StartRequest) -> Started | Queued | None:
        """The first answer to this request, marked as repeated. Raises `IdempotencyConflict` for another request."""
        answer = await self._find(_key(request))
        if answer is None:
            return None
        cursor = Cursor(self._journal.epoch, answer.offset)
        if answer.position is not None:
            return Queued(generation_id=answer.generation_id, position=answer.position, cursor=cursor, repeated=True)
        return Started(
            generation_id=answer.generation_id,
            turn=answer.turn or 0,
            cursor=cursor,
            message_id=answer.message_id,
            superseded=answer.superseded,
            joined=answer.joined,
            repeated=True,
        )

    async def find_restored(self, key: Key) -> Restored | None:
        """The first answer to this restore, marked as repeated. Raises `IdempotencyConflict` for another request."""
        answer = await self._find(key)
        if answer is None:
            return None
        brought = await self._history.ask(lambda fold: fold.brought(answer.restored or 0, answer.offset))
        return Restored(message_ids=tuple(brought), cursor=Cursor(self._journal.epoch, answer.offset), repeated=True)

    async def _find(self, key: Key) -> _Answer | None:
        if key.key is None:
            return None
        await self._sweep()
        answer = await self._history.known(key.record, _Answer)
        if answer is None or answer.at + self._ttl < time.time():
            return None
        if answer.digest != key.digest:
            raise IdempotencyConflict(
                "this idempotency key was used for another request; choose a new one",
                session_id=self._journal.session_id,
            )
        return answer

    def _kept(self, key: Key, answer: _Answer) -> Mapping[str, bytes | None]:
        """What stores the answer."""
        # Once only: a key that is used anew after this must stay.
        old: dict[str, bytes | None] = dict.fromkeys(self._expired)
        self._expired = ()
        return {**old, key.record: encode_record(answer)}

    def restored(self, key: Key, offset: int, count: int) -> Mapping[str, bytes | None]:
        """What stores the answer to a restore that brought so many messages; nothing without a key."""
        if key.key is None:
            return {}
        return self._kept(key, _Answer(digest=key.digest, at=time.time(), offset=offset, restored=count))

    def answer(
        self,
        request: StartRequest,
        *,
        turn: int | None = None,
        position: int | None = None,
        superseded: Superseded | None = None,
        joined: str | None = None,
    ) -> Callable[[int], Mapping[str, bytes | None]]:
        """What stores the answer that the request gets, once its cursor's offset is known; nothing without a key.

        ``joined`` is the live generation that it got in place of one of its own.
        """

        def records(offset: int) -> Mapping[str, bytes | None]:
            if request.idempotency_key is None:
                return {}
            answer = _Answer(
                digest=request.digest,
                at=time.time(),
                offset=offset,
                generation_id=joined or request.generation_id,
                turn=turn,
                position=position,
                message_id=request.message_id if request.brings_message else None,
                superseded=superseded,
                joined=joined is not None,
            )
            return self._kept(_key(request), answer)

        return records

    async def _sweep(self) -> None:
        """Find the keys whose time is over; they go with the next answer that is written."""
        now = time.time()
        if now - self._swept < _SWEEP:
            return
        self._swept = now
        self._expired = [
            key
            for key, answer in (await self._history.all_known(_PREFIX, _Answer)).items()
            if answer.at + self._ttl < now
        ]


def _key(request: StartRequest) -> Key:
    return Key(key=request.idempotency_key, principal=request.principal, digest=request.digest)
