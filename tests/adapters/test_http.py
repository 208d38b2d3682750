"""The HTTP face: what each route answers, and that every refusal is a problem answer. Through real sockets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from uuid import uuid4

import httpx
import pytest
import trio

from penstock.engine import JSON, Entry, MemoryLog, WriteFailed
from tests.adapters.serving import PATIENCE, Penstock, penstock
from tests.engine.living import copied
from tests.engine.producers import Steered, saying

S = "/v1/sessions/s"
CHUNK: dict[str, JSON] = {"generation_id": "0198c0de-7a11-7abc-8def-0123456789ab", "data": {"text": "x"}}


def refusal(response: httpx.Response, status: int, code: str) -> Mapping[str, JSON]:
    """Check a problem answer in all its parts."""
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, JSON] = response.json()
    assert (response.status_code, problem["code"]) == (status, code), problem
    assert problem["status"] == status
    assert {"type", "title", "detail", "retryable"} <= problem.keys()
    assert None not in problem.values()
    return problem


#
async def test_a_session_is_created_once_and_found_again() -> None:
    async with penstock() as world, world.client() as client:
        made = await client.put(S, json={"metadata": {"title": "a talk"}})
        assert made.status_code == 201
        assert made.json() == {"session_id": "s", "cursor": made.json()["cursor"], "created": True}
        again = await client.put(S)
        assert again.status_code == 200
        assert again.json() == {**made.json(), "created": False}
        shown = (await client.get(S)).json()
        assert shown["metadata"] == {"title": "a talk"}
        assert shown["cursor"] == made.json()["cursor"]
        assert shown["messages"] == []
        assert "generation" not in shown


#
async def test_a_deleted_session_is_gone_until_it_is_created_anew() -> None:
    async with penstock() as world, world.client() as client:
        first = (await client.put(S)).json()
        gone = await client.delete(S)
        assert (gone.status_code, gone.json()) == (200, {"session_id": "s"})
        for response in (
            await client.get(S),
            await client.delete(S),
            await client.get(f"{S}/events"),
            await client.post(f"{S}/generations", json={}),
            await client.post(f"{S}/messages", json={"text": "x"}),
            await client.post(f"{S}/stop"),
        ):
            assert refusal(response, 410, "SESSION_DELETED")["session_id"] == "s"
        second = await client.put(S)
        assert second.status_code == 201
        assert second.json()["cursor"].split("-")[0] != first["cursor"].split("-")[0]


#
async def test_a_message_is_posted_once_however_often_it_is_sent() -> None:
    async with penstock() as world, world.client() as client:
        await client.put(S)
        message = {"text": "hello", "message_id": str(uuid4()), "metadata": {"from": "me"}}
        made = await client.post(f"{S}/messages", json=message)
        assert made.status_code == 201
        assert made.json() == {
            "session_id": "s",
            "message_id": message["message_id"],
            "cursor": made.json()["cursor"],
        }
        again = await client.post(f"{S}/messages", json=message)
        assert again.status_code == 200
        assert again.json()["message_id"] == message["message_id"]
        other = await client.post(f"{S}/messages", json={**message, "text": "something else"})
        assert refusal(other, 409, "ID_IN_USE")["session_id"] == "s"
        blocks = await client.post(f"{S}/messages", json={"role": "system", "blocks": [{"kind": "text", "text": "b"}]})
        assert blocks.status_code == 201
        shown = (await client.get(S)).json()["messages"]
        assert [(m["role"], m["blocks"][0]["text"]) for m in shown] == [("user", "hello"), ("system", "b")]


async def test_a_snapshot_is_paged_backwards() -> None:
    async with penstock() as world, world.client() as client:
        await client.put(S)
        for number in range(5):
            await client.post(f"{S}/messages", json={"text": str(number)})
        newest = (await client.get(S, params={"limit": 2})).json()
        assert [m["blocks"][0]["text"] for m in newest["messages"]] == ["3", "4"]
        assert newest["more"] is True
        before = newest["messages"][0]["message_id"]
        older = (await client.get(S, params={"limit": 3, "before": before})).json()
        assert [m["blocks"][0]["text"] for m in older["messages"]] == ["0", "1", "2"]
        assert older["more"] is False
        same = (await client.get(S, params={"limit": 3, "before": before.upper()})).json()
        assert same["messages"] == older["messages"]
        refusal(await client.get(S, params={"before": str(uuid4())}), 404, "MESSAGE_NOT_FOUND")
        refusal(await client.get(S, params={"before": "null"}), 400, "INVALID_ID")


async def finished(world: Penstock, client: httpx.AsyncClient, generation_id: str) -> Mapping[str, JSON]:
    """Wait for the generation's end by reading the stream to it; what the server then says of it."""
    async with world.lines(f"{S}/events", accept="application/x-ndjson") as lines:
        while '"generation.finished"' not in (line := await lines.next()) or generation_id not in line:
            pass
    found: dict[str, JSON] = (await client.get(f"{S}/generations/{generation_id}")).json()
    return found


