"""Whatever bytes come, the server answers as HTTP has it or closes, and is as it was: nothing fails, nothing is kept.

``PENSTOCK_STRINGS=1000000 pytest tests/adapters/test_garbled.py`` sends a million strings (``PENSTOCK_SEED`` others); a
connection that shows a fault is named with its seed.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import trio
import trio.testing

from penstock.adapters.watching.traffic import traffic
from penstock.engine import Config
from tests.adapters.garbling import Garbler
from tests.adapters.serving import PATIENCE, Penstock, penstock
from tests.engine.producers import saying

STRINGS: Final = int(os.environ.get("PENSTOCK_STRINGS", "3000"))
SEED: Final = int(os.environ.get("PENSTOCK_SEED", "0"))

# Of one server, which is then held against its beginning.
STRINGS_OF_ONE: Final = min(STRINGS, 5000)
CLIENTS: Final = 4

# Of the process, from its fourth server to its last: an allocator keeps less than this, and a fault more.
_KEPT: Final = 32 * 1024 * 1024

_STATUS: Final = re.compile(rb"(?:\A|\n|\}|\])HTTP/1\.1 (\d{3}) ")


class Told(logging.Handler):
    """What the log says is wrong."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(logging.Formatter().format(record))


@pytest.fixture
def told() -> Iterator[Told]:
    handler, log = Told(), logging.getLogger()
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)


async def exchange(world: Penstock, pieces: list[bytes]) -> bytes:
    """Send, say that this was all, and read to the end."""
    answer = b""
    async with await world.served.connect() as stream, trio.open_nursery() as nursery:

        async def send() -> None:
            try:
                for piece in pieces:
                    await stream.send_all(piece)
                    if len(pieces) > 1:
                        await trio.lowlevel.checkpoint()
                await stream.send_eof()
            except trio.BrokenResourceError:
                pass  # it was refused before it was whole

        nursery.start_soon(send)
        try:
            while more := await stream.receive_some():
                answer += more
                if b"content-type: text/event-stream" in answer:
                    break  # a stream that follows the session, with something behind it
        except trio.BrokenResourceError:
            pass
    return answer


async def garble(world: Penstock, seeds: Iterator[int], counts: Counter[str]) -> None:
    for seed in seeds:
        number, pieces = Garbler(seed).connection()
        try:
            with trio.fail_after(PATIENCE):
                answer = await exchange(world, pieces)
            statuses = [int(status) for status in _STATUS.findall(answer)]
            assert not answer or statuses, answer
            assert all(status < 500 for status in statuses), answer
        except BaseException:
            print(f"seed {seed}: {pieces}")  # noqa: T201
            raise
        counts["strings"] += number
        counts["connections"] += 1
        counts.update(str(status) for status in statuses)
        if counts["strings"] >= STRINGS_OF_ONE:
            return


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.timeout(6 * 3600)
async def test_no_bytes_break_the_server(told: Told) -> None:
    totals: Counter[str] = Counter()
    seeds, begun, sizes = iter(range(SEED * 10**9, (SEED + 1) * 10**9)), time.monotonic(), []
    while totals["strings"] < STRINGS:
        counts: Counter[str] = Counter()
        async with penstock(producers={"tale": saying("once")}, config=Config(cleanup_timeout=0.2)) as world:
            await world.engine.create_session("demo")
            async with trio.open_nursery() as nursery:
                for _ in range(CLIENTS):
                    nursery.start_soon(garble, world, seeds, counts)
            assert (await world.served.get("/healthz")).startswith(b"HTTP/1.1 200")
            with trio.fail_after(PATIENCE):
                while traffic.connections or traffic.streams or traffic.sockets:
                    await trio.testing.wait_all_tasks_blocked(0.001)
        assert told.lines == []
        totals += counts
        sizes.append(resident())
    assert totals["200"] > STRINGS / 50, totals  # else nothing ever got behind the first check
    assert totals["400"] > STRINGS / 50, totals
    if len(sizes) > 10:
        assert max(sizes[-3:]) - sizes[3] < _KEPT, sizes
    rate = totals["strings"] / (time.monotonic() - begun)
    print(f"{totals['strings']} strings, {rate:.0f} a second, from {sizes[0]} to {sizes[-1]} bytes; {totals}")  # noqa: T201
