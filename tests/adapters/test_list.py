"""The list of sessions: by activity, page by page, and as a stream over HTTP and WebSocket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
import trio

from penstock.adapters.access import Principal, Scope
from penstock.engine import Config, Engine, Generation, MemoryLog
from tests.adapters.credentials import bearer, identity, token
from tests.adapters.describing import validate
from tests.adapters.serving import PATIENCE, penstock
from tests.engine.producers import saying

PRODUCERS = {"say": saying("Hello", " there")}

# What changed is read from the log in a thread or a turn later.
FORMS = ("text/event-stream", "application/x-ndjson")


def ids(page: Any) -> list[str]:
    return [session["session_id"] for session in page["sessions"]]


async def listed(client: httpx.AsyncClient, query: str = "", **headers: str) -> Any:
    answer = await client.get(f"/v1/sessions?{query}", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def made(engine: Engine, *names: str) -> None:
    """One after the other, each later than the ones before."""
    for name in names:
        await engine.create_session(name)
        await trio.sleep(0.002)


class Lines:
    """The frames of a list's stream, in either form, each held against its description."""

    def __init__(self, response: httpx.Response, lines: AsyncIterator[str]) -> None:
        self._lines = lines
        self._sse = response.headers["content-type"].startswith("text/event-stream")
        self.cursor = ""

    async def next(self) -> tuple[str, Any]:
        """A frame's name, and what it says; the opening of either form is ``open``."""
        with trio.fail_after(PATIENCE):
            name, value = await (self._event() if self._sse else self._line())
        kind = name
        if name != "open" or not self._sse:
            here = {"control": name, **value}
            if self._sse and name in ("sessions", "session", "session-gone"):
                here["list_cursor"] = self.cursor
            validate(here, {"$ref": "#/components/schemas/ListLine"})
        return kind, value

    async def _event(self) -> tuple[str, Any]:
        fields: dict[str, str] = {}
        async for line in self._lines:
            if not line and fields:
                self.cursor = fields.get("id", self.cursor)
                return fields.get("event", "open"), json.loads(fields.get("data", "{}"))
            name, _, value = line.partition(": ")
            if name:
                fields[name] = value
        raise EOFError

    async def _line(self) -> tuple[str, Any]:
        async for line in self._lines:
            if line:
                value = json.loads(line)
                self.cursor = value.get("list_cursor", value.get("cursor", value.get("from", self.cursor)))
                return value.pop("control"), value
        raise EOFError

    async def until(self, wanted: str) -> tuple[list[tuple[str, Any]], Any]:
        """The frames before the first of this name, and what that one says."""
        before = []
        while (frame := await self.next())[0] != wanted:
            before.append(frame)
        return before, frame[1]


@asynccontextmanager
async def lines_of(response: httpx.Response) -> AsyncIterator[AsyncIterator[str]]:
    """The library's generators are ended from the inside: it leaves those that are not exhausted to the collector."""
    lines = response.aiter_lines()
    try:
        yield lines
    finally:
        with trio.CancelScope() as scope, suppress(StopAsyncIteration, httpx.HTTPError, httpx.StreamError):
            scope.cancel()
            while True:
                await anext(lines)


@asynccontextmanager
async def following(client: httpx.AsyncClient, form: str, query: str = "", **headers: str) -> AsyncIterator[Lines]:
    asked = {"Accept": form, **headers}
    async with client.stream("GET", f"/v1/events?{query}", headers=asked, timeout=PATIENCE) as response:
        assert response.status_code == 200
        async with lines_of(response) as lines:
            yield Lines(response, lines)


forms = pytest.mark.parametrize("form", FORMS)


# --- pages


async def test_a_session_is_listed_with_what_went_on_in_it() -> None:
    async with penstock(MemoryLog(), producers=PRODUCERS) as served, served.client() as client:
        await client.put("/v1/sessions/s", json={"metadata": {"k": 1}})
        (fresh,) = (await listed(client))["sessions"]
        assert fresh == {
            "session_id": "s",
            "cursor": fresh["cursor"],
            "metadata": {"k": 1},
            "running": False,
            "approvals": 0,
            "created": fresh["created"],
            "updated": fresh["created"],
        }
        await client.post("/v1/sessions/s/messages", json={"text": "  Who\nwas  it? " + "é🌍" * 100})
        (asked,) = (await listed(client))["sessions"]
        assert asked["title"] == ("Who was it? " + "é🌍" * 100)[:100]
        assert asked["last"] == {"role": "user", "text": asked["title"]}
        assert asked["created"] == fresh["created"] <= asked["updated"]
        async with following(client, FORMS[1]) as lines:
            await lines.until("caught-up")
            await client.post("/v1/sessions/s/generations", json={"producer": "say", "text": "Go on"})
            _, running = await lines.until("session")
            assert running["running"]
            while running["running"]:
                _, running = await lines.until("session")
        assert running["last"] == {"role": "assistant", "text": "Hello there"}
        assert running["title"] == asked["title"]
        assert "generation" not in running
        await client.patch("/v1/sessions/s", json={"metadata": {"title": "Named"}})
        (named,) = (await listed(client))["sessions"]
        assert named["title"] == "Named"


