"""B12: a log in a store that engines share, beside the file: what it costs, and what a second node brings.

One store is measured behind the other in the same round. The nodes are two ``penstock serve`` over it.
"""

from __future__ import annotations

import secrets
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, final

from attrs import frozen

from penstock.engine import JSONObject
from tests.benchmarks.bench import Bench, Context, Incomplete, Measuring
from tests.benchmarks.children import cpu_seconds, work
from tests.benchmarks.measures.reading import MILLI, complete
from tests.benchmarks.samples import Delays
from tests.benchmarks.systems.base import Source
from tests.benchmarks.systems.penstock import Penstock, events, open_penstock
from tests.benchmarks.systems.stores import OpenStore, Store, file_store, postgres_store, redis_store
from tests.benchmarks.viewers import Viewed, Viewer, watch

__all__ = ["b12"]

# The lease of the nodes, in seconds. What it is by default takes three times as long to run out.
_TTL: Final = 2.0

# So long a takeover is waited for: many times what it may take.
_PATIENCE: Final = 30.0

_RATE: Final = 30.0
_READERS: Final = 5
_FOREVER: Final = 1_000_000

# Between the start of the sources and the first event, and behind the last one.
_LEAD: Final = 2.0
_MARGIN: Final = 10.0


# --- one engine


def _writing(context: Context, store: Store) -> dict[str, float]:
    """In process: events a second, and what is stored of one, young and compacted."""
    sizes = context.sizes
    found: dict[str, float] = {}
    for sessions in sizes.shared_sessions:
        before = store.used()
        figures = work(
            "engine", "write", context.folder, db=store.place, events=sizes.shared, sessions=sessions, size=sizes.text
        )
        written = sizes.shared // sessions * sessions
        found[f"events_per_s[{sessions}]"] = figures["events_per_s"]
        if sessions == max(sizes.shared_sessions):  # each message is as long as an answer is
            found["bytes_per_event.young"] = (store.used() - before) / written
            work("engine", "compact", context.folder, db=store.place)
            found["bytes_per_event.compacted"] = (store.used() - before) / written
    return found


# --- nodes


@final
@frozen
class _Crowd:
    """Sessions that are written at a pace, each by its node, and read by ``readers``, each at a node."""

    sessions: Sequence[tuple[str, Penstock]]
    readers: Sequence[tuple[str, Penstock]]


@contextmanager
def _nodes(context: Context, store: Store, names: Sequence[str]) -> Iterator[list[Penstock]]:
    secret = context.folder / "secret"
    if not secret.exists():
        secret.write_text(secrets.token_hex(32))
        secret.chmod(0o600)
    with ExitStack() as stack:
        yield [stack.enter_context(_node(context.folder, store, name, secret)) for name in names]


@contextmanager
def _node(folder: Path, store: Store, name: str, secret: Path) -> Iterator[Penstock]:
    place = f"127.0.0.1:{_free_port()}"
    options = ["--node", name, "--node-listen", place, "--node-url", f"http://{place}", "--lease-ttl", str(_TTL)]
    options += ["--cluster-secret-file", str(secret)]
    with open_penstock(folder, log=store.place, name=name, options=options) as served:
        yield served


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _paced(context: Context, crowd: _Crowd, *, rate: float, count: int, when_due: Callable[[], object]) -> list[Viewed]:
    """Let the crowd write and read; what came at each node that has readers. Raises `Incomplete`."""
    for name, node in crowd.sessions:
        node.create([name])
    at: dict[Penstock, list[Viewer]] = {}
    for name, node in crowd.readers:
        at.setdefault(node, []).append(node.viewer(name, count))
    ready = threading.Barrier(len(at) + 1)
    found: list[Viewed] = []
    failed: list[Exception] = []

    def read(number: int, node: Penstock) -> None:
        folder = context.folder / f"readers-{number}"
        folder.mkdir(exist_ok=True)
        seconds = _LEAD + count / rate + _MARGIN
        try:
            found.append(
                watch(folder, node.address, at[node], seconds=seconds, stamps=True, on_ready=lambda: ready.wait(60))
            )
        except Exception as error:  # noqa: BLE001  told in the other thread
            failed.append(error)
            ready.abort()

    readers = [threading.Thread(target=read, args=pair) for pair in enumerate(at)]
    for reader in readers:
        reader.start()
    try:
        ready.wait(60)
        source = Source(count=count, size=context.sizes.text, rate=rate).soon(_LEAD)
        for name, node in crowd.sessions:
            node.go([name], source)
        time.sleep(max(0.0, source.begin / 1e9 - time.monotonic()))
        when_due()
    except threading.BrokenBarrierError:
        pass  # who broke it has said why
    finally:
        for reader in readers:
            reader.join()
    if failed:
        raise Incomplete(f"readers failed: {failed[0]}")
    return [complete(viewed) for viewed in found]


def _across(context: Context, writer: Penstock, reader: Penstock, name: str) -> dict[str, float]:
    """Written at one node, received at another, with nothing else going on."""
    crowd = _Crowd([(name, writer)], [(name, reader)])
    rate, count = context.sizes.probe_rate, context.sizes.probes
    (viewed,) = _paced(context, crowd, rate=rate, count=count, when_due=lambda: None)
    return {f"{name}.p50_ms": viewed.transits.p50 * MILLI, f"{name}.p99_ms": viewed.transits.p99 * MILLI}


