"""Why somebody is not known: the log says it for every 401, and no answer does."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest
import trio

from penstock.adapters.access import JwtTokens, Tickets
from penstock.adapters.websocket import SocketConfig
from tests.adapters.credentials import SECRET, bearer, identity, token
from tests.adapters.serving import PATIENCE, Penstock, penstock, problem
from tests.adapters.test_identity import BAD_TOKENS

GID = "0198c0de-7a11-7abc-8def-0123456789ab"

# What is shown in the header, and why that is refused.
SHOWN = {
    "nothing": ({}, "missing"),
    "no bearer": ({"Authorization": "Basic YTpi"}, "malformed"),
    "no token": ({"Authorization": "Bearer"}, "malformed"),
    "garbage": (bearer("x.y.z"), "malformed"),
    "four parts": (bearer(BAD_TOKENS["four parts"]), "malformed"),
    "expired": (bearer(BAD_TOKENS["expired"]), "expired"),
    "not yet": (bearer(BAD_TOKENS["not yet"]), "not-yet"),
    "another key": (bearer(BAD_TOKENS["another key"]), "signature"),
    "a changed body": (bearer(BAD_TOKENS["its body was changed"]), "signature"),
    "another algorithm": (bearer(BAD_TOKENS["another algorithm"]), "algorithm"),
    "an audience": (bearer(BAD_TOKENS["for an audience"]), "audience"),
    "no exp": (bearer(BAD_TOKENS["no exp"]), "claims"),
    "too many patterns": (bearer(BAD_TOKENS["too many patterns"]), "claims"),
}

shown = pytest.mark.parametrize(("headers", "reason"), SHOWN.values(), ids=SHOWN.keys())


def told(caplog: pytest.LogCaptureFixture) -> Mapping[str, Any]:
    """The one line about a refusal."""
    (line,) = [vars(each) for each in caplog.records if each.message in ("request_refused", "command_refused")]
    assert (line["levelname"], line["code"]) == ("INFO", "UNAUTHENTICATED")
    assert line["detail"]
    return line


async def detail_of_nothing(world: Penstock) -> object:
    """What an answer says to somebody who shows nothing."""
    async with world.client() as client:
        return (await client.get("/v1/sessions/s")).json()["detail"]


@shown
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/sessions/s", None),
        ("POST", "/v1/sessions/s/chunks", {"generation_id": GID, "data": {"text": "x"}}),
        ("GET", "/v1/sessions/s/events", None),
        ("GET", "/metrics", None),
    ],
)
async def test_a_request_is_refused_alike_and_its_line_says_why(
    headers: dict[str, str], reason: str, method: str, path: str, body: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with penstock(identity=identity()) as world, world.client() as client:
        common = await detail_of_nothing(world)
        caplog.clear()
        caplog.set_level("INFO", "penstock")
        answer = await client.request(method, path, json=body, headers=headers)
        assert (answer.status_code, answer.json()["detail"]) == (401, common)
        assert reason not in answer.text.lower()
    assert told(caplog)["reason"] == reason


@shown
async def test_a_handshake_is_refused_alike_and_its_line_says_why(
    headers: dict[str, str], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "penstock")
    async with penstock(identity=identity()) as world:
        common = await detail_of_nothing(world)
        caplog.clear()
        caplog.set_level("INFO", "penstock")
        if not headers:  # it may still come in the first frame
            async with world.socket() as socket:
                await socket.send(op="ping", id=1)
                error = (await socket.receive())["error"]
                assert isinstance(error, dict)
                assert (error["code"], error["detail"]) == ("UNAUTHENTICATED", common)
                assert await socket.closed() == 4401
        else:
            async with await world.served.connect() as stream:
                head = (
                    "GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                )
                head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
                await stream.send_all(f"{head}\r\n".encode())
                answer = b""
                with trio.fail_after(PATIENCE):
                    while not answer.endswith(b"}"):
                        answer += await stream.receive_some()
            assert (problem(answer)[0], problem(answer)[1]["detail"]) == (401, common)
    assert told(caplog)["reason"] == reason


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("name", ["expired", "not yet", "another key", "another algorithm", "no exp", "four parts"])
async def test_a_frame_is_refused_alike_and_its_line_says_why(
    name: str, known: bool, caplog: pytest.LogCaptureFixture
) -> None:
    reasons = {"another key": "signature", "another algorithm": "algorithm", "no exp": "claims"}
    reason = reasons.get(name, {"not yet": "not-yet", "four parts": "malformed"}.get(name, name))
    async with penstock(identity=identity()) as world, world.socket() as socket:
        common = await detail_of_nothing(world)
        caplog.clear()
        caplog.set_level("INFO", "penstock")
        if known:
            await socket.ask(op="auth", id=0, token=token())
        error = (await socket.ask(op="auth", id=1, token=BAD_TOKENS[name]))["error"]
        assert isinstance(error, dict)
        assert (error["code"], error["detail"]) == ("UNAUTHENTICATED", common)
    assert told(caplog)["reason"] == reason


async def test_a_socket_whose_time_is_over_says_why_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "penstock")
    async with penstock(identity=identity(), socket=SocketConfig(auth_timeout=0.1)) as world:
        async with world.socket() as socket:
            assert await socket.closed() == 4401
        assert told(caplog)["reason"] == "missing"
        caplog.clear()
        async with world.socket(headers=[(b"Authorization", f"Bearer {token(ttl=2)}".encode())]) as socket:
            assert await socket.closed() == 4401
        assert told(caplog)["reason"] == "expired"


@pytest.mark.parametrize(
    ("shows", "reason"),
    [("?ticket=x", "malformed"), ("?ticket={made}&ticket={made}", "several"), ("?ticket={wide}", "ticket")],
)
async def test_a_ticket_is_refused_alike_and_its_line_says_why(
    shows: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with penstock(identity=identity()) as world, world.client() as client:
        await client.put("/v1/sessions/s", headers=bearer(token()))
        made = {}
        for name, scopes in (("made", ["read"]), ("wide", ["read", "write"])):
            body = {"sessions": ["s"], "scopes": scopes}
            made[name] = (await client.post("/v1/tickets", json=body, headers=bearer(token()))).json()["ticket"]
        common = await detail_of_nothing(world)
        caplog.clear()
        caplog.set_level("INFO", "penstock")
        answer = await client.get(f"/v1/sessions/s/events{shows.format(**made)}")
        assert (answer.status_code, answer.json()["detail"]) == (401, common)
    assert told(caplog)["reason"] in (reason, "signature")


# --- the time at which a token was made


@pytest.mark.parametrize(
    "iat",
    [time.time() + 6, time.time() + 3600, 2**40, -5, 0, "soon", None, [1], 1e300],
    ids=["in a moment", "in an hour", "far", "before", "zero", "text", "null", "list", "huge"],
)
async def test_when_a_token_was_made_is_no_reason_to_refuse_it(iat: object) -> None:
    async with penstock(identity=identity()) as world, world.client() as client:
        answer = await client.put("/v1/sessions/s", headers=bearer(token(iat=iat)))
        assert answer.status_code == 201
        async with world.socket() as socket:
            assert "result" in await socket.ask(op="auth", id=1, token=token(iat=iat))


def test_a_ticket_outlives_a_clock_that_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    tickets = Tickets([SECRET])
    holder = JwtTokens([SECRET], "HS256")(token(["s"]))
    made = tickets.make(holder, ["s"], ["read"], 600)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 60)
    assert tickets.for_stream(made.text).subject == "ann"
