"""Many connections that mean no good, beside clients that do: the server's whole edge under load."""

from __future__ import annotations

import http.client
import json
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from penstock.engine import decode
from penstock.engine.testing import assert_log
from tests.e2e.conftest import START, ServerProcess
from tests.e2e.streams import SseReader, call
from tests.e2e.test_reliability import memory_of

Start = Callable[..., ServerProcess]

# What never finishes its head, what never reads, what reconnects in a loop.
ATTACKERS = (500, 500, 200)

DESCRIPTORS = 2048

# How long the others have to go on beside them: past the time a head gets (10 s), so that these are seen to be cut.
SECONDS = 13.0

CLIENTS = 6

# 32 KiB for each connection, 1024 events for each of the 500 readers, and the engine itself: many times over. Without
# bounds, the flood alone is more.
MOST_MEMORY = 600 * 1024  # KiB


def raise_descriptors() -> bool:
    """Whether this process's children may have as many as it takes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < DESCRIPTORS:
        if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
            return False
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))
    return True


@contextmanager
def hostile(url: str, *numbers: int) -> Iterator[Callable[[], dict[str, int]]]:
    """The attackers; yields what ends them and says what they counted."""
    command = [sys.executable, str(Path(__file__).with_name("hostile.py")), str(urlsplit(url).port), *map(str, numbers)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None

    def end() -> dict[str, int]:
        told, _ = process.communicate(timeout=START)
        counted: dict[str, int] = json.loads(told)
        return counted

    try:
        assert process.stdout.readline() == "ready\n"
        yield end
    finally:
        process.kill()
        process.communicate()


class Client(threading.Thread):
    """Posts messages into its own session and reads them back, over one kept connection and over new ones."""

    def __init__(self, url: str, name: str, until: float) -> None:
        super().__init__(daemon=True)
        self.where = urlsplit(url)
        self.path = f"/v1/sessions/{name}"
        self.until = until
        self.seconds: list[float] = []
        self.posted: list[str] = []
        self.failures: list[object] = []

    def run(self) -> None:
        try:
            kept = self._open()
            while time.monotonic() < self.until:
                self._ask(kept, "POST", f"{self.path}/messages", {"text": str(len(self.posted))})
                self.posted.append(str(len(self.posted)))
                fresh = self._open()
                self._ask(fresh, "GET", f"{self.path}?limit=1")
                fresh.close()
            kept.close()
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(error)

    def _open(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.where.hostname or "", self.where.port, timeout=START)

    def _ask(self, connection: http.client.HTTPConnection, method: str, path: str, body: object = None) -> None:
        begun = time.monotonic()
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        text = answer.read()
        self.seconds.append(time.monotonic() - begun)
        if answer.status >= 300:
            self.failures.append((answer.status, text))


# who is gone or does not read is noticed by deadlines of its own, and nobody else waits for it.
@pytest.mark.long
def test_normal_clients_go_on_beside_a_thousand_that_mean_no_good(
    start_server: Start, record_property: Callable[[str, object], None]
) -> None:
    if not raise_descriptors():
        pytest.skip(f"a process here may open fewer than {DESCRIPTORS} files")
    server = start_server("--send-timeout", "4", "--drain-timeout", "8")
    names = [f"c{number}" for number in range(CLIENTS)]
    for name in (*names, "flood", "paced"):
        call(server.url, "PUT", f"/v1/sessions/{name}", {})
    endless = {"text": "drop " * 500, "input": {"repeat": 10_000, "delay": 0.002}}
    flood = call(server.url, "POST", "/v1/sessions/flood/generations", endless)["generation_id"]
    with hostile(server.url, *ATTACKERS) as end:
        until = time.monotonic() + SECONDS
        paced = {"text": "tick " * 1000, "input": {"delay": 0.1}}
        call(server.url, "POST", "/v1/sessions/paced/generations", paced)
        reader = SseReader(server.url, "/v1/sessions/paced/events")
        watching = threading.Thread(target=read_on, args=(reader,), daemon=True)
        watching.start()
        clients = [Client(server.url, name, until) for name in names]
        for client in clients:
            client.start()
        memory = [memory_of(server)]
        while time.monotonic() < until:
            time.sleep(0.5)
            memory.append(memory_of(server))
        for client in clients:
            client.join(START)
        reader.socket.shutdown(socket.SHUT_RDWR)
        watching.join(START)
        reader.close()
        for thread in (*clients, watching):
            assert not thread.is_alive()
        seen = [json.loads(data)["offset"] for _, data in reader.received]
        shown = {name: call(server.url, "GET", f"/v1/sessions/{name}?limit=1000")["messages"] for name in names}
        assert call(server.url, "GET", f"/v1/sessions/flood/generations/{flood}")["state"] == "live"
        begun = time.monotonic()
        code = server.stop()  # with all of them still there
        ended = time.monotonic() - begun
        counted = end()
    took = sorted(second for client in clients for second in client.seconds)
    for name, value in {
        "attackers": ATTACKERS,
        "requests": len(took),
        "p50_ms": round(took[len(took) // 2] * 1000, 1),
        "p99_ms": round(took[len(took) * 99 // 100] * 1000, 1),
        "slowest_ms": round(took[-1] * 1000, 1),
        "memory_first_mib": memory[0] // 1024,
        "memory_most_mib": max(memory) // 1024,
        "sigterm_seconds": round(ended, 2),
        "paced_events": len(seen),
        **counted,
    }.items():
        record_property(name, value)
    assert code == 0, server.log.read_text()[-5000:]
    assert "Traceback" not in server.log.read_text()
    for client, messages in zip(clients, shown.values(), strict=True):
        assert client.failures == []
        assert client.posted
        assert [message["blocks"][0]["text"] for message in messages] == client.posted[-1000:]
    assert_log([decode(data) for _, data in reader.received], closed=False)
    assert seen == list(range(1, len(seen) + 1))
    assert seen[-1] > 10
    assert max(memory) < MOST_MEMORY
    assert counted["heads cut"] > 0
    assert counted["readers cut"] > 0
    assert counted["reconnects"] > 0


def read_on(reader: SseReader) -> None:
    """Until the socket is shut down."""
    while reader.read():
        pass
