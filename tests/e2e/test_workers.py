"""`penstock serve --workers`: several processes at one address, and what becomes of them when one of them dies."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import ServerProcess
from tests.engine.redis_server import RedisServer
from tests.engine.stores import free_port

pytestmark = pytest.mark.long

WORDS = " ".join(f"word-{number}" for number in range(40))
PATIENCE = 30.0


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def start_workers(redis: RedisServer, start_server: Callable[..., ServerProcess]) -> Callable[..., ServerProcess]:
    def start(*arguments: str) -> ServerProcess:
        told = ("--workers", "2", "--node", "crew", "--lease-ttl", "1", *arguments)
        return start_server(*told, url=f"redis://127.0.0.1:{redis.port}/0")

    return start


def children(server: ServerProcess) -> list[int]:
    """The workers, the first one first: they are started one after the other. Each is a child of some thread."""
    found = [each.read_text().split() for each in Path(f"/proc/{server.process.pid}/task").glob("*/children")]
    return sorted(int(each) for numbers in found for each in numbers)


def lives(number: int) -> bool:
    """One that has ended may be there until somebody asks for its exit code."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def two_free_ports() -> int:
    """The first of two, one behind the other."""
    while True:
        first = free_port()
        with socket.socket() as second:
            try:
                second.bind(("127.0.0.1", first + 1))
            except (OSError, OverflowError):
                continue
        return first


def who_answers(url: str) -> str | None:
    """On a connection of its own. None: it was cut off by a kill."""
    try:
        return httpx.get(f"{url}/healthz").headers["Penstock-Node"]
    except httpx.TransportError:
        return None


def both_answer(url: str) -> bool:
    return {who_answers(url) for _ in range(60)} >= {"crew-1", "crew-2"}


def refuses(url: str) -> bool:
    try:
        httpx.get(f"{url}/healthz")
    except httpx.ConnectError:
        return True
    except httpx.TransportError:
        return False
    return False


def begin(url: str, session: str, delay: float) -> str:
    at = f"{url}/v1/sessions/{session}"
    httpx.put(at).raise_for_status()
    started = httpx.post(f"{at}/generations", json={"text": WORDS, "input": {"delay": delay}}, timeout=30)
    cursor: str = started.raise_for_status().json()["cursor"]
    return cursor


def heard(url: str, session: str, after: str, last: str) -> str:
    """What a reader gets until ``last``: it comes back with its cursor where it is cut off."""
    told = ""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            with httpx.stream(
                "GET", f"{url}/v1/sessions/{session}/events", params={"after": after}, timeout=30
            ) as read:
                for line in read.iter_lines():
                    told += f"{line}\n"
                    if line.startswith("id:"):
                        after = line.removeprefix("id:").strip()
                    if last in line:
                        return told
        except httpx.TransportError:
            continue
    raise AssertionError(f"{last} did not come: {told}")


def test_a_dead_worker_is_started_again_and_the_other_goes_on(start_workers: Callable[..., ServerProcess]) -> None:
    own = two_free_ports()
    server = start_workers("--worker-port", str(own))
    assert "as crew-1 to crew-2" in server.said
    assert server.said.count("penstock serves") == 1
    until(lambda: both_answer(server.url))
    first, second = children(server)
    one, two = (f"http://127.0.0.1:{own + each}" for each in range(2))
    assert [who_answers(one), who_answers(two)] == ["crew-1", "crew-2"]
    assert "process_" in httpx.get(f"{two}/metrics").text
    cursor = begin(one, "forwarded", 5)  # live in one, and stopped by way of the other
    httpx.post(f"{two}/v1/sessions/forwarded/stop", json={}, timeout=30).raise_for_status()
    assert '"cancelled"' in heard(two, "forwarded", cursor, "generation.finished")
    cursors = {f"s{number}": begin(server.url, f"s{number}", 0.1) for number in range(6)}
    os.kill(second, signal.SIGKILL)
    ends = {session: heard(server.url, session, cursor, "generation.finished") for session, cursor in cursors.items()}
    for told in ends.values():
        assert ('"lost"' in told) or [each for each in WORDS.split() if each in told] == WORDS.split()
    until(lambda: len(children(server)) == 2)
    assert children(server)[0] == first
    until(lambda: both_answer(server.url))
    log = server.log.read_text()
    assert "worker 2 ended: SIGKILL; it is started again" in log
    os.kill(server.process.pid, signal.SIGHUP)
    until(lambda: {*re.findall(r"SIGHUP: .*worker=(\d)", server.log.read_text())} == {"1", "2"})
    for session in ends:
        assert httpx.get(f"{server.url}/v1/sessions/{session}").status_code == 200
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()


def test_a_worker_comes_back_as_soon_as_it_can(redis: RedisServer, start_workers: Callable[..., ServerProcess]) -> None:
    server = start_workers("--log-patience", "0.5")
    first, second = children(server)
    os.kill(first, signal.SIGTERM)  # one alone: it drains, and begins again
    until(lambda: "worker 1 ended: exit code 0; it is started again" in server.log.read_text())
    until(lambda: both_answer(server.url))
    redis.kill()
    os.kill(second, signal.SIGKILL)
    until(lambda: "worker 2 ended: exit code 1; it is started again" in server.log.read_text())
    redis.start()
    until(lambda: both_answer(server.url))
    assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_all_and_a_second_one_ends_them(
    number: signal.Signals, start_workers: Callable[..., ServerProcess]
) -> None:
    server = start_workers()
    workers = children(server)
    assert len(workers) == 2
    # A terminal sends its Ctrl-C to a whole group: it must not reach a worker twice, which would leave at once.
    assert not {os.getpgid(each) for each in workers} & {os.getpgid(server.process.pid)}
    cursors = {f"s{each}": begin(server.url, f"s{each}", 0.5) for each in range(4)}
    server.signal(number)
    assert server.wait() == 0
    assert not any(lives(each) for each in workers)
    again = start_workers()
    for session, cursor in cursors.items():
        assert '"shutdown"' in heard(again.url, session, cursor, "generation.finished")
    workers = children(again)
    os.kill(workers[0], signal.SIGSTOP)  # it cannot drain
    again.signal(number)
    until(lambda: not lives(workers[1]))
    assert again.process.poll() is None
    again.signal(number)
    assert again.wait() == 128 + number
    until(lambda: not any(lives(each) for each in workers))


def test_no_worker_outlives_its_parent(start_workers: Callable[..., ServerProcess]) -> None:
    server = start_workers()
    workers = children(server)
    assert len(workers) == 2
    server.kill()
    try:
        until(lambda: refuses(server.url))
        until(lambda: not any(lives(each) for each in workers))
    finally:
        for each in filter(lives, workers):
            os.kill(each, signal.SIGKILL)
    assert server.log.read_text().count("the parent of this worker is gone") == 2


def test_what_no_worker_can_start_with_is_said_once(
    start_workers: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    with pytest.raises(pytest.fail.Exception, match="the server did not start"):
        start_workers("--producer", "x=there_is_none:x")
    told = (tmp_path / "server.log").read_text()
    assert len(re.findall("^Error: ", told, re.MULTILINE)) == 1
    assert "Traceback" not in told
