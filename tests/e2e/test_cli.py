"""The command as people run it: processes, signals, exit codes."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.checkout import environment
from tests.e2e.conftest import PENSTOCK, ServerProcess, command

Start = Callable[..., ServerProcess]

PATIENCE = 30.0  # far above what a command takes to start


def penstock(*arguments: str, cwd: Path | None = None, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """One command, run to its end."""
    return subprocess.run(
        [*PENSTOCK, *arguments],
        cwd=cwd,
        input=stdin,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


class Tail:
    """`penstock tail` in the background."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*PENSTOCK, "tail", *arguments],
            env=environment(PYTHONUNBUFFERED="1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def read_until(self, text: str) -> str:
        assert self.process.stdout is not None
        seen = ""
        for line in self.process.stdout:
            seen += line
            if text in line:
                return seen
        raise AssertionError(f"{text!r} never came; seen: {seen!r}")

    def interrupt(self) -> tuple[int, str]:
        """Ctrl-C; the exit code and what was written to stderr."""
        self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors


def test_help_shows_examples_and_version_is_told() -> None:
    for name in ([], ["serve"], ["tail"], ["send"]):
        told = command(*name, "--help")
        assert told.exit_code == 0
        assert "Examples:" in told.stdout
    assert penstock("--version").stdout.startswith("penstock 0.")


def test_send_shows_the_answer_and_exits_with_0(site: ServerProcess) -> None:
    done = penstock("send", "shown", "water finds  its way", "--url", site.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "assistant> water finds  its way\n"


def test_send_reads_the_text_from_stdin(site: ServerProcess) -> None:
    done = penstock("send", "piped", "-", "--url", site.url, stdin="from a pipe")
    assert done.stdout == "assistant> from a pipe\n"


def test_send_may_wait_for_the_answer_that_runs(site: ServerProcess) -> None:
    url = f"{site.url}/v1/sessions/waits"
    httpx.put(url, trust_env=False)
    httpx.post(f"{url}/generations", json={"text": "one two", "input": {"delay": 30}}, trust_env=False)
    with ThreadPoolExecutor() as pool:
        sent = pool.submit(penstock, "send", "waits", "three", "--policy", "queue", "--url", site.url)
        deadline = time.monotonic() + PATIENCE
        while not httpx.get(url, trust_env=False).json()["queue"]["items"]:
            assert time.monotonic() < deadline
        httpx.post(f"{url}/stop", json={"queue": "continue"}, trust_env=False)
        done = sent.result()
    assert (done.returncode, done.stdout, done.stderr) == (0, "assistant> three\n", "[waiting at place 1]\n")
    assert "-- waiting at place 1: three" in follow_to_end(site, "turn 2 completed")


def follow_to_end(site: ServerProcess, end: str) -> str:
    tail = Tail("waits", "--url", site.url)
    seen = tail.read_until(end)
    tail.interrupt()
    return seen


def test_send_exits_with_1_if_the_answer_was_not_completed(site: ServerProcess) -> None:
    done = penstock("send", "fails", "x", "--input", '{"delay": "slow"}', "--url", site.url)
    assert done.returncode == 1
    assert "failed (INVALID_BODY" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["send", "talk", "x", "--producer", "nobody"], "PRODUCER_NOT_FOUND"),
        (["send", "talk", "x", "--input", "{"], "not JSON"),
        (["send", "a b", "x"], "INVALID_ID"),
        (["send", "talk", "x", "--policy", "join"], "--policy"),
        (["tail", "unheard-of"], "SESSION_NOT_FOUND"),
        (["tail", "talk", "--after", "yesterday"], "INVALID_CURSOR"),
    ],
)
def test_a_refusal_is_one_clear_line(site: ServerProcess, arguments: list[str], hint: str) -> None:
    httpx.put(f"{site.url}/v1/sessions/talk").raise_for_status()
    done = command(*arguments, "--url", site.url)
    assert done.exit_code in (1, 2)
    assert hint in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", [["tail", "talk"], ["send", "talk", "x"]])
