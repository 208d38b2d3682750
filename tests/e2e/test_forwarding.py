"""Two `penstock serve` over one Redis that ask each other: whichever is asked, it is done where the session is."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import trio
from click.testing import CliRunner

from penstock.adapters.cli import main
from penstock.adapters.client import connect
from penstock.engine import StaleGeneration
from tests.e2e.conftest import ServerProcess
from tests.engine.redis_server import RedisServer

TTL = 2.0
WORDS = " ".join(f"word-{number}" for number in range(200))


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder)
    server.start()
    yield server
    server.kill()


def begin(server: ServerProcess, session: str) -> None:
    url = f"{server.url}/v1/sessions/{session}"
    httpx.put(url).raise_for_status()
    httpx.post(f"{url}/generations", json={"text": WORDS, "input": {"delay": 0.05}}).raise_for_status()


@pytest.fixture
def asking(
    redis: RedisServer, start_server: Callable[..., ServerProcess], tmp_path: Path
) -> tuple[ServerProcess, ServerProcess]:
    """Two servers that can ask each other."""
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_bytes(b"s" * 40)
    told = ("--node-listen", "127.0.0.1:0", "--cluster-secret-file", str(secret))
    url = f"redis://127.0.0.1:{redis.port}/0"
    first, second = (start_server("--node", name, "--lease-ttl", f"{TTL}", *told, url=url) for name in ("one", "two"))
    return first, second


@pytest.mark.long
def test_what_is_asked_of_the_other_server_is_done_where_the_session_is(
    redis: RedisServer, asking: tuple[ServerProcess, ServerProcess]
) -> None:
    first, second = asking
    begin(first, "s")
    there = f"{second.url}/v1/sessions/s"
    posted = httpx.post(f"{there}/messages", json={"text": "from afar"})
    assert (posted.status_code, posted.headers["Penstock-Node"]) == (201, "two")
    live = httpx.get(there).json()["generations"][-1]["generation_id"]
    steered = httpx.post(f"{there}/generations/{live}/inputs", json={"kind": "steer", "content": {"text": "x"}})
    assert steered.is_success, steered.text
    kept = httpx.post(f"{there}/files", content=b"file", headers={"Content-Type": "text/plain"})
    assert kept.is_success, kept.text
    refused = httpx.post(f"{there}/generations", json={"text": "x", "policy": "reject"})
    assert (refused.status_code, refused.json()["code"]) == (409, "GENERATION_ACTIVE")
    again = httpx.post(f"{there}/generations", json={"text": WORDS, "input": {"delay": 0.05}})
    assert again.json()["superseded"]["generation_id"] == live
    stopped = httpx.post(f"{there}/stop", json={"generation_id": again.json()["generation_id"]})
    assert stopped.json()["state"] == "stopped", stopped.text
    begin(first, "s")
    deleted = httpx.delete(there)
    assert deleted.is_success, deleted.text
    assert httpx.get(f"{first.url}/v1/sessions/s").status_code == 410
    assert first.stop() == second.stop() == 0
    for server in (first, second):
        assert "Traceback" not in server.log.read_text()


@pytest.mark.long
async def test_a_producer_elsewhere_writes_by_the_other_server_and_hears_of_its_fence(
    asking: tuple[ServerProcess, ServerProcess],
) -> None:
    first, second = asking
    outcomes: list[str] = []
    async with connect(first.url) as here, connect(second.url) as there:
        session = await here.create_session("s")
        for whole in (True, False):
            started = await session.start("remote")
            written = 0
            with trio.fail_after(30), suppress(StaleGeneration):
                async with (
                    there.session("s").produce(generation_id=started.generation_id) as generation,
                    generation.message() as message,
                    message.text() as block,
                ):
                    while written < 200 or not whole:
                        await block.write(f"word-{written} ")
                        written += 1
                        if written == 100 and not whole:
                            await there.session("s").stop()
                        await trio.sleep(0.002)
            page = await session.snapshot()
            last = page.messages[-1]
            said = "".join(block.text or "" for block in last.blocks).split()
            assert said == [f"word-{number}" for number in range(len(said))]
            assert len(said) == 200 if whole else 90 <= len(said) <= written
            outcomes.append((await session.generation(started.generation_id)).outcome or "")
    assert outcomes == ["completed", "stopped"]


@pytest.mark.long
@pytest.mark.parametrize("stopped", [False, True], ids=["killed", "stopped"])
def test_what_is_asked_of_a_server_that_is_gone_is_done_by_the_one_that_takes_over(
    stopped: bool, asking: tuple[ServerProcess, ServerProcess]
) -> None:
    first, second = asking
    time.sleep(1.5 * TTL)
    begin(first, "s")
    if stopped:
        first.signal(signal.SIGSTOP)
    else:
        first.kill()
    there = f"{second.url}/v1/sessions/s"
    began = time.monotonic()
    posted = httpx.post(f"{there}/messages", json={"text": "still here"}, timeout=20)
    assert posted.status_code == 201, posted.text
    assert time.monotonic() - began <= TTL + 2
    said = [block["text"] for message in httpx.get(there).json()["messages"] for block in message["blocks"]]
    assert said[-1] == "still here"
    assert second.stop() == 0


@pytest.mark.long
def test_a_server_says_whether_it_is_ready_and_who_is_there(
    redis: RedisServer, asking: tuple[ServerProcess, ServerProcess]
) -> None:
    first, _ = asking
    url = f"redis://127.0.0.1:{redis.port}/0"
    listed = json.loads(CliRunner().invoke(main, ["nodes", "--log", url, "--json"]).output)
    assert [(node["name"], node["state"]) for node in listed["nodes"]] == [("one", "there"), ("two", "there")]
    assert all(node["url"].startswith("http://127.0.0.1:") for node in listed["nodes"])
    assert "one" in CliRunner().invoke(main, ["nodes", "--log", url]).output
    ready = httpx.get(f"{first.url}/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "ok"})
    redis.kill()
    deadline = time.monotonic() + 20
    while set(httpx.get(f"{first.url}/readyz").json().get("failing", ())) < {"store", "lease", "bus"}:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert httpx.get(f"{first.url}/readyz").status_code == 503
    redis.start()
    while httpx.get(f"{first.url}/readyz").status_code != 200:
        assert time.monotonic() < deadline + 20
        time.sleep(0.1)


@pytest.mark.long
def test_while_one_server_is_shut_down_what_is_asked_of_its_sessions_is_done(
    asking: tuple[ServerProcess, ServerProcess],
) -> None:
    first, second = asking
    begin(first, "s")
    statuses: list[int] = []
    over = threading.Event()

    def post() -> None:
        with httpx.Client(timeout=20) as client:
            while not over.is_set():
                posted = client.post(f"{second.url}/v1/sessions/s/messages", json={"text": f"post-{len(statuses)}"})
                statuses.append(posted.status_code)
                time.sleep(0.01)

    posting = threading.Thread(target=post)
    posting.start()
    time.sleep(0.5)
    assert first.stop() == 0
    time.sleep(0.5)
    over.set()
    posting.join(20)
    assert set(statuses) == {201}
    messages = httpx.get(f"{second.url}/v1/sessions/s", params={"limit": 1000}).json()["messages"]
    said = [block["text"] for message in messages for block in message["blocks"] if message["role"] == "user"]
    assert [text for text in said if text.startswith("post-")] == [f"post-{number}" for number in range(len(statuses))]
    assert second.stop() == 0
