"""Every error code there is, provoked for real: over HTTP, over WebSocket, and as a close code.

One table says how each comes about. A code of `penstock.adapters.problems.TABLE` that nothing here provokes fails a
test, so that nobody adds one without saying how a client gets to see it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import pytest
import trio
import trio_websocket
from attrs import field, frozen

from penstock.adapters.access import OPEN, Identity
from penstock.adapters.http import create_app
from penstock.adapters.problems import TABLE, Row
from penstock.adapters.server.accept import ServerConfig
from penstock.adapters.server.limits import UNLIMITED, Limits, LimitsConfig
from penstock.adapters.watching.logs import log_handler
from penstock.adapters.websocket import SocketConfig, websocket_handler
from penstock.engine import (
    Chunk,
    Claim,
    Compact,
    Config,
    CorruptSession,
    EventLog,
    MemoryLog,
    ProducerStamp,
    Session,
    StoreAway,
    is_uuid,
    open_engine,
)
from tests.adapters.credentials import bearer, identity, token
from tests.adapters.serving import PATIENCE, Penstock, Socket, read_to_end, serving
from tests.engine.faulty import Fail, FaultyLog, Hold
from tests.engine.producers import Steered, saying

Json = dict[str, Any]

S: Final = "/v1/sessions/s"
GID: Final = "0198c0de-7a11-7abc-8def-0123456789ab"
OTHER: Final = "0198c0de-7a12-7abc-8def-0123456789ab"
MID: Final = "0198c0de-7a21-7abc-8def-0123456789ab"

# What only the inside knows: it stands in what is raised, and in no answer.
INSIDE: Final = "/secret/inside"

# What else never stands in an answer.
LEAKS: Final = (
    *(INSIDE, "Traceback", 'File "', ".py", "/work", "site-packages", "sqlite", "schedule", "Error(", " object at "),
)


class World:
    """A server with the session `s`, as a row of the table sets it up."""

    def __init__(self, served: Penstock, log: FaultyLog, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
        self.served = served
        self.engine = served.engine
        self.log = log
        self.session = session
        self.monkeypatch = monkeypatch
        self.over = trio.Event()

    async def live(self) -> None:
        """Have a generation live, and at work."""
        producer = Steered()
        await self.session.start(producer, generation_id=GID)
        await producer.started.wait()

    async def chunk(self, stamp: ProducerStamp | None = None) -> None:
        """Have a remote generation live."""
        await self.session.chunks([Chunk(generation_id=GID, message_id=MID, data={"text": "a"})], stamp=stamp)


Setup = Callable[[World], Awaitable[None]]


@frozen(kw_only=True)
class Provocation:
    """A request that is answered with ``code``, and the frame that is; ``ids`` are those that the answer names."""

    code: str
    http: tuple[str, str]
    body: Any = None
    headers: Mapping[str, str] = field(factory=dict)
    frame: Json | None = None
    ids: Json = field(factory=lambda: {"session_id": "s"})
    more: frozenset[str] = frozenset()  # what else the problem says
    before: Setup | None = None
    config: Config | None = None
    identity: Identity = OPEN
    limits: LimitsConfig = UNLIMITED
    owner: str | None = None


async def _steered(world: World) -> None:
    await world.live()


async def _remote(world: World) -> None:
    await world.chunk(ProducerStamp("p", 5, 0))


async def _finished(world: World) -> None:
    await world.chunk()
    await world.session.finish(GID)


async def _posted(world: World) -> None:
    await world.session.post("one thing", message_id=MID)


async def _keyed(world: World) -> None:
    await world.session.start("says", idempotency_key="k")


async def _deleted(world: World) -> None:
    await world.session.delete()


async def _damaged(world: World) -> None:
    cursor = await world.session.cursor()
    await world.log.write(Compact(session_id="s", epoch=cursor.epoch, replace={cursor.offset: INSIDE.encode()}))
    with pytest.raises(CorruptSession):
        await world.session.snapshot()


async def _queue_full(world: World) -> None:
    await world.live()
    await world.session.start("says", policy="queue")


async def _straggling(world: World) -> None:
    stubborn = Steered(shield=60.0)
    stubborn.let_go = world.over
    await world.session.start(stubborn)
    await stubborn.started.wait()
    assert (await world.session.stop()).state == "stopping"


async def _disk_full(world: World) -> None:
    world.log.schedule = lambda _, __: Fail()


async def _disk_full_at_the_end(world: World) -> None:
    await world.chunk()
    world.log.schedule = lambda _, __: Fail()


async def _disk_hangs(world: World) -> None:
    hold = Hold()
    world.log.schedule = lambda _, __: hold


async def _bug(world: World) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise ValueError(INSIDE)

    world.monkeypatch.setattr(Session, "stop", fail)


async def _draining(world: World) -> None:
    await world.engine.drain()


async def _moved(world: World) -> None:
    await world.live()
    head = await world.log.head("s")
    assert head is not None
    await world.log.inner.write(Claim(session_id="s", epoch=head.epoch, seen=head.token, owner="another"))


async def _store_away(world: World) -> None:
    async def away(*_: object, **__: object) -> None:
        raise StoreAway("the store has been away for 10 s")

    world.monkeypatch.setattr(world.log, "head", away)


async def _crowded(world: World) -> None:
    await world.session.put_presence("ann", "phone")


LATE: Final[Json] = {"generation_id": GID, "data": {"text": "x"}}
SESSION_AND_GENERATION: Final = {"session_id": "s", "generation_id": GID}

PROVOCATIONS: Final = [
    Provocation(
        code="INVALID_BODY",
        http=("POST", f"{S}/messages"),
        body={"txt": "x"},
        frame={"op": "post", "txt": "x"},
    ),
    Provocation(
        code="INVALID_CURSOR",
        http=("GET", f"{S}/events?after=yesterday"),
        frame={"op": "subscribe", "after": "yesterday"},
    ),
    Provocation(
        code="INVALID_ID",
        http=("POST", f"{S}/stop"),
        body={"generation_id": "x"},
        frame={"op": "stop", "generation_id": "x"},
    ),
    Provocation(
        code="UNAUTHENTICATED",
        http=("GET", S),
        frame={"op": "subscribe"},
        ids={},
        identity=identity(),
    ),
    Provocation(
        code="FORBIDDEN",
        http=("POST", f"{S}/stop"),
        headers=bearer(token(["another"])),
        frame={"op": "stop"},
        identity=identity(),
    ),
    Provocation(code="ORIGIN_REFUSED", http=("POST", f"{S}/stop"), headers={"Origin": "https://evil.example"}),
    Provocation(code="NOT_FOUND", http=("GET", f"{S}/nothing")),
    Provocation(
        code="SESSION_NOT_FOUND",
        http=("POST", "/v1/sessions/no/stop"),
        frame={"op": "stop", "session_id": "no"},
        ids={"session_id": "no"},
    ),
    Provocation(
        code="GENERATION_NOT_FOUND",
        http=("POST", f"{S}/generations/{GID}/inputs"),
        body={"kind": "steer"},
        frame={"op": "input", "generation_id": GID, "kind": "steer"},
        ids=SESSION_AND_GENERATION,
    ),
    Provocation(
        code="MESSAGE_NOT_FOUND",
        http=("POST", f"{S}/generations"),
        body={"replaces": MID},
        frame={"op": "start", "replaces": MID},
        ids={"session_id": "s", "message_id": MID},
    ),
    Provocation(
        code="PRODUCER_NOT_FOUND",
        http=("POST", f"{S}/generations"),
        body={"producer": "nobody"},
        frame={"op": "start", "producer": "nobody"},
    ),
    Provocation(
        code="APPROVAL_NOT_FOUND",
        http=("POST", f"{S}/generations/{GID}/inputs"),
        body={"kind": "approval", "approval_id": "never", "approved": True},
        frame={"op": "input", "generation_id": GID, "kind": "approval", "approval_id": "never", "approved": True},
        ids=SESSION_AND_GENERATION,
        before=_steered,
    ),
    Provocation(code="METHOD_NOT_ALLOWED", http=("PUT", f"{S}/stop")),
    Provocation(
        code="GENERATION_ACTIVE",
        http=("POST", f"{S}/generations"),
        body={"policy": "reject"},
        frame={"op": "start", "policy": "reject"},
        ids=SESSION_AND_GENERATION,
        before=_steered,
    ),
    Provocation(
        code="GENERATION_MISMATCH",
        http=("POST", f"{S}/chunks"),
        body={"generation_id": OTHER, "data": {"text": "x"}},
        frame={"op": "chunks", "chunks": [{"generation_id": OTHER, "data": {"text": "x"}}]},
        ids={"session_id": "s", "generation_id": OTHER},
        before=_steered,
    ),
    Provocation(
        code="STALE_GENERATION",
        http=("POST", f"{S}/chunks"),
        body=LATE,
        frame={"op": "chunks", "chunks": [LATE]},
        ids=SESSION_AND_GENERATION,
        before=_finished,
    ),
    Provocation(
        code="STALE_PRODUCER",
        http=("POST", f"{S}/chunks"),
        body=LATE,
        headers={"Producer-Id": "p", "Producer-Epoch": "4", "Producer-Seq": "1"},
        frame={"op": "chunks", "chunks": [LATE], "producer_id": "p", "producer_epoch": 4, "producer_seq": 1},
        ids=SESSION_AND_GENERATION,
        more=frozenset({"epoch"}),
        before=_remote,
    ),
    Provocation(
        code="SEQUENCE_GAP",
        http=("POST", f"{S}/chunks"),
        body={**LATE, "message_id": MID, "seq": 7},
        frame={"op": "chunks", "chunks": [{**LATE, "message_id": MID, "seq": 7}]},
        ids={**SESSION_AND_GENERATION, "message_id": MID},
        more=frozenset({"expected"}),
        before=_remote,
    ),
    Provocation(
        code="ID_IN_USE",
        http=("POST", f"{S}/messages"),
        body={"text": "another thing", "message_id": MID},
        frame={"op": "post", "text": "another thing", "message_id": MID},
        ids={"session_id": "s", "message_id": MID},
        before=_posted,
    ),
    Provocation(
        code="IDEMPOTENCY_CONFLICT",
        http=("POST", f"{S}/generations"),
        body={"text": "another thing"},
        headers={"Idempotency-Key": "k"},
        frame={"op": "start", "text": "another thing", "idempotency_key": "k"},
        before=_keyed,
    ),
    Provocation(code="SESSION_DELETED", http=("POST", f"{S}/stop"), frame={"op": "stop"}, before=_deleted),
    Provocation(code="BODY_TOO_LARGE", http=("POST", f"{S}/messages"), body={"text": "x" * (1 << 20)}),
    Provocation(
        code="RATE_LIMITED",
        http=("POST", f"{S}/stop"),
        headers=bearer(token()),
        frame={"op": "stop"},
        identity=identity(),
        limits=LimitsConfig(rate=0.01, burst=1),
    ),
    Provocation(
        code="QUEUE_FULL",
        http=("POST", f"{S}/generations"),
        body={"policy": "queue"},
        frame={"op": "start", "policy": "queue"},
        before=_queue_full,
        config=Config(queue_limit=1),
    ),
    Provocation(
        code="TOO_MANY_STRAGGLERS",
        http=("POST", f"{S}/generations"),
        frame={"op": "start"},
        before=_straggling,
        config=Config(cleanup_timeout=0.05, max_stragglers=1),
    ),
    Provocation(
        code="WRITE_FAILED",
        http=("POST", f"{S}/messages"),
        body={"text": "x"},
        frame={"op": "post", "text": "x"},
        before=_disk_full,
    ),
    Provocation(
        code="FINISH_FAILED",
        http=("POST", f"{S}/generations/{GID}/finish"),
        frame={"op": "finish", "generation_id": GID},
        ids=SESSION_AND_GENERATION,
        before=_disk_full_at_the_end,
    ),
    Provocation(
        code="CORRUPT_SESSION",
        http=("POST", f"{S}/messages"),
        body={"text": "x"},
        frame={"op": "post", "text": "x"},
        before=_damaged,
    ),
    Provocation(code="INTERNAL", http=("POST", f"{S}/stop"), frame={"op": "stop"}, before=_bug),
    Provocation(code="DRAINING", http=("POST", f"{S}/generations"), frame={"op": "start"}, before=_draining),
    Provocation(
        code="SESSION_MOVED",
        http=("POST", f"{S}/messages"),
        body={"text": "x"},
        frame={"op": "post", "text": "x"},
        before=_moved,
        owner="this",
    ),
    Provocation(
        code="STORE_AWAY",
        http=("GET", "/v1/sessions/t"),
        frame={"op": "post", "session_id": "t", "text": "x"},
        ids={"session_id": "t"},
        before=_store_away,
    ),
    Provocation(
        code="OVERLOADED",
        http=("PUT", f"{S}/presence/bob/phone"),
        frame={"op": "presence", "actor_id": "bob", "device_id": "phone"},
        before=_crowded,
        config=Config(presence_limit=1),
    ),
    Provocation(
        code="TIMEOUT",
        http=("POST", f"{S}/messages"),
        body={"text": "x"},
        frame={"op": "post", "text": "x"},
        before=_disk_hangs,
        config=Config(flush_timeout=0.1),
    ),
]

# What no frame is refused with, and why.
NO_FRAME: Final = {
    "ORIGIN_REFUSED": "the handshake is",
    "NOT_FOUND": "a socket has one path",
    "METHOD_NOT_ALLOWED": "and no methods",
    "BODY_TOO_LARGE": "the socket is closed",
}

# Close codes that no socket is closed with, and what is said instead.
NO_CLOSE: Final = {
    "INVALID_BODY": "a bad frame is answered; a handshake with other subprotocols gets 400",
    "FORBIDDEN": "a command is answered",
    "ORIGIN_REFUSED": "the handshake gets 403",
    "OVERLOADED": "the handshake, or the connection, gets 503",
}


@asynccontextmanager
async def world(row: Provocation, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    inner: EventLog = MemoryLog()
    log, limits = FaultyLog(inner), Limits(row.limits)
    async with open_engine(log, producers={"says": saying("x")}, config=row.config, owner=row.owner) as engine:
        app = create_app(engine, identity=row.identity, limits=limits)
        handler = websocket_handler(engine, identity=row.identity, limits=limits)
        session = await engine.create_session("s")
        async with serving(app, handler, drain=engine.drain) as served:
            made = World(Penstock(engine, served), log, session, monkeypatch)
            if row.before is not None:
                await row.before(made)
            yield made
            made.over.set()
            monkeypatch.undo()
            log.schedule = None
            for hold in log._holds:
                hold.release()


def check_problem(problem: Json, text: str, row: Provocation) -> None:
    """Hold one against the table."""
    told: Row = TABLE[row.code]
    assert problem["code"] == row.code, problem
    assert (problem["type"], problem["title"]) == (f"urn:penstock:problem:{row.code}", told.title)
    assert (problem["status"], problem["retryable"]) == (told.status, told.retryable)
    assert isinstance(problem["detail"], str)
    assert problem["detail"]
    ids = {name: problem[name] for name in ("session_id", "generation_id", "message_id") if name in problem}
    assert ids == row.ids
    again = {"retry_after"} if TABLE[row.code].status in (429, 503) else set()
    assert problem.keys() - ids.keys() == {"type", "title", "status", "code", "detail", "retryable"} | row.more | again
    assert not [leak for leak in LEAKS if leak in text], text


Records = Callable[[], list[Json]]


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Records:
    """What is logged, with the request's id as the handlers see it."""
    caplog.set_level(logging.DEBUG, "penstock")
    for each in log_handler("json").filters:
        caplog.handler.addFilter(each)
    return lambda: [vars(record) for record in caplog.records]


