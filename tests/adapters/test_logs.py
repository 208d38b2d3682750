"""The log's two forms, and what requests leave in it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import Any

import pytest
import trio

from penstock.adapters.http import sessions
from penstock.adapters.watching.logs import LogFormat, log_handler
from penstock.engine import Generation, WriteFailed, is_uuid, request_id
from tests.adapters.serving import PATIENCE, Penstock, penstock
from tests.engine.producers import Steered

Lines = Callable[[str], list[dict[str, Any]]]


@contextmanager
def written(form: LogFormat) -> Iterator[tuple[logging.Logger, Callable[[], str]]]:
    """A logger, and what it has written."""
    with TemporaryFile() as file:
        handler = log_handler(form, file.fileno())
        logger = logging.getLogger("penstock.test")
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)

        lines = b""
        try:
            yield logger, lambda: lines.decode()
        finally:
            logger.removeHandler(handler)
            logger.setLevel(logging.NOTSET)
            handler.flush()
            handler.close()
            file.seek(0)
            lines = file.read()


#
def test_text_has_a_line_with_the_event_and_its_fields() -> None:
    with written("text") as (logger, text):
        logger.info("generation_ended", extra={"event": "generation_ended", "session_id": "s", "duration_ms": 1.5})
    assert re.fullmatch(r"\S+ \S+ INFO penstock\.test: generation_ended session_id=s duration_ms=1\.5\n", text())


def test_json_has_an_object_a_line_with_the_fields_at_its_top() -> None:
    with written("json") as (logger, text):
        logger.info("generation_ended", extra={"event": "generation_ended", "session_id": "s", "duration_ms": 1.5})
        try:
            raise ValueError("inside")
        except ValueError:
            logger.exception("it failed")
    first, second = map(json.loads, text().splitlines())
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "INFO",
        "logger": "penstock.test",
        "message": "generation_ended",
        "event": "generation_ended",
        "session_id": "s",
        "duration_ms": 1.5,
    }
    assert "ValueError: inside" in second["exc_info"]


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("end", ["\n", "\r", "\x85", "\u2028", "\x1b[2J"])
def test_what_a_client_wrote_begins_no_line_of_its_own(form: LogFormat, end: str) -> None:
    forged = f"enough{end}2026-01-01 INFO penstock.engine: all is well"
    with written(form) as (logger, text):
        logger.info("generation_cancelled", extra={"reason": forged})
        logger.warning("an answer came: %s", forged)
    assert len(text().splitlines()) == 2
    assert "\x1b" not in text()


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_line_for_a_request_bears_its_id(form: LogFormat) -> None:
    with written(form) as (logger, text):
        token = request_id.set("the-request")
        logger.info("one")
        request_id.reset(token)
        logger.info("two")
    one, two = text().splitlines()
    assert "the-request" in one
    assert "request_id" not in two


async def test_an_answer_bears_the_id_of_its_request() -> None:
    async with penstock() as server, server.client() as client:
        given = await client.get("/healthz", headers={"X-Request-Id": "from-the-proxy:1"})
        assert given.headers["x-request-id"] == "from-the-proxy:1"
        made = [(await client.get(path)).headers["x-request-id"] for path in ("/healthz", "/nowhere", "/v1/sessions/x")]
        assert all(map(is_uuid, made))
        assert len(set(made)) == 3, "also on a connection that is kept"


@pytest.mark.parametrize("given", ["", "two words", "x" * 129, "caf\xe9", 'a"b', "a<b"])
async def test_an_id_that_is_not_fit_to_be_told_is_replaced(given: str) -> None:
    async with penstock() as server, server.client() as client:
        answer = await client.get("/healthz", headers=[(b"X-Request-Id", given.encode("latin-1"))])
        assert is_uuid(answer.headers["x-request-id"])


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """The records of one event, with the request's id as the handlers see it."""
    caplog.set_level(logging.DEBUG, "penstock")
    for each in log_handler("json").filters:
        caplog.handler.addFilter(each)
    return lambda event: [vars(record) for record in caplog.records if record.message == event]


async def eventually(lines: Lines, event: str) -> list[dict[str, Any]]:
    with trio.fail_after(PATIENCE):
        while not (found := lines(event)):  # noqa: ASYNC110  nobody tells
            await trio.sleep(0.01)
    return found


#
async def test_a_refusal_is_in_the_log_with_its_reason_and_ids(lines: Lines) -> None:
    async with penstock() as server, server.client() as client:
        await client.put("/v1/sessions/s")
        headers = {"X-Request-Id": "r-1"}
        await client.post("/v1/sessions/s/messages?token=secret", content=b"{not JSON", headers=headers)
    (line,) = lines("request_refused")
    assert (line["levelname"], line["name"]) == ("INFO", "penstock.http")
    assert (line["request_id"], line["session_id"], line["code"]) == ("r-1", "s", "INVALID_BODY")
    assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/sessions/s/messages", 400)
    assert line["detail"]
    assert not [value for value in line.values() if "secret" in str(value)], "queries bear tickets"


