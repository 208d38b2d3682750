"""B5: reading a long log from its start, and how soon the first byte of a resume comes."""

from __future__ import annotations

import socket
import statistics
import time
from contextlib import closing
from pathlib import Path

from attrs import asdict

from tests.benchmarks.bench import Bench, Context, Incomplete, Measuring
from tests.benchmarks.children import work
from tests.benchmarks.measures.reading import MILLI, complete
from tests.benchmarks.payload import MARK
from tests.benchmarks.peers.install import Peers
from tests.benchmarks.samples import Delays
from tests.benchmarks.systems.base import Server, Source, ask, connected
from tests.benchmarks.systems.peers import DurableStreams, durable_streams, redis_streams
from tests.benchmarks.systems.penstock import Penstock, events, open_penstock
from tests.benchmarks.viewers import Viewer, watch
from tests.benchmarks.writers import Order, push

__all__ = ["b5", "fill", "first_bytes"]

_PATIENCE = 300.0
_FILL_BATCH = 100
_DB = "lengths.db"

# So far before the tail a resume begins: inside the answer's text.
_BEHIND = 10


def fill(context: Context) -> Path:
    """A folder with one database of the lengths that are measured; made once in a run."""
    if not (context.keeping / _DB).exists():
        lengths = sorted({*context.sizes.lengths, context.sizes.replayed})
        db = str(context.keeping / _DB)
        work("engine", "fill", context.folder, db=db, lengths=list(lengths), size=context.sizes.text)
    return context.keeping


def first_bytes(served: Penstock, length: int, times: int) -> Delays:
    """From the request of a resume near the tail to its first event, some times; the first of all is not counted."""
    epoch, _, tail = str(served.ask("PUT", f"/v1/sessions/log-{length}")["cursor"]).partition("-")
    query = f"?after={epoch}-{int(tail) - _BEHIND:016d}"
    taken = []
    for _ in range(times + 1):
        with socket.create_connection(served.address, timeout=30) as reader:
            begun = time.monotonic_ns()
            reader.sendall(events(f"log-{length}", query))
            data = b""
            while MARK not in data:
                piece = reader.recv(65536)
                if not piece:
                    raise Incomplete("a resumed stream ended before its first event")
                data += piece
            taken.append(time.monotonic_ns() - begun)
    return Delays.of(taken[1:])


def _streamed(context: Context, server: tuple[str, int], viewer: Viewer) -> float:
    """Events a second of one reader that follows from the start."""
    viewed = complete(watch(context.folder, server, [viewer], seconds=_PATIENCE, stamps=False))
    return viewed.received / max(viewed.since_asked, 1e-9)


def _penstock(context: Context) -> dict[str, float]:
    place, sizes = fill(context), context.sizes
    session_id = f"log-{sizes.replayed}"
    figures = work("engine", "replay", context.folder, db=str(place / _DB), session_id=session_id)
    found = {f"python.{metric}": value for metric, value in figures.items()}
    with open_penstock(place, db=_DB) as served:
        viewer = Viewer(sends=(events(session_id),), expected=sizes.replayed)
        found["sse.events_per_s"] = _streamed(context, served.address, viewer)
        for length in sizes.lengths:
            found[f"first_byte_ms[{length}]"] = first_bytes(served, length, sizes.resumes).p50 * MILLI
    found["first_byte_shortest_ms"] = found[f"first_byte_ms[{sizes.lengths[0]}]"]
    found["first_byte_longest_ms"] = found[f"first_byte_ms[{sizes.lengths[-1]}]"]
    return found


def _durable_streams(peers: Peers, *, files: bool) -> Measuring:
    def measure(context: Context) -> dict[str, float]:
        count = context.sizes.replayed
        with durable_streams(peers, files=files)(context.folder) as server:
            assert isinstance(server, DurableStreams)
            server.create(["replayed"])
            order = Order(
                kind="durable-streams",
                address=server.address,
                streams=("replayed",),
                connections=1,
                batch=_FILL_BATCH,
                size=context.sizes.text,
                count=count,
            )
            push(context.folder, order)
            pages = statistics.median(_pages(server, count) for _ in range(3))
            viewer = Viewer(sends=server.viewer("replayed", count).sends, expected=count)
            streamed = _streamed(context, server.address, viewer)
        return {
            "pages.events_per_s": pages,
            "sse.events_per_s": streamed,
            "best.events_per_s": max(pages, streamed),
        }

    return measure


def _pages(server: Server, count: int) -> float:
    """Events a second by catching up, which is Durable Streams' own way: answers of many events each."""
    with closing(connected(server.address)) as connection:
        begun, found, offset = time.perf_counter(), 0, "-1"
        while True:
            connection.request("GET", f"/v1/stream/replayed?offset={offset}")
            answer = connection.getresponse()
            found += answer.read().count(MARK)
            offset = answer.getheader("Stream-Next-Offset") or ""
            if answer.getheader("Stream-Up-To-Date") == "true" or not offset:
                break
        seconds = time.perf_counter() - begun
    if found != count:
        raise Incomplete(f"{found} of {count} events were in the pages")
    return found / seconds


def _redis(peers: Peers) -> Measuring:
    def measure(context: Context) -> dict[str, float]:
        count = context.sizes.replayed
        with redis_streams(peers, "everysec")(context.folder) as server:
            source = Source(count=count, size=context.sizes.text)
            ask(server.address, "POST", "/write", {"streams": ["replayed"], **asdict(source)})
            return {"sse.events_per_s": _streamed(context, server.address, server.viewer("replayed", count))}

    return measure


def b5(peers: Peers) -> Bench:
    systems: dict[str, Measuring] = {
        "penstock": _penstock,
        "durable-streams-files": _durable_streams(peers, files=True),
        "durable-streams-memory": _durable_streams(peers, files=False),
        "redis-everysec": _redis(peers),
    }
    return Bench("B5", "Replay of a long log, and the first byte of a resume", systems)
