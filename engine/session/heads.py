"""Where sessions stand in the log, and the writes that begin or end one: for sessions that are not in memory.

Owns that each of these writes is waited for, at most `Config.flush_timeout`, and that a session whose head makes no
sense is set aside. That one does so at a time, and when the engine still may, is `registry`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import final

import trio

from ..codec import encode_json
from ..errors import CorruptSession, PenstockError, SessionDeleted, SessionNotFound, TimedOut
from ..events import JSONObject, SessionId, new_epoch
from ..log.port import Append, Claim, Delete, EventLog, Head, Summary, next_block
from ..rules.listing import Listed
from ..rules.records import METADATA
from ..stream.aside import Aside, sound

__all__ = ["Heads"]


@final
class Heads:
    """Of one engine, named ``owner`` where others share its log. ``touch`` hears of each session begun or ended."""

    def __init__(
        self,
        log: EventLog,
        aside: Aside,
        owner: str,
        flush_timeout: float,
        *,
        set_aside: Callable[[CorruptSession], None],
        touch: Callable[[str], None],
    ) -> None:
        self._log = log
        self._aside = aside
        self._owner = owner
        self._flush_timeout = flush_timeout
        self._set_aside = set_aside
        self._touch = touch

    async def find(self, session_id: SessionId) -> Head | None:
        """Where the session stands in the log. Raises `CorruptSession`."""
        self._aside.check(session_id)
        try:
            return sound(await self._log.head(session_id))
        except CorruptSession as error:
            self._set_aside(error)
            raise

    async def living(self, session_id: SessionId) -> Head:
        """As `find`. Raises `SessionNotFound`, `SessionDeleted`."""
        head = await self.find(session_id)
        if head is None:
            raise SessionNotFound("there is no session with this id", session_id=session_id)
        if head.deleted:
            raise SessionDeleted("the session was deleted", session_id=session_id)
        return head

    async def begin(
        self,
        session_id: SessionId,
        former: Head | None,
        events: Sequence[bytes],
        metadata: JSONObject,
        records: Mapping[str, bytes | None],
        listed: Listed,
    ) -> Head:
        """Write a session's first events. Raises `IdInUse` when it exists."""
        epoch = new_epoch()
        token = next_block(0 if former is None else former.token)
        if metadata:
            records = {**records, METADATA: encode_json(metadata)}
        write = Append(
            session_id=session_id,
            epoch=epoch,
            expected_tail=0,
            token=token,
            events=events,
            records=records,
            summary=Summary(listed.rank, listed.encoded()),
            create=True,
            owner=self._owner,
        )
        if not await self.written(write, partial(self._touch, session_id)):
            raise TimedOut("the log has not stored the session yet", session_id=session_id)
        return Head(
            session_id=session_id,
            epoch=epoch,
            tail=len(events),
            token=token,
            owner=self._owner,
            summary=write.summary,
        )

    async def end(self, session_id: SessionId, head: Head) -> None:
        """Delete what has just begun, which nobody has used, as far as that can be stored in time."""
        gone = Delete(session_id=session_id, epoch=head.epoch, token=head.token + 1)
        await self.written(gone, partial(self._touch, session_id))

    async def discard(self, session_id: SessionId) -> None:
        """End the session's life, whatever is stored of it. Raises `WriteFailed`, `TimedOut`."""

        def on_stored() -> None:
            self._aside.remove(session_id)
            self._touch(session_id)

        head = await self._log.head(session_id)
        token = next_block(0 if head is None else head.token)
        write = Delete(session_id=session_id, epoch=new_epoch(), token=token, forced=True)
        if not await self.written(write, on_stored):
            raise TimedOut("the log has not deleted the session yet", session_id=session_id)

    async def written(self, write: Append | Claim | Delete, on_stored: Callable[[], None]) -> bool:
        """Hand the write over, and wait for its report, at most `Config.flush_timeout`; whether it came.

        ``on_stored`` is called in that report, also when the caller has left by then. Raises what the log refuses with.
        """
        reported = trio.Event()
        refusals: list[PenstockError] = []

        def report(error: PenstockError | None) -> None:
            if error is None:
                on_stored()
            else:
                refusals.append(error)
            reported.set()

        self._log.submit(write, report)
        with trio.move_on_after(self._flush_timeout):
            await reported.wait()
        if refusals:
            raise refusals[0]
        return reported.is_set()
