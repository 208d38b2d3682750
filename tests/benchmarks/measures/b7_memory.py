"""B7: what a session holds while it is live, once it has left memory, and what a viewer holds. Bytes."""

from __future__ import annotations

import time

from tests.benchmarks.bench import Bench, Context, Measuring
from tests.benchmarks.children import resident_bytes, work
from tests.benchmarks.measures.reading import complete
from tests.benchmarks.peers.install import Peers
from tests.benchmarks.systems.base import Open, Server, Source
from tests.benchmarks.systems.peers import uvicorn
from tests.benchmarks.systems.penstock import open_penstock
from tests.benchmarks.viewers import watch

__all__ = ["b7"]

_PATIENCE = 600.0

# Events that each viewer gets before it is weighed, and again behind it, so that none has left.
_EVENTS = 20
_SETTLE = 1.0


def _viewers(context: Context, server: Server) -> dict[str, float]:
    """The growth of the server's processes, by viewers of one session that have all got something."""
    count = context.sizes.watching
    first = server.viewers(["weighed-first"], 3, 1, shared=True)  # what is made once is made before
    source = Source(count=1, size=context.sizes.text)

    def see(name: str, source: Source) -> None:
        server.go([name], source)

    complete(
        watch(
            context.folder,
            server.address,
            first,
            seconds=_PATIENCE,
            stamps=False,
            on_ready=lambda: see("weighed-first", source),
        )
    )
    before = sum(resident_bytes(pid) for pid in server.pids)
    held = before
    several = Source(count=_EVENTS, size=context.sizes.text)

    def weigh() -> None:
        nonlocal held
        see("weighed", several)
        time.sleep(_SETTLE)
        held = sum(resident_bytes(pid) for pid in server.pids)
        see("weighed", several)

    readers = server.viewers(["weighed"], count, 2 * _EVENTS, shared=True)
    complete(watch(context.folder, server.address, readers, seconds=_PATIENCE, stamps=False, on_ready=weigh))
    return {"viewer_bytes": (held - before) / count}


def _penstock(context: Context) -> dict[str, float]:
    found: dict[str, float] = {}
    for task, sessions in (("live", context.sizes.idle), ("evicted", context.sizes.evicted)):
        found |= work("engine", task, context.folder, db=str(context.folder / f"{task}.db"), sessions=sessions)
    return {**found, **_watched(open_penstock)(context)}


def _watched(opened: Open) -> Measuring:
    def measure(context: Context) -> dict[str, float]:
        with opened(context.folder) as server:
            return _viewers(context, server)

    return measure


def b7(peers: Peers) -> Bench:
    systems: dict[str, Measuring] = {
        "penstock": _penstock,
        "sse-starlette": _watched(uvicorn(peers, "sse-starlette")),
    }
    return Bench("B7", "Memory of a live session, one that has left memory, and a viewer, in bytes", systems)
