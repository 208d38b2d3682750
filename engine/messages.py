"""The messages of one session by their ids: which are taken, and posts of whole messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from .config import Config
from .errors import IdInUse
from .events import MessageSnapshot
from .journal import Journal, Mark
from .parts import digest, posted
from .reads import Reads
from .results import Posted
from .stamper import stamp

__all__ = ["Messages"]


@final
class Messages:
    """Knows the ids that are stamped and not committed yet; the log knows the others."""

    def __init__(
        self, journal: Journal, reads: Reads, config: Config, *, check_open: Callable[[], None]
    ) -> None:
        self._journal = journal
        self._reads = reads
        self._config = config
        self._check_open = check_open
        self._stamped: dict[str, Mark] = {}

    def note(self, message_id: str, mark: Mark) -> None:
        """The message was stamped at ``mark``."""
        self._stamped = {mid: m for mid, m in self._stamped.items() if not self._journal.settled(m)}
        self._stamped[message_id] = mark

    async def check_new(self, message_id: str) -> None:
        """Raises `IdInUse` when the session knows a message with this id."""
        await self._settled(message_id)
        if await self._reads.message(message_id) is not None:
            raise IdInUse("a message had this id before", session_id=self._journal.session_id, message_id=message_id)

    async def post(self, message: MessageSnapshot, message_id: str, *, proposed: bool) -> Posted:
        """Append a whole message of the session's own; durable when this returns.

        The same id with the same content changes nothing; with other content it raises `IdInUse`.
        """
        while proposed:
            await self._settled(message_id)
            record = await self._reads.message(message_id)
            if record is not None:
                if record.digest != digest(message):
                    raise IdInUse(
                        "a message with other content has this id",
                        session_id=self._journal.session_id,
                        message_id=message_id,
                    )
                return Posted(message_id=message_id, cursor=self._journal.cursor, created=False)
            # Somebody may have posted it while the log was asked.
            proposed = message_id in self._stamped
        self._check_open()
        item, records = posted(message, message_id)
        mark = stamp(self._journal, [item], records)
        self.note(message_id, mark)
        await self._journal.wait_committed(mark, self._config.flush_timeout)
        return Posted(message_id=message_id, cursor=self._journal.cursor_at(mark), created=True)

    async def _settled(self, message_id: str) -> None:
        mark = self._stamped.get(message_id)
        if mark is None:
            return
        if not self._journal.settled(mark):
            await self._journal.wait_committed(mark, self._config.flush_timeout)
        if self._stamped.get(message_id) is mark:
            del self._stamped[message_id]
