"""What signals do to a server: SIGHUP has it read its files again and never ends it, SIGQUIT ends it in order."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from penstock.adapters.access import make_token
from penstock.adapters.access.tokens import load_signer
from tests.adapters.certificates import Certificate, make_certificate
from tests.e2e.conftest import START, ServerProcess

Start = Callable[..., ServerProcess]

SECRETS = [f"a secret of thirty-two bytes or more, number {number}\n" for number in range(3)]


def hang_up(server: ServerProcess, lines: int = 1) -> str:
    """SIGHUP; what is logged about it, when so many lines are there."""
    begun = len(server.log.read_text())
    server.signal(signal.SIGHUP)
    deadline = time.monotonic() + START
    while (told := server.log.read_text()[begun:]).count("SIGHUP") < lines:
        assert server.process.poll() is None, "it has ended"
        assert time.monotonic() < deadline, told
        time.sleep(0.01)
    return told


def serial(server: ServerProcess, trusted: Certificate) -> int:
    """Of the certificate that it shows; the client trusts this one."""
    port = int(server.url.rpartition(":")[2])
    with (
        socket.create_connection(("127.0.0.1", port), START) as plain,
        trusted.trusting().wrap_socket(plain, server_hostname="127.0.0.1") as encrypted,
    ):
        shown = encrypted.getpeercert()
        assert shown is not None
        return int(str(shown["serialNumber"]), 16)


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def token(key: Path, text: str) -> str:
    """Signed with a key of this text."""
    return make_token(
        load_signer(write(key.with_name("signing"), text), "HS256"),
        subject="ann",
        scopes=["read", "write"],
        sessions=["*"],
        ttl=600,
    )


def let_in(server: ServerProcess, made: str) -> bool:
    headers = {"Authorization": f"Bearer {made}"}
    status = httpx.put(f"{server.url}/v1/sessions/s", headers=headers, timeout=START, trust_env=False).status_code
    assert status in (200, 201, 401)
    return status != 401


def test_a_new_certificate_is_shown_to_who_connects_and_a_bad_one_is_not(start_server: Start, tmp_path: Path) -> None:
    old, new = make_certificate(tmp_path / "tls"), make_certificate(tmp_path / "new")
    server = start_server("--certfile", str(old.certfile), "--keyfile", str(old.keyfile))
    first = serial(server, old)
    trusting_new = new
    # Each of these stays the first one: a file that is none, one half changed, one that is not there.
    texts = old.certfile.read_text(), old.keyfile.read_text()
    for certificate, key in (("nonsense", texts[1]), (texts[0], new.keyfile.read_text()), (texts[0], None)):
        old.certfile.write_text(certificate)
        old.keyfile.unlink() if key is None else old.keyfile.write_text(key)
        told = hang_up(server)
        assert "ERROR" in told
        assert "not read again, what was before goes on: the certificate" in told
        old.certfile.write_text(texts[0])
        assert serial(server, old) == first
    old.certfile.write_text(new.certfile.read_text())
    old.keyfile.write_text(new.keyfile.read_text())
    assert "read again, for all that begins from now on: the certificate" in hang_up(server)
    assert serial(server, trusting_new) != first
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()


def test_a_connection_goes_on_under_the_certificate_that_it_began_with(start_server: Start, tmp_path: Path) -> None:
    old, new = make_certificate(tmp_path / "tls"), make_certificate(tmp_path / "new")
    server = start_server("--certfile", str(old.certfile), "--keyfile", str(old.keyfile))
    context = ssl.create_default_context(cafile=str(old.certfile))
    with httpx.Client(base_url=server.url, verify=context, timeout=START, trust_env=False) as client:
        client.put("/v1/sessions/s")
        with client.stream("GET", "/v1/sessions/s/events", headers={"Accept": "application/x-ndjson"}) as stream:
            lines = stream.iter_lines()
            while "caught-up" not in next(lines):
                pass
            for of in ("certfile", "keyfile"):
                getattr(old, of).write_bytes(getattr(new, of).read_bytes())
            hang_up(server)
            with httpx.Client(verify=new.trusting(), timeout=START, trust_env=False) as other:
                assert other.post(f"{server.url}/v1/sessions/s/messages", json={"text": "on"}).status_code == 201
            while "message.snapshot" not in next(lines):
                pass


def test_keys_are_changed_while_it_serves_and_a_bad_file_changes_none(start_server: Start, tmp_path: Path) -> None:
    key = write(tmp_path / "penstock.key", SECRETS[0])
    second = write(tmp_path / "second.key", SECRETS[1])
    server = start_server("--jwt-key", str(key), "--jwt-key", str(second))
    made = [token(key, text) for text in SECRETS]
    assert [let_in(server, each) for each in made] == [True, True, False]
    for break_it in (lambda: write(second, "short\n"), second.unlink):
        write(key, SECRETS[2])  # good, but the other one is not
        break_it()
        told = hang_up(server)
        assert "ERROR" in told
        assert "not read again, what was before goes on: the keys of tokens" in told
        assert [let_in(server, each) for each in made] == [True, True, False]
    write(second, SECRETS[1])
    assert "read again, for all that begins from now on: the keys of tokens" in hang_up(server)
    assert [let_in(server, each) for each in made] == [False, True, True]
    assert server.stop() == 0


def test_a_server_with_nothing_to_read_again_says_so_and_goes_on(server: ServerProcess) -> None:
    for _ in range(3):
        assert "there is nothing to read again" in hang_up(server)
    for _ in range(50):
        server.signal(signal.SIGHUP)
    assert httpx.get(f"{server.url}/healthz", trust_env=False, timeout=START).status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, signal.SIGINT])
def test_each_signal_that_ends_it_drains(start_server: Start, number: signal.Signals) -> None:
    server = start_server()
    with httpx.Client(base_url=server.url, timeout=START, trust_env=False) as client:
        client.put("/v1/sessions/s")
        client.post("/v1/sessions/s/generations", json={"text": "one two", "input": {"delay": 60}})
        with client.stream("GET", "/v1/sessions/s/events", headers={"Accept": "application/x-ndjson"}) as stream:
            lines = stream.iter_lines()
            while "generation.started" not in next(lines):
                pass
            server.signal(signal.SIGHUP)  # beside it, and while it drains
            server.signal(number)
            server.signal(signal.SIGHUP)
            rest = list(lines)
    assert server.wait() == 0
    assert any('"outcome":"shutdown"' in line for line in rest)
    assert '"control":"drain"' in rest[-1]
    log = server.log.read_text()
    assert f"{number.name}: ending answers and streams" in log
    assert "Traceback" not in log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_second_signal_ends_it_at_once(start_server: Start, number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(
        "import trio\n"
        "async def stubborn(generation):\n"
        "    await generation.status('working')\n"
        "    with trio.CancelScope(shield=True):\n"
        "        await trio.sleep(60)\n"
    )
    server = start_server("--producer", "stubborn=stubborn:stubborn", "--drain-timeout", "50", cwd=tmp_path)
    with httpx.Client(base_url=server.url, timeout=START, trust_env=False) as client:
        client.put("/v1/sessions/s")
        client.post("/v1/sessions/s/generations", json={"producer": "stubborn"})
        with client.stream("GET", "/v1/sessions/s/events", headers={"Accept": "application/x-ndjson"}) as stream:
            lines = stream.iter_lines()
            while "working" not in next(lines):
                pass
            server.signal(number)
            while number.name not in server.log.read_text():
                time.sleep(0.01)
            server.signal(number)
            assert server.wait() == 128 + number


# Modes of a file with a key in it, and whether it is warned of.
MODES = {0o600: False, 0o400: False, 0o644: True, 0o640: True, 0o604: True, 0o666: True}


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_a_key_that_others_can_read_is_warned_of(start_server: Start, tmp_path: Path, mode: int) -> None:
    certificate = make_certificate(tmp_path / "tls")
    certificate.certfile.chmod(0o644)  # which is for everybody
    certificate.keyfile.chmod(mode)
    keys = {each: write(tmp_path / f"{each:o}.key", f"{SECRETS[0]}{each}", each) for each in MODES}
    server = start_server(
        *(part for key in keys.values() for part in ("--jwt-key", str(key))),
        *("--certfile", str(certificate.certfile), "--keyfile", str(certificate.keyfile)),
    )
    log = server.log.read_text()
    for each, path in (*keys.items(), (mode, certificate.keyfile)):
        assert (f"{path} can be read by others" in log) == MODES[each]
    assert f"{certificate.certfile} can be read" not in log
    key = keys[0o600]
    key.chmod(0o644)
    assert f"{key} can be read by others" in hang_up(server, 2) + _until(server, f"{key} can be read by others")


def _until(server: ServerProcess, text: str) -> str:
    deadline = time.monotonic() + START
    while text not in (log := server.log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return log


def test_the_command_in_the_readme_makes_a_key_that_is_one_s_own(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    (command,) = [line for line in text.splitlines() if "openssl rand" in line]
    before = os.umask(0)
    try:
        assert os.system(f"cd '{tmp_path}' && {command}") == 0
    finally:
        os.umask(before)
    (made,) = tmp_path.iterdir()
    assert made.stat().st_mode & 0o777 == 0o600
    assert len(made.read_bytes()) >= 32


@pytest.mark.parametrize("hosts", [["127.0.0.1", "::1"], ["::1"], ["localhost", "127.0.0.1", "::1"]])
def test_every_address_that_it_listens_on_is_told_and_answers(start_server: Start, hosts: list[str]) -> None:
    server = start_server(*(part for host in hosts for part in ("--host", host)))
    urls = [server.url]
    while len(urls) < len({"127.0.0.1" if host == "localhost" else host for host in hosts}):
        urls.append(server.next_url())
    assert len({url.rpartition(":")[2] for url in urls}) == 1
    for url in urls:
        assert httpx.get(f"{url}/healthz", trust_env=False, timeout=START).status_code == 200


def test_the_unspecified_address_serves_both_families_and_says_so(start_server: Start, tmp_path: Path) -> None:
    key = write(tmp_path / "penstock.key", SECRETS[0])
    server = start_server("--host", "::", "--jwt-key", str(key), "--log-level", "debug")
    assert "for IPv6 and IPv4" in server.said
    port = server.url.rpartition(":")[2]
    for host in ("127.0.0.1", "[::1]"):
        assert httpx.get(f"http://{host}:{port}/healthz", trust_env=False, timeout=START).status_code == 200