async def test_a_generation_is_started_shown_and_finished() -> None:
    async with penstock(producers={"says": saying("a", "b")}) as world, world.client() as client:
        await client.put(S)
        body = {
            "producer": "says",
            "text": "say it",
            "input": {"any": ["json", 1, None]},
            "policy": "reject",
            "job_id": "job 1",
            "generation_id": str(uuid4()),
            "on_last_disconnect": "continue",
            "metadata": {"k": "v"},
        }
        started = await client.post(f"{S}/generations", json=body)
        assert started.status_code == 201
        made = started.json()
        assert made.keys() == {"session_id", "generation_id", "turn", "cursor", "message_id"}
        assert (made["generation_id"], made["turn"]) == (body["generation_id"], 1)
        ended = await finished(world, client, made["generation_id"])
        (shown,) = (await client.get(S)).json()["generations"]
        assert ended == {"session_id": "s", **shown}
        assert shown.items() >= {"turn": 1, "state": "finished", "outcome": "completed"}.items()
        assert shown["started"]["cursor"] < shown["finished"]["cursor"]
        assert shown["started"]["time"] <= shown["finished"]["time"]
        assert refusal(await client.post(f"{S}/generations", json=body), 409, "ID_IN_USE")


async def test_a_start_supersedes_and_stop_answers_truthfully() -> None:
    first, second = Steered(), Steered()
    async with penstock(producers={"first": first, "second": second}) as world, world.client() as client:
        await client.put(S)
        old = (await client.post(f"{S}/generations", json={"producer": "first"})).json()
        await first.started.wait()
        live = (await client.get(f"{S}/generations/{old['generation_id']}")).json()
        assert (live["state"], live["turn"]) == ("live", 1)
        busy = await client.post(f"{S}/generations", json={"producer": "second", "policy": "reject"})
        refusal(busy, 409, "GENERATION_ACTIVE")
        new = (await client.post(f"{S}/generations", json={"producer": "second"})).json()
        assert new["superseded"]["generation_id"] == old["generation_id"]
        assert new["superseded"]["cleanup"] == "clean"
        assert new["superseded"]["seconds"] >= 0
        assert (await client.get(S)).json()["generation"]["generation_id"] == new["generation_id"]
        stopped = await client.post(f"{S}/stop", json={"generation_id": new["generation_id"], "reason": "enough"})
        assert stopped.json() == {"session_id": "s", "state": "stopped", "generation_id": new["generation_id"]}
        again = await client.post(f"{S}/stop", json={"generation_id": new["generation_id"], "queue": "pause"})
        assert again.json()["state"] == "already_done"
        assert (await client.post(f"{S}/stop")).json() == {"session_id": "s", "state": "nothing_active"}
        unseen = await client.post(f"{S}/stop", json={"generation_id": str(uuid4())})
        assert unseen.json()["state"] == "pending"


