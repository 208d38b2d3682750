"""What `penstock serve` makes of its options about connections and limits."""

from __future__ import annotations

import ipaddress
import math

import click
import pytest
from click.testing import CliRunner

from penstock.adapters.cli.edge import Edge, edge_options
from penstock.adapters.server.accept import ServerConfig
from penstock.adapters.server.limits import UNLIMITED, LimitsConfig


def told(*arguments: str) -> Edge:
    """What the options make; raises AssertionError with what is said when they are refused."""
    found: list[Edge] = []

    def keep(edge: Edge) -> None:
        found.append(edge)

    result = CliRunner().invoke(click.command()(edge_options(keep)), arguments)
    assert result.exit_code == 0, result.output
    return found[0]


def config(edge: Edge, *, local: bool) -> ServerConfig:
    return edge.server_config(local=local, send_timeout=1.0, drain_timeout=2.0)


def test_without_options_a_public_server_counts_by_address_and_by_subject() -> None:
    edge = told()
    public = config(edge, local=False)
    assert (public.max_connections, public.peer_connections, public.peer_rate) == (10_000, 1000, 100)
    assert (public.tls, public.root_path, public.send_timeout, public.drain_timeout) == (None, "", 1.0, 2.0)
    assert edge.limits(known=True) == LimitsConfig()


def test_on_a_loopback_address_and_without_tokens_nobody_is_told_from_another() -> None:
    edge = told()
    local = config(edge, local=True)
    assert (local.peer_connections, local.peer_rate) == (math.inf, math.inf)
    assert edge.limits(known=False) == UNLIMITED


@pytest.mark.parametrize("local", [True, False])
def test_what_is_said_holds_everywhere(local: bool) -> None:
    edge = told(
        *("--max-connections", "50", "--peer-connections", "5", "--peer-rate", "2.5", "--rate", "10"),
        *("--auth-failures", "2", "--client-connections", "3", "--client-subscriptions", "4", "--root-path", "/chat/"),
        *("--trusted-proxy", "10.0.0.0/8", "--trusted-proxy", "::1"),
    )
    made = config(edge, local=local)
    assert (made.max_connections, made.peer_connections, made.peer_rate, made.root_path) == (50, 5, 2.5, "/chat")
    assert "10.1.2.3" in made.trusted_proxies
    assert "::1" in made.trusted_proxies
    assert "192.0.2.1" not in made.trusted_proxies
    assert edge.trusted_proxies == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1"))
    limits = edge.limits(known=not local)
    assert limits == LimitsConfig(rate=10, burst=20, failures=2, failures_at_once=20, connections=3, subscriptions=4)
    assert told("--rate", "10", "--burst", "7").limits(known=True).burst == 7
    assert told("--rate", "0.1").limits(known=True).burst == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("--keyfile", "x"),
        ("--burst", "3"),
        ("--certfile", "/missing"),
        ("--trusted-proxy", "10.0.0.1/8"),
        ("--trusted-proxy", "proxy.example"),
        ("--root-path", "chat"),
        ("--max-connections", "0"),
        ("--rate", "0"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(AssertionError, match="Error"):
        told(*arguments)
