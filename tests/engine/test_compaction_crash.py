"""kill -9 in the middle of compactions: what is left folds to the same, and the next one goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from penstock.engine import Compactor, Config, Event, SessionState, decode, open_sqlite
from penstock.engine.log import EventLog
from penstock.engine.reducer import Gap
from penstock.engine.testing import check_log
from tests.engine.strategies import EPOCH
from tests.engine.test_compaction import Story, Writing, blocks_of

# Compacts in pieces of five, and says so after each; another session is written to meanwhile.
COMPACTOR = """
import sys, trio
import penstock.engine.upkeep.compaction
from penstock.engine import Append, Compact, Compactor, Config, open_sqlite

penstock.engine.upkeep.compaction._PIECE = 5

async def main():
    log = await open_sqlite(sys.argv[1])
    submit = log.submit

    def told(write, report):
        def reported(error):
            assert error is None, error
            if isinstance(write, Compact):
                print("x", flush=True)
            report(error)
        submit(write, reported)

    async def stream():
        head = await log.head("other")
        tail = head.tail if head else 0
        while True:
            await log.write(Append(session_id="other", epoch="e1", expected_tail=tail, token=1, events=[b"x"],
                                   create=not tail))
            tail += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream)
        log.submit = told
        await Compactor(log, Config(compact_after=0)).compact_all()
        print("done", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


async def read(log: EventLog) -> list[Event]:
    events: list[Event] = []
    while page := await log.read("s-1", EPOCH, after=events[-1].offset or 0 if events else 0, limit=99, max_bytes=9999):
        events += [decode(entry.body) for entry in page]
    return events


def fold(events: list[Event]) -> SessionState:
    state = SessionState("s-1", EPOCH)
    for event in events:
        assert not isinstance(state.apply(event), Gap)
    return state


def killed_after(path: Path, pieces: int) -> None:
    """A process compacts, and is killed once so many of its writes were reported."""
    process = subprocess.Popen(
        [sys.executable, "-c", COMPACTOR, str(path)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert process.stdout
    with process.stdout:
        told = [process.stdout.readline() for _ in range(pieces)]
        process.kill()
        process.wait()
    assert "" not in told


@pytest.mark.parametrize("pieces", [1, 2, 3, 20, 45])
async def test_after_a_kill_the_session_folds_to_the_same(tmp_path: Path, pieces: int) -> None:
    path = tmp_path / "chat.db"
    story = Story()
    for _ in range(5):
        story.answer(*[f"{number} " for number in range(97)])
    expected = fold(story.events).snapshot()
    log = await open_sqlite(path)
    await Writing(log).append(story.events)
    await log.aclose()
    killed_after(path, pieces)
    log = await open_sqlite(path)
    left = await read(log)
    assert check_log(left, compacted=True) == []
    assert fold(left).snapshot() == expected
    await Compactor(log, Config(compact_after=0)).compact_all()
    assert blocks_of(await read(log)) == 0
    assert fold(await read(log)).snapshot() == expected
    await log.aclose()
