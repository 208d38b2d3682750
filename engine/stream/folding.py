"""The fold of one session's log, kept in memory and folded on whenever somebody asks; snapshots of it.

Owns how much of it stays in memory: the newest messages' content, `Config.fold_bytes` of it; what older ones say is
read again by whoever asks for it. Committed state only: ``read`` shows nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol, TypeVar, final
from weakref import WeakValueDictionary

import trio
from attrs import frozen

from ..codec import is_large
from ..config import Config
from ..errors import InvalidBody
from ..events import Event, MessageRetracted, MessageSnapshot
from ..log.port import Entry
from ..reducer import Folded, Gap, GenerationInfo, MessageView, SessionState, Snapshot, SnapshotPage
from ..reducer.content import Again, Evicted, GrowingMessage, Missing
from ..reducer.generations import GenerationPlace, GrowingGeneration
from ..reducer.transcript import Transcript, growing
from ..work import Work
from .aside import check_page, read_event, reading, reading_event, reading_in_bits
from .slices import SLICE, in_slices

__all__ = ["Fold", "Standing", "fold_to"]

T = TypeVar("T")


class Read(Protocol):
    """A page of events behind an offset, as they are stored, of at most so many; empty at the tail.

    Raises `StaleEpoch`.
    """

    def __call__(self, after: int, limit: int | None = None, /) -> Awaitable[Sequence[Entry]]: ...


# Messages that are read again at a time: what they took meanwhile is let go of at once, in about a millisecond.
_AT_A_TIME: Final = 1024


@final
@frozen(kw_only=True)
class Standing:
    """A message of the transcript, where the log has it, and the message before it. ``last``: 0 while it is open."""

    message: MessageView
    first: int
    last: int
    behind: str | None


@final
class Fold:
    """One folds at a time, up to the ``tail`` of that moment; what it has folded is kept, also when it is cancelled."""

    __slots__ = ("_config", "_lock", "_pages", "_read", "_state", "_tail")

    def __init__(self, session_id: str, epoch: str, read: Read, tail: Callable[[], int], config: Config) -> None:
        self._read: Final = read
        self._tail: Final = tail
        self._config: Final = config
        self._state: Final = SessionState(session_id, epoch)
        self._lock: Final = trio.Lock()
        # Those that somebody holds, by what was asked for.
        self._pages: Final[WeakValueDictionary[tuple[int, int, str | None, bool], SnapshotPage]] = WeakValueDictionary()

    @property
    def busy(self) -> bool:
        return self._lock.locked()

    async def go_on(self) -> None:
        """Fold up to the tail. Raises `StaleEpoch`, `CorruptSession`."""
        async with self._lock:
            await self._go_on()

    async def _go_on(self) -> None:
        await fold_to(self._state, self._tail(), self._read, most=self._config.fold_bytes)

    async def snapshot(self, limit: int | None, before: str | None) -> Snapshot:
        """See `SessionState.taking_snapshot`; raises as `go_on` does, too."""
        async with self._lock:
            await self._go_on()
            return await self._made(lambda again: self._state.taking_snapshot(limit, before, again))

    async def page(self, limit: int, before: str | None, *, with_open: bool) -> SnapshotPage:
        """See `SessionState.encoding_snapshot`; made once for all who ask at the same tail."""
        async with self._lock:
            await self._go_on()
            key = (self._state.offset, limit, before, with_open)
            page = self._pages.get(key)
            if page is None:
                most = self._config.snapshot_bytes
                made = await self._made(
                    lambda again: self._state.encoding_snapshot(limit, before, most, again, with_open=with_open)
                )
                page = self._pages[key] = SnapshotPage(*made)
            return page

    async def ask(self, question: Callable[[SessionState], T]) -> T:
        """What the state at the tail says to this question. Raises `StaleEpoch`, `CorruptSession`."""
        async with self._lock:
            await self._go_on()
            return question(self._state)

    async def dismantle(self) -> None:
        """Let go of it, in slices, behind those who wait for it. Nobody may use it from then on."""
        async with self._lock:
            await in_slices(self._state.dismantling())

    async def generation_info(self, generation_id: str, turn: int | None) -> GenerationInfo | None:
        """How the generation stands; None where the log has no more of it than whoever asks. ``turn``: once it has one.

        Raises `StaleEpoch`, `CorruptSession`.
        """
        async with self._lock:
            await self._go_on()
            known = self._state.generation_info(generation_id)
            if known is not None or turn is None:
                return known
            place = self._state.generation_place(generation_id, turn)
            return None if place is None else (await self._read_generation(place, Again())).info

    # --- versions

    async def standing(self, message_id: str) -> Standing:
        """Raises `MessageNotFound`, `StaleEpoch`, `CorruptSession`."""
        async with self._lock:
            await self._go_on()
            return await self._standing(message_id)

    async def standing_version(self, of: str) -> Standing | None:
        """The message that stands here as one of these versions. Raises `StaleEpoch`, `CorruptSession`."""
        async with self._lock:
            await self._go_on()
            message_id = self._state.version_of(of)
            return None if message_id is None else await self._standing(message_id)

    async def _standing(self, message_id: str) -> Standing:
        behind, known = self._state.standing(message_id)
        message = await self._read_one(known) if isinstance(known, Evicted) else known
        view = await in_slices(message.viewing())
        return Standing(message=view, first=known.first, last=known.last, behind=behind)

    async def left(self, message_id: str, first: int, last: int) -> MessageView:
        """A message that left the transcript, from where the log has it. Raises `StaleEpoch`, `CorruptSession`."""
        async with self._lock:
            place = Evicted(message_id=message_id, first=first, last=last, weight=0)
            return await in_slices((await self._read_one(place)).viewing())

    async def left_with(self, first: int, left: int) -> tuple[deque[MessageView], dict[str, GenerationInfo]]:
        """All messages that left with the one at ``left``, in order, and the generations that wrote them.

        Both are for the caller to use up: so many are not let go of at once. ``first`` is the offset at which the first
        of them began. Raises `StaleEpoch`, `CorruptSession`.
        """
        async with self._lock:
            await self._go_on()
            ids = await self._run_of(MessageRetracted, left)
            transcript, again = Transcript(), Again()
            await self._fold_between(transcript, again, dict.fromkeys(ids, left - 1), first - 1, left - 1)
            messages, _ = await in_slices(transcript.paging(None, None))
            with reading(self._state.session_id):
                if [message.message_id for message in messages] != ids:
                    raise InvalidBody(f"the messages that left at offset {left} are not in the log")
            generations: dict[str, GenerationInfo] = {}
            for number, message in enumerate(messages, 1):
                if (gid := message.generation_id) is not None and gid not in generations:
                    by = message.by or again.generations.get(gid) or await self._read_writer(message, again)
                    generations[gid] = by.info
                if number % SLICE == 0:
                    await trio.lowlevel.checkpoint()
            views = await in_slices(_views(messages))
            messages.clear()
            await in_slices(transcript.dismantling())
            await in_slices(again.dismantling())
            return views, generations

    async def brought(self, count: int, last: int) -> list[str]:
        """The ids of so many messages that came whole, one behind the other, up to the offset ``last``."""
        async with self._lock:
            return await self._run_of(MessageSnapshot, last - count + 1, count)

    async def _read_writer(self, message: GrowingMessage, again: Again) -> GrowingGeneration:
        """The generation that wrote a message that has left, from the log."""
        place = self._state.generation_place(message.generation_id or "", message.turn or 0)
        with reading(self._state.session_id):
            if place is None:
                raise InvalidBody(f"the log has no end of generation {message.generation_id}")
        return await self._read_generation(place, again)

    async def _run_of(self, kind: type, offset: int, most: int | None = None) -> list[str]:
        """The messages of the event at this offset, and of those right behind it of the same kind: ``most`` at most."""
        found: list[str] = []
        while most is None or len(found) < most:
            entries = await self._read(offset - 1 + len(found))
            run = _run(entries, kind, offset + len(found))
            here = await in_slices(reading_in_bits(self._state.session_id, run))
            found += here
            if not here or len(here) < len(entries):
                break
        return found[:most]

    async def _made(self, making: Callable[[Again], Work[T]]) -> T:
        """What it comes to, with what must be read again for it."""
        again = Again()
        while True:
            try:
                made = await in_slices(making(again))
            except Missing as missing:
                messages, generations = missing.messages, missing.generations
            else:
                await in_slices(again.dismantling())
                return made
            for start in range(0, len(messages), _AT_A_TIME):
                await self._read_again(messages[start : start + _AT_A_TIME], again)
            for place in generations:
                await self._read_generation(place, again)

    async def _read_generation(self, place: GenerationPlace, again: Again) -> GrowingGeneration:
        """How this one began and ended, from the log."""
        for offset in (place.begun, place.ended):
            again.note(await self._read_event(offset), self._state.epoch)
        with reading(self._state.session_id):
            if place.generation_id not in again.generations:
                raise InvalidBody(f"generation {place.generation_id} is not any more where it stood in the log")
        return again.generations[place.generation_id]

    async def _read_event(self, offset: int) -> Event:
        entries = await self._read(offset - 1, 1)
        with reading(self._state.session_id):
            if not entries or entries[0].offset != offset:
                raise InvalidBody(f"the log has nothing any more at offset {offset}")
            return read_event(entries[0])

    async def _read_one(self, place: Evicted) -> GrowingMessage:
        """This message, from the log."""
        again = Again()
        await self._read_again([place], again)
        return again.messages[place.message_id]

    async def _read_again(self, needed: Sequence[Evicted], again: Again) -> None:
        """Take these messages from the log. They are in the transcript's order, which is that of their begin."""
        wanted = {message.message_id: message.last for message in needed}
        transcript = Transcript()
        position = 0
        for message in needed:
            after = max(position, message.first - 1)
            position = await self._fold_between(transcript, again, wanted, after, message.last)
        messages, _ = await in_slices(transcript.paging(None, None))
        with reading(self._state.session_id):
            if len(messages) < len(wanted):
                raise InvalidBody("messages are not any more where they stood in the log")
        again.messages.update((message.message_id, message) for message in messages)

    async def _fold_between(
        self, transcript: Transcript, again: Again, wanted: Mapping[str, int], after: int, until: int
    ) -> int:
        """Fold what is of the messages that are wanted, behind ``after``; the offset it came to, ``until`` at least.

        ``again`` hears of the generations that are passed.
        """
        session_id, epoch = self._state.session_id, self._state.epoch
        while after < until:
            entries = await self._read(after)
            with reading(session_id):
                if not entries:
                    raise InvalidBody(f"the log ends before offset {until}")
                check_page(entries, after)
            await in_slices(reading_in_bits(session_id, _folding(transcript, again, epoch, wanted, entries)))
            after = entries[-1].offset
        return after


