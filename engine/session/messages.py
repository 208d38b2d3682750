"""The messages of one session by their ids: which are taken, posts and retractions; and the session's metadata."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import final

import trio

from ..codec import encode_json
from ..config import Config
from ..errors import GenerationActive, IdInUse, TimedOut
from ..events import Cursor, JSONObject, MessageSnapshot, SessionUpdated
from ..generation.stamper import LongPart, stamp
from ..results import Posted, Updated
from ..rules.lifecycle import Draft
from ..rules.merging import updated
from ..rules.records import METADATA, MessageRecord
from ..stream.history import History
from ..stream.journal import Journal, Mark
from ..stream.slices import in_slices
from .transaction import digest, posted, retracted

__all__ = ["Messages"]


@final
class Messages:
    """Knows the ids that are stamped and not committed yet; the log knows the others."""

    __slots__ = ("_asked", "_check_open", "_config", "_history", "_journal", "_stamped")

    def __init__(self, journal: Journal, history: History, config: Config, *, check_open: Callable[[], None]) -> None:
        self._journal = journal
        self._history = history
        self._config = config
        self._check_open = check_open
        self._stamped: dict[str, Mark] = {}
        self._asked: list[str] = []  # ids that the log is being asked for: what becomes of them meanwhile is kept

    def note(self, message_id: str, mark: Mark) -> None:
        """The message was stamped at ``mark``."""
        self._stamped = {
            mid: m for mid, m in self._stamped.items() if mid in self._asked or not self._journal.settled(m)
        }
        self._stamped[message_id] = mark

    async def owners(self, message_ids: Collection[str]) -> dict[str, str | None]:
        """Of those that the session knows: the generation, or None for a posted one. Holds as `check_new` does."""
        found = await self._find_all(message_ids)
        return {message_id: record.generation_id for message_id, record in found.items()}

    async def check_new(self, message_id: str) -> None:
        """Raises `IdInUse` when the session knows a message with this id. Holds until the caller waits again."""
        if await self._find(message_id) is not None:
            raise IdInUse("a message had this id before", session_id=self._journal.session_id, message_id=message_id)

    async def post(self, message: MessageSnapshot, message_id: str, *, proposed: bool) -> Posted:
        """Append a whole message of the session's own; durable when this returns.

        The same id with the same content changes nothing; with other content it raises `IdInUse`. Waits for room
        when the disk is behind, at most `Config.flush_timeout`; then it raises `TimedOut` and nothing was written.
        """
        with trio.move_on_after(self._config.flush_timeout) as limit:
            await self._journal.wait_room()
        if limit.cancelled_caught:
            raise TimedOut("the log is behind and takes nothing new", session_id=self._journal.session_id)
        if proposed:
            record = await self._find(message_id)
            if record is not None:
                if record.digest != digest(message):
                    raise IdInUse(
                        "a message with other content has this id",
                        session_id=self._journal.session_id,
                        message_id=message_id,
                    )
                return Posted(message_id=message_id, cursor=self._journal.cursor, created=False)
        self._check_open()
        transaction = posted(message, message_id)
        mark = stamp(self._journal, transaction.items, transaction.records)
        self.note(message_id, mark)
        await self._journal.wait_committed(mark, self._config.flush_timeout)
        return Posted(message_id=message_id, cursor=self._journal.cursor_at(mark), created=True)

    async def retract(self, message_id: str, *, and_after: bool, kept: Callable[[], Collection[str]]) -> Cursor:
        """Take the message, and with ``and_after`` those behind it, out of the transcript. A step of the session.

        Raises `MessageNotFound`, and `GenerationActive` when one of them is among ``kept``, the live generation's.
        """
        await self._journal.wait_committed(self._journal.mark(), self._config.flush_timeout)
        found = await self._history.message_ids(message_id)
        wanted = found if and_after else found[:1]
        # Asked for behind the last wait: the live generation opens messages meanwhile.
        if not set(wanted).isdisjoint(kept()):
            raise GenerationActive(
                "a message of the live generation cannot be retracted; stop it first",
                session_id=self._journal.session_id,
                message_id=message_id,
            )
        part = LongPart(self._journal)
        await in_slices(part.preparing(retracted(wanted, "retracted").items))
        mark = part.stamp()
        await in_slices(part.writing())
        await self._journal.wait_committed(mark, self._config.flush_timeout)
        return self._journal.cursor_at(mark)

    async def update(self, patch: JSONObject) -> Updated:
        """Merge ``patch`` into the session's metadata. A step of the session. Raises `InvalidBody` for too many."""
        # A patch whose caller was told `TimedOut` may yet be stored; this one comes on top of it.
        await self._journal.wait_committed(self._journal.mark(), self._config.flush_timeout)
        metadata = updated(await self._history.metadata(), patch)
        event = Draft(SessionUpdated(metadata=metadata))
        mark = stamp(self._journal, [(None, event)], {METADATA: encode_json(metadata)})
        await self._journal.wait_committed(mark, self._config.flush_timeout)
        return Updated(metadata=metadata, cursor=self._journal.cursor_at(mark))

    async def _find(self, message_id: str) -> MessageRecord | None:
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
                    return found
        finally:
            for message_id in message_ids:
                self._asked.remove(message_id)
