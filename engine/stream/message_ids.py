"""Which ids of messages one session knows: those that are stamped and not committed yet; the log knows the others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import final

from ..config import Config
from ..errors import IdInUse
from ..rules.records import MessageRecord
from .history import History
from .journal import Journal, Mark

__all__ = ["MessageIds"]


@final
class MessageIds:
    """Of one session in memory."""

    __slots__ = ("_asked", "_claimed", "_config", "_history", "_journal", "_stamped")

    def __init__(self, journal: Journal, history: History, config: Config) -> None:
        self._journal = journal
        self._history = history
        self._config = config
        self._stamped: dict[str, Mark] = {}
        self._claimed: list[str] = []  # ids that somebody is about to stamp
        self._asked: list[str] = []  # ids that the log is being asked for: what becomes of them meanwhile is kept

    def note(self, message_id: str, mark: Mark) -> None:
        """The message was stamped at ``mark``."""
        self._stamped = {
            mid: m for mid, m in self._stamped.items() if mid in self._asked or not self._journal.settled(m)
        }
        self._stamped[message_id] = mark

    @asynccontextmanager
    async def claiming(self, message_id: str | None) -> AsyncIterator[None]:
        """Keep this id, if there is one, for who is in here, who may wait before it is stamped.

        Raises `IdInUse` when the session knows a message with this id.
        """
        if message_id is None:
            yield
            return
        await self.check_new(message_id)
        self._claimed.append(message_id)
        try:
            yield
        finally:
            self._claimed.remove(message_id)

    async def owners(self, message_ids: Collection[str]) -> dict[str, str | None]:
        """Of those that the session knows: the generation, or None for a posted one. Holds as `check_new` does."""
        found = await self._find_all(message_ids)
        return {message_id: record.generation_id for message_id, record in found.items()}

    async def check_new(self, message_id: str) -> None:
        """Raises `IdInUse` when the session knows a message with this id. Holds until the caller waits again."""
        if await self.find(message_id) is not None:
            raise IdInUse("a message had this id before", session_id=self._journal.session_id, message_id=message_id)

    async def find(self, message_id: str) -> MessageRecord | None:
        """What the session knows of the message. None: nobody had stamped it, either, when this returned."""
        return (await self._find_all((message_id,))).get(message_id)

    async def _find_all(self, message_ids: Collection[str]) -> dict[str, MessageRecord]:
        """What the session knows of these. The others nobody had stamped, either, when this returned."""
        self._asked.extend(message_ids)
        try:
            found: dict[str, MessageRecord] = {}
            while True:
                marks = {message_id: self._stamped.get(message_id) for message_id in message_ids}
                for message_id in marks.keys() - found.keys():
                    mark = marks[message_id]
                    if mark is not None and not self._journal.settled(mark):
                        await self._journal.wait_committed(mark, self._config.flush_timeout)
                    record = await self._history.message(message_id)
                    if record is not None:
                        found[message_id] = record
                if all(mid in found or self._stamped.get(mid) is mark for mid, mark in marks.items()):
                    claimed = (mid for mid in self._claimed if mid in marks)
                    return {**dict.fromkeys(claimed, MessageRecord()), **found}
        finally:
            for message_id in message_ids:
                self._asked.remove(message_id)
