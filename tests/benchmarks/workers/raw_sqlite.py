"""The limit of writing: SQLite alone, with the rows that the engine wrote, in batches as large as its own.

The same schema, journal and synchronisation; one statement per batch, which is its transaction, from one thread. And
what the disk takes for one event: a write and an fdatasync. Takes ``{"task": …}`` as JSON, prints one line of figures.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any, Final

from penstock.adapters.cli.bench.viewing import Delays
from tests.benchmarks.children import ROOT

__all__: list[str] = []

_SYNCS: Final = 500

_EVENT: Final = b"x" * 400


def _rewrite(given: Mapping[str, Any]) -> dict[str, float]:
    """The rows of the database ``source``, in the order they were stored, into a new one, ``batch`` at a time."""
    with closing(sqlite3.connect(given["source"])) as source:
        rows = source.execute("SELECT id, life, offset, body FROM events ORDER BY id").fetchall()
    target = Path(given["target"])
    with closing(sqlite3.connect(target, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript((ROOT / "engine" / "log" / "sqlite" / "schema.sql").read_text())
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA cache_size = -16384")  # as the engine's
        size = max(1, round(given["batch"]))
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        begun = time.perf_counter()
        for batch in batches:
            values = ",".join(["(?,?,?,?)"] * len(batch))
            database.execute(
                f"INSERT INTO events (id, life, offset, body) VALUES {values}", list(chain.from_iterable(batch))
            )
        seconds = time.perf_counter() - begun
    return {"events_per_s": len(rows) / seconds}


def _sync(given: Mapping[str, Any]) -> dict[str, float]:
    """How long one event takes to be on the disk that has the folder: back to back, and at a pace.

    At a pace of tens a second each takes two or three times as long.
    """
    path = Path(given["folder"]) / "fdatasync"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        rushed = _synced(descriptor, given.get("count", _SYNCS), 0.0)
        paced = _synced(descriptor, given.get("count", _SYNCS), 1 / given["rate"])
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
    _given = json.load(sys.stdin)
    print(json.dumps({"rewrite": _rewrite, "sync": _sync}[_given["task"]](_given)), flush=True)  # noqa: T201
