"""Sessions that are set aside: what is stored of them cannot be read, and all others go on.

Owns what that is, and which sessions of one engine it befell. Whoever reads what is stored of a session does so inside
`reading`, and tells its registry what came of it; what it means for a session in memory is `resident`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from types import TracebackType
from typing import Final, Protocol, TypeVar, final

from ..codec import check_event, decode, decode_json, decoding
from ..errors import CorruptSession, InvalidBody, PenstockError, StorageError
from ..events import Event, JSONObject
from ..facts import Observer, SessionSetAside
from ..log.port import Entry, Head
from ..work import Work

__all__ = [
    "Aside",
    "SetsAside",
    "check_page",
    "check_readable",
    "read_event",
    "read_metadata",
    "reading",
    "reading_event",
    "reading_in_bits",
    "sound",
]


T = TypeVar("T")


class SetsAside(Protocol):
    """What walks over all sessions tell of them: which cannot be read, and whose events are rewritten now."""

    def is_aside(self, session_id: str) -> bool:
        """Whether there is nothing to be done in this session."""

    def set_aside(self, error: CorruptSession) -> None:
        """What is stored of the session that ``error`` names cannot be read."""

    def rewriting(self, session_id: str) -> AbstractContextManager[None]:
        """Enter it around a write that changes stored events: meanwhile no page of them is shared among readers."""


# Of an entry's offset and body.
_KINDS: Final = frozenset({int, bytes})


# What says nothing about the data: errors of the store and of the process. A missing name is a bug of ours.
_NO_DAMAGE: Final = (StorageError, MemoryError, NameError)


def reading(session_id: str) -> AbstractContextManager[None]:
    """What is made sense of in here was stored by an engine: where it makes none, `CorruptSession` is raised.

    Nothing is waited for in here, and nothing judged that somebody asks for.
    """
    return _Reading(session_id)


@final
class _Reading:
    """A class, for a generator takes several times as long, and there are several in every turn."""

    __slots__ = ("_session_id",)

    def __init__(self, session_id: str) -> None:
        self._session_id = session_id

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Damage can lead to anything that any line in there may raise.
        if isinstance(error, Exception) and not isinstance(error, _NO_DAMAGE):
            said = error.detail if isinstance(error, PenstockError) else f"{type(error).__name__}: {error}"
            raise CorruptSession(said, session_id=self._session_id) from error


def reading_in_bits(session_id: str, work: Work[T]) -> Work[T]:
    """The work, inside `reading`."""
    with reading(session_id):
        found = yield from work
    return found


def check_page(page: Sequence[Entry], after: int) -> None:
    """See that these are numbers and bytes, as a log stores them, behind ``after``. Raises `InvalidBody`."""
    if not page or (_KINDS.issuperset(map(type, chain.from_iterable(page))) and page[0].offset > after):
        return
    for offset, body in page:  # something is wrong: which
        if type(offset) is not int or offset <= after or type(body) is not bytes:
            break
        after = offset
    raise InvalidBody(f"what is stored behind offset {after} is no event")


def check_readable(page: Iterable[Entry]) -> None:
    """See that readers can be given these as they are. Raises `InvalidBody`."""
    for entry in page:
        try:
            check_event(entry.body)
        except InvalidBody as error:
            raise InvalidBody(f"the event at offset {entry.offset} cannot be read: {error}") from error


def read_event(entry: Entry) -> Event:
    """The event that is stored there. Raises `InvalidBody`, also when it says that it stands elsewhere."""
    try:
        event = decode(entry.body)
    except InvalidBody as error:
        raise _unreadable(entry, error) from error
    return _standing_there(entry, event)


def reading_event(entry: Entry) -> Work[Event]:
    """`read_event`, in bits if it is a large one."""
    try:
        event = yield from decoding(entry.body)
    except InvalidBody as error:
        raise _unreadable(entry, error) from error
    return _standing_there(entry, event)


def _unreadable(entry: Entry, error: InvalidBody) -> InvalidBody:
    return InvalidBody(f"the event at offset {entry.offset} cannot be read: {error}")


def _standing_there(entry: Entry, event: Event) -> Event:
    if event.offset != entry.offset:
        raise InvalidBody(f"the event at offset {entry.offset} says that it is at {event.offset}")
    return event


def read_metadata(session_id: str, body: bytes | None) -> JSONObject:
    """The session's metadata, as they are stored. Raises `CorruptSession`."""
    with reading(session_id):
        found = {} if body is None else decode_json(body)
        if not isinstance(found, dict):
            raise InvalidBody("its metadata are no object")
        return found


def sound(head: Head | None) -> Head | None:
    """The head, where the log could tell. Raises `CorruptSession`."""
    if head is not None and head.damage is not None:
        raise CorruptSession(head.damage, session_id=head.session_id)
    return head


@final
class Aside:
    """The sessions of one engine that are set aside, and why. Each is told of once."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._reasons: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._reasons)

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._reasons

    def add(self, session_id: str, error: CorruptSession) -> None:
        if session_id not in self._reasons:
            self._reasons[session_id] = error.detail
            self._observer.observe(SessionSetAside(session_id=session_id, error=error))

    def remove(self, session_id: str) -> None:
        """It was deleted."""
        self._reasons.pop(session_id, None)

    def check(self, session_id: str) -> None:
        """Raises `CorruptSession` for one of them."""
        reason = self._reasons.get(session_id)
        if reason is not None:
            raise CorruptSession(reason, session_id=session_id)
