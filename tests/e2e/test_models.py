"""A real model's answer through a served process: tool call and approval over HTTP, a stop that the provider sees."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import httpx
import pytest
import trio

from tests.adapters.providers import WIRES, Answer, Call, Provider, Wire, provider, whole
from tests.adapters.serving import Lines
from tests.e2e.conftest import ServerProcess

# What differs between them is held without processes, too, in tests/adapters.
every_wire = pytest.mark.parametrize(
    "wire",
    [pytest.param(wire, id=wire.kind, marks=[pytest.mark.long] * (wire is not WIRES[0])) for wire in WIRES],
)

Start = Callable[..., ServerProcess]
Event = dict[str, object]

S = "/v1/sessions/gates"
PATIENCE = 20.0


@asynccontextmanager
async def served(
    start: Start, wire: Wire, server: Provider, monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> AsyncIterator[httpx.AsyncClient]:
    monkeypatch.setenv("PENSTOCK_MODEL", f"{wire.kind}:small")
    monkeypatch.setenv("PENSTOCK_MODEL_BASE_URL", server.url + wire.base)
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
    running = await trio.to_thread.run_sync(partial(start, *arguments))
    async with httpx.AsyncClient(base_url=running.url, timeout=PATIENCE, trust_env=False) as client:
        (await client.put(S)).raise_for_status()
        yield client
    assert await trio.to_thread.run_sync(running.stop) == 0
    log = running.log.read_text()
    assert "Traceback" not in log
    assert "Warning" not in log


class Followed:
    """The session's events from the first on."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    async def until(self, type_: str) -> tuple[list[Event], Event]:
        """The events up to and with the first one of this type, and that one."""
        before: list[Event] = []
        while True:
            line = await self._lines.next()
            event: Event = json.loads(line) if line.strip() else {}
            if "type" in event:
                before.append(event)
                if event["type"] == type_:
                    return before, event


@asynccontextmanager
async def events(client: httpx.AsyncClient) -> AsyncIterator[Followed]:
    with trio.fail_after(PATIENCE):
        async with await trio.open_tcp_stream(client.base_url.host, client.base_url.port or 0) as stream:
            head = f"GET {S}/events HTTP/1.0\r\nHost: 127.0.0.1\r\nAccept: application/x-ndjson\r\n\r\n"
            await stream.send_all(head.encode())
            lines = Lines(stream)
            await lines.open()
            yield Followed(lines)


def data(event: Event) -> dict[str, object]:
    found = event["data"]
    assert isinstance(found, dict)
    return found


@every_wire
async def test_a_tool_call_waits_for_its_approval_and_goes_on_with_its_result(
    wire: Wire, start_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = Call("call_1", "move_gate", ('{"gate": "pen', 'stock", "perc', 'ent": 10}'))
    script = [whole(wire, "I will close it.", calls=[call]), whole(wire, "It is ", "at 10 %.")]
    arguments = ("--producer", "keeper=penstock.adapters.models.example:keeper", "--default-producer", "keeper")
    async with (
        provider(*script) as server,
        served(start_server, wire, server, monkeypatch, *arguments) as client,
        events(client) as found,
    ):
        started = (await client.post(f"{S}/generations", json={"text": "Nearly close the penstock."})).json()
        before, asked = await found.until("approval.requested")
        pieces = [data(event).get("arguments") for event in before if event["type"] == "block.delta"]
        assert [piece for piece in pieces if piece] == list(call.pieces)
        assert data(asked)["arguments"] == {"gate": "penstock", "percent": 10}
        assert len(server.seen) == 1  # the model waits for people, too
        answer = await client.post(
            f"{S}/generations/{started['generation_id']}/inputs",
            json={"kind": "approval", "approval_id": data(asked)["approval_id"], "approved": True},
        )
        assert answer.status_code == 202
        between, end = await found.until("generation.finished")
        assert data(end)["outcome"] == "completed"
        said = [
            str(data(event)["text"]) for event in between if event["type"] == "block.delta" and "text" in data(event)
        ]
        assert "".join(said).endswith("It is at 10 %.")
        assert '"percent": 10' in json.dumps(server.seen[1].body).replace('\\"', '"').replace('":10', '": 10')
        snapshot = (await client.get(S)).json()
        assert [message["role"] for message in snapshot["messages"]] == ["user", "assistant", "tool", "assistant"]
        assert snapshot["approvals"] == []


@every_wire
async def test_a_stop_over_http_reaches_the_provider_within_a_tenth_of_a_second(
    wire: Wire, start_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quickest of three: a busy machine may hold up any of them."""
    pieces = wire.say("The first word", " and more")
    cut = next(i for i, piece in enumerate(pieces) if b"first word" in piece) + 1
    took: list[float] = []
    async with (
        provider(*[Answer(pieces=pieces[:cut], end="hang") for _ in range(3)]) as server,
        served(start_server, wire, server, monkeypatch) as client,
        events(client) as found,
    ):
        for turn in range(3):
            (await client.post(f"{S}/generations", json={"text": "Go."})).raise_for_status()
            await found.until("block.delta")
            asked = trio.current_time()
            assert (await client.post(f"{S}/stop", json={})).json()["state"] == "stopped"
            await server.seen[turn].left.wait()
            left_at = server.seen[turn].left_at
            assert left_at is not None
            took.append(left_at - asked)
            _, end = await found.until("generation.finished")
            assert data(end)["outcome"] == "stopped"
    assert min(took) < 0.1, took


async def test_a_model_is_one_flag_away(start_server: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = WIRES[0]
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    monkeypatch.delenv("PENSTOCK_MODEL", raising=False)
    async with provider(whole(wire, "Hello ", "there.")) as server:
        flags = ("--model", "openai:small", "--base-url", f"{server.url}/v1", "--system", "Be brief.")
        running = await trio.to_thread.run_sync(partial(start_server, *flags))
        async with httpx.AsyncClient(base_url=running.url, timeout=PATIENCE, trust_env=False) as client:
            await client.put(S)
            async with events(client) as found:
                await client.post(f"{S}/generations", json={"text": "Hi."})
                _, end = await found.until("generation.finished")
            assert data(end)["outcome"] == "completed"
        assert server.seen[0].body["messages"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi."},
        ]
        assert await trio.to_thread.run_sync(running.stop) == 0
        log = running.log.read_text()
        assert "Traceback" not in log
        assert "key" not in log.replace("keyfile", "")
