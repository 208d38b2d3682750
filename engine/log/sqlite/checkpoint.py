"""Moving what is committed from the write-ahead log into the database, beside the commits.

SQLite would do it in the commit that fills the write-ahead log past a bound: then nothing is stored for some
milliseconds, one commit in fifty where many sessions write at a time. Here another thread does it while commits go
on. What has come meanwhile, a few pages, is left to the writing thread (`Committer.finish_checkpoint`): only between
two commits can all of it be moved, and only then the write-ahead log begins again at its start.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable
from typing import Final, final

__all__ = ["Checkpointer", "checkpoint"]

logger = logging.getLogger("penstock.log")

# Pages in the write-ahead log (8 MiB) that are moved at a time, about. With fewer, the same pages are moved again and
# again; with more, those who commit meanwhile share the disk with it for longer.
_PAGES: Final = 2048

# What comes while one pass runs is moved by the next, until it is so little that the writer can.
_REST: Final = 64
_PASSES: Final = 3

# Commits and events between two looks: at first, and at most. How many fill so many pages is learned from each look.
_FIRST: Final = 512
_MOST: Final = 32 * _PAGES

# And bytes: large events lie on pages of their own, which none moves again. With more between two looks, who commits
# beside values of 1 MiB waits longer for the disk (measured: of 100 commits one took 250 ms without this bound).
_BYTES: Final = 4 * 1024 * 1024

# Seconds until what little a quiet server wrote is moved, too. A copy of the file alone then lacks no more than that,
# and no more is lost with a write-ahead log that somebody deletes.
_QUIET: Final = 10.0

# Pages that cannot be moved (64 MiB): more than ever wait because commits come fast. The next warning is at twice that.
_PINNED: Final = 16 * 1024


def checkpoint(connection: sqlite3.Connection) -> tuple[int, int]:
    """Move what can be moved without anybody waiting: pages in the write-ahead log, and how many of them have been.

    Both are -1 when somebody else moves them just now. Raises `sqlite3.Error`.
    """
    _, pages, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return pages, moved


@final
class Checkpointer:
    """A thread with a connection of its own. What it cannot do stays undone: the writer's own bound is behind it."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._due = threading.Event()
        self._stopping = False
        self._written = 0  # commits and events since it was last due
        self._bytes = 0
        self._counted = 0  # how many they were then
        self._enough = _FIRST
        self._pinned = _PINNED  # of so many pages there will be a warning
        self.rest_is_due = False  # for the writer to move
        self._thread = threading.Thread(target=self._run, name="penstock-checkpointer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def committed(self, commits: int, events: int, size: int) -> None:
        """So many more, of so many bytes. Called by the writing thread, as all but `start`."""
        self._written += commits + events
        self._bytes += size
        if self._written >= self._enough or self._bytes >= _BYTES:
            self._counted, self._written, self._bytes = self._written, 0, 0
            self._due.set()

    def stop(self) -> None:
        """End, and close the connection. Waits for a pass that is under way."""
        self._stopping = True
        self._due.set()
        self._thread.join()

    def _run(self) -> None:
        while self._is_due():
            # As SQLite does with its own: an error is nobody's, nothing is lost, and the next one tries again.
            with contextlib.suppress(sqlite3.Error), contextlib.closing(self._connect()) as connection:
                self._move(connection)
                while self._is_due():
                    self._move(connection)

    def _is_due(self) -> bool:
        """Wait until it is, for what was written or for the time. False when it is time to stop."""
        if not self._stopping:
            self._due.wait(_QUIET)
            self._due.clear()
        return not self._stopping

    def _move(self, connection: sqlite3.Connection) -> None:
        counted, self._counted = self._counted, 0
        pages, moved = checkpoint(connection)
        if counted and pages > 0:
            self._enough = min(max(_FIRST, _PAGES * counted // pages), _MOST)
        for _ in range(1, _PASSES):
            if self._stopping:
                return
            before = moved
            pages, moved = checkpoint(connection)
            if moved - before < _REST:
                break
        self._warn_of_rest(connection, pages - moved)
        if counted:
            self.rest_is_due = True
        else:  # the time has come: there was little, and it does not count for the next one
            self._written = self._bytes = 0

    def _warn_of_rest(self, connection: sqlite3.Connection, pages: int) -> None:
        """Of so much that cannot be moved: somebody has been reading since it was written, and none of ours does."""
        if pages < _PINNED:
            self._pinned = _PINNED
        elif pages >= self._pinned:
            self._pinned = 2 * pages
            (size,) = connection.execute("PRAGMA page_size").fetchone()
            detail = (
                "another program has been reading the database for long, and until it ends the write-ahead log only "
                "grows: `fuser` or `lsof` on the file shows which"
            )
            extra = {"event": "wal_pinned", "size_mib": pages * size >> 20, "detail": detail}
            logger.warning("wal_pinned", extra=extra)
