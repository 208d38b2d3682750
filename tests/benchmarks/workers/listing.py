"""Logs of many sessions, made through the log's own append; and the limit of a page of their list: SQLite alone."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from typing import Final

import trio

from penstock.engine import open_sqlite
from tests.benchmarks.children import perform
from tests.benchmarks.listed import PATTERNS, append, rank, session_id
from tests.benchmarks.samples import Delays

__all__: list[str] = []

# Sessions that are handed over at a time.
_BATCH: Final = 1000

# One walk of the order by activity, whatever part of the ids is wanted, and all that is told of each session.
_PAGE: Final = """
SELECT v.session, s.epoch, s.tail, v.place, v.body, r.value
FROM summaries AS v INDEXED BY summaries_by_place
CROSS JOIN sessions AS s ON s.life = v.life
LEFT JOIN records AS r ON r.life = v.life AND r.key = 'session/metadata'
WHERE (v.place, v.session) > (?, ?) AND v.session >= ? AND v.session < ?
ORDER BY v.place, v.session LIMIT ?
"""


async def fill(db: str, sessions: int) -> dict[str, float]:
    """A log of so many sessions; the seconds it took to append them."""
    begun = time.perf_counter()
    log = await open_sqlite(db)
    try:
        for start in range(0, sessions, _BATCH):
            async with trio.open_nursery() as nursery:
                for number in range(start, min(start + _BATCH, sessions)):
                    nursery.start_soon(log.write, append(number))
    finally:
        await log.aclose()
    return {"seconds": time.perf_counter() - begun}


def pages(db: str, sessions: int, limit: int, times: int) -> dict[str, float]:
    """Seconds of a page of the list, the first one and one from the middle, for each of `PATTERNS`."""
    found: dict[str, float] = {}
    with closing(sqlite3.connect(db)) as database:
        database.execute("PRAGMA cache_size = -16384")  # as the engine's
        for whose, pattern in PATTERNS.items():
            prefix = pattern.removesuffix("*")
            for name, behind in (("first", sessions), ("deep", sessions // 2)):
                wanted = (-rank(behind), session_id(behind), prefix, prefix + "\U0010ffff", limit)
                taken = []
                for _ in range(times):
                    begun = time.perf_counter_ns()
                    rows = database.execute(_PAGE, wanted).fetchall()
                    taken.append(time.perf_counter_ns() - begun)
                    if len(rows) != limit:
                        raise AssertionError(f"{len(rows)} sessions are in a page of {limit}")
                delays = Delays.of(taken)
                found |= {f"{name}.{whose}.p50": delays.p50, f"{name}.{whose}.p99": delays.p99}
    return found


if __name__ == "__main__":
    perform(fill, pages)
