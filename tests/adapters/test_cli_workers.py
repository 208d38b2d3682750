"""What `penstock serve` may be told about several processes, and what it refuses."""

from __future__ import annotations

import socket

import pytest
from click.testing import CliRunner

from penstock.adapters.cli import main
from penstock.adapters.cli.listening import Bound, ListenError
from penstock.adapters.cli.peering import Peering
from penstock.adapters.cli.workers import Team, Worker
from penstock.adapters.nodes import ClusterSecret

REDIS = ("--log", "redis://127.0.0.1:1/0")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ((), "redis-server --appendonly yes --appendfsync always"),
        (("--db", "x.db"), "--log redis://127.0.0.1:6379/0"),
        (("--log", "sqlite:x.db"), "a file cannot be"),
        (("--log", "postgres://127.0.0.1:1/db"), "take a --bus"),
        (("--log", "postgres://127.0.0.1:1/db", "--node", "one"), "take a --bus"),
        ((*REDIS, "--node", "a/b"), "--node"),
        ((*REDIS, "--node-url", "http://x"), "--workers are several"),
        ((*REDIS, "--cluster-secret-file", "none"), "belong together"),
        ((*REDIS, "--worker-port", "65535"), "there are no 2 ports from 65535 on"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(said: tuple[str, ...], why: str) -> None:
    refused = CliRunner().invoke(main, ["serve", "--workers", "2", *said])
    assert refused.exit_code == 2
    assert why in " ".join(refused.output.split())


@pytest.mark.parametrize("said", [("--workers", "0"), ("--workers", "two"), ("--worker-port", "9000")])
def test_one_worker_is_a_server_as_it_is(said: tuple[str, ...]) -> None:
    assert CliRunner().invoke(main, ["serve", *said]).exit_code == 2


def test_an_address_in_use_is_said_before_any_worker_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = CliRunner().invoke(main, ["serve", "--workers", "2", *REDIS, "--port", str(port)])
        assert refused.exit_code == 1
        assert f"127.0.0.1 port {port} is in use" in refused.output
        with pytest.raises(ListenError):
            gather(0, port)


def test_each_worker_has_the_shared_addresses_and_one_of_its_own() -> None:
    free = Bound.to(("127.0.0.1",), 0)
    first = int(free.urls("http")[0].rstrip("/").rpartition(":")[2])
    free.close()
    team = gather(0, first, count=1)
    try:
        assert team.own[0].urls("http") == [f"http://127.0.0.1:{first}/"]
        assert len(team.shared.filenos()) == 1
    finally:
        team.close()


@pytest.mark.parametrize(("port", "its"), [(9000, 9002), (0, 0)])
def test_where_a_worker_answers_the_others_is_its_own(port: int, its: int) -> None:
    secret = ClusterSecret(b"s" * 40)
    told = Peering(host="10.0.0.5", port=port, url="", secret=secret)
    assert worker().peering(told) == Peering(host="10.0.0.5", port=its, url="", secret=secret)


def test_workers_that_were_told_nothing_answer_on_this_machine() -> None:
    made = worker(secret=b"m" * 48).peering(None)
    assert (made.host, made.port, made.url) == ("127.0.0.1", 0, "")
    assert "mmm" not in repr(worker(secret=b"m" * 48))


def worker(secret: bytes = b"") -> Worker:
    with socket.socket() as line:
        return Worker(number=3, node="n-3", bound=Bound([]), secret=secret, line=line)


def gather(port: int, own: int, count: int = 2) -> Team:
    return Team.gather(
        count, hosts=["127.0.0.1"], port=port, first_own=own, name="n", log_name="", scheme="http", secret=b""
    )
