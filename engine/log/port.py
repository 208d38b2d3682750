"""The port `EventLog`: compare-and-append over many sessions' logs, and what goes through it.

A log stores bytes it does not understand, in order, without holes, and small records beside them that
change in the same transaction. It knows nothing of event types. Ownership of a session is the right to
append with its current token: an append with a lower one is refused, a higher one becomes current.

Where several engines share a log, each has a name, and tokens come in blocks of `BLOCK`. Whoever creates a session, or
claims it, gets the first token of a block that nobody had, and raises it inside that block. So two engines never write
under the same token, and one that was overtaken is refused for good. An engine that is alone on its log needs no name
and claims nothing.

A store of others can go back: a replica that was behind becomes the primary, a backup is restored. What it had
acknowledged is gone then, and the offsets of what is gone would be given again. So what shows that it went back makes
its log doubt all that it holds: a session in doubt takes no append until a `Claim` has given it a new epoch, and
cursors of before are of none.
"""

from __future__ import annotations

import abc
import json
import logging
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias, cast, final

import trio
from attrs import field, frozen

from ..errors import CorruptSession, PenstockError, StaleEpoch
from ..rules.records import CLAIMS

__all__ = [
    "BLOCK",
    "MOST",
    "NOWHERE",
    "Append",
    "Claim",
    "Compact",
    "Delete",
    "Entry",
    "EventLog",
    "Head",
    "Keep",
    "LogStatistics",
    "Move",
    "Release",
    "Report",
    "Summary",
    "Write",
    "check_plain_key",
    "head_of",
    "life_of",
    "next_block",
    "rebased",
    "tell",
]

logger = logging.getLogger("penstock.log")


# An epoch's grammar, as cursors have it; and one that no life has.
_EPOCH: Final = re.compile(r"[A-Za-z0-9]{1,32}")
NOWHERE: Final = "0"

# Far more than there are events or owners in any session, far enough below what SQLite can hold, and where JSON and Lua
# begin to lose whole numbers.
MOST: Final = 2**53

# Tokens in a block: how often its owner can raise the fence, once a step. 2^33 blocks are below `MOST`.
BLOCK: Final = 2**20


