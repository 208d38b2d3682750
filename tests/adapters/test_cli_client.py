from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from adapters.cli.client import ClientError, Server

FIRST, SECOND, THIRD = (f"e-{offset:016d}" for offset in (1, 2, 3))
SSE = {"content-type": "text/event-stream"}
Answer = Callable[[httpx.Request], httpx.Response]


class Broken(httpx.SyncByteStream):
    """Bytes, then a connection that is gone."""

    def __init__(self, content: str) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self._content.encode()
        raise httpx.ReadError("gone")


class Answers:
    """A server that gives these answers, one a request."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[str | None] = []
        self.queries: list[str] = []
        self.now = 0.0
        self.notes: list[str] = []

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.headers.get("last-event-id"))
        self.queries.append(request.url.query.decode())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def server(self) -> Server:
        return Server(
            "http://127.0.0.1:1",
            note=self.notes.append,
            sleep=self.sleep,
            clock=lambda: self.now,
            transport=httpx.MockTransport(self.handle),
        )


def event(cursor: str, text: str) -> str:
    return f"id: {cursor}\ndata: {text}\n\n"


def end(cursor: str) -> str:
    return f"id: {cursor}\nevent: end\ndata: {{}}\n\n"


def problem(status: int, code: str, *, retryable: bool = False) -> httpx.Response:
    return httpx.Response(status, json={"code": code, "detail": "so it is", "retryable": retryable})


def read(answers: Answers, after: str | None = None) -> list[str]:
    with answers.server() as server:
        return [frame.data for frame in server.follow("s", after) if frame.control is None]


#
def test_a_broken_stream_goes_on_behind_its_last_cursor() -> None:
    answers = Answers(
        httpx.Response(200, headers=SSE, stream=Broken(event(FIRST, "a") + event(SECOND, "b") + "id: half")),
        httpx.Response(200, headers=SSE, text=event(THIRD, "c") + end(THIRD)),
    )
    assert read(answers) == ["a", "b", "c"]
    assert answers.asked == [None, SECOND]
    assert answers.notes == ["connection lost, resuming"]


def test_a_cursor_without_data_is_remembered() -> None:
    answers = Answers(
        httpx.Response(200, headers=SSE, text=f"id: {SECOND}\n\n: ping\n\n"),
        httpx.Response(200, headers=SSE, text=end(SECOND)),
    )
    assert read(answers) == []
    assert answers.asked == [None, SECOND]


def test_the_tail_is_asked_for_until_a_cursor_is_known() -> None:
    answers = Answers(
        httpx.Response(200, headers=SSE, text=f"id: {SECOND}\n\n"),
        httpx.Response(200, headers=SSE, text=end(SECOND)),
    )
    assert read(answers, after="now") == []
    assert answers.asked == [None, SECOND]
    assert answers.queries == ["after=now", ""]


def test_line_separators_of_unicode_stay_inside_an_event() -> None:
    text = "a\u2028b\x85c\x0bd"
    assert read(Answers(httpx.Response(200, headers=SSE, text=event(FIRST, text) + end(FIRST)))) == [text]


def test_a_server_that_was_never_there_is_an_error_at_once() -> None:
    answers = Answers(httpx.ConnectError("refused"))
    with pytest.raises(ClientError) as caught:
        read(answers, after=FIRST)
    assert "penstock serve" in str(caught.value)
    assert answers.now == 0


def test_a_server_that_stays_away_is_given_up_in_the_end() -> None:
    answers = Answers(
        httpx.Response(200, headers=SSE, text=event(FIRST, "a")),
        httpx.ConnectError("refused"),
    )
    with pytest.raises(ClientError):
        read(answers)
    assert 60 < answers.now < 70
    assert set(answers.asked[1:]) == {FIRST}


#
def test_a_draining_server_is_waited_for() -> None:
    answers = Answers(
        httpx.Response(200, headers=SSE, text=event(FIRST, "a")),
        problem(503, "DRAINING", retryable=True),
        httpx.Response(502, text="<html>bad gateway</html>"),
        httpx.Response(200, headers=SSE, text=event(SECOND, "b") + end(SECOND)),
    )
    assert read(answers) == ["a", "b"]


#
def test_a_refusal_is_told_with_its_code() -> None:
    with pytest.raises(ClientError) as caught:
        read(Answers(problem(404, "SESSION_NOT_FOUND")))
    assert caught.value.code == "SESSION_NOT_FOUND"
    assert "so it is" in str(caught.value)


def test_something_that_is_no_penstock_server_is_told_as_such() -> None:
    with pytest.raises(ClientError) as caught:
        read(Answers(httpx.Response(200, text="<html>hello</html>")))
    assert "no penstock server" in str(caught.value)
    with pytest.raises(ClientError) as caught:
        read(Answers(httpx.Response(404, text="<html>nothing</html>")))
    assert "is a penstock server there" in str(caught.value)


def test_a_start_whose_answer_was_lost_is_asked_for_again_under_its_key() -> None:
    keys: list[str | None] = []
    answers = Answers(httpx.ReadError("gone"), httpx.ConnectError("restarting"), httpx.Response(200, json={"turn": 1}))
    handle = answers.handle

    def noting(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers.get("idempotency-key"))
        return handle(request)

    answers.handle = noting  # type: ignore[method-assign]
    with answers.server() as server:
        assert server.request("POST", "/v1/sessions/s/generations", {}, key="k") == {"turn": 1}
    assert keys == ["k"] * 3


def test_a_request_without_a_key_is_never_repeated() -> None:
    answers = Answers(httpx.ReadError("gone"), httpx.Response(200, json={}))
    with answers.server() as server, pytest.raises(ClientError):
        server.request("POST", "/v1/sessions/s/generations", {})
    assert len(answers.asked) == 1


def test_a_start_is_given_up_when_the_server_stays_away() -> None:
    answers = Answers(httpx.ReadError("gone"), httpx.ConnectError("away"))
    with answers.server() as server, pytest.raises(ClientError):
        server.request("POST", "/v1/sessions/s/generations", {}, key="k")
    assert 60 < answers.now < 120
