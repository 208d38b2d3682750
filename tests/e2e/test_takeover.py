"""Two `penstock serve` over one Redis: readers anywhere, and what becomes of the answers of one that is gone."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import final

import httpx
import pytest

from tests.e2e.conftest import ServerProcess
from tests.e2e.streams import SseReader
from tests.engine.redis_server import RedisServer

TTL = 2.0
SESSIONS = 4
WORDS = " ".join(f"word-{number}" for number in range(200))


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder)
    server.start()
    yield server
    server.kill()


@final
class Reader(threading.Thread):
    """Reads a session from its start until a generation has ended."""

    def __init__(self, server: ServerProcess, session: str) -> None:
        super().__init__(daemon=True)
        self._reader = SseReader(server.url, f"/v1/sessions/{session}/events")
        self.offsets: list[int] = []
        self.bodies: list[bytes] = []
        self.outcome = ""
        self.ended = 0.0
        self.start()

    def run(self) -> None:
        for event_id, body in self._reader.frames():
            self.offsets.append(int(event_id.rpartition("-")[2]))
            self.bodies.append(body)
            event = json.loads(body)
            if event["type"] == "generation.finished":
                self.outcome, self.ended = event["data"]["outcome"], time.monotonic()
                return


def begin(server: ServerProcess, session: str) -> None:
    url = f"{server.url}/v1/sessions/{session}"
    httpx.put(url).raise_for_status()
    httpx.post(f"{url}/generations", json={"text": WORDS, "input": {"delay": 0.05}}).raise_for_status()


def two(
    redis: RedisServer, start_server: Callable[..., ServerProcess]
) -> tuple[ServerProcess, ServerProcess, list[Reader]]:
    """The first answers in some sessions, and they are read in the second, which has been there for long enough."""
    url = f"redis://127.0.0.1:{redis.port}/0"
    first, second = (start_server("--node", name, "--lease-ttl", f"{TTL}", url=url) for name in ("one", "two"))
    time.sleep(1.5 * TTL)
    names = [f"s{number}" for number in range(SESSIONS)]
    for name in names:
        begin(first, name)
    readers = [Reader(second, name) for name in names]
    deadline = time.monotonic() + 20
    while not all(b"word-5" in b"".join(reader.bodies) for reader in readers):
        assert time.monotonic() < deadline, [len(reader.bodies) for reader in readers]
        time.sleep(0.01)
    return first, second, readers


def check(readers: list[Reader], outcome: str) -> None:
    for reader in readers:
        reader.join(30)
        assert reader.outcome == outcome
        assert reader.offsets == list(range(1, len(reader.offsets) + 1))


@pytest.mark.long
def test_what_a_killed_server_left_open_is_ended_by_the_other_for_readers_there(
    redis: RedisServer, start_server: Callable[..., ServerProcess]
) -> None:
    first, second, readers = two(redis, start_server)
    first.kill()
    killed = time.monotonic()
    check(readers, "lost")
    assert max(reader.ended for reader in readers) - killed <= TTL + 1
    for number in range(SESSIONS):
        begin(second, f"s{number}")
    assert second.stop() == 0
    assert "Traceback" not in second.log.read_text()


@pytest.mark.long
def test_a_server_that_was_stopped_for_longer_than_its_lease_writes_nothing_more_in_what_others_have(
    redis: RedisServer, start_server: Callable[..., ServerProcess]
) -> None:
    first, second, readers = two(redis, start_server)
    first.signal(signal.SIGSTOP)
    check(readers, "lost")
    url = f"{second.url}/v1/sessions"
    before = [httpx.get(f"{url}/s{number}").json() for number in range(SESSIONS)]
    first.signal(signal.SIGCONT)
    deadline = time.monotonic() + 20
    while first.log.read_text().count("session_moved") < SESSIONS:
        assert time.monotonic() < deadline, first.log.read_text()
        time.sleep(0.01)
    time.sleep(0.5)  # what it would still write
    assert [httpx.get(f"{url}/s{number}").json() for number in range(SESSIONS)] == before
    # It is there again: what it begins now is its own, and read in the other.
    begin(first, "again")
    reader = Reader(second, "again")
    while b"word-1" not in b"".join(reader.bodies):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert first.stop() == second.stop() == 0


@pytest.mark.long
def test_a_second_server_under_one_name_ends_the_first_with_a_reason(
    redis: RedisServer, start_server: Callable[..., ServerProcess]
) -> None:
    url = f"redis://127.0.0.1:{redis.port}/0"
    first = start_server("--node", "one", "--lease-ttl", "1", url=url)
    second = start_server("--node", "one", "--lease-ttl", "1", url=url)
    assert first.wait() == 1
    assert "another engine has begun under the name one" in first.log.read_text()
    assert second.stop() == 0
