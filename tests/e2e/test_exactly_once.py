"""A remote producer behind a bad network, its server killed again and again: all it said, once, in order."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import httpx
import pytest
import trio

from penstock.engine import new_generation_id, new_message_id
from penstock.engine.testing import assert_log
from tests.e2e.conftest import ServerProcess
from tests.e2e.faulty_proxy import FATES, FaultyProxy
from tests.e2e.streams import fold_frames
from tests.e2e.test_reliability import events_of, log_of

CHUNKS = 20_000
KILLS = (2_500, 6_000, 9_500, 13_000, 17_000)  # chunks that were stored before each

# What a request may take before the producer gives it up and sends it again.
PATIENCE = 5.0
PAUSE = 0.02


class Sender:
    """Sends one request after the other, each until it is answered as stored."""

    def __init__(self, client: httpx.AsyncClient, session_id: str) -> None:
        self._client = client
        self._path = f"/v1/sessions/{session_id}"
        self._seq = 0
        self.answers = Counter[str]()
        self.duplicates = 0

    async def send(self, path: str, body: object) -> dict[str, object]:
        """Under the next number. Anything but a success or a failure that may be repeated fails the test."""
        headers = {"Producer-Id": "pump", "Producer-Epoch": "3", "Producer-Seq": str(self._seq)}
        while True:
            try:
                answer = await self._client.post(self._path + path, json=body, headers=headers)
            except httpx.TransportError as error:
                self.answers[type(error).__name__] += 1
                await trio.sleep(PAUSE)
                continue
            self.answers[str(answer.status_code)] += 1
            told: dict[str, object] = answer.json()
            if answer.status_code == 200:
                self._seq += 1
                return told
            assert told["retryable"], told
            await trio.sleep(PAUSE)


def batches(chance: random.Random, words: Sequence[str]) -> list[list[str]]:
    cut: list[list[str]] = []
    start = 0
    while start < len(words):
        size = chance.choice((1, 5, 20, 50, 50))
        cut.append(list(words[start : start + size]))
        start += size
    return cut


@pytest.mark.long
async def test_what_a_remote_producer_sends_arrives_once_in_order(  # R-75 R-78 R-81 R-86 R-88 R-90
    start_server: Callable[..., ServerProcess], record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(1120)
    server = await trio.to_thread.run_sync(start_server)
    port = urlsplit(server.url).port
    assert port is not None
    proxy = FaultyProxy(chance, lambda: port or 0)
    words = [f"wörd{number} " for number in range(CHUNKS)]
    generation_id, message_id = new_generation_id(), new_message_id()
    stored = 0
    reached = {mark: trio.Event() for mark in KILLS}

    async def kill() -> None:
        nonlocal server, port
        for mark in KILLS:
            await reached[mark].wait()
            server.kill()
            server = await trio.to_thread.run_sync(start_server)
            port = urlsplit(server.url).port

    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.run)
        nursery.start_soon(kill)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{proxy.port}", timeout=PATIENCE) as client:
            while True:
                try:
                    created = await client.put("/v1/sessions/s", json={})
                    assert created.status_code in (200, 201)
                    break
                except httpx.TransportError:
                    await trio.sleep(PAUSE)
            sender = Sender(client, "s")
            for batch in batches(chance, words):
                told = await sender.send(
                    "/chunks/batch",
                    {
                        "chunks": [
                            {"generation_id": generation_id, "message_id": message_id, "data": {"text": word}}
                            for word in batch
                        ]
                    },
                )
                stored += len(batch)
                for mark in KILLS:
                    if stored >= mark:
                        reached[mark].set()
                assert told["accepted"] in (0, len(batch))
                assert told["duplicates"] == len(batch) - int(str(told["accepted"]))
                sender.duplicates += told["accepted"] == 0
            await sender.send(f"/generations/{generation_id}/finish", {"usage": {"output_tokens": CHUNKS}})
        nursery.cancel_scope.cancel()
    frames = await trio.to_thread.run_sync(log_of, server.url, "s")
    events = events_of(frames)
    assert_log(events, closed=True)
    assert [event.type for event in events].count("generation.started") == 1
    assert [event.data.outcome for event in events if event.type == "generation.finished"] == ["completed"]  # type: ignore[union-attr]
    assert [event.type for event in events].count("block.delta") == CHUNKS
    assert fold_frames(frames) == "".join(words)
    assert set(FATES) <= set(proxy.counts)  # else the network was not bad enough
    assert sender.duplicates > 0
    for name, count in (*proxy.counts.items(), *sender.answers.items()):
        record_property(name, count)
    assert await trio.to_thread.run_sync(server.stop) == 0
