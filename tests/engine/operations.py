"""What clients may do to an engine, as values that hypothesis makes, prints and shrinks: for a model, and for a storm.

Sessions, generations and messages are named by small numbers; who carries an operation out finds one to that number.
"""

from __future__ import annotations

from typing import Final, TypeAlias, final

from attrs import evolve, frozen
from hypothesis import strategies as st

from penstock.engine import JSONObject, PolicyName
from tests.engine.actors import CLEANUPS, DOES

__all__ = [
    "IDS",
    "POSTS",
    "REMOTE_POSTS",
    "SESSIONS",
    "Chunks",
    "Create",
    "Delete",
    "Dequeue",
    "Expire",
    "Finish",
    "Fork",
    "GiveInput",
    "Leave",
    "Operation",
    "Pass",
    "Post",
    "QueueNext",
    "Reset",
    "Restart",
    "Restore",
    "Retract",
    "Say",
    "Start",
    "Stop",
    "Take",
    "Update",
    "Watch",
    "operations",
    "request",
]

SESSIONS: Final = ("a", "b", "c")
IDS: Final = [f"00000000-0000-7000-8000-00000000000{n}" for n in range(4)]  # proposed for generations
POSTS: Final = [f"00000000-0000-7000-8000-0000000000a{n}" for n in range(3)]  # proposed for messages
REMOTE_POSTS: Final = [f"00000000-0000-7000-8000-0000000000b{n}" for n in range(3)]  # and by remote producers


@final
@frozen
class Start:
    session: int
    policy: PolicyName
    producer: str
    registered: bool
    text: str | None
    proposed: int | None
    replaces: int | None
    key: str | None
    on_last_disconnect: float | None


@final
@frozen
class Stop:
    session: int
    which: int | None
    queue: str


@final
@frozen
class QueueNext:
    session: int


@final
@frozen
class Dequeue:
    session: int
    which: int


@final
@frozen
class Post:
    session: int
    text: str
    message: int | None


@final
@frozen
class Retract:
    session: int
    message: int
    and_after: bool


@final
@frozen
class Restore:
    session: int
    message: int


@final
@frozen
class Update:
    session: int
    patch: JSONObject


@final
@frozen
class GiveInput:
    session: int
    which: int | None
    kind: str
    do: str
    input_id: str | None


@final
@frozen
class Say:
    """One chunk; ``seq`` as it stands to what is there: ``next``, ``again``, ``hole``."""

    kind: str  # delta, close, status, ask, applied
    message: int | None
    text: str
    seq: str | None


@final
@frozen
class Chunks:
    """Of a remote producer; ``number`` as it stands to its last: ``next``, ``again``, ``hole``, ``epoch``, ``late``."""

    session: int
    which: int | None
    says: tuple[Say, ...]
    number: str | None


@final
@frozen
class Finish:
    session: int
    which: int | None
    outcome: str
    number: str | None


@final
@frozen
class Reset:
    session: int


@final
@frozen
class Delete:
    session: int


@final
@frozen
class Expire:
    """The walk over sessions that are too old comes to this one."""

    session: int


@final
@frozen
class Create:
    session: int
    metadata: JSONObject | None


@final
@frozen
class Fork:
    session: int
    into: int
    at: int | None  # of the messages, or behind them of the cursors that were seen
    metadata: JSONObject | None


@final
@frozen
class Pass:
    seconds: float


@final
@frozen
class Watch:
    session: int
    resumed: int | None
    eager: bool


@final
@frozen
class Leave:
    watcher: int


@final
@frozen
class Take:
    watcher: int
    count: int


@final
@frozen
class Restart:
    crash: bool


Operation: TypeAlias = (
    Start
    | Stop
    | QueueNext
    | Dequeue
    | Post
    | Retract
    | Restore
    | Update
    | GiveInput
    | Reset
    | Delete
    | Expire
    | Create
    | Fork
    | Pass
    | Watch
    | Leave
    | Take
    | Restart
    | Chunks
    | Finish
)

