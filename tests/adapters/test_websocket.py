"""The WebSocket conversation: commands, their order, their refusals, bounds and closes, through real sockets."""

from __future__ import annotations

import logging
from uuid import uuid4

import pytest
import trio
import trio_websocket

from penstock.adapters.websocket import SocketConfig
from penstock.engine import Config, Generation, Input, MemoryLog, Producer, Session
from tests.adapters.serving import PATIENCE, Penstock, penstock
from tests.engine.producers import Steered, saying, shielding


def code(answer: dict[str, object]) -> object:
    assert answer["op"] == "error", answer
    error = answer["error"]
    assert isinstance(error, dict)
    return error["code"]


def result(answer: dict[str, object]) -> dict[str, object]:
    assert answer["op"] == "reply", answer
    made = answer["result"]
    assert isinstance(made, dict)
    return made


async def test_a_conversation_from_subscribe_to_unsubscribe() -> None:
    async with penstock(producers={"says": saying("a", "b")}) as world, world.socket() as socket:
        assert socket.ws.subprotocol == "penstock.v1"
        await world.engine.create_session("s")
        opened = result(await socket.ask(op="subscribe", id="sub", session_id="s"))
        assert opened.keys() == {"session_id", "cursor"}
        await socket.until("caught-up")
        posted = result(await socket.ask(op="post", id=1, session_id="s", text="hello"))
        assert posted.keys() == {"session_id", "message_id", "cursor"}
        started = result(await socket.ask(op="start", id=2, session_id="s", text="and?", job_id="job"))
        assert started.keys() == {"session_id", "generation_id", "turn", "cursor", "message_id"}
        types: list[str] = []
        while "generation.finished" not in types:
            frame = await socket.receive()
            if frame["op"] == "events":
                assert frame["session_id"] == "s"
                events = frame["events"]
                assert isinstance(events, list)
                types += [event["type"] for event in events]
        stopped = result(await socket.ask(op="stop", id=3, session_id="s", generation_id=started["generation_id"]))
        assert stopped == {"session_id": "s", "state": "already_done", "generation_id": started["generation_id"]}
        assert result(await socket.ask(op="unsubscribe", id=4, session_id="s")) == {"session_id": "s"}
        await (await world.engine.session("s")).post("unseen")
        assert result(await socket.ask(op="ping", id=5)) == {}, "and no event came before the answer"
        assert result(await socket.ask(op="unsubscribe", id=6, session_id="s")) == {"session_id": "s"}
        assert result(await socket.ask(op="subscribe", id=7, session_id="s", after="now"))


async def test_answers_without_an_id_have_none() -> None:
    async with penstock() as world, world.socket() as socket:
        await socket.send(op="ping")
        assert await socket.receive() == {"op": "reply", "result": {}}
        await socket.send(op="nothing")
        assert "id" not in await socket.receive()


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "{",
        "[]",
        "null",
        "1",
        '"x"',
        "{}",
        "[" * 100_000,
        '{"op": 1}',
        '{"op": "auth"}',
        '{"op": ["ping"]}',
        '{"op": "ping", "id": {}}',
        '{"op": "ping", "id": true}',
        '{"op": "ping", "id": 1.5}',
        '{"op": "ping", "x": 1}',
        '{"op": "subscribe"}',
        '{"op": "subscribe", "session_id": 1}',
        '{"op": "stop", "session_id": null}',
        '{"op": "subscribe", "session_id": "s", "after": 1}',
        '{"op": "subscribe", "session_id": "s", "live": true}',
        '{"op": "subscribe", "session_id": "s", "snapshot": "yes"}',
        '{"op": "start", "session_id": "s", "txt": "x"}',
    ],
)
async def test_a_bad_frame_is_answered_and_the_conversation_goes_on(frame: str) -> None:
    async with penstock(producers={"says": saying("a")}) as world, world.socket() as socket:
        await world.engine.create_session("s")
        await socket.ws.send_message(frame)
        assert code(await socket.receive()) == "INVALID_BODY"
        assert result(await socket.ask(op="ping", id="on")) == {}


async def test_a_binary_frame_is_refused() -> None:
    async with penstock() as world, world.socket() as socket:
        await socket.ws.send_message(b'{"op": "ping"}')
        assert code(await socket.receive()) == "INVALID_BODY"


