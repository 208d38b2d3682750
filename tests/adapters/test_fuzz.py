"""Whatever is sent, the answer is one that is declared, what was refused wrote nothing, and the log keeps its rules.

``PENSTOCK_EXAMPLES=1000 pytest tests/adapters/test_fuzz.py`` sends more than a hundred thousand inputs; one that fails
is named with its seed.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

import h11
import pytest
import trio
import trio.testing
import trio_websocket

from penstock.adapters.problems import TABLE
from penstock.engine import Config, InvalidBody, MemoryLog, encode_json
from tests.adapters.fuzzing import SID, Dice, Sent
from tests.adapters.serving import PATIENCE, Penstock, penstock
from tests.engine.exploring import quiet  # noqa: F401  a fixture
from tests.engine.producers import saying
from tests.engine.rules import assert_rules
from tests.extent import examples

# How many servers are fuzzed, and with how many inputs each.
ROUNDS: Final = int(os.environ.get("PENSTOCK_EXAMPLES", examples(20)))
INPUTS: Final = 60

COUNTS: Final[Counter[str]] = Counter()  # of answers, over everything that was sent


def check_problem(status: int, body: bytes) -> str:
    told = json.loads(body)
    row = TABLE[told["code"]]
    assert (told["status"], told["retryable"], told["title"]) == (row.status, row.retryable, row.title)
    assert status == row.status
    assert status < 500, told
    for inner in ("Traceback", ".py", "sqlite", " at 0x"):
        assert inner not in told["detail"]
    return str(told["code"])


class Wire:
    """One connection that is kept as long as the server does."""

    def __init__(self, world: Penstock) -> None:
        self._world = world
        self._stream: trio.SocketStream | None = None
        self._h11 = h11.Connection(h11.CLIENT)

    async def exchange(self, sent: Sent) -> tuple[int, bytes]:
        if self._stream is None:
            self._stream = await self._world.served.connect()
            self._h11 = h11.Connection(h11.CLIENT)
        headers = [("Host", "localhost"), *((name, value.strip()) for name, value in sent.headers.items())]
        if sent.method != "GET":
            headers.append(("Content-Length", str(len(sent.body))))
        head = self._h11.send(h11.Request(method=sent.method, target=sent.path, headers=headers))
        rest = self._h11.send(h11.Data(data=sent.body)) + self._h11.send(h11.EndOfMessage())
        await self._stream.send_all((head or b"") + (rest or b""))
        status, body = 0, b""
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                self._h11.receive_data(await self._stream.receive_some())
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                raise AssertionError(f"no whole answer: {event!r}")
        if self._h11.our_state is self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
        else:
            await self.aclose()
        return status, body

    async def aclose(self) -> None:
        if self._stream is not None:
            await self._stream.aclose()
            self._stream = None


async def fuzzed(work: Callable[[Penstock], Awaitable[None]]) -> None:
    """Do it to a server of its own; afterwards the log must keep the rules, and the session still take an answer."""
    log = MemoryLog()
    with trio.fail_after(PATIENCE * 6):
        async with penstock(
            log, producers={"tale": saying("once")}, config=Config(cleanup_timeout=0.2, inputs=4)
        ) as world:
            session = await world.engine.create_session(SID)
            await work(world)
            await session.stop(queue="clear")
            started = await session.start("tale")
            while (await session.generation(started.generation_id)).outcome is None:
                await trio.testing.wait_all_tasks_blocked()
        await assert_rules(log, closed=False)


#
@pytest.mark.usefixtures("quiet")
@pytest.mark.timeout(3600)
async def test_no_request_breaks_the_server_or_the_log() -> None:  # R-94 R-113 R-117 R-121
    for seed in range(ROUNDS):
        dice = Dice(seed)

        async def work(world: Penstock, dice: Dice = dice, seed: int = seed) -> None:
            wire = Wire(world)
            session = await world.engine.session(SID)
            for _ in range(INPUTS):
                sent = dice.request()
                # Answers that go on by themselves are over: what is written from here on, this request writes.
                await trio.testing.wait_all_tasks_blocked(0.001)
                before = await session.cursor()
                status, body = await wire.exchange(sent)
                try:
                    if status >= 400:
                        COUNTS[check_problem(status, body)] += 1
                        if b"before it began" not in body:  # a stop that came first is written as one
                            assert await session.cursor() == before
                    else:
                        COUNTS[f"{sent.method} {status}"] += 1
                except BaseException:
                    print(seed, sent, status, body)  # noqa: T201
                    raise
            await wire.aclose()

        await fuzzed(work)
    assert COUNTS["POST 200"] > ROUNDS  # else nothing ever got behind the checks
    assert COUNTS["INVALID_BODY"] > ROUNDS


@pytest.mark.usefixtures("quiet")
@pytest.mark.timeout(3600)
async def test_no_frame_breaks_the_socket_or_the_log() -> None:
    for seed in range(ROUNDS):
        dice = Dice(-1 - seed)

        async def work(world: Penstock, dice: Dice = dice) -> None:
            async with world.socket() as socket:
                for number in range(INPUTS):
                    frame, request_id = dice.frame(), f"fuzz-{number}"
                    if isinstance(frame, dict):
                        frame = {"session_id": SID, "id": request_id, **frame}
                        request_id = frame["id"]
                    try:
                        text = encode_json(frame).decode()  # type: ignore[arg-type]
                    except InvalidBody:
                        text, frame = "{", None  # what cannot be said
                    await socket.ws.send_message(text)
                    await answered(socket.ws, request_id if isinstance(frame, dict) else None)

        await fuzzed(work)


async def answered(ws: trio_websocket.WebSocketConnection, request_id: object) -> None:
    """Read on to the answer; every error on the way is one of the table's."""
    with trio.fail_after(PATIENCE):
        while True:
            told = json.loads(await ws.get_message())
            if told["op"] == "error":
                COUNTS[told["error"]["code"]] += 1
                row = TABLE[told["error"]["code"]]
                assert row.status < 500, told
                assert told["error"]["retryable"] == row.retryable
            if told["op"] in ("reply", "error") and told.get("id") in (request_id, None):
                if told["op"] == "error" and told.get("id") is None and request_id is not None:
                    continue  # a generation that this socket produced into is over
                return
