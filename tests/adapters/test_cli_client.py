"""What `tail` and `send` make of a server that is away, comes back, or refuses; under a mock clock."""

from __future__ import annotations

import json
from functools import partial

import click
import httpx
import pytest
import trio
from click.testing import CliRunner
from trio.testing import MockClock

from penstock.adapters.cli.approve import approve
from penstock.adapters.cli.client import PATIENCE, ClientError, Following, connected, run
from penstock.adapters.client import Arrived, BadAnswer, Refused, Unreachable
from penstock.engine import Cursor, Ended, PenstockError, SessionNotFound, SessionState, Started
from tests.adapters.fake_streams import BROKEN, END, Server, Stream, control, event, problem

FIRST, SECOND = (str(Cursor("e", offset)) for offset in (1, 2))


class Terminal:
    """`tail`, without the process."""

    def __init__(self, *answers: httpx.Response | Exception | Stream) -> None:
        self.server = Server(*answers)
        self.notes: list[str] = []
        self.offsets: list[int | None] = []

    async def tail(self, after: str | None = None) -> None:
        async with (
            connected("http://fake", lambda: None, transport=self.server) as client,
            client.session("s").events(after) as events,
        ):
            async for delivery in Following(events, self.notes.append):
                if isinstance(delivery, Arrived):
                    self.offsets += [event.offset for event in delivery.events]
                else:
                    assert isinstance(delivery, Ended)


#
async def test_a_broken_stream_goes_on_behind_its_last_cursor(autojump_clock: MockClock) -> None:
    terminal = Terminal(Stream(event(1, 2), b"id: half", BROKEN), Stream(event(3), END))
    await terminal.tail()
    assert terminal.offsets == [1, 2, 3]
    assert terminal.server.asked == [None, SECOND]
    assert terminal.notes == ["connection lost, resuming"]


async def test_the_tail_is_asked_for_until_a_cursor_is_known(autojump_clock: MockClock) -> None:
    terminal = Terminal(Stream(f"id: {SECOND}\n\n".encode()), Stream(END))
    await terminal.tail(after="now")
    assert terminal.server.asked == [None, SECOND]
    assert terminal.server.queries == ["heartbeat=3&after=now", "heartbeat=3"]


async def test_a_server_that_was_never_there_is_an_error_at_once(autojump_clock: MockClock) -> None:
    terminal = Terminal(httpx.ConnectError("refused"))
    with pytest.raises(Unreachable):
        await terminal.tail(after=FIRST)
    assert trio.current_time() < 1
    assert terminal.notes == []


async def test_a_server_that_stays_away_is_given_up_in_the_end(autojump_clock: MockClock) -> None:
    terminal = Terminal(Stream(event(1)), httpx.ConnectError("refused"))
    with pytest.raises(Unreachable):
        await terminal.tail()
    assert PATIENCE < trio.current_time() < PATIENCE + 12
    assert set(terminal.server.asked[1:]) == {FIRST}
    assert terminal.notes == ["connection lost, resuming"]


async def test_one_that_came_back_may_stay_away_as_long_again(autojump_clock: MockClock) -> None:
    away = [httpx.ConnectError("refused")] * 12
    terminal = Terminal(Stream(event(1)), *away, Stream(event(2)), *away, Stream(event(3), END))
    await terminal.tail()
    assert terminal.offsets == [1, 2, 3]
    assert terminal.notes == ["connection lost, resuming"] * 2


async def test_one_that_came_back_and_said_nothing_may_stay_away_as_long_again(autojump_clock: MockClock) -> None:
    beats: list[float | bytes] = [5.0, b":\n\n"] * 20
    quiet = Stream(control("caught-up", json.dumps({"cursor": FIRST})), *beats)
    terminal = Terminal(Stream(event(1)), quiet, httpx.ConnectError("refused"), Stream(event(2), END))
    await terminal.tail()
    assert terminal.offsets == [1, 2]
    assert terminal.notes == ["connection lost, resuming"] * 2