async def test_what_goes_wrong_inside_is_in_the_log_and_not_in_the_answer(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise WriteFailed("no room on /secret/disk") from OSError("inner")

    async with penstock() as server, server.client() as client:
        await client.put("/v1/sessions/s")
        monkeypatch.setattr(sessions, "post", fail)
        answer = await client.post("/v1/sessions/s/messages", json={"text": "x"}, headers={"X-Request-Id": "r-1"})
    assert (answer.status_code, answer.json()["code"]) == (500, "WRITE_FAILED")
    assert "secret" not in answer.text
    (line,) = lines("request_failed")
    assert (line["levelname"], line["request_id"], line["session_id"]) == ("WARNING", "r-1", "s")
    assert (line["detail"], line["cause"]) == ("no room on /secret/disk", "OSError('inner')")


async def test_a_bug_is_in_the_log_under_its_request(
    lines: Lines, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("/secret/path")

    async with penstock() as server, server.client() as client:
        await client.put("/v1/sessions/s")
        monkeypatch.setattr(sessions, "post", fail)
        answer = await client.post("/v1/sessions/s/messages", json={"text": "x"}, headers={"X-Request-Id": "r-1"})
    assert (answer.json()["code"], answer.headers["x-request-id"]) == ("INTERNAL", "r-1")
    errors = [vars(record) for record in caplog.records if record.levelno == logging.ERROR]
    assert [error["request_id"] for error in errors] == ["r-1"]
    assert [line["request_id"] for line in lines("request_failed")] == ["r-1"]


# R-41 R-128
async def test_a_reader_that_leaves_is_told_from_a_stream_that_ends(lines: Lines) -> None:
    async with penstock() as server, server.client() as client:
        await client.put("/v1/sessions/s")
        await client.get("/v1/sessions/s/events?live=false")
        (ended,) = await eventually(lines, "stream_ended")
        assert (ended["session_id"], ended["name"]) == ("s", "penstock.http")
        assert lines("client_disconnected") == []
        async with server.lines("/v1/sessions/s/events", X_Request_Id="r-1") as stream:
            await stream.next()
        (left,) = await eventually(lines, "client_disconnected")
        assert (left["session_id"], left["request_id"]) == ("s", "r-1")
        assert left["duration_ms"] >= 0
        assert len(lines("stream_ended")) == 1


async def test_a_producer_logs_under_the_request_that_started_it(lines: Lines) -> None:
    async def noting(generation: Generation) -> None:
        logging.getLogger("penstock.test").info("at work")

    async with penstock(producers={"noting": noting, "steered": Steered()}) as server, server.client() as client:
        await client.put("/v1/sessions/s", headers={"X-Request-Id": "put"})
        body = {"producer": "noting"}
        await client.post("/v1/sessions/s/generations", json=body, headers={"X-Request-Id": "first"})
        await eventually(lines, "generation_ended")
        await client.post("/v1/sessions/s/generations", json={"producer": "steered"})
        await client.post("/v1/sessions/s/stop", headers={"X-Request-Id": "stop"})
        (cancelled,) = await eventually(lines, "generation_cancelled")
    assert [line["request_id"] for line in lines("at work")] == ["first"]
    assert cancelled["request_id"] == "stop"


async def test_a_socket_has_an_id_for_all_that_it_asks(lines: Lines) -> None:
    async with penstock(producers={"steered": Steered()}) as server:
        async with server.client() as client:
            await client.put("/v1/sessions/s")
        async with server.socket(headers=[(b"X-Request-Id", b"sock")]) as socket:
            assert dict(socket.ws.handshake_headers)[b"x-request-id"] == b"sock"
            await socket.ask(op="start", id=1, session_id="s")
            await socket.ask(op="stop", id=2, session_id="s")
        (closed,) = await eventually(lines, "socket_closed")
    assert closed["request_id"] == lines("socket_opened")[0]["request_id"] == "sock"
    assert lines("generation_cancelled")[0]["request_id"] == "sock"


async def test_a_refused_handshake_bears_an_id(lines: Lines) -> None:
    async with penstock() as server:
        answer = await _handshake(server, "Origin: http://elsewhere.example")
    assert answer.startswith(b"HTTP/1.1 403")
    assert re.search(rb"(?i)\r\nx-request-id: [0-9a-f-]{36}\r\n", answer)


async def _handshake(server: Penstock, *headers: str) -> bytes:
    head = [
        "GET /v1/ws HTTP/1.1",
        f"Host: 127.0.0.1:{server.served.port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        *headers,
    ]
    return await server.served.exchange("\r\n".join([*head, "", ""]).encode())
