"""What can be read of a session in memory: pages of its log, its records, and its snapshot. Committed state only."""

from __future__ import annotations

from typing import final

import trio

from .codec import decode
from .config import Config
from .errors import CorruptDatabase, GenerationNotFound
from .events import Cursor
from .hub import Hub
from .journal import Journal
from .log.port import Entry, EventLog
from .records import GenerationRecord, MessageRecord, generation_key, message_key, read_record
from .reducer import Gap, SessionState, Snapshot
from .results import GenerationInfo

__all__ = ["Reads"]


@final
class Reads:
    """The readers' side of one session; the source of its subscriptions."""

    def __init__(self, log: EventLog, journal: Journal, hub: Hub, config: Config) -> None:
        self.hub = hub
        self._log = log
        self._journal = journal
        self._config = config
        self._state: SessionState | None = None
        self._folding = trio.Lock()

    @property
    def session_id(self) -> str:
        return self._journal.session_id

    @property
    def cursor(self) -> Cursor:
        """The committed tail."""
        return self._journal.cursor

    @property
    def busy(self) -> bool:
        """Whether somebody reads right now; subscribers count at the hub."""
        return self._folding.locked()

    async def read(self, after: int) -> list[Entry]:
        """One page of the log behind ``after``; empty at the tail. Raises `StaleEpoch`."""
        config = self._config
        page = await self._log.read(
            self.session_id, self._journal.epoch, after=after, limit=config.page_events, max_bytes=config.page_bytes
        )
        # What is stored and not reported yet is not shown: its cursor would be past the tail that we tell others.
        tail = self._journal.committed
        return page if not page or page[-1].offset <= tail else [entry for entry in page if entry.offset <= tail]

    async def snapshot(self, limit: int | None = None, before: str | None = None) -> Snapshot:
        """The fold of the log up to the committed tail. Kept, and folded on from next time.

        ``limit`` is the number of messages, the newest or those before the message ``before``. Cancelled,
        it keeps what it has folded.
        """
        async with self._folding:
            tail = self._journal.cursor
            state = self._state
            if state is None:
                state = self._state = SessionState(self.session_id, tail.epoch)
            while state.cursor.offset < tail.offset:
                for entry in await self.read(state.cursor.offset):
                    result = state.apply(decode(entry.body))
                    if isinstance(result, Gap):
                        raise CorruptDatabase(
                            f"the log of the session does not add up at offset {entry.offset}: {result}",
                            session_id=self.session_id,
                        )
            return state.snapshot(limit, before)

    async def generation(self, generation_id: str) -> GenerationRecord | None:
        """What the log knows of the generation."""
        body = await self._log.record(self.session_id, self._journal.epoch, generation_key(generation_id))
        return None if body is None else read_record(body, GenerationRecord)

    async def generation_info(self, generation_id: str) -> GenerationInfo:
        """Of a generation that is not live. Raises `GenerationNotFound`."""
        record = await self.generation(generation_id)
        if record is None:
            raise GenerationNotFound(
                "the session never saw this generation", session_id=self.session_id, generation_id=generation_id
            )
        state = "live" if record.outcome is None else "finished"
        return GenerationInfo(generation_id=generation_id, state=state, turn=record.turn, outcome=record.outcome)

    async def message(self, message_id: str) -> MessageRecord | None:
        """What the log knows of the message."""
        body = await self._log.record(self.session_id, self._journal.epoch, message_key(message_id))
        return None if body is None else read_record(body, MessageRecord)