#
async def test_a_draining_server_is_waited_for(autojump_clock: MockClock) -> None:
    terminal = Terminal(
        Stream(event(1)),
        problem("DRAINING"),
        httpx.Response(502, text="<html>bad gateway</html>"),
        Stream(event(2), END),
    )
    await terminal.tail()
    assert terminal.offsets == [1, 2]


#
async def test_a_refusal_is_told_with_its_code(autojump_clock: MockClock) -> None:
    with pytest.raises(SessionNotFound):
        await Terminal(problem("SESSION_NOT_FOUND")).tail()


async def test_something_that_is_no_penstock_server_is_told_as_such(autojump_clock: MockClock) -> None:
    with pytest.raises(BadAnswer):
        await Terminal(httpx.Response(200, text="<html>hello</html>")).tail()
    with pytest.raises(Refused):
        await Terminal(httpx.Response(404, text="<html>nothing</html>")).tail()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SessionNotFound("there is no such session"), "there is no such session [SESSION_NOT_FOUND]"),
        (ClientError("the token cannot be read"), "the token cannot be read"),
        (Unreachable("no answer"), "start one with 'penstock serve'"),
    ],
)
def test_what_cannot_go_on_is_one_clear_line(error: PenstockError | ClientError, told: str) -> None:
    async def command() -> None:
        raise error

    with pytest.raises(click.ClickException) as caught:
        run(command)
    assert told in caught.value.message


def test_ctrl_c_exits_with_130() -> None:
    async def command() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        run(command)
    assert caught.value.code == 130


async def test_a_start_whose_answer_was_lost_is_asked_for_again_under_its_key(autojump_clock: MockClock) -> None:
    started = {"session_id": "s", "generation_id": "g", "turn": 1, "cursor": FIRST}
    keys: list[str] = []

    class Keys(Server):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            keys.append(request.headers["idempotency-key"])
            return await super().handle_async_request(request)

    server = Keys(httpx.ReadError("gone"), httpx.ConnectError("restarting"), httpx.Response(201, json=started))
    async with connected("http://fake", lambda: None, patience=PATIENCE, transport=server) as client:
        answer = await client.session("s").start("echo", text="go")
    assert isinstance(answer, Started)
    assert len(keys) == 3
    assert len(set(keys)) == 1


async def test_what_is_not_safe_to_repeat_is_never_repeated(autojump_clock: MockClock) -> None:
    server = Server(httpx.ReadError("gone"))
    async with connected("http://fake", lambda: None, patience=PATIENCE, transport=server) as client:
        with pytest.raises(Unreachable):
            await client.session("s").reset()
        with pytest.raises(Unreachable):
            await client.session("s").stop()
    assert len(server.times) == 2


def test_the_answer_to_an_approval_is_sent_again_where_its_own_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = {"session_id": "s", "generation_id": "g"}
    asks = {"approval_id": "a", "generation_id": "g", "name": "open_gate"}
    state = SessionState("s", "e").snapshot().to_json()
    server = Server(
        httpx.Response(200, json={**state, "approvals": [asks]}),
        httpx.ReadError("gone"),
        httpx.Response(202, json={**ids, "input_id": "i"}),
    )
    monkeypatch.setattr("penstock.adapters.cli.approve.connected", partial(connected, transport=server))
    done = CliRunner().invoke(approve, ["s", "--yes", "--url", "http://fake"])
    assert done.output == "approval a was given\n"
    assert len(server.times) == 3


async def test_a_start_is_given_up_when_the_server_stays_away(autojump_clock: MockClock) -> None:
    server = Server(httpx.ReadError("gone"))
    async with connected("http://fake", lambda: None, patience=PATIENCE, transport=server) as client:
        with pytest.raises(Unreachable):
            await client.session("s").start("echo")
    assert 45 < trio.current_time() <= PATIENCE
