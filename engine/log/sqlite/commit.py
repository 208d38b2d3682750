"""Carrying writes out on one connection: together where it goes, each alone where it does not.

Owns the transaction, what a failure of it means, and the purge of ended lives. Who waits for whom is `writer`'s,
what a `Compact` changes is `rewrite`'s.

A round of writes is one transaction. Refusals (`fence`) are decided before it and cost nobody else anything. When
the transaction fails, nothing of it is stored, and every write is tried again in a transaction of its own, the
smallest part of a session first, so that a fault of one part, or a disk with little room left, takes no
other part with it. If the first of these fails for the store's sake, then so would all: they are reported as
failed on the whole, without more tries on a disk that may take seconds for each.

SQLite in WAL mode rolls back what it could not commit. It is still not taken at its word: after an error the
log is read again, and if the round stands there, it is a success. (What no log can rule out: a sync fails,
the writes are reported as failed, and the machine dies before the next commit has overwritten
them. Then they may come back with the recovery: unpublished, but in order and without a hole.)
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, final

from ...errors import CorruptSession, PenstockError, WriteFailed
from ..fence import Standing, admit_compact
from ..port import Compact, Move, Write
from ..rounds import weight
from .checkpoint import checkpoint
from .database import at_once, explain, is_store_wide, rehearse
from .layout import LAST_CHUNK, OF_CHUNK, TAIL
from .plan import DELETED_PURGED, Life, Plan, Statement
from .rewrite import stands, statements

__all__ = ["Committer", "failure"]

# How many sessions' standings are remembered, some 300 bytes each; past that one query per round
# fetches those that are missing.
_REMEMBERED: Final = 16 * 1024

# Rows a purge removes per transaction, and bytes of records past the first: a write that comes meanwhile waits a
# millisecond or two.
_PURGED_AT_ONCE: Final = 512
_PURGED_BYTES: Final = 1024 * 1024

# Numbers begin at 1 and do not come near half of what there can be: one behind that is damage, and no other follows it.
_SOUND = f"BETWEEN 0 AND {2**62}"
_HIGHEST_LIFE = f"""
SELECT max(
    coalesce((SELECT max(life) FROM sessions WHERE life {_SOUND}), 0),
    coalesce((SELECT max(life) FROM events INDEXED BY events_first WHERE id & 1 AND life {_SOUND}), 0),
    coalesce((SELECT max(life) FROM records WHERE life {_SOUND}), 0),
    coalesce((SELECT max(life) FROM summaries WHERE life {_SOUND}), 0)
)
"""
_HIGHEST_ROW = f"SELECT coalesce(max(id), 0) FROM events WHERE id {_SOUND}"
_LIVES = f"""
SELECT s.session, s.life, s.epoch, {TAIL}, s.token, s.ended, s.owner, {LAST_CHUNK}
FROM sessions AS s WHERE s.session IN ({{}}) ORDER BY s.ended = 0, s.life
"""
# From the last back: the first event of a chunk goes last, for the others are found by it.
_PURGE_EVENTS = f"""
DELETE FROM events WHERE id IN (
    SELECT e.id FROM {OF_CHUNK} WHERE f.life = ?1 AND f.id & 1 ORDER BY f.offset DESC, e.offset DESC LIMIT ?2
)
"""
_RECORDS_SIZES = "SELECT key, length(value) FROM records WHERE life = ? ORDER BY key LIMIT ?"
_PURGE_RECORDS = "DELETE FROM records WHERE life = ? AND key <= ?"
_DROP_FORMER = """
DELETE FROM sessions AS s
WHERE life = ?1 AND EXISTS (SELECT 1 FROM sessions AS n WHERE n.session = s.session AND n.life > ?1)
"""


@final
class Committer:
    """The one writer of a database. Blocks; used by one thread at a time. The counters are totals."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._connection: sqlite3.Connection | None = connect()
        self._lives: dict[str, Life] = {}
        # Where a session's row is lost, what hung on it is still there, and must not hang on another.
        highest = self._connection.execute(_HIGHEST_LIFE).fetchone()[0]
        self._numbers = itertools.count(highest + 1)
        # May be lower than before, but not than the last chunk of any life: its first row stays as long as the life.
        self._next_row = self._connection.execute(_HIGHEST_ROW).fetchone()[0] // 2 + 1
        self.commits = 0
        self.events = 0
        self.seconds = 0.0

    def carry_out(self, writes: Sequence[Move]) -> list[PenstockError | None]:
        """Store what may be stored; for each write None, or why nothing of it is there."""
        try:
            return self._together(writes)
        except Exception as error:  # noqa: BLE001  # whatever it is, each write must get its answer
            return self._apart(writes, error)

    def compact(self, write: Compact) -> PenstockError | None:
        """Carry out one `Compact` in a transaction of its own; None, or why nothing of it is there."""
        try:
            life = self._known([write.session_id]).get(write.session_id)
            refusal = admit_compact(None if life is None else life.standing, write)
            if refusal is not None or life is None:
                return refusal
            started = time.perf_counter()
            try:
                self._execute(lambda limit: statements(life, write, limit))
            except Exception:
                self._roll_back()
                if not stands(self._connected(), life, write):
                    raise
            self.commits += 1
            self.seconds += time.perf_counter() - started
            self._remember({write.session_id: life})
        except Exception as error:  # noqa: BLE001  # as above
            return failure(write, error, whole=is_store_wide(error))
        return None

    def purge(self) -> bool:
        """Remove a few rows of ended lives. True while there may be more. Raises `sqlite3.Error`."""
        connection = self._connected()
        found = connection.execute("SELECT life FROM sessions WHERE ended = 1 LIMIT 1").fetchone()
        if found is None:
            return False
        step = (found[0], _PURGED_AT_ONCE)
        try:
            connection.execute("BEGIN IMMEDIATE")
            if connection.execute(_PURGE_EVENTS, step).rowcount < _PURGED_AT_ONCE and not self._purge_records(step):
                connection.execute(_DROP_FORMER, found)
                connection.execute(f"UPDATE sessions SET ended = {DELETED_PURGED} WHERE life = ?", found)
            connection.execute("COMMIT")
        except sqlite3.Error:
            self._roll_back()
            raise
        return True

    def _purge_records(self, step: tuple[int, int]) -> bool:
        """Remove a few of the life's records; whether there are more."""
        connection = self._connected()
        found = connection.execute(_RECORDS_SIZES, step).fetchall()
        sums = itertools.accumulate(length for _, length in found)
        count = next((number for number, size in enumerate(sums, 1) if size >= _PURGED_BYTES), len(found))
        if count:
            connection.execute(_PURGE_RECORDS, (step[0], found[count - 1][0]))
        return count < len(found) or count == step[1]

    def finish_checkpoint(self) -> None:
        """Move what a `Checkpointer` has left, so that the write-ahead log begins again at its start."""
        with contextlib.suppress(sqlite3.Error):
            checkpoint(self._connected())

    def rehearse(self, *, write: bool) -> None:
        """See whether something could be stored now; with ``write`` down to the disk. Raises `sqlite3.Error`."""
        try:
            with at_once(self._connected()):
                rehearse(self._connected(), write=write)
        except sqlite3.Error:
            self._roll_back()
            raise

    def close(self) -> None:
        """Move what is in the write-ahead log into the database, as far as it goes, and close."""
        if self._connection is not None:
            # If it fails, the next open does it: nothing is lost. Another program that reads may do so for hours.
            with contextlib.suppress(sqlite3.Error), at_once(self._connection):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._drop_connection()

    def _together(self, writes: Sequence[Move]) -> list[PenstockError | None]:
        plan = Plan(self._known({write.session_id for write in writes}), lambda: next(self._numbers), self._next_row)
        refusals = [plan.take(write) for write in writes]
        if plan.changed:
            self._commit(plan)
        return refusals

    def _apart(self, writes: Sequence[Move], error: Exception) -> list[PenstockError | None]:
        outcomes: dict[int, PenstockError | None] = {}
        stored = self.commits
        for place in _smallest_session_first(writes) if len(writes) > 1 else ():
            try:
                outcomes[place] = self._together([writes[place]])[0]
            except Exception as alone:  # noqa: BLE001  # as above
                error = alone
                if self.commits == stored and is_store_wide(alone):
                    break
                outcomes[place] = failure(writes[place], alone, whole=False)
        whole = is_store_wide(error)
        return [
            outcomes[place] if place in outcomes else failure(write, error, whole=whole)
            for place, write in enumerate(writes)
        ]

    def _commit(self, plan: Plan) -> None:
        started = time.perf_counter()
        try:
            self._execute(plan.statements)
        except Exception:
            self._roll_back()
            if not self._stands(plan):
                raise
        self.commits += 1
        self.events += plan.events
        self._next_row = plan.next_row
        self.seconds += time.perf_counter() - started
        self._remember(plan.changed)

    def _execute(self, work_out: Callable[[int], Iterable[Statement]]) -> None:
        connection = self._connected()
        work = list(work_out(connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)))
        if len(work) == 1:
            # A statement alone is a transaction by itself.
            connection.execute(*work[0])
            return
        connection.execute("BEGIN IMMEDIATE")
        for statement in work:
            connection.execute(*statement)
        connection.execute("COMMIT")

    def _stands(self, plan: Plan) -> bool:
        """Whether a transaction that reported an error is in the log all the same.

        One life that it moved tells for all, for it is all or nothing. If it only set records, then it stands when
        they are as it wanted them.
        """
        before, self._lives = self._lives, {}
        try:
            moved = {session_id: life for session_id, life in plan.changed.items() if before.get(session_id) != life}
            if moved:
                found = self._fetch(moved)
                return any(found.get(session_id) == life for session_id, life in moved.items())
            return bool(plan.records) and all(self._record(*at) == value for at, value in plan.records.items())
        except Exception:  # noqa: BLE001  # the error that led here is the one to report
            return False

    def _record(self, life: int, key: str) -> bytes | None:
        row = self._connected().execute("SELECT value FROM records WHERE life = ? AND key = ?", (life, key)).fetchone()
        return None if row is None else bytes(row[0])

    def _known(self, ids: Iterable[str]) -> Mapping[str, Life]:
        missing = [session_id for session_id in ids if session_id not in self._lives]
        if missing:
            self._lives.update(self._fetch(missing))
        return self._lives

    def _fetch(self, ids: Iterable[str]) -> dict[str, Life]:
        connection = self._connected()
        wanted = list(ids)
        step = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
        found: dict[str, Life] = {}
        for start in range(0, len(wanted), step):
            part = wanted[start : start + step]
            for session_id, life, epoch, tail, token, ended, owner, chunk in connection.execute(
                _LIVES.format(",".join("?" * len(part))), part
            ):
                found[session_id] = Life(life, Standing(epoch, tail, token, ended != 0, owner), chunk)
        return found

    def _remember(self, changed: Mapping[str, Life]) -> None:
        for session_id, life in changed.items():
            self._lives.pop(session_id, None)
            self._lives[session_id] = life
        for session_id in list(itertools.islice(self._lives, max(0, len(self._lives) - _REMEMBERED))):
            del self._lives[session_id]

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _roll_back(self) -> None:
        connection = self._connection
        try:
            if connection is not None and connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._drop_connection()

    def _drop_connection(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


def failure(write: Write, error: Exception, *, whole: bool) -> WriteFailed | CorruptSession:
    """What to tell of a write that ``error`` kept from being stored."""
    failed: WriteFailed | CorruptSession
    if isinstance(error, sqlite3.IntegrityError):
        # The plan fits what it knows of the session: there is something else in its place.
        failed = CorruptSession(f"what is stored stands in the way: {error}", session_id=write.session_id)
    else:
        failed = WriteFailed(f"nothing was stored: {explain(error)}", whole=whole, session_id=write.session_id)
    # Without the traceback: its frames hold the whole round.
    failed.__cause__ = error.with_traceback(None)
    return failed


def _smallest_session_first(writes: Sequence[Move]) -> Iterable[int]:
    """The places of the writes, a session's together and in order."""
    parts: dict[str, list[int]] = {}
    sizes: dict[str, int] = {}
    for place, write in enumerate(writes):
        parts.setdefault(write.session_id, []).append(place)
        sizes[write.session_id] = sizes.get(write.session_id, 0) + weight(write)
    for session_id in sorted(parts, key=sizes.__getitem__):
        yield from parts[session_id]
