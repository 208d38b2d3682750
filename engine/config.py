"""Every bound and deadline of the engine, each with its reason. Times are in seconds."""

from __future__ import annotations

from typing import TypeVar, final

from attrs import Attribute, field, frozen

__all__ = ["Config"]


_Number = TypeVar("_Number", int, float)


def _positive(_: object, attribute: Attribute[_Number], value: _Number) -> None:
    if not value > 0:
        raise ValueError(f"{attribute.name} must be above 0, not {value!r}")


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

    # The time all ends get at shutdown. Process supervisors commonly kill after ten seconds or more.
    drain_timeout: float = field(default=10.0, validator=_positive)

    # How many events one session may have stamped and not yet committed. Without a bound per session
    # a firehose takes its neighbours' p99 from 7 to 24 ms (measured).
    session_pending: int = field(default=512, validator=_positive)

    # The same over all sessions: bounds memory and the size of one commit.
    total_pending: int = field(default=4096, validator=_positive)

    # `write()` gives the other tasks a turn this often. At 1 it costs 1.4 to 2 times the CPU (measured).
    checkpoint_every: int = field(default=32, validator=_positive)

    # How many events a subscriber's channel holds before the subscriber goes back to the log.
    subscriber_buffer: int = field(default=1024, validator=_positive)

    # A page of the log: large enough to amortise the hand-over to a thread, small enough that a
    # replay of a long session stays under a few hundred KiB of memory.
    page_events: int = field(default=512, validator=_positive)
    page_bytes: int = field(default=256 * 1024, validator=_positive)

    # Lifecycle steps (starts, stops …) that may wait on one session before callers are turned away.
    max_steps: int = field(default=256, validator=_positive)

    # A session with nobody watching and nothing running leaves memory after this time.
    idle_session: float = field(default=60.0, validator=_positive)

    # A stop that names a generation nobody has seen yet is remembered this long: the start it is
    # meant for may still be on its way.
    pending_stop: float = field(default=60.0, validator=_positive)

    # While nothing can be stored, the engine tries again this often: first and longest pause.
    retry_min: float = field(default=0.05, validator=_positive)
    retry_max: float = field(default=5.0, validator=_positive)
