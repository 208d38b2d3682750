"""A database of an older version, as people meet it: what they see, and that they may stop it."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.checkout import environment
from tests.e2e.conftest import PENSTOCK, ServerProcess
from tests.engine.version_1 import take_back

# Takes far longer to bring up to date than a signal takes to arrive.
FILLER = 300_000


@pytest.fixture
def old(start_server: Callable[..., ServerProcess], tmp_path: Path) -> Path:
    """With a session in it that somebody has talked in."""
    server = start_server()
    session = f"{server.url}/v1/sessions/talk"
    assert httpx.put(session, trust_env=False).status_code == 201
    assert httpx.post(f"{session}/messages", json={"text": "kept"}, trust_env=False).status_code == 201
    assert server.stop() == 0
    take_back(tmp_path / "test.db", FILLER)
    return tmp_path / "test.db"


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


@contextmanager
def bringing_up(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command, once it says how far it is."""
    with subprocess.Popen(
        [*PENSTOCK, *arguments],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            assert any("up to date: " in line for line in process.stderr)
            yield process
        finally:
            process.kill()


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_server_that_is_stopped_meanwhile_goes_on_next_time(
    old: Path, number: signal.Signals, start_server: Callable[..., ServerProcess]
) -> None:
    with bringing_up("serve", "--db", str(old), "--port", "0") as process:
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == (-number if number == signal.SIGKILL else 0)
        assert "Traceback" not in errors
    assert version(old) == 1
    server = start_server()
    (message,) = httpx.get(f"{server.url}/v1/sessions/talk", trust_env=False).json()["messages"]
    assert message["blocks"][0]["text"] == "kept"
    assert server.stop() == 0
    assert version(old) == 4
    done = int(server.log.read_text().split("up to date: ")[1].split()[0])
    assert done > 4096  # the first slice was done


@pytest.mark.long
def test_compact_that_is_interrupted_meanwhile_goes_on_next_time(old: Path) -> None:
    with bringing_up("compact", str(old)) as process:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 130
        assert errors.endswith("Interrupted; what was done stays done.\n")
    assert version(old) == 1
    with bringing_up("compact", str(old)) as process:
        process.communicate(timeout=100)
        assert process.returncode == 0
    assert version(old) == 4
