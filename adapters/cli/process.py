"""The process behind ``penstock serve``: an engine, its HTTP and WebSocket faces and the playground.

Owns how the process begins and ends, and its signals; where it listens is `listening`'s.
"""

from __future__ import annotations

import gc
import ipaddress
import logging
import os
import resource
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, NoReturn, final

import trio
from attrs import field, frozen

from penstock.engine import Config, DatabaseError, Engine, Producer, open_engine

from ..http import create_app
from ..nodes import HttpPeers, serve_nodes
from ..server.accept import StartupFailed, serve
from ..server.limits import Limits
from ..watching.metrics import Metrics
from ..watching.spool import Spool
from ..websocket import websocket_handler
from .access import Access
from .edge import Edge
from .listening import Bound, ListenError
from .peering import Peering
from .places import name_of
from .reloading import Reloadable, reload_all, warn_of_readable
from .workers import Worker

__all__ = ["Options", "ServeError", "run", "tune_collector"]

_log = logging.getLogger("penstock.serve")

# Besides connections: the database, the producers' own, and those that are just being refused.
_OTHER_DESCRIPTORS: Final = 6_384

# From the moment the log is closed: what an engine without stragglers takes to be gone, many times over.
_LAST_MOMENT: Final = 0.25


@final
class ServeError(Exception):
    """The server cannot start; the text says why and what to do."""


@final
@frozen(kw_only=True)
class Options:
    """What `serve` was told."""

    log: str = field(repr=False)  # as `open_engine` takes it: may hold a password
    hosts: tuple[str, ...]
    access: Access
    port: int
    producers: Mapping[str, Producer]
    default_producer: str
    idle_limit: float  # seconds
    idle_limits: Mapping[str, float]  # of single producers, by name
    send_timeout: float  # seconds
    drain_timeout: float  # seconds
    file_bytes: int = Config().file_bytes
    session_file_bytes: int = Config().session_file_bytes
    edge: Edge
    allow_weak_store: bool = False
    replicas: int = 0
    log_patience: float = Config().log_patience  # seconds
    peering: Peering | None = None  # where the others ask it
    node: str | None = None  # its name among those that share the log
    lease_ttl: float = Config().lease_ttl  # seconds
    bus: str | None = field(default=None, repr=False)  # a URL: may hold a password
    worker: Worker | None = None  # one of several processes, which has its addresses from their parent

    @property
    def log_name(self) -> str:
        """For people: without what may let somebody in."""
        return name_of(self.log)

    @property
    def files(self) -> tuple[Reloadable, ...]:
        """What is read again on SIGHUP."""
        return tuple(each for each in (self.edge.certificate, self.access.keys) if each is not None)


