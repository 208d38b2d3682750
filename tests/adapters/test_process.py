"""The order in which `penstock serve` begins: nobody is let in before there is something to answer."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from penstock.adapters.access import OPEN
from penstock.adapters.cli import process
from penstock.adapters.cli.access import Access
from penstock.adapters.cli.edge import Edge
from penstock.adapters.cli.listening import ListenError
from penstock.adapters.cli.process import Options
from penstock.adapters.echo import echo
from penstock.adapters.watching.spool import Spool
from penstock.engine import DatabaseError, Engine, open_engine
from tests.adapters.serving import PATIENCE
from tests.adapters.test_listening import reachable
from tests.engine.stores import free_port


@pytest.fixture
def said(tmp_path: Path) -> Iterator[Spool]:
    with (tmp_path / "said").open("wb") as file:
        spool = Spool(file.fileno())
        yield spool
        assert spool.flush(PATIENCE)
        spool.close()


def options(port: int) -> Options:
    return Options(
        log=":memory:",
        hosts=("127.0.0.1",),
        access=Access(identity=OPEN, keys=None, allowed_origins=(), allowed_hosts=()),
        port=port,
        producers={"echo": echo},
        default_producer="echo",
        idle_limit=120.0,
        idle_limits={},
        send_timeout=1.0,
        drain_timeout=1.0,
        edge=Edge(),
    )


class Slow:
    """An engine that takes its time to open, or never does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failure: Exception | None = None) -> None:
        self.opening, self.go = trio.Event(), trio.Event()
        self.failure = failure
        monkeypatch.setattr(process, "open_engine", self._open)

    @asynccontextmanager
    async def _open(self, *arguments: object, **options: object) -> AsyncIterator[Engine]:
        self.opening.set()
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        async with open_engine(*arguments, **options) as engine:  # type: ignore[arg-type]  # whatever it is, passed on
            yield engine


async def test_nobody_is_let_in_before_the_database_is_open(
    monkeypatch: pytest.MonkeyPatch, said: Spool, tmp_path: Path
) -> None:
    slow, port = Slow(monkeypatch), free_port()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process._run, options(port), said)
        await slow.opening.wait()
        assert not await reachable("127.0.0.1", port)
        assert said.flush(PATIENCE)
        assert (tmp_path / "said").read_bytes() == b""
        slow.go.set()
        with trio.fail_after(PATIENCE):
            while not await reachable("127.0.0.1", port):  # noqa: ASYNC110  # nobody tells
                await trio.sleep(0.01)
        assert said.flush(PATIENCE)
        assert f"http://127.0.0.1:{port}/".encode() in (tmp_path / "said").read_bytes()
        os.kill(os.getpid(), signal.SIGTERM)


async def test_a_database_that_does_not_open_is_told_and_nobody_was_let_in(
    monkeypatch: pytest.MonkeyPatch, said: Spool, tmp_path: Path
) -> None:
    slow, port = Slow(monkeypatch, DatabaseError("no")), free_port()
    slow.go.set()
    with pytest.raises(DatabaseError):
        await process._run(options(port), said)
    assert not await reachable("127.0.0.1", port)
    assert (tmp_path / "said").read_bytes() == b""


async def test_an_address_that_is_in_use_is_told_before_the_database_is_touched(
    monkeypatch: pytest.MonkeyPatch, said: Spool
) -> None:
    slow = Slow(monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ListenError):
        await process._run(options(taken.getsockname()[1]), said)
    assert not slow.opening.is_set()


async def test_an_address_that_is_taken_meanwhile_is_told_too(monkeypatch: pytest.MonkeyPatch, said: Spool) -> None:
    slow, port = Slow(monkeypatch), free_port()
    failure: Exception | None = None

    async def run() -> None:
        nonlocal failure
        try:
            await process._run(options(port), said)
        except ListenError as error:
            failure = error

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await slow.opening.wait()
        other = socket.socket()
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with other:
            other.bind(("127.0.0.1", port))
            other.listen()
            slow.go.set()
            with trio.fail_after(PATIENCE):
                while failure is None:  # noqa: ASYNC110  # nobody tells
                    await trio.sleep(0.01)
    assert "is in use" in str(failure)


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGTERM, signal.SIGINT])
async def test_a_signal_while_the_database_opens_ends_it_before_anybody_is_let_in(
    monkeypatch: pytest.MonkeyPatch,
    said: Spool,
    tmp_path: Path,
    number: signal.Signals,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "penstock.serve")
    slow, port = Slow(monkeypatch), free_port()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process._run, options(port), said)
        await slow.opening.wait()
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), number)
        with trio.fail_after(PATIENCE):
            while not any(number.name in record.getMessage() for record in caplog.records):  # noqa: ASYNC110
                await trio.sleep(0.01)
        slow.go.set()
    assert said.flush(PATIENCE)
    assert (tmp_path / "said").read_bytes() == b""
