"""`penstock inspect` and `penstock compact` on a database that a server has written."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import PENSTOCK, ServerProcess, command
from tests.e2e.test_cli import penstock

Start = Callable[..., ServerProcess]

WORDS = " ".join(f"word-{number}" for number in range(20))


def inspected(db: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
    done = penstock("inspect", str(db), "--json", *arguments)
    assert (done.returncode, done.stderr) == (code, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def send(server: ServerProcess, session: str) -> None:
    """One answer, to its end."""
    url = f"{server.url}/v1/sessions/{session}"
    httpx.put(url).raise_for_status()
    started = httpx.post(f"{url}/generations", json={"text": WORDS, "input": {"delay": 0}}).raise_for_status().json()
    stream = {"after": started["cursor"]}
    with httpx.stream("GET", f"{url}/events", params=stream, timeout=20) as events:
        assert any('"generation.finished"' in line and '"completed"' in line for line in events.iter_lines())


def snapshot(server: ServerProcess, session: str) -> Any:
    return httpx.get(f"{server.url}/v1/sessions/{session}").json()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that a server has written and closed: two sessions, an answer each."""
    server = ServerProcess(tmp_path_factory.mktemp("written"))
    for session in ("one", "two"):
        send(server, session)
    assert server.stop() == 0
    return server.db


@pytest.fixture
def db(written: Path, tmp_path: Path) -> Path:
    """The test's own copy of it."""
    return Path(shutil.copy(written, tmp_path))


def test_help_shows_examples() -> None:
    for name in ("inspect", "compact"):
        told = command(name, "--help")
        assert told.exit_code == 0
        assert "Examples:" in told.stdout


def test_inspect_shows_what_is_stored_and_that_it_is_sound(db: Path) -> None:
    before = db.read_bytes()
    done = penstock("inspect", str(db))
    assert (done.returncode, done.stderr) == (0, "")
    assert "The file is sound." in done.stdout
    assert "2 sessions" in done.stdout
    assert "Nothing is wrong." in done.stdout
    found = inspected(db)
    assert found["wrong"] == 0
    assert found["database"]["findings"] == []
    assert [session["session_id"] for session in found["sessions"]] == ["one", "two"]
    for session in found["sessions"]:
        assert session["events"] == session["tail"] > 20
        assert session["outcomes"] == {"completed": 1}
        assert session["live"] is None
    assert [session["session_id"] for session in inspected(db, "--session", "two")["sessions"]] == ["two"]
    assert db.read_bytes() == before
    assert not [file for file in db.parent.iterdir() if file.name.startswith(f"{db.name}-")]


def test_inspect_works_beside_a_server_and_disturbs_nothing(server: ServerProcess) -> None:
    send(server, "one")
    found = inspected(server.db)
    assert found["wrong"] == 0
    assert found["database"]["process"] == server.process.pid
    send(server, "one")
    assert inspected(server.db)["sessions"][0]["generations"] == 2


def test_inspect_tells_what_is_wrong_and_exits_with_1(db: Path) -> None:
    with closing(sqlite3.connect(db)) as connection:
        connection.execute("DELETE FROM events WHERE offset = 7 AND life = 1")
        connection.execute("UPDATE events SET body = 'nonsense' WHERE offset = 9 AND life = 2")
        connection.commit()
    done = penstock("inspect", str(db))
    assert done.returncode == 1
    assert "R1 at offset 7: offsets 7 to 7 are missing" in done.stdout
    assert "what is stored behind offset 8 is no event" in done.stdout
    found = inspected(db, code=1)
    assert found["wrong"] > 1
    assert {violation["rule"] for violation in found["sessions"][0]["violations"]} >= {"R1"}
    assert inspected(db, "--session", "two", code=1)["wrong"] >= 1


def test_inspect_shows_what_a_killed_server_left_open(start_server: Start) -> None:
    server = start_server()
    send(server, "one")
    with httpx.Client(base_url=server.url) as client:
        # Long enough that it runs when the server is killed.
        started = client.post(
            "/v1/sessions/one/generations", json={"text": WORDS, "producer": "echo", "input": {"delay": 1}}
        )
        generation_id = started.json()["generation_id"]
        server.kill()
    found = inspected(server.db)
    assert (found["wrong"], found["database"]["process"]) == (0, None)
    assert found["sessions"][0]["live"] == generation_id
    assert "left open" in penstock("inspect", str(server.db)).stdout
    assert start_server().stop() == 0
    assert inspected(server.db)["sessions"][0]["outcomes"] == {"completed": 1, "lost": 1}


@pytest.mark.parametrize("name", ["inspect", "compact"])
def test_a_file_that_is_none_of_ours_is_refused_in_plain_words(tmp_path: Path, name: str) -> None:
    diary = tmp_path / "diary.txt"
    diary.write_text("Dear diary, " * 100)
    for path in (diary, tmp_path / "missing.db", tmp_path):
        refused = command(name, str(path))
        assert refused.exit_code in (1, 2)
        assert str(path) in refused.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["diary.txt"]


def test_inspect_of_an_unknown_session_is_refused_in_plain_words(db: Path) -> None:
    refused = penstock("inspect", str(db), "--session", "nobody")
    assert refused.returncode == 1
    assert "nobody" in refused.stderr


def test_compact_is_refused_while_a_server_has_the_database_open(server: ServerProcess) -> None:
    send(server, "one")
    refused = penstock("compact", str(server.db))
    assert refused.returncode == 1
    assert f"is open in process {server.process.pid}" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.long