def check_logged(records: Records, request_id: str, row: Provocation) -> None:
    """A refusal is in the log, under its request and with its ids; what went wrong inside at a level that is seen."""
    own = [record for record in records() if record.get("request_id") == request_id]
    if row.code == "INTERNAL":
        assert [record for record in own if record["levelname"] == "ERROR" and INSIDE in str(record["exc_info"])]
        return
    found = [record for record in own if record.get("code") == row.code]
    assert len(found) == 1, [record["message"] for record in records()]
    assert row.ids.items() <= found[0].items(), found[0]
    assert found[0]["levelname"] == ("WARNING" if TABLE[row.code].status >= 500 else "INFO")
    if row.code in ("WRITE_FAILED", "FINISH_FAILED"):
        assert [record for record in records() if "schedule" in str(record.get("detail"))], "what was behind it"


# --- completeness


def test_every_code_is_provoked() -> None:
    assert sorted(row.code for row in PROVOCATIONS) == sorted(TABLE)


def test_every_code_is_provoked_on_a_socket_or_it_is_said_why_not() -> None:
    assert {row.code for row in PROVOCATIONS if row.frame is None} == NO_FRAME.keys()


def test_every_close_code_is_provoked_or_it_is_said_why_not() -> None:
    assert {code for code, row in TABLE.items() if row.close is not None} == CLOSES.keys() | NO_CLOSE.keys()
    assert not CLOSES.keys() & NO_CLOSE.keys()


