"""The short way in for chunks: it tells, stores, counts and logs the very same as the long one."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import pytest
import trio
import trio.testing
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from quart import Response

from penstock.adapters.access import Identity
from penstock.adapters.http import create_app, mount
from penstock.adapters.http.pushing import Asked, Pushing
from penstock.adapters.requests.chunks import read_batch, read_chunk, read_pieces, read_strictly
from penstock.adapters.server.config import ServerConfig
from penstock.adapters.server.limits import Limits, LimitsConfig
from penstock.adapters.watching.traffic import traffic
from penstock.adapters.websocket import websocket_handler
from penstock.engine import (
    JSON,
    Chunk,
    Engine,
    InvalidBody,
    MemoryLog,
    PenstockError,
    Session,
    decode_json,
    open_engine,
)
from tests.adapters.credentials import identity, token
from tests.adapters.fuzzing import Dice
from tests.adapters.serving import PATIENCE, Served, serving
from tests.engine.rules import events_of
from tests.engine.strategies import json_values
from tests.extent import examples

GID: Final = "0198c0de-7a11-7abc-8def-0123456789ab"
OTHER: Final = "0198c0de-7a12-7abc-8def-0123456789ab"
MID: Final = "0198c0de-7a21-7abc-8def-0123456789ab"

PAGE: Final = "https://chat.example"


@frozen
class Ask:
    """One request: to ``path`` below the session, as it is on the wire."""

    body: Any = None
    path: str = "chunks"
    headers: tuple[str, ...] = ()
    session: str = "s"
    raw: bytes | None = None

    def wire(self, suffix: str) -> bytes:
        body = json.dumps(self.body).encode() if self.raw is None else self.raw
        lines = [f"POST /v1/sessions/{self.session}/{self.path}{suffix} HTTP/1.1", "X-Request-Id: r-1", *self.headers]
        if not any(line.startswith("Host") for line in self.headers):
            lines.append("Host: localhost")
        if not any(line.startswith("Content-Length") for line in self.headers):
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def delta(text: Any = "x", **fields: Any) -> dict[str, Any]:
    return {"generation_id": GID, "message_id": MID, "data": {"text": text}, **fields}


def batch(*chunks: Any) -> Ask:
    return Ask({"chunks": chunks}, "chunks/batch")


def stamped(epoch: object, seq: object, name: str = "p") -> tuple[str, ...]:
    return (f"Producer-Id: {name}", f"Producer-Epoch: {epoch}", f"Producer-Seq: {seq}")


# One conversation, with all that can be refused on the way.
ASKED: Final = (
    Ask(delta(), session="nobody"),
    Ask(delta(), session="a" * 129),
    Ask(delta(seq=1)),
    Ask(delta("y", seq=2, block_index=0)),
    Ask(delta("y", seq=2)),  # a duplicate
    Ask(delta("y", seq=7)),  # a gap
    Ask(delta("y", seq=True)),
    Ask(delta("y", txt=1)),
    Ask(delta(5)),
    Ask(delta(generation_id=OTHER)),
    Ask(delta(generation_id="x")),
    Ask(delta(message_id="x")),
    Ask(delta(job_id="another")),
    Ask(None),
    Ask([]),
    Ask(raw=b""),
    Ask(raw=b"{"),
    Ask(raw=b"\xff"),
    Ask(raw=b'{"generation_id": "' + GID.encode() + b'", "data": {"text": "\\ud800"}}'),
    batch(delta("a", seq=3), delta("b", seq=4), delta("c", seq=5)),
    batch(delta("c", seq=5), delta("d", seq=6)),
    batch(delta("e"), delta("f")),
    batch(delta("e"), delta("f", seq=None)),
    batch(delta("e"), delta("f", generation_id=OTHER)),
    batch(),
    batch(*[delta()] * 501),
    Ask({"chunks": [delta()], "more": 1}, "chunks/batch"),
    Ask(delta("g"), headers=stamped(0, 0)),
    Ask(delta("g"), headers=stamped(0, 0)),
    Ask(delta("h"), headers=stamped(0, 5)),
    Ask(delta("h"), headers=stamped(1, 0)),
    Ask(delta("h"), headers=stamped(0, 1)),
    Ask(delta("h"), headers=stamped("x", 0)),
    Ask(delta("h"), headers=("Producer-Id: p",)),
    Ask(delta("h"), headers=(*stamped(1, 1), "Producer-Seq: 2")),
    Ask(delta(), headers=("Host: evil.example",)),
    Ask(delta(), headers=("Origin: https://evil.example",)),
    Ask(delta("i"), headers=(f"Origin: {PAGE}",)),
    Ask(delta(), headers=("Authorization: Bearer x",)),
    Ask(raw=b"x", headers=(f"Content-Length: {1024 * 1024 + 1}", "Connection: close")),
    Ask({"type": "block.closed", "generation_id": GID, "message_id": MID, "data": {}}),
    Ask(delta("late")),
    Ask({"type": "message.closed", "generation_id": GID, "data": {}}),
)

_CHANGING: Final = (
    (re.compile(rb"\r\ndate: [^\r]*"), b""),
    (re.compile(rb"\r\nconnection: close"), b""),  # a refusal may be faster than the body that it refuses
    (re.compile(rb'"[0-9a-f]{16}-'), b'"epoch-'),
)


# Behind a path: a query, if one that says nothing, goes the long way.
LONG: Final = "?&"


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Asked]]:
    """The requests that go the short way."""
    short: list[Asked] = []
    answer = Pushing.answer

    async def counted(self: Pushing, asked: Asked, *args: Any) -> None:
        short.append(asked)
        await answer(self, asked, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Pushing, "answer", counted)
        yield short


@asynccontextmanager
async def served(
    engine: Engine, who: Identity, *, allowed: tuple[str, ...] = (), limits: Limits | None = None
) -> AsyncIterator[Served]:
    app = create_app(engine, identity=who, allowed_origins=allowed, limits=limits)
    async with serving(app, websocket_handler(engine, identity=who)) as found:
        yield found


async def told(server: Served, asked: Ask, suffix: str, more: tuple[str, ...] = (), *, pieces: int = 1) -> bytes:
    """The whole answer, but for what differs from one moment to the next."""
    async with await server.connect() as stream:
        sent = Ask(asked.body, asked.path, (*asked.headers, *more), asked.session, asked.raw).wire(suffix)
        for at in range(0, len(sent), size := -(-len(sent) // pieces)):
            await stream.send_all(sent[at : at + size])
            if pieces > 1:
                await trio.testing.wait_all_tasks_blocked()
        answer = b""
        with trio.fail_after(PATIENCE):
            while b"\r\n\r\n" not in answer:
                answer += await stream.receive_some()
            head, _, body = answer.partition(b"\r\n\r\n")
            found = re.search(rb"content-length: (\d+)", head)
            assert found is not None
            while len(body) < int(found[1]):
                body += await stream.receive_some()
    answer = head + b"\r\n\r\n" + body
    for pattern, instead in _CHANGING:
        answer = pattern.sub(instead, answer)
    return answer


def lines_of(caplog: pytest.LogCaptureFixture) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for record in caplog.records:
        if record.name == "penstock.http":
            shown = {k: v for k, v in vars(record).items() if k in ("method", "path", "status", "session_id")}
            shown |= {k: v for k, v in vars(record).items() if k in ("generation_id", "message_id", "code", "detail")}
            found.append((record.levelname, record.getMessage(), sorted(shown.items()), "duration_ms" in vars(record)))
    caplog.clear()
    return found


#
@pytest.mark.parametrize("who", ["open", "known", "nobody", "reader"])
async def test_the_short_way_tells_the_very_same(
    who: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "penstock.http")
    scopes = ("read",) if who == "reader" else ("produce",)
    more = (f"Authorization: Bearer {token(scopes=scopes)}",) if who in ("known", "reader") else ()
    outcomes = []
    for suffix in ("", LONG):
        log = MemoryLog()
        before, counted = traffic.answers.copy(), traffic.problems.copy()
        with counting(monkeypatch) as short:
            async with open_engine(log) as engine:
                await engine.create_session("s")
                asked = identity() if who != "open" else Identity()
                async with served(engine, asked, allowed=(PAGE,)) as server:
                    answers = [await told(server, ask, suffix, more) for ask in ASKED]
            events = [(event.type, event.offset, event.seq, event.data) for event in await events_of(log, "s")]
        # A session's id that is too long is an id by its letters, so that goes the short way, too.
        assert len(short) == (0 if suffix else len(ASKED))
        numbers = (traffic.answers - before, traffic.problems - counted)
        outcomes.append((answers, events[:-2], numbers, lines_of(caplog)))
    short_way, long_way = outcomes
    for ask, one, other in zip(ASKED, short_way[0], long_way[0], strict=True):
        assert one == other, ask
    assert short_way == long_way


async def test_the_short_way_counts_requests_as_the_long_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = []
    for suffix in ("", LONG):
        limits = Limits(LimitsConfig(rate=0.001, burst=3.0), clock=lambda: 0.0)
        with counting(monkeypatch) as short:
            async with open_engine(MemoryLog()) as engine:
                await engine.create_session("s")
                async with served(engine, Identity(), limits=limits) as server:
                    outcomes.append([await told(server, Ask(delta()), suffix) for _ in range(5)])
        assert len(short) == (0 if suffix else 5)
    assert outcomes[0] == outcomes[1]
    assert [answer[9:12] for answer in outcomes[0]] == [b"200"] * 3 + [b"429"] * 2


#
async def test_what_fails_inside_is_told_as_on_the_long_way(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("the inside")

    outcomes = []
    for suffix in ("", LONG):
        with counting(monkeypatch) as short:
            async with open_engine(MemoryLog()) as engine:
                await engine.create_session("s")
                async with served(engine, Identity()) as server:
                    with monkeypatch.context() as patch:
                        patch.setattr(Session, "chunks", fail)
                        outcomes.append((await told(server, Ask(delta()), suffix), lines_of(caplog)))
        assert len(short) == (0 if suffix else 1)
    assert outcomes[0] == outcomes[1]
    assert b" 500 " in outcomes[0][0]
    assert b"the inside" not in outcomes[0][0]


@pytest.mark.parametrize("kind", ["before", "after", "view", "error"])
async def test_an_application_with_hooks_of_its_own_is_not_passed_by(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_engine(MemoryLog()) as engine:
        await engine.create_session("s")
        app = create_app(engine)

        async def refuse() -> Response:
            return Response(b"mine", 418)

        async def change(response: Response) -> Response:
            response.status_code = 418
            return response

        async def handle(error: Exception) -> Response:
            return await refuse()

        async def view(session_id: str) -> Response:
            return await refuse()

        if kind == "before":
            app.before_request(refuse)
        elif kind == "after":
            app.after_request(change)
        elif kind == "error":
            app.register_error_handler(PenstockError, handle)
        else:
            app.view_functions["write_chunk"] = view
        with counting(monkeypatch) as short:
            async with serving(app, websocket_handler(engine)) as server:
                assert b" 418 " in await told(server, Ask(delta("x", seq=7)), "")
        assert not short


@pytest.mark.parametrize("setting", ["MAX_CONTENT_LENGTH", "BODY_TIMEOUT"])
async def test_an_application_without_a_bound_for_bodies_answers_itself(
    setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_engine(MemoryLog()) as engine:
        await engine.create_session("s")
        app = create_app(engine)
        app.config[setting] = None
        with counting(monkeypatch) as short:
            async with serving(app, websocket_handler(engine)) as server:
                assert b" 200 " in await told(server, Ask(delta("x")), "")
        assert not short


@pytest.mark.parametrize(
    "path",
    ["/v1/sessions/%73/chunks", "/v1/sessions/s/chunks/", "/v1/sessions//chunks", "/v1//sessions/s/chunks"],
)
async def test_any_other_spelling_goes_the_long_way(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_engine(MemoryLog()) as engine:
        await engine.create_session("s")
        with counting(monkeypatch) as short:
            async with served(engine, Identity()) as server:
                head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}"
                answer = await server.exchange(head.encode())
        assert not short
        assert answer[9:12] == (b"400" if "%" in path else b"404")


async def test_a_body_may_come_in_pieces_and_is_read_to_its_end() -> None:
    async with open_engine(MemoryLog()) as engine:
        await engine.create_session("s")
        async with served(engine, Identity()) as server, await server.connect() as stream:
            whole = b"".join(Ask(delta(str(number))).wire("") for number in range(3))
            answers = b""
            for start in range(0, len(whole), 50):
                await stream.send_all(whole[start : start + 50])
                await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(PATIENCE):
                while answers.count(b'"accepted":1') < 3:
                    answers += await stream.receive_some()
            assert answers.count(b"HTTP/1.1 200 ") == 3
            assert b"connection: close" not in answers


async def test_the_short_way_knows_where_the_application_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_engine(MemoryLog()) as engine:
        await engine.create_session("s")
        app = mount(create_app(engine), "/chat", create_app(engine))
        config = ServerConfig(root_path="/behind")
        with counting(monkeypatch) as short:
            async with serving(app, websocket_handler(engine), config=config) as server:
                for path, status in (
                    ("/v1/sessions/s/chunks", b"200"),
                    ("/behind/v1/sessions/s/chunks", b"200"),
                    ("/behind/chat/v1/sessions/s/chunks", b"200"),
                    ("/chat/v1/sessions/s/chunks", b"200"),
                    ("/behind/chat/chat/v1/sessions/s/chunks", b"404"),
                    ("/behindv1/sessions/s/chunks", b"404"),
                ):
                    asked = Ask(delta()).wire("").replace(b"/v1/sessions/s/chunks", path.encode(), 1)
                    asked = asked.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
                    assert (await server.exchange(asked))[9:12] == status, path
        assert [asked.path for asked in short] == ["/v1/sessions/s/chunks"] * 4


async def test_a_client_that_leaves_within_the_body_writes_nothing() -> None:
    log = MemoryLog()
    async with open_engine(log) as engine:
        await engine.create_session("s")
        async with served(engine, Identity()) as server:
            async with await server.connect() as stream:
                await stream.send_all(Ask(delta()).wire("")[:-5])
            assert b" 200 " in await told(server, Ask(delta("whole")), "")
        assert [event.type for event in await events_of(log, "s")][:2] == ["session.created", "generation.started"]
        assert len([event for event in await events_of(log, "s") if event.type == "block.delta"]) == 1


_FIELDS: Final = ("job_id", "message_id", "block_index", "seq", "type", "role", "kind", "extra", "chunks")
_fields = st.sampled_from(["generation_id", "data", *_FIELDS])
_likely = st.one_of(
    json_values,
    st.text(max_size=3),
    st.integers(),
    st.booleans(),
    st.just({"text": "x"}),
    st.dictionaries(_fields, st.text()),
)


# Nearly chunks: with what each of them has, and whatever else.
_nearly = st.fixed_dictionaries(
    {"generation_id": st.just(GID) | _likely, "data": st.just({"text": "x"}) | _likely},
    optional=dict.fromkeys(_FIELDS, _likely),
)


#
# What is of the right kinds is read without the converter: to the same chunk, or refused in the same words.
@given(value=st.one_of(json_values, st.dictionaries(_fields, _likely), _nearly), aside=st.sets(_fields, max_size=1))
def test_a_chunk_is_read_as_the_converter_reads_it(value: JSON, aside: set[str]) -> None:
    def outcome(read: Any) -> Chunk | str:
        try:
            found: Chunk = read(value, aside=frozenset(aside))
        except InvalidBody as error:
            return error.detail
        return found

    assert outcome(read_chunk) == outcome(read_strictly)


_SPELLED: Final[tuple[str, ...]] = (
    '{"generation_id":"g","message_id":"m","data":{"text":"a"}}',
    '{"generation_id":"g","message_id":"m","block_index":0,"seq":1,"data":{"text":"b"}}',
    '{"generation_id":"g","message_id":"m","block_index":0,"seq":2,"data":{"text":"c"}}',
    '{"generation_id":"g","message_id":"m","block_index":0,"seq":3,"data":{"text":"null"},"type":"block.delta"}',
    '{"generation_id":"g","message_id":"m","job_id":"j","data":{"text":""}}',
    '{"generation_id":"h","message_id":"m","data":{"text":"a"}}',
    '{"generation_id":"g","message_id":"n","data":{"text":"a"}}',
    '{"generation_id":"g","message_id":"m","block_index":1,"seq":2,"data":{"text":"c"}}',
    '{"generation_id":"g","message_id":"m","block_index":0,"seq":2,"data":{"text":"c"},"kind":"text"}',
    '{"generation_id":"g","message_id":"m","block_index":0,"seq":18446744073709551617,"data":{"text":"c"}}',
    '{"generation_id":"g","message_id":"m","block_index":0,"seq":-1,"data":{"text":"c"}}',
    '{"generation_id":"g","message_id":"m","block_index":0,"seq":9,"s\\u0065q":2,"data":{"text":"c"}}',
    *(
        '{"generation_id":"g","message_id":"m","block_index":0,"seq":NUMBER,"data":{"text":"c"}}'.replace(
            "NUMBER", number
        )
        for number in ("2.0", "2e0", "true", "null", '"2"', "[]")
    ),
    *(
        '{"generation_id":"g","message_id":"m","data":DATA}'.replace("DATA", data)
        for data in ('{"text":1}', '{"text":null}', "{}", '{"text":"a","more":1}', '{"value":1}', "null", '"a"', "[]")
    ),
    '{"generation_id":"g","data":{"text":"a"}}',
    '{"message_id":"m","data":{"text":"a"}}',
    '{"generation_id":"g","message_id":"m"}',
    '{"generation_id":"g","message_id":"m","data":{"text":"a"},"type":"app.x"}',
    '{"generation_id":"g","message_id":"m","data":{"text":"a"},"extra":1}',
    '{"generation_id":"g","message_id":null,"data":{"text":"a"}}',
    "null",
    "[]",
)
_batches = st.one_of(
    st.lists(st.sampled_from(_SPELLED[1:4]), min_size=1, max_size=3),
    st.lists(st.sampled_from(_SPELLED), max_size=3),
    st.lists(st.sampled_from((_SPELLED[0], *_SPELLED[4:7])), max_size=3),
    st.builds(lambda one, times: [one] * times, st.sampled_from(_SPELLED), st.integers(1, 3)),
    st.builds(lambda one, place: [*_SPELLED[1:place], one], st.sampled_from(_SPELLED), st.integers(1, 4)),
)


# Pieces that are read from the bytes are the chunks that would have been read; else they are left to be read as chunks.
@settings(max_examples=examples(1000))
@given(
    spelled=_batches, around=st.sampled_from(['{"chunks":[%s]}', ' {"chunks" : [%s]}\n', '{"chunks":[%s],"more":1}'])
)
def test_pieces_are_read_as_the_chunks_that_they_are(spelled: list[str], around: str) -> None:
    body = (around % ",".join(spelled)).encode()
    pieces = read_pieces(body)
    if pieces is not None:
        assert list(pieces) == read_batch(decode_json(body))
        assert [*pieces[:2], *pieces[2:]] == list(pieces)
        assert (pieces[-1], len(pieces)) == (list(pieces)[-1], len(spelled))
    plain = all(each in _SPELLED[1:4] for each in spelled) and spelled == sorted(spelled, key=_SPELLED.index)
    if spelled and plain and len({*spelled}) == len(spelled) and "more" not in around:
        first = _SPELLED.index(spelled[0])
        assert (pieces is not None) == (spelled == list(_SPELLED[first : first + len(spelled)]))


# Ids of the server's own making.
MADE: Final = re.compile(rb"(?!0198c0de)[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f-]{21}")


async def _told_for(dice_seed: int, suffix: str, *, cut: bool) -> tuple[list[bytes], list[Any]]:
    """What a server answers to requests drawn by this seed, and what it has stored then."""
    dice, log = Dice(dice_seed), MemoryLog()
    answers = []
    async with open_engine(log) as engine:
        await engine.create_session("s")
        async with served(engine, Identity()) as server:
            for number in range(40):
                path, drawn = dice.one_of((("chunks", dice.chunk), ("chunks/batch", dice.batch)))
                body = json.dumps(drawn()).encode()
                if dice.rarely(6):
                    body = body[: number * 3] + dice.word().encode("utf-8", "surrogatepass")
                headers = stamped(0, number) if dice.rarely(4) else ()
                ask = Ask(path=path, raw=body, headers=headers)
                answers.append(await told(server, ask, suffix, pieces=7 if cut else 1))
        events = [(event.type, event.offset, event.seq, event.data) for event in await events_of(log, "s")]
    return answers, events[:-2]


# Whatever the body, and in however many pieces it comes: read and checked on either way, it comes to the same.
@pytest.mark.parametrize("seed", range(4))
async def test_a_body_is_read_the_same_on_either_way(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with counting(monkeypatch) as short:
        by_short = await _told_for(seed, "", cut=bool(seed % 2))
        assert len(short) == 40
        by_long = await _told_for(seed, LONG, cut=bool(seed % 2))
        assert len(short) == 40
    for one, other in zip(by_short[0], by_long[0], strict=True):
        assert MADE.sub(b"made", one) == MADE.sub(b"made", other)
    assert by_short[1] == by_long[1]
    assert len({answer[9:12] for answer in by_short[0]}) > 1
