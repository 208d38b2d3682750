"""kill -9 in the middle of commits: what was reported is there, whole and in order."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from penstock.engine.log import open_sqlite
from tests.engine.writes import bodies

# Appends to three sessions without end, from where each stands, and says what was reported.
APPENDER = """
import sys, trio
from penstock.engine.log import Append, open_sqlite

async def main():
    log = await open_sqlite(sys.argv[1])

    def go_on(session_id, tail, create=False):
        events = [b"%d" % offset for offset in range(tail + 1, tail + 8)]
        records = {"tail": b"%d" % (tail + 7)}
        log.submit(
            Append(session_id=session_id, epoch="e1", expected_tail=tail, token=1, events=events, records=records,
                   create=create),
            lambda error: reported(session_id, tail + 7, error),
        )

    def reported(session_id, tail, error):
        assert error is None, error
        sys.stdout.write(f"{session_id} {tail}\\n")
        sys.stdout.flush()
        go_on(session_id, tail)

    for session_id in "abc":
        head = await log.head(session_id)
        go_on(session_id, head.tail if head else 0, create=head is None)
    await trio.sleep_forever()

trio.run(main)
"""


def reported_until_killed(path: Path, reports: int) -> dict[str, int]:
    """The last tail that was reported of each session, by a process killed after ``reports`` of them."""
    process = subprocess.Popen(
        [sys.executable, "-c", APPENDER, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout
    with process.stdout:
        lines = [process.stdout.readline() for _ in range(reports)]
        process.kill()
        lines += process.stdout.readlines()
        process.wait()
    whole = [line.split() for line in lines if line.endswith("\n")]
    return {session_id: int(tail) for session_id, tail in whole}


@pytest.mark.parametrize("reports", [1, 2, 5, 40, 150])
async def test_after_a_kill_everything_reported_is_there(tmp_path: Path, reports: int) -> None:
    path = tmp_path / "chat.db"
    reported: dict[str, int] = {}
    for _ in range(2):
        reported |= reported_until_killed(path, reports)
        log = await open_sqlite(path)
        for session_id, tail in reported.items():
            head = await log.head(session_id)
            assert head is not None
            assert head.tail >= tail
            assert head.tail % 7 == 0
            assert await bodies(log, session_id) == [b"%d" % offset for offset in range(1, head.tail + 1)]
            assert await log.record(session_id, "e1", "tail") == b"%d" % head.tail
        await log.aclose()
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