async def test_refusals_bear_the_id_and_the_session() -> None:
    async with penstock(producers={"says": saying("a")}) as world, world.socket() as socket:
        await world.engine.create_session("s")
        for op, extra, expected in (
            ("subscribe", {"session_id": "no"}, "SESSION_NOT_FOUND"),
            ("start", {"session_id": "no"}, "SESSION_NOT_FOUND"),
            ("stop", {"session_id": "no"}, "SESSION_NOT_FOUND"),
            ("post", {"session_id": "no", "text": "x"}, "SESSION_NOT_FOUND"),
            ("subscribe", {"session_id": "a b"}, "INVALID_ID"),
            ("start", {"session_id": "s", "producer": "nobody"}, "PRODUCER_NOT_FOUND"),
            ("start", {"session_id": "s", "policy": "often"}, "INVALID_BODY"),
            ("start", {"session_id": "s", "idempotency_key": "a b"}, "INVALID_BODY"),
            ("start", {"session_id": "s", "replaces": str(uuid4())}, "MESSAGE_NOT_FOUND"),
            ("stop", {"session_id": "s", "queue": "drop"}, "INVALID_BODY"),
            ("input", {"session_id": "s", "kind": "steer"}, "INVALID_BODY"),
            ("input", {"session_id": "s", "generation_id": "x", "kind": "steer"}, "INVALID_ID"),
            ("input", {"session_id": "s", "generation_id": str(uuid4()), "kind": "steer"}, "GENERATION_NOT_FOUND"),
            ("input", {"session_id": "no", "generation_id": str(uuid4()), "kind": "steer"}, "SESSION_NOT_FOUND"),
            ("post", {"session_id": "s"}, "INVALID_BODY"),
            ("post", {"session_id": "s", "text": 5}, "INVALID_BODY"),
            ("stop", {"session_id": "s", "generation_id": "x"}, "INVALID_ID"),
        ):
            answer = await socket.ask(op=op, id=f"{op} it", **extra)
            assert code(answer) == expected
            assert isinstance(answer["error"], dict)
            if expected != "INVALID_ID" or extra["session_id"] == "s":
                assert answer["error"]["session_id"] == extra["session_id"]


async def test_a_start_tells_whether_it_waits_joined_or_was_made_before() -> None:
    async with penstock(producers={"p": Steered()}) as world, world.socket() as socket:
        await world.engine.create_session("s")
        first = result(await socket.ask(op="start", id=1, session_id="s", idempotency_key="k"))
        again = result(await socket.ask(op="start", id=2, session_id="s", idempotency_key="k"))
        assert again == {**first, "repeated": True}
        other = await socket.ask(op="start", id=3, session_id="s", idempotency_key="k", text="x")
        assert code(other) == "IDEMPOTENCY_CONFLICT"
        joined = result(await socket.ask(op="start", id=4, session_id="s", policy="join"))
        assert (joined["joined"], joined["generation_id"]) == (True, first["generation_id"])
        waiting = result(await socket.ask(op="start", id=5, session_id="s", policy="queue"))
        assert waiting.keys() == {"session_id", "generation_id", "position", "cursor"}
        result(await socket.ask(op="stop", id=6, session_id="s", queue="clear"))
        snapshot = await (await world.engine.session("s")).snapshot()
        assert (snapshot.generation, snapshot.queue.items) == (None, ())


async def test_an_input_reaches_the_producer() -> None:
    got: list[Input] = []

    async def steered(generation: Generation) -> None:
        got.append(await generation.receive_input())

    async with penstock(producers={"p": steered}) as world, world.socket() as socket:
        await world.engine.create_session("s")
        result(await socket.ask(op="subscribe", id=0, session_id="s"))
        gid = str(result(await socket.ask(op="start", id=1, session_id="s"))["generation_id"])
        steer = {"op": "input", "session_id": "s", "generation_id": gid, "kind": "steer", "text": "shorter"}
        answer = await socket.ask(**{**steer, "id": 2, "kind": "approval"})
        assert code(answer) == "INVALID_BODY"
        assert isinstance(answer["error"], dict)
        assert answer["error"]["generation_id"] == gid
        told = result(await socket.ask(**steer, id=3, input_id="i"))
        assert told == {"session_id": "s", "generation_id": gid, "input_id": "i"}
        types: list[str] = []
        while "generation.finished" not in types:
            frame = await socket.receive()
            events = frame.get("events", [])
            assert isinstance(events, list)
            types += [event["type"] for event in events]
        assert [(each.input_id, each.kind, each.content) for each in got] == [("i", "steer", {"text": "shorter"})]


async def test_a_second_subscription_to_a_session_is_refused() -> None:
    async with penstock() as world, world.socket() as socket:
        await world.engine.create_session("s")
        result(await socket.ask(op="subscribe", id=1, session_id="s"))
        assert code(await socket.ask(op="subscribe", id=2, session_id="s")) == "INVALID_BODY"
        assert world.engine.statistics().subscribers == 1


