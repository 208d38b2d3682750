"""An application that a Ctrl-C ends, in a process of its own: ``python -m tests.engine.interrupted FOLDER MODE …``.

``random SEED ROUNDS``: a signal after a random time, in each round, into a plain `trio.run` over a database.
``lines FIRST STEP``: a signal at one line after the other of the modules that stamp, commit and end: at the one with
number FIRST of those that are run through, then FIRST + STEP, and so on.

What comes out of each run is told on a line of its own; the end is ``done NUMBER``.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final

import trio

from penstock import engine
from penstock.engine import Config, Generation, MemoryLog, SessionState, open_engine
from penstock.engine.log import EventLog
from penstock.engine.testing import check_log
from tests.engine.rules import events_of
from tests.engine.trouble import cut_short, say_last_word

MODULES: Final = ("stamper", "journal", "ending", "core", "transaction", "writer", "run", "starting", "commit")
FILES: Final = frozenset(str(path) for name in MODULES for path in Path(engine.__file__).parent.rglob(f"{name}.py"))
CONFIG: Final = Config(cleanup_timeout=1.0, session_pending=8, checkpoint_every=4)


async def busy(generation: Generation) -> None:
    """Computes between its pieces, as a tokenizer does."""
    async with generation.message() as message, message.text() as block:
        for _ in range(60):
            await block.write("x")
            until = time.perf_counter() + 0.003
            while time.perf_counter() < until:
                pass
            await trio.lowlevel.checkpoint()
    await say_last_word(generation)


async def steps(generation: Generation) -> None:
    """In the middle of its answer for most of the time."""
    for number in range(3):
        async with generation.message() as message, message.text() as block:
            await block.write(f"step {number} of 3")
        await trio.sleep(0.1)
    await say_last_word(generation)


async def talks(generation: Generation) -> None:
    async with generation.message() as message, message.text() as block:
        for _ in range(10):
            await block.write("y")
    generation.report_usage({"tokens": 10})
    await say_last_word(generation)


PRODUCERS: Final = {"busy": busy, "steps": steps, "talks": talks}


async def work(log: str | EventLog, rounds: int) -> None:
    """What an application does, in its main task."""
    async with open_engine(log, producers=PRODUCERS, config=CONFIG) as opened:
        waiting = await opened.create_session("waits")
        await waiting.start("steps")
        for number in range(rounds):
            session = await opened.create_session(f"s-{number % 3}")
            await session.start("busy" if number % 2 else "talks", text="go")
            await session.post("and this")
            await session.start("steps", policy="queue")
            async with session.subscribe(live=False) as events:
                async for _ in events:
                    pass
            await session.stop(queue="continue")
            await trio.sleep(0.01)


async def look(log: EventLog) -> list[str]:
    """What is wrong with what a process left; then the next one goes on with it."""
    found = await _broken(log, closed=False)
    async with open_engine(log, producers=PRODUCERS, config=CONFIG) as opened:
        for info in await opened.sessions():
            session = await opened.session(info.session_id)
            state = SessionState(info.session_id, info.cursor.epoch)
            started = await session.start("talks")
            async with session.subscribe() as live:
                async for event in live:
                    if event.type == "generation.finished" and event.generation_id == started.generation_id:
                        break
            snapshot = await session.snapshot()
            for event in await events_of(log, info.session_id):
                if event.offset is not None and event.offset <= snapshot.cursor.offset:
                    state.apply(event)
            if state.snapshot() != snapshot:
                found.append(f"{info.session_id}: its log does not fold to its state")
    return found + await _broken(log, closed=True)


async def _broken(log: EventLog, *, closed: bool) -> list[str]:
    found = []
    for head in await log.heads():
        events = await events_of(log, head.session_id)
        found += [f"{head.session_id}: {violation}" for violation in check_log(events, closed=closed)]
        found += [f"{head.session_id}: {gid} completed without a last word" for gid in cut_short(events)]
    return found


def told(run: Callable[[], object]) -> str:
    """What came out of it."""
    try:
        run()
    except KeyboardInterrupt:
        return "KeyboardInterrupt"
    except BaseException as error:  # noqa: BLE001  it is what is looked for
        return repr(error)
    return "nothing"


def at_random(folder: Path, seed: int, rounds: int) -> int:
    chance = random.Random(seed)
    for number in range(rounds):
        path = str(folder / f"{number}.db")
        after = chance.uniform(0.0, 0.5)
        twice = chance.random() < 0.2
        begin, over = threading.Event(), threading.Event()

        def strike(
            after: float = after, twice: bool = twice, begin: threading.Event = begin, over: threading.Event = over
        ) -> None:
            begin.wait()
            for pause in (after, 0.01) if twice else (after,):
                time.sleep(pause)
                if not over.is_set():
                    os.kill(os.getpid(), signal.SIGINT)

        def run(path: str = path, begin: threading.Event = begin) -> None:
            begin.set()
            trio.run(work, path, 1000)

        thread = threading.Thread(target=strike)
        thread.start()
        raised = told(run)
        over.set()
        thread.join()
        _say(raised, trio.run(_look_at, path))
    return rounds


async def _look_at(path: str) -> list[str]:
    from penstock.engine.log import open_sqlite

    log = await open_sqlite(path)
    try:
        return await look(log)
    finally:
        await log.aclose()


class Striker:
    """Strikes at one of the lines that are run through in `FILES`, as a signal that comes there would."""

    def __init__(self, at: int) -> None:
        self.lines = 0
        self.struck = ""
        self._at = at

    def __call__(self, frame: FrameType, event: str, argument: object) -> Callable[..., object] | None:
        return self._line if frame.f_code.co_filename in FILES else None

    def _line(self, frame: FrameType, event: str, argument: object) -> Callable[..., object]:
        if event == "line":
            self.lines += 1
            if self.lines == self._at:
                self.struck = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                signal.raise_signal(signal.SIGINT)
        return self._line


def at_lines(first: int, step: int) -> int:
    number, runs = first, 0
    while True:
        log = MemoryLog()
        striker = Striker(number)
        sys.settrace(striker)  # type: ignore[arg-type]
        try:
            raised = told(partial(trio.run, work, log, 2))
        finally:
            sys.settrace(None)
        if not striker.struck:
            return runs
        _say(f"{raised} at {striker.struck}" if raised != "KeyboardInterrupt" else raised, trio.run(look, log))
        number, runs = number + step, runs + 1


def _say(raised: str, found: list[str]) -> None:
    print(raised, *found, sep=" | ", flush=True)  # noqa: T201  it is what the parent reads


def main() -> None:
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it
    folder, mode, first, second = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    runs = at_random(folder, first, second) if mode == "random" else at_lines(first, second)
    print("done", runs, flush=True)  # noqa: T201  as above


if __name__ == "__main__":
    main()
