"""One contract of streaming, run over SSE, NDJSON and WebSocket, through real sockets."""

from __future__ import annotations

import json
import socket as stdlib_socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from types import MappingProxyType
from typing import Final

import pytest
import trio
from attrs import frozen
from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope
from quart import Response

from penstock.adapters.http import create_app
from penstock.adapters.server.accept import ServerConfig
from penstock.adapters.websocket import websocket_handler
from penstock.engine import (
    Config,
    CorruptSession,
    Cursor,
    Entry,
    Generation,
    MemoryLog,
    Producer,
    WriteFailed,
    open_engine,
)
from tests.adapters.credentials import bearer, identity, token
from tests.adapters.serving import PATIENCE, Lines, Penstock, Socket, penstock, serving
from tests.engine.faulty import Fail, FaultyLog
from tests.engine.living import copied
from tests.engine.producers import Steered, saying

# Over HTTP/1.1 the connection itself writes the answer's body; to a client of HTTP/1.0 the framework does.
FORMS: Final = ("sse", "sse 1.0", "ndjson", "ndjson 1.0", "websocket")

each_form = pytest.mark.parametrize("form", FORMS)

# Where each takes its time: what is framed otherwise over HTTP/1.0 alone only with --long.
some_forms = pytest.mark.parametrize(
    "form", [pytest.param(form, marks=[pytest.mark.long] * (form in ("sse 1.0", "ndjson 1.0"))) for form in FORMS]
)


@frozen
class Item:
    """What every form can say: an event with its bytes, or a control frame."""

    kind: str  # "event", or the control frame's name; "open" is the position at the start
    cursor: str | None
    text: str

    @property
    def value(self) -> dict[str, object]:
        made = json.loads(self.text)
        assert isinstance(made, dict)
        return made


class SseReader:
    def __init__(self, lines: Lines) -> None:
        self.lines = lines

    async def next(self) -> Item:
        fields: dict[str, str] = {}
        while line := await self.lines.next():
            assert "\r" not in line
            name, _, value = line.partition(": ")
            if name:
                assert name not in fields
                fields[name] = value
        if not fields:
            return await self.next()
        kind = fields.get("event", "event" if "data" in fields else "open")
        return Item(kind, fields.get("id"), fields.get("data", ""))


class NdjsonReader:
    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self._epoch = ""

    async def next(self) -> Item:
        line = await self.lines.next()
        if not line:
            return await self.next()
        value = json.loads(line)
        if "control" not in value:
            at = str(Cursor(self._epoch, value["offset"])) if "offset" in value else None
            return Item("event", at, line)
        kind = value.pop("control")
        if kind == "open":
            self._epoch = value["epoch"]
        return Item(kind, value.get("cursor") or value.get("from"), json.dumps(value))


