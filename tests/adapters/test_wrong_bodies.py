"""Whatever stands in a body or a frame, it is refused with a code of its own, or everything works afterwards.

Every field of every body gets values of every wrong kind that JSON has, and some that it has not. The same over HTTP
and over WebSocket.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import pytest
import trio
from attrs import fields, frozen, has

from penstock import adapters
from penstock.adapters.http.sessions import ForkBody, NewBody, PatchBody, ResetBody, RetractBody
from penstock.adapters.requests.bodies import ApprovalAnswer, InputHead, MessageBody, QuestionBody, StartBody, StopBody
from penstock.adapters.requests.chunks import FinishBody
from penstock.adapters.requests.presence import PresenceBody, PresenceFrame
from penstock.adapters.websocket.commands import _SubscribeBody
from penstock.engine import Chunk, MemoryLog, Session, new_generation_id, new_message_id
from tests.adapters.serving import Penstock, penstock
from tests.engine.calls import PRODUCERS
from tests.engine.works import CONFIG, all_of, assert_answers, assert_log_works, assert_works, each
from tests.engine.wrong import FEW, JSON_VALUES, VALUES
from tests.extent import some

# As text: Python's JSON writes what others do not read.
_TEXTS: Final[Mapping[str, str]] = {
    label: json.dumps(VALUES[label]())
    for label in (
        *(label for label in FEW if label in JSON_VALUES),
        *("2^1200", "object", "list of objects", "large object", "depth 66", "depth 900"),
        *("half a pair", "half a pair for a key", "NaN"),
    )
}

_HOLE = "the value stands here"

_Prepare = Callable[[Session], Awaitable[Mapping[str, Any]]]


async def _nothing(session: Session) -> Mapping[str, Any]:
    posted = await session.post("hello")
    return {"mid": posted.message_id}


async def _live(session: Session) -> Mapping[str, Any]:
    return {"gid": (await session.start("wait")).generation_id}


async def _remote(session: Session) -> Mapping[str, Any]:
    gid, mid = new_generation_id(), new_message_id()
    await session.chunks([Chunk(generation_id=gid, message_id=mid, data={"text": "x"})])
    return {"gid": gid, "mid": mid}


async def _asked(session: Session) -> Mapping[str, Any]:
    started = await session.start("ask")
    async with session.subscribe(started.cursor) as events:
        asked: Any = (await anext(aiter(events))).data
    return {"gid": started.generation_id, "approval": asked.approval_id}


@frozen
class Request:
    """One that is right; ``{…}`` in the path and the body is what the preparation found."""

    method: str
    path: str
    body: Mapping[str, Any]
    prepare: _Prepare = _nothing
    op: str | None = None  # over WebSocket, where it has one
    frame: Mapping[str, Any] = {}  # what stands in the path, there

    def filled(self, found: Mapping[str, Any], template: Any) -> Any:
        if isinstance(template, str):
            return template.format(**found) if "{" in template else template
        if isinstance(template, dict):
            return {name: self.filled(found, each) for name, each in template.items()}
        return template


_CHUNK = {"generation_id": "{gid}", "message_id": "{mid}", "type": "block.delta", "data": {"text": "y"}}

_QUESTION = {"blocks": [{"kind": "text", "text": "x"}], "metadata": {"a": 1}}

# For each body the requests that have it.
REQUESTS: Final[Mapping[type, tuple[Request, ...]]] = {
    NewBody: (Request("PUT", "", {"metadata": {"a": 1}}),),
    PatchBody: (Request("PATCH", "", {"metadata": {"a": 1}}),),
    ResetBody: (Request("POST", "/reset", {"reason": "anew"}),),
    ForkBody: (Request("POST", "/fork", {"at": "{mid}", "metadata": {"a": 1}}),),
    RetractBody: (Request("POST", "/messages/{mid}/retract", {"and_after": True}),),
    MessageBody: (Request("POST", "/messages", {"text": "x"}, op="post"),),
    StartBody: (
        Request("POST", "/generations", {"producer": "say", "text": "x"}, op="start"),
        Request("POST", "/generations", {"producer": "say", "text": "x", "policy": "queue"}, _live, op="start"),
        Request("POST", "/generations", {"producer": "say"}, op="start"),
        Request("POST", "/generations", {"producer": "say", "message": _QUESTION}, op="start"),
    ),
    StopBody: (Request("POST", "/stop", {"reason": "enough"}, _live, op="stop"),),
    InputHead: (
        Request(
            "POST",
            "/generations/{gid}/inputs",
            {"kind": "steer", "text": "x"},
            _live,
            op="input",
            frame={"generation_id": "{gid}"},
        ),
    ),
    ApprovalAnswer: (
        Request(
            "POST",
            "/generations/{gid}/inputs",
            {"kind": "approval", "approval_id": "{approval}", "approved": True},
            _asked,
            op="input",
            frame={"generation_id": "{gid}"},
        ),
    ),
    Chunk: (Request("POST", "/chunks", _CHUNK, _remote),),
    FinishBody: (
        Request(
            "POST",
            "/generations/{gid}/finish",
            {"outcome": "failed", "code": "MINE"},
            _remote,
            op="finish",
            frame={"generation_id": "{gid}"},
        ),
    ),
    PresenceBody: (Request("PUT", "/presence/a/d", {"name": "Ada"}),),
    PresenceFrame: (Request("", "", {"actor_id": "a", "device_id": "d"}, op="presence"),),
    _SubscribeBody: (Request("", "", {"after": "now"}, op="subscribe"),),
}

_EXCLUDED: Final = {
    "TicketBody": "is about no session",
    "Body": "what a route says of its own",
    "_AuthBody": "is about no session",
    "_WatchBody": "is about no session",
    "EmptyBody": "has no fields",
    "QuestionBody": "stands in a `StartBody`: `test_what_is_wrong_in_a_question_is_refused_or_harms_nothing`",
    "InputBody": "what `InputHead` and `ApprovalAnswer` are read into",
}


def test_every_body_is_sent() -> None:
    found = set()
    for module in pkgutil.walk_packages(adapters.__path__, "penstock.adapters."):
        if module.name.startswith(tuple(f"penstock.adapters.{name}" for name in ("http", "websocket", "requests"))):
            if ".openapi" in module.name:
                continue
            for name, item in vars(importlib.import_module(module.name)).items():
                if isinstance(item, type) and has(item) and name.endswith("Body"):
                    found.add(item.__name__)
    found.add(Chunk.__name__)  # which is the engine's
    assert found <= {body.__name__ for body in REQUESTS} | _EXCLUDED.keys()


async def _send(world: Penstock, request: Request, body: str, found: Mapping[str, Any], session_id: str) -> str | None:
    """Over HTTP; the code it is refused with."""
    path = f"/v1/sessions/{session_id}{request.path.format(**found)}"
    async with world.client() as client:
        answer = await client.request(request.method, path, content=body.encode())
        if answer.is_success:
            return None
        code: str = answer.json()["code"]
        assert answer.status_code < 500, answer.text
        return code


async def _send_frame(
    world: Penstock, request: Request, body: str, found: Mapping[str, Any], session_id: str
) -> str | None:
    """Over WebSocket."""
    head = {"op": request.op, "id": "1", "session_id": session_id, **request.filled(found, request.frame)}
    async with world.socket() as socket:
        frame = f"{json.dumps(head)[:-1]}, {body[1:]}" if body != "{}" else json.dumps(head)
        await socket.ws.send_message(frame)
        while True:
            told = await socket.receive()
            if told["op"] == "error":
                error = told["error"]
                assert isinstance(error, dict)
                assert error["status"] < 500, error
                return str(error["code"])
            if told["op"] in ("reply", "caught-up"):
                return None


_PLACES = [
    (body, field.name, socket)
    for body, requests in REQUESTS.items()
    for field in fields(body)
    for socket in (False, True)
    if (requests[0].op if socket else requests[0].method)
]


@pytest.mark.further
@pytest.mark.parametrize(
    ("body", "name", "socket"), _PLACES, ids=lambda each: each.__name__ if isinstance(each, type) else str(each)
)
async def test_what_is_wrong_in_a_body_is_refused_or_harms_nothing(body: type, name: str, *, socket: bool) -> None:
    log = MemoryLog()
    unchanged: set[str] = set()
    async with penstock(log, producers=PRODUCERS, config=CONFIG) as world:

        async def one(case: tuple[str, Request, str]) -> None:
            session_id, request, label = case
            session = await world.engine.create_session(session_id)
            found = await request.prepare(session)
            before = await session.cursor()
            right = request.filled(found, {**request.body, name: _HOLE})
            if (body, name) in ((MessageBody, "blocks"), (StartBody, "message")):
                right.pop("text", None)
            text = json.dumps(right).replace(json.dumps(_HOLE), _TEXTS[label])
            send = _send_frame if socket else _send
            with trio.fail_after(30):
                code = await send(world, request, text, found, session_id)
            if code is not None:
                assert await session.cursor() == before, label
                unchanged.add(session_id)

        cases = [
            (f"s-{number}-{place}", request, label)
            for number, label in enumerate(some(_TEXTS, (body.__name__, name, socket)))
            for place, request in enumerate(REQUESTS[body])
        ]
        await each(one, cases)
        changed = [session_id for session_id in await all_of(world.engine) if session_id not in unchanged]
        await each(lambda session_id: assert_works(world.engine, session_id), changed)
        await each(lambda session_id: assert_answers(world.engine, session_id), unchanged)
    await assert_log_works(log, changed)


@pytest.mark.further
@pytest.mark.parametrize("name", [field.name for field in fields(QuestionBody)])
async def test_what_is_wrong_in_a_question_is_refused_or_harms_nothing(name: str) -> None:
    log = MemoryLog()
    async with penstock(log, producers=PRODUCERS, config=CONFIG) as world:

        async def one(case: tuple[int, str]) -> None:
            number, label = case
            session = await world.engine.create_session(str(number))
            before = await session.cursor()
            body = {"producer": "say", "message": {**_QUESTION, name: _HOLE}}
            text = json.dumps(body).replace(json.dumps(_HOLE), _TEXTS[label])
            request = Request("POST", "/generations", {}, op="start")
            send = _send_frame if number % 2 else _send
            with trio.fail_after(30):
                if await send(world, request, text, {}, session.session_id) is not None:
                    assert await session.cursor() == before, label

        await each(one, list(enumerate(some(_TEXTS, name))))
        ids = await all_of(world.engine)
        await each(lambda session_id: assert_works(world.engine, session_id), ids)
    await assert_log_works(log, ids)


_SAID: Final[Mapping[str, Mapping[str, Any]]] = {
    "message.opened": {"role": "assistant", "metadata": {"a": 1}, "parent_message_id": "{mid}", "continues": "{mid}"},
    "block.opened": {"kind": "tool_call", "tool_call_id": "c", "name": "look"},
    "block.delta": {"text": "x", "arguments": "{{", "value": 1},
    "block.closed": {"text": "x", "arguments": {}, "value": 1, "is_error": True},
    "message.closed": {"status": "complete", "finish_reason": "stop", "usage": {}},
    "generation.status": {"status": "thinking", "detail": {"a": 1}},
    "approval.requested": {"approval_id": "a", "name": "rm", "tool_call_id": "c", "arguments": {}, "expires_at": "x"},
    "input.applied": {"input_id": "i"},
    "app.note": {"anything": 1},
}


@pytest.mark.further
@pytest.mark.parametrize(("type_", "name"), [(type_, name) for type_, said in _SAID.items() for name in said])
async def test_what_is_wrong_in_a_chunk_is_refused_or_harms_nothing(type_: str, name: str) -> None:
    log = MemoryLog()
    async with penstock(log, producers=PRODUCERS, config=CONFIG) as world:

        async def one(case: tuple[str, str]) -> None:
            session_id, label = case
            session = await world.engine.create_session(session_id)
            found = await _remote(session)
            chunk: dict[str, Any] = {"generation_id": found["gid"], "type": type_}
            if type_.startswith("block") or type_ == "message.closed":
                chunk["message_id"] = found["mid"]
            if type_ == "block.opened":
                chunk["block_index"] = 1
            needed = {key: value for key, value in _SAID[type_].items() if key in ("kind", "tool_call_id", "name")}
            chunk["data"] = {**(needed if type_ == "block.opened" else {}), name: _HOLE}
            text = json.dumps({"chunks": [chunk]}).replace(json.dumps(_HOLE), _TEXTS[label])
            before = await session.cursor()
            request = Request("POST", "/chunks/batch", {}, op="chunks")
            send = _send_frame if int(session_id) % 2 else _send
            with trio.fail_after(30):
                if await send(world, request, text, found, session_id) is not None:
                    assert await session.cursor() == before, label

        await each(one, [(str(number), label) for number, label in enumerate(some(_TEXTS, (type_, name)))])
        ids = await all_of(world.engine)
        await each(lambda session_id: assert_works(world.engine, session_id), ids)
    await assert_log_works(log, ids)


@pytest.mark.parametrize("key", ["", " ", "ü", "a\0", "a b", "x" * 300, 5, None, [], {}])
async def test_a_wrong_idempotency_key_over_a_socket_is_refused(key: object) -> None:
    async with penstock(producers=PRODUCERS) as world, world.socket() as socket:
        await world.engine.create_session("s")
        told = await socket.ask(op="start", id="1", session_id="s", producer="say", idempotency_key=key)
        assert told["op"] == "error"
        await assert_answers(world.engine, "s")