async def fold_to(state: SessionState, offset: int, read: Read, *, most: int | None = None) -> None:
    """Fold on up to ``offset``, in slices; with ``most``, what messages say is evicted beyond so many bytes.

    Raises `CorruptSession`, and what ``read`` raises. Cancelled, what is folded by then stays so.
    """
    while state.offset < offset:
        after = state.offset
        entries = await read(after)
        with reading(state.session_id):
            if not entries:
                raise InvalidBody(f"the log ends before offset {offset}")
            check_page(entries, after)
        passed = await _apply_page(state, entries, offset)
        if most is not None:
            await in_slices(state.evicting(most))
        if passed:
            return


async def _apply_page(state: SessionState, entries: Sequence[Entry], offset: int) -> bool:
    """Whether ``offset`` was passed."""
    for start in range(0, len(entries), SLICE):
        if start:
            await trio.lowlevel.checkpoint()
        part = entries[start : start + SLICE]
        if any(is_large(entry.body) for entry in part):
            passed = await in_slices(reading_in_bits(state.session_id, _applying(state, part, offset)))
        else:
            with reading(state.session_id):
                passed = _apply(state, part, offset)
        if passed:
            return True
    return False


def _apply(state: SessionState, entries: Sequence[Entry], offset: int) -> bool:
    """Fold these on; whether ``offset`` was passed. Raises `InvalidBody`."""
    for entry in entries:
        if entry.offset > offset:
            return True
        _must_fit(state.apply(read_event(entry)), entry)
    return False