# R-100 R-118
@pytest.mark.parametrize(
    ("path", "body", "names"),
    [
        ("generations", {"txt": "x"}, "txt"),
        ("generations", {"text": 1}, "$.text"),
        ("generations", {"text": None}, "$.text"),
        ("generations", {"input": None}, "$.input"),
        ("generations", {"metadata": []}, "$.metadata"),
        ("generations", {"metadata": "x"}, "$.metadata"),
        ("generations", {"policy": "often"}, "often"),
        ("generations", {"on_last_disconnect": True}, "on_last_disconnect"),
        ("generations", [], "object"),
        ("generations", "text", "object"),
        ("messages", {}, "text or blocks"),
        ("messages", {"text": "x", "blocks": []}, "text or blocks"),
        ("messages", {"blocks": {"kind": "text"}}, "blocks"),
        ("messages", {"blocks": [1]}, "blocks"),
        ("messages", {"blocks": [{"kind": 1}]}, "kind"),
        ("messages", {"blocks": [{"kind": "text", "seq": -1, "text": "x"}]}, "seq"),
        ("messages", {"blocks": [{"kind": "text", "seq": 2**53, "text": "x"}]}, "seq"),
        ("messages", {"text": "x", "role": "robot"}, "robot"),
        ("messages", {"blocks": [{"kind": "hologram", "text": "x"}]}, "hologram"),
        ("messages", {"blocks": [{"kind": "tool_result", "tool_call_id": "c", "text": "forged"}]}, "tool_result"),
        ("messages", {"blocks": [{"kind": "tool_call", "tool_call_id": "c", "name": "forged"}]}, "tool_call"),
        ("messages", {"text": "x", "metadata": {"a": "x" * 65_536}}, "metadata"),
        ("generations", {"text": "x", "metadata": {"a": "x" * 65_536}}, "metadata"),
        ("stop", {"reason": 5}, "$.reason"),
        ("stop", {"session_id": "s"}, "session_id"),
        ("generations", {"text": "x", "session_id": "s"}, "session_id"),
        ("chunks", CHUNK | {"session_id": "s"}, "session_id"),
        ("chunks/batch", {"chunks": [CHUNK], "session_id": "s"}, "session_id"),
        ("chunks/batch", {"chunks": [CHUNK | {"session_id": "s"}]}, "session_id"),
    ],
)
async def test_a_body_that_is_not_exactly_right_is_refused_by_name(path: str, body: JSON, names: str) -> None:
    async with penstock(producers={"says": saying("a")}) as world, world.client() as client:
        before = (await client.put(S)).json()["cursor"]
        problem = refusal(await client.post(f"{S}/{path}", json=body), 400, "INVALID_BODY")
        assert names in str(problem["detail"])
        assert problem["session_id"] == "s"
        assert (await client.get(S)).json()["cursor"] == before, "nothing was written"


#
@pytest.mark.parametrize(
    "body",
    [b"{", b"\xff", b'{"text": "\xff"}', b'{"text": NaN}', b'{"text": "\\ud800"}', b"[" * 100_000, b"null", b" "],
)
async def test_a_body_that_is_not_json_is_refused(body: bytes) -> None:
    async with penstock(producers={"says": saying("a")}) as world, world.client() as client:
        await client.put(S)
        refusal(await client.post(f"{S}/generations", content=body), 400, "INVALID_BODY")
        refusal(await client.put(S, content=body), 400, "INVALID_BODY")


#
async def test_a_body_over_the_limit_is_refused_and_one_at_the_limit_is_not() -> None:
    async with penstock(producers={"says": saying("a")}) as world, world.client() as client:
        await client.put(S)
        fits = json.dumps({"text": "x" * (1024 * 1024 - 12)}).encode()
        assert len(fits) == 1024 * 1024
        assert (await client.post(f"{S}/messages", content=fits)).status_code == 201
        problem = refusal(await client.post(f"{S}/messages", content=fits + b" "), 413, "BODY_TOO_LARGE")
        assert problem["session_id"] == "s"

        async def pieces() -> object:
            for _ in range(3):
                yield b" " * 500_000

        refusal(await client.post(f"{S}/messages", content=pieces()), 413, "BODY_TOO_LARGE")  # type: ignore[arg-type]


