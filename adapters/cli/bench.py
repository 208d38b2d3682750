"""``penstock bench``: how fast the engine is on this machine, and its event streams.

A look, not a proof: one run of a few seconds. The suite that compares, over several rounds, is ``tests/benchmarks``
in the source.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, cast, final

import attrs
import click
import trio

from penstock.engine import Generation, PenstockError, open_engine

from ..client import connect
from ..tasks import open_tasks

__all__ = ["bench", "words"]

# About what a model sends at a time.
_TEXT: Final = "a few words of an answer "

# Events of the answer whose delays are measured, and how many of them come in a second, as from a fast model.
_PACED: Final = 200
_PACE: Final = 50

# For all events of an answer to come.
_PATIENCE: Final = 60.0

# How the text of an event of `words` begins, as JSON. Nothing else in a stream has it, so counting it counts events.
_MARK: Final = b'"text":"@'
_WRITTEN: Final = re.compile(_MARK + rb"(\d{19})")

# Viewers that compute for more of the time do not wait for the server, but it for them.
_BUSY: Final = 0.9


@final
@attrs.frozen
class _Figure:
    """One line of the report."""

    name: str
    value: float
    unit: str
    note: str = ""

    def __str__(self) -> str:
        note = f"  ({self.note})" if self.note else ""
        return f"{self.name:<42}{self.value:>14,.{3 if self.value < 100 else 0}f} {self.unit}{note}"


@click.command()
@click.option("--events", default=20_000, show_default=True, type=click.IntRange(min=100, max=1_000_000))
@click.option("--viewers", default=100, show_default=True, type=click.IntRange(min=1, max=900))
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="On the disk that is to be measured; what is made there is removed.  [default: the system's temporary one]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def bench(events: int, viewers: int, folder: Path | None, as_json: bool) -> None:
    """Measure how fast this machine writes events durably, and delivers them.

    Starts a server of its own on a free port of this machine, with a database of its own, and ends it. Takes some
    seconds. What else the machine does shows in the figures. All viewers are in one process, beside the server's:
    where they were the bound, the line says so.

    \b
    Examples:
      penstock bench
      penstock bench --folder /var/lib/chat --json
    """
    found: list[_Figure] = []
    try:
        with tempfile.TemporaryDirectory(prefix="penstock-bench-", dir=folder) as made:
            for figure in _figures(Path(made), events, viewers):
                found.append(figure)
                if not as_json:
                    click.echo(figure)
    except (PenstockError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps({"figures": [attrs.asdict(figure) for figure in found]}, indent=2))


def _figures(folder: Path, events: int, viewers: int) -> Iterator[_Figure]:
    """Measure one after the other, with files in ``folder``. Raises `PenstockError`, `OSError`, `ClickException`."""
    for producers in (1, 100):
        each = events // producers
        seconds = trio.run(_durable, folder / f"engine-{producers}.db", producers, each)
        yield _Figure(f"durable events, {producers} producers", each * producers / seconds, "events/s")
    with _serving(folder) as port:
        _, _, delays = trio.run(_delivered, port, _PACED, _PACE, 1)
        yield _Figure("written to received, SSE, half of all", delays[_PACED // 2] / 1e6, "ms")
        yield _Figure("written to received, SSE, 99 of 100", delays[_PACED * 99 // 100] / 1e6, "ms")
        seconds, busy, _ = trio.run(_delivered, port, events, 0, viewers)
        note = "the viewers were the bound" if busy > _BUSY else ""
        yield _Figure(f"delivered to {viewers} viewers, SSE", events * viewers / seconds, "events/s", note)


async def _durable(db: Path, producers: int, each: int) -> float:
    """The seconds in which so many producers write ``each`` events: from when all stand ready until all is durable."""
    arrived, arrivals = trio.open_memory_channel[None](producers)
    ready, done = trio.Event(), trio.Event()

    async def produce(generation: Generation) -> None:
        async with generation.message() as message, message.text() as block:
            await generation.flush()
            arrived.send_nowait(None)
            await ready.wait()
            for _ in range(each):
                await block.write(_TEXT)
            await generation.flush()
            arrived.send_nowait(None)
            await done.wait()  # what ends an answer is not what is measured

    async with open_engine(db) as engine:
        for _ in range(producers):
            await (await engine.create_session()).start(produce)
        for _ in range(producers):
            await arrivals.receive()
        begun = time.perf_counter()
        ready.set()
        for _ in range(producers):
            await arrivals.receive()
        seconds = time.perf_counter() - begun
        done.set()
    return seconds


async def words(generation: Generation) -> None:
    """The server's producer: ``count`` events that say when they are written, ``rate`` a second or, for 0, at once."""
    given = cast("Mapping[str, int]", generation.input)
    async with generation.message() as message, message.text() as block:
        for _ in range(given["count"]):
            if given["rate"]:
                await trio.sleep(1 / given["rate"])
            await block.write(f"@{time.monotonic_ns():019d} {_TEXT}")


@contextmanager
def _serving(folder: Path) -> Iterator[int]:
    """The port of a server with the producer `words`, whose log is shown; it is ended when the block is left."""
    command = [sys.executable, "-m", "penstock.adapters.cli", "serve", "--db", "bench.db", "--port", "0"]
    command += ["--producer", f"words={__name__}:{words.__name__}", "--log-level", "warning"]
    # What the variables give a server of this machine, as its keys, is not this one's.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder, env=env) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
            if found is None:
                raise click.ClickException("the server did not start")
            yield int(found[1])
        finally:
            process.terminate()


async def _delivered(port: int, count: int, rate: int, viewers: int) -> tuple[float, float, list[int]]:
    """Let `words` write into a new session, and so many viewers read it.

    Returns the seconds from asking for the answer until all of it has come to all of them; this process's processor
    time as a part of them; and of events at a rate, in order, the nanoseconds from written to received. Raises
    `PenstockError`, `ClickException`.
    """
    expected, received, delays = count * viewers, 0, list[int]()
    begun = used = last = 0
    follows, following = trio.open_memory_channel[None](viewers)
    over = trio.Event()

    async def view(request: bytes) -> None:
        """Count marks and parse no event, so as to be seldom the bound."""
        nonlocal received, last
        rest = b""
        with suppress(OSError, trio.BrokenResourceError):  # what has not come is told of below
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(request)
                while received < expected and (piece := await stream.receive_some()):
                    last, data = time.monotonic_ns(), rest + piece
                    end = data.rfind(b"\n") + 1  # an event is a line
                    received += data.count(_MARK, 0, end)
                    if rate:
                        delays.extend(last - int(written) for written in _WRITTEN.findall(data, 0, end))
                    if not begun and b"event: caught-up\n" in data:
                        follows.send_nowait(None)
                    rest = data[end:]
        over.set()

    async with connect(f"http://127.0.0.1:{port}") as client, open_tasks() as tasks:
        session = await client.create_session()
        request = f"GET /v1/sessions/{session.session_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        with trio.move_on_after(_PATIENCE):
            for _ in range(viewers):
                tasks.start_soon(view, request)
                await following.receive()
            begun, used = time.monotonic_ns(), time.process_time_ns()
            await session.start("words", input={"count": count, "rate": rate})
            await over.wait()
        used = time.process_time_ns() - used
    if received < expected:
        raise click.ClickException(f"{received} of {expected} events came")
    return (last - begun) / 1e9, used / (last - begun), sorted(delays)