async def test_an_open_approval_is_counted() -> None:
    async def asking(generation: Generation) -> None:
        await generation.approve("delete", arguments={"what": "all"})

    async with penstock(MemoryLog(), producers={"ask": asking}) as served, served.client() as client:
        await client.put("/v1/sessions/s")
        async with following(client, FORMS[0]) as lines:
            await lines.until("caught-up")
            started = (await client.post("/v1/sessions/s/generations", json={"producer": "ask"})).json()
            while not (session := (await lines.until("session"))[1])["approvals"]:
                pass
            assert (session["approvals"], session["running"]) == (1, True)
            assert session["generation"] == {"generation_id": started["generation_id"]}
            (approval,) = (await client.get("/v1/sessions/s")).json()["approvals"]
            answer = {"kind": "approval", "approval_id": approval["approval_id"], "approved": True}
            await client.post(f"/v1/sessions/s/generations/{started['generation_id']}/inputs", json=answer)
            while (session := (await lines.until("session"))[1])["running"]:
                pass
            assert session["approvals"] == 0


async def test_the_last_active_comes_first_and_pages_go_on_behind_it() -> None:
    names = ["a", "c", "b", "e", "d"]
    async with penstock(MemoryLog()) as served, served.client() as client:
        await made(served.engine, *names)
        for limit in (1, 2, 3, 10):
            seen: list[str] = []
            query = f"order=updated&limit={limit}"
            while True:
                page = await listed(client, query)
                seen += ids(page)
                if "next" not in page:
                    break
                assert len(page["sessions"]) == limit
                query = str(httpx.QueryParams({"order": "updated", "limit": limit, "after": page["next"]}))
            assert seen == names[::-1]
        first = await listed(client, "order=updated&limit=2")
        await (await served.engine.session("a")).post("back")
        assert ids(await listed(client, "order=updated&limit=2")) == ["a", "d"]
        rest = str(httpx.QueryParams({"order": "updated", "after": first["next"]}))
        assert ids(await listed(client, rest)) == ["b", "c"]
        assert ids(await listed(client, "order=id")) == ids(await listed(client)) == ["a", "b", "c", "d", "e"]


async def test_by_activity_too_only_what_may_be_read_is_listed() -> None:
    names = ["a", "a-1", "b", "a-2", "c-x", "a.1", "d-x", "ab"]
    cases: dict[tuple[str, ...], list[str]] = {
        ("*",): names[::-1],
        ("a-*",): ["a-2", "a-1"],
        ("b",): ["b"],
        ("b", "a-*", "ab", "a-1"): ["ab", "a-2", "b", "a-1"],
        ("*-x", "a"): ["d-x", "c-x", "a"],
        ("a*1",): ["a.1", "a-1"],
        ("nothing", "0*"): [],
        (): [],
    }
    async with penstock(identity=identity()) as served, served.client() as client:
        await made(served.engine, *names)
        for patterns, expected in cases.items():
            for limit in (1, 2, 100):
                found: list[str] = []
                query = httpx.QueryParams({"order": "updated", "limit": limit})
                while True:
                    page = await listed(client, str(query), **bearer(token(patterns, ["read"])))
                    found += ids(page)
                    if "next" not in page:
                        break
                    assert len(page["sessions"]) == limit
                    query = query.set("after", page["next"])
                assert found == expected, patterns


