"""Whom the server believes about where a request came from."""

from __future__ import annotations

import ipaddress

import pytest

from penstock.adapters.server.proxies import Forwarded, TrustedProxies

TRUSTED = TrustedProxies([ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")])


def headers(**values: str | list[str]) -> list[tuple[bytes, bytes]]:
    return [
        (f"X-Forwarded-{name}".encode(), one.encode())
        for name, value in values.items()
        for one in ([value] if isinstance(value, str) else value)
    ]


def test_nobody_is_believed_unless_named() -> None:
    said = headers(For="192.0.2.9", Proto="https", Host="chat.example")
    assert TrustedProxies().read("127.0.0.1", said) == Forwarded(client="127.0.0.1")
    assert TRUSTED.read("192.0.2.1", said) == Forwarded(client="192.0.2.1")


def test_a_named_proxy_is_believed() -> None:
    said = headers(For="192.0.2.9", Proto="HTTPS", Host="chat.example:8443")
    assert TRUSTED.read("10.1.2.3", said) == Forwarded(client="192.0.2.9", scheme="https", host="chat.example:8443")
    assert TRUSTED.read("::ffff:10.1.2.3", said).client == "192.0.2.9"
    assert TRUSTED.read("fd00::1", said).client == "192.0.2.9"


@pytest.mark.parametrize(
    ("said", "client"),
    [
        ("6.6.6.6, 192.0.2.9", "192.0.2.9"),  # what the client wrote itself stands on the left
        ("6.6.6.6, 192.0.2.9, 10.0.0.7", "192.0.2.9"),
        (["6.6.6.6, 192.0.2.9", "10.0.0.7, 10.0.0.8"], "192.0.2.9"),
        ("10.0.0.5, 10.0.0.7", "10.0.0.5"),
        ("192.0.2.9:4711", "192.0.2.9"),
        ("[2001:db8::9]:4711", "2001:db8::9"),
        ("2001:db8::9", "2001:db8::9"),
        ("::ffff:192.0.2.9", "192.0.2.9"),
        ("192.0.2.9, unknown", "10.1.2.3"),
        ("192.0.2.9, unknown, 10.0.0.7", "10.0.0.7"),
        ("", "10.1.2.3"),
        ("é, \x00, 1.2.3.4.5", "10.1.2.3"),
    ],
)
def test_the_client_is_the_right_most_who_is_no_proxy_of_ours(said: str | list[str], client: str) -> None:
    assert TRUSTED.read("10.1.2.3", headers(For=said)).client == client


def test_of_scheme_and_host_the_nearest_proxys_word_counts() -> None:
    told = TRUSTED.read("10.1.2.3", headers(Proto="https, http", Host="evil.example, chat.example"))
    assert (told.scheme, told.host) == ("http", "chat.example")
    told = TRUSTED.read("10.1.2.3", headers(Proto="wss", Host=" "))
    assert (told.scheme, told.host) == ("https", None)
    assert TRUSTED.read("10.1.2.3", headers(Proto="gopher")).scheme is None
