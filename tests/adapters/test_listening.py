"""Where a server listens: each address by itself, both families where they are asked for, nobody before it is time."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence

import pytest
import trio

from penstock.adapters.cli.listening import Bound, ListenError, is_dual
from tests.adapters.serving import PATIENCE


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as made:
            made.bind(("::1", 0))
    except OSError:
        return False
    return True


pytestmark = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


async def reachable(address: str, port: int) -> bool:
    """Whether somebody is let in there."""
    try:
        with trio.fail_after(PATIENCE):
            stream = await trio.open_tcp_stream(address, port)
    except OSError:
        return False
    await trio.aclose_forcefully(stream)
    return True


def port_of(bound: Bound) -> int:
    return int(bound.urls("http")[0].split()[0].rstrip("/").rpartition(":")[2])


@pytest.mark.parametrize(
    ("hosts", "families", "told"),
    [
        (["127.0.0.1"], {4}, ["http://127.0.0.1:{}/"]),
        (["::1"], {6}, ["http://[::1]:{}/"]),
        (["127.0.0.1", "::1"], {4, 6}, ["http://127.0.0.1:{}/", "http://[::1]:{}/"]),
        (["::1", "127.0.0.1"], {4, 6}, ["http://[::1]:{}/", "http://127.0.0.1:{}/"]),
        (["0.0.0.0"], {4}, ["http://0.0.0.0:{}/"]),
        (["::"], {4, 6}, ["http://[::]:{}/ for IPv6 and IPv4"]),
        (["0:0:0:0:0:0:0:0"], {4, 6}, ["http://[::]:{}/ for IPv6 and IPv4"]),
        (["::", "0.0.0.0"], {4, 6}, ["http://[::]:{}/", "http://0.0.0.0:{}/"]),
        (["0.0.0.0", "::"], {4, 6}, ["http://0.0.0.0:{}/", "http://[::]:{}/"]),
        (["127.0.0.2", "127.0.0.3"], set(), ["http://127.0.0.2:{}/", "http://127.0.0.3:{}/"]),
    ],
)
async def test_what_was_asked_for_is_served_and_nothing_else_and_the_same_is_told(
    hosts: Sequence[str], families: set[int], told: list[str]
) -> None:
    bound = Bound.to(hosts, 0)
    port = port_of(bound)
    assert bound.urls("http") == [each.format(port) for each in told]
    for address in ("127.0.0.1", "::1", "127.0.0.2"):
        assert not await reachable(address, port), "nobody is let in before it is time"
    listeners = bound.listen()
    try:
        assert {4: await reachable("127.0.0.1", port), 6: await reachable("::1", port)} == {
            family: family in families for family in (4, 6)
        }
        for host in hosts:
            if host not in ("::", "0.0.0.0", "0:0:0:0:0:0:0:0"):
                assert await reachable(host, port)
    finally:
        for listener in listeners:
            listener.socket.close()


def test_an_address_of_ipv4_beside_it_takes_ipv4_from_the_unspecified_one() -> None:
    assert is_dual("::", ["::"])
    assert is_dual("::", ["::", "::1"])
    assert not is_dual("::", ["::", "127.0.0.1"])
    assert not is_dual("::1", ["::1"])
    assert not is_dual("0.0.0.0", ["0.0.0.0"])


@pytest.mark.parametrize("taken_host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("hosts", [["127.0.0.1", "::1"], ["::1", "127.0.0.1"]])
async def test_an_address_that_is_in_use_is_named_and_the_others_are_given_back(
    taken_host: str, hosts: list[str]
) -> None:
    taken = Bound.to([taken_host], 0)
    port = port_of(taken)
    listeners = taken.listen()
    try:
        with pytest.raises(ListenError) as refused:
            Bound.to(hosts, port)
        assert f"{taken_host} port {port} is in use" in str(refused.value)
    finally:
        for listener in listeners:
            listener.socket.close()
    Bound.to(hosts, port).close()


async def test_who_was_faster_between_the_two_steps_is_told_of() -> None:
    first = Bound.to(["127.0.0.1"], 0)
    port = port_of(first)
    second = Bound.to(["127.0.0.1"], port)
    listeners = first.listen()
    try:
        with pytest.raises(ListenError) as refused:
            second.listen()
        assert f"127.0.0.1 port {port} is in use" in str(refused.value)
    finally:
        for listener in listeners:
            listener.socket.close()


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EADDRINUSE, "--port"),
        (errno.EACCES, "above 1023"),
        (errno.EAFNOSUPPORT, "has no IPv6"),
        (errno.EADDRNOTAVAIL, "cannot listen"),
    ],
)
def test_what_the_system_refuses_comes_with_a_way_out(number: int, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(ListenError) as refused:
        Bound.to(["::1"], 8420)
    assert told in str(refused.value)
    assert "::1 port 8420" in str(refused.value)
