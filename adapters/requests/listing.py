"""The sessions that one principal may read: a page of them, and the list as it changes.

A listing tells of no other session: not by what is in it, not by where its next page begins, and not by how long
it takes when a pattern begins with what its sessions have in common.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Final, Literal, NamedTuple, Self, TypeAlias, final

import trio
from attrs import define, field, frozen
from cryptography.fernet import Fernet, InvalidToken

from penstock.engine import (
    JSON,
    CaughtUp,
    Cursor,
    Degraded,
    Drained,
    Engine,
    Gap,
    InvalidCursor,
    ListChange,
    Opened,
    PenstockError,
    SessionInfo,
    Watch,
    check_session_id,
    encode_json,
)

from .answers import LastWords, ListedGeneration, ListedSession, as_json

__all__ = ["LARGEST_PAGE", "FollowedList", "ListFrame", "Order", "Place", "list_body", "list_sessions"]

_log = logging.getLogger("penstock.list")

Order: TypeAlias = Literal["id", "updated"]

# Whether the principal may read the session with this id, by its token and by the application.
Permitted: TypeAlias = Callable[[str], Awaitable[bool]]

# Sessions in one page at most: what fits in memory for many clients at a time.
LARGEST_PAGE: Final = 1000

# Behind the last of the characters that an id may have, so behind every id that begins with what stands before it.
_BEHIND = "\x7f"

# So many sessions are looked at for one page, where the application refuses most of them; the next page goes on there.
_LOOKED_AT: Final = 1000

# What a session without a time was last active at.
_NEVER: Final = "1970-01-01T00:00:00.000Z"

_PLACE: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)(.+)", re.ASCII)

# Encrypts where a page begins, if that names a session that its reader may not know of; all are padded to one length.
# The key is as old as the process.
_SEAL: Final = Fernet(Fernet.generate_key())
_SEALED: Final = "*"  # in no id
_PADDED: Final = 176


@final
@frozen(order=True)
class _Range:
    """The ids that begin with ``prefix``; with ``alone``, this one only."""

    prefix: str
    alone: bool

    def start(self) -> str:
        """What every id of the range stands behind, and no id stands between."""
        if not self.prefix:
            return ""
        return self.prefix[:-1] + chr(ord(self.prefix[-1]) - 1) + _BEHIND

    def __contains__(self, session_id: str) -> bool:
        return session_id == self.prefix if self.alone else session_id.startswith(self.prefix)


def _ranges(patterns: Iterable[str]) -> list[_Range]:
    """Where ids that match can be: in order, and none within another."""
    kept: list[_Range] = []
    for found in sorted({_Range(pattern.partition("*")[0], "*" not in pattern) for pattern in patterns}):
        if not any(found.prefix in other for other in kept):
            kept.append(found)
    return kept


@final
@frozen
class Place:
    """Where a session stands in the list: ``updated`` in the order of that, empty in the order of ids."""

    updated: str
    session_id: str

    @classmethod
    def of(cls, session: SessionInfo, order: Order) -> Place:
        return cls((session.updated or _NEVER) if order == "updated" else "", session.session_id)

    @classmethod
    def parse(cls, text: str, order: Order) -> Place:
        """What `encode`, or in the order of ids an id, says. Raises `InvalidCursor`, and `InvalidId` for no id."""
        try:
            if text.startswith(_SEALED):
                text = _SEAL.decrypt(text[len(_SEALED) :].encode()).decode().rstrip()
            if order == "id":
                return cls("", check_session_id(text))
            match = _PLACE.fullmatch(text)
            if match is not None:
                datetime.fromisoformat(match[1])
                return cls(match[1], check_session_id(match[2]))
        except (InvalidToken, ValueError):
            pass
        raise InvalidCursor("after is no `next` of a page in this order, or of one before the server was started")

    def encode(self, *, openly: bool) -> str:
        """As a page's ``next``: readable if ``openly``, else encrypted."""
        text = self.updated + self.session_id
        return text if openly else _SEALED + _SEAL.encrypt(text.ljust(_PADDED).encode()).decode()

    @property
    def key(self) -> tuple[float, str]:
        """Smaller is earlier in the list."""
        return -datetime.fromisoformat(self.updated).timestamp() if self.updated else 0.0, self.session_id


@final
@define
class _Part:
    """The sessions of one range behind ``place``, page by page."""

    range: _Range
    place: Place | None
    ready: deque[SessionInfo] = field(factory=deque)
    over: bool = False

    async def fill(self, engine: Engine, order: Order, size: int) -> None:
        """Have the next one ready, if there is one."""
        while not (self.ready or self.over):
            most = engine.config.snapshot_bytes
            if self.range.alone:
                self.over = True
                page = await engine.sessions(self.range.start(), 1, most_bytes=most)
            elif order == "id":
                behind = max(self.range.start(), "" if self.place is None else self.place.session_id)
                page = await engine.sessions(behind, size, most_bytes=most)
            else:
                after, updated = ("", None) if self.place is None else (self.place.session_id, self.place.updated)
                page = await engine.sessions(
                    after, size, order=order, updated=updated, prefix=self.range.prefix, most_bytes=most
                )
            inside = [session for session in page if session.session_id in self.range]
            self.over |= len(inside) < len(page) or not page
            before = self.place
            if self.range.alone and before is not None:
                inside = [session for session in inside if Place.of(session, order).key > before.key]
            if inside:
                self.place = Place.of(inside[-1], order)
            self.ready.extend(inside)


