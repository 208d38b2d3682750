"""Every command of an installed penstock, once, against a server of its own. Not a test of what each does.

    python tests/smoke.py            installs and serves by the README's first command, with this very interpreter:
                                     makes .venv and penstock.db in the current folder, which is a clone
    python tests/smoke.py VENV       takes an environment that has penstock already

The standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

# For one command, and for an installation with nothing in pip's cache.
_PATIENCE: Final = 120.0
_INSTALLATION: Final = 900.0

_ONCE_OVER_WEBSOCKET: Final = """
import sys, trio
from penstock.adapters.client import connect

async def main():
    async with connect(sys.argv[1]) as client:
        async with client.session("smoke").events(over="websocket") as events:
            async for event in events:
                if event.type == "generation.finished":
                    return

trio.run(main)
"""


class Penstock:
    """The command ``penstock`` of one environment, and which of its subcommands were run."""

    def __init__(self, venv: Path) -> None:
        self._bin = venv / "bin"
        self.used: set[str] = set()

    def command(self, *arguments: str) -> list[str]:
        self.used.add(arguments[0])
        return [str(self._bin / "penstock"), *arguments]

    def run(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """One command to its end; what it printed."""
        return self._run(self.command(*arguments), code, environment)

    def program(self, text: str, *arguments: str) -> str:
        return self._run([str(self._bin / "python"), "-P", "-c", text, *arguments], 0, {})

    @staticmethod
    def _run(command: list[str], code: int, environment: dict[str, str]) -> str:
        done = subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=_PATIENCE
        )
        if done.returncode != code:
            raise SystemExit(f"{shlex.join(command)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def commands(self) -> set[str]:
        """All that there are, by what the help lists."""
        listed = self.run("--help").partition("\nCommands:\n")[2]
        return set(re.findall(r"^  (\w\S*)", listed, re.MULTILINE))


@contextmanager
def serving(command: list[str], log: Path, environment: Mapping[str, str] = {}) -> Iterator[str]:
    """Run until the server says where it is; in the end it gets a Ctrl-C and ends with 0. ``log`` gets what it says."""
    with log.open("w") as said:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"},
            stdout=said,
            stderr=said,
            start_new_session=True,  # a Ctrl-C reaches the shell and all that it runs
        )
    try:
        yield wait_for_url(process, log)
        os.killpg(process.pid, signal.SIGINT)
        if (code := process.wait(_PATIENCE)) != 0 or "Traceback" in log.read_text():
            raise SystemExit(f"the server ended with {code}\n{log.read_text()}")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for_url(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _INSTALLATION
    while time.monotonic() < deadline and process.poll() is None:
        if (found := re.search(r"^penstock serves .* on (http\S+)/ ", log.read_text(), re.MULTILINE)) is not None:
            return found[1]
        time.sleep(0.1)
    raise SystemExit(f"no server came of: {process.args!r}\n{log.read_text()}")


def ask(url: str, method: str, path: str, body: object = None) -> tuple[int, str]:
    connection = HTTPConnection(url.removeprefix("http://"), timeout=_PATIENCE)
    try:
        sent = body if body is None or isinstance(body, Iterator) else json.dumps(body).encode()
        connection.request(method, path, sent, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def expect(url: str, status: int, method: str, path: str, body: object = None) -> str:
    got, text = ask(url, method, path, body)
    if got != status:
        raise SystemExit(f"{method} {path}: {got}, not {status}\n{text}")
    return text


def everything_at(url: str, penstock: Penstock) -> None:
    """The commands that talk to a server, and what they do not ask it for."""
    for path in ("/", "/docs", "/healthz", "/readyz", "/metrics", "/openapi.json"):
        expect(url, 200, "GET", path)
    expect(url, 204, "OPTIONS", "/v1/sessions")
    assert "way down" in penstock.run("send", "smoke", "water finds its way down", "--url", url)
    expect(url, 413, "POST", "/v1/sessions/smoke/messages", iter([b" " * 100_000] * 11))  # in chunks
    penstock.program(_ONCE_OVER_WEBSOCKET, url)
    tail_until_interrupted(url, penstock)
    generation = json.loads(expect(url, 201, "POST", "/v1/sessions/smoke/generations", {"producer": "remote"}))
    request = {"type": "approval.requested", "data": {"approval_id": "a", "name": "open", "arguments": {}}}
    chunk = {"generation_id": generation["generation_id"], **request}
    expect(url, 200, "POST", "/v1/sessions/smoke/chunks", chunk)
    penstock.run("approve", "smoke", "--yes", "--url", url)
    assert "stopped" in penstock.run("stop", "smoke", "--url", url)


def tail_until_interrupted(url: str, penstock: Penstock) -> None:
    tail = subprocess.Popen(
        penstock.command("tail", "smoke", "--json", "--url", url),
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert tail.stdout is not None
    try:
        assert any("generation.finished" in line for line in tail.stdout)
        tail.send_signal(signal.SIGINT)
        tail.communicate(timeout=_PATIENCE)
    finally:
        if tail.poll() is None:
            tail.kill()
            tail.wait()
    assert tail.returncode in (0, 130), tail.returncode


def tokens(folder: Path, penstock: Penstock) -> None:
    key = folder / "penstock.key"
    key.touch(mode=0o600)
    key.write_text("a secret of thirty-two bytes or a little more\n")
    token = penstock.run("token", "ann", "--jwt-key", str(key), "--session", "ann-*").strip()
    asking = ("serve", "--port", "0", "--db", ":memory:", "--jwt-key", str(key))
    with serving(penstock.command(*asking), folder / "guarded.log") as url:
        penstock.run("send", "ann-1", "hello", "--url", url, code=1)
        penstock.run("send", "ann-1", "hello", "--url", url, PENSTOCK_TOKEN=token)


def databases(db: Path, folder: Path, penstock: Penstock) -> None:
    penstock.run("inspect", str(db))
    penstock.run("compact", str(db), "--older-than", "0")
    restored = str(folder / "restored.db")
    penstock.run("restore", str(folder / "backup.db"), restored)
    assert json.loads(penstock.run("inspect", restored, "--json"))["sessions"]
    copied = str(folder / "copied.db")
    penstock.run("log", "copy", restored, copied)
    assert json.loads(penstock.run("inspect", copied, "--json"))["sessions"]
    penstock.run("nodes", "--log", copied, code=2)  # what is in a file is one server's


def main(arguments: list[str]) -> None:
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if arguments:
            penstock = Penstock(Path(arguments[0]).absolute())
            db = folder / "penstock.db"
            command, environment = penstock.command("serve", "--port", "0", "--db", str(db)), {}
        else:
            penstock = Penstock(Path(".venv").absolute())
            penstock.used.add("serve")
            db = Path("penstock.db")
            command, environment = ["bash", "-c", first_command()], python3_is_this_one(folder)
        with serving(command, folder / "server.log", environment) as url:
            everything_at(url, penstock)
            penstock.run("backup", str(db), str(folder / "backup.db"))
        databases(db, folder, penstock)
        tokens(folder, penstock)
        penstock.run("bench", "--events", "1000", "--viewers", "2", "--folder", made, "--json")
        version = penstock.run("--version").strip()
        if missed := penstock.commands() - penstock.used:
            raise SystemExit(f"nothing here runs {', '.join(sorted(missed))}")
    print(f"{version}: every command works ({time.monotonic() - begun:.0f} s)")  # noqa: T201


def first_command() -> str:
    """Of the README."""
    found = re.search(r"^```sh\n(.*)\n```$", (Path(__file__).parents[1] / "README.md").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def python3_is_this_one(folder: Path) -> dict[str, str]:
    """An environment in which ``python3`` is the interpreter that runs this."""
    wrapper = folder / "python3"
    wrapper.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    wrapper.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


if __name__ == "__main__":
    main(sys.argv[1:])