def _load(context: Context, store: Store, nodes: Sequence[Penstock], name: str) -> dict[str, float]:
    """Processor time for a delivered event, of the busiest node and of the store, at a load that none is full with.

    Each session is written at one node, and its readers come to any, as behind a balancer that knows nothing.
    """
    sizes = context.sizes
    sessions = [(f"{name}-{number}", nodes[number % len(nodes)]) for number in range(sizes.shared_load)]
    readers = [
        (session, nodes[(place + reader) % len(nodes)])
        for place, (session, _) in enumerate(sessions)
        for reader in range(_READERS)
    ]
    used: list[float] = []

    def now() -> list[float]:
        return [store.cpu(), *(sum(map(cpu_seconds, node.pids)) for node in nodes)]

    count = round(_RATE * sizes.window / 2)
    viewed = _paced(context, _Crowd(sessions, readers), rate=_RATE, count=count, when_due=lambda: used.extend(now()))
    received = sum(each.received for each in viewed)
    spent = [(after - before) / received * 1e6 for before, after in zip(used, now(), strict=True)]
    return {
        f"{name}.store_us": spent[0],
        f"{name}.busiest_us": max(spent[1:]),
        f"{name}.nodes_us": sum(spent[1:]),
        f"{name}.p99_ms": max(each.delays.p99 for each in viewed) * MILLI,
    }


def _forwarding(context: Context, owner: Penstock, other: Penstock) -> dict[str, float]:
    """A small command to a session in which the owner has an answer open: asked there, and at the other node."""
    name = "forwarded"
    owner.create([name])
    owner.start(name, {"count": _FOREVER, "rate": 1.0, "size": context.sizes.text})
    taken: dict[str, list[int]] = {"direct": [], "forwarded": []}
    for number in range(context.sizes.forwards):
        for way, node in (("direct", owner), ("forwarded", other)):
            told: JSONObject = {"metadata": {"title": f"{way} {number}"}}
            begun = time.monotonic_ns()
            node.ask("PATCH", f"/v1/sessions/{name}", told)
            taken[way].append(time.monotonic_ns() - begun)
    owner.ask("POST", f"/v1/sessions/{name}/stop")
    direct, forwarded = (Delays.of(delays) for delays in taken.values())
    return {
        "direct.p50_ms": direct.p50 * MILLI,
        "forwarded.p50_ms": forwarded.p50 * MILLI,
        "forwarded.p99_ms": forwarded.p99 * MILLI,
        "forwarding.p50_ms": (forwarded.p50 - direct.p50) * MILLI,
    }


def _takeover(context: Context, store: Store) -> dict[str, float]:
    """From the owner's kill -9 amid an answer to a reader's hearing of the answer's end, at another node; in leases."""
    taken = []
    with _nodes(context, store, ["survivor"]) as (survivor,):
        for number in range(context.sizes.kills):
            name = f"killed-{number}"
            with _nodes(context, store, [name]) as (owner,):
                owner.create([name])
                owner.start(name, {"count": _FOREVER, "rate": _RATE, "size": context.sizes.text})
                with socket.create_connection(survivor.address, timeout=_PATIENCE) as reader:
                    reader.sendall(events(name))
                    _until(reader, b'"block.delta"')
                    owner.kill()
                    begun = time.monotonic()
                    _until(reader, b'"generation.finished"')
                    taken.append(time.monotonic() - begun)
    return {"takeover.leases": statistics.median(taken) / _TTL, "takeover.beyond_s": max(taken) - _TTL}


def _until(reader: socket.socket, mark: bytes) -> None:
    seen = b""
    while mark not in seen:
        piece = reader.recv(65536)
        if not piece:
            raise Incomplete("the reader's stream ended")
        seen = seen[-len(mark) :] + piece


# --- the systems


def _alone(context: Context) -> dict[str, float]:
    """One server over a file, as it is by default."""
    with file_store(context.folder) as store:
        found = _writing(context, store)
    with open_penstock(context.folder) as served, file_store(context.folder) as store:
        found |= _across(context, served, served, "own_node")
        found |= _load(context, store, [served], "one_node")
    return found


def _shared(opened: OpenStore, *, nodes: bool) -> Measuring:
    def measure(context: Context) -> dict[str, float]:
        with opened(context.folder) as store:
            found = _writing(context, store)
        if not nodes:
            return found
        with opened(context.folder) as store:
            with _nodes(context, store, ["only"]) as (only,):
                found |= _across(context, only, only, "own_node")
                found |= _load(context, store, [only], "one_node")
            with _nodes(context, store, ["a", "b"]) as (a, b):
                found |= _across(context, a, b, "other_node")
                found |= _load(context, store, [a, b], "two_nodes")
                found |= _forwarding(context, a, b)
            found |= _takeover(context, store)
        # What each has left of its core when the busiest is full, where each has one.
        found["two_nodes.times"] = found["one_node.busiest_us"] / found["two_nodes.busiest_us"]
        found["two_nodes.store_share"] = found["two_nodes.store_us"] / found["two_nodes.busiest_us"]
        return found

    return measure


def b12() -> Bench:
    systems = {
        "penstock": _alone,
        "redis": _shared(redis_store, nodes=True),
        "postgres": _shared(postgres_store, nodes=False),
    }
    return Bench("B12", "A log that engines share, beside a file", systems)
