"""Every bound and deadline of the engine, each with its reason. Times are in seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar, final

from attrs import Attribute, field, frozen

__all__ = ["Config"]


_Number = TypeVar("_Number", int, float)


def _positive(_: object, attribute: Attribute[_Number], value: _Number) -> None:
    if not value > 0:
        raise ValueError(f"{attribute.name} must be above 0, not {value!r}")


def _positive_or_none(_: object, attribute: Attribute[float], value: float | None) -> None:
    if value is not None and not value > 0:
        raise ValueError(f"{attribute.name} must be above 0 or None, not {value!r}")


def _not_negative(_: object, attribute: Attribute[int], value: int) -> None:
    if value < 0:
        raise ValueError(f"{attribute.name} must not be negative")


def _not_negative_or_none(_: object, attribute: Attribute[float], value: float | None) -> None:
    if value is not None and not value >= 0:
        raise ValueError(f"{attribute.name} must be 0, above 0, or None, not {value!r}")


def _each_positive(_: object, attribute: Attribute[Mapping[str, float]], value: Mapping[str, float]) -> None:
    for name, limit in value.items():
        if not limit > 0:
            raise ValueError(f"{attribute.name}[{name!r}] must be above 0, not {limit!r}")


@final
@frozen(kw_only=True)
class Config:
    """The engine's bounds; every one has a default that suits one busy process."""

    # Two seconds is what the systems before this one settled on: long enough to close an HTTP
    # connection to a model, short enough that a person who sends again does not notice.
    cleanup_timeout: float = field(default=2.0, validator=_positive)

    # A clean-up that overran keeps its task; four of them in one session means the producer is broken.
    max_stragglers: int = field(default=4, validator=_positive)

    # A commit takes milliseconds; ten seconds without one means the disk hangs.
    flush_timeout: float = field(default=10.0, validator=_positive)

    # How long a store of others, a Redis or a Postgres, may be away before writes and reads fail: it restarts in a
    # second or two, and another takes its place in some more. Meanwhile they wait.
    log_patience: float = field(default=10.0, validator=_positive)

    # How long an engine that shares its log is waited for that says nothing: what it left open goes to others then. So
    # long a person waits before they ask again; and a process that is stopped for a few seconds keeps what it has.
    lease_ttl: float = field(default=6.0, validator=_positive)

    # Whether such a store may be one that can lose what it acknowledged. Readers would see other events behind the same
    # cursor then.
    allow_weak_store: bool = False

    # On how many replicas of such a store what is acknowledged must be on disk, besides its own. With none, a replica
    # that takes its place may lack the last of it. Each commit waits for them.
    log_replicas: int = field(default=0, validator=_not_negative)

    # The time all ends get at shutdown. Process supervisors commonly kill after ten seconds or more.
    drain_timeout: float = field(default=10.0, validator=_positive)

    # How many events one session may have stamped and not yet committed: half of them on their way to the disk, half
    # gathered behind those. Without a bound per session a firehose takes its neighbours' p99 from 7 to 24 ms
    # (measured).
    session_pending: int = field(default=512, validator=_positive)

    # And of how many bytes: an event may be as large as a request, and 512 of those are half a gigabyte. Two of 1 MiB
    # have room: one on its way to the disk, one gathered behind it. An event is stamped while there is less than this,
    # so that one that is larger passes, too; the next one waits.
    session_pending_bytes: int = field(default=2 * 1024 * 1024, validator=_positive)

    # The same over all sessions: bounds memory and the size of one commit.
    total_pending: int = field(default=4096, validator=_positive)

    # Twenty sessions that write large values all the time do not fill it, ordinary events never do. A quarter is kept
    # for sessions whose events are small: they must not wait for room behind large ones.
    total_pending_bytes: int = field(default=64 * 1024 * 1024, validator=_positive)

    # `write()` gives the other tasks a turn this often. At 1 it costs 1.4 to 2 times the CPU (measured).
    checkpoint_every: int = field(default=32, validator=_positive)

    # How many events a subscriber's channel holds before the subscriber goes back to the log.
    subscriber_buffer: int = field(default=1024, validator=_positive)

    # And of how many bytes: events may be as large as a request, and a thousand of those are a gigabyte.
    subscriber_bytes: int = field(default=1024 * 1024, validator=_positive)

    # What one snapshot, or one page of sessions, holds for readers elsewhere, in messages and in bytes of JSON: a
    # screenful many times over, and a WebSocket message that clients take (many refuse one above 1 MiB). Many ask at a
    # time, and some do not read what they asked for. One message is there whatever its size; older ones come by pages.
    snapshot_messages: int = field(default=1000, validator=_positive)
    snapshot_bytes: int = field(default=512 * 1024, validator=_positive)

    # What a session in memory keeps of what its messages say, once somebody has asked for its state: the newest page
    # several times over, so that it is read again for older ones only; without a bound, one session that goes on and on
    # takes all the memory there is. One message is kept whatever its size, and those that are open.
    fold_bytes: int = field(default=2 * 1024 * 1024, validator=_positive)

    # A page of the log: large enough to amortise the hand-over to a thread, small enough that a
    # replay of a long session stays under a few hundred KiB of memory.
    page_events: int = field(default=512, validator=_positive)
    page_bytes: int = field(default=256 * 1024, validator=_positive)

    # Lifecycle steps (starts, stops …) that may wait on one session before callers are turned away.
    max_steps: int = field(default=256, validator=_positive)

    # Generations that may wait behind the live one: a person waits for a few answers; more is a client in a loop.
    queue_limit: int = field(default=16, validator=_positive)

    # How long a repeated start gets its first answer. Clients that retry do so within minutes; a day covers a
    # night's outage.
    idempotency_ttl: float = field(default=24 * 3600.0, validator=_positive)

    # A session with nobody watching and nothing running leaves memory after this time.
    idle_session: float = field(default=60.0, validator=_positive)

    # A stop that names a generation nobody has seen yet is remembered this long: the start it is
    # meant for may still be on its way.
    pending_stop: float = field(default=60.0, validator=_positive)

    # A generation that writes nothing for so long is stuck: models pause for seconds; while a tool or a person is
    # waited for, this clock stands still.
    idle_limit: float = field(default=120.0, validator=_positive)

    # The same for single producers, by the name that their generations have in the log: one that computes for an hour
    # before it has something to say is not stuck. A start may ask for a limit of its own.
    idle_limits: Mapping[str, float] = field(factory=dict, validator=_each_positive)

    # No total limit by default: a generation that goes on writing is at work, and only the application knows its cost.
    total_limit: float = field(default=math.inf, validator=_positive)

    # An approval waits for a person, who may be in a meeting; past the hour the question is no longer in their mind,
    # and the answer is no.
    approval_timeout: float = field(default=3600.0, validator=_positive)

    # Inputs that may wait for the producer to take them: a person steers a few times between two steps of a model.
    inputs: int = field(default=16, validator=_positive)

    # Chunks in one request of a remote producer: seconds of the fastest model, and a write that holds nobody up.
    batch_chunks: int = field(default=500, validator=_positive)

    # A finish waits for all that its producer had on the way: the one answer that it must not have to guess at.
    finish_timeout: float = field(default=30.0, validator=_positive)

    # Changes of the list that wait for one who follows it: more than a person sees, and they are shared by all.
    watch_buffer: int = field(default=256, validator=_positive)

    # Sessions of which it is remembered in which order they changed last: who comes back to the list within the time
    # that it takes so many to change is told which did. Some 150 bytes each.
    watch_kept: int = field(default=10_000, validator=_positive)

    # A remote producer that lets a tool run may say nothing meanwhile, and nobody tells when its process died: one
    # that is silent for as long as a person is waited for is gone.
    remote_silence: float = field(default=3600.0, validator=_positive)

    # Who is here is here for so long unless it is said again: a client that says it every 20 s may lose two of three,
    # and one that vanished is not shown for much longer than a person waits for an answer.
    presence_ttl: float = field(default=60.0, validator=_positive)

    # Devices that may be here at a time, per session: every reader gets all of them whenever it has caught up, and
    # with names at their longest these are some 150 KiB.
    presence_limit: int = field(default=256, validator=_positive)

    # While nothing can be stored, the engine tries again this often: first and longest pause.
    retry_min: float = field(default=0.05, validator=_positive)
    retry_max: float = field(default=5.0, validator=_positive)

    # The events of a message's blocks give way to its whole content this long after it was closed. Readers that
    # lost their connection are back within minutes and get what they missed as it was; an hour later nobody wants
    # the single pieces, which are most of what is stored. 0: as soon as its generation has ended; None: never.
    compact_after: float | None = field(default=3600.0, validator=_not_negative_or_none)

    # Bytes of one file that a session keeps: what model providers take as one picture at most (20 MB at OpenAI), and a
    # photograph or a scanned letter twice over.
    file_bytes: int = field(default=20 * 1024 * 1024, validator=_positive)

    # And of all of a session's files: some dozen of the largest. They are in every backup, and a fork copies them. Each
    # counts as 256 KiB at least, so that there are a thousand at most.
    session_file_bytes: int = field(default=256 * 1024 * 1024, validator=_positive)

    # Sessions whose last event is older are deleted. No default age: what people said is theirs to delete.
    session_max_age: float | None = field(default=None, validator=_positive_or_none)