async def list_sessions(
    engine: Engine,
    patterns: Iterable[str],
    permitted: Permitted,
    *,
    order: Order,
    after: Place | None,
    page_size: int,
) -> tuple[list[bytes], str | None]:
    """A page of the sessions behind ``after`` that match one of ``patterns`` and are ``permitted``: each as JSON.

    So many of them, if there are, within `Config.snapshot_bytes` but for a single one; and where the next page begins,
    if others come behind it. Where most are refused, it is fewer, and others may come. Raises `InvalidCursor`.
    """
    parts = [_Part(part, after) for part in _ranges(patterns)]
    found: list[bytes] = []
    last: Place | None = None
    place: Place | None = None
    left = engine.config.snapshot_bytes
    for _ in range(_LOOKED_AT + page_size):
        session = await _next(engine, parts, order, page_size + 1)
        if session is None:
            return found, None
        place = Place.of(session, order)
        if await permitted(session.session_id):
            body = encode_json(as_json(listed(session)))
            left -= len(body)
            if found and (len(found) == page_size or left < 0):
                assert last is not None
                return found, last.encode(openly=True)
            found.append(body)
            last = place
    assert place is not None
    return found, place.encode(openly=place == last)


async def _next(engine: Engine, parts: Sequence[_Part], order: Order, size: int) -> SessionInfo | None:
    """The first of all that are left."""
    first: _Part | None = None
    for part in parts:
        await part.fill(engine, order, size)
        if part.ready and (first is None or Place.of(part.ready[0], order).key < Place.of(first.ready[0], order).key):
            first = part
            if order == "id":
                break  # they stand in order
    return None if first is None else first.ready.popleft()


def listed(session: SessionInfo) -> ListedSession:
    """A session as lists tell it."""
    live, last = session.generation_id, session.last
    return ListedSession(
        session_id=session.session_id,
        cursor=session.cursor,
        metadata=session.metadata,
        corrupt=session.corrupt or None,
        generation=None if live is None else ListedGeneration(generation_id=live),
        created=session.created,
        updated=session.updated,
        title=session.title,
        running=session.running,
        approvals=session.approvals,
        last=None if last is None else LastWords(role=last.role, text=last.text),
    )


@final
class ListFrame(NamedTuple):
    """A frame about the list: its name, the JSON object that it says, and where its reader stands then."""

    name: str
    body: bytes
    cursor: Cursor


def _frame(change: ListChange) -> ListFrame:
    if change.session is None:
        said: dict[str, JSON] = {"session_id": change.session_id}
        return ListFrame("session-gone", encode_json(said), change.cursor)
    return ListFrame("session", encode_json(as_json(listed(change.session))), change.cursor)


@final
class FollowedList:
    """The list as one principal may read it, from its first page on, or from where they were. Use as ``async with``.

    It ends with the engine, or without ``live`` once it is caught up.

    ``patterns`` are the ids that the token is for, ``wants`` says the same of one id, ``permitted`` also what the
    application says. One task may receive; cancelling that loses nothing and repeats nothing.
    """

    def __init__(
        self,
        engine: Engine,
        after: Cursor | None,
        *,
        patterns: Sequence[str],
        wants: Callable[[str], bool],
        permitted: Permitted,
        page_size: int,
        live: bool = True,
    ) -> None:
        self._engine = engine
        self._live = live
        self._over = False
        self._patterns = patterns
        self._permitted = permitted
        self._page_size = page_size
        self._watch: Watch = engine.watch(after, wants=wants)
        self._page_due: Cursor | None = None  # a page comes next, and what changes behind this
        self._begins_with_page = after is None
        self._answers: dict[str, bool] = {}  # by session, for the page that is being made
        self._change: ListChange | None = None  # of which it is not known yet whether it may be told

    async def __aenter__(self) -> Self:
        await self._watch.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._watch.__aexit__(*raised)

    async def receive(self) -> ListFrame | Opened | Gap | CaughtUp | Degraded | Drained:
        """What is told next. Raises `trio.EndOfChannel` behind the last, and `StorageError`."""
        if self._over:
            raise trio.EndOfChannel
        try:
            return await self._receive()
        except (PenstockError, trio.EndOfChannel):
            raise
        except Exception:  # noqa: BLE001  # the application's bug: who cannot be asked has not said yes
            _log.exception("asking which sessions may be read failed")
            self._over = True
            return Degraded("INTERNAL")

    async def _receive(self) -> ListFrame | Opened | Gap | CaughtUp | Drained:
        while True:
            if self._page_due is not None:
                page = await self._page(self._page_due)
                self._page_due = None
                return page
            if self._change is not None:
                change = self._change
                allowed = await self._permitted(change.session_id)
                self._change = None
                if allowed:
                    return change.framed(_frame)
                continue
            delivery = await self._watch.receive()
            match delivery:
                case ListChange():
                    self._change = delivery
                    continue
                case Opened(cursor=cursor) if self._begins_with_page:
                    self._page_due = cursor
                case Gap(resumed=cursor):
                    self._page_due = cursor
                case CaughtUp():
                    self._over = not self._live
                case _:
                    pass
            return delivery

    def receive_ready(self) -> None:
        """Nothing: whether a change may be told has to be asked."""

    async def _page(self, cursor: Cursor) -> ListFrame:
        """Cancelled and called again, it asks of no session again: all the answers may take longer than who receives
        waits at a time."""
        found, place = await list_sessions(
            self._engine,
            self._patterns,
            self._known,
            order="updated",
            after=None,
            page_size=self._page_size,
        )
        self._answers.clear()
        return ListFrame("sessions", list_body(found, place), cursor)

    async def _known(self, session_id: str) -> bool:
        if session_id not in self._answers:
            self._answers[session_id] = await self._permitted(session_id)
        return self._answers[session_id]


def list_body(found: Sequence[bytes], place: str | None) -> bytes:
    """A page's JSON."""
    behind = b"" if place is None else b',"next":%b' % encode_json(place)
    return b'{"sessions":[%b]%b}' % (b",".join(found), behind)
