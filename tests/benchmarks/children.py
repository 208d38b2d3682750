"""Processes that the harness starts, and ends: by their ids, and none but these. And what a worker is, from inside."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, final

import trio

from penstock.engine import JSON

__all__ = ["ROOT", "Child", "ChildFailed", "cpu_seconds", "perform", "python", "resident_bytes", "work"]

ROOT: Final = Path(__file__).resolve().parents[2]  # also where `.dev` leads here

# For a worker's task. The longest takes some minutes.
_PATIENCE: Final = 900.0

_STOP: Final = 15.0  # more than a drain of penstock's takes
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class ChildFailed(Exception):
    """A process did not do what it was started for; the text has the end of its log."""


def python(module: str, *arguments: str, interpreter: str | None = None) -> list[str]:
    """The command that runs a module of this repository."""
    return [interpreter or sys.executable, "-m", module, *arguments]


@final
class Child:
    """A process whose standard error goes to a file; ended, and waited for, when the block is left."""

    def __init__(
        self, command: Sequence[str], folder: Path, name: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name: Final = name
        self._log: Final = folder / f"{name}.log"
        path = os.pathsep.join(filter(None, [str(ROOT / ".dev"), os.environ.get("PYTHONPATH")]))
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": path, **(environment or {})},
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """SIGTERM, and after a while SIGKILL. Idempotent."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def tell(self, text: str) -> None:
        """Give it all of its input."""
        assert self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.close()

    def line(self, seconds: float) -> str:
        """The next line that it prints. Raises `ChildFailed`; one that says nothing for so long is ended."""
        assert self._process.stdout is not None
        timer = threading.Timer(seconds, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            raise ChildFailed(f"{self.name} ended, or said nothing for {seconds:.0f} s: {self._last_words()}")
        return line.strip()

    def answer(self, seconds: float) -> dict[str, float]:
        """The next line that is a JSON object, of figures; what else it prints is passed over. Raises `ChildFailed`."""
        while not (line := self.line(seconds)).startswith("{"):
            pass
        return {name: float(value) for name, value in json.loads(line).items()}

    def _last_words(self) -> str:
        return self._log.read_text(errors="replace")[-1000:].strip() or "its log is empty"


def work(worker: str, task: str, folder: Path, /, **given: JSON) -> dict[str, float]:
    """Let a module of `workers` carry out one of its tasks in a process of its own; the figures that it prints."""
    with Child(python(f"tests.benchmarks.workers.{worker}"), folder, worker) as child:
        child.tell(json.dumps({"task": task, "given": given}))
        return child.answer(_PATIENCE)


def perform(*tasks: Callable[..., Any]) -> None:
    """Be a worker: carry out the one of these functions that `work` has named, and print its figures."""
    asked = json.load(sys.stdin)
    (task,) = (task for task in tasks if task.__name__ == asked["task"])
    call = partial(task, **asked["given"])
    found = trio.run(call) if inspect.iscoroutinefunction(task) else call()
    print(json.dumps(found), flush=True)  # noqa: T201  the pipe to the harness


def cpu_seconds(pid: int) -> float:
    """The processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_bytes(pid: int) -> int:
    """The memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