async def test_the_number_of_subscriptions_is_bounded_and_room_is_given_back() -> None:
    async with penstock(socket=SocketConfig(max_subscriptions=2)) as world, world.socket() as socket:
        for name in "abc":
            await world.engine.create_session(name)
        result(await socket.ask(op="subscribe", id=1, session_id="a"))
        result(await socket.ask(op="subscribe", id=2, session_id="b"))
        assert code(await socket.ask(op="subscribe", id=3, session_id="c")) == "OVERLOADED"
        result(await socket.ask(op="unsubscribe", id=4, session_id="a"))
        result(await socket.ask(op="subscribe", id=5, session_id="c"))


async def test_after_the_end_of_a_session_its_new_life_can_be_subscribed_to() -> None:
    async with penstock() as world, world.socket() as socket:
        session = await world.engine.create_session("s")
        first = result(await socket.ask(op="subscribe", id=1, session_id="s"))
        await session.delete()
        _, end = await socket.until("end")
        assert end["session_id"] == "s"
        await world.engine.create_session("s")
        second = result(await socket.ask(op="subscribe", id=2, session_id="s"))
        assert first["cursor"] != second["cursor"]


#
# what one session waits for, no other notices.
async def test_a_slow_start_in_one_session_holds_up_no_other() -> None:
    stubborn = shielding(1.5)
    producers: dict[str, Producer] = {"stubborn": stubborn, "says": saying("a")}
    config = Config(cleanup_timeout=1.0)
    async with penstock(producers=producers, config=config) as world, world.socket() as socket:
        for name in ("slow", "quick"):
            await world.engine.create_session(name)
        result(await socket.ask(op="start", id=1, session_id="slow", producer="stubborn"))
        await stubborn.started.wait()
        await socket.send(op="start", id="slow", session_id="slow", producer="says")
        begun = trio.current_time()
        for number in range(5):
            result(await socket.ask(op="post", id=number, session_id="quick", text="x"))
        result(await socket.ask(op="start", id="quick", session_id="quick", producer="says"))
        assert trio.current_time() - begun < 0.8
        while (answer := await socket.receive()).get("id") != "slow":
            pass
        superseded = result(answer)["superseded"]
        assert isinstance(superseded, dict)
        assert superseded["cleanup"] == "overran"


async def test_commands_of_one_session_are_carried_out_in_order() -> None:
    log = MemoryLog()
    async with penstock(log) as world, world.socket() as socket:
        await world.engine.create_session("s")
        for number in range(200):
            await socket.send(op="post", id=number, session_id="s", text=str(number))
        answers = [await socket.receive() for _ in range(200)]
        assert [answer["id"] for answer in answers] == list(range(200))
        snapshot = await (await world.engine.session("s")).snapshot()
        assert [message.blocks[0].text for message in snapshot.messages] == [str(number) for number in range(200)]


async def test_leaving_is_not_stopping() -> None:
    producer = Steered()
    async with penstock(producers={"steered": producer}) as world:
        await world.engine.create_session("s")
        async with world.socket() as socket:
            result(await socket.ask(op="subscribe", id=1, session_id="s"))
            started = result(await socket.ask(op="start", id=2, session_id="s"))
            await producer.started.wait()
        await gone(world)
        found = await (await world.engine.session("s")).generation(str(started["generation_id"]))
        assert found.state == "live"


async def gone(world: Penstock) -> None:
    with trio.fail_after(PATIENCE):
        while world.engine.statistics().subscribers:  # noqa: ASYNC110  # nobody tells
            await trio.sleep(0.01)


async def test_an_orderly_close_is_answered() -> None:
    async with penstock() as world, world.socket() as socket:
        await world.engine.create_session("s")
        result(await socket.ask(op="subscribe", id=1, session_id="s"))
        with trio.fail_after(PATIENCE):
            await socket.ws.aclose(1000)
        await gone(world)


async def test_a_message_over_the_limit_closes_with_1009() -> None:
    async with penstock() as world, world.socket() as socket:
        await socket.ws.send_message('{"op": "ping", "id": "' + "x" * (1024 * 1024) + '"}')
        assert await socket.closed() == 1009


async def test_a_message_at_the_limit_is_taken() -> None:
    async with penstock() as world, world.socket() as socket:
        await world.engine.create_session("s")
        envelope = len('{"op": "post", "id": 1, "session_id": "s", "text": ""}')
        text = "x" * (1024 * 1024 - envelope)
        assert result(await socket.ask(op="post", id=1, session_id="s", text=text))


