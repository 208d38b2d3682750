"""A token for one session is nothing to another: on every route, in every frame, by every ticket.

One table says what each request takes. A route or an operation that is not in it fails here, so that nobody adds one
without saying who may use it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
import trio
import trio_websocket
from attrs import frozen

from penstock.adapters.access import Identity, Principal, Scope
from penstock.adapters.http import create_app
from penstock.adapters.watching.metrics import Metrics
from penstock.adapters.websocket.holder import right
from penstock.engine import JSON, ApprovalRequested, Generation, MemoryLog, Session
from tests.adapters.credentials import ALL, bearer, identity, token
from tests.adapters.serving import Penstock, Socket, penstock

GID = "0198c0de-7a11-7abc-8def-0123456789ab"
MID = "0198c0de-7a12-7abc-8def-0123456789ab"
CHUNK: dict[str, JSON] = {"generation_id": GID, "data": {"text": "x"}}


@frozen
class Ask:
    """A request about the session ``{sid}``, and what it takes of a token."""

    method: str
    rule: str
    needs: tuple[str, ...]
    body: JSON = None
    also: str = ""  # another case of the same route

    @property
    def name(self) -> str:
        return f"{self.method} {self.rule} {self.also}".strip()

    def path(self, session_id: str) -> str:
        held = {"session_id": session_id, "generation_id": GID, "message_id": MID, "file_id": "f"}
        held |= {"actor_id": "ann", "device_id": "phone"}
        return re.sub(r"<(\w+)>", lambda found: held[found[1]], self.rule)


S = "/v1/sessions/<session_id>"
G = f"{S}/generations/<generation_id>"

ASKS = [
    Ask("PUT", S, ("write",)),
    Ask("PATCH", S, ("write",), {"metadata": {"x": 1}}),
    Ask("GET", S, ("read",)),
    Ask("GET", S, ("read",), also="?limit=x"),
    Ask("DELETE", S, ("admin",)),
    Ask("POST", f"{S}/reset", ("admin",)),
    Ask("POST", f"{S}/fork", ("read", "write"), {}),
    Ask("POST", f"{S}/messages", ("write",), {"text": "x"}),
    Ask("POST", f"{S}/messages", ("produce",), {"text": "x", "role": "assistant"}, "as the assistant"),
    Ask("POST", f"{S}/messages/<message_id>/retract", ("write",)),
    Ask("GET", f"{S}/messages/<message_id>/versions", ("read",)),
    Ask("POST", f"{S}/messages/<message_id>/restore", ("write",)),
    Ask("POST", f"{S}/files", ("write",), {"any": "thing"}),
    Ask("GET", f"{S}/files/<file_id>", ("read",)),
    Ask("POST", f"{S}/generations", ("write",), {"text": "x"}),
    Ask("POST", f"{S}/generations", ("write",), {"message": {"blocks": []}}, "with a message"),
    Ask("POST", f"{S}/generations", ("write", "produce"), {"producer": "remote"}, "remote"),
    Ask("POST", f"{S}/generations", ("write",), {"nonsense": 1}, "malformed"),
    Ask("GET", G, ("read",)),
    Ask("POST", f"{G}/inputs", ("write",), {"kind": "steer"}),
    Ask("POST", f"{G}/inputs", ("write", "produce"), {"kind": "steer", "by": "bob"}, "for another"),
    Ask(
        "POST",
        f"{G}/inputs",
        ("write", "produce"),
        {"kind": "approval", "approval_id": "x", "approved": True, "by": "bob"},
        "an approval for another",
    ),
    Ask("POST", f"{S}/stop", ("write",)),
    Ask("POST", f"{S}/queue/next", ("write",)),
    Ask("DELETE", f"{S}/queue/<generation_id>", ("write",)),
    Ask("POST", f"{S}/chunks", ("produce",), CHUNK),
    Ask("POST", f"{S}/chunks/batch", ("produce",), {"chunks": [CHUNK]}),
    Ask("POST", f"{G}/finish", ("produce",)),
    Ask("GET", f"{S}/presence", ("read",)),
    Ask("PUT", f"{S}/presence/<actor_id>/<device_id>", ("write",), {}),
    Ask("DELETE", f"{S}/presence/<actor_id>/<device_id>", ("write",)),
    Ask("DELETE", f"{S}/presence/<actor_id>", ("write",)),
    Ask("GET", f"{S}/events", ("read",), also="?live=false"),
    Ask("GET", f"{S}/events", ("read",), also="?live=false&snapshot=true"),
]

# What is not about one session, and what of it takes a token.
OTHERS = {
    ("GET", "/v1/sessions"): True,
    ("GET", "/v1/producers"): True,
    ("GET", "/v1/events"): True,
    ("POST", "/v1/tickets"): True,
    ("GET", "/metrics"): True,
    ("GET", "/healthz"): False,
    ("GET", "/readyz"): False,
    ("GET", "/v1/ws"): False,
    ("GET", "/openapi.json"): False,
    ("GET", "/docs"): False,
    ("GET", "/"): False,
    ("GET", "/<name>"): False,
}

FRAMES: list[tuple[dict[str, JSON], tuple[str, ...]]] = [
    ({"op": "subscribe"}, ("read",)),
    ({"op": "subscribe", "after": "now", "snapshot": True}, ("read",)),
    ({"op": "start", "text": "x"}, ("write",)),
    ({"op": "start", "message": {"blocks": []}}, ("write",)),
    ({"op": "start", "producer": "remote"}, ("write", "produce")),
    ({"op": "stop"}, ("write",)),
    ({"op": "post", "text": "x"}, ("write",)),
    ({"op": "post", "text": "x", "role": "system"}, ("produce",)),
    ({"op": "input", "generation_id": GID, "kind": "steer"}, ("write",)),
    ({"op": "input", "generation_id": GID, "kind": "steer", "by": "bob"}, ("write", "produce")),
    ({"op": "chunks", "chunks": [CHUNK]}, ("produce",)),
    ({"op": "finish", "generation_id": GID}, ("produce",)),
    ({"op": "presence", "actor_id": "ann", "device_id": "phone"}, ("write",)),
    ({"op": "presence", "actor_id": "bob", "device_id": "phone"}, ("write", "produce")),
]

asks = pytest.mark.parametrize("ask", ASKS, ids=[ask.name for ask in ASKS])
frames = pytest.mark.parametrize(("frame", "needs"), FRAMES, ids=[str(frame) for frame, _ in FRAMES])


async def talk(generation: Generation) -> AsyncIterator[str]:
    yield "a secret of b"
    await trio.sleep_forever()


@asynccontextmanager
async def world(own: Identity | None = None) -> AsyncIterator[tuple[Penstock, httpx.AsyncClient]]:
    """Session `b` is there, with an answer that goes on; `d` was deleted; `m` never was. So is `a`."""
    async with penstock(MemoryLog(), producers={"talk": talk}, identity=own or identity()) as served:
        for name in "abd":
            session = await served.engine.create_session(name, metadata={"secret": "of b"})
            await session.start("talk", text="hello", generation_id=GID if name == "b" else None)
            if name == "d":
                await session.delete()
        async with served.client() as client:
            yield served, client


async def send(client: httpx.AsyncClient, ask: Ask, session_id: str, made: str | None) -> httpx.Response:
    query = ask.also if ask.also.startswith("?") else ""
    headers = {} if made is None else bearer(made)
    return await client.request(ask.method, ask.path(session_id) + query, json=ask.body, headers=headers)


def said(answer: httpx.Response, session_id: str) -> tuple[int, str, str]:
    """All of an answer that could tell something, with the session that was asked for as `…`.

    Whether the connection is kept says only whether the request's body had come before the answer.
    """
    aside = ("date", "x-request-id", "connection")
    kept = sorted((name, value) for name, value in answer.headers.items() if name not in aside)
    return answer.status_code, str(kept), re.sub(rf'"session_id":"{session_id}"', '"session_id":"…"', answer.text)


async def tail(served: Penstock, session_id: str) -> str:
    session: Session = await served.engine.session(session_id)
    return f"{await session.cursor()} {(await session.snapshot()).to_json()} {await session.presence()}"


async def test_every_route_is_in_the_table() -> None:
    async with penstock() as served:
        app = create_app(served.engine, metrics=Metrics())
        found = {
            (method, rule.rule)
            for rule in app.url_map.iter_rules()
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        }
    assert found <= {(ask.method, ask.rule) for ask in ASKS} | OTHERS.keys()


async def test_every_frame_is_in_the_table() -> None:
    async with penstock() as served, served.socket() as socket:
        error = (await socket.ask(op="?", id=1, session_id="a"))["error"]
    assert isinstance(error, dict)
    ops = set(str(error["detail"]).removeprefix("op must be one of ").split(", "))
    assert ops <= {str(frame["op"]) for frame, _ in FRAMES} | {"unsubscribe", "watch", "unwatch", "ping"}
    assert right("something new", {}) == "admin"


# --- HTTP


@asks
async def test_without_a_token_nobody_gets_anywhere(ask: Ask) -> None:
    async with world() as (served, client):
        before = await tail(served, "b")
        answers = [await send(client, ask, name, None) for name in "bmd"]
        assert {answer.status_code for answer in answers} == {401}
        assert answers[0].headers["www-authenticate"] == "Bearer"
        assert answers[0].json()["code"] == "UNAUTHENTICATED"
        assert len({said(answer, name) for answer, name in zip(answers, "bmd", strict=True)}) == 1
        assert await tail(served, "b") == before


# R-5 R-113
@asks
async def test_a_token_for_one_session_neither_reads_nor_writes_nor_learns_of_another(ask: Ask) -> None:
    async with world() as (served, client):
        before = await tail(served, "b")
        made = token(["a", "a-*"], ALL)
        answers = [await send(client, ask, name, made) for name in "bmd"]
        assert {answer.status_code for answer in answers} == {403}
        assert answers[0].json()["code"] == "FORBIDDEN"
        assert len({said(answer, name) for answer, name in zip(answers, "bmd", strict=True)}) == 1
        assert "secret" not in answers[0].text
        if ask.method == "GET":
            heads = [await client.head(ask.path(name), headers=bearer(made)) for name in "bmd"]
            assert {head.status_code for head in heads} == {403}
            assert len({said(head, name) for head, name in zip(heads, "bmd", strict=True)}) == 1
        assert await tail(served, "b") == before


@asks
async def test_each_scope_that_is_missing_is_missed_and_no_other(ask: Ask) -> None:
    async with world() as (served, client):
        before = await tail(served, "b")
        for missing in ask.needs:
            lacking = [scope for scope in ALL if scope not in (missing, "admin")]
            answer = await send(client, ask, "b", token(["b"], lacking))
            assert answer.status_code == 403, missing
            assert said(answer, "b") == said(await send(client, ask, "m", token(["*"], lacking)), "m")
        assert await tail(served, "b") == before
        made = token(["b", "0*"], ask.needs)  # a fork's minted id begins with 0, as UUIDs of this century do
        if "remote" not in ask.also and "chunks" not in ask.rule and "finish" not in ask.rule:
            assert (await send(client, ask, "b", made)).status_code not in (401, 403)
        else:
            assert (await send(client, ask, "b", made)).status_code != 403


@asks
async def test_a_hook_that_says_no_is_heard_everywhere(ask: Ask) -> None:
    def authorize(who: Principal, action: Scope, session_id: str | None) -> bool:
        return session_id != "b"

    async with world(identity(authorize=authorize)) as (_, client):
        assert (await send(client, ask, "b", token())).status_code == 403


@pytest.mark.parametrize(("method", "path"), [key for key, needed in OTHERS.items() if needed])
async def test_what_is_not_about_a_session_takes_a_token_too(method: str, path: str) -> None:
    async with world() as (_, client):
        assert (await client.request(method, path)).status_code == 401
        assert (await client.request(method, path, headers=bearer(token(ttl=-9)))).status_code == 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/", "/penstock.js"])
async def test_the_page_and_the_state_of_the_server_take_none(path: str) -> None:
    async with world() as (_, client):
        assert (await client.get(path)).status_code == 200


async def test_metrics_are_for_who_administers_every_session() -> None:
    async with world() as (_, client):
        for made, status in (
            (token(["*"], ["admin"]), 200),
            (token(["a*"], ["admin"]), 403),
            (token(["*"], ALL[:3]), 403),
        ):
            assert (await client.get("/metrics", headers=bearer(made))).status_code == status


async def test_a_list_shows_what_may_be_read_and_pages_over_the_rest() -> None:
    names = ["a", "a-1", "a-2", "a.1", "ab", "b", "b-1", "c", "x-t", "y-t", "z"]
    cases: dict[tuple[str, ...], list[str]] = {
        ("*",): names,
        ("a-*",): ["a-1", "a-2"],
        ("a",): ["a"],
        ("a", "a-*", "a-1", "c"): ["a", "a-1", "a-2", "c"],
        ("*-t", "b"): ["b", "x-t", "y-t"],
        ("a*1",): ["a-1", "a.1"],
        ("nothing", "0*", "zz"): [],
        (): [],
    }
    async with penstock(identity=identity()) as served, served.client() as client:
        for name in names:
            await served.engine.create_session(name)
        for patterns, expected in cases.items():
            headers = bearer(token(patterns, ["read"]))
            for limit in (1, 2, 100):
                found: list[str] = []
                query = f"limit={limit}"
                while True:
                    page = (await client.get(f"/v1/sessions?{query}", headers=headers)).json()
                    found += [session["session_id"] for session in page["sessions"]]
                    if "next" not in page:
                        break
                    assert page["next"] in expected
                    assert len(page["sessions"]) == limit
                    query = f"limit={limit}&after={page['next']}"
                assert found == expected, patterns
        everywhere = (await client.get("/v1/sessions?after=b", headers=bearer(token(["a", "c"], ["read"])))).json()
        assert [session["session_id"] for session in everywhere["sessions"]] == ["c"]
        assert (await client.get("/v1/sessions", headers=bearer(token(["*"], ["write"])))).status_code == 403


async def test_a_list_leaves_out_what_the_hook_refuses() -> None:
    async def authorize(who: Principal, action: Scope, session_id: str | None) -> bool:
        return session_id != "b"

    async with world(identity(authorize=authorize)) as (_, client):
        page = (await client.get("/v1/sessions?limit=1", headers=bearer(token()))).json()
        assert [session["session_id"] for session in page["sessions"]] == ["a"]
        assert "next" not in page


async def test_a_fork_goes_only_where_one_may_write() -> None:
    async with world() as (_, client):
        made = bearer(token(["a", "a-*"], ["read", "write"]))
        answers = [await client.post("/v1/sessions/a/fork", json={"session_id": name}, headers=made) for name in "bmd"]
        assert {answer.status_code for answer in answers} == {403}
        assert len({answer.content for answer in answers}) == 1
        assert (await client.post("/v1/sessions/a/fork", json={}, headers=made)).status_code == 403
        forked = await client.post("/v1/sessions/a/fork", json={"session_id": "a-1"}, headers=made)
        assert forked.status_code == 201
        assert (await client.get("/v1/sessions/a-1", headers=made)).status_code == 200


async def test_a_key_of_one_principal_is_not_another_s() -> None:
    async with world() as (_, client):
        body = {"text": "hi"}

        async def start(subject: str) -> httpx.Response:
            headers = {**bearer(token(subject=subject)), "Idempotency-Key": "k"}
            return await client.post("/v1/sessions/a/generations", json=body, headers=headers)

        first, again, other = await start("ann"), await start("ann"), await start("bob")
        assert (first.status_code, again.status_code, other.status_code) == (201, 200, 201)
        assert first.json()["generation_id"] == again.json()["generation_id"] != other.json()["generation_id"]


async def test_who_approves_is_who_asks_unless_one_may_speak_for_others() -> None:
    async def ask(generation: Generation) -> None:
        for _ in range(2):
            await generation.approve("deploy")

    async with penstock(producers={"ask": ask}, identity=identity()) as served, served.client() as client:
        session = await served.engine.create_session("a")
        started = await session.start("ask")
        path = f"/v1/sessions/a/generations/{started.generation_id}/inputs"
        for subject, scopes, said_by, expected in (
            ("ann", ["write"], None, "ann"),
            ("backend", ["write", "produce"], "carol", "carol"),
        ):
            open_: JSON = []
            async with session.subscribe() as subscription:
                async for event in subscription:
                    if isinstance(event.data, ApprovalRequested) and (await session.snapshot()).approvals:
                        open_ = (await session.snapshot()).to_json()["approvals"]
                        break
            assert isinstance(open_, list)
            assert isinstance(open_[0], dict)
            body: dict[str, JSON] = {"kind": "approval", "approval_id": open_[0]["approval_id"], "approved": True}
            if said_by is not None:
                refused = {**body, "by": said_by}
                answer = await client.post(path, json=refused, headers=bearer(token(scopes=["write"])))
                assert answer.status_code == 403
                body["by"] = said_by
            answer = await client.post(path, json=body, headers=bearer(token(scopes=scopes, subject=subject)))
            assert answer.status_code == 202
            log = (await client.get("/v1/sessions/a/events?live=false", headers=bearer(token()))).text
            assert re.findall(r'"approval.resolved".*?"by":"(\w+)"', log)[-1] == expected


async def test_which_producers_there_are_is_told_to_any_token() -> None:
    async with world() as (_, client):
        for scope in ALL:
            answer = await client.get("/v1/producers", headers=bearer(token(["x"], [scope])))
            assert answer.json() == {"producers": [{"name": "talk"}], "default": "talk"}


async def test_presence_is_one_s_own() -> None:
    async with world() as (_, client):
        headers = bearer(token(["b"], ["write"], subject="ann"))
        assert (await client.put("/v1/sessions/b/presence/ann/phone", json={}, headers=headers)).status_code == 200
        for method, path in (("PUT", "bob/phone"), ("DELETE", "bob/phone"), ("DELETE", "bob")):
            answer = await client.request(method, f"/v1/sessions/b/presence/{path}", headers=headers)
            assert answer.status_code == 403
        backend = bearer(token(["b"], ["write", "produce"], subject="backend"))
        assert (await client.put("/v1/sessions/b/presence/bob/phone", json={}, headers=backend)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", f"Bearer {token()}"), ("Authorization", f"Bearer {token()}")],
        [("Authorization", f"Basic {token()}")],
        [("Authorization", f"Bearer {token()}, Bearer {token()}")],
        [("Authorization", "Bearer " + "é" * 10)],
        [("Authorization", "Bearer " + "A" * 14_000)],
        [("X-Authorization", f"Bearer {token()}")],
        [("Cookie", f"token={token()}")],
    ],
)
async def test_a_token_comes_once_and_in_its_own_header(headers: list[tuple[str, str]]) -> None:
    async with world() as (_, client):
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        answer = await client.get("/v1/sessions/a", headers=raw)
        assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHENTICATED")


async def test_a_token_in_the_query_is_none() -> None:
    async with world() as (_, client):
        for name in ("token", "access_token", "ticket"):
            assert (await client.get(f"/v1/sessions/a?{name}={token()}")).status_code == 401
            assert (await client.get(f"/v1/sessions/a/events?{name}={token()}")).status_code == 401


# --- tickets


async def ticket(client: httpx.AsyncClient, made: str, **body: JSON) -> httpx.Response:
    return await client.post("/v1/tickets", json=body, headers=bearer(made))


async def test_a_ticket_is_for_no_other_session_no_more_scopes_and_no_unknown_shape() -> None:
    async with world() as (_, client):
        made = token(["a", "a-*"], ["read", "write"])
        for sessions in (["b"], ["m"], ["*"], ["a*"], ["a", "b"]):
            answer = await ticket(client, made, sessions=sessions, scopes=["read"])
            assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")
        assert (await ticket(client, made, sessions=["a"], scopes=["produce"])).status_code == 403
        for sessions in (["a?"], ["[ab]"], ["a/b"], [], ["ä"]):
            assert (await ticket(client, made, sessions=sessions, scopes=["read"])).status_code == 400
        fine = await ticket(client, made, sessions=["a", "a-*"], scopes=["read", "write"], ttl=5)
        assert fine.status_code == 201
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", fine.json()["expires_at"])


async def test_a_ticket_opens_the_stream_of_its_session_again_and_again_and_nothing_else() -> None:
    async with world() as (_, client):
        made = (await ticket(client, token(["a", "b"]), sessions=["a"], scopes=["read"])).json()["ticket"]
        query = f"?live=false&ticket={made}"
        for _ in range(2):
            assert (await client.get(f"/v1/sessions/a/events{query}")).status_code == 200
        refused = [await client.get(f"/v1/sessions/{name}/events{query}") for name in "bmd"]
        assert {answer.status_code for answer in refused} == {403}
        assert len({said(answer, name) for answer, name in zip(refused, "bmd", strict=True)}) == 1
        for path in ("/v1/sessions/a", "/v1/sessions", "/v1/sessions/a/presence"):
            assert (await client.get(path + query)).status_code == 401
            assert (await client.get(path, headers=bearer(made))).status_code == 401
        assert (
            await client.post(f"/v1/tickets{query}", json={"sessions": ["a"], "scopes": ["read"]})
        ).status_code == 401
        # One at a time, and not with a token beside it.
        assert (await client.get(f"/v1/sessions/a/events{query}&ticket={made}")).status_code == 401
        assert (await client.get(f"/v1/sessions/a/events{query}", headers=bearer(token()))).status_code == 401


async def test_a_ticket_for_more_than_one_session_opens_no_stream() -> None:
    async with world() as (_, client):
        for body in ({"sessions": ["a*"], "scopes": ["read"]}, {"sessions": ["a"], "scopes": ["read", "write"]}):
            made = (await client.post("/v1/tickets", json=body, headers=bearer(token()))).json()["ticket"]
            assert (await client.get(f"/v1/sessions/a/events?live=false&ticket={made}")).status_code == 401


# --- WebSocket


@asynccontextmanager
async def socket(served: Penstock, made: str) -> AsyncIterator[Socket]:
    async with served.socket(headers=[(b"authorization", f"Bearer {made}".encode())]) as opened:
        yield opened


def error_of(answer: Mapping[str, object], session_id: str = "") -> tuple[str, str]:
    error = answer["error"]
    assert isinstance(error, dict)
    return str(error["code"]), re.sub(rf"'session_id': '{session_id}'", "…", str(error))


@frames
async def test_no_frame_reads_writes_or_learns_of_another_session(
    frame: dict[str, JSON], needs: tuple[str, ...]
) -> None:
    async with world() as (served, _):
        before = await tail(served, "b")
        async with socket(served, token(["a", "a-*"], ALL)) as opened:
            answers = [await opened.ask(**frame, id=1, session_id=name) for name in "bmd"]
        told = {error_of(answer, name) for answer, name in zip(answers, "bmd", strict=True)}
        assert len(told) == 1
        assert told.pop()[0] == "FORBIDDEN"
        assert await tail(served, "b") == before


@frames
async def test_each_scope_that_a_frame_lacks_is_missed(frame: dict[str, JSON], needs: tuple[str, ...]) -> None:
    async with world() as (served, _):
        for missing in needs:
            lacking = [scope for scope in ALL if scope not in (missing, "admin")]
            async with socket(served, token(["b"], lacking)) as opened:
                answer = await opened.ask(**frame, id=1, session_id="b")
            if "error" in answer:
                known = error_of(answer)[0]
                assert known == "FORBIDDEN" or "op must be" in str(answer)
            else:
                pytest.fail(f"{frame} without {missing}: {answer}")
        async with socket(served, token(["b"], needs)) as opened:
            answer = await opened.ask(**frame, id=1, session_id="b")
            assert "error" not in answer or error_of(answer)[0] != "FORBIDDEN"


@pytest.mark.parametrize(
    "first",
    [
        {"op": "subscribe", "session_id": "b"},
        {"op": "ping"},
        {"op": "auth"},
        {"op": "auth", "token": ""},
        {"op": "auth", "token": token(ttl=-9)},
        {"op": "auth", "token": token(key=b"x" * 32)},
        {"op": "auth", "token": 5},
        {"op": "nothing"},
        {"nonsense": True},
        {"op": "auth", "token": "x" * 20_000},
    ],
)
async def test_before_a_good_token_there_is_nothing_on_a_socket(first: dict[str, object]) -> None:
    async with world() as (served, _), served.socket() as opened:
        await opened.send(**first)
        answer = await opened.receive()
        assert error_of(answer)[0] == "UNAUTHENTICATED"
        assert await opened.closed() == 4401


async def test_a_socket_begins_with_its_token() -> None:
    async with world() as (served, _), served.socket() as opened:
        answer = await opened.ask(op="auth", id="t", token=token(["a"], ["read"]))
        assert answer["result"] == {"subject": "ann"}
        assert "result" in await opened.ask(op="subscribe", id=1, session_id="a")
        assert error_of(await opened.ask(op="subscribe", id=2, session_id="b"))[0] == "FORBIDDEN"


@pytest.mark.parametrize("header", ["Bearer x", "Bearer", "Basic x", f"Bearer {token(ttl=-9)}"])
async def test_a_bad_token_in_the_handshake_is_refused_with_it(header: str) -> None:
    async with world() as (served, _):
        assert await _handshake(served, "", f"Authorization: {header}\r\n") == 401


async def _handshake(served: Penstock, query: str, extra: str = "") -> int:
    raw = (
        f"GET /v1/ws{query} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extra}\r\n"
    )
    async with await served.served.connect() as stream:
        await stream.send_all(raw.encode())
        return int((await stream.receive_some()).split()[1])


async def test_a_ticket_opens_one_socket_and_its_token_s_end_is_the_socket_s() -> None:
    async with world() as (served, client):
        made = (await ticket(client, token(["a"]), sessions=["a"], scopes=["read"])).json()["ticket"]
        assert await _handshake(served, f"?ticket={made}&ticket={made}") == 401
        assert await _handshake(served, f"?ticket={made}", f"Authorization: Bearer {token()}\r\n") == 401
        assert await _handshake(served, f"?ticket={made}x") == 401
        assert await _handshake(served, f"?ticket={token()}") == 401
        assert await _handshake(served, f"?ticket={made}") == 101
        assert await _handshake(served, f"?ticket={made}") == 401


async def test_a_ticket_is_all_that_its_socket_may() -> None:
    async with world() as (served, client):
        made = (await ticket(client, token(), sessions=["a"], scopes=["read"])).json()["ticket"]
        async with await served.served.connect() as stream, trio.open_nursery() as nursery:
            ws = await trio_websocket.wrap_client_stream(nursery, stream, "localhost", f"/v1/ws?ticket={made}")
            opened = Socket(ws, stream)
            assert "result" in await opened.ask(op="subscribe", id=1, session_id="a")
            for op, name in (("stop", "a"), ("subscribe", "b"), ("subscribe", "m")):
                assert error_of(await opened.ask(op=op, id=2, session_id=name))[0] == "FORBIDDEN"
            nursery.cancel_scope.cancel()


async def test_a_later_token_is_the_same_subject_s_and_may_be_for_less() -> None:
    async with world() as (served, _), socket(served, token(["a", "b"], ["read"])) as opened:
        for name in "ab":
            await opened.ask(op="subscribe", id=1, session_id=name)
        other = await opened.ask(op="auth", id=2, token=token(subject="bob"))
        assert error_of(other)[0] == "FORBIDDEN"
        assert error_of(await opened.ask(op="auth", id=3, token="x.y.z"))[0] == "UNAUTHENTICATED"
        assert "result" in await opened.ask(op="auth", id=4, token=token(["a"], ["read"]))
        _, told = await opened.until("error")
        assert error_of(told)[0] == "FORBIDDEN"
        assert "'session_id': 'b'" in str(told)
        await (await served.engine.session("b")).post("a new secret")
        await (await served.engine.session("a")).post("for all")
        events = await opened.until("events")
        assert "for all" in str(events)
        assert "a new secret" not in str(events)
        assert error_of(await opened.ask(op="subscribe", id=5, session_id="b"))[0] == "FORBIDDEN"


async def test_neither_token_nor_ticket_is_ever_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = [token(subject="one"), token(subject="two", ttl=-9), token(subject="three", key=b"x" * 32)]
    async with world() as (served, client):
        for made in secrets:
            await client.get("/v1/sessions/a", headers=bearer(made))
            await client.get(f"/v1/sessions/a/events?live=false&ticket={made}")
            await _handshake(served, f"?ticket={made}")
            async with served.socket() as opened:
                await opened.ask(op="auth", id=1, token=made)
        one = (await ticket(client, secrets[0], sessions=["a"], scopes=["read"])).json()["ticket"]
        await client.get(f"/v1/sessions/a/events?live=false&ticket={one}")
        await _handshake(served, f"?ticket={one}")
    ours = [record.getMessage() + str(vars(record)) for record in caplog.records if not record.name.startswith("http")]
    assert ours
    for made in (*secrets, one):
        assert not any(made.split(".")[2] in text for text in ours)


# --- expiry


@pytest.mark.parametrize("form", ["text/event-stream", "application/x-ndjson"])
async def test_a_stream_ends_with_its_token_and_is_resumed_with_a_new_one(form: str) -> None:
    async with world() as (served, _):
        async with served.lines("/v1/sessions/a/events", **bearer(token(lasts=0.3)), Accept=form) as lines:
            assert lines.status == 200
            seen = []
            with suppress(EOFError):
                while True:
                    seen.append(await lines.next())
        text = "\n".join(seen)
        assert "caught-up" in text
        assert text.index("token-expired") > text.index("caught-up")
        assert text.count("drain") == 1


async def test_a_socket_ends_with_its_token_and_nothing_is_read_behind_it() -> None:
    async with world() as (served, _), socket(served, token(["a"], lasts=1.0)) as opened:
        await opened.ask(op="subscribe", id=1, session_id="a")
        _, told = await opened.until("error")
        assert error_of(told)[0] == "UNAUTHENTICATED"
        await (await served.engine.session("a")).post("too late")
        assert await opened.closed() == 4401


async def test_a_token_that_is_renewed_in_time_keeps_the_socket() -> None:
    async with world() as (served, _), socket(served, token(["a"], lasts=1.0)) as opened:
        await opened.ask(op="subscribe", id=1, session_id="a")
        await opened.ask(op="auth", id=2, token=token(["a"], ttl=60))
        await trio.sleep(1.2)
        await (await served.engine.session("a")).post("in time")
        _, told = await opened.until("events")
        assert "in time" in str(told)
        assert "result" in await opened.ask(op="stop", id=3, session_id="a")
