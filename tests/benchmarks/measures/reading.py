"""What several benchmarks do: let a source write, let a client read, and see that all of it came."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tests.benchmarks.bench import Context, Incomplete
from tests.benchmarks.children import cpu_seconds
from tests.benchmarks.systems.base import Server, Source
from tests.benchmarks.viewers import Viewed, watch

__all__ = ["MILLI", "burst", "calm", "complete", "paced", "processor_seconds"]

MILLI = 1000.0

_PATIENCE = 240.0

# For what has not come when the last event was due.
_MARGIN = 5.0

# For connecting, at least.
_CONNECTING = 20.0

# Between the start of the sources and the first event: what it takes to start them, twice.
_LEAD = 1.0
_LEAD_EACH = 0.004


def complete(viewed: Viewed) -> Viewed:
    """Raises `Incomplete`."""
    if viewed.received != viewed.expected or viewed.extra or viewed.broken:
        raise Incomplete(
            f"{viewed.received} of {viewed.expected} events came, {viewed.extra} too many, "
            f"{viewed.broken} connections broke off"
        )
    return viewed


def processor_seconds(server: Server) -> float:
    """The processor time of the system's processes, in seconds."""
    return sum(cpu_seconds(pid) for pid in server.pids)


def burst(context: Context, server: Server, count: int, viewers: int) -> dict[str, float]:
    """One stream, ``count`` events as fast as they go, to each of ``viewers``."""
    names = [f"burst-{viewers}"]
    readers = server.viewers(names, viewers, count, shared=True)
    used: list[float] = []

    def go() -> None:
        used.append(processor_seconds(server))
        server.go(names, Source(count=count, size=context.sizes.text))

    viewed = watch(context.folder, server.address, readers, seconds=_PATIENCE, stamps=False, on_ready=go)
    spent = processor_seconds(server) - used[0]
    complete(viewed)
    return {
        "deliveries_per_s": viewed.received / max(viewed.since_due, 1e-9),
        "seconds": viewed.since_due,
        "client_cores": viewed.cpu,
        "server_cores": spent / max(viewed.since_due, 1e-9),
    }


def calm(context: Context, server: Server, names: Sequence[str], *, rate: float, count: int) -> dict[str, float]:
    """As `paced`, where nothing is near its limit: the processor time of the system's processes for a delivered event.

    Counted from when the first event was due. Raises `Incomplete`, `Late`.
    """
    used: list[float] = []

    def due() -> None:
        used.append(processor_seconds(server))

    viewed = complete(paced(context, server, names, rate=rate, count=count, when_due=due))
    spent = processor_seconds(server) - used[0]
    return {"calm.cpu_us_per_event": spent / viewed.received * 1e6, "calm.p99_ms": viewed.delays.p99 * MILLI}


def paced(
    context: Context,
    server: Server,
    names: Sequence[str],
    *,
    rate: float,
    count: int,
    viewers: int = 1,
    patience: float = 1.0,
    when_due: Callable[[], object] = lambda: None,
) -> Viewed:
    """Each stream ``rate`` events a second, ``count`` in all, with ``viewers`` on each; whatever came of it.

    ``patience`` is how many times the usual a system may take to start its sources, which is not what is
    measured; raises `Late` when it took longer. ``when_due`` is called when the first event is.
    """
    lead = patience * (_LEAD + _LEAD_EACH * len(names))
    readers = server.viewers(names, viewers, count, shared=viewers > 1)

    def go() -> None:
        source = Source(count=count, size=context.sizes.text, rate=rate).soon(lead)
        server.go(names, source)
        time.sleep(max(0.0, source.begin / 1e9 - time.monotonic()))
        when_due()

    seconds = max(_CONNECTING, _MARGIN + lead + count / rate)
    return watch(context.folder, server.address, readers, seconds=seconds, stamps=True, on_ready=go)
