"""The process behind ``penstock serve``: an engine, its HTTP and WebSocket faces and the playground.

Owns signals, the listening socket and how the process ends.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Mapping
from typing import Final, NoReturn, final

import click
import trio
from attrs import frozen

from engine import Config, DatabaseError, Engine, Producer, open_engine

from ..http import create_app
from ..server import ServerConfig, StartupFailed, serve
from ..websocket import websocket_handler

__all__ = ["Options", "ServeError", "run"]

_log = logging.getLogger("penstock.serve")

# Past the server's default of 10 000 connections, with room for the database and the producers' own.
_DESCRIPTORS: Final = 16_384

# From the moment the log is closed: what an engine without stragglers takes to be gone, many times over.
_LAST_MOMENT: Final = 0.25


@final
class ServeError(Exception):
    """The server cannot start; the text says why and what to do."""


@final
@frozen(kw_only=True)
class Options:
    """What `serve` was told."""

    db: str
    host: str
    port: int
    producers: Mapping[str, Producer]
    default_producer: str
    send_timeout: float  # seconds
    drain_timeout: float  # seconds


def run(options: Options) -> None:
    """Serve until a signal says otherwise. Raises `ServeError`."""
    _prepare_process()
    try:
        trio.run(_run, options)
    except StartupFailed as error:
        raise ServeError(str(error)) from error
    except DatabaseError as error:
        raise ServeError(error.detail) from error


def _prepare_process() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    # With ten thousand sessions in memory a full collection stops everything for 300 to 400 ms; what was
    # imported never becomes garbage, and with these thresholds starts are 2.9 times as fast (measured).
    gc.freeze()
    gc.set_threshold(20_000, 50, 1_000)
    # The interpreter's switch interval stays at 5 ms. A shorter one (0.1 ms) lets the log's thread in beside a loop
    # that never waits: 10 000 events a second for 2 400 where tasks burn the CPU. But this loop waits at every read
    # and write, and 100 busy sessions with 1 or 5 viewers each got 10 to 25 % less through (measured).


async def _run(options: Options) -> None:
    shutdown = trio.Event()
    failure: Exception | None = None
    # Signals and stragglers are watched here, around the engine. An error is carried past the nursery, which
    # would wrap it.
    async with trio.open_nursery() as nursery:
        await nursery.start(_watch_signals, shutdown)
        try:
            await _serve(options, shutdown, nursery)
        except (ServeError, StartupFailed, DatabaseError) as error:
            failure = error
        nursery.cancel_scope.cancel(reason="the engine is closed")
    if failure is not None:
        raise failure


async def _serve(options: Options, shutdown: trio.Event, nursery: trio.Nursery) -> None:
    config = Config(drain_timeout=options.drain_timeout)
    server_config = ServerConfig(send_timeout=options.send_timeout, drain_timeout=options.drain_timeout)
    listeners = await _listen(options)
    try:
        async with open_engine(
            options.db, producers=options.producers, default_producer=options.default_producer, config=config
        ) as engine:
            click.echo(f"penstock serves {options.db} on {_url(listeners[0])} (Ctrl-C ends it)")
            await serve(
                create_app(engine),
                websocket_handler(engine),
                listeners,
                shutdown=shutdown,
                drain=engine.drain,
                config=server_config,
            )
            nursery.start_soon(_leave_stragglers, engine)
    finally:
        for listener in listeners:
            listener.socket.close()


async def _listen(options: Options) -> list[trio.SocketListener]:
    """Raises `ServeError`, naming the address and a way out."""
    try:
        return await trio.open_tcp_listeners(options.port, host=options.host)
    except OSError as error:
        where = f"{options.host} port {options.port}"
        if error.errno == errno.EADDRINUSE:
            raise ServeError(f"{where} is in use; is penstock running already? Choose another with --port") from error
        if error.errno == errno.EACCES:
            raise ServeError(f"this user may not listen on {where}; choose a port above 1023 with --port") from error
        raise ServeError(f"cannot listen on {where}: {error.strerror}") from error


def _url(listener: trio.SocketListener) -> str:
    host, port = listener.socket.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


async def _watch_signals(shutdown: trio.Event, *, task_status: trio.TaskStatus[None]) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            if shutdown.is_set():
                _log.warning("a second %s: leaving at once", signal.Signals(number).name)
                _exit(128 + number)
            _log.info("%s: ending answers and streams; once more to leave at once", signal.Signals(number).name)
            shutdown.set()


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
