"""A server that asks who comes, as people run it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.checkout import environment
from tests.e2e.conftest import PENSTOCK, ServerProcess, command

Start = Callable[..., ServerProcess]


def penstock(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """One command, run to its end."""
    return subprocess.run(
        [*PENSTOCK, *arguments],
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "penstock.key"
    path.write_text("a secret of thirty-two bytes or a little more\n")
    return path


def token(key: Path, *arguments: str) -> str:
    made = penstock("token", "ann", "--jwt-key", str(key), *arguments)
    assert (made.returncode, made.stderr) == (0, "")
    return made.stdout.strip()


def test_with_a_key_any_address_is_served_to_who_has_a_token(start_server: Start, key: Path, tmp_path: Path) -> None:
    server = start_server("--host", "0.0.0.0", "--jwt-key", str(key), "--log-level", "debug")
    url = server.url.replace("0.0.0.0", "127.0.0.1")
    made = token(key, "--session", "ann-*")
    quiet = ("--input", '{"delay": 0.001}', "--url", url)
    assert "UNAUTHENTICATED" in penstock("send", "ann-1", "hello", *quiet).stderr
    said = penstock("send", "ann-1", "hello", *quiet, PENSTOCK_TOKEN=made)
    assert (said.returncode, "hello" in said.stdout) == (0, True)
    file = tmp_path / "token"
    file.write_text(f"{made}\n")
    assert penstock("send", "ann-1", "again", *quiet, "--token-file", str(file)).returncode == 0
    assert "FORBIDDEN" in penstock("send", "bob-1", "hello", *quiet, PENSTOCK_TOKEN=made).stderr
    assert "FORBIDDEN" in penstock("tail", "bob-1", "--url", url, PENSTOCK_TOKEN=made).stderr
    assert httpx.get(f"{url}/", trust_env=False).status_code == 200
    assert server.stop() == 0
    log = server.log.read_text()
    assert made.split(".")[2] not in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["serve", "--host", "0.0.0.0"], "--jwt-key"),
        (["serve", "--host", "0.0.0.0", "--jwt-issuer", "us"], "need --jwt-key"),
        (["serve", "--jwt-key", "{short}"], "32"),
        (["serve", "--jwt-key", "{nowhere}"], "cannot be read"),
        (["serve", "--jwt-key", "{key}", "--jwt-algorithm", "RS256"], "PEM"),
        (["serve", "--jwt-key", "{key}", "--jwt-algorithm", "none"], "HS256"),
        (["serve", "--allow-origin", "*"], "no origin"),
        (["serve", "--allow-origin", "https://chat.example/"], "no origin"),
        (["serve", "--allow-host", "*"], "no host name"),
        (["serve", "--allow-host", "chat.example:80"], "without scheme and port"),
        (["token", "ann", "--jwt-key", "{key}"], "--session"),
        (["token", "ann", "--jwt-key", "{key}", "--session", "a?"], "a?"),
        (["token", "ann", "--jwt-key", "{key}", "--session", "a", "--scope", "root"], "admin"),
        (["token", "ann", "--jwt-key", "{short}", "--session", "a"], "32"),
        (["token", "", "--jwt-key", "{key}", "--session", "a"], "sub"),
    ],
)
def test_what_cannot_be_is_said_with_a_way_out(arguments: list[str], told: str, key: Path, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("short")
    names = {"key": str(key), "short": str(tmp_path / "short"), "nowhere": str(tmp_path / "nowhere")}
    ended = command(*[argument.format(**names) for argument in arguments])
    assert ended.exit_code != 0
    assert told in ended.stderr
