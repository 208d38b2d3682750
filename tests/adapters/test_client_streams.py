"""A reader's promises, one by one, over streams that are written by hand, under a mock clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise

import httpx
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from penstock.adapters.client import BadAnswer, ClientConfig, Token, connect
from penstock.adapters.client.lines import Over
from penstock.adapters.problems import Forbidden, Unauthenticated
from penstock.engine import JSON, Cursor, SessionNotFound, encode_json
from tests.adapters.fake_streams import BROKEN, DRAIN, END, EXPIRED, Answer, Server, Stream, control, event, problem
from tests.adapters.serving import PATIENCE


# R-70 R-123
async def test_a_broken_stream_goes_on_behind_its_last_event(autojump_clock: MockClock) -> None:
    server = Server(
        Stream(b"id: e-0000000000000000\n\n", event(1, 2), event(3)[:-1], BROKEN),
        Stream(event(3), BROKEN),
        Stream(event(4), END),
    )
    assert await server.read() == [1, 2, 3, 4]
    assert server.asked == [None, str(Cursor("e", 2)), str(Cursor("e", 3))]
    assert server.events.statistics().attempts == 3


# R-54 R-70
async def test_what_comes_again_is_left_out(autojump_clock: MockClock) -> None:
    server = Server(Stream(event(1, 2, 3), BROKEN), Stream(event(2, 3, 4), event(4, 5), END))
    assert await server.read() == [1, 2, 3, 4, 5]
    assert server.events.statistics().duplicates == 3


async def test_a_stream_that_ends_in_order_without_a_word_is_resumed(autojump_clock: MockClock) -> None:
    server = Server(Stream(event(1)), Stream(event(2), END))
    assert await server.read() == [1, 2]


async def test_a_line_that_is_silent_although_it_was_asked_is_dead(autojump_clock: MockClock) -> None:
    server = Server(
        Stream(event(1), 7.0, b": ping\n\n", 7.0, event(2), 1000.0),
        Stream(event(3), END),
    )
    assert await server.read() == [1, 2, 3]
    assert 14 + 7.5 <= server.times[1] <= 14 + 7.8
    assert server.queries == ["heartbeat=3"] * 2


async def test_a_line_that_brings_nothing_in_time_has_more_the_next_time(autojump_clock: MockClock) -> None:
    """One message may be a whole conversation, on a line that is slow."""
    opened = b"id: e-0000000000000000\n\n"
    mute, late = Stream(opened, 1000.0), Stream(opened, 29.0, event(1), 1000.0)
    server = Server(mute, mute, mute, mute, mute, late, Stream(event(2), 1000.0), Stream(event(3), END))
    assert await server.read() == [1, 2, 3]
    lasted = [later - sooner for sooner, later in pairwise(server.times)]
    # The first one told where it begins.
    assert [int(each / 7.5) for each in lasted[:5]] == [1, 1, 2, 4, 4]
    assert 29 + 30 <= lasted[5] <= 29 + 30 + 1
    assert lasted[6] < 7.5 + 1, "once something came it is as patient as before"


async def test_a_server_that_takes_a_request_and_says_nothing_is_left(autojump_clock: MockClock) -> None:
    async def never() -> httpx.Response:
        raise AssertionError

    class Dumb(Server):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if not self.times:
                self.times.append(trio.current_time())
                await trio.sleep_forever()
            return await super().handle_async_request(request)

    server = Dumb(Stream(event(1), END))
    assert await server.read() == [1]
    assert server.times[1] == pytest.approx(7.5), "it has waited long enough"


# No busy loop: what brings nothing is asked for less and less often, for ever.
@pytest.mark.parametrize(
    "answer", [httpx.ConnectError("refused"), Stream(b"id: e-0000000000000000\n\n"), problem("DRAINING")]
)
async def test_a_server_that_brings_nothing_is_not_asked_in_a_tight_loop(
    answer: Answer, autojump_clock: MockClock
) -> None:
    server = Server(answer)
    with trio.move_on_after(3600):
        await server.read()
    assert len(server.times) >= 360
    assert len(server.times) <= 900  # on average half of ten seconds apart
    assert max(later - earlier for earlier, later in zip(server.times, server.times[1:], strict=False)) <= 10
    first_ten = server.times[9]
    assert first_ten > 1


async def test_progress_makes_the_next_pause_short_again(autojump_clock: MockClock) -> None:
    server = Server(
        *[httpx.ConnectError("refused")] * 12,
        Stream(event(1), BROKEN),
        Stream(event(2), END),
    )
    assert await server.read() == [1, 2]
    assert server.times[13] - server.times[12] <= 0.25


#
async def test_a_draining_server_says_when_to_come_back(autojump_clock: MockClock) -> None:
    server = Server(Stream(event(1), DRAIN), Stream(event(2), END))
    assert await server.read() == [1, 2]
    assert server.times[1] == pytest.approx(3)


#
async def test_a_refusal_says_when_to_come_back(autojump_clock: MockClock) -> None:
    server = Server(problem("OVERLOADED", Retry_After="9"), problem("RATE_LIMITED"), Stream(event(1), END))
    assert await server.read() == [1]
    assert server.times[1] == pytest.approx(9)


async def test_a_proxy_whose_server_is_away_is_no_refusal(autojump_clock: MockClock) -> None:
    server = Server(httpx.Response(502, text="<html>bad gateway</html>"), Stream(event(1), END))
    assert await server.read() == [1]


def fresh_tokens() -> Callable[[], Awaitable[str]]:
    count = 0

    async def token() -> str:
        nonlocal count
        count += 1
        return f"t{count}"

    return token


#
async def test_a_token_that_expires_is_changed_and_the_stream_resumed_at_once(autojump_clock: MockClock) -> None:
    server = Server(Stream(event(1), EXPIRED), problem("UNAUTHENTICATED"), Stream(event(2), END))
    assert await server.read(token=fresh_tokens()) == [1, 2]
    assert server.tokens == ["Bearer t1", "Bearer t2", "Bearer t3"]
    assert server.times[1] <= 0.25
    assert server.asked[1:] == [str(Cursor("e", 1))] * 2


@pytest.mark.parametrize(("token", "asked"), [("always the same", 1), (fresh_tokens(), 2)])
async def test_a_token_that_is_refused_twice_is_an_error(token: Token, asked: int, autojump_clock: MockClock) -> None:
    server = Server(problem("UNAUTHENTICATED"))
    with pytest.raises(Unauthenticated):
        await server.read(token=token)
    assert len(server.times) == asked


@pytest.mark.parametrize(("code", "error"), [("SESSION_NOT_FOUND", SessionNotFound), ("FORBIDDEN", Forbidden)])
async def test_what_no_attempt_would_change_is_an_error(
    code: str, error: type[Exception], autojump_clock: MockClock
) -> None:
    server = Server(Stream(event(1), BROKEN), problem(code))
    with pytest.raises(error):
        await server.read()
    assert len(server.times) == 2


@pytest.mark.parametrize("code", ["SESSION_DELETED", "CORRUPT_SESSION"])
async def test_a_session_that_went_while_the_line_was_down_has_ended(code: str, autojump_clock: MockClock) -> None:
    server = Server(Stream(event(1), BROKEN), problem(code))
    assert await server.read() == [1]
    assert len(server.times) == 2


#
# a frame that cannot be read is asked for again, and is an error when it stays so
async def test_a_frame_that_cannot_be_read_is_asked_for_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(Stream(event(1), event(2).replace(b"{", b"[", 1)), Stream(event(2), END))
    assert await server.read() == [1, 2]
    assert server.asked[1] == str(Cursor("e", 1))
    assert "cannot be read" in caplog.text
    server = Server(Stream(event(1), event(2).replace(b"{", b"[", 1)))
    with pytest.raises(BadAnswer):
        await server.read()
    assert len(server.times) == 1 + 3 - 1


#
# the last frame before the end of a stream is judged as every other; half a frame is none
@pytest.mark.parametrize(
    ("last", "known"),
    [
        (event(2), [1, 2]),
        (event(2).replace(b"{", b"[", 1), [1]),  # cannot be read: asked for again
        (event(2)[:-1], [1]),  # not whole: asked for again
        (event(2)[:-2] + b"\r\n\r\n", [1, 2]),
        (event(2).replace(b'"s"', b'"t"'), [1]),  # of another session
        (b": ping\n\n", [1]),
        (DRAIN, [1]),
    ],
)
async def test_the_last_frame_of_a_stream_is_judged_as_every_other(
    last: bytes, known: list[int], autojump_clock: MockClock
) -> None:
    server = Server(Stream(event(1), last), Stream(event(known[-1] + 1), END))
    assert await server.read() == [*known, known[-1] + 1]
    assert server.asked[1] == str(Cursor("e", known[-1]))


#
@pytest.mark.parametrize("cut", [0, 1, 2])
async def test_an_end_that_is_the_last_frame_ends_and_half_of_it_does_not(cut: int, autojump_clock: MockClock) -> None:
    server = Server(Stream(event(1), END[: len(END) - cut]), Stream(event(2), END))
    assert await server.read() == ([1] if cut == 0 else [1, 2])


async def test_something_that_is_no_penstock_server_is_told_as_such(autojump_clock: MockClock) -> None:
    with pytest.raises(BadAnswer):
        await Server(httpx.Response(200, text="<html>hello</html>")).read()


# a reader that is slow makes the line wait, and loses nothing
async def test_a_slow_reader_holds_the_line_up_and_loses_nothing(autojump_clock: MockClock) -> None:
    server = Server(Stream(*[event(offset) for offset in range(1, 200)], END))
    offsets = []
    async with (
        connect("http://fake", transport=server, config=ClientConfig(deliveries=2)) as client,
        client.session("s").events() as events,
    ):
        async for one in events:
            await trio.sleep(1)
            offsets.append(one.offset)
    assert offsets == list(range(1, 200))


#
@pytest.mark.parametrize("begun", [False, True], ids=["before its first byte", "in its middle"])
async def test_leaving_ends_the_connection(begun: bool, autojump_clock: MockClock) -> None:
    class Dumb(Server):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            self.times.append(trio.current_time())
            await trio.sleep_forever()
            raise AssertionError

    server = Server(Stream(event(1), 1000.0)) if begun else Dumb(BROKEN)
    async with connect("http://fake", transport=server) as client, client.session("s").events() as events:
        if begun:
            assert (await anext(events)).offset == 1
        await wait_all_tasks_blocked()
        assert len(server.times) == 1
    assert trio.current_time() == 0, "nothing was waited for"


# the same where the server takes the connection and says nothing, not even that there will be a WebSocket.
@pytest.mark.parametrize("over", ["sse", "websocket"])
async def test_leaving_ends_a_connection_that_never_was_one(over: Over) -> None:
    taken = trio.Event()

    async def hold(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            taken.set()
            await stream.receive_some()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, hold, [listener])
        async with connect(f"http://127.0.0.1:{port}") as client:
            async with client.session("s").events(over=over):
                with trio.fail_after(PATIENCE):
                    await taken.wait()
            left = trio.current_time()
        assert trio.current_time() - left < PATIENCE
        nursery.cancel_scope.cancel()


def snapshot(cursor: Cursor) -> bytes:
    body: dict[str, JSON] = {
        "session_id": "s",
        "cursor": str(cursor),
        "messages": [],
        "queue": {"paused": False, "items": []},
        "approvals": [],
        "metadata": {},
        "more": False,
    }
    return f"id: {cursor}\n\nevent: snapshot\nid: {cursor}\ndata: {encode_json(body).decode()}\n\n".encode()


#
# R-52 R-143: where the stream and the state do not meet, nothing is guessed, and the state is asked for
@pytest.mark.parametrize(
    "broken",
    [
        event(5),  # nothing can be between: no message is open
        control("gap", '{"reason": "past_tail", "asked": "x", "from": "e-0000000000000001"}') + event(2),
        control("gap", '{"reason": "unknown_epoch", "asked": "x", "from": "n-0000000000000000"}') + event(1, epoch="n"),
    ],
)
async def test_a_transcript_that_does_not_add_up_asks_for_the_state(broken: bytes, autojump_clock: MockClock) -> None:
    server = Server(
        Stream(snapshot(Cursor("e", 2)), event(3), broken, 1000.0),
        Stream(snapshot(Cursor("e", 9)), event(10), 1000.0),
    )
    async with connect("http://fake", transport=server) as client, client.session("s").transcript() as transcript:
        assert transcript.cursor.offset <= 3
        await transcript.wait_for(lambda state: state.cursor == Cursor("e", 10))
        assert transcript.snapshots == 2
    assert server.queries == ["heartbeat=3&snapshot=true"] * 2
    assert server.asked == [None, None]


def page(offset: int, *ids: str, more: bool = False) -> httpx.Response:
    """Older messages, as they were at this offset."""
    body: dict[str, JSON] = {
        "session_id": "s",
        "cursor": str(Cursor("e", offset)),
        "messages": [{"message_id": each, "role": "user", "status": "complete", "blocks": []} for each in ids],
        "queue": {"paused": False, "items": []},
        "approvals": [],
        "metadata": {},
        "more": more,
    }
    return httpx.Response(200, json=body | ({"next": ids[0]} if more else {}))


# The newest message, of more.
PART = (
    snapshot(Cursor("e", 9))
    .replace(b'"more":false', b'"more":true,"next":"m"')
    .replace(b'"messages":[]', b'"messages":[{"message_id":"m","role":"user","status":"complete","blocks":[]}]')
)


#
async def test_older_messages_that_cannot_be_read_are_an_error_and_may_be_asked_for_again(
    autojump_clock: MockClock,
) -> None:
    server = Server(Stream(PART, event(10), 1000.0), problem("FORBIDDEN"), page(10, "k", "l"))
    async with (
        connect("http://fake", transport=server) as client,
        client.session("s").transcript(limit=1) as transcript,
    ):
        await transcript.wait_for(lambda state: state.cursor == Cursor("e", 10))
        with pytest.raises(Forbidden):
            await transcript.older()
        assert (transcript.more, transcript.state.message_ids()) == (True, ["m"])
        assert not await transcript.older(2)
        assert not transcript.more
        assert not await transcript.older(), "there is nothing to ask for"
        assert transcript.state.message_ids() == ["k", "l", "m"]
        assert transcript.cursor == Cursor("e", 10)
        assert not transcript.snapshot().more
    assert server.queries == ["heartbeat=3&snapshot=true&limit=1", "limit=1000&before=m", "limit=2&before=m"]


async def test_a_message_that_was_retracted_while_its_page_was_on_the_way_stays_away(
    autojump_clock: MockClock,
) -> None:
    stamp = b'"message_id":"k","data":{'
    gone = event(10).replace(b'"queue.paused"', b'"message.retracted"').replace(b'"data":{', stamp)
    server = Server(Stream(PART, gone, 1000.0), page(9, "k", "l"), page(10, "l"))
    async with connect("http://fake", transport=server) as client, client.session("s").transcript() as transcript:
        await transcript.wait_for(lambda state: state.cursor == Cursor("e", 10))
        assert not await transcript.older()
        assert transcript.state.message_ids() == ["l", "m"]
    assert len(server.queries) == 3


#
async def test_a_page_before_a_message_that_is_gone_makes_the_state_begin_anew(autojump_clock: MockClock) -> None:
    server = Server(
        Stream(PART, 1000.0), problem("MESSAGE_NOT_FOUND"), Stream(snapshot(Cursor("e", 12)), event(13), 1000.0)
    )
    async with connect("http://fake", transport=server) as client, client.session("s").transcript() as transcript:
        assert not await transcript.older()
        assert transcript.snapshots == 2
        assert transcript.state.message_ids() == []
