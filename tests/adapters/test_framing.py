"""What `StrictConnection` lets h11 have: the same however it is cut, and nothing that h11 alone would not take."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.adapters.server.framing import StrictConnection
from penstock.adapters.server.hosts import is_host
from penstock.engine import PenstockError
from tests.adapters.smuggling import PARTS, ROWS, Row

HEAD_BYTES: Final = 16 * 1024


def read(connection: h11.Connection, pieces: Iterable[bytes]) -> list[object]:
    """What comes out: each request, its body whole, and its end; last, what is wrong."""
    found: list[object] = []
    for piece in [*pieces, b""]:
        connection.receive_data(piece)
        while True:
            try:
                event = connection.next_event()
            except (h11.RemoteProtocolError, PenstockError):
                return [*found, "refused"]
            if event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed):
                break
            if isinstance(event, h11.Request):
                found += [(event.method, event.target, event.http_version, event.headers.raw_items()), b""]
            elif isinstance(event, h11.Data):
                body = found.pop()
                assert isinstance(body, bytes)
                found.append(body + event.data)
            elif isinstance(event, h11.EndOfMessage):
                found.append("end")
                connection.send(h11.Response(status_code=404, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.their_state is connection.our_state is h11.DONE:
                    connection.start_next_cycle()
    return found


class Forgiving(h11.Connection):
    """h11 as it is, but for the empty lines before a request, on which it fails."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)

    def start_next_cycle(self) -> None:
        behind, ended = self.trailing_data
        super().start_next_cycle()
        super().__init__(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        if left := behind.lstrip(b"\r\n"):
            self.receive_data(left)
        if ended:
            self.receive_data(b"")


def strict() -> StrictConnection:
    return StrictConnection(HEAD_BYTES)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_requests_do_not_depend_on_how_their_bytes_are_cut(part: Callable[[], Iterator[Row]]) -> None:
    for row in part():
        sent = row.sent
        whole = read(strict(), [sent])
        step = 1 if len(sent) < 2000 else 997
        assert read(strict(), [sent[at : at + step] for at in range(0, len(sent), step)]) == whole, row.name
        dice = random.Random(len(sent))
        for _ in range(20):
            at = dice.randrange(len(sent) + 1)
            assert read(strict(), [piece for piece in (sent[:at], sent[at:]) if piece]) == whole, (row.name, at)


# The end of one row and the beginning of another, so that faults stand in all places.
@given(st.sampled_from(ROWS), st.sampled_from(ROWS), st.data())
@settings(deadline=None)
def test_nothing_is_taken_that_h11_would_not_take(one: object, other: object, data: st.DataObject) -> None:
    first, second = one.sent, other.sent  # type: ignore[attr-defined]
    head = first[: data.draw(st.integers(0, len(first)))]
    sent = head + second[data.draw(st.integers(0, len(second))) :]
    taken = read(strict(), [sent] if sent else [])
    forgiving = read(Forgiving(), [sent.lstrip(b"\r\n")] if sent else [])
    requests = [each for each in taken if isinstance(each, tuple)]
    assert requests == [each for each in forgiving if isinstance(each, tuple)][: len(requests)]


@given(st.binary(max_size=300) | st.from_regex(rb"[a-z0-9_.:\[\]-]{0,300}", fullmatch=True))
def test_a_host_can_be_looked_into(value: bytes) -> None:
    if not is_host(value):
        return
    assert len(value) <= 255
    name = value.partition(b":")[0] if not value.startswith(b"[") else b"v6"
    labels = name.removesuffix(b".").split(b".")
    assert all(1 <= len(label) <= 63 and label.isascii() for label in labels)
    assert name.decode().encode("idna") == name  # which raises where it cannot
