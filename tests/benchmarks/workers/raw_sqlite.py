"""The limit of writing: SQLite alone, with the rows that the engine wrote, in batches as large as its own.

The same schema, journal and synchronisation; one statement per batch, which is its transaction, from one thread. And
what the disk takes for one event: a write and an fdatasync.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Final

from tests.benchmarks.children import ROOT, perform
from tests.benchmarks.samples import Delays

__all__: list[str] = []

_EVENT: Final = b"x" * 400


def rewrite(source: str, target: str, batch: float) -> dict[str, float]:
    """The rows of the database ``source``, in the order they were stored, into a new one, ``batch`` at a time."""
    with closing(sqlite3.connect(source)) as database:
        rows = database.execute("SELECT id, life, offset, body FROM events ORDER BY id").fetchall()
    with closing(sqlite3.connect(target, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript((ROOT / "engine" / "log" / "sqlite" / "schema.sql").read_text())
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA cache_size = -16384")  # as the engine's
        size = max(1, round(batch))
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        begun = time.perf_counter()
        for part in batches:
            values = ",".join(["(?,?,?,?)"] * len(part))
            database.execute(
                f"INSERT INTO events (id, life, offset, body) VALUES {values}", list(chain.from_iterable(part))
            )
        seconds = time.perf_counter() - begun
    return {"events_per_s": len(rows) / seconds}


def sync(folder: str, count: int, rate: float) -> dict[str, float]:
    """How long one event takes to be on the disk that has the folder: back to back, and at a pace.

    At a pace of tens a second each takes two or three times as long.
    """
    path = Path(folder) / "fdatasync"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        rushed = _synced(descriptor, count, 0.0)
        paced = _synced(descriptor, count, 1 / rate)
    finally:
        os.close(descriptor)
        path.unlink()
    return {"p50": paced.p50, "p99": paced.p99, "rushed_p50": rushed.p50, "rushed_p99": rushed.p99}


def _synced(descriptor: int, count: int, interval: float) -> Delays:
    taken: list[int] = []
    due = time.monotonic()
    for _ in range(count):
        due += interval
        time.sleep(max(0.0, due - time.monotonic()))
        begun = time.monotonic_ns()
        os.write(descriptor, _EVENT)
        os.fdatasync(descriptor)
        taken.append(time.monotonic_ns() - begun)
    return Delays.of(taken)


if __name__ == "__main__":
    perform(rewrite, sync)