def next_block(token: int) -> int:
    """The first token of the block behind the one that ``token`` is in."""
    return (token // BLOCK + 1) * BLOCK


# Behind it stands what tells the epochs of one life apart. No epoch of `new_epoch` has it.
_REBASED: Final = "R"


def life_of(epoch: str) -> str:
    """What all epochs of one life have in common."""
    return epoch.partition(_REBASED)[0]


def rebased(epoch: str) -> str:
    """Another epoch of the same life, which never was and never will be one again."""
    return f"{life_of(epoch)}{_REBASED}{secrets.token_hex(6)}"


class Entry(NamedTuple):
    """One stored event: its offset and its JSON bytes, exactly as they were appended."""

    offset: int
    body: bytes


class Summary(NamedTuple):
    """What a list of many sessions tells of one: its ``rank`` in the order of `EventLog.ranked`, and what is said."""

    rank: int  # below 2^53 either way; the highest comes first
    body: bytes


@final
@frozen(kw_only=True)
class Head:
    """Where a session's log stands. ``summary`` is the last one that was set, if any was.

    ``owner`` names the engine that created or claimed it last; empty for nobody, and where engines have no names.
    ``deleted``: the session was deleted and not created again; the rest is what its last life ended with.
    ``doubted``: the store went back since it had this epoch, and something of it may be gone.
    ``damage`` tells why that cannot be said: what is stored of it makes no sense, and the rest of this is made up.
    """

    session_id: str
    epoch: str
    tail: int  # offset of the last event; 0 when there is none
    token: int
    deleted: bool = False
    owner: str = ""
    doubted: bool = False
    damage: str | None = None
    summary: Summary | None = None


@final
@frozen(kw_only=True)
class Append:
    """Append ``events`` after ``expected_tail``, set ``records`` and ``summary``, all or nothing.

    ``records`` maps a key to its new value, or to None to remove it. ``summary`` takes the place of the one before;
    with None that one stays. With ``create`` the append begins a new life of the session under ``epoch``: it is
    refused when a living session has this id, ``expected_tail`` must be 0, the epoch a new one, and the records and
    the summary of a former life are gone. The fence holds over lives: the token must not be lower than the one the
    former life ended with (`Head.token`). ``owner`` is the new life's; without ``create`` it means nothing.
    """

    session_id: str
    epoch: str
    expected_tail: int
    token: int
    events: Sequence[bytes]
    records: Mapping[str, bytes | None] = field(factory=dict)
    summary: Summary | None = None
    create: bool = False
    owner: str = ""
    size: int = field()  # bytes of the events; counted here unless the caller has

    @size.default
    def _count(self) -> int:
        return sum(map(len, self.events))


@final
@frozen(kw_only=True)
class Delete:
    """End this life of the session: its events, records and summary are gone, a tombstone stays.

    With ``forced`` nothing that is stored of it is believed: whatever life there is ends, and ``epoch`` and ``token``
    are what it ends with. For a session that cannot be read.
    """

    session_id: str
    epoch: str
    token: int
    forced: bool = False


@final
@frozen(kw_only=True)
class Claim:
    """Make the session ``owner``'s, if it still stands at the token ``seen``; its events stay as they are.

    Its token becomes `token`. Of two claims of one ``seen``, one is refused, with `StaleToken`. The former owner's
    writes land until then, and never again: what it appended since ``seen`` was read counts, so read the head anew.

    ``anew`` is the epoch from then on, another one of the same life (`rebased`): for a session in doubt, which takes
    appends again. It costs the same however long the session is.

    It leaves a record, of who claimed and at which tail: `record`. Whoever claims removes those that are too many.
    """

    session_id: str
    epoch: str
    seen: int
    owner: str
    anew: str | None = None

    @property
    def token(self) -> int:
        """What the session's token is once this has landed."""
        return next_block(self.seen)

    @property
    def key(self) -> str:
        """Of its record. In order of keys these are in order of tokens."""
        return f"{CLAIMS}{self.token:016d}"

    @property
    def said(self) -> bytes:
        """Its record up to the tail, behind which comes a ``}``: for a store that alone knows the tail."""
        return f'{{"owner":{json.dumps(self.owner)},"tail":'.encode()

    def record(self, tail: int) -> dict[str, bytes]:
        """What it leaves where it lands at this tail: a `ClaimRecord`."""
        return {self.key: b"%s%d}" % (self.said, tail)}


@final
@frozen(kw_only=True)
class Release:
    """Leave the session to whoever claims it next. Refused with `StaleToken` when it is not ``owner``'s any more.

    ``token`` is the last one that ``owner`` had; it becomes current. Nothing is said of the life: a later one of the
    same owner has a higher token.
    """

    session_id: str
    owner: str
    token: int


@final
@frozen(kw_only=True)
class Compact:
    """Replace stored events, remove others, set ``records``, all or nothing: for what is stored in a shorter form.

    ``replace`` maps offsets to new bodies, ``remove`` names offsets; one that is not there is passed over, so
    that a repetition does no harm. ``forget`` maps keys to values: a record goes if it still has this
    value, and stays if it was set anew.

    It needs no token, for it does not use the right to append: tail and token stay as they are, also when
    the last event goes, so an append finds the session as it would have without it. It is
    refused with `StaleEpoch` when this life is over, or in doubt, and for no other reason.

    Keep it small, some hundred offsets: an append that comes meanwhile waits for it.
    """

    session_id: str
    epoch: str
    replace: Mapping[int, bytes] = field(factory=dict)
    remove: Sequence[int] = ()
    records: Mapping[str, bytes | None] = field(factory=dict)
    forget: Mapping[str, bytes] = field(factory=dict)


@final
@frozen(kw_only=True)
class Keep:
    """Set ``records``, all or nothing, beside whatever else is written to this life: for what is in no order with it.

    It needs no token and moves nothing, so it can neither be overtaken nor overtake. It is refused with `StaleEpoch`
    when this life is over, and for no other reason.

    Keep it small, some hundred KiB: it shares its commit with the appends of others.
    """

    session_id: str
    epoch: str
    records: Mapping[str, bytes | None]


# What moves a session, its tail, its token, its life, its owner, or shares the commits of what does.
Move: TypeAlias = Append | Delete | Keep | Claim | Release
Write: TypeAlias = Move | Compact

# Called once, in the trio thread, with None after the commit or with the reason why nothing was stored:
# StaleEpoch (session not there, life over, wrong tail), StaleToken, WentBack (an append to a session in doubt), IdInUse
# (create of a living session), CorruptSession (what is stored of it already stands in the way) or WriteFailed. The
# epoch is judged before the token, the token before the doubt, the doubt before the tail; a token from 2^53 on is
# refused before all of them, as StaleToken. A report must not raise; `tell` sees to it that one that does is told to
# the server's log, and to nobody else.
Report: TypeAlias = Callable[[PenstockError | None], None]


def tell(report: Report, error: PenstockError | None) -> None:
    """Call a report. One that raises would end the loop, and with it every session."""
    try:
        report(error)
    except BaseException:
        logger.exception("a report of the log failed")


@final
@frozen(kw_only=True)
class LogStatistics:
    """Counters since the log was opened, and how it stands now. What a log cannot tell is None."""

    commits: int
    events: int
    failed_writes: int  # reported as WriteFailed; refusals are none
    waiting: int  # writes handed over and not yet reported
    commit_seconds: float  # time spent in commits, in all
    commit_age: float | None = None  # seconds since the last commit, or since it was opened
    trouble: str | None = None  # why nothing can be stored at present, fit for anyone's eyes
    went_back: int = 0  # how often the log has found that its store lost what it had acknowledged
    size: int | None = None  # bytes: of the database,
    wal: int | None = None  # of what is not moved into it yet,
    free: int | None = None  # and free on its disk


class EventLog(abc.ABC):
    """Durable logs of many sessions. One trio loop uses it; implementations may use threads.

    Reads show committed state only. Every read raises `StorageError` when the store fails, and those of one session
    `CorruptSession` when what is stored of it is damaged.

    ``on_went_back`` is called when the log has put all sessions in doubt, or found that somebody else has.
    """

    on_went_back: Callable[[], None] = staticmethod(lambda: None)

    @abc.abstractmethod
    def submit(self, write: Write, report: Report) -> None:
        """Hand over one write; ``report`` is called after its commit or its refusal.

        Never blocks, never calls ``report`` before it returns. All but a `Compact` of one session are carried
        out in the order they were handed over, each by itself: one refused write of a commit takes no
        other with it. A `Compact` comes after what was handed over before it, and gives way to
        everything else: it is carried out once no append or delete waits, in a commit of its own. What was
        handed over is carried out even when every caller is cancelled. After `aclose` every write is
        reported as `WriteFailed`. The write's events and records must not be changed any more.
        """

    async def write(self, write: Write) -> None:
        """Hand over one write and wait for its report; raises what it says.

        Cancelling the wait does not take the write back.
        """
        reported = trio.Event()
        refusals: list[PenstockError] = []

        def report(error: PenstockError | None) -> None:
            if error is not None:
                refusals.append(error)
            reported.set()

        self.submit(write, report)
        await reported.wait()
        if refusals:
            raise refusals[0]

    @abc.abstractmethod
    async def head(self, session_id: str) -> Head | None:
        """Where the session stands, or None when there never was one. `Head.damage` tells of one that is damaged."""

    @abc.abstractmethod
    async def read(self, session_id: str, epoch: str, *, after: int, limit: int, max_bytes: int) -> list[Entry]:
        """The events behind offset ``after``, in order; at most ``limit`` of them and, past the first, ``max_bytes``.

        Empty at the tail. Raises `StaleEpoch` when this life of the session is over.
        """

    @abc.abstractmethod
    async def records(self, session_id: str, epoch: str, prefix: str = "") -> dict[str, bytes]:
        """The records whose key begins with ``prefix``, in key order. Raises `StaleEpoch`."""

    @abc.abstractmethod
    async def record(self, session_id: str, epoch: str, key: str) -> bytes | None:
        """One record. Raises `StaleEpoch`."""

    @abc.abstractmethod
    async def holders(self, key: str, *, after: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
        """Living sessions (by id, in order, behind ``after``) that have the record ``key``, with its value.

        Only for plain keys, those without a ``/``, and meant for keys that few sessions hold at a time (the
        index of what is open): the log keeps an index of them. Raises `ValueError` for any other key.
        """

    @abc.abstractmethod
    async def owned(self, owner: str, *, having: Sequence[str], after: str = "", limit: int = 1000) -> list[str]:
        """Living sessions of ``owner`` (ids, in order, behind ``after``) with at least one of the records ``having``.

        With an empty ``owner``, those of nobody. The keys are plain ones, as for `holders`, and so is the cost.
        """

    @abc.abstractmethod
    async def heads(self, *, after: str = "", limit: int = 100) -> list[Head]:
        """Living sessions in order of id, behind ``after``; damaged ones, too, if they have an id."""

    @abc.abstractmethod
    async def ranked(self, *, prefix: str = "", behind: tuple[int, str] | None = None, limit: int = 100) -> list[Head]:
        """Living sessions that have a summary, the highest rank first, of one rank in order of id.

        Those whose id begins with ``prefix``, behind the rank and the id ``behind``. Takes about as long for a page of
        a million sessions as for one of a few: the log keeps an index.
        """

    async def living(self, session_ids: Sequence[str]) -> dict[str, Head]:
        """`head` of those that live, damaged ones, too: in one read, where a log can."""
        heads = [await self.head(session_id) for session_id in session_ids]
        return {head.session_id: head for head in heads if head is not None and not head.deleted}

    async def each_record(
        self, key: str, lives: Sequence[tuple[str, str]], *, max_bytes: float
    ) -> list[bytes | StaleEpoch | CorruptSession | None]:
        """What `record` gives, or raises, of each of ``lives`` (session and epoch): in one read, where a log can.

        For as many of them as have no more than ``max_bytes`` in all, but one at least.
        """
        found: list[bytes | StaleEpoch | CorruptSession | None] = []
        for session_id, epoch in lives:
            value: bytes | StaleEpoch | CorruptSession | None
            try:
                value = await self.record(session_id, epoch, key)
            except (StaleEpoch, CorruptSession) as error:
                value = error
            max_bytes -= len(value) if isinstance(value, bytes) else 0
            if found and max_bytes < 0:
                break
            found.append(value)
        return found

    async def doubt(self, missed: Head, *, proven: bool) -> bool:
        """Whether the store went back, as ``missed`` shows: the session stood there once, and now it does not.

        If so, all that may have gone back with it is in doubt from here on (`Head.doubted`); what is in doubt already
        shows nothing. Only epoch, tail and token of ``missed`` count. Not ``proven`` is what somebody says who may be
        mistaken or lie, such as who has a cursor: then this session alone is in doubt, and once at most for each time
        that the store was started. Raises `StorageError`.

        For a log whose store cannot go back while it is open: False.
        """
        await trio.lowlevel.checkpoint()
        return False

    async def doubt_all(self) -> bool:
        """Put all sessions in doubt: for a store restored from a backup. False where the log knows no doubt."""
        await trio.lowlevel.checkpoint()
        return False

    @abc.abstractmethod
    def statistics(self) -> LogStatistics: ...

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Carry out what was handed over, then close. Shielded and bounded by the time the store takes."""


def head_of(
    session_id: str,
    epoch: object,
    tail: object,
    token: object,
    *,
    deleted: bool,
    owner: object = "",
    doubted: bool = False,
    rank: object = None,
    body: object = None,
) -> Head:
    """The head that these make, which were stored; one with `Head.damage` where they are none.

    ``rank`` and ``body`` are the summary's. One that makes no sense is none: it says nothing that the events do not.
    """
    if deleted and not _is_number(tail):
        tail = 0  # nobody goes on from there
    wrong = [
        name
        for name, sound in (
            ("epoch", isinstance(epoch, str) and _EPOCH.fullmatch(epoch) is not None),
            ("tail", _is_number(tail)),
            ("token", _is_number(token)),
            ("owner", isinstance(owner, str)),
        )
        if not sound
    ]
    summary = _summary_of(rank, body)
    if wrong:
        text = f"its {' and '.join(wrong)} cannot be read"
        return Head(
            session_id=session_id, epoch=NOWHERE, tail=0, token=0, deleted=deleted, damage=text, summary=summary
        )
    return Head(
        session_id=session_id,
        epoch=cast(str, epoch),
        tail=cast(int, tail),
        token=cast(int, token),
        deleted=deleted,
        owner=cast(str, owner),
        doubted=doubted and not deleted,
        summary=summary,
    )


def _summary_of(rank: object, body: object) -> Summary | None:
    if not (_is_number(rank, least=1 - MOST) and isinstance(body, bytes)):
        return None
    return Summary(cast(int, rank), body)


def _is_number(value: object, *, least: int = 0) -> bool:
    return type(value) is int and least <= value < MOST


def check_plain_key(key: str) -> None:
    """Raises `ValueError` when sessions that hold this key cannot be looked up: see `EventLog.holders`."""
    if "/" in key:
        raise ValueError(f"holders can be asked for of a plain key only, not of {key!r}: it has a '/'")
