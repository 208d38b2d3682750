"""Two `penstock serve` over one Redis: who is here, and the list of sessions, are the same in both."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import ServerProcess
from tests.e2e.streams import SseReader
from tests.engine.redis_server import RedisServer

PRESENCE = "/v1/sessions/s/presence"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder)
    server.start()
    yield server
    server.kill()


def two(redis: RedisServer, start_server: Callable[..., ServerProcess]) -> tuple[ServerProcess, ServerProcess]:
    url = f"redis://127.0.0.1:{redis.port}/0"
    first, second = (start_server("--node", name, "--lease-ttl", "2", url=url) for name in ("one", "two"))
    return first, second


def changes(reader: SseReader) -> list[str]:
    """What the stream has told of who is here."""
    events = [json.loads(body) for _, body in reader.received]
    found = [event["data"] for event in events if event["type"] == "presence.changed"]
    return [f"{data['actor_id']} {data.get('status', 'here')}" for data in found]


def changed(change: str) -> Callable[[SseReader], bool]:
    return lambda reader: change in changes(reader)


def told(kind: str) -> Callable[[SseReader], bool]:
    return lambda reader: any(each == kind for each, _ in reader.control)


def listed(text: str) -> Callable[[SseReader], bool]:
    return lambda reader: text in str(reader.control)


def read_until(reader: SseReader, holds: Callable[[SseReader], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds(reader):
        assert time.monotonic() < deadline, (reader.received, reader.control)
        reader.read()


@pytest.mark.long
def test_who_is_here_at_one_server_is_told_at_the_other_in_both_directions(
    redis: RedisServer, start_server: Callable[..., ServerProcess]
) -> None:
    servers = two(redis, start_server)
    httpx.put(f"{servers[0].url}/v1/sessions/s").raise_for_status()
    readers = [SseReader(server.url, "/v1/sessions/s/events") for server in servers]
    for reader in readers:
        read_until(reader, told("presence"))
    for server, actor in zip(servers, ("ann", "bob"), strict=True):
        httpx.put(f"{server.url}{PRESENCE}/{actor}/desk", json={}).raise_for_status()
        for reader in readers:
            read_until(reader, changed(f"{actor} here"))
    servers[0].kill()
    here = httpx.get(f"{servers[1].url}{PRESENCE}").raise_for_status().json()["presence"]
    assert [each["actor_id"] for each in here] == ["ann", "bob"]
    httpx.delete(f"{servers[1].url}{PRESENCE}/ann").raise_for_status()
    read_until(readers[1], changed("ann gone"))
    assert changes(readers[1]) == ["ann here", "bob here", "ann gone"]
    for reader in readers:
        reader.close()
    assert servers[1].stop() == 0
    assert "Traceback" not in servers[1].log.read_text()


@pytest.mark.long
def test_a_session_that_changes_at_one_server_shows_in_the_list_at_the_other(
    redis: RedisServer, start_server: Callable[..., ServerProcess]
) -> None:
    servers = two(redis, start_server)
    following = [SseReader(server.url, "/v1/events") for server in servers]
    for reader in following:
        read_until(reader, told("caught-up"))
    for number, server in enumerate(servers):
        url = f"{server.url}/v1/sessions/s{number}"
        httpx.put(url).raise_for_status()
        httpx.post(f"{url}/messages", json={"text": f"about {number}"}).raise_for_status()
        for reader in following:
            read_until(reader, listed(f"about {number}"))
    httpx.delete(f"{servers[0].url}/v1/sessions/s1").raise_for_status()
    for reader in following:
        read_until(reader, told("session-gone"))
        reader.close()
    for server in servers:
        assert server.stop() == 0
        assert "Traceback" not in server.log.read_text()
