"""Two `penstock serve` over one Redis: who is here, and the list of sessions, are the same in both."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.adapters.credentials import SECRET, bearer, token
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


def two(
    redis: RedisServer, start_server: Callable[..., ServerProcess], *options: str
) -> tuple[ServerProcess, ServerProcess]:
    url = f"redis://127.0.0.1:{redis.port}/0"
    first, second = (start_server("--node", name, "--lease-ttl", "2", *options, url=url) for name in ("one", "two"))
    return first, second


def opens(server: ServerProcess, ticket: str) -> int:
    """What a WebSocket's handshake with this ticket is answered."""
    where = urlsplit(server.url)
    assert where.hostname
    assert where.port
    head = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    head += "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
    with socket.create_connection((where.hostname, where.port), timeout=20) as stream:
        stream.sendall(f"GET /v1/ws?ticket={ticket} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n".encode())
        return int(stream.recv(4096).split()[1])


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


@pytest.mark.long
def test_a_ticket_of_one_server_opens_one_socket_at_either_and_none_while_the_store_is_away(
    redis: RedisServer, start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    secret, key = tmp_path / "cluster", tmp_path / "key"
    for path, content in ((secret, os.urandom(32)), (key, SECRET)):
        path.write_bytes(content)
        path.chmod(0o600)
    options = ("--cluster-secret-file", str(secret), "--node-listen", "127.0.0.1:0", "--jwt-key", str(key))
    servers = two(redis, start_server, *options, "--log-patience", "1")
    body = {"sessions": ["s"], "scopes": ["read"]}

    def ticket(server: ServerProcess) -> str:
        asked = httpx.post(f"{server.url}/v1/tickets", json=body, headers=bearer(token()))
        made: str = asked.raise_for_status().json()["ticket"]
        return made

    for maker, taker in (servers, servers[::-1], (servers[0], servers[0])):
        made = ticket(maker)
        assert opens(taker, made) == 101
        assert [opens(server, made) for server in servers] == [401, 401]
    made = ticket(servers[0])
    redis.kill()
    assert opens(servers[1], made) == 503
    redis.start()
    deadline = time.monotonic() + 20
    while opens(servers[1], made) == 503:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert opens(servers[0], made) == 401
    for server in servers:
        server.kill()