def test_no_server_there_is_a_clear_error(arguments: list[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        done = penstock(*arguments, "--url", f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 1
    assert "penstock serve" in done.stderr
    assert "Traceback" not in done.stderr


# leaving is silent
def test_tail_follows_what_others_say(site: ServerProcess) -> None:
    penstock("send", "followed", "the first", "--url", site.url)
    tail = Tail("followed", "--url", site.url)
    tail.read_until("turn 1 completed")
    penstock("send", "followed", "the second", "--url", site.url)
    assert tail.read_until("turn 2 completed") == "user> the second\nassistant> the second\n-- turn 2 completed\n"
    assert tail.interrupt() == (130, "")


def test_tail_prints_events_as_json_from_a_cursor_on(site: ServerProcess) -> None:
    penstock("send", "as-json", "one two", "--url", site.url)
    cursor = httpx.get(f"{site.url}/v1/sessions/as-json").json()["cursor"]
    penstock("send", "as-json", "three", "--url", site.url)
    tail = Tail("as-json", "--json", "--after", cursor, "--url", site.url)
    events = [json.loads(line) for line in tail.read_until('"generation.finished"').splitlines()]
    begin = int(cursor.partition("-")[2])
    assert [event["offset"] for event in events] == list(range(begin + 1, begin + 1 + len(events)))
    assert tail.interrupt() == (130, "")


#
@pytest.mark.long
def test_tail_survives_a_restart_of_the_server(start_server: Start) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    first = start_server("--port", port)
    penstock("send", "talk", "before", "--url", first.url)
    tail = Tail("talk", "--url", first.url)
    seen = tail.read_until("turn 1 completed")
    first.kill()
    second = start_server("--port", port)
    penstock("send", "talk", "after", "--url", second.url)
    seen += tail.read_until("turn 2 completed")
    code, errors = tail.interrupt()
    assert code == 130
    assert "connection lost, resuming" in errors
    assert seen.count("assistant> before\n") == seen.count("assistant> after\n") == 1
    assert second.stop() == 0


#
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_answers_and_streams_and_exits_with_0(start_server: Start, number: signal.Signals) -> None:
    server = start_server()
    httpx.put(f"{server.url}/v1/sessions/talk").raise_for_status()
    httpx.post(f"{server.url}/v1/sessions/talk/generations", json={"text": "w " * 1000}).raise_for_status()
    with httpx.stream("GET", f"{server.url}/v1/sessions/talk/events", timeout=20) as stream:
        lines = stream.iter_lines()
        assert any("block.delta" in line for line in lines)
        server.signal(number)
        rest = list(lines)
    assert any('"outcome":"shutdown"' in line for line in rest)
    assert "event: drain" in rest
    assert re.fullmatch(r"retry: [1-5]\d{3}", rest[rest.index("event: drain") + 1]), "and when to come back"
    assert server.wait() == 0


STUBBORN = """
import sys, trio

async def stubborn(generation):
    with trio.CancelScope(shield=True):
        await trio.sleep(600)
"""


@pytest.mark.long
def test_a_producer_that_will_not_end_does_not_keep_the_server(start_server: Start, tmp_path: Path) -> None:
    (tmp_path / "stubborn_app.py").write_text(STUBBORN)
    server = start_server("--producer", "stubborn=stubborn_app:stubborn")
    httpx.put(f"{server.url}/v1/sessions/talk").raise_for_status()
    httpx.post(f"{server.url}/v1/sessions/talk/generations", json={"producer": "stubborn"}).raise_for_status()
    assert server.stop() == 0
    assert "did not end" in server.log.read_text()
    again = start_server()
    assert httpx.get(f"{again.url}/v1/sessions/talk").json().get("generation") is None
    assert again.stop() == 0


def test_a_second_signal_ends_the_process_at_once(start_server: Start, tmp_path: Path) -> None:
    (tmp_path / "stubborn_app.py").write_text(STUBBORN)
    server = start_server("--producer", "stubborn=stubborn_app:stubborn")
    httpx.put(f"{server.url}/v1/sessions/talk").raise_for_status()
    httpx.post(f"{server.url}/v1/sessions/talk/generations", json={"producer": "stubborn"}).raise_for_status()
    with httpx.stream("GET", f"{server.url}/v1/sessions/talk/events", timeout=20) as stream:
        lines = stream.iter_lines()
        next(lines)
        server.signal(signal.SIGTERM)
        assert any("generation.cancelling" in line for line in lines)
        server.signal(signal.SIGTERM)
        assert server.wait(1.5) == 128 + signal.SIGTERM


def test_a_port_in_use_is_a_clear_error(site: ServerProcess, tmp_path: Path) -> None:
    port = site.url.rpartition(":")[2]
    done = penstock("serve", "--port", port, "--db", "other.db", cwd=tmp_path)
    assert done.returncode == 1
    assert f"port {port} is in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_in_use_is_a_clear_error(site: ServerProcess) -> None:
    done = penstock("serve", "--port", "0", "--db", str(site.db))
    assert done.returncode == 1
    assert str(site.db) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_no_database_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("these are my notes\n" * 100)
    done = penstock("serve", "--port", "0", "--db", "notes.db", cwd=tmp_path)
    assert done.returncode == 1
    assert "notes.db" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "notes.db").read_text().startswith("these are my notes")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--host", "0.0.0.0"], "proxy"),
        (["--host", "example.org"], "not an IP address"),
        (["--producer", "story"], "NAME=module:function"),
        (["--producer", "story=nowhere_at_all:story"], "no module"),
        (["--default-producer", "nobody"], "there are echo"),
    ],
)
def test_a_bad_option_is_a_clear_error(
    arguments: list[str], hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command("serve", "--port", "0", *arguments)
    assert done.exit_code in (1, 2)
    assert hint in done.stderr
    assert not (tmp_path / "penstock.db").exists()


def test_an_own_producer_answers_by_default(start_server: Start, tmp_path: Path) -> None:
    (tmp_path / "poems.py").write_text("async def poet(generation):\n    yield 'roses'\n    yield ' are red'\n")
    server = start_server("--producer", "poet=poems:poet")
    assert penstock("send", "talk", "x", "--url", server.url).stdout == "assistant> roses are red\n"
    echoed = penstock("send", "talk", "x", "--producer", "echo", "--url", server.url)
    assert echoed.stdout == "assistant> x\n"
    assert server.stop() == 0


@pytest.mark.long
def test_bench_prints_its_figures_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_MODEL", "what another server here is given")
    done = penstock("bench", "--events", "200", "--viewers", "2", "--folder", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["figures"]
    assert len(figures) == 5
    assert all(figure["value"] > 0 for figure in figures)
    assert list(tmp_path.iterdir()) == []
