"""Stores that are processes of their own: a port for one, waiting for what it does, and killing it while it is used."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol

import trio

from penstock.engine.log import EventLog
from tests.engine.writes import append, bodies, create

__all__ = ["free_port", "kill_under_load", "until"]


class Server(Protocol):
    def url(self) -> str: ...

    def start(self) -> None: ...

    def kill(self) -> None: ...


def free_port() -> int:
    """One that nobody listens on, as of this call."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


async def until(holds: Callable[[], object]) -> None:
    """Wait until it holds, for 30 s at most."""
    with trio.fail_after(30):
        while not holds():  # noqa: ASYNC110  what comes of another process, or over a socket, wakes nobody here
            await trio.sleep(0.01)


async def kill_under_load(
    server: Server, opened: Callable[[str], AbstractAsyncContextManager[EventLog]], *, kills: int, pause: float
) -> None:
    """Kill it so often while eight sessions are written to, ``pause`` seconds each; what was acknowledged is there."""
    acknowledged: dict[str, int] = {}
    done = trio.Event()
    url = server.url()
    async with opened(url) as log:
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(_keep_writing, log, f"s{number}", acknowledged, done)
            for _ in range(kills):
                await trio.sleep(pause)
                before = acknowledged.copy()
                server.kill()
                await trio.sleep(pause / 2)
                await trio.to_thread.run_sync(server.start)
                await until(partial(dict.__ne__, acknowledged, before))
            done.set()
        assert log.statistics().failed_writes == 0
    server.kill()
    server.start()
    async with opened(url) as log:
        for session_id, tail in acknowledged.items():
            assert await bodies(log, session_id) == [b"%d" % number for number in range(1, tail + 1)]
    assert len(acknowledged) == 8


async def _keep_writing(log: EventLog, session_id: str, acknowledged: dict[str, int], done: trio.Event) -> None:
    await log.write(create(of=session_id))
    tail = 0
    while not done.is_set():
        await log.write(append(*(b"%d" % (tail + number) for number in (1, 2)), to=session_id, tail=tail))
        tail = acknowledged[session_id] = tail + 2