async def test_ids_are_checked_and_missing_things_are_told_apart() -> None:
    async with penstock(producers={"says": saying("a")}) as world, world.client() as client:
        refusal(await client.get("/v1/sessions/no"), 404, "SESSION_NOT_FOUND")
        assert "session_id" not in refusal(await client.get("/v1/sessions/a%20b"), 400, "INVALID_ID")
        refusal(await client.put(f"/v1/sessions/{'x' * 129}"), 400, "INVALID_ID")
        refusal(await client.put("/v1/sessions/%C3%A9"), 400, "INVALID_ID")
        refusal(await client.put("/v1/sessions/%FF"), 400, "INVALID_ID")
        await client.put(S)
        refusal(await client.get(f"{S}/generations/x"), 400, "INVALID_ID")
        unseen = str(uuid4())
        problem = refusal(await client.get(f"{S}/generations/{unseen}"), 404, "GENERATION_NOT_FOUND")
        assert (problem["session_id"], problem["generation_id"]) == ("s", unseen)
        refusal(await client.post(f"{S}/generations", json={"producer": "nobody"}), 404, "PRODUCER_NOT_FOUND")
        refusal(await client.post(f"{S}/generations", json={"generation_id": "x"}), 400, "INVALID_ID")
        refusal(await client.post(f"{S}/generations", json={"job_id": ""}), 400, "INVALID_ID")


#
@pytest.mark.parametrize("path", ["/nothing", "/v1", "/v1/sessions/", "/v1/sessions/a/b/c", "/v1//sessions", "/web"])
async def test_an_unknown_path_is_a_problem_answer(path: str) -> None:
    async with penstock() as world, world.client() as client:
        for method in ("GET", "POST", "DELETE"):
            response = await client.request(method, httpx.URL(world.url + path))
            assert response.status_code in (404, 405)
            refusal(
                response, response.status_code, "NOT_FOUND" if response.status_code == 404 else "METHOD_NOT_ALLOWED"
            )


async def test_methods_are_answered_as_http_has_them() -> None:
    async with penstock() as world, world.client() as client:
        await client.put(S)
        wrong = await client.post(S)
        refusal(wrong, 405, "METHOD_NOT_ALLOWED")
        assert {"GET", "PUT", "PATCH", "DELETE"} <= set(wrong.headers["allow"].split(", "))
        options = await client.options(S)
        assert options.status_code == 204
        assert {"GET", "PUT", "DELETE"} <= set(options.headers["allow"].split(", "))
        assert not [name for name in options.headers if name.startswith("access-control-")]
        head = await client.head(S)
        assert (head.status_code, head.content) == (200, b"")
        stream = await client.head(f"{S}/events")
        assert (stream.status_code, stream.headers["content-type"]) == (200, "text/event-stream")
        missing = await client.head("/v1/sessions/no")
        assert (missing.status_code, missing.content) == (404, b"")
        refusal(await client.get("/v1/ws"), 400, "INVALID_BODY")


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "x", "1.0", "", "²", "9" * 5000])
async def test_a_limit_out_of_bounds_is_refused(limit: str) -> None:
    async with penstock() as world, world.client() as client:
        await client.put(S)
        refusal(await client.get(S, params={"limit": limit}), 400, "INVALID_BODY")


