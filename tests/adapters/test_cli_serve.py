"""What `penstock serve` makes of its options about producers, their limits and the log."""

from __future__ import annotations

import math

import pytest
from click.testing import CliRunner

from penstock.adapters.cli import main, process
from penstock.adapters.cli.process import Options
from penstock.engine import Config, check_path_id

STORY = "story=penstock.adapters.echo:echo"


def told(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Options:
    """What the options make; raises AssertionError with what is said when they are refused."""
    found: list[Options] = []
    monkeypatch.setattr(process, "run", found.append)
    result = CliRunner().invoke(main, ["serve", "--db", ":memory:", "--producer", STORY, *arguments])
    assert result.exit_code == 0, result.output
    return found[0]


@pytest.mark.parametrize(
    ("arguments", "limit", "limits"),
    [
        ((), 120, {}),
        (("--idle-limit", "600"), 600, {}),
        (("--idle-limit", "none"), math.inf, {}),
        (("--idle-limit", "story=none", "--idle-limit", "echo=2.5"), 120, {"story": math.inf, "echo": 2.5}),
        (("--idle-limit", "remote=30", "--idle-limit", "5"), 5, {"remote": 30}),
    ],
)
def test_silence_is_limited_for_all_or_for_one_producer(
    arguments: tuple[str, ...], limit: float, limits: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = told(monkeypatch, *arguments)
    assert (options.idle_limit, options.idle_limits) == (limit, limits)


@pytest.mark.parametrize("said", ["0", "-1", "nan", "soon", "", "story=", "story=0", "tale=5"])
def test_a_limit_that_is_none_is_refused_by_name(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="--idle-limit"):
        told(monkeypatch, "--idle-limit", said)


@pytest.mark.parametrize(
    ("arguments", "url", "log"),
    [
        ((), None, "penstock.db"),
        (("--db", "chat.db"), None, "chat.db"),
        (("--log", "sqlite:chat.db"), None, "chat.db"),
        (("--log", "sqlite:/srv/chat.db"), None, "/srv/chat.db"),
        (("--log", "redis://store/1"), None, "redis://store/1"),
        ((), "redis://:secret@store/1", "redis://:secret@store/1"),
        (("--log", "redis://other"), "redis://store/1", "redis://other"),
    ],
)
def test_the_log_is_a_file_or_a_url(
    arguments: tuple[str, ...], url: str | None, log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Options] = []
    monkeypatch.setattr(process, "run", found.append)
    result = CliRunner().invoke(main, ["serve", *arguments], env={"PENSTOCK_LOG": url})
    assert result.exit_code == 0, result.output
    assert found[0].log == log
    assert "secret" not in found[0].log_name
    assert "secret" not in repr(found[0])
    assert found[0].log_patience == Config().log_patience
    assert not found[0].allow_weak_store


def test_a_weak_store_and_other_patience_are_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Options] = []
    monkeypatch.setattr(process, "run", found.append)
    told = ["serve", "--log", "redis://store", "--allow-weak-store", "--log-patience", "2.5"]
    assert CliRunner().invoke(main, told).exit_code == 0
    assert (found[0].log_patience, found[0].allow_weak_store) == (2.5, True)


@pytest.mark.parametrize(
    ("arguments", "url"),
    [
        (("--db", "penstock.db", "--log", "redis://:secret@store"), None),
        (("--db", "chat.db"), "redis://:secret@store"),
        (("--log", "secret"), None),
        (("--log", "sqlite:"), None),
    ],
)
def test_two_places_for_one_log_and_what_is_none_are_refused(arguments: tuple[str, ...], url: str | None) -> None:
    result = CliRunner().invoke(main, ["serve", *arguments], env={"PENSTOCK_LOG": url})
    assert result.exit_code == 2
    assert "--log" in result.output
    assert "secret" not in result.output


@pytest.mark.parametrize(
    ("log", "name"),
    [
        ("redis://me:secret@store:7000/2?prefix=chat", "redis://store:7000/2?prefix=chat"),
        ("rediss://[::1]/0", "rediss://[::1]/0"),
        ("chat@home?.db", "chat@home?.db"),
        (":memory:", ":memory:"),
    ],
)
def test_a_log_is_named_without_its_password(log: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Options] = []
    monkeypatch.setattr(process, "run", found.append)
    option = "--log" if "://" in log else "--db"
    assert CliRunner().invoke(main, ["serve", option, log]).exit_code == 0
    assert found[0].log_name == name


@pytest.mark.parametrize(
    ("arguments", "named", "node"),
    [
        (("--db", "chat.db"), None, None),
        (("--log", "postgres://store/db"), None, None),
        (("--log", "postgres://store/db", "--node", "one"), None, "one"),
        (("--log", "redis://store", "--node", "one"), None, "one"),
        (("--log", "redis://store"), "two", "two"),
        (("--log", "redis://store"), None, ...),
        (("--log", "postgres://store/db", "--bus", "redis://:secret@store"), None, ...),
    ],
)
def test_servers_that_may_share_their_log_have_a_name(
    arguments: tuple[str, ...], named: str | None, node: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Options] = []
    monkeypatch.setattr(process, "run", found.append)
    for _ in range(2):
        result = CliRunner().invoke(main, ["serve", *arguments], env={"PENSTOCK_NODE": named})
        assert result.exit_code == 0, result.output
    one, other = found
    assert one.lease_ttl == Config().lease_ttl
    assert "secret" not in repr(one)
    if node is ...:
        assert one.node is not None
        assert check_path_id(one.node, "a node") != other.node
    else:
        assert one.node == other.node == node


def test_a_bus_and_a_lease_are_named_by_option_or_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Options] = []
    monkeypatch.setattr(process, "run", found.append)
    log = ["--log", "postgres://store/db", "--node", "one"]
    assert CliRunner().invoke(main, ["serve", *log, "--bus", "redis://store", "--lease-ttl", "2.5"]).exit_code == 0
    said = {"PENSTOCK_BUS": "redis://other", "PENSTOCK_LEASE_TTL": "3"}
    assert CliRunner().invoke(main, ["serve", *log], env=said).exit_code == 0
    assert [(each.bus, each.lease_ttl) for each in found] == [("redis://store", 2.5), ("redis://other", 3.0)]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--node", "one"),
        ("--bus", "redis://:secret@store"),
        ("--log", "redis://store", "--node", "a/b"),
        ("--log", "redis://store", "--node", ""),
        ("--log", "redis://store", "--lease-ttl", "0"),
    ],
)
def test_a_node_that_is_none_is_refused(arguments: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, ["serve", *arguments])
    assert result.exit_code == 2
    assert "--node" in result.output or "--lease-ttl" in result.output
    assert "secret" not in result.output
