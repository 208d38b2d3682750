"""Who asks, by an application's own function of headers and cookies: on every way in, for no page of another site."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
import trio
import trio_websocket
from hypothesis import given
from hypothesis import strategies as st

from penstock.adapters.access import EVERYBODY, Identity, JwtTokens, Principal, Recognize, Unauthenticated, authority
from penstock.adapters.access.recognition import read_cookies, read_headers
from penstock.adapters.http import create_app
from penstock.engine import MemoryLog, TimedOut, open_engine
from tests.adapters.credentials import SECRET, bearer, token
from tests.adapters.serving import PATIENCE, Penstock, penstock

GID = "0198c0de-7a11-7abc-8def-0123456789ab"
ANN = {"Cookie": "session=ann"}


def member(name: str, **others: Any) -> Principal:
    return Principal(subject=name, scopes=frozenset({"read", "write", "produce"}), sessions=("*",), **others)


async def by_cookie(headers: Mapping[str, str], cookies: Mapping[str, str]) -> Principal | None:
    await trio.lowlevel.checkpoint()
    return member(cookies["session"]) if cookies.get("session") else None


# --- what the function sees


def test_a_header_has_its_lower_case_name_and_all_that_was_said_under_it() -> None:
    pairs = [("accept", "a"), ("cookie", "a=1"), ("accept", "b"), ("cookie", "b=2")]
    assert read_headers(pairs) == {"accept": "a, b", "cookie": "a=1; b=2"}


def test_cookies_are_as_they_stand_and_the_first_of_a_name_counts() -> None:
    header = 'a=1; b="2 3"; a=4;c=5=6 ; d; =7; e=; f="; g= x '
    assert read_cookies(header) == {"a": "1", "b": "2 3", "c": "5=6", "": "7", "e": "", "f": '"', "g": "x"}


@given(st.text(st.characters(max_codepoint=255), max_size=200))
def test_no_header_is_a_bug(header: str) -> None:
    assert all(";" not in name + value for name, value in read_cookies(header).items())


# --- the ways in

Way = Callable[[Penstock, Mapping[str, str]], Awaitable[tuple[int, dict[str, Any]]]]


async def _http(world: Penstock, method: str, path: str, headers: Mapping[str, str], body: object = None) -> Any:
    async with world.client() as client:
        answer = await client.request(method, path, headers=headers, json=body)
        return answer.status_code, answer.json() if answer.status_code >= 400 else {}


async def by_reading(world: Penstock, headers: Mapping[str, str]) -> Any:
    return await _http(world, "GET", "/v1/sessions/s", headers)


async def by_starting(world: Penstock, headers: Mapping[str, str]) -> Any:
    return await _http(world, "POST", "/v1/sessions/s/generations", headers, {"producer": "remote"})


async def by_streaming(world: Penstock, headers: Mapping[str, str]) -> Any:
    return await _http(world, "GET", "/v1/sessions/s/events?live=false", headers)


async def by_pushing(world: Penstock, headers: Mapping[str, str]) -> Any:
    return await _http(world, "POST", "/v1/sessions/s/chunks", headers, {"generation_id": GID, "data": {"text": "x"}})


async def by_pushing_the_long_way(world: Penstock, headers: Mapping[str, str]) -> Any:
    body = {"generation_id": GID, "data": {"text": "x"}}
    return await _http(world, "POST", "/v1/sessions/%73/chunks", headers, body)


async def by_socket(world: Penstock, headers: Mapping[str, str]) -> Any:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    try:
        with trio.fail_after(PATIENCE):
            async with world.socket(headers=pairs) as socket:
                answer = await socket.ask(op="subscribe", id=1, session_id="s")
                return 101, answer.get("error", {})
    except BaseExceptionGroup as refused:
        (error,) = refused.exceptions
        assert isinstance(error, trio_websocket.ConnectionRejected), error
        return error.status_code, json.loads(error.body or b"{}")


CHANGING = [by_starting, by_pushing, by_pushing_the_long_way, by_socket]
WAYS = [by_reading, by_streaming, *CHANGING]
every_way = pytest.mark.parametrize("way", WAYS)


async def known(
    identity: Identity | Recognize, way: Way, headers: Mapping[str, str] = ANN
) -> tuple[int, dict[str, Any]]:
    async with penstock(identity=identity) as world:
        await world.engine.create_session("s")
        return await way(world, headers)


@every_way
async def test_a_cookie_lets_in_and_without_it_nobody_is_known(way: Way) -> None:
    async with penstock(identity=by_cookie) as world:
        await world.engine.create_session("s")
        status, told = await way(world, ANN)
        assert status < 400
        assert not told
        for headers in ({}, {"Cookie": "session="}, {"Cookie": "other=ann"}, bearer(token())):
            status, told = await way(world, headers)
            assert (status, told["code"]) == (401, "UNAUTHENTICATED")


@every_way
async def test_a_plain_function_will_do_and_authorize_is_asked_behind_it(way: Way) -> None:
    def recognize(headers: Mapping[str, str], cookies: Mapping[str, str]) -> Principal | None:
        return member(headers["x-member"]) if "x-member" in headers else None

    async def authorize(principal: Principal, action: str, session_id: str | None) -> bool:
        return principal.subject == "ann"

    identity = Identity(recognize=recognize, authorize=authorize)
    assert (await known(identity, way, {"X-Member": "ann"}))[0] < 400
    status, told = await known(identity, way, {"X-Member": "bob"})
    assert (101 if way is by_socket else 403) == status
    assert told["code"] == "FORBIDDEN"


# --- what is no answer opens no door


async def raising(headers: Mapping[str, str], cookies: Mapping[str, str]) -> Principal | None:
    raise LookupError("a secret of the inside")


async def sure(headers: Mapping[str, str], cookies: Mapping[str, str]) -> Any:
    return True


async def over(headers: Mapping[str, str], cookies: Mapping[str, str]) -> Principal | None:
    return member("ann", expires_at=time.time() - 1)


async def refusing(headers: Mapping[str, str], cookies: Mapping[str, str]) -> Principal | None:
    raise Unauthenticated("a secret of the inside")


async def slow(headers: Mapping[str, str], cookies: Mapping[str, str]) -> Principal | None:
    await trio.sleep_forever()


@every_way
@pytest.mark.parametrize(
    ("recognize", "status", "code"),
    [
        (raising, 500, "INTERNAL"),
        (sure, 500, "INTERNAL"),
        (over, 401, "UNAUTHENTICATED"),
        (refusing, 401, "UNAUTHENTICATED"),
        (slow, 504, "TIMEOUT"),
    ],
)
async def test_what_is_no_answer_opens_no_door(
    recognize: Recognize, status: int, code: str, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority, "_ANSWER", 0.01 if recognize is slow else PATIENCE)
    got, told = await known(recognize, way)
    assert (got, told["code"]) == (status, code)
    assert "secret" not in json.dumps(told)


async def test_a_request_that_is_cancelled_is_not_answered_for() -> None:
    gone: list[str] = []

    async def recognize(headers: Mapping[str, str], cookies: Mapping[str, str]) -> Principal | None:
        try:
            await trio.sleep_forever()
        finally:
            gone.append("left")

    with trio.move_on_after(0.01) as left:
        await Identity(recognize=recognize).who([], [])
        raise AssertionError("it is not known")
    assert left.cancelled_caught
    assert gone == ["left"]


async def test_the_wait_has_an_end(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(TimedOut):
        await Identity(recognize=slow).who([], [])
    assert trio.current_time() == pytest.approx(10, abs=0.1)


# --- pages of other sites, whose requests bear the cookie too


@every_way
@pytest.mark.parametrize(
    ("said", "own"),
    [
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, False),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, False),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, True),
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, True),
        ({}, True),
    ],
    ids=lambda value: " ".join(value.values()) if isinstance(value, dict) else None,
)
async def test_a_cookie_lets_no_page_of_another_site_in(way: Way, said: dict[str, str], own: bool) -> None:
    status, told = await known(by_cookie, way, {**ANN, **said})
    assert (status < 400) == own
    assert own or (status, told["code"]) == (403, "ORIGIN_REFUSED")


@pytest.mark.parametrize("way", CHANGING)
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil.example", "http://127.0.0.1:1"]
)
async def test_a_browser_that_only_says_the_origin_is_heard_too(way: Way, origin: str) -> None:
    status, told = await known(by_cookie, way, {**ANN, "Origin": origin})
    assert (status, told["code"]) == (403, "ORIGIN_REFUSED")


async def test_nobody_is_asked_about_a_page_of_another_site() -> None:
    asked: list[str] = []

    async def recognize(headers: Mapping[str, str], cookies: Mapping[str, str]) -> Principal | None:
        asked.append(headers["cookie"])
        return member("ann")

    for way in WAYS:
        await known(recognize, way, {**ANN, "Sec-Fetch-Site": "cross-site"})
    assert not asked


async def test_a_person_who_comes_from_another_site_gets_the_page() -> None:
    headers = {**ANN, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    async with penstock(identity=by_cookie) as world, world.client() as client:
        assert (await client.get("/", headers=headers)).status_code == 200
        frame = {**headers, "Sec-Fetch-Dest": "iframe"}
        assert (await client.get("/", headers=frame)).status_code == 403


# --- cookies and tokens side by side


@every_way
async def test_a_token_goes_before_a_cookie_and_a_bad_one_is_not_made_up_for(way: Way) -> None:
    identity = Identity(JwtTokens([SECRET], "HS256"), recognize=by_cookie)
    for headers in (ANN, bearer(token()), {**ANN, **bearer(token())}):
        assert (await known(identity, way, headers))[0] < 400
    status, told = await known(identity, way, {**ANN, **bearer("x.y.z")})
    assert (status, told["code"]) == (401, "UNAUTHENTICATED")


async def test_where_there_are_tokens_a_socket_may_still_say_who_it_is() -> None:
    both = Identity(JwtTokens([SECRET], "HS256"), recognize=by_cookie)
    async with penstock(identity=both) as world, world.socket() as socket:
        assert (await socket.ask(op="auth", id=1, token=token()))["op"] == "reply"
    async with penstock(identity=by_cookie) as world, world.socket(headers=[(b"Cookie", b"session=ann")]) as socket:
        assert (await socket.ask(op="auth", id=1, token=token()))["op"] == "error"


async def test_who_is_known_by_a_cookie_may_have_a_ticket() -> None:
    async with penstock(identity=Identity(recognize=by_cookie)) as world, world.client() as client:
        await world.engine.create_session("s")
        asked = {"sessions": ["s"], "scopes": ["read"]}
        made = (await client.post("/v1/tickets", headers=ANN, json=asked)).json()["ticket"]
        path = f"/v1/sessions/s/events?live=false&ticket={made}"
        assert (await client.get(path)).status_code == 200
        assert (await client.get(path, headers={"Authorization": "Basic eDp5"})).status_code == 200
        assert (await client.get(f"{path}x")).status_code == 401


async def test_the_name_that_is_known_is_the_one_that_holds() -> None:
    async with penstock(identity=by_cookie) as world, world.client() as client:
        await world.engine.create_session("s")
        own, other = "/v1/sessions/s/presence/ann/phone", "/v1/sessions/s/presence/bob/phone"
        assert (await client.put(own, headers={"Cookie": "session=ann"})).status_code == 200
        narrow = Identity(
            recognize=lambda _, cookies: Principal(
                subject=cookies["session"], scopes=frozenset({"write"}), sessions=("s",)
            )
        )
    async with penstock(identity=narrow) as world, world.client() as client:
        await world.engine.create_session("s")
        assert (await client.put(own, headers=ANN)).status_code == 200
        assert (await client.put(other, headers=ANN)).status_code == 403
        assert (await client.get("/v1/sessions/s", headers=ANN)).status_code == 403


# --- what is said of it


async def test_the_description_says_what_people_are_known_by() -> None:
    async def schemes(identity: Identity | Recognize) -> Any:
        async with open_engine(MemoryLog()) as engine:
            told = await (await create_app(engine, identity=identity).test_client().get("/openapi.json")).get_json()
            return told["paths"]["/v1/sessions/{session_id}"]["get"]["security"]

    assert await schemes(by_cookie) == [{"application": ["read"]}]
    both = Identity(JwtTokens([SECRET], "HS256"), recognize=by_cookie)
    assert await schemes(both) == [{"bearer": ["read"]}, {"application": ["read"]}]


async def test_without_a_function_all_is_as_it_was() -> None:
    assert await Identity().who([], []) is EVERYBODY
    assert await Identity(JwtTokens([SECRET], "HS256")).who([], [("cookie", "session=ann")]) is None
