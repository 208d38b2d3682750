"""The load client counts what came: all of it, too little, too much, and what a read cuts in two."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import pytest

from tests.benchmarks.payload import stamped
from tests.benchmarks.viewers import Viewed, Viewer, view

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"

Answer = Callable[[Sequence[bytes]], tuple[str, int]]


def event(due: int | None = None) -> bytes:
    return b'data: {"text":"%b"}\n\n' % stamped(due or time.monotonic_ns(), 50).encode()


@pytest.fixture
def answering() -> Iterator[Answer]:
    """A server that answers each connection with these pieces, one by one, and then waits for its end."""
    listening = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def answer(pieces: Sequence[bytes]) -> tuple[str, int]:
        def serve() -> None:
            while True:
                try:
                    connection = listening.accept()[0]
                except OSError:
                    return
                with connection, suppress(ConnectionError):  # the client leaves when it has enough
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    connection.recv(1024)
                    for piece in pieces:
                        if not piece:
                            break
                        connection.sendall(piece)
                        time.sleep(0.005)
                    else:
                        while connection.recv(1024):
                            pass

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        host, port = listening.getsockname()
        return host, port

    yield answer
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    for thread in threads:
        thread.join()


def viewed(address: tuple[str, int], expected: int, *, stamps: bool = False, seconds: float = 0.5) -> Viewed:
    return view(address, [Viewer(sends=(b"GET",), expected=expected)], seconds=seconds, stamps=stamps)


@pytest.mark.parametrize("stamps", [False, True])
def test_events_that_reads_cut_anywhere_count_once(answering: Answer, stamps: bool) -> None:
    whole = event() + event() + event()
    cuts = [whole[at : at + 17] for at in range(0, len(whole), 17)]
    found = viewed(answering([HEAD, *cuts]), 3, stamps=stamps, seconds=10)
    assert (found.received, found.extra, found.broken) == (3, 0, 0)


@pytest.mark.parametrize("stamps", [False, True])
def test_events_in_one_piece_with_the_head_count(answering: Answer, stamps: bool) -> None:
    found = viewed(answering([HEAD + event() + event()]), 2, stamps=stamps, seconds=10)
    assert (found.received, found.extra, found.broken) == (2, 0, 0)


@pytest.mark.parametrize("stamps", [False, True])
def test_event_too_many_is_seen(answering: Answer, stamps: bool) -> None:
    found = viewed(answering([HEAD, event(), event(), event()]), 2, stamps=stamps, seconds=10)
    assert (found.received, found.extra) == (2, 1)


def test_event_that_is_missing_is_seen(answering: Answer) -> None:
    found = viewed(answering([HEAD, event()]), 2)
    assert (found.received, found.extra, found.broken) == (1, 0, 0)


def test_connection_that_ends_too_early_is_seen(answering: Answer) -> None:
    found = viewed(answering([HEAD, event(), b""]), 2, seconds=10)
    assert (found.received, found.broken) == (1, 1)


def test_one_that_is_never_answered_is_an_error(answering: Answer) -> None:
    with pytest.raises(TimeoutError):
        viewed(answering([b"HTTP/1.1 200 OK\r\n"]), 1)


def test_delay_counts_from_when_an_event_was_due(answering: Answer) -> None:
    found = viewed(answering([HEAD, event(time.monotonic_ns() - 10**9)]), 1, stamps=True, seconds=10)
    assert found.delays.p99 >= 1
    assert found.lateness.p99 >= 1
    assert found.transits.p99 < 1
    assert found.since_due >= 1
