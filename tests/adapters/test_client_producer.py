"""A remote producer's promises, one by one, against a server in memory and under a mock clock."""

# ruff: noqa: PT012, SIM117  # a production is a block, and what is tested is how it is left

from __future__ import annotations

import json
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from itertools import pairwise

import httpx
import pytest
import trio
from trio.testing import MockClock

from penstock.adapters.client import Client, ClientConfig, Refused, Unreachable
from penstock.engine import (
    Draining,
    FinishFailed,
    Generation,
    GenerationMismatch,
    InvalidBody,
    ProducerError,
    ProducerNotFound,
    SequenceGap,
    SessionDeleted,
    SessionNotFound,
    StaleGeneration,
    TimedOut,
    WriteFailed,
)
from tests.adapters.fake_server import Carry, FakeServer, Fate, answer_lost, delayed, refused, request_lost

WORDS = [f"w{number} " for number in range(120)]


async def say(client: Client, words: list[str], *, pause: float = 0.0) -> None:
    async with client.session("s").produce(listen=False) as generation:
        async with generation.message() as message, message.text() as block:
            for word in words:
                await block.write(word)
                if pause:
                    await trio.sleep(pause)


# R-10 R-11 R-33 R-91: ids of the producer's own, no round trip before the first token, the message's end, then finish
async def test_a_generation_is_written_in_its_own_numbers_and_finished(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        async with client.session("s").produce(job_id="j", listen=False) as generation:
            async with generation.message() as message:
                async with message.text() as block:
                    await block.write("hello")
                async with message.tool_call("c", "look") as call:
                    await call.write("{}")
            await generation.status("working")
            await generation.app("app.note", {"a": 1})
            generation.report_usage({"tokens": 3})
    assert server.types == [
        "message.opened",
        "block.opened",
        "block.delta",
        "block.closed",
        "block.opened",
        "block.delta",
        "block.closed",
        "message.closed",
        "generation.status",
        "app.note",
    ]
    assert {chunk["generation_id"] for chunk in server.chunks} == {generation.generation_id}
    assert {chunk["job_id"] for chunk in server.chunks} == {"j"}
    assert [chunk.get("block_index") for chunk in server.chunks[1:7]] == [0, 0, 0, 1, 1, 1]
    assert [chunk.get("seq") for chunk in server.chunks[1:7]] == [0, 1, 2, 0, 1, 2]
    assert server.chunks[4]["data"] == {"kind": "tool_call", "tool_call_id": "c", "name": "look"}
    assert server.ends == [{"outcome": "completed", "usage": {"tokens": 3}}]
    assert generation.turn == 1
    assert str(generation.cursor()) == f"e-{len(server.chunks) + 2:016d}"


# R-75 R-76 R-79
async def test_chunks_linger_five_milliseconds_and_go_together(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        await say(client, WORDS[:10], pause=0.001)
    # Opened at 0 ms with the first words; the batch goes at 5 ms, and takes all that is there by then.
    assert server.times[0] == pytest.approx(0.005)
    assert server.batches[0] in (7, 8)
    assert len(server.batches) <= 4
    assert server.text == "".join(WORDS[:10])


#
async def test_a_batch_has_at_most_fifty_chunks_and_does_not_linger_when_full(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        await say(client, WORDS)
    assert max(server.batches) == 50
    assert server.batches[:2] == [50, 50]
    assert server.times[0] == 0.0
    assert server.text == "".join(WORDS)


async def test_a_batch_has_a_bound_in_bytes(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(ClientConfig(batch_bytes=10_000)) as client:
        await say(client, ["x" * 4000] * 9)
    assert max(len(request.content) for request in server.requests) < 10_100
    assert server.text == "x" * 36_000


# R-56 R-76 R-77: the producer waits, and nothing is dropped
async def test_a_full_buffer_makes_the_producer_wait(autojump_clock: MockClock) -> None:
    server = FakeServer(latency=1.0)
    written: list[int] = []
    config = ClientConfig(buffered=100, flush_timeout=1000)
    async with server.client(config) as client:
        async with client.session("s").produce(listen=False) as generation:
            async with generation.message() as message, message.text() as block:
                for number in range(500):
                    await block.write(f"{number} ")
                    written.append(number - len([chunk for chunk in server.chunks if chunk["type"] == "block.delta"]))
    assert max(written) <= 100
    assert trio.current_time() >= 8
    assert server.text == "".join(f"{number} " for number in range(500))


# R-45 R-77
async def test_a_wait_for_room_ends_with_a_cancellation(autojump_clock: MockClock) -> None:
    server = FakeServer(latency=1000.0)
    async with server.client(ClientConfig(buffered=10)) as client:
        with trio.move_on_after(3) as scope:
            await say(client, WORDS)
    assert scope.cancelled_caught
    assert trio.current_time() <= 3 + ClientConfig().cleanup_timeout


# R-78 R-81
@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_what_may_go_well_later_is_sent_again(status: int, autojump_clock: MockClock) -> None:
    server = FakeServer(refused(status), refused(status))
    async with server.client() as client:
        await say(client, WORDS[:3])
    assert server.numbers == ["0", "0", "0", "1"]
    assert server.requests[0].content == server.requests[1].content == server.requests[2].content
    assert server.text == "".join(WORDS[:3])
    assert [end["outcome"] for end in server.ends] == ["completed"]


# 50 ms, then 100 ms, each times a random part
async def test_pauses_double_with_full_jitter(autojump_clock: MockClock) -> None:
    pauses: list[tuple[float, float]] = []
    for _ in range(30):
        server = FakeServer(refused(500), refused(500))
        async with server.client() as client:
            await say(client, WORDS[:3])
        pauses.append((server.times[1] - server.times[0], server.times[2] - server.times[1]))
    first, second = [pause[0] for pause in pauses], [pause[1] for pause in pauses]
    assert 0.025 < max(first) <= 0.05
    assert 0.05 < max(second) <= 0.1
    assert min(first) < 0.02
    assert len(set(first)) > 20


# R-78 R-81
@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, "INVALID_BODY", InvalidBody),
        (409, "SEQUENCE_GAP", SequenceGap),
        (409, "GENERATION_MISMATCH", GenerationMismatch),
        (418, "NEVER_HEARD_OF", Refused),
        (404, None, Refused),
    ],
)
async def test_what_will_never_go_well_is_sent_once(
    status: int, code: str | None, error: type[Exception], autojump_clock: MockClock
) -> None:
    server = FakeServer(refused(status, code) if code != "NEVER_HEARD_OF" else teapot)
    async with server.client() as client:
        with pytest.raises(error) as caught:
            await say(client, WORDS[:3])
    batches = [request for request in server.requests if request.url.path.endswith("batch")]
    assert len(batches) == 1
    if isinstance(caught.value, Refused):
        assert caught.value.code == (code or "HTTP_404")
        assert caught.value.status == status


async def teapot(carry: Carry) -> httpx.Response:
    return httpx.Response(418, json={"code": "NEVER_HEARD_OF", "detail": "x" * 1000, "retryable": False})


# R-77 R-78
@pytest.mark.parametrize("fate", [request_lost, answer_lost])
async def test_a_broken_connection_costs_nothing_and_doubles_nothing(fate: Fate, autojump_clock: MockClock) -> None:
    server = FakeServer(fate, fate, delayed(0.5), fate)
    async with server.client() as client:
        await say(client, WORDS)
    assert server.text == "".join(WORDS)
    assert [end["outcome"] for end in server.ends] == ["completed"]


# Three attempts, however little time they take.
HASTY = ClientConfig(outage=0.0)


# R-78 R-88: three attempts, then the error comes out, and no done is told
async def test_attempts_are_counted_and_then_it_is_an_error(autojump_clock: MockClock) -> None:
    server = FakeServer(*[refused(500, "WRITE_FAILED")] * 3)
    async with server.client(HASTY) as client:
        with pytest.raises(WriteFailed):
            await say(client, WORDS[:3])
    assert len([request for request in server.requests if request.url.path.endswith("batch")]) == 3
    assert [end["outcome"] for end in server.ends] in ([], ["failed"])


def away_until(moment: float) -> Fate:
    """The server is not there before that."""

    async def fate(carry: Carry) -> httpx.Response:
        return await (request_lost if trio.current_time() < moment else delayed(0.0))(carry)

    return fate


# by default a producer outlives that its server is restarted, also when it ends meanwhile
@pytest.mark.parametrize("pause", [0.0, 1.0])
async def test_a_server_that_comes_back_within_a_minute_is_waited_for(pause: float, autojump_clock: MockClock) -> None:
    server = FakeServer(*[away_until(55.0)] * 500)
    async with server.client() as client:
        await say(client, WORDS[:90], pause=pause)
    assert server.text == "".join(WORDS[:90])
    assert [end["outcome"] for end in server.ends] == ["completed"]
    assert 20 < len([at for at in server.times if at < 55]) < 200, "no loop"


async def test_an_answer_that_does_not_come_is_asked_for_again_after_some_seconds(autojump_clock: MockClock) -> None:
    async def swallowed(carry: Carry) -> httpx.Response:
        await carry()
        await trio.sleep_forever()
        raise AssertionError

    server = FakeServer(swallowed)
    async with server.client() as client:
        await say(client, WORDS[:3])
    assert server.times[1] - server.times[0] == pytest.approx(6, abs=0.1)
    assert server.numbers[:2] == ["0", "0"]
    assert server.text == "".join(WORDS[:3])


async def test_retry_after_is_honoured(autojump_clock: MockClock) -> None:
    server = FakeServer(refused(503, "DRAINING", Retry_After="7"))
    async with server.client(ClientConfig(flush_timeout=60)) as client:
        await say(client, WORDS[:3])
    assert server.times[1] - server.times[0] == pytest.approx(7)


# one request at a time, so that nothing overtakes anything; what comes meanwhile goes together
async def test_one_request_is_under_way_at_a_time(autojump_clock: MockClock) -> None:
    server = FakeServer(latency=0.1)
    async with server.client() as client:
        await say(client, WORDS[:40], pause=0.01)
    assert all(later - earlier > 0.0999 for earlier, later in zip(server.times, server.times[1:], strict=False))
    assert max(server.batches) > 8
    assert server.text == "".join(WORDS[:40])


#
async def test_a_flush_has_its_deadline(autojump_clock: MockClock) -> None:
    server = FakeServer(latency=1000.0)
    async with server.client(ClientConfig(flush_timeout=10.0)) as client:
        with pytest.raises(TimedOut):
            async with client.session("s").produce(listen=False) as generation:
                await generation.status("working")
                with pytest.raises(TimedOut):
                    await generation.flush()
                assert trio.current_time() == pytest.approx(10)
    assert trio.current_time() == pytest.approx(10 + 10 + 2)  # the last one, and the time for saying that it failed


async def test_a_flush_returns_when_all_is_acknowledged(autojump_clock: MockClock) -> None:
    server = FakeServer(latency=1.0)
    async with server.client() as client:
        async with client.session("s").produce(listen=False) as generation:
            await generation.status("working")
            await generation.flush()
            assert server.types == ["generation.status"]
            assert trio.current_time() == pytest.approx(1.0)  # it does not linger


# R-82 R-83 R-85: the session is made once, by its code and not by its text, and the budget begins anew
async def test_a_session_that_is_not_found_is_made_once(autojump_clock: MockClock) -> None:
    server = FakeServer(refused(500), refused(500), exists=False)
    async with server.client() as client:
        await say(client, WORDS[:3])
    assert server.text == "".join(WORDS[:3])
    server = FakeServer(
        refused(500),
        refused(404, "SESSION_NOT_FOUND"),
        refused(500),
        refused(500),
        refused(500),
    )
    async with server.client(HASTY) as client:
        with pytest.raises(Refused):
            await say(client, WORDS[:3])
    assert len([request for request in server.requests if request.url.path.endswith("batch")]) == 2 + 3


MAKINGS = [
    [refused(503, "DRAINING")],
    [refused(429, "RATE_LIMITED"), refused(502)],
    [request_lost, answer_lost],
    [answer_lost],
]


# R-76 R-77: a bound on what waits, and one that is known
def test_two_thousand_chunks_wait_at_most() -> None:
    assert ClientConfig().buffered == 2000


# R-82 R-83: one failure of the request that makes the session does not use the recovery up.
@pytest.mark.parametrize("makings", MAKINGS)
async def test_a_session_is_made_although_that_failed_at_first(makings: list[Fate], autojump_clock: MockClock) -> None:
    server = FakeServer(exists=False, makings=makings)
    async with server.client() as client:
        await say(client, WORDS[:3])
    assert server.text == "".join(WORDS[:3])
    assert not server.makings


#
async def test_a_session_that_cannot_be_made_ends_the_attempts(autojump_clock: MockClock) -> None:
    server = FakeServer(exists=False, makings=[refused(503, "DRAINING")] * 100)
    async with server.client(HASTY) as client:
        with pytest.raises(Draining):
            await say(client, WORDS[:3])
    assert len(server.makings) == 100 - 3


#
async def test_a_session_is_not_made_twice(autojump_clock: MockClock) -> None:
    server = FakeServer(refused(404, "SESSION_NOT_FOUND"), refused(404, "SESSION_NOT_FOUND"))
    async with server.client() as client:
        with pytest.raises(SessionNotFound):
            await say(client, WORDS[:3])
    assert server.chunks == []


# R-89 R-140
async def test_a_deleted_session_is_never_made_again(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.deleted = True
    async with server.client() as client:
        with pytest.raises(SessionDeleted):
            await say(client, WORDS[:3])
    assert server.deleted
    assert len(server.requests) == 1


#
async def test_a_session_that_is_lost_in_the_middle_is_not_made_again_without_its_beginning(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer()
    async with server.client() as client:
        with pytest.raises(SessionNotFound):
            async with client.session("s").produce(listen=False) as generation:
                await generation.status("working")
                await generation.flush()
                server.exists = False
                await generation.status("still")
                await trio.sleep_forever()
    assert not server.exists


# every attempt asks for its token
async def test_headers_are_made_anew_for_each_attempt(autojump_clock: MockClock) -> None:
    tokens = iter(f"t{number}" for number in range(100))
    server = FakeServer(refused(500), refused(500))

    async def token() -> str:
        return next(tokens)

    async with server.client(token=token) as client:
        await say(client, WORDS[:3])
    sent = [request.headers["authorization"] for request in server.requests]
    assert sent == ["Bearer t0", "Bearer t1", "Bearer t2", "Bearer t3"]


#
async def test_an_expired_token_is_changed_once_for_all_that_follows(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.token = "new"
    asked: list[str] = []

    async def token() -> str:
        asked.append("old" if not asked else "new")
        return asked[-1]

    async with server.client(token=token) as client:
        await say(client, WORDS)
    assert server.text == "".join(WORDS)
    assert [request.headers["authorization"] for request in server.requests].count("Bearer old") == 1


async def test_a_token_that_cannot_be_sent_is_changed_as_one_that_is_refused(autojump_clock: MockClock) -> None:
    server = FakeServer()
    tokens = iter(["no\nheader"])

    async def token() -> str:
        return next(tokens, "good")

    async with server.client(token=token) as client:
        await say(client, WORDS)
    assert server.text == "".join(WORDS)
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer good"}


# R-44 R-45
async def test_a_cancel_goes_out_at_once_and_is_not_retried(autojump_clock: MockClock) -> None:
    server = FakeServer(refused(500), delayed(1000.0))
    async with server.client() as client:
        with trio.move_on_after(1) as scope:
            async with client.session("s").produce(listen=False) as generation:
                await generation.status("working")
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(1)  # nothing waited for the request under way
    assert server.closed_requests == 1
    assert len(server.requests) == 2
    assert server.stops == [{"generation_id": generation.generation_id, "reason": "cancelled"}]
    assert server.ends == []


# R-45 R-46
async def test_a_cancelled_end_does_not_hang(autojump_clock: MockClock) -> None:
    server = FakeServer(*[delayed(1000.0)] * 9)
    async with server.client() as client:
        with trio.move_on_after(1) as scope:
            await say(client, WORDS[:3])
        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(1)
    assert len(server.stops) == 1


#
async def test_an_end_has_its_deadline(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(ClientConfig(attempt_timeout=1000, request_timeout=1000, finish_timeout=30)) as client:
        with pytest.raises(TimedOut):
            async with client.session("s").produce(listen=False) as generation:
                await generation.status("working")
                await generation.flush()
                server.fates.extend([delayed(1000.0)] * 3)
    assert trio.current_time() <= 30 + 3


# R-90 R-92: an end whose content did not arrive is not told
async def test_no_done_is_told_when_the_last_chunk_could_not_be_stored(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(HASTY) as client:
        with pytest.raises(WriteFailed):
            async with client.session("s").produce(listen=False) as generation:
                async with generation.message() as message, message.text() as block:
                    await block.write("all but the end")
                    await generation.flush()
                    server.fates.extend([refused(500, "WRITE_FAILED")] * 3)
    assert "message.closed" not in server.types
    assert [(end["outcome"], end["code"]) for end in server.ends] == [("failed", "WRITE_FAILED")]


# R-92 R-93 R-120
async def test_a_finish_that_is_refused_is_logged_and_raised(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    server = FakeServer()
    async with server.client() as client:
        with pytest.raises(FinishFailed), caplog.at_level(logging.ERROR):
            async with client.session("s").produce(listen=False) as generation:
                await generation.status("working")
                await generation.flush()
                server.fates.extend([refused(500, "FINISH_FAILED")] * 3)
    assert len(server.requests) >= 1 + 3
    assert "FINISH_FAILED" in caplog.text
    assert "so it is" in caplog.text
    assert [end["outcome"] for end in server.ends] == ["failed"], "readers do not wait for the rest"


#
async def test_a_finish_is_repeated_and_done_once(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        async with client.session("s").produce(listen=False) as generation:
            await generation.status("working")
            await generation.flush()
            server.fates.extend([answer_lost, refused(503)])
    assert server.numbers == ["0", "1", "1", "1"]
    assert len(server.ends) == 1


async def test_a_stale_generation_cancels_its_producer(autojump_clock: MockClock) -> None:
    server = FakeServer()
    seen: list[str] = []
    async with server.client() as client:
        with pytest.raises(StaleGeneration):
            async with client.session("s").produce(listen=False) as generation:
                await generation.status("working")
                await generation.flush()
                server.stale = True
                await generation.status("late")
                try:
                    await trio.sleep_forever()
                except trio.Cancelled:
                    seen.append("cancelled")
                    with pytest.raises(StaleGeneration):
                        await generation.status("in clean-up")
                    with generation.cleanup():
                        await trio.sleep(1000)
                    seen.append("clean-up is bounded")
                    raise
    assert seen == ["cancelled", "clean-up is bounded"]
    assert trio.current_time() == pytest.approx(2, abs=0.1)
    assert server.ends == server.stops == []


async def test_a_producer_that_runs_into_the_fence_in_its_own_nursery_is_stale_and_nothing_else(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer()

    async def write(generation: Generation) -> None:
        while True:
            await generation.status("working")
            await trio.sleep(0.1)

    async with server.client() as client:
        with pytest.raises(StaleGeneration):
            async with client.session("s").produce(listen=False) as generation:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(write, generation)
                    nursery.start_soon(write, generation)
                    await trio.sleep(1)
                    server.stale = True


# what the producer raises is told with a code, and comes out
async def test_a_producer_that_raises_ends_its_generation_as_failed(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        with pytest.raises(KeyError):
            async with client.session("s").produce(listen=False) as generation:
                async with generation.message() as message, message.text() as block:
                    await block.write("so far")
                    raise KeyError("secret")
    assert server.text == "so far"
    assert server.types[-2:] == ["block.closed", "message.closed"]
    (end,) = server.ends
    assert (end["outcome"], end["code"]) == ("failed", "PRODUCER_FAILED")
    assert "secret" not in str(end)
    server = FakeServer()
    async with server.client() as client:
        with pytest.raises(ProducerError):
            async with client.session("s").produce(listen=False) as generation:
                await generation.status("working")
                raise ProducerError("the model is away", reason="MODEL_AWAY")
    assert server.ends == [{"outcome": "failed", "code": "MODEL_AWAY", "message": "the model is away"}]


#
async def test_a_block_that_a_generator_leaves_as_it_is_closed_waits_for_nothing(autojump_clock: MockClock) -> None:
    server = FakeServer(latency=1)
    async with server.client() as client:

        async def pieces() -> AsyncGenerator[None, None]:
            async with client.session("s").produce(listen=False) as generation:
                async with generation.message() as message, message.text() as block:
                    await block.write("begun")
                    await generation.flush()
                    yield

        async with aclosing(pieces()) as producer:
            await anext(producer)
            before = trio.current_time()
        assert trio.current_time() == before
        await trio.sleep(10)
    assert server.text == "begun"
    assert (server.ends, server.stops) == ([], [])


#
async def test_a_producer_that_writes_nothing_is_stopped(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        with pytest.raises(TimedOut):
            async with client.session("s").produce(listen=False) as generation:
                await generation.status("working")
                await trio.sleep_forever()
    assert trio.current_time() == pytest.approx(120, abs=0.1)
    assert [(end["outcome"], end["code"]) for end in server.ends] == [("failed", "STALLED")]


#
async def test_the_watchdog_stands_still_while_a_tool_call_awaits_its_result(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        async with client.session("s").produce(listen=False) as generation:
            async with generation.message() as message, message.tool_call("c", "slow") as call:
                await call.write("{}")
            await trio.sleep(1000)
            async with generation.message(role="tool") as message, message.tool_result("c") as result:
                await result.write("done")
            await trio.sleep(100)
    assert [end["outcome"] for end in server.ends] == ["completed"]


async def test_a_producer_that_says_nothing_leaves_no_trace(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        async with client.session("s").produce(listen=False):
            pass
    assert server.requests == []


async def test_what_cannot_be_said_takes_no_number(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        async with client.session("s").produce(listen=False) as generation:
            async with generation.message() as message, message.data() as block:
                for wrong in ({"a": "\ud800"}, {"a": float("nan")}, {1: 2}, {"a": {1}}):
                    with pytest.raises(InvalidBody):
                        await block.put(wrong)  # type: ignore[arg-type]
                await block.put("well")
            with pytest.raises(InvalidBody):
                await generation.status(7)  # type: ignore[arg-type]
    written = [chunk for chunk in server.chunks if chunk["type"] == "block.delta"]
    assert [(chunk["seq"], chunk["data"]) for chunk in written] == [(1, {"value": "well"})]


async def test_a_producer_hands_off_to_those_that_it_was_given(autojump_clock: MockClock) -> None:
    server = FakeServer()

    async def story(generation: Generation) -> AsyncIterator[str]:
        yield f"about {generation.input}"

    async with server.client() as client:
        async with client.session("s").produce(listen=False, producers={"story": story}) as generation:
            await generation.hand_off("story", "water")
            with pytest.raises(ProducerNotFound):
                await generation.hand_off("nobody")
    assert server.text == "about water"


async def test_a_server_that_is_away_is_told_as_such(autojump_clock: MockClock) -> None:
    server = FakeServer(*[request_lost] * 999)
    async with server.client(ClientConfig(flush_timeout=1000)) as client:
        with pytest.raises(Unreachable):
            await say(client, WORDS[:3])
    assert 55 <= trio.current_time() <= 65


# R-70 R-77: whatever the network does, all is there once, in order
@pytest.mark.parametrize("seed", range(20))
async def test_a_bad_network_loses_and_doubles_nothing(seed: int, autojump_clock: MockClock) -> None:
    chance = random.Random(seed)
    kinds = [request_lost, answer_lost, refused(500), refused(503), refused(429), delayed(0.2)]
    fates = [chance.choice(kinds) if chance.random() < 0.5 else delayed(0.01) for _ in range(200)]
    server = FakeServer(*fates)
    config = ClientConfig(attempts=50, flush_timeout=1000, finish_timeout=1000, longest_retry=0.1)
    async with server.client(config) as client:
        await say(client, WORDS, pause=chance.choice([0.0, 0.002]))
    assert server.text == "".join(WORDS)
    assert len(server.ends) == 1


# a start under way is cancelled, too; whether the server has it nobody knows, so it is stopped
async def test_a_start_that_is_cancelled_is_stopped_if_it_happens(autojump_clock: MockClock) -> None:
    class Slow(FakeServer):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path.endswith("/generations"):
                await trio.sleep_forever()
            return await super().handle_async_request(request)

    server = Slow()
    async with server.client() as client:
        with trio.move_on_after(1):
            async with client.session("s").produce(policy="supersede", listen=False):
                pytest.fail("it began")
    assert trio.current_time() == pytest.approx(1)
    assert len(server.stops) == 1


async def test_what_needs_to_be_heard_says_so_where_nothing_is(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        async with client.session("s").produce(listen=False) as generation:
            with pytest.raises(RuntimeError):
                await generation.approve("rm")
            with pytest.raises(RuntimeError):
                await generation.receive_input()
            with pytest.raises(RuntimeError):
                generation.receive_input_nowait()
    assert server.requests == []


# --- a producer that says nothing for long says that it lives


async def think(client: Client, seconds: float) -> None:
    async with client.session("s").produce(listen=False) as generation:
        async with generation.message() as message, message.text() as block:
            await block.write("well")
            await trio.sleep(seconds)
            await block.write(", so")


#
async def test_a_producer_that_thinks_is_heard_of_every_third_of_its_lease(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(ClientConfig(lease=30)) as client:
        await think(client, 100)
    assert server.text == "well, so"
    assert [round(later - sooner) for sooner, later in pairwise([0.0, *server.signs])] == [10] * 9
    assert {request.headers["producer-lease"] for request in server.requests} == {"30"}
    signs = [request for request in server.requests if json.loads(request.content or b"{}").get("chunks") == []]
    assert not any("producer-seq" in request.headers for request in signs)
    server = FakeServer()
    async with server.client(ClientConfig(lease=None)) as client:
        await think(client, 100)
    assert server.signs == []
    assert not any("producer-lease" in request.headers for request in server.requests)


#
@pytest.mark.parametrize("fate", [request_lost, answer_lost, refused(503, "DRAINING"), refused(502), refused(400)])
async def test_a_sign_of_life_that_is_lost_harms_nothing(fate: Fate, autojump_clock: MockClock) -> None:
    async def fine(carry: Carry) -> httpx.Response:
        return await carry()

    server = FakeServer(fine, fate, fate)
    async with server.client() as client:
        await think(client, 100)
    assert server.text == "well, so"
    assert len(server.ends) == 1


#
async def test_a_sign_of_life_that_is_refused_ends_the_producer(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        with pytest.raises(StaleGeneration):
            async with client.session("s").produce(listen=False) as generation:
                async with generation.message() as message, message.text() as block:
                    await block.write("well")
                    await trio.sleep(1)
                    server.stale = True
                    await trio.sleep(100)
    assert trio.current_time() < 15
