"""The Python client's remote producer behind a bad network: all it said, once, in order."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable

import pytest
import trio

from penstock.adapters.client import ClientConfig, connect
from penstock.engine import BlockDelta, Event, Generation, GenerationFinished
from penstock.engine.testing import assert_log
from tests.adapters.serving import penstock
from tests.e2e.conftest import ServerProcess
from tests.e2e.faulty_proxy import FATES, FaultyProxy

WORDS = [f"wörd{number} 水 " for number in range(6000)]

# For as long as a bad line may take.
STUBBORN = ClientConfig(attempts=100, first_retry=0.005, longest_retry=0.2, flush_timeout=60.0, request_timeout=5.0)


async def talker(generation: Generation, *, words: int = len(WORDS), pause: float = 0.001) -> None:
    """At the pace of a fast model, so that batches have all sizes."""
    async with generation.message() as message, message.text() as block:
        for number, word in enumerate(WORDS[:words]):
            await block.write(word)
            if number % 7 == 0:
                await trio.sleep(pause)
    generation.report_usage({"words": len(WORDS)})


# R-75 R-77 R-78 R-81 R-83 R-86 R-90 R-91
@pytest.mark.long
@pytest.mark.parametrize("seed", [3, 4])
async def test_what_a_producer_says_arrives_once_in_order(
    seed: int, record_property: Callable[[str, object], None]
) -> None:
    with trio.fail_after(90):
        async with penstock() as server, trio.open_nursery() as nursery:
            proxy = FaultyProxy(random.Random(seed), lambda: server.served.port)
            await nursery.start(proxy.run)
            # The session is not there: the first batch makes it. A stream would not pass this proxy.
            async with (
                connect(f"http://127.0.0.1:{proxy.port}", config=STUBBORN) as client,
                client.session("s").produce(listen=False, job_id="j") as generation,
            ):
                await talker(generation)
            async with (await server.engine.session("s")).subscribe(live=False) as events:
                log = [event async for event in events]
            nursery.cancel_scope.cancel()
    check(log)
    assert set(FATES) <= set(proxy.counts)
    record_property("fates", dict(proxy.counts))


# R-71 R-75 R-78 R-86
@pytest.mark.long
async def test_a_producer_outlives_its_server(start_server: Callable[..., ServerProcess]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    server = await trio.to_thread.run_sync(start_server, "--port", port)
    async with trio.open_nursery() as nursery, connect(server.url) as client:

        async def kill() -> None:
            nonlocal server
            for _ in range(3):
                await trio.sleep(0.6)
                server.kill()
                server = await trio.to_thread.run_sync(start_server, "--port", port)

        session = await client.create_session("s")
        async with session.transcript() as transcript:
            nursery.start_soon(kill)
            async with session.produce() as generation:
                for _ in range(3):
                    await talker(generation, words=2000, pause=0.005)
            await transcript.wait_for(lambda state: state.turn == 1 and state.generation is None)
            assert transcript.snapshot().to_json() == (await session.snapshot()).to_json()
        async with session.events() as events:
            log = []
            async for event in events:
                log.append(event)
                if isinstance(event.data, GenerationFinished):
                    break
    check(log, words=2000, times=3)
    assert await trio.to_thread.run_sync(server.stop) == 0


def check(log: list[Event], *, words: int = len(WORDS), times: int = 1) -> None:
    """All that `talker` said, once, in order, in one generation that was completed."""
    assert_log(log, closed=True)
    datas = [event.data for event in log]
    assert "".join(data.text or "" for data in datas if isinstance(data, BlockDelta)) == "".join(WORDS[:words]) * times
    assert [event.type for event in log].count("generation.started") == 1
    assert [data.outcome for data in datas if isinstance(data, GenerationFinished)] == ["completed"]
