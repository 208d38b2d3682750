"""The writer thread: group commit without a timer.

Takes what has gathered while the last commit ran as the next round (`rounds`), and wakes the loop once per round. When
nobody waits to append, it carries out what is to be compacted, one write at a time, and then purges ended lives:
both in steps so small that an append hardly waits for one. The thread outlives every task: what was handed over is
carried out whoever is cancelled.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, final

from ...errors import PenstockError, WriteFailed
from ..port import Compact, Delete, Report, Write
from ..rounds import Handed, Rounds, weight
from .checkpoint import Checkpointer
from .commit import Committer, failure
from .probe import Probe
from .watch import FileWatch

__all__ = ["Outcome", "Writer"]

# While nobody writes, the file and the store are looked at this often: seconds.
_PERIOD: Final = 1.0


@final
class Outcome(NamedTuple):
    """What came of one round, in the order the writes were handed over; the numbers are totals since the start."""

    reports: list[tuple[Report, PenstockError | None]]
    commits: int
    events: int
    seconds: float


@final
class Writer:
    """Runs a `Committer` in a thread of its own, and a `Checkpointer` beside it.

    ``watch`` looks after the file, and ``probe`` tries, while nobody writes, whether one could. ``wake`` is called in
    that thread, once per round. ``left`` is called in it as the last thing, with the connection closed.
    """

    def __init__(
        self,
        committer: Committer,
        checkpointer: Checkpointer,
        watch: FileWatch,
        probe: Probe,
        wake: Callable[[Outcome], None],
        left: Callable[[], None],
    ) -> None:
        self._committer = committer
        self._checkpointer = checkpointer
        self._watch = watch
        self._probe = probe
        self._wake = wake
        self._left = left
        self._handed: queue.SimpleQueue[tuple[Write, Report] | None] = queue.SimpleQueue()
        self._rounds = Rounds()
        self._compacts: deque[tuple[Compact, Report]] = deque()
        self._unreported: Outcome | None = None
        self._stopping = False
        self._to_purge = True  # a former process may have left something
        self._purge_failed = False
        # A daemon: an engine that was never closed must not keep the process; dying in a commit is safe.
        self._thread = threading.Thread(target=self._run, name="penstock-writer", daemon=True)

    def start(self) -> None:
        self._checkpointer.start()
        self._thread.start()

    def hand_over(self, write: Write, report: Report) -> None:
        """Queue one write; from one thread only, and not after `stop`."""
        self._handed.put((write, report))

    def stop(self) -> None:
        """Carry out what was handed over, then close and end. Does not wait."""
        self._handed.put(None)

    def _run(self) -> None:
        try:
            while not self._stopping or self._rounds.waiting:
                self._gather()
                if self._rounds.waiting:
                    handed = self._rounds.next()
                    self._report()
                    self._carry_out(handed)
                elif self._unreported is not None:
                    self._report()
                elif self._compacts:
                    self._compact(*self._compacts.popleft())
                elif not self._stopping:
                    self._rest()
            self._report()
            while self._compacts:
                self._compact(*self._compacts.popleft())
                self._report()
        finally:
            try:
                self._watch.look()  # for the last time: who closes it is told
                self._checkpointer.stop()
                self._committer.close()
            finally:
                self._left()

    def _gather(self) -> None:
        """Take over all that was handed over; wait for something if there is nothing else to do."""
        busy = self._stopping or self._to_purge or bool(self._compacts or self._rounds.waiting)
        block = not busy and self._unreported is None
        try:
            while True:
                item = self._handed.get(block, _PERIOD)
                if item is None:
                    self._stopping = True
                    return
                block = False
                write, report = item
                if isinstance(write, Compact):
                    self._compacts.append((write, report))
                else:
                    self._rounds.add((write, report))
        except queue.Empty:
            pass

    def _carry_out(self, handed: list[Handed]) -> None:
        if self._checkpointer.rest_is_due:
            self._checkpointer.rest_is_due = False
            self._committer.finish_checkpoint()
        commits, stored = self._committer.commits, self._committer.events
        writes = [write for write, _ in handed]
        errors: Sequence[PenstockError | None]
        if not self._is_there():
            errors = [self._gone(write) for write in writes]
        else:
            try:
                errors = self._committer.carry_out(writes)
            except Exception as error:  # noqa: BLE001  # a thread that dies here leaves everyone waiting
                errors = [failure(write, error, whole=True) for write in writes]
            if self._committer.commits > commits:
                self._probe.stored()
            else:
                self._note(errors)
        self._tell([(report, error) for (_, report), error in zip(handed, errors, strict=True)])
        size = sum(map(weight, writes))
        self._checkpointer.committed(self._committer.commits - commits, self._committer.events - stored, size)
        if self._purge_failed and self._committer.commits > commits:
            self._to_purge, self._purge_failed = True, False
        self._to_purge |= any(isinstance(write, Delete) for write in writes)

    def _compact(self, write: Compact, report: Report) -> None:
        error: PenstockError | None
        try:
            error = self._committer.compact(write) if self._is_there() else self._gone(write)
        except Exception as raised:  # noqa: BLE001  # as above
            error = failure(write, raised, whole=True)
        self._tell([(report, error)])

    def _is_there(self) -> bool:
        """Whether the file is where it was opened, or was, a moment ago."""
        if self._watch.is_due and self._watch.look():
            self._committer.finish_checkpoint()
        return self._watch.gone is None

    def _gone(self, write: Write) -> WriteFailed:
        return WriteFailed(f"nothing was stored: {self._watch.gone}", whole=True, session_id=write.session_id)

    def _note(self, errors: Sequence[PenstockError | None]) -> None:
        """Nothing was stored."""
        for error in errors:
            if isinstance(error, WriteFailed) and error.whole:
                self._probe.failed(error.detail)
                return

    def _tell(self, reports: list[tuple[Report, PenstockError | None]]) -> None:
        committer = self._committer
        self._unreported = Outcome(reports, committer.commits, committer.events, committer.seconds)

    def _report(self) -> None:
        """Wake the loop with what came of the last round: as soon as the next one is at hand, or none is.

        So this thread has the interpreter when the next round begins, and the loop gets it, with much to do, when
        SQLite works without it. The other way round each waits for the other.
        """
        if self._unreported is not None:
            outcome, self._unreported = self._unreported, None
            self._wake(outcome)

    def _rest(self) -> None:
        """Nobody waits: purge, or see whether anything could be stored."""
        if not self._to_purge:
            if self._is_there():
                self._probe.try_again()
        elif self._is_there():
            self._purge()
        else:
            self._to_purge, self._purge_failed = False, True

    def _purge(self) -> None:
        try:
            self._to_purge = self._committer.purge()
        except Exception:  # noqa: BLE001  # no write of anybody's: try again once writing works
            self._to_purge, self._purge_failed = False, True