def test_after_compact_a_server_shows_the_same_and_goes_on(start_server: Start) -> None:
    server = start_server()
    send(server, "one")
    before = snapshot(server, "one")
    assert server.stop() == 0
    tail = inspected(server.db)["sessions"][0]["tail"]
    young: subprocess.CompletedProcess[str] = penstock("compact", str(server.db))
    assert (young.returncode, young.stdout.split(";")[0]) == (0, "0 messages compacted, 0 events removed")
    done = penstock("compact", str(server.db), "--older-than", "0")
    assert done.returncode == 0
    assert done.stdout.startswith("1 messages compacted")
    found = inspected(server.db)
    assert found["wrong"] == 0
    assert (found["sessions"][0]["tail"], found["sessions"][0]["events"] < 12) == (tail, True)
    again = start_server()
    assert snapshot(again, "one") == before
    shown = httpx.get(f"{again.url}/v1/sessions/one/events?live=false", headers={"Accept": "application/x-ndjson"})
    events = [json.loads(line) for line in shown.text.splitlines() if line]
    assert not [event for event in events if event.get("control") == "gap"]
    assert [event["type"] for event in events if "message_id" in event][-3:] == [
        "message.opened",
        "message.snapshot",
        "message.closed",
    ]
    send(again, "one")
    assert again.stop() == 0
    assert inspected(server.db)["wrong"] == 0


def code_of(url: str) -> int:
    return httpx.get(f"{url}/readyz").status_code


def wait_for_code(url: str, code: int) -> None:
    """Until the server answers so; bounded."""
    deadline = time.monotonic() + 20
    while (found := code_of(url)) != code:
        assert time.monotonic() < deadline, f"/readyz still answers {found}"
        time.sleep(0.1)  # another process finds it out by itself, each second


@pytest.mark.long
def test_a_backup_of_a_running_server_restores_what_was_said(start_server: Start, tmp_path: Path) -> None:
    server = start_server()
    send(server, "one")
    before = snapshot(server, "one")
    copy = tmp_path / "copy.db"
    done = penstock("backup", str(server.db), str(copy))
    assert (done.returncode, copy.stat().st_mode & 0o777) == (0, 0o600)
    assert "checked" in done.stdout
    send(server, "one")
    refused = penstock("restore", str(copy), str(server.db))
    assert (refused.returncode, f"open in process {server.process.pid}" in refused.stderr) == (1, True)
    assert penstock("backup", str(server.db), str(copy)).returncode == 1
    assert inspected(copy)["wrong"] == 0
    assert server.stop() == 0
    done = penstock("restore", str(copy), str(server.db))
    assert done.returncode == 0
    kept = Path(done.stdout.split("kept as ")[1].strip())
    assert inspected(kept)["sessions"][0]["generations"] == 2
    again = start_server()
    after = snapshot(again, "one")
    assert before.pop("cursor").split("-")[0] != after.pop("cursor").split("-")[0]
    assert after["messages"] == before["messages"]
    send(again, "one")
    assert again.stop() == 0
    assert sorted(file.name for file in tmp_path.glob("*.db*")) == ["copy.db", "test.db", kept.name]


@pytest.mark.long
def test_ctrl_c_in_a_backup_leaves_nothing(db: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(db)) as connection:
        connection.executemany(
            "INSERT INTO records VALUES (1, ?, zeroblob(100000))", ((f"r/{number}",) for number in range(3000))
        )
        connection.commit()
    before = sorted(file.name for file in tmp_path.iterdir())
    running = subprocess.Popen(
        [*PENSTOCK, "backup", str(db), str(tmp_path / "copy.db")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    part = tmp_path / "copy.db.part"
    deadline = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.001)  # the only sign that another process gives
    running.send_signal(signal.SIGINT)
    told, complaint = running.communicate(timeout=20)
    assert (running.returncode, told) == (130, "")
    assert "Interrupted" in complaint
    assert "Traceback" not in complaint
    assert sorted(file.name for file in tmp_path.iterdir()) == before


def test_a_file_that_is_deleted_under_a_server_is_no_quiet_loss(start_server: Start) -> None:
    server = start_server()
    send(server, "one")
    for file in server.db.parent.glob("test.db*"):
        file.unlink()
    wait_for_code(server.url, 503)
    refused = httpx.post(f"{server.url}/v1/sessions/one/messages", json={"text": "lost?"})
    assert (refused.status_code, refused.json()["code"]) == (500, "WRITE_FAILED")
    assert "database file was deleted" not in refused.text  # that is for the log
    assert server.stop() == 1
    log = server.log.read_text()
    assert log.count("database_gone") == 1
    assert "Traceback" not in log
    assert not list(server.db.parent.glob("test.db*"))


@pytest.mark.long
def test_ready_is_said_only_while_something_can_be_stored(server: ServerProcess) -> None:
    send(server, "one")
    assert code_of(server.url) == 200
    with closing(sqlite3.connect(server.db, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        wait_for_code(server.url, 503)
        refused = httpx.post(f"{server.url}/v1/sessions/one/messages", json={"text": "now?"}, timeout=20)
        assert refused.json()["code"] == "WRITE_FAILED"
        assert code_of(server.url) == 503
        other.execute("COMMIT")
    wait_for_code(server.url, 200)
    shown = httpx.get(f"{server.url}/metrics").text
    assert "penstock_log_degraded 0.0" in shown
    assert "penstock_log_disk_free_bytes" in shown