_SESSION = st.sampled_from([0, 0, 0, 1, 2])
_INDEX = st.integers(0, 9)
_TEXT = st.sampled_from(["hello", "again"])
_METADATA: st.SearchStrategy[JSONObject] = st.sampled_from([{"a": 1}, {"a": None, "b": {"c": 2}}, {"b": {"c": None}}])
_NAMES = st.one_of(
    st.sampled_from(["waits/prompt", "slow/prompt", "says/prompt"]),
    st.builds("{}/{}".format, st.sampled_from(sorted(DOES)), st.sampled_from(sorted(CLEANUPS))),
)
_START = st.builds(
    Start,
    _SESSION,
    st.sampled_from(["supersede", "queue", "queue", "latest", "rollback", "reject", "join"]),
    _NAMES,
    st.sampled_from([True, True, True, False]),
    st.none() | _TEXT,
    st.none() | st.none() | st.integers(0, len(IDS) - 1),
    st.none() | st.none() | _INDEX,
    st.none() | st.none() | st.sampled_from(["k1", "k2"]),
    st.none() | st.none() | st.sampled_from([0.013, 7.019]),
)
_Weighted: TypeAlias = list[tuple[int, st.SearchStrategy[Operation]]]
_REQUESTS: Final[_Weighted] = [
    (24, _START),
    (5, st.builds(Stop, _SESSION, st.none() | _INDEX, st.sampled_from(["pause", "continue", "clear"]))),
    (
        8,
        st.builds(
            GiveInput,
            _SESSION,
            st.none() | st.none() | _INDEX,
            st.sampled_from(["steer", "steer", "approval", "continue"]),
            st.sampled_from(["use", "drop", "finish", "fail", "panic", "yes", "no"]),
            st.none() | st.sampled_from(["i1", "i2"]),
        ),
    ),
    (3, st.builds(QueueNext, _SESSION)),
    (3, st.builds(Dequeue, _SESSION, _INDEX)),
    (4, st.builds(Post, _SESSION, _TEXT, st.none() | _INDEX)),
    (4, st.builds(Retract, _SESSION, _INDEX, st.booleans())),
    (5, st.builds(Restore, _SESSION, _INDEX)),
    (2, st.builds(Update, _SESSION, _METADATA)),
    (2, st.builds(Reset, _SESSION)),
    (1, st.builds(Delete, _SESSION)),
    (1, st.builds(Expire, _SESSION)),
    (3, st.builds(Create, _SESSION, st.none() | _METADATA)),
    (3, st.builds(Fork, _SESSION, _SESSION, st.none() | _INDEX, st.none() | _METADATA)),
]
_NUMBER = st.sampled_from([None, *["next"] * 6, "again", "hole", "epoch", "late"])
_SAY = st.builds(
    Say,
    st.sampled_from([*["delta"] * 6, "close", "close", "status", "ask", "applied"]),
    st.sampled_from([None, 0, 0, 0, 1, 2, 3]),
    st.sampled_from(["x", "y"]),
    st.sampled_from([None, None, None, "next", "next", "again", "hole"]),
)
_REMOTE: Final[_Weighted] = [
    (
        12,
        st.builds(
            Chunks, _SESSION, st.none() | st.none() | _INDEX, st.lists(_SAY, min_size=1, max_size=3).map(tuple), _NUMBER
        ),
    ),
    (3, st.builds(Finish, _SESSION, st.none() | st.none() | _INDEX, st.sampled_from(["completed", "failed"]), _NUMBER)),
    (3, _START.map(lambda start: evolve(start, producer="remote", registered=True))),
]
_OTHERS: Final[_Weighted] = [
    (6, st.builds(Pass, st.sampled_from([0.5, 3.5, 25.0, 64.0, 210.0]))),
    (4, st.builds(Watch, _SESSION, st.none() | _INDEX, st.booleans())),
    (1, st.builds(Leave, _INDEX)),
    (4, st.builds(Take, _INDEX, st.integers(1, 5))),
    (2, st.builds(Restart, st.booleans())),
]


def _weighted(kinds: _Weighted) -> st.SearchStrategy[Operation]:
    # one_of counts what it is given twice once.
    numbers = [number for number, (weight, _) in enumerate(kinds) for _ in range(weight)]
    return st.sampled_from(numbers).flatmap(lambda number: kinds[number][1])


# What a client asks for.
request: Final[st.SearchStrategy[Operation]] = _weighted(_REQUESTS)

# Lists of lists: hypothesis makes lists of five or so unless it has to make them longer, and then cannot shrink them.
operations: Final[st.SearchStrategy[list[Operation]]] = st.lists(
    st.lists(_weighted([*_OTHERS, *_REQUESTS, *_REMOTE]), min_size=1, max_size=15), max_size=15
).map(lambda parts: [one for part in parts for one in part])