# --- over HTTP


# R-113 R-121: each code over HTTP, with its status, its headers and its ids, and nothing of the inside.
@pytest.mark.parametrize("row", PROVOCATIONS, ids=[row.code for row in PROVOCATIONS])
async def test_a_request_is_answered_as_the_table_says(
    row: Provocation, monkeypatch: pytest.MonkeyPatch, records: Records
) -> None:
    async with world(row, monkeypatch) as made, made.served.client() as client:
        answer = await _request(client, row)
        told = TABLE[row.code]
        assert answer.status_code == told.status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert ("retry-after" in answer.headers) == (told.status in (429, 503))
        assert ("www-authenticate" in answer.headers) == (told.status == 401)
        assert ("allow" in answer.headers) == (told.status == 405)
        if told.status in (429, 503):
            assert int(answer.headers["retry-after"]) >= 1
        assert is_uuid(answer.headers["x-request-id"])
        named = row.ids or {"session_id": "s"}  # the path names it, whoever asks
        check_problem(answer.json(), str(answer.headers) + answer.text, _with_ids(row, named))
        check_logged(records, answer.headers["x-request-id"], _with_ids(row, named))


async def _request(client: httpx.AsyncClient, row: Provocation) -> httpx.Response:
    method, path = row.http
    if row.code == "RATE_LIMITED":
        assert (await client.request(method, path, headers=row.headers)).status_code == 200
    return await client.request(method, path, json=row.body, headers=row.headers)