def run(options: Options) -> None:
    """Serve until a signal says otherwise. Raises `ServeError`."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # before and behind the time when it means something
    _prepare_process(options.edge.max_connections + _OTHER_DESCRIPTORS)
    said = Spool(sys.stdout.fileno())
    try:
        trio.run(_run, options, said)
    except (StartupFailed, ListenError) as error:
        raise ServeError(str(error)) from error
    except DatabaseError as error:
        raise ServeError(error.detail) from error
    finally:
        said.flush(_LAST_MOMENT)


def _prepare_process(descriptors: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = descriptors if hard == resource.RLIM_INFINITY else min(descriptors, hard)
    if wanted < descriptors:
        _log.warning("this process may open %d files; for --max-connections it should be %d", wanted, descriptors)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    tune_collector()
    # The interpreter's switch interval stays at 5 ms. A shorter one (0.1 ms) lets the log's thread in beside a loop
    # that never waits: 10 000 events a second for 2 400 where tasks burn the CPU. But this loop waits at every read
    # and write, and 100 busy sessions with 1 or 5 viewers each got 10 to 25 % less through (measured).


def tune_collector() -> None:
    """Let the garbage collector hold the process as shortly as may be, from here on."""
    # With ten thousand sessions in memory a full collection stops everything for 300 to 400 ms; what was
    # imported never becomes garbage, and with these thresholds starts are 2.9 times as fast (measured). What is young
    # is looked through in lots of some fifty thousand: a million, which a large session fills, takes 25 ms (measured).
    gc.freeze()
    gc.set_threshold(20_000, 2, 25_000)


async def _run(options: Options, said: Spool) -> None:
    shutdown = trio.Event()
    failure: Exception | None = None
    # Signals and stragglers are watched here, around the engine. An error is carried past the nursery, which
    # would wrap it.
    async with trio.open_nursery() as nursery:
        reload, reloads = trio.open_memory_channel[None](1)  # one more, however often it is asked for meanwhile
        nursery.start_soon(_reload, options.files, reloads)
        await nursery.start(_watch_signals, shutdown, reload)
        if options.worker is not None:
            nursery.start_soon(_end_with_parent, options.worker, shutdown)
        opening, opened = trio.CancelScope(), trio.Event()
        nursery.start_soon(_leave_opening, opening, opened, shutdown)
        try:
            with opening:
                await _serve(options, shutdown, nursery, said, opened)
        except (ListenError, StartupFailed, DatabaseError) as error:
            failure = error
        nursery.cancel_scope.cancel(reason="the engine is closed")
    if failure is not None:
        raise failure


async def _end_with_parent(worker: Worker, shutdown: trio.Event) -> None:
    await worker.orphaned()
    if not shutdown.is_set():
        _log.error("the parent of this worker is gone: ending answers and streams")
        shutdown.set()


async def _leave_opening(opening: trio.CancelScope, opened: trio.Event, shutdown: trio.Event) -> None:
    """To open a database can take long, where an older version made it. It goes on there the next time."""
    await shutdown.wait()
    if not opened.is_set():
        opening.cancel(reason="the process was told to end before the database was open")


async def _serve(
    options: Options, shutdown: trio.Event, nursery: trio.Nursery, said: Spool, opened: trio.Event
) -> None:
    warn_of_readable(options.files)
    bound = Bound.to(options.hosts, options.port) if options.worker is None else options.worker.bound
    between: Bound | None = None
    peers: HttpPeers | None = None
    try:
        if options.peering is not None:
            between = Bound.to((options.peering.host,), options.peering.port)
            peers = HttpPeers(options.peering.secret)
        metrics = Metrics()
        async with open_engine(
            options.log,
            producers=options.producers,
            default_producer=options.default_producer,
            config=Config(
                log_patience=options.log_patience,
                lease_ttl=options.lease_ttl,
                allow_weak_store=options.allow_weak_store,
                log_replicas=options.replicas,
                drain_timeout=options.drain_timeout,
                idle_limit=options.idle_limit,
                idle_limits=options.idle_limits,
                file_bytes=options.file_bytes,
                session_file_bytes=options.session_file_bytes,
            ),
            observer=metrics,
            owner=options.node,
            bus=options.bus,
            peers=peers,
            node_url=_node_url(options.peering, between),
        ) as engine:
            opened.set()
            metrics.watch(engine.statistics)
            if options.peering is not None:
                options.access.identity.tickets.share(options.peering.secret.for_tickets, engine.redeem)
            if not shutdown.is_set():  # which may have been said while it opened
                urls = bound.urls("http" if options.edge.certificate is None else "https")
                listeners = bound.listen()
                if options.worker is not None:
                    options.worker.serves()  # its parent says it, of all
                for url in urls if options.worker is None else ():
                    name = "" if options.node is None else f" as {options.node}"
                    said.put(f"penstock serves {options.log_name} on {url}{name} (Ctrl-C ends it)\n")
                if peers is not None:
                    peers.url_of = partial(_url_of, engine)
                over = trio.Event()
                if between is not None:
                    await nursery.start(partial(_answer_nodes, options, engine, between.listen(), over))
                try:
                    await _answer(options, engine, metrics, listeners, shutdown)
                finally:
                    over.set()
            nursery.start_soon(_leave_stragglers, engine)
    finally:
        bound.close()
        if between is not None:
            between.close()
        if peers is not None:
            await peers.aclose()
        await _close_producers(options.producers.values())


async def _answer(
    options: Options,
    engine: Engine,
    metrics: Metrics,
    listeners: Sequence[trio.SocketListener],
    shutdown: trio.Event,
) -> None:
    """Let everybody in who may come, until ``shutdown``."""
    access = options.access
    limits = Limits(options.edge.limits(known=not access.identity.open))
    try:
        await serve(
            create_app(
                engine,
                identity=access.identity,
                allowed_origins=access.allowed_origins,
                allowed_hosts=access.allowed_hosts,
                metrics=metrics,
                limits=limits,
            ),
            websocket_handler(
                engine,
                identity=access.identity,
                allowed_origins=access.allowed_origins,
                allowed_hosts=access.allowed_hosts,
                limits=limits,
            ),
            listeners,
            shutdown=shutdown,
            drain=engine.drain,
            config=options.edge.server_config(
                local=all(ipaddress.ip_address(host).is_loopback for host in options.hosts),
                send_timeout=options.send_timeout,
                drain_timeout=options.drain_timeout,
            ),
        )
    finally:
        for listener in listeners:  # where it could not begin
            listener.socket.close()


def _node_url(peering: Peering | None, between: Bound | None) -> str:
    if peering is None or between is None:
        return ""
    return peering.url or between.urls("http")[0].rstrip("/")


def _url_of(engine: Engine, name: str) -> str | None:
    node = engine.find_node(name)
    return (node.url or None) if node is not None else None


async def _answer_nodes(
    options: Options,
    engine: Engine,
    listeners: Sequence[trio.SocketListener],
    shutdown: trio.Event,
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    """Carry out what other nodes ask for, while the engine drains, too."""
    peering, certificate = options.peering, options.edge.certificate
    assert peering is not None
    tls = certificate.certificate if peering.encrypted and certificate is not None else None
    await serve_nodes(engine, peering.secret, listeners, shutdown=shutdown, tls=tls, task_status=task_status)


async def _close_producers(producers: Iterable[Producer]) -> None:
    """A producer that is an object with an ``aclose`` holds something: connections that it keeps, for the most part."""
    with trio.move_on_after(_LAST_MOMENT, shield=True):
        for producer in producers:
            aclose = getattr(producer, "aclose", None)
            if aclose is not None:
                await aclose()


async def _watch_signals(
    shutdown: trio.Event, reload: trio.MemorySendChannel[None], *, task_status: trio.TaskStatus[None]
) -> None:
    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
    with trio.open_signal_receiver(*ends, signal.SIGHUP) as signals:
        task_status.started()
        async for number in signals:
            if number == signal.SIGHUP:
                with suppress(trio.WouldBlock):
                    reload.send_nowait(None)
            elif shutdown.is_set():
                _log.warning("a second signal, %s: leaving at once", signal.Signals(number).name)
                _exit(128 + number)
            else:
                _log.info("%s: ending answers and streams; once more to leave at once", signal.Signals(number).name)
                shutdown.set()


async def _reload(files: Sequence[Reloadable], asked: trio.MemoryReceiveChannel[None]) -> None:
    async for _ in asked:
        await trio.to_thread.run_sync(reload_all, files, abandon_on_cancel=True)  # a disk may hang


async def _leave_stragglers(engine: Engine) -> None:
    """Producers that will not end must not keep the process. Their ends are stored, and the engine named them."""
    await engine.closed.wait()
    await trio.sleep(_LAST_MOMENT)
    _log.warning("leaving without the producers that did not end")
    _exit(0)


def _exit(code: int) -> NoReturn:
    """End the process here and now, whatever its tasks and threads do."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