def _applying(state: SessionState, entries: Sequence[Entry], offset: int) -> Work[bool]:
    """The same, where large ones are among them."""
    for entry in entries:
        if entry.offset > offset:
            return True
        event = yield from reading_event(entry)
        _must_fit((yield from state.applying(event)), entry)
        yield
    return False


def _folding(
    transcript: Transcript, again: Again, epoch: str, wanted: Mapping[str, int], entries: Sequence[Entry]
) -> Work[None]:
    """Fold what is of the messages that are wanted, each up to its last offset, whether it left later or by then.

    Raises `InvalidBody`.
    """
    for entry in entries:
        event = yield from reading_event(entry)
        if entry.offset <= wanted.get(event.message_id or "", 0) and not isinstance(event.data, MessageRetracted):
            _must_fit(transcript.fold(event, (yield from growing(event))), entry)
        again.note(event, epoch)
        yield


def _run(entries: Sequence[Entry], kind: type, offset: int) -> Work[list[str]]:
    """The messages of the first of these, from this offset on, as far as they say this and none is missing."""
    found: list[str] = []
    for entry in entries:
        event = yield from reading_event(entry)
        if not isinstance(event.data, kind) or event.offset != offset + len(found):
            break
        found.append(event.message_id or "")
        yield
    return found


def _views(messages: Sequence[GrowingMessage]) -> Work[deque[MessageView]]:
    views: deque[MessageView] = deque()
    for message in messages:
        views.append((yield from message.viewing()))
        yield
    return views


def _must_fit(result: Folded, entry: Entry) -> None:
    if isinstance(result, Gap):
        raise InvalidBody(f"the log does not add up at offset {entry.offset}: {result}")
