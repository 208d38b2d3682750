"""A server of one's own for a benchmark: ``penstock serve`` as it is, in a process and on a port of its own."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, final

from penstock.engine import JSON

__all__ = ["Bench", "BenchError", "serving"]

_START: Final = 30.0
_STOP: Final = 15.0  # more than a drain takes

_ROOT: Final = Path(__file__).parents[3]


class BenchError(Exception):
    """It cannot be measured; the text says why."""


@final
class Bench:
    """A running server, and the requests that a benchmark makes of it, one after the other."""

    def __init__(self, pid: int, port: int) -> None:
        self.pid: Final = pid
        self.address: Final = ("127.0.0.1", port)
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_START)

    def ask(self, method: str, path: str, body: Mapping[str, JSON] | None = None) -> dict[str, JSON]:
        """One request; the parsed answer. Raises `BenchError` for what is no success."""
        self._connection.request(
            method, path, json.dumps(body or {}).encode(), {"Content-Type": "application/json", "Host": "localhost"}
        )
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise BenchError(f"{method} {path} was answered with {answer.status}: {text[:300]!r}")
        found = json.loads(text) if text else {}
        return found if isinstance(found, dict) else {}

    def create(self, session_id: str) -> None:
        self.ask("PUT", f"/v1/sessions/{session_id}")

    def start(self, session_id: str, source: Mapping[str, JSON]) -> dict[str, JSON]:
        """Let the source write into the session, as it is told: see `sources.source`."""
        return self.ask("POST", f"/v1/sessions/{session_id}/generations", {"producer": "source", "input": dict(source)})

    def request(self, session_id: str, query: str = "") -> bytes:
        """What a reader of the session's events sends."""
        return f"GET /v1/sessions/{session_id}/events{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()

    def close(self) -> None:
        self._connection.close()


@contextmanager
def serving(folder: Path, *arguments: str, db: str = "bench.db") -> Iterator[Bench]:
    """A server over a database in ``folder``, ended when the block is left. Raises `BenchError`."""
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    spec = f"source={__package__}.sources:source"
    command = [sys.executable, "-m", "penstock.adapters.cli", "serve", "--db", str(folder / db), "--port", "0"]
    with (folder / "penstock.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--producer", spec, "--log-level", "warning", *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path},
        )
    try:
        bench = Bench(process.pid, _port(process))
        try:
            yield bench
        finally:
            bench.close()
    finally:
        process.terminate()
        try:
            process.wait(_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _port(process: subprocess.Popen[str]) -> int:
    """As it is printed. A server that does not start in time is ended, which ends the wait."""
    assert process.stdout is not None
    timer = threading.Timer(_START, process.kill)
    timer.start()
    try:
        line = process.stdout.readline()
    finally:
        timer.cancel()
    found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
    if found is None:
        raise BenchError("the server did not start; its log is in penstock.log")
    return int(found[1])
