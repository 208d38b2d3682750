"""What `penstock serve` may be told about the others of its cluster, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from penstock.adapters.cli import main
from penstock.adapters.cli.peering import Peering, _peering

LOG = ("--log", "redis://127.0.0.1:1/0", "--log-patience", "0.1")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    made = tmp_path / "secret"
    made.touch(0o600)
    made.write_bytes(b"s" * 40)
    return made


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (("--node-listen", "127.0.0.1:0"), "--cluster-secret-file belong together"),
        (("--cluster-secret-file", "SECRET"), "belong together"),
        (("--node-url", "http://x"), "belong together"),
        (("--node-listen", "here:1", "--cluster-secret-file", "SECRET"), "an IP address and a port"),
        (("--node-listen", "127.0.0.1", "--cluster-secret-file", "SECRET"), "an IP address and a port"),
        (("--node-listen", "127.0.0.1:65536", "--cluster-secret-file", "SECRET"), "an IP address and a port"),
        (("--node-listen", "0.0.0.0:1", "--cluster-secret-file", "SECRET"), "say where they do with --node-url"),
        (
            ("--node-listen", "[::]:1", "--node-url", "ftp://x", "--cluster-secret-file", "SECRET"),
            "a URL like http://10.0.0.5:8421",
        ),
        (
            ("--node-listen", "127.0.0.1:1", "--node-url", "https://x:1", "--cluster-secret-file", "SECRET"),
            "takes a --certfile",
        ),
        (("--node-listen", "127.0.0.1:1", "--cluster-secret-file", "none"), "none cannot be read"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(said: tuple[str, ...], why: str, secret: Path) -> None:
    words = [str(secret) if word == "SECRET" else word for word in said]
    refused = CliRunner().invoke(main, ["serve", *LOG, *words])
    assert refused.exit_code != 0
    assert why in " ".join(refused.output.split())


def test_a_server_that_shares_nothing_has_nobody_to_ask(secret: Path) -> None:
    said = ["serve", "--db", ":memory:", "--node-listen", "127.0.0.1:0", "--cluster-secret-file", str(secret)]
    refused = CliRunner().invoke(main, said)
    assert "for servers that share a log" in refused.output


def test_a_secret_that_others_can_read_or_that_is_short_is_refused(secret: Path) -> None:
    said = ["serve", *LOG, "--node-listen", "127.0.0.1:0", "--cluster-secret-file", str(secret)]
    secret.chmod(0o644)
    assert "can be read by others" in CliRunner().invoke(main, said).output
    secret.chmod(0o600)
    secret.write_bytes(b"short")
    assert "32 at least" in CliRunner().invoke(main, said).output


def test_what_is_told_the_others_is_where_it_listens_unless_it_is_said(secret: Path) -> None:
    found = _peering("[::1]:84", None, secret)
    assert isinstance(found, Peering)
    assert (found.host, found.port, found.url, found.encrypted) == ("::1", 84, "", False)
    assert "sss" not in repr(found)
    found = _peering("0.0.0.0:84", "https://one:84/", secret)
    assert isinstance(found, Peering)
    assert (found.host, found.url, found.encrypted) == ("0.0.0.0", "https://one:84", True)
    assert _peering(None, None, None) is None


def test_nodes_are_asked_for_in_a_redis() -> None:
    refused = CliRunner().invoke(main, ["nodes", "--log", "postgres://127.0.0.1/x"])
    assert "the URL of a Redis" in refused.output
    assert refused.exit_code == 2
