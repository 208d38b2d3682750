"""Text on its way out of the process: bounded, and written by a thread, so that nobody waits for who reads it.

A pipe that nobody empties takes 64 KiB, and then a write to it waits for as long as that lasts. Here one thread waits.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, final

__all__ = ["Spool"]

# Some 15 000 lines: what a busy server says in a minute of a reader's absence.
_BOUND: Final = 4 * 1024 * 1024

# What an entry takes beside its text.
_OVERHEAD: Final = 100

# At a time, so that little is held twice.
_PIECE: Final = 64 * 1024

# How often somebody who waits for a descriptor of the other kind, which refuses rather than waits, looks again.
_AGAIN: Final = 1000  # milliseconds


def _nothing(_: int) -> str:
    return ""


@final
class Spool:
    """Writes to ``descriptor``, in order. Of what does not fit into ``bound`` bytes nothing is kept but its number.

    ``notice`` makes the text that stands in its place, ``on_lost`` is told of it at once. Whoever ends the process
    calls `flush` before, for what is left then is lost. The thread ends after `close`.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        bound: int = _BOUND,
        notice: Callable[[int], str] = _nothing,
        on_lost: Callable[[int], object] | None = None,
    ) -> None:
        self._descriptor: Final = descriptor
        self._bound: Final = bound
        self._notice: Final = notice
        self._on_lost: Final = on_lost
        self._changed = threading.Condition()
        self._waiting: deque[str] = deque()
        self._held = 0  # what is waiting or being written takes so much
        self._lost = 0  # not told yet
        self._closed = False
        self._due = False  # to be told when all that came before is written
        threading.Thread(target=self._run, name="penstock spool", daemon=True).start()

    def put(self, text: str) -> None:
        """Write it when all that was put before is written, or lose it. Never waits for the reader."""
        size = len(text) + _OVERHEAD
        with self._changed:
            if self._closed or (self._held and self._held + size > self._bound):
                self._lose(1)
                self._due = not self._closed
                return
            if self._lost:
                self._tell()
            self._waiting.append(text)
            self._held += size
            self._changed.notify_all()

    def flush(self, seconds: float) -> bool:
        """Wait until all is written, for so long at most; whether it is."""
        until = time.monotonic() + seconds
        with self._changed:
            return self._changed.wait_for(lambda: not self._held, until - time.monotonic())

    def close(self) -> None:
        """Take nothing more. What is waiting is written all the same, for as long as the process lasts."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _lose(self, number: int) -> None:
        self._lost += number
        if self._on_lost is not None:
            self._on_lost(number)

    def _tell(self) -> None:
        """Say in the place of what is lost how much it was."""
        text, self._lost, self._due = self._notice(self._lost), 0, False
        if text:
            self._waiting.append(text)
            self._held += len(text) + _OVERHEAD

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._due:
                    if self._closed:
                        return
                    self._changed.wait()
                if not self._waiting:
                    self._tell()
                taken = self._take()
            written = self._write("".join(taken).encode(errors="backslashreplace"))
            with self._changed:
                self._held -= sum(len(text) + _OVERHEAD for text in taken)
                if not written:
                    self._lose(len(taken))  # told with the next that is put: the reader may be gone for good
                self._changed.notify_all()

    def _take(self) -> list[str]:
        taken: list[str] = []
        size = 0
        while self._waiting and size < _PIECE:
            taken.append(self._waiting.popleft())
            size += len(taken[-1])
        return taken

    def _write(self, data: bytes) -> bool:
        """Whether all of it went out; not, when nobody can read it any more."""
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                writable = select.poll()
                writable.register(self._descriptor, select.POLLOUT)
                writable.poll(_AGAIN)
            except OSError:
                return False
        return True
