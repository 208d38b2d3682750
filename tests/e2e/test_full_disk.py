"""A disk that is really full, under a real server: nothing shown that is not stored, and it goes on by itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError

import pytest

from penstock.engine import decode
from penstock.engine.testing import assert_log
from tests.e2e.conftest import ServerProcess
from tests.e2e.streams import SseReader, call
from tests.engine.disks import mounted

Start = Callable[..., ServerProcess]


def wait_ready(url: str, *, ready: bool) -> None:
    """Until the server says that it is, or is not; bounded."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            status = call(url, "GET", "/readyz")["status"]
        except HTTPError as refused:
            status = json.loads(refused.read())["status"]
        if status == ("ok" if ready else "degraded"):
            return
        time.sleep(0.05)  # polling another process from outside; the deadline above bounds it
    pytest.fail(f"the server did not become {'ready' if ready else 'degraded'}")


def test_a_full_disk_refuses_writes_and_the_session_recovers(start_server: Start, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "8m") as disk:
        server = start_server(db="disk/full.db")
        call(server.url, "PUT", "/v1/sessions/s", {})
        call(server.url, "PUT", "/v1/sessions/quiet", {})
        reader = SseReader(server.url, "/v1/sessions/s/events")
        started = call(
            server.url,
            "POST",
            "/v1/sessions/s/generations",
            {"text": "many words " * 50, "input": {"delay": 0.001, "repeat": 1000}},
        )
        assert reader.read()
        disk.fill()
        while not [frame for frame in reader.control if frame[0] == "degraded"]:
            assert reader.read()
        wait_ready(server.url, ready=False)
        with pytest.raises(HTTPError) as refused:
            call(server.url, "POST", "/v1/sessions/s/generations", {"text": "now?"})
        assert json.loads(refused.value.read())["code"] == "WRITE_FAILED"
        disk.free()
        wait_ready(server.url, ready=True)
        for _, data in reader.frames():
            if b'"generation.finished"' in data:
                break
        info = call(server.url, "GET", f"/v1/sessions/s/generations/{started['generation_id']}")
        assert (info["state"], info["outcome"]) == ("finished", "failed")
        stored = list(SseReader(server.url, "/v1/sessions/s/events?live=false").frames())
        assert reader.received == stored[: len(reader.received)]
        assert_log([decode(data) for _, data in stored], closed=True)
        again = call(server.url, "POST", "/v1/sessions/s/generations", {"text": "now!", "input": {"delay": 0}})
        assert again["turn"] == 2
        call(server.url, "POST", "/v1/sessions/quiet/generations", {"text": "works", "input": {"delay": 0}})
        assert server.stop() == 0
