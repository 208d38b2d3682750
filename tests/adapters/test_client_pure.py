"""The client's pure parts: the stream's parser, a reader's place, batches, numbers, attempts, errors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from inspect import isfunction, signature

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.adapters.client import Client, Events, RemoteSession, Transcript
from penstock.adapters.client.answers import parsed, read, read_started
from penstock.adapters.client.backoff import Backoff
from penstock.adapters.client.batching import Batcher
from penstock.adapters.client.frames import Bunch, Later, from_message, from_socket, joined
from penstock.adapters.client.numbering import Numbering
from penstock.adapters.client.place import Arrived, Asks, Place
from penstock.adapters.client.refusals import (
    CLASSES,
    BadAnswer,
    Refused,
    from_answer,
    from_problem,
    repeatable_status,
    retry_after,
)
from penstock.adapters.client.retrying import Again, Budget, Failure, GiveUp, Recover
from penstock.adapters.forms.sse_reader import EventStream, ServerSent
from penstock.adapters.problems import TABLE, RateLimited, Unauthenticated, problem
from penstock.adapters.requests.answers import RetractAnswer, StopAnswer
from penstock.engine import (
    JSON,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    CapacityError,
    CorruptSession,
    Cursor,
    Event,
    FinishFailed,
    Gap,
    InvalidBody,
    JSONObject,
    MessageClosed,
    MessageOpened,
    Opened,
    PenstockError,
    QueueFull,
    QueuePaused,
    SequenceGap,
    SessionNotFound,
    StaleProducer,
    WriteFailed,
    encode,
)

BOUND = 1 << 20


def parse(*pieces: bytes) -> list[ServerSent]:
    stream = EventStream(BOUND)
    return [message for piece in pieces for message in stream.feed(piece)]


# --- the stream's form


# R-123 R-124: however the bytes are cut, also inside a character, the messages are the same
@given(st.data())
def test_messages_do_not_depend_on_how_their_bytes_are_cut(data: st.DataObject) -> None:
    text = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=8)
    ends = st.sampled_from(["\n", "\r\n", "\r"])
    lines: list[str] = []
    for name, value in data.draw(st.lists(st.tuples(st.sampled_from(["data", "id", "event", ""]), text), max_size=20)):
        lines.append(f"{name}:{value}")
        if data.draw(st.booleans()):
            lines.append("")
    whole = "".join(line + data.draw(ends) for line in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    # A lone CR at the very end may yet become CRLF: it is told with what follows.
    assert parse(*pieces, b"\n\n") == parse(whole, b"\n\n")


def test_what_a_stream_is_made_of() -> None:
    assert parse(b"\xef\xbb\xbfid: a\n\n") == [ServerSent("message", None, "a")]
    assert parse(b"id: a\ndata: 1\ndata:2\n\n") == [ServerSent("message", "1\n2", "a")]
    assert parse(b": ping\n\n") == []
    assert parse(b"event: gap\ndata: {}\n\ndata: x\n\n") == [
        ServerSent("gap", "{}", ""),
        ServerSent("message", "x", ""),
    ]
    assert parse(b"event: drain\nretry: 1500\ndata: {}\n\n") == [ServerSent("drain", "{}", "", 1.5)]
    assert parse(b"id: a\n\ndata: b\n\n")[1].id == "a"
    assert parse(b"id: \0\nretry: soon\nwhat: ever\n\n") == []
    assert parse(b"retry: " + b"9" * 5000 + b"\n\n") == [ServerSent("message", None, "", math.inf)]
    assert parse("data: a\u2028b\x85c\x0bd\n\n".encode()) == [ServerSent("message", "a\u2028b\x85c\x0bd", "")]


# what a break leaves behind is no message
def test_half_a_message_is_none() -> None:
    assert parse(b"id: a\ndata: {}") == []
    assert parse(b"id: a\ndata: {}\n") == []


#
def test_what_is_no_text_is_told() -> None:
    with pytest.raises(ValueError, match="UTF-8"):
        parse(b"data: \xff\n\n")


def test_a_message_has_a_bound() -> None:
    stream = EventStream(100)
    line = b"data: 1234567890\n"
    for _ in range(5):
        assert stream.feed(line) == []
    with pytest.raises(ValueError, match="longer"):
        stream.feed(line * 5)


# --- answers

CURSOR = "e-0000000000000001"


def test_an_answer_is_read_also_with_fields_of_a_later_version() -> None:
    stopped: JSONObject = {"session_id": "s", "state": "stopped", "later": {"a": [1]}}
    assert read(StopAnswer, stopped) == StopAnswer(session_id="s", state="stopped")
    retracted = parsed(b'{"session_id":"s","message_id":"m","cursor":"%b"}' % CURSOR.encode())
    assert read(RetractAnswer, retracted).cursor == Cursor("e", 1)
    assert parsed(b"") == {}  # of a server that says no more by it than that it is done


@pytest.mark.parametrize(
    "answer",
    [
        {"session_id": "s", "generation_id": "g", "turn": 1},
        {"session_id": "s", "generation_id": "g", "turn": "1", "cursor": CURSOR},
        {"session_id": "s", "generation_id": "g", "turn": 1, "cursor": "later"},
        {"session_id": "s", "generation_id": "g", "turn": 1, "cursor": CURSOR, "message_id": None},
        {"session_id": "s", "generation_id": "g", "position": True, "cursor": CURSOR},
    ],
)
def test_an_answer_that_does_not_fit_is_refused(answer: JSONObject) -> None:
    with pytest.raises(BadAnswer):
        read_started(answer, 201, own_key=True, joins=False)


def test_a_body_that_is_no_answer_is_refused() -> None:
    for body in (b"[]", b"{", b"<html>", b'"so"'):
        with pytest.raises(BadAnswer):
            parsed(body)
    with pytest.raises(BadAnswer):
        read(StopAnswer, {"session_id": "s", "state": "asleep"})


# --- frames and places


def event(offset: int | None, session_id: str = "s") -> Event:
    return Event(data=QueuePaused(), session_id=session_id, time="2026-01-01T00:00:00.000Z", offset=offset)


def sent(offset: int, epoch: str = "e", **given: str) -> ServerSent:
    return ServerSent("message", encode(event(offset, **given)).decode(), str(Cursor(epoch, offset)))


# an event whose stamp and place do not fit is not applied
def test_a_frame_that_does_not_add_up_is_refused() -> None:
    with pytest.raises(BadAnswer):
        from_message(ServerSent("message", encode(event(3)).decode(), str(Cursor("e", 4))))
    with pytest.raises(BadAnswer):
        from_message(ServerSent("message", "{", "e-0000000000000001"))
    with pytest.raises(BadAnswer):
        from_message(ServerSent("gap", "{}", ""))
    with pytest.raises(BadAnswer):
        from_socket("[]", "s", 1)
    assert from_message(ServerSent("of-tomorrow", "{}", "")) == []
    assert from_message(ServerSent("drain", '{"reason":"x"}', "", 2.0))[0] == Later(2.0)


def test_bunches_are_joined_and_nothing_else_is() -> None:
    frames = [frame for offset in (1, 2) for frame in from_message(sent(offset))]
    opened = Opened(Cursor("e", 0))
    first, bunch = joined([opened, *frames])
    assert first is opened
    assert isinstance(bunch, Bunch)
    assert [cursor for cursor, _ in bunch.items] == [Cursor("e", 1), Cursor("e", 2)]


# R-54 R-70
def test_nothing_is_let_through_twice() -> None:
    place = Place("s", None, snapshot=False)
    assert place.asks == Asks(None, False)
    arrived = place.take(Bunch(tuple((Cursor("e", n), event(n)) for n in (1, 2, 3))))
    assert isinstance(arrived, Arrived)
    assert place.asks.after == str(Cursor("e", 3))
    assert place.take(Bunch(((Cursor("e", 2), event(2)), (Cursor("e", 3), event(3))))) is None
    again = place.take(Bunch(((Cursor("e", 3), event(3)), (Cursor("e", 4), event(4)))))
    assert isinstance(again, Arrived)
    assert [one.offset for one in again.events] == [4]
    assert place.duplicates == 3


# R-5 R-15 R-55 R-154
def test_events_of_other_sessions_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    place = Place("s", None, snapshot=False)
    assert place.take(Bunch(((Cursor("e", 1), event(1, "other")),))) is None
    assert place.asks.after is None
    assert "other" in caplog.text


def test_another_life_needs_a_gap() -> None:
    place = Place("s", Cursor("old", 7), snapshot=False)
    with pytest.raises(BadAnswer):
        place.take(Bunch(((Cursor("new", 8), event(8)),)))
    assert place.take(Gap("unknown_epoch", "old", Cursor("new", 0))) is not None
    assert place.take(Bunch(((Cursor("new", 1), event(1)),))) is not None
    assert place.gaps == 1


def test_now_is_asked_for_until_a_cursor_is_known() -> None:
    place = Place("s", "now", snapshot=False)
    assert place.asks.after == "now"
    place.take(Opened(Cursor("e", 5)))
    assert place.asks.after == str(Cursor("e", 5))
    place.want_snapshot()
    assert place.asks.snapshot


# --- producers


@given(st.lists(st.tuples(st.integers(1, 30), st.sampled_from(["wait", "take", "deliver", "hasten"])), max_size=60))
def test_batches_hold_every_chunk_once_in_order(steps: list[tuple[int, str]]) -> None:
    batcher = Batcher(linger=0.005, count=5, size=100, bound=20)
    now = 0.0
    sent_chunks: list[bytes] = []
    put: list[bytes] = []
    for number, (length, step) in enumerate(steps):
        chunk = f"{number}:".encode().ljust(length, b".")
        batcher.put(chunk, now)
        put.append(chunk)
        match step:
            case "wait":
                now += 0.006
            case "hasten":
                batcher.hasten()
            case "take" if batcher.due <= now:
                batch = batcher.take()
                assert 1 <= len(batch.chunks) <= 5
                assert len(batch.chunks) == 1 or sum(map(len, batch.chunks)) <= 100
                sent_chunks += batch.chunks
                assert batcher.due == math.inf
            case _:
                batcher.delivered()
        assert batcher.full == (len(put) - batcher.acknowledged >= 20)
    batcher.delivered()
    while batcher.due < math.inf:
        sent_chunks += batcher.take().chunks
        batcher.delivered()
    assert sent_chunks == put
    assert batcher.acknowledged == len(put)


#
def test_when_a_batch_is_due() -> None:
    batcher = Batcher(linger=0.005, count=3, size=1000, bound=20)
    assert batcher.due == math.inf
    batcher.put(b"1", 10.0)
    assert batcher.due == 10.005
    batcher.put(b"2", 10.004)
    assert batcher.due == 10.005
    batcher.hasten()
    assert batcher.due == -math.inf
    batcher.take()
    batcher.put(b"3", 10.004)
    assert batcher.due == math.inf  # one is under way
    batcher.delivered()
    assert batcher.due == 10.009  # nobody hurries this one
    batcher.put(b"4", 11.0)
    batcher.put(b"5", 11.0)
    assert batcher.due == -math.inf  # full


# R-10 R-60 R-61
def test_numbers_are_dense_and_what_is_closed_is_forgotten() -> None:
    numbers = Numbering("j")
    numbers.number(MessageOpened(role="assistant"), "m", None)
    assert numbers.next_block_index("m") == 0
    assert numbers.number(BlockOpened(kind="text"), "m", 0) == 0
    assert numbers.number(BlockOpened(kind="text"), "m", 1) == 0
    assert [numbers.number(BlockDelta(text="x"), "m", block) for block in (0, 1, 0)] == [1, 1, 2]
    assert numbers.number(BlockClosed(), "m", 0) == 3
    with pytest.raises(InvalidBody):
        numbers.number(BlockDelta(text="x"), "m", 0)
    with pytest.raises(InvalidBody):
        numbers.number(BlockOpened(kind="text"), "m", 7)
    numbers.number(MessageClosed(status="complete"), "m", None)
    assert numbers.open == 0
    for data in (BlockDelta(text="x"), MessageOpened(role="assistant")):
        with pytest.raises(InvalidBody):
            numbers.number(data, "m", 1)


#
def test_a_pause_is_a_random_part_of_what_doubles() -> None:
    backoff = Backoff(0.05, 1.0, chance=lambda: 0.5)
    assert [round(backoff.next(), 4) for _ in range(7)] == [0.025, 0.05, 0.1, 0.2, 0.4, 0.5, 0.5]
    assert backoff.next(at_least=3.0) == 3.0
    backoff.reset()
    assert backoff.next() == 0.025
    assert [backoff.next(spent=0.04), backoff.next(spent=0.04)] == [pytest.approx(0.01), pytest.approx(0.06)]
    assert backoff.next(3.0, spent=7.0) == 3.0, "what the server asks for is counted from its answer"


def budget(*, outage: float = 0.0, now: Callable[[], float] = lambda: 0.0, **given: bool) -> Budget:
    """Three attempts at least."""
    settings = {"renews": False, "may_recover": True} | given
    return Budget(
        3,
        outage,
        Backoff(0.05, 2.0, chance=lambda: 0.5),
        now=now,
        renews=settings["renews"],
        may_recover=settings["may_recover"],
    )


# here as in the engine.
@pytest.mark.parametrize("owner", [Client, RemoteSession, Events, Transcript])
def test_no_call_takes_more_than_three_arguments_by_their_order(owner: type) -> None:
    calls = {name: signature(each) for name, each in vars(owner).items() if isfunction(each) and name[0] != "_"}
    assert calls
    for name, told in calls.items():
        _, *by_order = [each for each in told.parameters.values() if each.kind == each.POSITIONAL_OR_KEYWORD]
        optional = [each for each in by_order if each.default is not each.empty]
        assert (len(by_order) <= 3, len(optional) <= 2) == (True, True), name


# R-82 R-83
def test_a_budget_is_three_attempts_a_recovery_and_three_more() -> None:
    trouble, missing = Failure(error=WriteFailed(""), status=500), Failure(error=SessionNotFound(""), status=404)
    one = budget()
    assert [type(one.judge(trouble)) for _ in range(3)] == [Again, Again, GiveUp]
    one = budget()
    assert [type(one.judge(each)) for each in (trouble, trouble, missing)] == [Again, Again, Recover]
    one.made()
    assert [type(one.judge(each)) for each in (trouble, trouble, trouble)] == [Again, Again, GiveUp]
    one = budget()
    assert isinstance(one.judge(missing), Recover)
    one.made()
    assert isinstance(one.judge(missing), GiveUp)
    assert isinstance(budget(may_recover=False).judge(missing), GiveUp)


# R-82 R-83
def test_a_session_that_could_not_be_made_has_attempts_of_its_own() -> None:
    trouble, missing = Failure(error=WriteFailed(""), status=500), Failure(error=SessionNotFound(""), status=404)
    one = budget()
    kinds = [type(one.judge(each)) for each in (trouble, trouble, missing)]
    for _ in range(2):
        kinds.append(type(one.judge(trouble, making=True)))
        kinds.append(type(one.judge(missing)))
    assert kinds == [Again, Again, Recover, Again, Recover, Again, Recover]
    assert isinstance(one.judge(trouble, making=True), GiveUp)
    assert isinstance(budget().judge(missing, making=True), GiveUp), "a path that leads nowhere"
    one = budget()
    assert isinstance(one.judge(missing), Recover)
    assert [type(one.judge(trouble, making=True)) for _ in range(2)] == [Again, Again]
    one.made()
    assert [type(one.judge(trouble)) for _ in range(3)] == [Again, Again, GiveUp], "all of them anew"


#
def test_a_budget_lasts_as_long_as_an_outage() -> None:
    trouble, clock = Failure(error=WriteFailed(""), status=500), [100.0]
    one = budget(outage=60.0, now=lambda: clock[0])
    for clock[0] in (100.0, 103.0, 110.0, 158.0):
        assert isinstance(one.judge(trouble), Again)
    clock[0] = 159.8  # the pause, 0.4 s by now, would end behind the outage
    assert isinstance(one.judge(trouble), GiveUp)
    one = budget(outage=60.0, now=lambda: clock[0])
    clock[0] += 1000.0  # however long an attempt takes, there are three
    assert [type(one.judge(trouble)) for _ in range(3)] == [Again, Again, GiveUp]
    one = budget(outage=60.0, now=lambda: clock[0])
    clock[0] += 50.0
    assert isinstance(one.judge(Failure(error=SessionNotFound(""), status=404)), Recover)
    one.made()
    clock[0] += 50.0
    assert [type(one.judge(trouble)) for _ in range(4)] == [Again] * 4, "all of it anew"
    one, ended = budget(outage=60.0), Failure(error=FinishFailed(""), status=500)
    assert [type(one.judge(ended)) for _ in range(3)] == [Again, Again, GiveUp], "it stays so"


def test_a_session_that_cannot_be_read_is_not_asked_again() -> None:
    corrupt = Failure(error=CorruptSession(""), status=500)
    assert isinstance(budget().judge(corrupt), GiveUp)
    assert isinstance(budget().judge(corrupt, making=True), GiveUp)


#
def test_a_refused_token_is_changed_once() -> None:
    refused = Failure(error=Unauthenticated(""), status=401)
    assert isinstance(budget().judge(refused), GiveUp)
    one = budget(renews=True)
    assert [type(one.judge(refused)) for _ in range(2)] == [Again, GiveUp]


#
def test_which_statuses_may_go_well_later() -> None:
    assert {status for status in range(400, 600) if repeatable_status(status)} == {408, 425, 429, *range(500, 600)}


# --- errors


# R-85 R-113
@pytest.mark.parametrize("code", sorted(TABLE))
def test_every_code_that_a_server_says_is_known(code: str) -> None:
    told: JSONObject = {"code": code, "detail": "so it is", "retryable": TABLE[code].retryable, "session_id": "s"}
    error = from_problem(told, status=TABLE[code].status)
    assert isinstance(error, PenstockError)
    assert error.code == code
    assert error.session_id == "s"
    assert error.retryable == TABLE[code].retryable
    assert isinstance(error, Refused) == (code == "INTERNAL")  # the server's bug is no error of the engine's


# what went over the wire is what was raised
@pytest.mark.parametrize(
    "error",
    [SequenceGap("x", expected=7), StaleProducer("x", epoch=3), QueueFull("x"), RateLimited("x", retry_after=9.0)],
)
def test_errors_come_back_as_they_were(error: PenstockError) -> None:
    back = from_problem(problem(error))
    assert type(back) is type(error)
    asked = {"retry_after": error.retry_after} if isinstance(error, CapacityError) else {}
    assert vars(back) == vars(error) | asked


#
def test_an_unknown_code_keeps_what_it_says() -> None:
    told: JSONObject = {"code": "OF_TOMORROW", "detail": "x" * 1000, "retryable": True}
    error = from_problem(told, status=418)
    assert isinstance(error, Refused)
    assert (error.code, error.status, error.retryable, len(error.detail)) == ("OF_TOMORROW", 418, True, 300)
    assert Refused.retryable is False
    bare = from_answer(502, b"<html>a proxy</html>")
    assert (bare.code, bare.retryable) == ("HTTP_502", True)


def test_how_long_to_wait_is_read() -> None:
    limited = from_answer(429, b'{"code": "RATE_LIMITED", "detail": "x", "retryable": true}', "7")
    assert isinstance(limited, RateLimited)
    assert limited.retry_after == 7.0
    assert retry_after("Wed, 21 Oct 2026 07:28:00 GMT") is None
    assert retry_after("-1") is None


@pytest.mark.parametrize(
    ("said", "seconds"),
    [(7, 7.0), (0.5, 0.5), (None, 1.0), ("7", 1.0), (True, 1.0), (-1, 1.0), (10**400, 1.0), ([], 1.0)],
)
@pytest.mark.parametrize("code", ["RATE_LIMITED", "OVERLOADED", "QUEUE_FULL", "DRAINING", "TOO_MANY_STRAGGLERS"])
def test_a_problem_itself_says_how_long_to_wait(code: str, said: JSON, seconds: float) -> None:
    told: JSONObject = {"code": code, "detail": "x"} | ({} if said is None else {"retry_after": said})
    limited = from_problem(told)
    assert isinstance(limited, CapacityError)
    assert limited.retry_after == seconds
    if said != 10**400:
        with pytest.raises(type(limited)) as raised:
            from_socket(json.dumps({"op": "error", "id": 1, "error": told}), "s", 1)
        assert raised.value.retry_after == seconds


def test_the_table_names_no_class_twice() -> None:
    assert len(set(CLASSES.values())) == len(CLASSES)
