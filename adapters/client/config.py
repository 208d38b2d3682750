"""Every bound and deadline of the client, each with its reason. Times are in seconds."""

from __future__ import annotations

from typing import final

from attrs import frozen

__all__ = ["ClientConfig"]


@final
@frozen(kw_only=True)
class ClientConfig:
    """What suits a service that talks to a server near by; a phone on a bad line may want longer times."""

    # A server that takes no connection for so long is down, or behind a firewall that drops packets.
    connect_timeout: float = 5.0

    # A start may wait for the old one's clean-up (2 s) and for a commit (10 s at most). An answer that has begun has as
    # long once more.
    request_timeout: float = 30.0

    # A file may have some megabytes, and a phone's line a hundred kilobytes a second.
    file_timeout: float = 300.0

    # What is safe to repeat is sent again when its answer has not begun by then: nothing else tells that a line is
    # dead, and the next attempt takes another one. A request with a large body has a second more for each 32 KiB.
    attempt_timeout: float = 6.0

    # A command that is safe to repeat is repeated for so long while the server does not answer: it is being
    # restarted, the network is another one by now, or it never was there.
    patience: float = 40.0

    # A server that says nothing for so long is asked to. Shorter than a person takes to notice that nothing comes.
    heartbeat: float = 3.0

    # Between two attempts to reconnect, each a random part of the next power of two. The longest is what a person
    # in front of a page accepts to wait after the server is back.
    first_pause: float = 0.25
    longest_pause: float = 10.0

    # What a server may ask us to wait. More is a mistake in a header, and we would be away for good.
    longest_retry_after: float = 300.0

    # A frame that cannot be read is asked for again this often: a line that breaks bytes does not break the same
    # ones each time, and a server that sends such a frame does not stop doing so.
    bad_frames: int = 3

    # Deliveries, each of what came in one piece, that wait for a reader; then the line is not read.
    deliveries: int = 16

    # One WebSocket message, or one event of a stream: a snapshot is a whole conversation.
    frame_bytes: int = 64 * 1024 * 1024

    # --- remote producers

    # How long a chunk waits for company: below what a person sees, above what a model's tokens are apart in a burst.
    linger: float = 0.005

    # Chunks in one request. Larger ones do not cost less per chunk, and one that is lost is repeated as a whole.
    batch: int = 50

    # And their bytes: half of what a request may have, so that the longest chunk before the limit does no harm.
    batch_bytes: int = 512 * 1024

    # Chunks that are not acknowledged; then the producer waits. Nothing is ever dropped.
    buffered: int = 2000

    # Attempts for each batch, and again after the session was made anew: for so long, in which a server comes back that
    # is restarted, and so many at least, however long each takes.
    outage: float = 60.0
    attempts: int = 3

    # Before the second attempt at most, and at most at all.
    first_retry: float = 0.05
    longest_retry: float = 2.0

    # A flush, and the end with all its attempts: as long as an outage, for behind one there is nothing to wait for.
    flush_timeout: float = 60.0
    finish_timeout: float = 60.0

    # A producer that writes nothing for so long is stuck; the server would end it as stalled after the same time.
    # The clock stands still while an approval is open or a tool call awaits its result.
    idle_limit: float = 120.0

    # How long the server may hear nothing of a producer before it tells its readers so; after twice as long it takes
    # the producer for dead and ends its answer, where it would wait for the idle limit. A request goes out every third
    # of it. None: no such promise, for a process that may be frozen for longer (a debugger, a laptop's lid).
    lease: float | None = 30.0

    # For what a cancelled producer must still await, and for telling the server that it was cancelled.
    cleanup_timeout: float = 2.0

    # An approval waits for a person; past the hour the question is no longer in their mind.
    approval_timeout: float = 3600.0

    @property
    def silence(self) -> float:
        """How long a line may be silent before it is dead, whatever TCP says: a heartbeat, and the time that its answer
        takes on a line that is merely bad."""
        return 2.5 * self.heartbeat