@pytest.mark.parametrize("order", ["id", "updated"])
async def test_where_most_are_refused_a_page_is_short_and_tells_of_nobody_where_it_ends(order: str) -> None:
    def authorize(who: Principal, action: Scope, session_id: str | None) -> bool:
        return session_id in ("s0000", "s2400")

    async with penstock(identity=identity(authorize=authorize)) as served, served.client() as client:
        for number in range(2500):
            await served.engine.create_session(f"s{number:04}")
        seen: list[str] = []
        places: list[str] = []
        query = httpx.QueryParams({"order": order, "limit": 2})
        while "next" in (page := await listed(client, str(query), **bearer(token(["s*"], ["read"])))):
            seen += ids(page)
            places.append(page["next"])
            query = query.set("after", page["next"])
        seen += ids(page)
        assert sorted(seen) == ["s0000", "s2400"]
        assert len(places) == 2
        assert len({len(place) for place in places}) == 1
        assert not any("s" in place and place.partition("s")[2][:4].isdecimal() for place in places)
        other = httpx.QueryParams({"order": order, "after": places[0][:-4] + "AAAA"})
        answer = await client.get(f"/v1/sessions?{other}", headers=bearer(token(["s*"], ["read"])))
        assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_CURSOR")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("order=name", "INVALID_BODY"),
        ("order=id&order=id", "INVALID_BODY"),
        ("order=", "INVALID_BODY"),
        ("order=updated&after=demo", "INVALID_CURSOR"),
        ("order=updated&after=2026-99-99T00:00:00.000Zdemo", "INVALID_CURSOR"),
        ("order=updated&after=2026-01-01T00:00:00.000Za%20b", "INVALID_ID"),
        ("order=updated&after=", "INVALID_CURSOR"),
        ("after=*", "INVALID_CURSOR"),
    ],
)
async def test_a_query_that_makes_no_sense_is_refused(query: str, code: str) -> None:
    async with penstock(MemoryLog()) as served, served.client() as client:
        answer = await client.get(f"/v1/sessions?{query}")
        assert (answer.status_code, answer.json()["code"]) == (400, code)


async def test_fields_of_a_query_that_there_are_not_are_refused_by_name() -> None:
    async with penstock(MemoryLog()) as served, served.client() as client:
        await client.put("/v1/sessions/s")
        for method, path, field in (
            ("GET", "/v1/sessions?limit=1&sort=updated", "sort"),
            ("GET", "/v1/sessions/s?after=x", "after"),
            ("GET", "/v1/sessions/s/events?live=false&snapshots=true", "snapshots"),
            ("GET", "/v1/events?snapshot=true", "snapshot"),
            ("PUT", "/v1/sessions/s?metadata=x", "metadata"),
            ("POST", "/v1/sessions/s/messages?text=x", "text"),
            ("POST", "/v1/sessions/s/chunks?x=1", "x"),
            ("DELETE", "/v1/sessions/s?force=1", "force"),
            ("POST", "/v1/tickets?ttl=1", "ttl"),
        ):
            answer = await client.request(method, path)
            assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_BODY"), path
            assert repr(field) in answer.json()["detail"]
        assert (await client.get("/v1/sessions/s")).status_code == 200
        assert (await client.get("/healthz?x=1")).status_code == 200  # those are any monitor's


# --- the stream


@forms
async def test_a_stream_of_the_list_begins_with_a_page_and_tells_what_changes(form: str) -> None:
    async with penstock(MemoryLog()) as served, served.client() as client:
        await made(served.engine, "a", "b", "c")
        async with following(client, form, "limit=2") as lines:
            assert (await lines.next())[0] == "open"
            name, page = await lines.next()
            assert (name, ids(page)) == ("sessions", ["c", "b"])
            rest = httpx.QueryParams({"order": "updated", "after": page["next"]})
            assert ids(await listed(client, str(rest))) == ["a"]
            assert (await lines.next())[0] == "caught-up"
            await client.put("/v1/sessions/new", json={"metadata": {"title": "T"}})
            name, session = await lines.next()
            assert (name, session["session_id"], session["title"]) == ("session", "new", "T")
            await client.post("/v1/sessions/a/messages", json={"text": "hi"})
            name, session = await lines.next()
            assert (name, session["session_id"], session["last"]["text"]) == ("session", "a", "hi")
            assert session == (await listed(client, "limit=1"))["sessions"][0] | {
                field: session[field] for field in session.keys() & {"list_cursor"}
            }
            await client.delete("/v1/sessions/b")
            name, gone = await lines.next()
            assert (name, gone["session_id"]) == ("session-gone", "b")


@forms
async def test_a_stream_that_is_not_live_ends_when_it_is_caught_up(form: str) -> None:
    async with penstock(MemoryLog()) as served, served.client() as client:
        await made(served.engine, "a")
        async with following(client, form, "live=false") as lines:
            assert [(await lines.next())[0] for _ in range(3)] == ["open", "sessions", "caught-up"]
            with pytest.raises(EOFError):
                await lines.next()


