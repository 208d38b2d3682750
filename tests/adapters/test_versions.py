"""Over HTTP and with the client: versions of a message, how one comes back, and which producers there are."""

from __future__ import annotations

from typing import Any, Final
from uuid import uuid4

import httpx
import pytest

from penstock.adapters.client import Client, RemoteSession, connect
from penstock.engine import (
    Generation,
    IdempotencyConflict,
    InvalidBody,
    JSONObject,
    MemoryLog,
    MessageNotFound,
    Producer,
    ProducerInfo,
    Started,
    open_engine,
)
from tests.adapters.credentials import bearer, identity, token
from tests.adapters.serving import penstock
from tests.engine.producers import Steered, saying

S: Final = "/v1/sessions/s"


async def ask(session: RemoteSession, producer: str, **asked: Any) -> None:
    """Start, and wait for the end."""
    started = await session.start(producer, **asked)
    assert isinstance(started, Started)
    async with session.events() as events:
        async for event in events:
            if event.type == "generation.finished" and event.generation_id == started.generation_id:
                return


async def three_answers(client: Client) -> tuple[RemoteSession, list[str]]:
    """A question whose third answer stands there; the ids of all three."""
    session = await client.create_session("s")
    await ask(session, "a", text="why?")
    ids = [(await session.snapshot()).messages[1].message_id]
    for producer in "bc":
        await ask(session, producer, replaces=ids[-1])
        ids.append((await session.snapshot()).messages[1].message_id)
    return session, ids


PRODUCERS: Final = {each: saying(each) for each in "abc"} | {"waits": Steered()}


