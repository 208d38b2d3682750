"""The description is whole, valid, and what the server serves; every kind of event is what it describes."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
import schemathesis
import trio
from attrs import evolve
from quart import Response
from quart_trio import QuartTrio

from penstock.adapters.http import create_app
from penstock.adapters.http.openapi.grammar import GRAMMAR
from penstock.adapters.http.routes import Operation, Routes
from penstock.adapters.problems import TABLE
from penstock.adapters.server.accept import ServerConfig
from penstock.engine import DATA_TYPES, Generation, MemoryLog, Producer, open_engine
from tests.adapters.describing import description, rules, validate
from tests.adapters.serving import PATIENCE, Penstock, penstock
from tests.engine.producers import Steered

S = "/v1/sessions/s"
EVENT = {"$ref": "#/components/schemas/Event"}


def operations(told: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(method, path): each for path, item in told["paths"].items() for method, each in item.items()}


def references(value: object) -> list[str]:
    if isinstance(value, dict):
        own = [str(value["$ref"])] if "$ref" in value else []
        return own + [found for item in value.values() for found in references(item)]
    return [found for item in value for found in references(item)] if isinstance(value, list) else []


#
async def test_every_route_is_described_and_every_description_has_its_route() -> None:
    async with open_engine(MemoryLog()) as engine:
        assert rules(create_app(engine)) == operations(description()).keys()


# that answers are as described, every client of these tests checks.
def test_every_success_names_the_ids_that_its_path_names() -> None:
    told = description()
    seen = 0
    for (method, path), operation in operations(told).items():
        named = {part[1:-1] for part in path.split("/") if part.startswith("{")}
        for status, answer in operation["responses"].items():
            if "session_id" not in named or not status.startswith("2") or path.endswith(("/events", "/{file_id}")):
                continue
            shape = answer["content"]["application/json"]["schema"]
            while "$ref" in shape:
                shape = told["components"]["schemas"][shape["$ref"].rpartition("/")[2]]
            for one in shape.get("anyOf", shape.get("oneOf", [shape])):
                one = told["components"]["schemas"][one["$ref"].rpartition("/")[2]] if "$ref" in one else one
                always = named - ({"device_id"} if method in ("put", "delete") else set())
                assert always <= set(one["required"]), (method, path, status)
                assert named <= set(one["properties"]), (method, path, status)
                seen += 1
    assert seen >= 20


#
def test_the_document_is_openapi_and_holds_together() -> None:
    told = description()
    schemathesis.openapi.from_dict(told).validate()
    for found in set(references(told)):
        inside: Any = told
        for part in found.removeprefix("#/").split("/"):
            inside = inside[part]
    names = Counter(each["operationId"] for each in operations(told).values())
    assert names.most_common(1)[0][1] == 1
    tags = {tag["name"] for tag in told["tags"]}
    assert {tag for each in operations(told).values() for tag in each["tags"]} == tags
    for (_, path), each in operations(told).items():
        holes = {part[1:-1] for part in path.split("/") if part.startswith("{")}
        assert holes == {given["name"] for given in each.get("parameters", ()) if given["in"] == "path"}


def test_a_route_is_described_once() -> None:
    routes = Routes(QuartTrio("test"))

    async def one() -> Response:
        return Response("")

    told = Operation(method="get", path="/one/{name}", id="one", tag="server", summary="One", answers={}, scope=None)
    routes.add(told)(one)
    with pytest.raises(ValueError, match="has a route"):
        routes.add(evolve(told, id="another", summary="The same"))


#
def test_every_code_of_the_table_is_some_operations() -> None:
    enums = [found["enum"] for found in _codes(description())]
    # 405 is the answer to what is not described.
    assert {code for enum in enums for code in enum} == TABLE.keys() - {"METHOD_NOT_ALLOWED"}


def _codes(told: dict[str, Any]) -> list[dict[str, Any]]:
    contents = [each["content"] for each in told["components"]["responses"].values()]
    return [content["application/problem+json"]["schema"]["allOf"][1]["properties"]["code"] for content in contents]


def test_no_word_of_the_grammar_is_about_nothing() -> None:
    schemas = description()["components"]["schemas"]
    for named in (GRAMMAR.own, GRAMMAR.also, GRAMMAR.absent, GRAMMAR.required, GRAMMAR.told):
        assert named.keys() <= schemas.keys() | {"InputHead", "ApprovalAnswer"}
    for name, fields in GRAMMAR.own.items():
        assert name in ("InputHead", "ApprovalAnswer") or fields.keys() <= schemas[name]["properties"].keys()
    fields_ = {field for schema in schemas.values() for field in schema.get("properties", ())}
    assert GRAMMAR.named.keys() <= fields_


def test_a_server_with_keys_says_what_takes_a_token() -> None:
    told = description(secured=True)
    free = {each["operationId"] for each in operations(told).values() if not each["security"]}
    assert free == {"openSocket", "healthz", "readyz", "describe", "playground", "docs", "file"}
    start = operations(told)["post", "/v1/sessions/{session_id}/generations"]
    assert start["security"] == [{"bearer": ["write"]}]
    assert not any(each["security"] for each in operations(description()).values())


async def test_the_document_is_served_and_cached_by_its_tag() -> None:
    async with penstock() as world, world.client() as client:
        served = await client.get("/openapi.json")
        assert served.headers["content-type"] == "application/json"
        assert served.json() == description()
        again = await client.get("/openapi.json", headers={"If-None-Match": served.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


async def test_the_document_knows_the_prefix_it_is_reached_under() -> None:
    async with penstock(server=ServerConfig(root_path="/chat")) as world:
        served = await world.served.get("/chat/openapi.json")
        assert json.loads(served.partition(b"\r\n\r\n")[2])["servers"] == [{"url": "/chat"}]


async def test_a_page_shows_it_and_neither_of_its_names_is_a_redirect() -> None:
    async with penstock() as world, world.client() as client:
        for path in ("/docs", "/api.html", "/", "/index.html"):
            page = await client.get(path)
            assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert "unsafe" not in page.headers["content-security-policy"]


@pytest.mark.parametrize(
    "broken",
    [
        {"type": "block.delta", "data": {"text": 5}},
        {"type": "block.delta", "data": {"txt": "x"}},
        {"type": "block.delta", "seq": None},
        {"type": "unheard.of"},
        {"offset": 0},
        {"extra": 1},
    ],
)
def test_what_is_not_described_is_found(broken: dict[str, Any]) -> None:
    whole = {
        "type": "block.delta",
        "session_id": "s",
        "offset": 1,
        "time": "2026-01-31T09:26:53.589Z",
        "generation_id": str(uuid4()),
        "turn": 1,
        "message_id": str(uuid4()),
        "block_index": 0,
        "seq": 1,
        "data": {"text": "x"},
    }
    validate(whole, EVENT)
    with pytest.raises(AssertionError):
        validate(whole | broken, EVENT)


async def everything(generation: Generation) -> None:
    """A producer that makes use of all there is, until it is stopped."""
    await generation.status("thinking", {"of": "much"})
    async with generation.message() as message:
        async with message.text() as text:
            await text.write("so")
        async with message.tool_call("call-1", "look") as call:
            await call.write('{"at": 1}')
        await generation.approve("look", arguments={"at": 1}, tool_call_id="call-1")
        async with message.data(name="d") as data:
            await data.put({"any": "thing"})
        await message.image(url="https://example.org/a.png", media_type="image/png", filename="a.png")
        await message.file(file_id="f", media_type="text/plain")
        await message.source(url="http://example.org/", title="A")
    await generation.app("app.done", {"any": ["thing"]})
    await generation.apply(await generation.receive_input())
    await trio.sleep_forever()


async def test_every_kind_of_event_is_as_it_is_described() -> None:
    producers: dict[str, Producer] = {"everything": everything, "waits": Steered()}
    async with penstock(producers=producers) as world, world.client() as client:
        await client.put(S)
        await client.patch(S, json={"metadata": {"k": 1}})
        posted = (await client.post(f"{S}/messages", json={"text": "hello"})).json()
        file_id = (await client.post(f"{S}/files", content=b"x")).json()["file_id"]
        await client.get(f"{S}/files/{file_id}")
        asked = {"blocks": [{"kind": "file", "file_id": file_id}, {"kind": "text", "text": "?"}], "metadata": {"k": 1}}
        body = {"producer": "everything", "text": "go", "job_id": "j", "metadata": {"k": 1}}
        first = (await client.post(f"{S}/generations", json=body)).json()["generation_id"]
        inputs = f"{S}/generations/{first}/inputs"
        async with world.lines(f"{S}/events", accept="application/x-ndjson") as lines:
            with trio.fail_after(PATIENCE):
                while "approval.requested" not in (line := await lines.next()):
                    pass
                approval_id = json.loads(line)["data"]["approval_id"]
                answer = {"kind": "approval", "approval_id": approval_id, "approved": True, "reason": "why not"}
                assert (await client.post(inputs, json=answer)).status_code == 202
                await client.post(inputs, json={"kind": "steer", "text": "left"})
                while "input.applied" not in await lines.next():
                    pass
        await client.post(inputs, json={"kind": "steer", "text": "nobody takes this"})
        await client.post(f"{S}/generations", json={"producer": "waits", "policy": "queue", "message": asked})
        await client.get(S)
        await client.post(f"{S}/stop", json={"reason": "enough"})
        await client.post(f"{S}/queue/next")
        await client.post(f"{S}/generations", json={"producer": "everything", "policy": "rollback"})
        await client.post(f"{S}/messages/{posted['message_id']}/retract", json={"and_after": False})
        await client.post(f"{S}/fork", json={"session_id": "f", "metadata": {}})
        await client.post(f"{S}/reset", json={"reason": "over"})
        seen = {*await kinds(world, "s"), *await kinds(world, "f")}
    assert seen >= DATA_TYPES.keys() - {"presence.changed"}


async def kinds(world: Penstock, session_id: str) -> set[str]:
    """The types of all events of a session; `lines` held each of them against its description."""
    seen: set[str] = set()
    path = f"/v1/sessions/{session_id}/events?live=false"
    async with world.lines(path, accept="application/x-ndjson") as lines:
        with suppress(EOFError):
            while True:
                seen.add(json.loads(await lines.next()).get("type", ""))
    return seen