class SocketReader:
    """Reads one session; the raw text of each event is cut out of its batch."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self._items: list[Item] = []

    async def next(self) -> Item:
        while not self._items:
            with trio.fail_after(PATIENCE):
                text = await self.socket.ws.get_message()
            assert isinstance(text, str)
            frame = json.loads(text)
            op = frame.pop("op")
            if op == "reply":
                self._items.append(Item("open", frame["result"]["cursor"], "{}"))
            elif op == "events":
                epoch = Cursor.parse(frame["cursor"]).epoch
                start = text.index('"events":[') + len('"events":[')
                for event in frame["events"]:
                    _, end = json.JSONDecoder().raw_decode(text, start)
                    at = str(Cursor(epoch, event["offset"])) if "offset" in event else None
                    self._items.append(Item("event", at, text[start:end]))
                    start = end + 1
                assert self._items[-1].cursor in (frame["cursor"], None)
            else:
                self._items.append(Item(op, frame.get("cursor") or frame.get("from"), json.dumps(frame)))
        return self._items.pop(0)


Reader = SseReader | NdjsonReader | SocketReader


@asynccontextmanager
async def following(
    world: Penstock,
    form: str,
    session_id: str = "s",
    *,
    after: str | None = None,
    snapshot: bool = False,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Reader]:
    if form == "websocket":
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        async with world.socket(headers=raw) as socket:
            asked: dict[str, object] = {"op": "subscribe", "id": 1, "session_id": session_id}
            if after is not None:
                asked["after"] = after
            if snapshot:
                asked["snapshot"] = True
            await socket.send(**asked)
            yield SocketReader(socket)
        return
    query = "&".join(
        [*([] if after is None else [f"after={after}"]), *(["snapshot=true"] if snapshot else [])],
    )
    form, _, version = form.partition(" ")
    accept = "application/x-ndjson" if form == "ndjson" else "text/event-stream"
    path = f"/v1/sessions/{session_id}/events?{query}"
    async with world.lines(path, version=version or "1.1", accept=accept, **headers) as lines:
        assert lines.status == 200, lines.headers
        assert ("transfer-encoding" in lines.headers) == (not version)
        yield NdjsonReader(lines) if form == "ndjson" else SseReader(lines)


async def until(reader: Reader, kind: str) -> list[Item]:
    """The items up to the first of this kind, with it. Who is here is told behind each `caught-up`, and taken too."""
    items = [await reader.next()]
    while items[-1].kind != kind:
        items.append(await reader.next())
    if kind == "caught-up":
        told = await reader.next()
        assert (told.kind, told.value["presence"], told.cursor) == ("presence", [], None)
    return items


async def until_event(reader: Reader, type_: str) -> list[Item]:
    """The items up to the first event of this type, with it."""
    items = [await reader.next()]
    while items[-1].kind != "event" or items[-1].value["type"] != type_:
        items.append(await reader.next())
    return items


def events(items: list[Item]) -> list[Item]:
    return [item for item in items if item.kind == "event"]


async def logged(log: MemoryLog, session_id: str = "s") -> list[Item]:
    """The log as a reader should get it."""
    head = await log.head(session_id)
    assert head is not None
    entries = await log.read(session_id, head.epoch, after=0, limit=100_000, max_bytes=1 << 30)
    return [Item("event", str(Cursor(head.epoch, entry.offset)), entry.body.decode()) for entry in entries]


@asynccontextmanager
async def one_answer(log: MemoryLog, *, heartbeat: float = 15.0) -> AsyncIterator[Penstock]:
    """A world whose session ``s`` holds one finished answer."""
    producers = {"says": saying("one ", "two ", "three")}
    async with penstock(log, producers=producers, heartbeat=heartbeat) as world:
        session = await world.engine.create_session("s")
        await session.start("says", text="count ✓")
        async with session.subscribe() as subscription:
            async for event in subscription:
                if event.type == "generation.finished":
                    break
        yield world


#
@each_form
async def test_replay_gives_the_log_byte_for_byte_and_then_the_tail(form: str) -> None:
    log = MemoryLog()
    async with one_answer(log) as world, following(world, form) as reader:
        before = await until(reader, "caught-up")
        whole = await logged(log)
        assert events(before) == whole
        assert before[0].kind == "open"
        assert before[0].cursor == str(Cursor(Cursor.parse(whole[0].cursor or "").epoch, 0))
        assert before[-1].cursor == whole[-1].cursor
        session = await world.engine.session("s")
        await session.start("says")
        live = await until_event(reader, "generation.finished")
        assert events(before) + events(live) == await logged(log)


#
# any cursor resumes with exactly what follows it.
@each_form
async def test_every_cursor_resumes_with_exactly_the_rest(form: str) -> None:
    log = MemoryLog()
    async with one_answer(log) as world:
        whole = await logged(log)
        for cut, item in enumerate(whole, start=1):
            async with following(world, form, after=item.cursor) as reader:
                rest = await until(reader, "caught-up")
                assert rest[0].cursor == item.cursor
                assert events(rest) == whole[cut:]


#
@each_form
async def test_now_begins_at_the_tail(form: str) -> None:
    log = MemoryLog()
    async with one_answer(log) as world, following(world, form, after="now") as reader:
        before = await until(reader, "caught-up")
        whole = await logged(log)
        assert [item.kind for item in before] == ["open", "caught-up"]
        assert before[0].cursor == whole[-1].cursor
        await (await world.engine.session("s")).post("more")
        assert (await reader.next()).value["type"] == "message.snapshot"


#
@each_form
async def test_a_snapshot_comes_first_and_the_stream_goes_on_from_its_cursor(form: str) -> None:
    log = MemoryLog()
    async with one_answer(log) as world, world.client() as client, following(world, form, snapshot=True) as reader:
        before = await until(reader, "caught-up")
        assert [item.kind for item in before] == ["open", "snapshot", "caught-up"]
        shown = (await client.get("/v1/sessions/s")).json()
        assert before[1].value == shown
        assert {item.cursor for item in before} == {shown["cursor"]}
        await (await world.engine.session("s")).post("more")
        assert (await reader.next()).value["offset"] == Cursor.parse(shown["cursor"]).offset + 1


@each_form
async def test_a_cursor_of_another_life_is_a_gap_and_then_the_whole_new_life(form: str) -> None:
    log = MemoryLog()
    async with one_answer(log) as world:
        old = (await logged(log))[-1].cursor
        session = await world.engine.session("s")
        await session.delete()
        await world.engine.create_session("s")
        async with following(world, form, after=old) as reader:
            items = await until(reader, "caught-up")
            assert [item.kind for item in items] == ["open", "gap", "event", "caught-up"]
            assert items[0].cursor == items[1].cursor
            gap = items[1].value
            assert (gap["reason"], gap["asked"], gap["from"]) == ("unknown_epoch", old, items[1].cursor)
            assert events(items) == await logged(log)


@each_form
async def test_a_cursor_past_the_tail_is_a_gap_and_then_the_tail(form: str) -> None:
    log = MemoryLog()
    async with one_answer(log) as world:
        tail = Cursor.parse((await logged(log))[-1].cursor or "")
        async with following(world, form, after=str(Cursor(tail.epoch, tail.offset + 5))) as reader:
            items = await until(reader, "caught-up")
            assert [item.kind for item in items] == ["open", "gap", "caught-up"]
            assert items[1].value["reason"] == "past_tail"
            assert items[1].value["from"] == str(tail)


@pytest.mark.parametrize("cursor", ["x", "-", "abc-1", "abc-00000000000000001", "ü-0000000000000001", "now-", ""])
@each_form
async def test_a_malformed_cursor_is_refused(form: str, cursor: str) -> None:
    async with one_answer(MemoryLog()) as world, world.client() as client, world.socket() as socket:
        if form == "websocket":
            answer = await socket.ask(op="subscribe", id=1, session_id="s", after=cursor)
            assert answer["op"] == "error"
            problem = answer["error"]
        else:
            accept = {"Accept": "application/x-ndjson" if form.startswith("ndjson") else "text/event-stream"}
            response = await client.get("/v1/sessions/s/events", params={"after": cursor}, headers=accept)
            assert response.status_code == 400
            problem = response.json()
        assert isinstance(problem, dict)
        assert (problem["code"], problem["session_id"]) == ("INVALID_CURSOR", "s")


# R-8 R-138: two sessions at once, over every form at once; nobody gets an event of the other.
async def test_sessions_do_not_mix() -> None:
    log = MemoryLog()
    producers: dict[str, Producer] = {name: saying(*[name] * 50, pause=0.001) for name in ("left", "right")}
    async with penstock(log, producers=producers) as world, AsyncExitStack() as stack:
        got: dict[tuple[str, str], list[Item]] = {}
        for name in producers:
            await world.engine.create_session(name)

        async def read(form: str, name: str, reader: Reader) -> None:
            got[form, name] = await until_event(reader, "generation.finished")

        readers = [
            (form, name, await stack.enter_async_context(following(world, form, name)))
            for form in FORMS
            for name in producers
        ]
        async with trio.open_nursery() as nursery:
            for form, name, reader in readers:
                nursery.start_soon(read, form, name, reader)
            for name in producers:
                await (await world.engine.session(name)).start(name)
        for (_, name), items in got.items():
            assert events(items) == await logged(log, name)


@each_form
async def test_deleting_a_session_ends_its_streams(form: str) -> None:
    async with one_answer(MemoryLog()) as world, following(world, form) as reader:
        await until(reader, "caught-up")
        await (await world.engine.session("s")).delete()
        assert (await until(reader, "end"))[-1].value["reason"]
        if form != "websocket":
            with pytest.raises(EOFError):
                await reader.next()


@each_form
async def test_shutdown_ends_the_answer_then_the_stream_then_the_server(form: str) -> None:
    producer = Steered()
    async with penstock(producers={"steered": producer}) as world:
        async with following_new(world, form) as reader:
            await (await world.engine.session("s")).start("steered")
            await until_event(reader, "block.delta")
            world.served.shutdown.set()
            finished = (await until_event(reader, "generation.finished"))[-1].value
            assert _object(finished["data"])["outcome"] == "shutdown"
            assert (await reader.next()).kind == "drain"
            if isinstance(reader, SocketReader):
                assert await reader.socket.closed() == 1001
            else:
                with pytest.raises(EOFError):
                    await reader.next()
        with trio.fail_after(PATIENCE):
            await world.served.finished.wait()


#
# the next process gives exactly what the reader has not had.
@each_form
async def test_after_a_shutdown_the_next_server_goes_on_at_the_readers_cursor(form: str) -> None:
    log, producer = MemoryLog(), Steered()
    async with penstock(log, producers={"steered": producer}) as world, following_new(world, form) as reader:
        await (await world.engine.session("s")).start("steered")
        seen = await until_event(reader, "block.delta")
        world.served.shutdown.set()
        await until(reader, "drain")
        left = await copied(log)
    async with penstock(left, producers={"says": saying("more")}) as world:
        async with following(world, form, after=seen[-1].cursor) as reader:
            rest = await until(reader, "caught-up")
            await (await world.engine.session("s")).start("says")
            more = await until_event(reader, "generation.finished")
        whole = await logged(left)
        at = [item.cursor for item in whole].index(seen[-1].cursor)
        assert events(rest) + events(more) == whole[at + 1 :]
        assert not [item for item in rest if item.kind == "gap"]


# A token that ends while much is being said: nothing is read behind its end, and a new one loses nothing.
@some_forms
async def test_a_stream_ends_with_its_token_and_a_new_token_resumes_it(form: str) -> None:
    log = MemoryLog()
    producers = {"says": saying(*["word "] * 150, pause=0.01)}
    async with penstock(log, producers=producers, identity=identity()) as world:
        session = await world.engine.create_session("s")
        await session.start("says")
        async with session.subscribe() as said:
            async for event in said:
                if event.offset == 15:
                    break
        seen: list[Item] = []
        async with following(world, form, headers=bearer(token(["s"], ["read"], lasts=0.5))) as reader:
            while not seen or seen[-1].kind not in ("drain", "error"):
                seen.append(await reader.next())
            if isinstance(reader, SocketReader):
                assert _object(seen[-1].value["error"])["code"] == "UNAUTHENTICATED"
                assert await reader.socket.closed() == 4401
            else:
                assert (seen[-1].kind, seen[-1].value["reason"]) == ("drain", "token-expired")
                with pytest.raises(EOFError):
                    await reader.next()
        had = events(seen)
        assert len(had) > 10, "it was at work"
        last = had[-1].cursor
        async with following(world, form, after=last, headers=bearer(token(["s"], ["read"]))) as reader:
            rest = await until_event(reader, "generation.finished")
        assert not [item for item in rest if item.kind == "gap"]
        assert had + events(rest) == await logged(log)


#
@each_form
async def test_a_disk_that_fails_is_told_and_what_is_stored_later_comes(form: str) -> None:
    log = FaultyLog(MemoryLog())
    async with penstock(log) as world, following_new(world, form) as reader:
        session = await world.engine.session("s")
        log.schedule = lambda _, __: Fail()
        with pytest.raises(WriteFailed):
            await session.post("lost")
        assert (await until(reader, "degraded"))[-1].value["code"] == "WRITE_FAILED"
        log.schedule = None
        with trio.fail_after(PATIENCE):
            while world.engine.degraded:  # noqa: ASYNC110  # nobody tells
                await trio.sleep(0.01)
        await session.post("kept")
        assert "kept" in (await until_event(reader, "message.snapshot"))[-1].text


@each_form
async def test_readers_of_a_session_that_cannot_be_read_hear_the_end(form: str) -> None:
    """Whoever follows it when it is found out, and whoever comes to the damage; who comes later is refused."""
    log = MemoryLog()
    async with penstock(log) as world, following_new(world, form) as reader:
        session = await world.engine.session("s")
        posted = await session.post("damaged")
        log._lives["s"].entries[-1] = Entry(posted.cursor.offset, b"nonsense")
        with pytest.raises(CorruptSession):
            await session.snapshot()
        assert (await until(reader, "end"))[-1].value["reason"] == "corrupt"
    async with penstock(await copied(log)) as world:
        async with following(world, form) as reader:
            assert (await until(reader, "end"))[-1].value["reason"] == "corrupt"
        async with world.client() as client:
            answer = await client.get("/v1/sessions/s/events")
            assert (answer.status_code, answer.json()["code"]) == (500, "CORRUPT_SESSION")


def _object(value: object) -> dict[str, object]:
    assert isinstance(value, dict)
    return value


@asynccontextmanager
async def following_new(world: Penstock, form: str) -> AsyncIterator[Reader]:
    await world.engine.create_session("s")
    async with following(world, form) as reader:
        await until(reader, "caught-up")
        yield reader


async def subscribers(world: Penstock, count: int) -> None:
    """Wait until so many are left; nobody tells when one leaves."""
    with trio.fail_after(PATIENCE):
        while world.engine.statistics().subscribers != count:  # noqa: ASYNC110
            await trio.sleep(0.01)


def firehose(count: int) -> Producer:
    """Says ``count`` KiB as fast as it is let."""

    async def producer(generation: Generation) -> None:
        async with generation.message() as message, message.text() as block:
            for _ in range(count // 8):
                await block.write("x" * 8192)

    return producer


# a reader that stops reading costs nobody else anything, is cut, and resumes by its cursor.
@some_forms
async def test_a_reader_that_stops_reading_is_cut_and_resumes_by_its_cursor(form: str) -> None:
    log = MemoryLog()
    config = ServerConfig(send_timeout=1.5)  # who reads must not be taken for one of these on a busy machine
    async with penstock(log, producers={"hose": firehose(20_000)}, server=config) as world:
        session = await world.engine.create_session("s")
        async with following_new(world, "ndjson") as other, following_new(world, form) as stalled:
            stream = stalled.socket.stream if isinstance(stalled, SocketReader) else stalled.lines.stream
            stream.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_RCVBUF, 4096)
            await session.start("hose")
            read = events(await until_event(other, "generation.finished"))
            await subscribers(world, 1)
        whole = await logged(log)
        assert whole[-len(read) :] == read, "the other reader got everything"
        async with following(world, form, after=whole[100].cursor) as again:
            assert events(await until_event(again, "generation.finished")) == whole[101:]


# a reader that is slow, but reads, loses time and never an event, and holds up nobody.
@each_form
async def test_a_slow_reader_goes_back_to_the_log_and_misses_nothing(form: str) -> None:
    log = MemoryLog()
    config = Config(subscriber_buffer=16)
    async with penstock(log, producers={"hose": firehose(8_000)}, config=config) as world:
        session = await world.engine.create_session("s")
        async with following_new(world, form) as slow, following_new(world, "ndjson") as other:
            stream = slow.socket.stream if isinstance(slow, SocketReader) else slow.lines.stream
            stream.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_RCVBUF, 256 * 1024)
            await session.start("hose")
            await until_event(other, "generation.finished")
            assert (await session.snapshot()).generation is None, "the producer did not wait for the slow one"
            assert world.engine.statistics().subscribers == 2, "which is still there"
            late = await until_event(slow, "generation.finished")
        assert {item.kind for item in late} <= {"event", "caught-up", "presence"}
        assert events(late) == (await logged(log))[1:]


@pytest.mark.parametrize("form", ["sse", "ndjson"])
async def test_a_silent_stream_says_that_it_lives(form: str) -> None:
    accept = "application/x-ndjson" if form == "ndjson" else "text/event-stream"
    path = "/v1/sessions/s/events?after=now"
    async with one_answer(MemoryLog(), heartbeat=0.05) as world, world.lines(path, accept=accept) as lines:
        beat = "" if form == "ndjson" else ": ping"
        while "caught-up" not in await lines.next():
            pass
        seen = [await lines.next() for _ in range(12)]
        assert seen.count(beat) >= 3


@pytest.mark.parametrize(("own", "asked", "most"), [(15.0, 1, 1.9), (0.05, 60, 0.5)])
async def test_a_stream_says_so_as_often_as_it_is_asked_to_and_no_less_than_ever(
    own: float, asked: int, most: float
) -> None:
    path = f"/v1/sessions/s/events?after=now&heartbeat={asked}"
    async with one_answer(MemoryLog(), heartbeat=own) as world, world.lines(path, accept="text/event-stream") as lines:
        while "caught-up" not in await lines.next():
            pass
        begun = trio.current_time()
        while await lines.next() != ": ping":
            pass
        assert trio.current_time() - begun < most


@pytest.mark.parametrize("form", ["sse", "ndjson"])
async def test_without_live_the_stream_ends_at_the_tail(form: str) -> None:
    log = MemoryLog()
    accept = "application/x-ndjson" if form == "ndjson" else "text/event-stream"
    path = "/v1/sessions/s/events?live=false"
    async with one_answer(log) as world, world.lines(path, accept=accept) as lines:
        reader: Reader = NdjsonReader(lines) if form == "ndjson" else SseReader(lines)
        assert events(await until(reader, "caught-up")) == await logged(log)
        with pytest.raises(EOFError):
            await reader.next()


async def test_a_stream_that_has_ended_leaves_its_connection_to_the_next_request() -> None:
    log = MemoryLog()
    async with one_answer(log) as world, await world.served.connect() as stream:
        for _ in range(3):
            await stream.send_all(b"GET /v1/sessions/s/events?live=false HTTP/1.1\r\nHost: localhost\r\n\r\n")
            lines = Lines(stream)
            await lines.open()
            assert events(await until(SseReader(lines), "caught-up")) == await logged(log)
            with pytest.raises(EOFError):
                await lines.next()
            assert lines.ended


def held_back(app: ASGIFramework) -> ASGIFramework:
    """A middleware that sends the head with the first piece of the body, as compressors do."""

    async def wrapped(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        head: list[ASGISendEvent] = []

        async def hold(message: ASGISendEvent) -> None:
            if message["type"] == "http.response.start":
                head.append(message)
                return
            while head:
                await send(head.pop())
            await send(message)

        await app(scope, receive, hold)

    return wrapped


def shouting(app: ASGIFramework) -> ASGIFramework:
    """A middleware that changes the body."""

    async def wrapped(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        async def shout(message: ASGISendEvent) -> None:
            if message["type"] == "http.response.body":
                message["body"] = message["body"].upper()
            await send(message)

        await app(scope, receive, shout)

    return wrapped


@pytest.mark.parametrize(("middleware", "changes"), [(held_back, False), (shouting, True)])
async def test_a_middleware_sees_the_stream_and_may_change_it(
    middleware: Callable[[ASGIFramework], ASGIFramework], changes: bool
) -> None:
    async with open_engine(MemoryLog()) as engine:
        await (await engine.create_session("s")).post("hello")
        app = middleware(create_app(engine))
        async with serving(app, websocket_handler(engine), drain=engine.drain) as served:
            answer = await served.get("/v1/sessions/s/events?live=false")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert (b'"TEXT":"HELLO"' in body, b'"text":"hello"' in body) == (changes, not changes)
    assert body.endswith(b"\r\n0\r\n\r\n")


async def test_a_hook_that_is_added_later_sees_the_stream() -> None:
    async with open_engine(MemoryLog()) as engine:
        await (await engine.create_session("s")).post("hello")
        app = create_app(engine)
        seen: list[bytes] = []

        @app.after_request
        async def look(response: Response) -> Response:
            seen.append(await response.get_data(as_text=False))
            return response

        async with serving(app, websocket_handler(engine), drain=engine.drain) as served:
            answer = await served.get("/v1/sessions/s/events?live=false")
    assert b'"text":"hello"' in answer
    assert b'"text":"hello"' in seen[0]


async def test_last_event_id_overrides_the_query() -> None:
    log = MemoryLog()
    async with one_answer(log) as world:
        whole = await logged(log)
        path = f"/v1/sessions/s/events?after={whole[0].cursor}"
        async with world.lines(path, last_event_id=whole[3].cursor or "") as lines:
            assert events(await until(SseReader(lines), "caught-up")) == whole[4:]
        async with world.lines(path, last_event_id="now") as lines:
            assert lines.status == 400


async def test_the_stream_is_not_cached_nor_buffered_and_begins_at_once() -> None:
    async with one_answer(MemoryLog()) as world, world.lines("/v1/sessions/s/events?after=now") as lines:
        assert lines.headers["content-type"] == "text/event-stream"
        assert lines.headers["cache-control"] == "no-store"
        assert lines.headers["x-accel-buffering"] == "no"
        assert (await lines.next()).startswith("id: ")
        assert await lines.next() == ""


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("*/*", "text/event-stream"),
        ("text/html", "text/event-stream"),
        ("application/x-ndjson, text/event-stream;q=0.5", "application/x-ndjson"),
        ("application/x-ndjson;q=0.5, text/event-stream", "text/event-stream"),
        ("application/x-ndjson, */*;q=0.1", "application/x-ndjson"),
    ],
)
async def test_the_form_is_chosen_by_accept(accept: str, form: str) -> None:
    async with one_answer(MemoryLog()) as world, world.lines("/v1/sessions/s/events", accept=accept) as lines:
        assert lines.headers["content-type"] == form


@pytest.mark.parametrize("query", ["live=no", "live=", "snapshot=1", "snapshot=True"])
async def test_a_flag_is_true_or_false(query: str) -> None:
    async with one_answer(MemoryLog()) as world, world.client() as client:
        response = await client.get(f"/v1/sessions/s/events?{query}")
        assert (response.status_code, response.json()["code"]) == (400, "INVALID_BODY")


#
async def test_a_reader_that_leaves_is_forgotten_at_once() -> None:
    """And the answer that it was following goes on."""
    async with one_answer(MemoryLog()) as world:
        session = await world.engine.session("s")
        answer = Steered()
        await session.start(answer)
        for form in FORMS:
            async with following(world, form) as reader:
                await until(reader, "caught-up")
                assert world.engine.statistics().subscribers == 1
            await subscribers(world, 0)
        async with following(world, "sse", after="now") as reader:
            await until(reader, "caught-up")
            answer.finish.set()
            (*_, end) = await until_event(reader, "generation.finished")
            assert end.value["data"] == {"outcome": "completed"}
        assert not answer.cancelled.is_set()