def _with_ids(row: Provocation, ids: Json) -> Provocation:
    return Provocation(code=row.code, http=row.http, ids=ids, more=row.more)


@pytest.mark.parametrize("row", [row for row in PROVOCATIONS if row.http[0] == "GET"], ids=lambda row: row.code)
async def test_a_head_is_answered_without_a_body(row: Provocation, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(row, monkeypatch) as made, made.served.client() as client:
        answer = await client.head(row.http[1], headers=row.headers)
        assert (answer.status_code, answer.content) == (TABLE[row.code].status, b"")
        assert answer.headers["content-type"] == "application/problem+json"


# --- over WebSocket


@asynccontextmanager
async def socket(made: World, row: Provocation) -> AsyncIterator[Socket]:
    headers = [(name.encode(), value.encode()) for name, value in row.headers.items() if name == "Authorization"]
    async with made.served.socket(headers=headers) as opened:
        yield opened


# R-113 R-120 R-121: the same refusals, word for word, on a socket.
@pytest.mark.parametrize("row", [row for row in PROVOCATIONS if row.frame is not None], ids=lambda row: row.code)
async def test_a_frame_is_answered_as_the_table_says(
    row: Provocation, monkeypatch: pytest.MonkeyPatch, records: Records
) -> None:
    assert row.frame is not None
    async with world(row, monkeypatch) as made, socket(made, row) as opened:
        frame = {"session_id": "s", **row.frame}
        if row.code == "RATE_LIMITED":
            assert (await opened.ask(**frame, id=0))["op"] == "reply"
        answer = await opened.ask(**frame, id=1)
        assert answer.keys() == {"op", "id", "error"}
        assert answer["op"] == "error"
        problem = answer["error"]
        assert isinstance(problem, dict)
        check_problem(problem, json.dumps(answer), row)
        request_id = dict(opened.ws.handshake_headers)[b"x-request-id"].decode()
        check_logged(records, request_id, row)
        if row.code != "UNAUTHENTICATED":
            assert (await opened.ask(op="ping", id=2)).get("id") == 2, "the conversation goes on"


@pytest.mark.parametrize(
    ("code", "headers", "subprotocols"),
    [
        ("ORIGIN_REFUSED", [(b"Origin", b"https://evil.example")], ["penstock.v1"]),
        ("INVALID_BODY", [], ["another"]),
        ("UNAUTHENTICATED", [(b"Authorization", b"Bearer x")], ["penstock.v1"]),
    ],
)
async def test_a_handshake_is_refused_as_the_table_says(
    code: str, headers: list[tuple[bytes, bytes]], subprotocols: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = next(row for row in PROVOCATIONS if row.code == code)
    async with world(row, monkeypatch) as made:
        with pytest.raises(BaseException) as raised:  # a group around the rejection
            async with made.served.socket(headers=headers, subprotocols=subprotocols):
                pass
        error: BaseException = raised.value
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        assert isinstance(error, trio_websocket.ConnectionRejected)
        told = {name.decode().lower(): value.decode() for name, value in error.headers or ()}
        assert error.status_code == TABLE[code].status
        assert told["content-type"] == "application/problem+json"
        assert ("www-authenticate" in told) == (error.status_code == 401)
        assert error.body is not None
        check_problem(json.loads(error.body), error.body.decode(), _with_ids(row, {}))


# --- close codes


async def _close_draining(made: World, opened: Socket) -> None:
    made.served.served.shutdown.set()


async def _close_too_large(made: World, opened: Socket) -> None:
    await opened.send(op="ping", id="x" * (1 << 20))


async def _close_bug(made: World, opened: Socket) -> None:
    def fail(*_: object) -> None:
        raise ValueError(INSIDE)

    made.monkeypatch.setattr(Limits, "admit", fail)
    await opened.send(op="ping")


async def _close_unknown(made: World, opened: Socket) -> None:
    await opened.send(op="ping")


async def _close_limited(made: World, opened: Socket) -> None:
    async with made.served.client() as client:
        assert (await client.get(S)).status_code == 401
    await opened.send(op="auth", token=token())


Closing = Callable[[World, Socket], Awaitable[None]]

# By code: the protocol's number, what brings it about, and whether an error frame says why before.
CLOSES: Final[dict[str, tuple[int, Closing | None, bool]]] = {
    "DRAINING": (1001, _close_draining, False),
    "BODY_TOO_LARGE": (1009, _close_too_large, False),
    "INTERNAL": (1011, _close_bug, False),
    "UNAUTHENTICATED": (4401, _close_unknown, True),
    "RATE_LIMITED": (4429, _close_limited, True),
    "TIMEOUT": (4408, None, False),
}


@pytest.mark.parametrize("code", [code for code, (_, closing, _) in CLOSES.items() if closing is not None])
async def test_a_socket_is_closed_as_the_table_says(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Provocation(
        code=code,
        http=("GET", S),
        identity=identity() if code in ("UNAUTHENTICATED", "RATE_LIMITED") else OPEN,
        limits=LimitsConfig(rate=0.01, burst=1) if code == "RATE_LIMITED" else UNLIMITED,
    )
    number, closing, says_why = CLOSES[code]
    assert closing is not None
    async with world(row, monkeypatch) as made, socket(made, row) as opened:
        await closing(made, opened)
        if says_why:
            frame = await opened.receive()
            assert frame["op"] == "error"
            assert isinstance(frame["error"], dict)
            check_problem(frame["error"], json.dumps(frame), _with_ids(row, {}))
        assert await opened.closed() == TABLE[code].close == number
        assert opened.ws.closed is not None
        assert not [leak for leak in LEAKS if leak in (opened.ws.closed.reason or "")]
        await opened.stream.aclose()


async def test_a_peer_that_says_nothing_is_closed_as_the_table_says() -> None:
    bounds = SocketConfig(heartbeat=0.05, pong_timeout=0.2, slow_pong_timeout=0.2)
    async with open_engine(MemoryLog()) as engine:
        handler = websocket_handler(engine, config=bounds)
        async with (
            serving(create_app(engine), handler, drain=engine.drain, config=ServerConfig()) as served,
            await served.connect() as stream,
        ):
            await stream.send_all(
                b"GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
            )
            with trio.fail_after(PATIENCE):
                received = await read_to_end(stream)
            number = CLOSES["TIMEOUT"][0]
            assert TABLE["TIMEOUT"].close == number
            assert number.to_bytes(2) in received
