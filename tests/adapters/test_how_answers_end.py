"""Over every way: how an answer ended, and who asked for it, is told by the server and by nobody else."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
import trio

from penstock.adapters.client import connect
from penstock.engine import Config, Generation, ProducerError
from tests.adapters.credentials import bearer, identity, token
from tests.adapters.serving import PATIENCE, Penstock, penstock
from tests.engine.producers import Steered, saying

S: Final = "/v1/sessions/s"


async def refused(generation: Generation) -> None:
    """As a model whose key is wrong: it fails before its first word."""
    raise ProducerError("The provider refused the key.", reason="MODEL_AUTH", again=False)


async def ended(world: Penstock, generation_id: str) -> None:
    """Wait for the generation's end."""
    session = await world.engine.session("s")
    with trio.fail_after(PATIENCE):
        async with session.subscribe() as events:
            async for event in events:
                if event.type == "generation.finished" and event.generation_id == generation_id:
                    return


async def test_an_answer_that_failed_before_its_first_word_is_told_everywhere() -> None:
    producers = {"refused": refused, "say": saying("here")}
    async with penstock(producers=producers, identity=identity()) as world, world.client() as client:
        client.headers.update(bearer(token(subject="ann")))
        await client.put(S)
        started = (await client.post(f"{S}/generations", json={"producer": "refused", "text": "hello?"})).json()
        gid = started["generation_id"]
        await ended(world, gid)
        snapshot = (await client.get(S)).json()
        (told,) = snapshot["generations"]
        assert told.keys() == {
            "generation_id",
            "state",
            "turn",
            "outcome",
            "code",
            "message",
            "retryable",
            "author",
            "started",
            "finished",
            "silent",
            "behind",
        }
        assert (told["state"], told["outcome"], told["code"]) == ("finished", "failed", "MODEL_AUTH")
        assert (told["message"], told["retryable"]) == ("The provider refused the key.", False)
        assert (told["author"], told["behind"]) == ("ann", snapshot["messages"][0]["message_id"])
        assert told["finished"]["cursor"] == snapshot["cursor"]
        assert (await client.get(f"{S}/generations/{gid}")).json() == {"session_id": "s", **told}
        await client.post(f"{S}/fork", json={"session_id": "f"})
        (carried,) = (await client.get("/v1/sessions/f")).json()["generations"]
        assert carried == {
            name: told[name]
            for name in ("generation_id", "state", "turn", "outcome", "code", "message", "silent", "behind")
        }


async def test_the_token_says_who_asked_and_no_body_does() -> None:
    producers = {"waits": Steered()}
    async with penstock(producers=producers, identity=identity()) as world, world.client() as client:
        ann, bob = bearer(token(subject="ann")), bearer(token(subject="bob"))
        await client.put(S, headers=ann)
        body = {"producer": "waits", "text": "from Ann"}
        started = (await client.post(f"{S}/generations", json=body, headers=ann)).json()
        said = {"text": "from Bob", "metadata": {"author": "ann"}}
        await client.post(f"{S}/messages", json=said, headers=bob)
        for path, forged in (
            ("generations", {"text": "x", "author": "bob"}),
            ("messages", {"text": "x", "author": "bob"}),
            ("stop", {"author": "bob"}),
        ):
            answer = await client.post(f"{S}/{path}", json=forged, headers=ann)
            assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_BODY")
            assert "author" in answer.json()["detail"]
        await client.post(f"{S}/stop", headers=bob)
        await ended(world, started["generation_id"])
        snapshot = (await client.get(S, headers=ann)).json()
        texts = {message["blocks"][0]["text"]: message.get("author") for message in snapshot["messages"]}
        assert texts == {"from Ann": "ann", "from Bob": "bob", "begun": None}
        assert [each["author"] for each in snapshot["generations"]] == ["ann"]
        stops = [event for event in await events_of(world) if event["type"] == "generation.cancelling"]
        assert [event["data"] for event in stops] == [{"reason": "stopped", "author": "bob"}]


async def events_of(world: Penstock) -> list[dict[str, Any]]:
    async with world.client() as client:
        headers = {**bearer(token()), "Accept": "application/x-ndjson"}
        lines = (await client.get(f"{S}/events?live=false", headers=headers)).text.splitlines()
    return [event for event in map(json.loads, filter(None, lines)) if "type" in event]


async def test_a_socket_says_who_asked() -> None:
    producers = {"waits": Steered()}
    async with penstock(producers=producers, identity=identity()) as world, world.client() as client:
        made = bearer(token(subject="ann"))
        await client.put(S, headers=made)
        async with world.socket(headers=[(b"authorization", made["Authorization"].encode())]) as socket:
            answer = await socket.ask(op="start", id=1, session_id="s", producer="waits", text="mine")
            result: Any = answer["result"]
            await socket.ask(op="post", id=2, session_id="s", text="more")
            await socket.ask(op="stop", id=3, session_id="s")
            forged = await socket.ask(op="post", id=4, session_id="s", text="x", author="bob")
            error: Any = forged["error"]
            assert error["code"] == "INVALID_BODY"
        await ended(world, result["generation_id"])
        snapshot = (await client.get(S, headers=made)).json()
        users = [message for message in snapshot["messages"] if message["role"] == "user"]
        assert [message["author"] for message in users] == ["ann", "ann"]


async def test_without_tokens_nobody_is_the_author() -> None:
    async with penstock(producers={"say": saying("x")}) as world, world.client() as client:
        await client.put(S)
        started = (await client.post(f"{S}/generations", json={"producer": "say", "text": "hi"})).json()
        await ended(world, started["generation_id"])
        snapshot = (await client.get(S)).json()
        assert all("author" not in each for each in (*snapshot["messages"], *snapshot["generations"]))


async def test_a_start_goes_on_with_a_message() -> None:
    async with penstock(producers={"say": saying("x")}) as world, world.client() as client:
        await client.put(S)
        first = (await client.post(f"{S}/generations", json={"producer": "say", "text": "hi"})).json()
        await ended(world, first["generation_id"])
        cut = (await client.get(S)).json()["messages"][-1]["message_id"]
        body = {"producer": "say", "continues": cut}
        second = (await client.post(f"{S}/generations", json=body)).json()
        await ended(world, second["generation_id"])
        assert (await client.get(S)).json()["messages"][-1]["continues"] == cut
        for wrong, code in ((first["generation_id"], "MESSAGE_NOT_FOUND"), ("x", "INVALID_ID"), (7, "INVALID_BODY")):
            answer = await client.post(f"{S}/generations", json={"continues": wrong})
            assert answer.json()["code"] == code


@pytest.mark.parametrize("fold_bytes", [1, 2 * 1024 * 1024])
async def test_the_client_has_the_generations_of_all_pages(fold_bytes: int) -> None:
    config = Config(fold_bytes=fold_bytes, snapshot_bytes=600, compact_after=None)
    producers = {"refused": refused, "say": saying("x" * 100)}
    async with penstock(producers=producers, config=config) as world, connect(world.url) as client:
        session = await client.create_session("s")
        for number in range(8):
            started = await session.start("say" if number % 3 else "refused", text=f"question {number}")
            await ended(world, started.generation_id)
        whole = await (await world.engine.session("s")).snapshot()
        assert len(whole.generations) == 8
        assert (await session.snapshot()).generations == whole.generations
        async with session.transcript() as transcript:
            while await transcript.older(2):
                pass
            assert transcript.snapshot().generations == whole.generations
        for told in whole.generations:
            assert await session.generation(told.generation_id) == told