async def test_pages_of_other_origins_may_not_change_anything() -> None:
    async with penstock() as world, world.client() as client:
        own = {"Origin": world.url}
        assert (await client.put(S, headers=own)).status_code == 201
        for origin in ("https://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "http://[", "x"):
            theirs = {"Origin": origin}
            refusal(await client.put(S, headers=theirs), 403, "ORIGIN_REFUSED")
            refusal(await client.post(f"{S}/stop", headers=theirs), 403, "ORIGIN_REFUSED")
            refusal(await client.delete(S, headers=theirs), 403, "ORIGIN_REFUSED")
        assert (await client.get(S, headers={"Origin": "https://evil.example"})).status_code == 200
        assert (await client.post(f"{S}/stop", headers=own)).status_code == 200


async def test_health_and_readiness() -> None:
    async with penstock() as world, world.client() as client:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 200
        await world.engine.drain()
        assert (await client.get("/healthz")).status_code == 200
        draining = await client.get("/readyz")
        assert (draining.status_code, draining.json()) == (503, {"status": "draining", "failing": ["draining"]})
        refused = await client.put(S)
        problem = refusal(refused, 503, "DRAINING")
        assert problem["retryable"] is True
        assert refused.headers["retry-after"] == "1"


#
async def test_an_unexpected_error_tells_nothing_of_the_inside(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise ValueError("/secret/path")

    async with penstock() as world, world.client() as client:
        monkeypatch.setattr(type(world.engine), "create_session", fail)
        response = await client.put(S)
        problem = refusal(response, 500, "INTERNAL")
        assert problem["retryable"] is False
        assert "secret" not in response.text
        assert problem["session_id"] == "s"
    assert "/secret/path" in caplog.text, "the log has what the answer does not"


async def test_a_storage_error_tells_nothing_of_the_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise WriteFailed("disk /secret/path is full")

    async with penstock() as world, world.client() as client:
        monkeypatch.setattr(type(world.engine), "create_session", fail)
        response = await client.put(S)
        assert refusal(response, 500, "WRITE_FAILED")["retryable"] is True
        assert "secret" not in response.text


async def test_the_playground_is_served_and_nothing_beside_it() -> None:
    async with penstock() as world, world.client() as client:
        page = await client.get("/")
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["x-content-type-options"] == "nosniff"
        script = await client.get("/penstock.js")
        assert script.headers["content-type"] == "text/javascript; charset=utf-8"
        assert script.headers["cache-control"] == "no-cache"
        unchanged = await client.get("/penstock.js", headers={"If-None-Match": script.headers["etag"]})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        for path in (
            "/../http/app.py",
            "/%2e%2e/http/app.py",
            "/..%2fhttp%2fapp.py",
            "/web/index.html",
            "/app.py",
            "/%2fetc%2fpasswd",
            "/index.html%00.js",
        ):
            answer = await world.served.exchange(
                f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
            )
            assert answer.startswith(b"HTTP/1.1 404"), path


async def test_what_changed_is_stored_when_the_client_left_before_the_answer() -> None:
    log = MemoryLog()
    producer = Steered()
    async with penstock(log, producers={"steered": producer}) as world, world.client() as client:
        await client.put(S)
        async with await world.served.connect() as stream:
            head = f"POST {S}/generations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
            await stream.send_all(head.encode())
            with trio.fail_after(PATIENCE):
                await producer.started.wait()
        assert (await client.get(S)).json()["generation"]["turn"] == 1, "leaving is not stopping"


async def test_a_session_that_cannot_be_read_can_only_be_listed_and_deleted() -> None:
    log = MemoryLog()
    async with penstock(log) as world:
        for name in ("bad", "good"):
            await (await world.engine.create_session(name)).post("a word")
        left = await copied(log)
    left._lives["bad"].entries[-1] = Entry(2, b'{"type":')
    async with penstock(left) as world, world.client() as client:
        before = (await client.get("/v1/sessions")).json()["sessions"]
        assert [session.get("corrupt") for session in before] == [None, None]  # nobody has looked
        for method, path, body in (
            ("GET", "/v1/sessions/bad", None),
            ("PUT", "/v1/sessions/bad", {}),
            ("PATCH", "/v1/sessions/bad", {"metadata": {"a": 1}}),
            ("POST", "/v1/sessions/bad/fork", {}),
            ("POST", "/v1/sessions/good/fork", {"session_id": "bad"}),
            ("POST", "/v1/sessions/bad/messages", {"text": "x"}),
            ("POST", "/v1/sessions/bad/stop", {}),
            ("POST", "/v1/sessions/bad/reset", {}),
            ("GET", "/v1/sessions/bad/events", None),
            ("GET", "/v1/sessions/bad/presence", None),
        ):
            problem = refusal(await client.request(method, path, json=body), 500, "CORRUPT_SESSION")
            assert (problem["session_id"], problem["retryable"]) == ("bad", False), path
        after = (await client.get("/v1/sessions")).json()["sessions"]
        assert [session.get("corrupt") for session in after] == [True, None]
        assert (await client.delete("/v1/sessions/bad")).status_code == 200
        refusal(await client.get("/v1/sessions/bad"), 410, "SESSION_DELETED")
        made = await client.put("/v1/sessions/bad")
        assert made.status_code == 201
        assert made.json()["cursor"].partition("-")[0] != after[0]["cursor"].partition("-")[0]
        assert (await client.get("/v1/sessions/bad")).json()["messages"] == []