@forms
async def test_whoever_comes_back_with_a_cursor_gets_what_changed_and_no_page(form: str) -> None:
    async with penstock(MemoryLog()) as served, served.client() as client:
        await made(served.engine, "a", "b", "c")
        async with following(client, form) as lines:
            await lines.until("caught-up")
            cursor = lines.cursor
        for _ in range(3):
            await (await served.engine.session("a")).post("x")
        await served.engine.delete_session("b")
        async with following(client, form, **{"Last-Event-ID": cursor}) as lines:
            before, _ = await lines.until("caught-up")
            assert [(name, value.get("session_id")) for name, value in before] == [
                ("open", None),
                ("session", "a"),
                ("session-gone", "b"),
            ]
            cursor = lines.cursor
        async with following(client, form, f"after={cursor}") as lines:
            before, _ = await lines.until("caught-up")
            assert [name for name, _ in before] == ["open"]


@forms
@pytest.mark.parametrize(
    ("cursor", "reason"), [("0123456789abcdef-0000000000000001", "unknown_epoch"), ("past", "past_tail")]
)
async def test_a_cursor_that_fits_nothing_is_a_gap_and_the_page_follows(form: str, cursor: str, reason: str) -> None:
    async with penstock(MemoryLog()) as served, served.client() as client:
        await made(served.engine, "a")
        async with following(client, form) as lines:
            await lines.until("caught-up")
            if cursor == "past":
                cursor = f"{lines.cursor.partition('-')[0]}-{10**15:016}"
        async with following(client, form, f"after={cursor}") as lines:
            before, gap = await lines.until("gap")
            assert [name for name, _ in before] == ["open"]
            assert (gap["reason"], gap["asked"]) == (reason, cursor)
            assert (await lines.next())[0] == "sessions"
            assert (await lines.next())[0] == "caught-up"


async def test_what_is_not_known_any_more_is_a_gap() -> None:
    async with penstock(MemoryLog(), config=Config(watch_kept=3)) as served, served.client() as client:
        async with following(client, FORMS[1]) as lines:
            await lines.until("caught-up")
            cursor = lines.cursor
        await made(served.engine, *"abcd")
        async with following(client, FORMS[1], f"after={cursor}") as lines:
            _, gap = await lines.until("gap")
            assert gap["reason"] == "expired"
            assert ids((await lines.until("sessions"))[1]) == ["d", "c", "b", "a"]


@forms
async def test_a_stream_of_the_list_tells_of_what_its_token_may_read(form: str) -> None:
    def authorize(who: Principal, action: Scope, session_id: str | None) -> bool:
        return session_id != "a-no"

    async with penstock(identity=identity(authorize=authorize)) as served, served.client() as client:
        await made(served.engine, "a-1", "a-no", "b-1")
        async with following(client, form, **bearer(token(["a-*"], ["read"]))) as lines:
            assert ids((await lines.until("sessions"))[1]) == ["a-1"]
            await lines.until("caught-up")
            for name in ("b-1", "a-no", "b-2", "a-2"):
                await (await served.engine.create_session(name)).post("x")
            await served.engine.delete_session("a-no")
            await served.engine.delete_session("b-1")
            await served.engine.delete_session("a-1")
            before, gone = await lines.until("session-gone")
            assert {(name, value["session_id"]) for name, value in before} == {("session", "a-2")}
            assert gone["session_id"] == "a-1"
        answer = await client.get("/v1/events", headers=bearer(token(["*"], ["write"])))
        assert answer.status_code == 403
        assert (await client.get("/v1/events")).status_code == 401


@forms
async def test_where_the_application_cannot_say_who_may_read_the_stream_of_the_list_ends(form: str) -> None:
    def authorize(who: Principal, action: Scope, session_id: str | None) -> bool:
        if session_id == "bug":
            raise LookupError("a bug of the application's")
        return True

    async with penstock(identity=identity(authorize=authorize)) as served, served.client() as client:
        await made(served.engine, "a")
        async with following(client, form, **bearer(token())) as lines:
            await lines.until("caught-up")
            await served.engine.create_session("bug")
            before, said = await lines.until("degraded")
            assert (before, said) == ([], {"code": "INTERNAL"})
            with pytest.raises(EOFError):
                await lines.next()


@forms
async def test_an_application_that_takes_its_time_for_each_session_has_it(form: str) -> None:
    async def authorize(who: Principal, action: Scope, session_id: str | None) -> bool:
        await trio.sleep(0.02)
        return True

    names = [f"s{number:02}" for number in range(40)]
    async with penstock(identity=identity(authorize=authorize), heartbeat=0.3) as served, served.client() as client:
        for name in names:
            await served.engine.create_session(name)
        async with following(client, form, **bearer(token())) as lines:
            assert sorted(ids((await lines.until("sessions"))[1])) == names
            await lines.until("caught-up")


