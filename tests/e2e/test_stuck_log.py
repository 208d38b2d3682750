"""A log that nobody reads, and then somebody does: the server goes on, ends in order, and says how much is missing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.checkout import environment
from tests.e2e.conftest import PENSTOCK, START, STOP


@contextmanager
def unread(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client, int]]:
    """A server whose standard error is a pipe that nobody reads; its reading end."""
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [*PENSTOCK, "serve", "--db", str(folder / "test.db"), "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=writing,
        env=environment(),
    )
    os.close(writing)
    try:
        assert process.stdout is not None
        with process.stdout:
            timer = threading.Timer(START, process.kill)
            timer.start()
            found = re.search(r"http://\S+?(?=/?\s)", process.stdout.readline().decode())
            timer.cancel()
            assert found is not None
            with httpx.Client(base_url=found[0], timeout=20, trust_env=False) as client:
                yield process, client, reading
    finally:
        process.kill()
        process.wait(STOP)
        os.close(reading)


def stuff(client: httpx.Client, lines: int) -> None:
    """Have so many lines of some 10 KB each written."""
    for _ in range(lines):
        assert client.get(f"/v1/sessions/none/{'x' * 10_000}").status_code == 404


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_log_that_nobody_reads_holds_up_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with unread(tmp_path) as (process, client, reading):
        client.put("/v1/sessions/s")
        stuff(client, 600)
        assert client.get("/healthz").status_code == 200
        body = {"text": "one two", "input": {"delay": 0.01}, "producer": "echo"}
        client.post("/v1/sessions/s/generations", json=body)
        with client.stream("GET", "/v1/sessions/s/events", headers={"Accept": "application/x-ndjson"}) as stream:
            assert any("generation.finished" in line for line in stream.iter_lines())
        found = re.search(r"^penstock_log_lines_lost_total (\S+)$", client.get("/metrics").text, re.MULTILINE)
        assert found is not None
        assert float(found[1]) > 0
        process.send_signal(number)
        assert process.wait(STOP) == 0
        os.set_blocking(reading, False)
        assert os.read(reading, 1 << 16), "the pipe was full"


@pytest.mark.long
def test_a_second_signal_ends_a_server_at_once_though_nobody_reads_its_log(tmp_path: Path) -> None:
    with unread(tmp_path, "--drain-timeout", "30") as (process, client, _):
        stuff(client, 600)
        with client.stream("GET", "/v1/sessions/none/events"):
            pass
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP) in (0, 128 + signal.SIGTERM)


@pytest.mark.long
def test_who_reads_again_gets_what_fitted_and_is_told_what_did_not(tmp_path: Path) -> None:
    with unread(tmp_path) as (process, client, reading):
        stuff(client, 600)
        read = b""

        def read_all() -> None:
            nonlocal read
            while piece := os.read(reading, 1 << 16):
                read += piece

        thread = threading.Thread(target=read_all)
        thread.start()
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP) == 0
        thread.join(STOP)
    lines = read.decode().splitlines()
    kept = sum("request_refused" in line for line in lines)
    (told,) = [line for line in lines if "log_lines_lost" in line]
    found = re.search(r"lost=(\d+)", told)
    assert found is not None
    assert kept + int(found[1]) == 600
    assert any("SIGTERM" in line for line in lines[lines.index(told) :])