async def test_versions_are_told_and_one_comes_back_over_http() -> None:
    async with penstock(producers=PRODUCERS) as world, connect(world.url) as remote, world.client() as client:
        _, ids = await three_answers(remote)
        told = (await client.get(f"{S}/messages/{ids[0].upper()}/versions")).json()
        assert (told["session_id"], told["message_id"], told["more"]) == ("s", ids[0], False)
        assert [each["blocks"][0]["text"] for each in told["versions"]] == ["a", "b", "c"]
        assert [each["message_id"] for each in told["versions"]] == ids
        assert [each["version"] for each in told["versions"]] == [
            {"of": ids[0], "index": index, "count": 3} for index in (1, 2, 3)
        ]
        page = (await client.get(f"{S}/messages/{ids[2]}/versions?limit=1&after=1")).json()
        assert ([each["message_id"] for each in page["versions"]], page["more"]) == ([ids[1]], True)
        for query in ("after=-1", "after=x", "after=01", "after=1&after=2", "limit=0", "limit=1001"):
            refused = await client.get(f"{S}/messages/{ids[2]}/versions?{query}")
            assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_BODY")
        restored = await client.post(f"{S}/messages/{ids[0]}/restore", headers={"Idempotency-Key": "k"})
        assert restored.status_code == 200
        snapshot = (await client.get(S)).json()
        answer = snapshot["messages"][1]
        assert restored.json() == {
            "session_id": "s",
            "message_id": ids[0],
            "message_ids": [answer["message_id"]],
            "cursor": snapshot["cursor"],
        }
        assert (answer["blocks"][0]["text"], answer["version"]["index"]) == ("a", 1)
        again = await client.post(f"{S}/messages/{ids[0]}/restore", json={}, headers={"Idempotency-Key": "k"})
        assert again.json() == restored.json()
        other = await client.post(f"{S}/messages/{ids[1]}/restore", headers={"Idempotency-Key": "k"})
        assert (other.status_code, other.json()["code"]) == (409, "IDEMPOTENCY_CONFLICT")
        twice = [("Idempotency-Key", "k"), ("Idempotency-Key", "k")]
        for headers in (twice, [("Idempotency-Key", "a key")]):
            refused = await client.post(f"{S}/messages/{ids[1]}/restore", headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_BODY")
        unknown = str(uuid4())
        for method, path in (("GET", "versions"), ("POST", "restore")):
            missing = await client.request(method, f"{S}/messages/{unknown}/{path}")
            assert (missing.status_code, missing.json()["code"]) == (404, "MESSAGE_NOT_FOUND")
            assert missing.json()["message_id"] == unknown
        live = (await client.post(f"{S}/generations", json={"producer": "waits"})).json()["generation_id"]
        busy = await client.post(f"{S}/messages/{ids[1]}/restore")
        assert (busy.status_code, busy.json()["code"]) == (409, "GENERATION_ACTIVE")
        assert (busy.json()["generation_id"], busy.json()["message_id"]) == (live, ids[1])


async def test_a_key_is_its_owner_s() -> None:
    async with penstock(producers=PRODUCERS, identity=identity()) as world, world.client() as client:
        async with connect(world.url, token=token(subject="ann")) as remote:
            _, ids = await three_answers(remote)
        answers = []
        for subject, message_id in (("ann", ids[0]), ("bob", ids[1]), ("ann", ids[0])):
            headers = {**bearer(token(subject=subject)), "Idempotency-Key": "k"}
            answers.append((await client.post(f"{S}/messages/{message_id}/restore", headers=headers)).json())
        assert answers[0] == answers[2] != answers[1]


async def test_the_client_tells_of_versions_as_the_engine_does() -> None:
    async with penstock(producers=PRODUCERS) as world, connect(world.url) as client:
        session, ids = await three_answers(client)
        here = await world.engine.session("s")
        assert await session.versions(ids[1]) == await here.versions(ids[1])
        assert await session.versions(ids[1], after=1, limit=1) == await here.versions(ids[1], after=1, limit=1)
        async with session.transcript() as transcript:
            restored = await session.restore(ids[0], idempotency_key="k")
            while transcript.snapshot().cursor != restored.cursor:
                await transcript.wait_changed()
            assert transcript.snapshot().to_json() == (await here.snapshot()).to_json()
        assert [each.message_id for each in (await here.snapshot()).messages[1:]] == list(restored.message_ids)
        assert await session.restore(ids[0], idempotency_key="k") == restored
        with pytest.raises(IdempotencyConflict):
            await session.restore(ids[1], idempotency_key="k")
        with pytest.raises(MessageNotFound):
            await session.versions(str(uuid4()))


async def test_a_restore_whose_answer_is_lost_is_asked_for_again_under_its_key() -> None:
    keys: list[str] = []
    answer: JSONObject = {"session_id": "s", "message_id": "m", "message_ids": ["n"], "cursor": "e-0000000000000007"}

    def respond(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["Idempotency-Key"])
        if len(keys) == 1:
            raise httpx.ReadError("lost")
        return httpx.Response(200, json=answer)

    async with connect("http://fake", transport=httpx.MockTransport(respond)) as client:
        restored = await client.session("s").restore(str(uuid4()))
    assert restored.message_ids == ("n",)
    assert len(keys) == 2
    assert keys[0] == keys[1]


# --- producers


class Summary:
    """Not told: it is the class's."""

    description = "Says it in fewer words."
    input_schema: Final = {"type": "object", "properties": {"words": {"type": "integer"}}}

    async def __call__(self, generation: Generation) -> None: ...


async def story(generation: Generation) -> None:
    """Tell a story.

    Of any length.
    """


async def test_producers_are_told_with_what_they_say_of_themselves() -> None:
    producers: dict[str, Producer] = {"summary": Summary(), "story": story, "plain": saying("x")}
    async with penstock(producers=producers) as world, connect(world.url) as client, world.client() as http:
        assert world.engine.producers == ("plain", "story", "summary")
        assert (await http.get("/v1/producers")).json() == {
            "producers": [
                {"name": "plain"},
                {"name": "story", "description": "Tell a story."},
                {
                    "name": "summary",
                    "description": "Says it in fewer words.",
                    "input_schema": Summary.input_schema,
                },
            ]
        }
        assert await client.producers() == world.engine.producer_infos
    async with open_engine(MemoryLog(), producers=producers, default_producer="story") as engine:
        assert [each.default for each in engine.producer_infos] == [False, True, False]


async def test_a_server_without_producers_says_so() -> None:
    async with penstock(producers={}) as world, connect(world.url) as client, world.client() as http:
        assert (await http.get("/v1/producers")).json() == {"producers": []}
        assert (await client.producers(), world.engine.producers) == ((), ())


async def test_the_client_knows_the_default_producer() -> None:
    async with penstock(producers={"story": story}) as world, connect(world.url) as client:
        (only,) = await client.producers()
        assert only == ProducerInfo(name="story", default=True, description="Tell a story.")


async def test_what_a_producer_says_is_what_json_can_say() -> None:
    async def odd(generation: Generation) -> None: ...

    vars(odd).update(description=7, input_schema="an object")
    async with open_engine(MemoryLog(), producers={"odd": odd}) as engine:
        assert engine.producer_infos == (ProducerInfo(name="odd", default=True),)
    for said in ({"description": "\ud800"}, {"input_schema": {"a": object()}}):
        vars(odd).update(said)
        with pytest.raises(InvalidBody, match="of the producer 'odd'"):
            async with open_engine(MemoryLog(), producers={"odd": odd}):
                pass
        vars(odd).clear()