@forms
async def test_a_stream_of_the_list_ends_with_its_token_and_with_the_server(form: str) -> None:
    async with penstock(identity=identity()) as served, served.client() as client:
        async with following(client, form, **bearer(token(ttl=1))) as lines:
            _, end = await lines.until("drain")
            assert end["reason"] == "token-expired"
            with pytest.raises(EOFError):
                await lines.next()
        async with following(client, form, **bearer(token())) as lines:
            await lines.until("caught-up")
            await served.engine.drain()
            _, end = await lines.until("drain")
            assert end["reason"] == "shutdown"
            with pytest.raises(EOFError):
                await lines.next()


async def test_a_silent_stream_of_the_list_says_that_it_lives() -> None:
    async with penstock(MemoryLog(), heartbeat=0.05) as served, served.client() as client:
        for form, sign in zip(FORMS, (": ping", ""), strict=True):
            async with (
                client.stream("GET", "/v1/events", headers={"Accept": form}) as response,
                lines_of(response) as lines,
            ):
                seen: list[str] = []
                with trio.fail_after(PATIENCE):
                    while seen.count(sign) < (2 if sign else 3):
                        seen.append(await anext(lines))


@forms
async def test_signs_of_life_come_as_often_as_they_are_asked_for(form: str) -> None:
    async with penstock(MemoryLog(), heartbeat=PATIENCE) as served, served.client() as client:
        asked = client.stream("GET", "/v1/events?heartbeat=1", headers={"Accept": form})
        async with asked as response, lines_of(response) as lines:
            with trio.fail_after(PATIENCE / 2):
                async for line in lines:
                    if line == ": ping" or (form == FORMS[1] and not line):
                        break
        for wrong in ("0", "3601", "1.5", "1&heartbeat=2"):
            answer = await client.get(f"/v1/events?heartbeat={wrong}")
            assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_BODY")


# --- the WebSocket


async def test_a_socket_watches_the_list_beside_its_sessions() -> None:
    async with penstock(MemoryLog(), producers=PRODUCERS) as served, served.socket() as socket:
        await made(served.engine, "a", "b")
        answer = await socket.ask(op="watch", id=1, limit=1)
        assert answer["op"] == "reply"
        _, page = await socket.until("sessions")
        assert ids(page) == ["b"]
        assert "next" in page
        _, caught_up = await socket.until("caught-up")
        assert "session_id" not in caught_up
        again = await socket.ask(op="watch", id=2)
        assert again["error"]["code"] == "INVALID_BODY"  # type: ignore[index]
        await socket.ask(op="subscribe", id=3, session_id="a")
        await socket.ask(op="post", id=4, session_id="a", text="hi")
        _, session = await socket.until("session")
        assert (session["session_id"], session["last"]) == ("a", {"role": "user", "text": "hi"})
        cursor = session["list_cursor"]
        assert (await socket.ask(op="unwatch", id=5))["result"] == {}
        assert (await socket.ask(op="unwatch", id=6))["result"] == {}
        await served.engine.delete_session("b")
        answer = await socket.ask(op="watch", id=7, after=cursor)
        assert answer["result"] == {"cursor": cursor}
        before, caught_up = await socket.until("caught-up")
        assert [(frame["op"], frame["session_id"]) for frame in before] == [("session-gone", "b")]
        for unfit in ({"limit": 0}, {"limit": 1001}, {"after": "x"}, {"nonsense": 1}):
            refused = await socket.ask(op="watch", id=8, **unfit)
            assert refused["op"] == "error"
        await served.engine.drain()
        await socket.until("drain")


async def test_a_socket_hears_of_what_its_token_may_read_now() -> None:
    async with penstock(identity=identity()) as served, served.socket() as socket:
        await made(served.engine, "a", "b")
        await socket.ask(op="auth", id=1, token=token(["a", "b", "c"], ["read"]))
        await socket.ask(op="watch", id=2)
        _, page = await socket.until("sessions")
        assert sorted(ids(page)) == ["a", "b"]
        await socket.until("caught-up")
        await socket.ask(op="auth", id=3, token=token(["a"], ["read"]))
        await (await served.engine.session("b")).post("x")
        await (await served.engine.session("a")).post("x")
        before, session = await socket.until("session")
        assert (before, session["session_id"]) == ([], "a")
    async with penstock(identity=identity()) as served, served.socket() as socket:
        await socket.ask(op="auth", id=1, token=token(["*"], ["write"]))
        refused = await socket.ask(op="watch", id=2)
        assert refused["error"]["code"] == "FORBIDDEN"  # type: ignore[index]
