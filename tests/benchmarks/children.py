"""Processes that the harness starts, and ends: by their ids, and none but these."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

from penstock.engine import JSON, JSONObject

__all__ = ["ROOT", "Child", "ChildFailed", "cpu_seconds", "python", "resident_bytes", "work"]

ROOT: Final = Path(__file__).parents[2]

_STOP: Final = 15.0
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
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
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

    def answer(self, seconds: float) -> JSONObject:
        """The next line that is a JSON object; what else it prints is passed over. Raises `ChildFailed`."""
        while True:
            line = self.line(seconds)
            if line.startswith("{"):
                found = json.loads(line)
                if isinstance(found, dict):
                    return found

    def _last_words(self) -> str:
        return self._log.read_text(errors="replace")[-1000:].strip() or "its log is empty"


def work(module: str, spec: Mapping[str, JSON], folder: Path, *, seconds: float) -> dict[str, float]:
    """Let a module of `workers` do what ``spec`` says, in a process of its own; the figures that it prints."""
    name = module.rpartition(".")[2]
    with Child(python(f"tests.benchmarks.{module}"), folder, name) as child:
        child.tell(json.dumps(dict(spec)))
        found = child.answer(seconds)
    return {key: float(value) for key, value in found.items() if isinstance(value, int | float)}


def cpu_seconds(pid: int) -> float:
    """The processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_bytes(pid: int) -> int:
    """The memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
