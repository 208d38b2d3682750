"""`penstock serve` over a Redis: what outlives the store, and what outlives the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import ServerProcess
from tests.engine.redis_server import RedisServer

pytestmark = pytest.mark.long

PASSWORD = "open-sesame"
WORDS = " ".join(f"word-{number}" for number in range(20))


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder, requirepass=PASSWORD)
    server.start()
    yield server
    server.kill()


def begin(server: ServerProcess, session: str, delay: float) -> str:
    """An answer with ``delay`` seconds between its words; the cursor from which it can be read."""
    url = f"{server.url}/v1/sessions/{session}"
    httpx.put(url).raise_for_status()
    started = httpx.post(f"{url}/generations", json={"text": WORDS, "input": {"delay": delay}}).raise_for_status()
    cursor: str = started.json()["cursor"]
    return cursor


def heard(server: ServerProcess, session: str, after: str, until: str) -> list[str]:
    stream = {"after": after}
    lines: list[str] = []
    with httpx.stream("GET", f"{server.url}/v1/sessions/{session}/events", params=stream, timeout=30) as events:
        for line in events.iter_lines():
            lines.append(line)
            if until in line:
                break
    return lines


def test_answers_outlive_the_store_and_sessions_the_server(
    redis: RedisServer, start_server: Callable[..., ServerProcess]
) -> None:
    url = f"redis://:{PASSWORD}@127.0.0.1:{redis.port}/0"
    server = start_server("--node", "one", url=url)
    assert f"redis://127.0.0.1:{redis.port}/0" in server.said
    cursor = begin(server, "one", delay=0.05)
    heard(server, "one", cursor, "word-3")
    redis.kill()
    redis.start()
    whole = "".join(heard(server, "one", cursor, "generation.finished"))
    assert [number for number in range(20) if f"word-{number}" in whole] == list(range(20))
    assert '"completed"' in whole
    assert httpx.get(f"{server.url}/readyz").status_code == 200
    cursor = begin(server, "two", delay=1)
    heard(server, "two", cursor, "word-0")
    server.kill()
    again = start_server("--node", "one", url=url)
    assert '"lost"' in "".join(heard(again, "two", cursor, "generation.finished"))
    assert WORDS.split()[-1] in httpx.get(f"{again.url}/v1/sessions/one").text
    assert again.stop() == 0
    told = server.said + again.said + server.log.read_text()
    assert PASSWORD not in told
    assert "Traceback" not in told
