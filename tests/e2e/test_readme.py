"""The README is true: what it shows runs as it stands there."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets.exceptions
import websockets.sync.client

from penstock.engine import ApprovalRequested, GenerationFinished, JSONObject, MemoryLog, open_engine
from tests.e2e.conftest import ServerProcess
from tests.smoke import first_command

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
ADAPTERS = (ROOT / "adapters" / "README.md").read_text()
ENGINE = (ROOT / "engine" / "README.md").read_text()
PATIENCE = 30.0
TIMES = 2  # each program runs on what it left behind the first time, too
ENVIRONMENT = {"PYTHONPATH": str(ROOT / ".dev"), "PATH": "/usr/bin:/bin", "PYTHONWARNINGS": "error"}


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def example(*marks: str) -> str:
    """The one whole program in adapters/README.md that has all of these words."""
    (found,) = (
        block for block in blocks("python", ADAPTERS) if "trio.run(" in block and all(mark in block for mark in marks)
    )
    return found


@contextmanager
def running(program: str, folder: Path, **variables: str) -> Iterator[str]:
    """The program, on a port of its own; in the end it gets a SIGTERM, and ends by itself without a complaint."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = program.replace("8000", str(port))
    log = folder / "program.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", program], cwd=folder, env=ENVIRONMENT | variables, stdout=file, stderr=file
        )
    try:
        _wait_for(port, process, log)
        yield f"127.0.0.1:{port}"
        process.terminate()
        assert process.wait(PATIENCE) == 0, log.read_text()
        assert "Traceback" not in log.read_text()
        assert "Warning" not in log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def run(arguments: list[str], cwd: Path, **variables: str) -> str:
    done = subprocess.run(arguments, cwd=cwd, env=ENVIRONMENT | variables, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_embedding_example_runs_as_it_stands(tmp_path: Path) -> None:
    program, _ = blocks("python")
    assert len([line for line in program.splitlines() if line.strip()]) <= 20
    begin = 2  # behind the event by which the session was made
    for _ in range(TIMES):
        printed = run([sys.executable, "-c", program], tmp_path).splitlines()
        assert [int(line.split()[0]) for line in printed] == list(range(begin, begin + len(printed)))
        assert "generation.finished" in printed[-1]
        assert "completed" in printed[-1]
        begin += len(printed)
    assert (tmp_path / "poems.db").exists()


def test_the_client_example_runs_as_it_stands(tmp_path: Path, server: ServerProcess) -> None:
    _, program = blocks("python")
    for time_ in range(TIMES):
        printed = run([sys.executable, "-c", program.replace("http://127.0.0.1:8420", server.url)], tmp_path)
        assert printed == "user another line, please\nassistant water finds its way\n" * (time_ + 1)


def _follow(url: str, end: str, begun: threading.Event) -> list[str]:
    """The stream's lines up to the first with ``end``."""
    lines = []
    with httpx.stream("GET", url, headers={"Accept": "application/x-ndjson"}, trust_env=False) as stream:
        for line in stream.iter_lines():
            lines.append(line)
            begun.set()
            if end in line:
                return lines
    raise AssertionError(lines)


@pytest.mark.parametrize("server_", ["hypercorn", "websocket_handler"])
def test_the_mounting_examples_run_as_they_stand(server_: str, tmp_path: Path) -> None:
    for made in (201, 200):
        _mount(server_, tmp_path, made)


def _mount(server_: str, tmp_path: Path, made: int) -> None:
    begun = threading.Event()
    with ThreadPoolExecutor() as beside:
        with running(example("mount(site", server_), tmp_path) as at:
            with httpx.Client(base_url=f"http://{at}", trust_env=False) as client:
                assert 'href="/chat"' in client.get("/").text
                assert "<title>" in client.get("/chat", follow_redirects=True).text
                session = "/chat/v1/sessions/demo"
                assert client.put(session).status_code == made
                assert client.post(f"{session}/generations", json={"text": "down we go"}).status_code == 201
                assert '"completed"' in _follow(f"http://{at}{session}/events", "generation.finished", begun)[-1]
            begun.clear()
            left = beside.submit(_follow, f"http://{at}{session}/events", "drain", begun)
            assert begun.wait(PATIENCE)
            if server_ == "websocket_handler":
                _talk_over_a_websocket(f"ws://{at}/chat/v1/ws")
        assert '"shutdown"' in left.result(PATIENCE)[-1]


def test_the_websocket_example_runs_as_it_stands(tmp_path: Path) -> None:
    for _ in range(TIMES):
        with running(example("serve, None"), tmp_path) as at:
            _talk_over_a_websocket(f"ws://{at}/v1/ws")
            assert httpx.get(f"http://{at}/v1/sessions/demo", trust_env=False).json()["code"] == "NOT_FOUND"


def _talk_over_a_websocket(url: str, session_id: str = "demo", **headers: str) -> None:
    with websockets.sync.client.connect(url, additional_headers=headers) as ws:
        ws.send(json.dumps({"op": "subscribe", "id": 1, "session_id": session_id}))
        ws.send(json.dumps({"op": "start", "id": 2, "session_id": session_id, "text": "and on"}))
        said = ""
        while '"generation.finished"' not in said or " on" not in said:
            said += str(ws.recv(PATIENCE))


USERS = """
class my_users:
    async def check(form):
        return {"ann": 7}[form["name"]]

"""


def running_the_recipe(folder: Path) -> AbstractContextManager[str]:
    """An application below a path of a site whose users have a cookie, as adapters/README.md has it."""
    (recipe,) = (block for block in blocks("python", ADAPTERS) if "async def identity(headers, cookies)" in block)
    assert len([line for line in recipe.splitlines() if line.strip()]) <= 24
    site = example("mount(site", "websocket_handler").replace("site = QuartTrio(__name__)\n", "")
    site = site.replace("create_app(engine)", "create_app(engine, identity=identity)")
    site = site.replace("websocket_handler(engine)", "websocket_handler(engine, identity=identity)")
    return running(USERS + recipe + site, folder, SITE_SECRET="only here")


def test_a_cookie_of_the_applications_own_lets_in_as_the_recipe_says(tmp_path: Path) -> None:
    with (
        running_the_recipe(tmp_path) as at,
        httpx.Client(base_url=f"http://{at}", trust_env=False) as client,
    ):
        assert client.get("/chat/v1/sessions").json()["code"] == "UNAUTHENTICATED"
        login = client.post("/login", data={"name": "ann"})
        assert (login.status_code, login.headers["location"]) == (302, "/chat/#a=u7-1")
        assert "SameSite=Lax" in login.headers["set-cookie"]
        session = "/chat/v1/sessions/u7-a"
        assert client.put(session).status_code == 201
        assert client.put("/chat/v1/sessions/u8-a").json()["code"] == "FORBIDDEN"
        assert "caught-up" in client.get(f"{session}/events?live=false").text
        for foreign in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
            assert client.post(f"{session}/generations", headers=foreign).json()["code"] == "ORIGIN_REFUSED"
        cookie = f"session={client.cookies['session']}"
        _talk_over_a_websocket(f"ws://{at}/chat/v1/ws", "u7-a", Cookie=cookie)
        for refused in ({"Cookie": f"{cookie}x"}, {"Cookie": cookie, "Origin": "https://evil.example"}):
            with pytest.raises(websockets.exceptions.InvalidStatus):
                _talk_over_a_websocket(f"ws://{at}/chat/v1/ws", "u7-a", **refused)
        spoilt = httpx.get(f"http://{at}{session}", headers={"Cookie": f"{cookie}x"}, trust_env=False)
        assert spoilt.status_code == 401


def test_the_producer_example_runs_as_it_stands(tmp_path: Path, server: ServerProcess) -> None:
    program = example("session.produce").replace("http://127.0.0.1:8420", server.url)
    for _ in range(TIMES):
        assert run([sys.executable, "-c", program], tmp_path) == "all of it is stored\n"
    messages = httpx.get(f"{server.url}/v1/sessions/imports", trust_env=False).json()["messages"]
    told = [(message["status"], message["blocks"][0]["text"]) for message in messages]
    assert told == [("complete", "row 1\nrow 2\nrow 3\n")] * TIMES


AGENT = """Let me
look.
remove {'name': 'old.log'}? Yes.
So: old.log is gone.
completed
"""


def test_the_agent_runs_as_it_stands_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (program,) = (block for block in blocks("python", ENGINE) if "trio.run(" in block)
    rooms = tmp_path / "rooms"
    rooms.mkdir()
    for _ in range(TIMES):
        printed = run([sys.executable, "-c", program], tmp_path, TMPDIR=str(rooms))
        assert [line.strip() for line in printed.splitlines()] == AGENT.splitlines()
        assert list(rooms.iterdir()) == []


@pytest.mark.parametrize("end", ["refused", "stopped"])
async def test_the_agent_hears_a_no_and_cleans_up_when_it_is_stopped(
    end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (program,) = (block for block in blocks("python", ENGINE) if "trio.run(" in block)
    made: dict[str, Any] = {}
    exec(program, made)
    async with open_engine(MemoryLog(), producers={"agent": made["agent"]}) as engine:
        session = await engine.create_session("s")
        async with session.subscribe("now") as subscription:
            started = await session.start("agent", text="tidy up")
            async for event in subscription:
                if isinstance(event.data, ApprovalRequested):
                    assert len(os.listdir(tmp_path)) == 1
                    no: JSONObject = {
                        "approval_id": event.data.approval_id,
                        "approved": False,
                        "reason": "not on a Friday",
                    }
                    if end == "refused":
                        await session.input(started.generation_id, "approval", no)
                    else:
                        await session.stop()
                if isinstance(event.data, GenerationFinished):
                    assert event.data.outcome == {"refused": "completed"}.get(end, end)
                    break
        *_, result, last = (await session.snapshot()).messages
    assert os.listdir(tmp_path) == []
    if end == "refused":
        assert result.blocks[0].is_error
        assert last.blocks[0].text == "So: refused: not on a Friday."
    else:
        assert last.blocks[0].is_error, "a call that was not carried out has a result that says so"


def test_every_whole_program_in_the_documents_is_run_here() -> None:
    whole = {
        path.relative_to(ROOT).as_posix(): sum("trio.run(" in block for block in blocks("python", path.read_text()))
        for path in [ROOT / "README.md", *ROOT.glob("engine/**/README.md"), *ROOT.glob("adapters/**/README.md")]
    }
    assert {path: count for path, count in whole.items() if count} == {
        "README.md": 2,
        "engine/README.md": 1,
        "adapters/README.md": 4,
    }


def test_curl_lines_show_an_answer_to_its_end(tmp_path: Path, server: ServerProcess) -> None:
    (lines,) = (block for block in blocks("sh") if "curl" in block)
    commands = [
        shlex.split(line.replace("http://127.0.0.1:8420", server.url))
        for line in lines.replace("\\\n", " ").splitlines()
    ]
    put, post, follow = commands
    assert '"cursor"' in run(put, tmp_path)
    assert '"generation_id"' in run(post, tmp_path)
    with subprocess.Popen(follow, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as curl:
        assert curl.stdout is not None
        events = []
        for line in curl.stdout:
            events.append(line)
            if "generation.finished" in line:
                break
        curl.terminate()
    assert any('"text":" finds"' in line for line in events)
    assert '"completed"' in events[-1]


def test_it_takes_one_line_to_serve_and_one_to_test() -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines() if "venv .venv" in line]
    clone = "python3 -m venv .venv && .venv/bin/pip install "
    assert lines == [clone + "'.[server]' && .venv/bin/penstock serve", clone + "-e '.[test]' && .venv/bin/pytest"]
    assert first_command() == lines[0]
    assert lines[1] in (ROOT / ".ci" / "run").read_text()


@pytest.mark.long
@pytest.mark.timeout(300)
def test_every_command_works(tmp_path: Path) -> None:
    """What CI does with each Python that the machine has."""
    smoke = [sys.executable, str(ROOT / "tests" / "smoke.py"), sys.prefix]
    done = subprocess.run(smoke, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every command works" in done.stdout


def _anchors(text: str) -> set[str]:
    """The names that GitHub gives to headings."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(
    "document", ["README.md", "engine/README.md", "adapters/README.md", "adapters/models/README.md"]
)
def test_files_and_headings_that_a_document_names_are_there(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\((?!http)([^)]+)\)", path.read_text()):
        name, _, anchor = target.partition("#")
        named = path.parent / name if name else path
        assert named.exists(), target
        assert not anchor or anchor in _anchors(named.read_text()), target
