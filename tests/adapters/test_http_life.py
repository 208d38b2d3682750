"""The whole life of a session over HTTP: policies, queue, inputs, metadata, reset, fork. Through real sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import trio

from penstock.engine import (
    JSON,
    Approval,
    Config,
    EventLog,
    Generation,
    Input,
    Producer,
    open_sqlite,
)
from tests.adapters.serving import PATIENCE, Penstock, penstock
from tests.engine.producers import Steered, saying

S = "/v1/sessions/s"


def refusal(response: httpx.Response, status: int, code: str) -> Mapping[str, Any]:
    """Check a problem answer in all its parts."""
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["code"], problem["status"]) == (status, code, status), problem
    assert {"type", "title", "detail", "retryable"} <= problem.keys()
    assert ("retry-after" in response.headers) == (status in (429, 503))
    return problem


def accepted(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    made: dict[str, Any] = response.json()
    assert None not in made.values()
    return made


@asynccontextmanager
async def serving(
    log: EventLog | None = None, config: Config | None = None, **producers: Producer
) -> AsyncIterator[tuple[Penstock, httpx.AsyncClient]]:
    """A server with the session ``s``."""
    async with penstock(log, producers=producers, config=config) as world, world.client() as client:
        await client.put(S)
        yield world, client


async def start(
    client: httpx.AsyncClient, status: int = 201, *, key: str | None = None, **body: JSON
) -> dict[str, Any]:
    headers = {} if key is None else {"Idempotency-Key": key}
    return accepted(await client.post(f"{S}/generations", json=body, headers=headers), status)


async def events(world: Penstock, session_id: str = "s") -> list[dict[str, Any]]:
    """The whole log."""
    lines: list[dict[str, Any]] = []
    path = f"/v1/sessions/{session_id}/events?live=false"
    async with world.lines(path, accept="application/x-ndjson") as answer:
        with trio.fail_after(PATIENCE):
            try:
                while True:
                    lines.append(json.loads(await answer.next()))
            except EOFError:
                pass
    return [line for line in lines if "control" not in line]


async def wait_for(world: Penstock, kind: str, session_id: str = "s", **stamp: object) -> dict[str, Any]:
    """The first event of this type and with this stamp, once there is one."""
    async with world.lines(f"/v1/sessions/{session_id}/events", accept="application/x-ndjson") as lines:
        while True:
            event: dict[str, Any] = json.loads(await lines.next() or "{}")
            if event.get("type") == kind and stamp.items() <= event.items():
                return event


async def outcome(world: Penstock, client: httpx.AsyncClient, generation_id: str) -> str:
    """Of a generation, once it has finished."""
    end = await wait_for(world, "generation.finished", generation_id=generation_id)
    found = accepted(await client.get(f"{S}/generations/{generation_id}"), 200)
    assert (found["state"], found["outcome"]) == ("finished", end["data"]["outcome"])
    return str(found["outcome"])


# --- start: policies, replaces, limits


async def test_a_start_that_waits_is_accepted_and_shown_with_its_place() -> None:
    first, second = Steered(), Steered()
    async with serving(first=first, second=second) as (world, client):
        await start(client, producer="first")
        waiting = await start(
            client, 202, producer="second", policy="queue", text="and then?", job_id="j", metadata={"k": 1}
        )
        assert waiting.keys() == {"session_id", "generation_id", "position", "cursor"}
        assert waiting["position"] == 1
        assert (await start(client, 202, producer="second", policy="queue"))["position"] == 2
        shown = accepted(await client.get(f"{S}/generations/{waiting['generation_id']}"), 200)
        assert shown == {"session_id": "s", "generation_id": waiting["generation_id"], "state": "queued"}
        queue = accepted(await client.get(S), 200)["queue"]
        assert queue["paused"] is False
        assert queue["items"][0] == {
            "generation_id": waiting["generation_id"],
            "producer": "second",
            "policy": "queue",
            "job_id": "j",
            "metadata": {"k": 1},
            "text": "and then?",
        }
        first.finish.set()
        with trio.fail_after(PATIENCE):
            await second.started.wait()
        shown = accepted(await client.get(f"{S}/generations/{waiting['generation_id']}"), 200)
        assert (shown["state"], shown["turn"]) == ("live", 2)
        assert (await wait_for(world, "generation.queued"))["data"]["position"] == 1


async def test_the_newest_of_latest_is_the_one_that_waits() -> None:
    live = Steered()
    async with serving(p=live) as (_, client):
        await start(client)
        first = await start(client, 202, policy="latest")
        second = await start(client, 202, policy="latest")
        assert (first["position"], second["position"]) == (1, 1)
        pushed_out = accepted(await client.get(f"{S}/generations/{first['generation_id']}"), 200)
        assert (pushed_out["state"], pushed_out["outcome"]) == ("finished", "superseded")


async def test_a_start_that_joins_answers_with_the_live_one() -> None:
    async with serving(p=Steered()) as (_, client):
        live = await start(client, policy="join")
        joined = await start(client, 200, policy="join")
        assert joined.keys() == {"session_id", "generation_id", "turn", "cursor"}
        assert (joined["generation_id"], joined["turn"]) == (live["generation_id"], 1)
        for content in ({"text": "x"}, {"input": 1}):
            answer = await client.post(f"{S}/generations", json={"policy": "join", **content})
            refusal(answer, 400, "INVALID_BODY")


async def test_a_full_queue_and_too_many_stragglers_are_429() -> None:
    stubborn = Steered(shield=60)
    config = Config(queue_limit=1, cleanup_timeout=0.05, max_stragglers=1)
    async with serving(config=config, stubborn=stubborn, says=saying("a")) as (_, client):
        await start(client, producer="stubborn")
        await stubborn.started.wait()
        await start(client, 202, policy="queue", producer="says")
        problem = refusal(
            await client.post(f"{S}/generations", json={"policy": "queue", "producer": "says"}), 429, "QUEUE_FULL"
        )
        assert problem["retryable"] is True
        stopped = accepted(await client.post(f"{S}/stop"), 200)
        assert stopped["state"] == "stopping"
        refusal(await client.post(f"{S}/generations", json={"producer": "says"}), 429, "TOO_MANY_STRAGGLERS")
        stubborn.let_go.set()


async def test_replaces_regenerates_an_answer() -> None:
    async with serving(says=saying("a")) as (world, client):
        asked = await start(client, text="why?")
        await wait_for(world, "generation.finished")
        answer = accepted(await client.get(S), 200)["messages"][-1]
        again = await start(client, replaces=answer["message_id"])
        assert "message_id" not in again
        await outcome(world, client, again["generation_id"])
        messages = accepted(await client.get(S), 200)["messages"]
        assert [message["role"] for message in messages] == ["user", "assistant"]
        assert messages[0]["message_id"] == asked["message_id"]
        assert messages[1]["generation_id"] == again["generation_id"]
        body = {"replaces": str(uuid4())}
        refusal(await client.post(f"{S}/generations", json=body), 404, "MESSAGE_NOT_FOUND")
        refusal(await client.post(f"{S}/generations", json={"replaces": "x"}), 400, "INVALID_ID")


#
async def test_a_generation_that_nobody_watches_ends_after_the_seconds_it_was_given() -> None:
    async with serving(p=Steered()) as (_, client):
        stays = await start(client, on_last_disconnect="continue")
        leaves = await start(client, on_last_disconnect=0.05)
        assert leaves["superseded"]["generation_id"] == stays["generation_id"]
        assert await unwatched_end(client, leaves["generation_id"]) == "stopped"
        whole = await start(client, on_last_disconnect=0)
        assert await unwatched_end(client, whole["generation_id"]) == "stopped"


async def unwatched_end(client: httpx.AsyncClient, generation_id: str) -> str:
    """The outcome, found by asking: whoever reads the stream is somebody who is there."""
    with trio.fail_after(PATIENCE):
        while True:
            found = accepted(await client.get(f"{S}/generations/{generation_id}"), 200)
            if found["state"] == "finished":
                return str(found["outcome"])
            await trio.sleep(0.01)


async def test_a_start_says_how_long_it_may_write_nothing() -> None:
    async with serving(p=Steered()) as (_, client):
        endless = await start(client, idle_limit=None)
        brief = await start(client, idle_limit=0.05)
        assert brief["superseded"]["generation_id"] == endless["generation_id"]
        assert await unwatched_end(client, brief["generation_id"]) == "stalled"


@pytest.mark.parametrize("value", [True, "none", "5", 0, -1, [], {}], ids=repr)
async def test_the_seconds_of_silence_are_a_number_or_null(value: JSON) -> None:
    async with serving(p=Steered()) as (_, client):
        problem = refusal(await client.post(f"{S}/generations", json={"idle_limit": value}), 400, "INVALID_BODY")
        assert "idle_limit" in problem["detail"]
        assert "generation" not in accepted(await client.get(S), 200)


@pytest.mark.parametrize(
    "value", [True, False, "never", "5", -1, -0.5, [], {}, None, int("9" * 400)], ids=lambda value: repr(value)[:9]
)
async def test_the_seconds_alone_are_a_number_or_continue(value: JSON) -> None:
    async with serving(p=Steered()) as (_, client):
        problem = refusal(
            await client.post(f"{S}/generations", json={"on_last_disconnect": value}), 400, "INVALID_BODY"
        )
        assert problem["session_id"] == "s"
        assert "generation" not in accepted(await client.get(S), 200)


# --- idempotency


async def test_a_repeated_start_gets_the_first_answer_and_starts_nothing() -> None:
    async with serving(p=Steered()) as (world, client):
        first = await start(client, key="k", text="once", metadata={"a": 1})
        again = await start(client, 200, key="k", text="once", metadata={"a": 1})
        assert again == first
        other = await client.post(f"{S}/generations", json={"text": "twice"}, headers={"Idempotency-Key": "k"})
        assert refusal(other, 409, "IDEMPOTENCY_CONFLICT")["session_id"] == "s"
        waiting = await start(client, 202, key="q", policy="queue")
        assert await start(client, 200, key="q", policy="queue") == waiting
        assert [event["type"] for event in await events(world)].count("generation.started") == 1


async def test_a_key_holds_for_its_own_session_only() -> None:
    async with serving(says=saying("a")) as (_, client):
        await client.put("/v1/sessions/t")
        first = await start(client, key="k")
        answer = await client.post("/v1/sessions/t/generations", json={"text": "x"}, headers={"Idempotency-Key": "k"})
        assert accepted(answer, 201)["generation_id"] != first["generation_id"]


async def test_a_repeated_start_gets_the_first_answer_from_the_next_process_too(tmp_path: Path) -> None:
    path = tmp_path / "life.db"
    log = await open_sqlite(path)
    async with serving(log, says=saying("a")) as (world, client):
        first = await start(client, key="k", text="once")
        await wait_for(world, "generation.finished")
    await log.aclose()
    log = await open_sqlite(path)
    async with serving(log, says=saying("a")) as (world, client):
        assert await start(client, 200, key="k", text="once") == first
        other = await client.post(f"{S}/generations", json={"text": "x"}, headers={"Idempotency-Key": "k"})
        refusal(other, 409, "IDEMPOTENCY_CONFLICT")
        assert [event["type"] for event in await events(world)].count("generation.started") == 1
    await log.aclose()


async def test_a_key_is_visible_ascii_and_stands_there_once() -> None:
    async with serving(says=saying("a")) as (_, client):
        await start(client, key="k" * 255)
        await start(client, key='"!~"')
        for key in (b"", b"two words", b"k" * 256, b"\xc3\xa9", b"a\tb"):
            answer = await client.post(f"{S}/generations", headers=[(b"Idempotency-Key", key)])
            assert refusal(answer, 400, "INVALID_BODY")["session_id"] == "s"
        twice = await client.post(f"{S}/generations", headers=[("Idempotency-Key", "a"), ("Idempotency-Key", "b")])
        refusal(twice, 400, "INVALID_BODY")
        refusal(await client.post(f"{S}/generations", json={"idempotency_key": "k"}), 400, "INVALID_BODY")


# --- the queue


#
async def test_a_stop_pauses_the_queue_and_next_goes_on() -> None:
    first, second = Steered(), Steered()
    async with serving(first=first, second=second) as (_, client):
        live = await start(client, producer="first")
        waiting = await start(client, 202, producer="second", policy="queue")
        stopped = accepted(await client.post(f"{S}/stop"), 200)
        assert stopped == {"session_id": "s", "state": "stopped", "generation_id": live["generation_id"]}
        assert accepted(await client.get(S), 200)["queue"]["paused"] is True
        went_on = accepted(await client.post(f"{S}/queue/next"), 200)
        assert went_on.keys() == {"session_id", "cursor", "generation_id"}
        assert went_on["generation_id"] == waiting["generation_id"]
        idle = accepted(await client.post(f"{S}/queue/next", json={}), 200)
        assert idle.keys() == {"session_id", "cursor"}, "one is live, nothing waits"
        assert accepted(await client.get(S), 200)["queue"] == {"paused": False, "items": []}


async def test_a_stop_lets_the_queue_go_on_or_clears_it_as_it_is_told() -> None:
    async with serving(p=Steered()) as (world, client):
        await start(client)
        second, third = [await start(client, 202, policy="queue") for _ in range(2)]
        accepted(await client.post(f"{S}/stop", json={"queue": "continue"}), 200)
        await wait_for(world, "generation.started", generation_id=second["generation_id"])
        accepted(await client.post(f"{S}/stop", json={"queue": "clear", "reason": "enough"}), 200)
        for waiting in (second, third):
            assert await outcome(world, client, waiting["generation_id"]) == "stopped"


async def test_one_that_waits_is_taken_out_once() -> None:
    async with serving(p=Steered()) as (world, client):
        live = await start(client)
        waiting = await start(client, 202, policy="queue")
        gone = await client.delete(f"{S}/queue/{waiting['generation_id'].upper()}")
        assert accepted(gone, 200) == {"session_id": "s", "generation_id": waiting["generation_id"]}
        assert await outcome(world, client, waiting["generation_id"]) == "stopped"
        for generation_id in (waiting["generation_id"], live["generation_id"], str(uuid4())):
            problem = refusal(await client.delete(f"{S}/queue/{generation_id}"), 404, "GENERATION_NOT_FOUND")
            assert (problem["session_id"], problem["generation_id"]) == ("s", generation_id)
        assert "generation_id" not in refusal(await client.delete(f"{S}/queue/next"), 400, "INVALID_ID")


async def test_a_stop_by_id_reaches_one_that_waits() -> None:
    async with serving(p=Steered()) as (_, client):
        await start(client)
        waiting = await start(client, 202, policy="queue")
        body = {"generation_id": waiting["generation_id"]}
        assert accepted(await client.post(f"{S}/stop", json=body), 200)["state"] == "stopped"
        assert accepted(await client.post(f"{S}/stop", json=body), 200)["state"] == "already_done"
        assert accepted(await client.get(S), 200)["generation"]["turn"] == 1


# --- inputs


class Asking:
    """A producer that asks for an approval, then takes inputs, and remembers what it got."""

    def __init__(self) -> None:
        self.approval: Approval | None = None
        self.inputs: list[Input] = []

    async def __call__(self, generation: Generation) -> None:
        self.approval = await generation.approve("rm", arguments={"path": "a"})
        async for given in generation.inputs():
            await generation.apply(given)
            self.inputs.append(given)
            if given.kind == "enough":
                return


#
async def test_inputs_reach_the_producer() -> None:
    producer = Asking()
    async with serving(p=producer) as (world, client):
        gid = (await start(client))["generation_id"]
        asked = (await wait_for(world, "approval.requested"))["data"]
        assert accepted(await client.get(S), 200)["approvals"][0]["approval_id"] == asked["approval_id"]
        path = f"{S}/generations/{gid}/inputs"
        answer: dict[str, JSON] = {
            "kind": "approval",
            "approval_id": asked["approval_id"],
            "approved": True,
            "reason": "go",
            "arguments": {"path": "b"},
        }
        told = accepted(await client.post(path, json=answer), 202)
        assert told.keys() == {"session_id", "generation_id", "input_id"}
        assert (told["session_id"], told["generation_id"]) == ("s", gid)
        problem = refusal(await client.post(path, json=answer), 404, "APPROVAL_NOT_FOUND")
        assert (problem["session_id"], problem["generation_id"]) == ("s", gid)
        steer = {"kind": "steer", "input_id": "i-1", "text": "shorter", "generation_id": "content"}
        assert accepted(await client.post(path.replace(gid, gid.upper()), json=steer), 202)["input_id"] == "i-1"
        assert accepted(await client.post(path, json=steer), 202)["input_id"] == "i-1", "taken in once"
        refusal(await client.post(path, json={**steer, "text": "longer"}), 409, "ID_IN_USE")
        accepted(await client.post(path, json={"kind": "enough"}), 202)
        assert await outcome(world, client, gid) == "completed"
        assert producer.approval is not None
        assert (producer.approval.approved, producer.approval.arguments) == (True, {"path": "b"})
        assert [(given.kind, given.content) for given in producer.inputs] == [
            ("steer", {"text": "shorter", "generation_id": "content"}),
            ("enough", {}),
        ]
        refusal(await client.post(path, json={"kind": "steer"}), 409, "STALE_GENERATION")


async def test_an_input_finds_its_generation_or_is_told_why_not() -> None:
    async with serving(config=Config(inputs=1), p=Steered()) as (_, client):
        live = await start(client)
        waiting = await start(client, 202, policy="queue")
        steer = {"kind": "steer"}
        path = f"{S}/generations/%s/inputs"
        problem = refusal(await client.post(path % waiting["generation_id"], json=steer), 409, "GENERATION_MISMATCH")
        assert problem["generation_id"] == waiting["generation_id"]
        refusal(await client.post(path % uuid4(), json=steer), 404, "GENERATION_NOT_FOUND")
        refusal(await client.post(path % "x", json=steer), 400, "INVALID_ID")
        refusal(await client.post("/v1/sessions/no" + (path % uuid4())[len(S) :], json=steer), 404, "SESSION_NOT_FOUND")
        accepted(await client.post(path % live["generation_id"], json=steer), 202)
        problem = refusal(await client.post(path % live["generation_id"], json=steer), 429, "QUEUE_FULL")
        assert problem["retryable"] is True


#
@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "INVALID_BODY"),
        ([], "INVALID_BODY"),
        ({"kind": 1}, "INVALID_BODY"),
        ({"kind": None}, "INVALID_BODY"),
        ({"kind": ""}, "INVALID_BODY"),
        ({"kind": "k" * 129}, "INVALID_BODY"),
        ({"kind": "steer", "input_id": 1}, "INVALID_BODY"),
        ({"kind": "steer", "input_id": ""}, "INVALID_ID"),
        ({"kind": "approval"}, "INVALID_BODY"),
        ({"kind": "approval", "approval_id": "a"}, "INVALID_BODY"),
        ({"kind": "approval", "approved": True}, "INVALID_BODY"),
        ({"kind": "approval", "approval_id": "a", "approved": "yes"}, "INVALID_BODY"),
        ({"kind": "approval", "approval_id": "a", "approved": 1}, "INVALID_BODY"),
        ({"kind": "approval", "approval_id": 1, "approved": True}, "INVALID_BODY"),
        ({"kind": "approval", "approval_id": "a", "approved": True, "reason": 5}, "INVALID_BODY"),
        ({"kind": "approval", "approval_id": "a", "approved": True, "by": 5}, "INVALID_BODY"),
        ({"kind": "approval", "approval_id": "a", "approved": True}, "APPROVAL_NOT_FOUND"),
    ],
)
async def test_an_input_that_is_not_exactly_right_is_refused(body: JSON, code: str) -> None:
    async with serving(p=Steered()) as (world, client):
        gid = (await start(client))["generation_id"]
        answer = await client.post(f"{S}/generations/{gid}/inputs", json=body)
        assert refusal(answer, 404 if code == "APPROVAL_NOT_FOUND" else 400, code)["session_id"] == "s"
        assert not [event for event in await events(world) if event["type"].startswith(("input", "approval"))]


# --- metadata, the list


async def test_metadata_are_merged() -> None:
    async with serving() as (world, client):
        changed = accepted(await client.patch(S, json={"metadata": {"a": 1, "b": {"c": 2, "d": 3}}}), 200)
        assert changed.keys() == {"session_id", "cursor", "metadata"}
        changed = accepted(await client.patch(S, json={"metadata": {"a": None, "b": {"c": None, "e": [None]}}}), 200)
        assert changed["metadata"] == {"b": {"d": 3, "e": [None]}}
        shown = accepted(await client.get(S), 200)
        assert (shown["metadata"], shown["cursor"]) == (changed["metadata"], changed["cursor"])
        assert [event["data"] for event in await events(world) if event["type"] == "session.updated"][-1] == {
            "metadata": changed["metadata"]
        }


async def test_sessions_are_listed_page_by_page() -> None:
    live = Steered()
    async with serving(p=live) as (_, client):
        for name in ("a", "b", "c", "d"):
            await client.put(f"/v1/sessions/{name}", json={"metadata": {"name": name}})
        await client.delete("/v1/sessions/b")
        started = await start(client)
        whole = accepted(await client.get("/v1/sessions"), 200)
        assert whole.keys() == {"sessions"}
        assert [session["session_id"] for session in whole["sessions"]] == ["a", "c", "d", "s"]
        told = {"session_id", "cursor", "metadata", "created", "updated", "running", "approvals"}
        assert whole["sessions"][0].keys() == told
        assert whole["sessions"][0]["metadata"] == {"name": "a"}
        assert whole["sessions"][-1]["generation"] == {"generation_id": started["generation_id"]}
        assert whole["sessions"][-1]["cursor"].split("-")[0] == started["cursor"].split("-")[0]
        seen: list[str] = []
        after: dict[str, str] = {}
        for wanted in (2, 2):
            page = accepted(await client.get("/v1/sessions", params={"limit": wanted, **after}), 200)
            seen += [session["session_id"] for session in page["sessions"]]
            after = {"after": page["next"]} if "next" in page else {}
        assert (seen, after) == (["a", "c", "d", "s"], {})
        beyond = accepted(await client.get("/v1/sessions", params={"after": "zzz"}), 200)
        assert beyond == {"sessions": []}
        for query in ({"limit": "0"}, {"limit": "1001"}, {"limit": "x"}):
            refusal(await client.get("/v1/sessions", params=query), 400, "INVALID_BODY")
        for unfit in ("", "a b", ".."):
            refusal(await client.get("/v1/sessions", params={"after": unfit}), 400, "INVALID_ID")


# --- reset, fork, retract


#
async def test_reset_empties_the_transcript_and_keeps_the_session() -> None:
    async with serving(p=Steered()) as (world, client):
        live = await start(client, text="hello")
        waiting = await start(client, 202, policy="queue")
        done = accepted(await client.post(f"{S}/reset", json={"reason": "again"}), 200)
        assert done.keys() == {"session_id", "cursor"}
        assert done["cursor"].split("-")[0] == live["cursor"].split("-")[0]
        shown = accepted(await client.get(S), 200)
        assert (shown["messages"], shown["queue"]["items"], shown["cursor"]) == ([], [], done["cursor"])
        for generation in (live, waiting):
            assert await outcome(world, client, generation["generation_id"]) == "reset"
        assert (await events(world))[-1]["data"] == {"reason": "again"}
        assert accepted(await client.post(f"{S}/reset"), 200)["cursor"] > done["cursor"]
        assert (await start(client))["turn"] == 2


#
async def test_a_fork_is_a_session_of_its_own() -> None:
    async with serving(says=saying("a")) as (world, client):
        posted = [
            accepted(await client.post(f"{S}/messages", json={"text": text}), 201) for text in ("one", "two", "three")
        ]
        await client.patch(S, json={"metadata": {"title": "talk"}})
        whole = accepted(await client.post(f"{S}/fork"), 201)
        assert whole.keys() == {"session_id", "cursor"}
        F = f"/v1/sessions/{whole['session_id']}"
        shown = accepted(await client.get(F), 200)
        assert [message["message_id"] for message in shown["messages"]] == [each["message_id"] for each in posted]
        assert (shown["metadata"], shown["cursor"]) == ({"title": "talk"}, whole["cursor"])
        assert shown["cursor"].split("-")[0] != posted[0]["cursor"].split("-")[0]
        by_message = {"session_id": "m", "at": posted[1]["message_id"], "metadata": {"title": "fork"}}
        assert accepted(await client.post(f"{S}/fork", json=by_message), 201)["session_id"] == "m"
        by_cursor = {"session_id": "c", "at": posted[0]["cursor"]}
        assert accepted(await client.post(f"{S}/fork", json=by_cursor), 201)["session_id"] == "c"
        forks = [accepted(await client.get(f"/v1/sessions/{name}"), 200) for name in "mc"]
        assert [len(fork["messages"]) for fork in forks] == [2, 1]
        assert forks[0]["metadata"] == {"title": "fork"}
        before = await events(world)
        accepted(await client.post("/v1/sessions/m/generations", json={"text": "on its own"}), 201)
        await client.delete("/v1/sessions/c")
        assert await events(world) == before, "the source sees nothing of its forks"


async def test_a_fork_is_refused_where_it_cannot_be() -> None:
    async with serving() as (_, client):
        await client.put("/v1/sessions/t")
        problem = refusal(await client.post(f"{S}/fork", json={"session_id": "t"}), 409, "ID_IN_USE")
        assert problem["session_id"] == "t"
        refusal(await client.post(f"{S}/fork", json={"session_id": "a b"}), 400, "INVALID_ID")
        refusal(await client.post(f"{S}/fork", json={"at": str(uuid4())}), 404, "MESSAGE_NOT_FOUND")
        cursor = accepted(await client.get(S), 200)["cursor"]
        for at in ("x", "", "e-0000000000000001", cursor[:-1] + "9"):
            assert refusal(await client.post(f"{S}/fork", json={"at": at}), 400, "INVALID_CURSOR")["session_id"] == "s"
        refusal(await client.post("/v1/sessions/no/fork"), 404, "SESSION_NOT_FOUND")
        assert len(accepted(await client.get("/v1/sessions"), 200)["sessions"]) == 2


async def test_messages_are_retracted_alone_or_with_what_follows() -> None:
    async with serving(p=Steered()) as (world, client):
        ids = [accepted(await client.post(f"{S}/messages", json={"text": text}), 201)["message_id"] for text in "abcd"]
        done = accepted(await client.post(f"{S}/messages/{ids[0].upper()}/retract"), 200)
        assert done.keys() == {"session_id", "message_id", "cursor"}
        assert done["message_id"] == ids[0]
        accepted(await client.post(f"{S}/messages/{ids[2]}/retract", json={"and_after": True}), 200)
        shown = accepted(await client.get(S), 200)["messages"]
        assert [message["message_id"] for message in shown] == [ids[1]]
        problem = refusal(await client.post(f"{S}/messages/{ids[0]}/retract"), 404, "MESSAGE_NOT_FOUND")
        assert (problem["session_id"], problem["message_id"]) == ("s", ids[0])
        refusal(await client.post(f"{S}/messages/x/retract"), 400, "INVALID_ID")
        live = await start(client)
        opened = (await wait_for(world, "message.opened"))["message_id"]
        problem = refusal(await client.post(f"{S}/messages/{opened}/retract"), 409, "GENERATION_ACTIVE")
        assert (problem["session_id"], problem["message_id"]) == ("s", opened)
        assert accepted(await client.get(S), 200)["generation"]["generation_id"] == live["generation_id"]


# --- what holds for all of it


UNKNOWN = "7d3f0c1e-52a4-4b6f-9e0d-1c2b3a495867"  # of nothing; it stands in the names of tests

WRITES = [
    ("PATCH", "", {"metadata": {}}),
    ("POST", "/reset", {}),
    ("POST", "/fork", {}),
    ("POST", f"/messages/{UNKNOWN}/retract", {}),
    ("POST", f"/messages/{UNKNOWN}/restore", {}),
    ("POST", "/generations", {"policy": "queue"}),
    ("POST", f"/generations/{UNKNOWN}/inputs", {"kind": "steer"}),
    ("POST", "/queue/next", {}),
    ("DELETE", f"/queue/{UNKNOWN}", {}),
]


#
@pytest.mark.parametrize(("method", "path", "body"), WRITES)
async def test_every_route_tells_what_became_of_its_session(method: str, path: str, body: dict[str, JSON]) -> None:
    async with serving(says=saying("a")) as (world, client):
        missing = await client.request(method, f"/v1/sessions/no{path}", json=body)
        assert refusal(missing, 404, "SESSION_NOT_FOUND")["session_id"] == "no"
        unfit = await client.request(method, f"/v1/sessions/a%20b{path}", json=body)
        assert "session_id" not in refusal(unfit, 400, "INVALID_ID")
        theirs = await client.request(method, S + path, json=body, headers={"Origin": "https://evil.example"})
        refusal(theirs, 403, "ORIGIN_REFUSED")
        await client.put("/v1/sessions/gone")
        await client.delete("/v1/sessions/gone")
        gone = await client.request(method, f"/v1/sessions/gone{path}", json=body)
        assert refusal(gone, 410, "SESSION_DELETED")["session_id"] == "gone"
        await world.engine.drain()
        draining = await client.request(method, S + path, json=body)
        assert refusal(draining, 503, "DRAINING")["session_id"] == "s"


@pytest.mark.parametrize(
    ("method", "path", "body", "names"),
    [
        ("PATCH", "", {}, "$.metadata"),
        ("PATCH", "", {"metadata": []}, "$.metadata"),
        ("PATCH", "", {"metadata": None}, "$.metadata"),
        ("PATCH", "", {"metadata": {}, "x": 1}, "'x'"),
        ("PATCH", "", [], "object"),
        ("POST", "/reset", {"reason": 1}, "$.reason"),
        ("POST", "/reset", {"why": "x"}, "'why'"),
        ("POST", "/fork", {"at": 5}, "$.at"),
        ("POST", "/fork", {"at": None}, "$.at"),
        ("POST", "/fork", {"metadata": "x"}, "$.metadata"),
        ("POST", "/fork", {"session_id": 1}, "$.session_id"),
        ("POST", "/fork", {"id": "t"}, "'id'"),
        ("POST", f"/messages/{UNKNOWN}/retract", {"and_after": "true"}, "$.and_after"),
        ("POST", f"/messages/{UNKNOWN}/retract", {"and_after": 1}, "$.and_after"),
        ("POST", f"/messages/{UNKNOWN}/retract", {"reason": "x"}, "'reason'"),
        ("POST", f"/messages/{UNKNOWN}/restore", {"index": 1}, "'index'"),
        ("POST", "/queue/next", {"x": 1}, "'x'"),
        ("POST", "/queue/next", [], "object"),
        ("POST", "/stop", {"queue": "drop"}, "drop"),
        ("POST", "/stop", {"queue": None}, "$.queue"),
        ("POST", "/stop", {"queue": True}, "$.queue"),
        ("POST", "/generations", {"replaces": 1}, "$.replaces"),
        ("POST", "/generations", {"replaces": None}, "$.replaces"),
        ("POST", "/generations", {"continues": 1}, "$.continues"),
        ("POST", "/generations", {"author": "ann"}, "author"),
        ("POST", "/generations", {"on_last_disconnect": "stop"}, "on_last_disconnect"),
        ("POST", "/generations", {"policy": "often"}, "often"),
    ],
)
async def test_a_body_that_is_not_exactly_right_is_refused_by_name(
    method: str, path: str, body: JSON, names: str
) -> None:
    async with serving(says=saying("a")) as (_, client):
        before = accepted(await client.get(S), 200)["cursor"]
        problem = refusal(await client.request(method, S + path, json=body), 400, "INVALID_BODY")
        assert names in problem["detail"]
        assert problem["session_id"] == "s"
        assert accepted(await client.get(S), 200)["cursor"] == before, "nothing was written"


async def test_routes_know_their_methods() -> None:
    async with serving() as (_, client):
        for path, allowed in (
            ("/v1/sessions", "GET, HEAD, OPTIONS"),
            (f"{S}/reset", "OPTIONS, POST"),
            (f"{S}/fork", "OPTIONS, POST"),
            (f"{S}/queue/next", "DELETE, OPTIONS, POST"),
            (f"{S}/queue/{UNKNOWN}", "DELETE, OPTIONS"),
            (f"{S}/generations/{UNKNOWN}/inputs", "OPTIONS, POST"),
            (f"{S}/messages/{UNKNOWN}/retract", "OPTIONS, POST"),
            (f"{S}/messages/{UNKNOWN}/restore", "OPTIONS, POST"),
            (f"{S}/messages/{UNKNOWN}/versions", "GET, HEAD, OPTIONS"),
        ):
            answer = await client.put(path)
            refusal(answer, 405, "METHOD_NOT_ALLOWED")
            assert answer.headers["allow"] == allowed


#
async def test_two_sessions_never_touch_each_other() -> None:
    async with serving(p=Steered(), q=Steered()) as (world, client):
        T = "/v1/sessions/t"
        await client.put(T, json={"metadata": {"mine": True}})
        other = accepted(await client.post(f"{T}/generations", json={"producer": "q", "text": "theirs"}), 201)
        waiting = accepted(await client.post(f"{T}/generations", json={"producer": "q", "policy": "queue"}), 202)
        await wait_for(world, "block.delta", "t")
        before, log = accepted(await client.get(T), 200), await events(world, "t")
        message_id = before["messages"][0]["message_id"]

        await start(client, producer="p", text="ours")
        await start(client, 202, producer="p", policy="queue")
        for method, path, body, code in (
            ("DELETE", f"/queue/{waiting['generation_id']}", {}, "GENERATION_NOT_FOUND"),
            ("POST", f"/messages/{message_id}/retract", {}, "MESSAGE_NOT_FOUND"),
            ("POST", f"/messages/{message_id}/restore", {}, "MESSAGE_NOT_FOUND"),
            ("GET", f"/messages/{message_id}/versions", {}, "MESSAGE_NOT_FOUND"),
            ("POST", "/generations", {"replaces": message_id, "producer": "p"}, "MESSAGE_NOT_FOUND"),
            ("POST", f"/generations/{other['generation_id']}/inputs", {"kind": "steer"}, "GENERATION_NOT_FOUND"),
            ("GET", f"/generations/{other['generation_id']}", {}, "GENERATION_NOT_FOUND"),
            ("POST", "/fork", {"at": before["cursor"]}, "INVALID_CURSOR"),
        ):
            answer = await client.request(method, S + path, json=body)
            assert answer.json()["code"] == code, path
        stopped = accepted(await client.post(f"{S}/stop", json={"generation_id": other["generation_id"]}), 200)
        assert stopped["state"] == "pending"
        for method, path, body in (
            ("POST", "/stop", {"queue": "clear"}),
            ("PATCH", "", {"metadata": {"mine": None}}),
            ("POST", "/queue/next", {}),
            ("POST", "/fork", {"session_id": "u"}),
            ("POST", "/reset", {}),
            ("DELETE", "", {}),
        ):
            assert (await client.request(method, S + path, json=body)).is_success, path
        assert accepted(await client.get(T), 200) == before
        assert await events(world, "t") == log