async def test_a_peer_without_a_pong_is_closed_with_4408() -> None:
    bounds = SocketConfig(heartbeat=0.05, pong_timeout=0.2, slow_pong_timeout=0.2)
    async with penstock(socket=bounds) as world, await world.served.connect() as stream:
        await stream.send_all(
            b"GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
        )
        received = b""
        with trio.fail_after(PATIENCE):
            while piece := await stream.receive_some():
                received += piece
        assert (4408).to_bytes(2) in received


async def test_a_peer_that_answers_pings_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = SocketConfig(heartbeat=0.01, pong_timeout=1.0)
    answered, many = 0, trio.Event()
    ping = trio_websocket.WebSocketConnection.ping

    async def counted(self: trio_websocket.WebSocketConnection) -> None:
        nonlocal answered
        await ping(self)
        answered += 1
        if answered == 15:
            many.set()

    monkeypatch.setattr(trio_websocket.WebSocketConnection, "ping", counted)
    async with penstock(socket=bounds) as world, world.socket() as socket:
        with trio.fail_after(PATIENCE):
            await many.wait()
        assert result(await socket.ask(op="ping", id=1)) == {}


async def test_shutdown_closes_an_idle_socket_with_1001_at_once() -> None:
    async with penstock() as world, world.socket() as socket:
        assert result(await socket.ask(op="ping", id=1)) == {}
        world.served.shutdown.set()
        assert await socket.closed() == 1001
        await socket.stream.aclose()
        with trio.fail_after(PATIENCE):
            await world.served.finished.wait()


async def test_commands_while_draining_are_refused() -> None:
    async with penstock(producers={"says": saying("a")}) as world, world.socket() as socket:
        await world.engine.create_session("s")
        await world.engine.drain()
        answer = await socket.ask(op="start", id=1, session_id="s")
        assert code(answer) == "DRAINING"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", ""])
async def test_pages_of_other_origins_are_refused_before_anything_is_accepted(origin: str) -> None:
    async with penstock() as world:
        with pytest.raises(BaseException) as raised:  # a group around the rejection
            async with world.socket(headers=[(b"Origin", origin.encode())]):
                pass
        rejected = leaf(raised.value)
        assert isinstance(rejected, trio_websocket.ConnectionRejected)
        assert rejected.status_code == 403
        assert rejected.body is not None
        assert b"ORIGIN_REFUSED" in rejected.body


def leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def test_the_servers_own_page_may_connect() -> None:
    async with penstock() as world, world.socket(headers=[(b"Origin", world.url.encode())]) as socket:
        assert result(await socket.ask(op="ping", id=1)) == {}


async def test_a_client_may_leave_the_subprotocol_out_but_not_ask_for_others_only() -> None:
    async with penstock() as world:
        async with world.socket(subprotocols=[]) as socket:
            assert result(await socket.ask(op="ping", id=1)) == {}
        async with world.socket(subprotocols=["other", "penstock.v1"]) as socket:
            assert socket.ws.subprotocol == "penstock.v1"
        with pytest.raises(BaseException) as raised:  # a group around the rejection
            async with world.socket(subprotocols=["other"]):
                pass
        rejected = leaf(raised.value)
        assert isinstance(rejected, trio_websocket.ConnectionRejected)
        assert rejected.status_code == 400


async def test_a_bug_in_a_command_is_one_answer_and_tells_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise ValueError("/secret/path")

    async with penstock() as world, world.socket() as socket:
        await world.engine.create_session("s")
        monkeypatch.setattr(Session, "stop", fail)
        answer = await socket.ask(op="stop", id=1, session_id="s")
        assert code(answer) == "INTERNAL"
        assert "secret" not in str(answer)
        assert result(await socket.ask(op="ping", id=2)) == {}
    assert "/secret/path" in caplog.text


async def test_a_peer_that_resets_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with penstock(producers={"says": saying(*"abc" * 100, pause=0.001)}) as world, world.socket() as other:
        session = await world.engine.create_session("s")
        result(await other.ask(op="subscribe", id=1, session_id="s"))
        await session.start("says")
        for _ in range(5):
            async with world.socket() as socket:
                result(await socket.ask(op="subscribe", id=1, session_id="s"))
                await socket.send(op="post", id=2, session_id="s", text="x", message_id=str(uuid4()))
                await trio.aclose_forcefully(socket.stream)
        seen: list[str] = []
        while "generation.finished" not in seen:
            frame = await other.receive()
            if frame["op"] == "events":
                assert isinstance(frame["events"], list)
                seen += [event["type"] for event in frame["events"]]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
