"""Producers in other processes, over HTTP and WebSocket alike: what each request writes, and what is refused whole."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import trio
import trio.testing

from penstock.adapters.websocket import SocketConfig
from penstock.engine import Config, Event, EventLog, MemoryLog, Producer, new_message_id, open_sqlite
from penstock.engine.log import Append, Write
from tests.adapters.faces import Face, HttpFace, Json, SocketFace, Told
from tests.adapters.serving import PATIENCE, Penstock, penstock
from tests.engine.faulty import Fail, FaultyLog, Hold
from tests.engine.living import copied, data_of
from tests.engine.producers import Steered
from tests.engine.remotes import texts_of, types_of
from tests.engine.rules import assert_rules, events_of

S: Final = "/v1/sessions/s"
GID: Final = "0198c0de-7a11-7abc-8def-0123456789ab"
OTHER: Final = "0198c0de-7a12-7abc-8def-0123456789ab"
THIRD: Final = "0198c0de-7a13-7abc-8def-0123456789ab"
MID: Final = "0198c0de-7a21-7abc-8def-0123456789ab"

each_face = pytest.mark.parametrize("face", ["http", "websocket"])


class Stage:
    """A server with the session `s`, and one producer's line to it."""

    def __init__(self, world: Penstock, log: EventLog, face: Face, client: httpx.AsyncClient) -> None:
        self.world = world
        self.log = log
        self.face = face
        self.client = client

    @property
    def faulty(self) -> FaultyLog:
        assert isinstance(self.log, FaultyLog)
        return self.log

    async def events(self, session_id: str = "s") -> list[Event]:
        """What is committed."""
        return await events_of(self.log, session_id)

    async def texts(self) -> dict[str, str]:
        return texts_of(await self.events())

    async def generation(self, generation_id: str = GID) -> Json:
        found: Json = (await self.client.get(f"{S}/generations/{generation_id}")).json()
        return found

    @contextmanager
    def nothing_written(self) -> Iterator[None]:
        """Not an event and not a number: nothing is even handed to the log."""
        before = len(self.faulty.writes)
        yield
        assert len(self.faulty.writes) == before

    async def wait_event(self, type_: str, **stamp: object) -> Json:
        """The first event of this type and with this stamp, as a reader of the stream gets it."""
        async with self.world.lines(f"{S}/events", accept="application/x-ndjson") as lines:
            while True:
                event: Json = json.loads(await lines.next() or "{}")
                if event.get("type") == type_ and stamp.items() <= event.items():
                    return event


@asynccontextmanager
async def producing(
    face: str,
    log: EventLog | None = None,
    *,
    config: Config | None = None,
    producers: Mapping[str, Producer] | None = None,
    socket: SocketConfig | None = None,
) -> AsyncIterator[Stage]:
    """A served session; its log keeps the rules when it is left."""
    used = log or FaultyLog(MemoryLog())
    async with penstock(used, config=config, producers=producers, socket=socket) as world, world.client() as client:
        assert (await client.put(S)).is_success
        if face == "http":
            yield Stage(world, used, HttpFace(client), client)
        else:
            async with world.socket() as opened:
                yield Stage(world, used, SocketFace(opened), client)
    await assert_rules(used, closed=False)


def delta(text: str, generation_id: str = GID, **fields: object) -> Json:
    return {"generation_id": generation_id, "data": {"text": text}, **fields}


def of(type_: str, generation_id: str = GID, /, **fields: object) -> Json:
    return {"generation_id": generation_id, "type": type_, **fields}


BEGUN: Final = ["session.created", "generation.started", "message.opened", "block.opened", "block.delta"]
ENDED: Final = ["block.closed", "message.closed", "generation.finished"]


# --- the happy path


# R-12 R-112
# a generation is started, a chunk is written, 200.
@each_face
async def test_the_first_chunk_begins_a_generation_and_is_written(face: str) -> None:
    async with producing(face) as stage:
        told = (await stage.face.chunks(delta("Hel"))).done()
        events = await stage.events()
        assert types_of(events) == BEGUN
        message_id = events[-1].message_id
        assert told == {
            "session_id": "s",
            "generation_id": GID,
            "message_id": message_id,
            "turn": 1,
            "cursor": (await stage.client.get(S)).json()["cursor"],
            "accepted": 1,
            "duplicates": 0,
        }
        assert told["cursor"].endswith(f"-{events[-1].offset:016}")
        assert data_of(events, "generation.started")[0]["producer"] == "remote"
        assert {event.generation_id for event in events[1:]} == {GID}
        begun = next(event for event in events if event.type == "generation.started")
        cursor = f"{told['cursor'].partition('-')[0]}-{begun.offset:016}"
        assert await stage.generation() == {
            "session_id": "s",
            "generation_id": GID,
            "turn": 1,
            "state": "live",
            "started": {"cursor": cursor, "time": begun.time},
        }
        more = (await stage.face.chunks(delta("lo"), delta("!", message_id=message_id, block_index=0, seq=3))).done()
        assert (more["accepted"], more["duplicates"], more["message_id"]) == (2, 0, message_id)
        assert await stage.texts() == {message_id: "Hello!"}


# R-112 R-91: all that a producer in the server can write; the end of a message is not yet the generation's.
@each_face
async def test_all_that_an_answer_is_made_of_can_be_sent(face: str) -> None:
    tool = {"tool_call_id": "t", "name": "look"}
    result = new_message_id()
    async with producing(face) as stage:
        sent = [
            of("generation.status", data={"status": "thinking"}, job_id="job"),
            of("message.opened", message_id=MID, role="assistant", data={"metadata": {"k": 1}}),
            of("block.delta", message_id=MID, block_index=0, seq=1, kind="reasoning", data={"text": "hm"}),
            of("block.closed", message_id=MID, block_index=0, data={}),
            of("block.opened", message_id=MID, block_index=1, seq=0, kind="tool_call", data=tool),
            of("block.delta", message_id=MID, block_index=1, data={"arguments": '{"x":1}'}),
            of("block.closed", message_id=MID, block_index=1, data={"arguments": {"x": 1}}),
            of("app.progress", data={"any": ["thing", None]}),
            of("message.closed", message_id=MID, data={"finish_reason": "tool_calls", "usage": {"tokens": 3}}),
            of("message.opened", message_id=result, role="tool"),
            of("block.opened", message_id=result, kind="tool_result", data={"tool_call_id": "t"}),
            of("block.delta", message_id=result, data={"text": "found"}),
        ]
        assert (await stage.face.chunks(*sent)).done()["accepted"] == len(sent)
        (await stage.face.finish(GID, usage={"tokens": 3})).done()
        events = await stage.events()
        assert {event.job_id for event in events[1:]} == {"job"}
        assert types_of(events)[2:] == [
            "generation.status",
            "message.opened",
            "block.opened",
            *[chunk["type"] for chunk in sent[2:]],
            *ENDED,
        ]
        shown = (await stage.client.get(S)).json()["messages"]
        assert [(message["role"], message["status"]) for message in shown] == [
            ("assistant", "complete"),
            ("tool", "complete"),
        ]
        assert [block["kind"] for block in shown[0]["blocks"]] == ["reasoning", "tool_call"]


async def test_one_chunk_and_a_batch_of_one_are_the_same() -> None:
    async with producing("http") as stage:
        assert isinstance(stage.face, HttpFace)
        one = (await stage.face.chunks(delta("a"))).done()
        other = (await stage.face.batch([delta("b")])).done()
        assert one.keys() == other.keys()
        assert await stage.texts() == {one["message_id"]: "ab"}


# two sessions and two jobs at a time; nothing of one in the other.
@each_face
async def test_two_sessions_at_once_do_not_mix(face: str) -> None:
    async with producing(face) as stage:
        await stage.client.put("/v1/sessions/t")

        async def send(session_id: str, generation_id: str) -> None:
            for number in range(20):
                chunk = delta(f"{session_id}{number} ", generation_id, job_id=f"job {session_id}")
                stamp = ("p", 0, number)
                assert (await asking(session_id).chunks(chunk, stamp=stamp, session_id=session_id)).code is None
            (await asking(session_id).finish(generation_id, session_id=session_id)).done()

        async with world_faces(stage, face) as faces:

            def asking(session_id: str) -> Face:
                return faces["st".index(session_id)]

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, "s", GID)
                nursery.start_soon(send, "t", OTHER)
        for session_id, generation_id in (("s", GID), ("t", OTHER)):
            events = await stage.events(session_id)
            assert {event.generation_id for event in events[1:]} == {generation_id}
            assert {event.job_id for event in events[1:]} == {f"job {session_id}"}
            assert list(texts_of(events).values()) == ["".join(f"{session_id}{number} " for number in range(20))]


@asynccontextmanager
async def world_faces(stage: Stage, face: str) -> AsyncIterator[tuple[Face, Face]]:
    """Two lines to the server that may be asked at the same time."""
    if face == "http":
        yield stage.face, stage.face
    else:
        async with stage.world.socket() as other:
            yield stage.face, SocketFace(other)


# --- what is not there, and what is malformed


# R-137 R-113
@each_face
async def test_a_session_that_is_not_there_is_not_made(face: str) -> None:
    async with producing(face) as stage:
        with stage.nothing_written():
            for told in (
                await stage.face.chunks(delta("a"), session_id="no"),
                await stage.face.chunks(delta("a"), delta("b"), session_id="no", stamp=("p", 0, 0)),
                await stage.face.finish(GID, session_id="no"),
            ):
                told.refused("SESSION_NOT_FOUND", session_id="no")
        assert [head.session_id for head in await stage.log.heads()] == ["s"]


# a delete is not answered while chunks are on their way into the log.
@each_face
async def test_a_delete_waits_for_chunks_that_are_not_stored_yet(face: str) -> None:
    async with producing(face) as stage:
        (await stage.face.chunks(delta("a", message_id=MID))).done()
        hold, under_way = Hold(), trio.Event()
        answered: list[str] = []

        def schedule(_: int, write: Write) -> Hold | None:
            if hold.released or not isinstance(write, Append):
                return None
            under_way.set()
            return hold

        async def push() -> None:
            (await stage.face.chunks(delta("b", message_id=MID))).done()
            answered.append("chunks")

        async def delete() -> None:
            assert (await stage.client.delete(S)).status_code == 200
            answered.append("delete")

        async with trio.open_nursery() as nursery:
            stage.faulty.schedule = schedule
            nursery.start_soon(push)
            with trio.fail_after(PATIENCE):
                await under_way.wait()
            nursery.start_soon(delete)
            await trio.testing.wait_all_tasks_blocked(0.05)  # so long that nothing is on its way any more
            assert answered == []
            assert len(hold) == 1
            hold.release()
        assert sorted(answered) == ["chunks", "delete"]


#
# R-36 R-62 R-140: what comes behind a delete leaves no ghost, in this life of the session or the next.
@each_face
async def test_what_comes_late_to_a_deleted_session_is_refused(face: str) -> None:
    async with producing(face) as stage:
        (await stage.face.chunks(delta("a", message_id=MID), stamp=("p", 0, 0))).done()
        assert (await stage.client.delete(S)).status_code == 200
        if isinstance(stage.face, SocketFace):
            assert (await stage.face.fenced()).body["generation_id"] == GID
        for told in (
            await stage.face.chunks(delta("b", message_id=MID), stamp=("p", 0, 1)),
            await stage.face.finish(GID, stamp=("p", 0, 1)),
        ):
            told.refused("SESSION_DELETED", session_id="s")
        await stage.client.put(S)
        (await stage.face.finish(GID)).refused("GENERATION_NOT_FOUND", generation_id=GID)
        assert types_of(await stage.events()) == ["session.created"]
        told = await stage.face.chunks(delta("anew", message_id=MID), stamp=("p", 0, 0))
        assert told.done()["accepted"] == 1, "a new life counts from the start"
        assert await stage.texts() == {MID: "anew"}


MALFORMED: list[tuple[Json, str]] = [
    ({"data": {"text": "x"}}, "generation_id"),
    ({"generation_id": GID, "data": {"text": "x"}, "txt": 1}, "txt"),
    ({"generation_id": GID, "data": {"text": "x"}, "session_id": "s"}, "session_id"),
    ({"generation_id": GID, "data": {"text": "x"}, "offset": 5}, "offset"),
    ({"generation_id": 5, "data": {"text": "x"}}, "generation_id"),
    ({"generation_id": GID, "data": None}, "data"),
    ({"generation_id": GID, "data": "x"}, "data"),
    ({"generation_id": GID}, "text"),
    ({"generation_id": GID, "data": {"text": 5}}, "text"),
    ({"generation_id": GID, "data": {"text": "x"}, "seq": "1"}, "seq"),
    ({"generation_id": GID, "data": {"text": "x"}, "seq": -1}, "seq"),
    ({"generation_id": GID, "data": {"text": "x"}, "seq": True}, "seq"),
    ({"generation_id": GID, "data": {"text": "x"}, "seq": 1.0}, "seq"),
    ({"generation_id": GID, "data": {"text": "x"}, "seq": None}, "seq"),
    ({"generation_id": GID, "data": {"text": "x"}, "block_index": 2**60}, "block_index"),
    ({"generation_id": GID, "data": {"text": "x"}, "block_index": 7}, "block"),
    ({"generation_id": GID, "data": {"text": "x"}, "role": "robot"}, "role"),
    ({"generation_id": GID, "data": {"text": "x"}, "type": "generation.finished"}, "type"),
    ({"generation_id": GID, "data": {"text": "x"}, "type": "generation.started"}, "type"),
    ({"generation_id": GID, "data": {"text": "x"}, "type": "message.snapshot"}, "type"),
    ({"generation_id": GID, "data": {"text": "x"}, "type": "presence.changed"}, "type"),
    ({"generation_id": GID, "data": {"text": "x"}, "type": "session.reset"}, "type"),
    ({"generation_id": GID, "data": {"text": "x"}, "type": "approval.resolved"}, "type"),
    ({"generation_id": GID, "data": {"text": "x"}, "type": ""}, "type"),
    ({"generation_id": GID, "data": {}, "type": "message.closed", "message_id": MID}, "message"),
    ({"generation_id": GID, "data": {"input_id": "never"}, "type": "input.applied"}, "input"),
    ({"generation_id": GID, "data": {"name": "x", "expires_at": "soon"}, "type": "approval.requested"}, "expires_at"),
]


# R-12 R-137 R-113 R-117 R-94: nothing is converted, nothing is passed over in silence, nothing is written.
@pytest.mark.parametrize(("chunk", "names"), MALFORMED, ids=[str(chunk) for chunk, _ in MALFORMED])
@each_face
async def test_a_chunk_that_is_not_exactly_right_is_refused_by_name(face: str, chunk: Json, names: str) -> None:
    async with producing(face) as stage:
        with stage.nothing_written():
            told = (await stage.face.chunks(chunk)).refused("INVALID_BODY", session_id="s")
            assert names in told["detail"]
            batch = (await stage.face.chunks(delta("fine"), chunk, delta("fine"))).refused("INVALID_BODY")
            assert "chunks[1]" in batch["detail"]
            assert names in batch["detail"]
        (await stage.face.finish(GID)).refused("GENERATION_NOT_FOUND")


#
@pytest.mark.parametrize("chunks", [[], None, {}, "x", [None], [[]], ["x"], [delta("x")] * 501])
@each_face
async def test_a_batch_is_a_list_of_1_to_500_chunks(face: str, chunks: object) -> None:
    async with producing(face) as stage:
        with stage.nothing_written():
            (await stage.face.batch(chunks)).refused("INVALID_BODY", session_id="s")
        assert (await stage.face.batch([delta("x")] * 500)).done()["accepted"] == 500


async def test_a_batch_has_no_other_fields() -> None:
    async with producing("http") as stage:
        with stage.nothing_written():
            for body in ({"chunks": [delta("x")], "generation_id": GID}, {}, [delta("x")], None):
                answer = await stage.client.post(f"{S}/chunks/batch", json=body)
                assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_BODY")
            answer = await stage.client.post(f"{S}/chunks", content=b"{")
            assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_BODY")


@pytest.mark.parametrize(
    "chunk",
    [
        delta("x", "x"),
        delta("x", message_id="x"),
        delta("x", job_id=""),
        of("approval.requested", data={"name": "x", "approval_id": ""}),
    ],
)
@each_face
async def test_an_id_that_is_none_is_refused(face: str, chunk: Json) -> None:
    async with producing(face) as stage:
        with stage.nothing_written():
            (await stage.face.chunks(chunk)).refused("INVALID_ID", session_id="s")
            (await stage.face.finish("x")).refused("INVALID_ID", session_id="s")


# --- the end


# R-12 R-90 R-91
# finish succeeds, closes what is open, and tells the cursor that readers will see.
@each_face
async def test_a_finish_ends_the_generation(face: str) -> None:
    async with producing(face) as stage:
        (await stage.face.chunks(delta("all of it"))).done()
        told = (await stage.face.finish(GID, usage={"tokens": 5})).done()
        events = await stage.events()
        assert types_of(events) == [*BEGUN, *ENDED]
        assert told.keys() == {"session_id", "generation_id", "cursor"}
        assert (told["session_id"], told["generation_id"]) == ("s", GID)
        assert told["cursor"].endswith(f"-{events[-1].offset:016}")
        assert data_of(events, "generation.finished") == [{"outcome": "completed", "usage": {"tokens": 5}}]
        assert (await stage.generation())["outcome"] == "completed"
        with stage.nothing_written():
            (await stage.face.finish(GID)).done()  # the answer may have been lost
            (await stage.face.finish(GID, outcome="failed")).refused("STALE_GENERATION", generation_id=GID)
            (await stage.face.finish(GID, stamp=("p", 0, 0))).refused("STALE_GENERATION", generation_id=GID)
            (await stage.face.chunks(delta("late"))).refused("STALE_GENERATION", generation_id=GID)
        (await stage.face.chunks(delta("next", OTHER))).done()
        assert (await stage.generation(OTHER))["turn"] == 2


@each_face
async def test_a_producer_says_why_it_failed(face: str) -> None:
    async with producing(face) as stage:
        (await stage.face.chunks(delta("so far"))).done()
        (await stage.face.finish(GID, outcome="failed", code="MODEL_GONE", message="It broke.")).done()
        events = await stage.events()
        end = {"outcome": "failed", "code": "MODEL_GONE", "message": "It broke."}
        assert data_of(events, "generation.finished") == [end]
        assert data_of(events, "message.closed") == [{"status": "failed", "finish_reason": "failed"}]


@pytest.mark.parametrize(
    "body",
    [
        {"outcome": "stopped"},
        {"outcome": "completed", "code": "X"},
        {"outcome": "completed", "message": "x"},
        {"outcome": None},
        {"outcome": "failed", "code": 5},
        {"usage": 5},
        {"cursor": "x"},
    ],
)
@each_face
async def test_a_finish_that_is_not_exactly_right_ends_nothing(face: str, body: Json) -> None:
    async with producing(face) as stage:
        (await stage.face.chunks(delta("a"))).done()
        with stage.nothing_written():
            (await stage.face.finish(GID, **body)).refused("INVALID_BODY", session_id="s", generation_id=GID)
        (await stage.face.chunks(delta("b"))).done()
        (await stage.face.finish(GID)).done()


def _ends(write: Write) -> bool:
    return isinstance(write, Append) and any(b'"generation.finished"' in event for event in write.events)


# R-93 R-120
# R-137 R-92 R-113: an end that could not be stored is no end.
@each_face
async def test_a_finish_whose_end_is_not_stored_has_failed(face: str) -> None:
    async with producing(face) as stage:
        (await stage.face.chunks(delta("a"), stamp=("p", 0, 0))).done()
        stage.faulty.schedule = lambda _, write: Fail() if _ends(write) else None
        told = (await stage.face.finish(GID, stamp=("p", 0, 1))).refused(
            "FINISH_FAILED", session_id="s", generation_id=GID
        )
        assert "schedule" not in str(told)
        assert "generation.finished" not in types_of(await stage.events())
        stage.faulty.schedule = None
        # R-93 R-120: readers are told the truth, too.
        end = await stage.wait_event("generation.finished", generation_id=GID)
        assert (end["data"]["outcome"], end["data"]["code"]) == ("failed", "WRITE_FAILED")
        (await stage.face.finish(GID, stamp=("p", 0, 1))).refused("FINISH_FAILED")


# R-92 R-88: who could not write something is not told that all is done.
@each_face
async def test_a_chunk_that_is_not_stored_fails_the_finish(face: str) -> None:
    async with producing(face) as stage:
        (await stage.face.chunks(delta("a", message_id=MID), stamp=("p", 0, 0))).done()
        stage.faulty.schedule = lambda _, __: Fail()
        told = (await stage.face.chunks(delta("b", message_id=MID), stamp=("p", 0, 1))).refused(
            "WRITE_FAILED", session_id="s", generation_id=GID
        )
        assert "schedule" not in str(told)
        stage.faulty.schedule = None
        await stage.wait_event("generation.finished", generation_id=GID)
        (await stage.face.finish(GID, stamp=("p", 0, 1))).refused("FINISH_FAILED", generation_id=GID)
        assert await stage.texts() == {MID: "a"}


# --- another generation


async def _live_remote(stage: Stage) -> str:
    (await stage.face.chunks(delta("live", OTHER))).done()
    return GID


async def _live_here(stage: Stage) -> str:
    (await stage.face.start(producer="steered", generation_id=OTHER)).done()
    return GID


async def _named_here(stage: Stage) -> str:
    (await stage.face.start(producer="steered", generation_id=OTHER)).done()
    return OTHER


async def _waiting(stage: Stage) -> str:
    (await stage.face.start(producer="steered", generation_id=OTHER)).done()
    (await stage.face.start(producer="remote", policy="queue", generation_id=GID)).done()
    return GID


# R-137 R-34: chunk, batch and finish of another generation than the live one. No write.
@pytest.mark.parametrize("request_", ["chunk", "batch", "finish"])
@pytest.mark.parametrize("case", [_live_remote, _live_here, _named_here, _waiting])
@each_face
async def test_another_generation_is_live(face: str, case: Any, request_: str) -> None:
    async with producing(face, producers={"steered": Steered()}) as stage:
        generation_id = await case(stage)
        await stage.wait_event("block.delta", generation_id=OTHER)
        cursor = (await stage.client.get(S)).json()["cursor"]
        with stage.nothing_written():
            match request_:
                case "chunk":
                    told = await stage.face.chunks(delta("x", generation_id), stamp=("p", 0, 0))
                case "batch":
                    told = await stage.face.chunks(delta("x", generation_id), delta("y", generation_id))
                case _:
                    told = await stage.face.finish(generation_id, stamp=("p", 0, 0))
            told.refused("GENERATION_MISMATCH", session_id="s", generation_id=generation_id)
        assert (await stage.client.get(S)).json()["cursor"] == cursor
        assert (await stage.generation(OTHER))["state"] == "live"


STRANGE: Final = {
    "a delta": delta("x", message_id=MID),
    "a delta that goes on": delta("x", message_id=MID, seq=2),
    "a delta of a later block": delta("x", message_id=MID, block_index=1),
    "a block's opening": of("block.opened", message_id=MID, kind="text", data={}),
    "a block's end": of("block.closed", message_id=MID, data={}),
    "its opening": of("message.opened", message_id=MID, data={}),
    "its end": of("message.closed", message_id=MID, data={}),
}


# R-12 R-137 R-34: no write, and always the same code, so that the producer knows that it is not its message.
@pytest.mark.parametrize("chunk", STRANGE.values(), ids=STRANGE)
@each_face
async def test_a_message_of_another_generation_is_not_written_to(face: str, chunk: Json) -> None:
    async with producing(face) as stage:
        (await stage.face.chunks(delta("a", OTHER, message_id=MID))).done()
        (await stage.face.finish(OTHER)).done()
        for begun in (False, True):
            if begun:
                (await stage.face.chunks(delta("b"))).done()
            with stage.nothing_written():
                for chunks in ([chunk], [delta("fine"), chunk]):
                    told = await stage.face.chunks(*chunks)
                    told.refused("GENERATION_MISMATCH", session_id="s", generation_id=GID, message_id=MID)


@each_face
async def test_a_message_that_was_posted_and_a_job_of_another_are_not_written_to(face: str) -> None:
    async with producing(face) as stage:
        await stage.client.post(f"{S}/messages", json={"text": "mine", "message_id": MID})
        with stage.nothing_written():
            for chunk in STRANGE.values():
                (await stage.face.chunks(chunk)).refused("ID_IN_USE", message_id=MID)
        (await stage.face.chunks(delta("a", job_id="one"))).done()
        with stage.nothing_written():
            (await stage.face.chunks(delta("b", job_id="two"))).refused("GENERATION_MISMATCH", generation_id=GID)
            (await stage.face.chunks(delta("b"), delta("c", OTHER))).refused("INVALID_BODY")


# a finish that comes late ends nobody else, and leaves a warning.
@each_face
async def test_a_stale_finish_never_ends_the_newer_one(face: str, caplog: pytest.LogCaptureFixture) -> None:
    async with producing(face) as stage:
        (await stage.face.chunks(delta("a"))).done()
        (await stage.face.start(producer="remote", generation_id=OTHER)).done()
        (await stage.face.chunks(delta("b", OTHER))).done()
        with stage.nothing_written():
            (await stage.face.finish(GID)).refused("STALE_GENERATION", session_id="s", generation_id=GID)
        assert (await stage.generation(OTHER))["state"] == "live"
        (await stage.face.chunks(delta("c", OTHER))).done()
    assert [record for record in caplog.records if record.levelno == logging.WARNING and GID in record.getMessage()]


# --- all or nothing


BAD_LAST: list[tuple[str, Json, str]] = [
    ("a hole", delta("x", message_id=MID, seq=9), "SEQUENCE_GAP"),
    ("malformed", delta("x", message_id=MID, seq=-1), "INVALID_BODY"),
    ("a block that is not next", delta("x", message_id=MID, block_index=3), "INVALID_BODY"),
    ("an id that is none", delta("x", message_id="x"), "INVALID_ID"),
    ("a posted message", delta("x", message_id=OTHER), "ID_IN_USE"),
    ("of another generation", delta("x", THIRD), "INVALID_BODY"),
    ("of a type that is not its own", of("generation.finished", data={"outcome": "completed"}), "INVALID_BODY"),
]


# R-34 R-94
# A batch is written whole or not at all, also when it is the first.
@pytest.mark.parametrize(("_", "bad", "code"), BAD_LAST, ids=[name for name, _, _ in BAD_LAST])
@each_face
async def test_a_batch_is_all_or_nothing(face: str, _: str, bad: Json, code: str) -> None:
    async with producing(face) as stage:
        await stage.client.post(f"{S}/messages", json={"text": "mine", "message_id": OTHER})
        good = [delta("a", message_id=MID), delta("b", message_id=MID), of("app.note", data={"n": 1})]
        with stage.nothing_written():
            told = (await stage.face.chunks(*good, bad, stamp=("p", 0, 0))).refused(code, session_id="s")
            assert "chunks[3]" in told["detail"]
            (await stage.face.finish(GID)).refused("GENERATION_NOT_FOUND")
        assert (await stage.face.chunks(*good, stamp=("p", 0, 0))).done()["accepted"] == 3
        with stage.nothing_written():
            (await stage.face.chunks(*good, bad, stamp=("p", 0, 1))).refused(code)
        (await stage.face.chunks(delta("c", message_id=MID, seq=3), stamp=("p", 0, 1))).done()
        assert await stage.texts() == {MID: "abc"}


# --- exactly once


# R-60 R-62
# The same request again is a success that changes nothing, whatever became of its generation.
@each_face
async def test_a_request_counts_once(face: str) -> None:
    async with producing(face) as stage:
        sent = [delta("a", message_id=MID), delta("b", message_id=MID)]
        first = (await stage.face.chunks(*sent, stamp=("p", 0, 0))).done()
        with stage.nothing_written():
            again = (await stage.face.chunks(*sent, stamp=("p", 0, 0))).done()
            assert again == {**first, "accepted": 0, "duplicates": 2}
        (await stage.face.chunks(delta("c", message_id=MID), stamp=("p", 0, 1))).done()
        with stage.nothing_written():
            assert (await stage.face.chunks(*sent, stamp=("p", 0, 0))).done()["duplicates"] == 2
            hole = (await stage.face.chunks(delta("e", message_id=MID), stamp=("p", 0, 3))).refused("SEQUENCE_GAP")
            assert hole["expected"] == 2
            assert (hole["session_id"], hole["generation_id"]) == ("s", GID)
        end = (await stage.face.finish(GID, stamp=("p", 0, 2))).done()
        with stage.nothing_written():
            assert (await stage.face.finish(GID, stamp=("p", 0, 2))).done() == end
            # Judged before all else: it is stale by now, and it is a success.
            repeated = (await stage.face.chunks(*sent, stamp=("p", 0, 0))).done()
            assert (repeated["accepted"], repeated["duplicates"], repeated["message_id"]) == (0, 2, MID)
        assert await stage.texts() == {MID: "abc"}


#
@each_face
async def test_a_new_epoch_begins_at_0_and_ends_the_old_one(face: str) -> None:
    async with producing(face) as stage:
        (await stage.face.chunks(delta("a", message_id=MID), stamp=("p", 3, 0))).done()
        (await stage.face.chunks(delta("b", message_id=MID), stamp=("p", 3, 1))).done()
        with stage.nothing_written():
            hole = (await stage.face.chunks(delta("x", message_id=MID), stamp=("p", 4, 2))).refused("SEQUENCE_GAP")
            assert hole["expected"] == 0
        (await stage.face.chunks(delta("c", message_id=MID), stamp=("p", 4, 0))).done()
        with stage.nothing_written():
            for told in (
                await stage.face.chunks(delta("x", message_id=MID), stamp=("p", 3, 2)),
                await stage.face.chunks(delta("x", message_id=MID), stamp=("p", 3, 1)),
                await stage.face.finish(GID, stamp=("p", 0, 0)),
            ):
                assert told.refused("STALE_PRODUCER", session_id="s", generation_id=GID)["epoch"] == 4
        (await stage.face.chunks(delta("d", message_id=MID), stamp=("q", 0, 0))).done()  # somebody else's numbers
        assert await stage.texts() == {MID: "abcd"}


#
# A request that is refused consumes no number.
@each_face
async def test_a_refused_request_consumes_no_number(face: str) -> None:
    async with producing(face) as stage:
        with stage.nothing_written():
            for told, code in (
                (await stage.face.chunks(delta("x", seq=5), stamp=("p", 0, 0)), "SEQUENCE_GAP"),
                (await stage.face.chunks(delta("x", "x"), stamp=("p", 0, 0)), "INVALID_ID"),
                (await stage.face.finish(GID, stamp=("p", 0, 0)), "GENERATION_NOT_FOUND"),
                (await stage.face.finish(GID, stamp=("p", 7, 0), outcome="?"), "INVALID_BODY"),
            ):
                told.refused(code)
        (await stage.face.chunks(delta("a", message_id=MID), stamp=("p", 0, 0))).done()
        stage.faulty.schedule = lambda _, __: Fail()
        (await stage.face.chunks(delta("x", message_id=MID), stamp=("p", 0, 1))).refused("WRITE_FAILED")
        stage.faulty.schedule = None
        await stage.wait_event("generation.finished", generation_id=GID)
        (await stage.face.chunks(delta("b", OTHER), stamp=("p", 0, 1))).done()


@pytest.mark.parametrize(
    ("stamp", "code"),
    [
        (("p", None, None), "INVALID_BODY"),
        (("p", "0", None), "INVALID_BODY"),
        ((None, "0", "0"), "INVALID_BODY"),
        (("p", "-1", "0"), "INVALID_BODY"),
        (("p", "0", "1.0"), "INVALID_BODY"),
        (("p", "00", "0"), "INVALID_BODY"),
        (("p", "0", "\u0661"), "INVALID_BODY"),
        (("p", "0", "9" * 20), "INVALID_BODY"),
        (("p", "", "0"), "INVALID_BODY"),
        (("", "0", "0"), "INVALID_ID"),
        (("a b", "0", "0"), "INVALID_ID"),
        (("é", "0", "0"), "INVALID_ID"),
        (("x" * 129, "0", "0"), "INVALID_ID"),
    ],
)
@each_face
async def test_a_stamp_is_whole_and_well_formed(face: str, stamp: tuple[str | None, ...], code: str) -> None:
    async with producing(face) as stage:
        with stage.nothing_written():
            if isinstance(stage.face, SocketFace):
                names = ("producer_id", "producer_epoch", "producer_seq")
                fields = {name: value for name, value in zip(names, stamp, strict=True) if value is not None}
                told = await stage.face.ask("chunks", {"chunks": [delta("x")], **fields})
                told.refused(code, session_id="s")
            else:
                headers = [
                    (name.encode(), value.encode("utf-8"))
                    for name, value in zip(("Producer-Id", "Producer-Epoch", "Producer-Seq"), stamp, strict=True)
                    if value is not None
                ]
                for path, body in (("chunks", delta("x")), (f"generations/{GID}/finish", {})):
                    answer = await stage.client.post(f"{S}/{path}", json=body, headers=headers)
                    assert (answer.status_code, answer.json()["code"]) == (400, code)


# What a client meant to be counted once must not be taken as what may be counted twice.
@pytest.mark.parametrize("field", ["producer_id", "producer_epoch", "producer_seq", "all"])
async def test_a_null_in_a_stamp_is_no_stamp_left_out(field: str) -> None:
    whole = {"producer_id": "p", "producer_epoch": 0, "producer_seq": 0}
    stamp = dict.fromkeys(whole) if field == "all" else {**whole, field: None}
    async with producing("websocket") as stage:
        assert isinstance(stage.face, SocketFace)
        with stage.nothing_written():
            told = await stage.face.ask("chunks", {"chunks": [delta("x")], **stamp})
            told.refused("INVALID_BODY", session_id="s")


async def test_a_stamps_header_stands_there_once() -> None:
    async with producing("http") as stage:
        with stage.nothing_written():
            for twice in ("Producer-Id", "Producer-Epoch", "Producer-Seq"):
                headers = [("Producer-Id", "p"), ("Producer-Epoch", "0"), ("Producer-Seq", "0"), (twice, "0")]
                answer = await stage.client.post(f"{S}/chunks", json=delta("x"), headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_BODY")
                assert twice in answer.json()["detail"]


# --- numbers in a block


# R-63 R-86
@each_face
async def test_a_seq_that_was_written_is_passed_over_and_a_hole_is_told(face: str) -> None:
    async with producing(face) as stage:
        (await stage.face.chunks(delta("a", message_id=MID, seq=1), delta("b", message_id=MID, seq=2))).done()
        with stage.nothing_written():
            for seq in (0, 1, 2):
                told = (await stage.face.chunks(delta("again", message_id=MID, seq=seq))).done()
                assert (told["accepted"], told["duplicates"], told["message_id"]) == (0, 1, MID)
            for seq in (4, 5, 2**53 - 1):
                told = (await stage.face.chunks(delta("x", message_id=MID, seq=seq))).refused("SEQUENCE_GAP")
                assert (told["expected"], told["message_id"]) == (3, MID)
        overlap = [delta("b", message_id=MID, seq=2), delta("c", message_id=MID, seq=3)]
        told = (await stage.face.chunks(*overlap)).done()
        assert (told["accepted"], told["duplicates"]) == (1, 1)
        (await stage.face.chunks(of("message.closed", message_id=MID, data={}))).done()
        with stage.nothing_written():
            assert (await stage.face.chunks(*overlap)).done()["duplicates"] == 2
            assert (await stage.face.chunks(of("message.closed", message_id=MID, data={}))).done()["duplicates"] == 1
        assert await stage.texts() == {MID: "abc"}


@each_face
async def test_the_first_number_of_a_block_is_told_when_it_is_missing(face: str) -> None:
    async with producing(face) as stage:
        with stage.nothing_written():
            told = (await stage.face.chunks(delta("x", message_id=MID, seq=2))).refused("SEQUENCE_GAP", message_id=MID)
            assert told["expected"] == 1
        (await stage.face.chunks(delta("a", message_id=MID, seq=1))).done()


# --- ids


# R-9 R-11: ids of the producer's own making, in any case, and ids of the server's.
@each_face
async def test_ids_are_the_producers_or_the_servers(face: str) -> None:
    async with producing(face) as stage:
        told = (await stage.face.chunks(delta("a", GID.upper(), message_id=MID.upper()))).done()
        assert (told["generation_id"], told["message_id"]) == (GID, MID)
        assert (await stage.face.chunks(delta("b"))).done()["message_id"] == MID, "the one that is open"
        (await stage.face.chunks(of("message.closed", data={}))).done()
        minted = (await stage.face.chunks(delta("c"))).done()["message_id"]
        assert minted != MID
        opened = (await stage.face.chunks(of("message.opened", role="tool"))).done()["message_id"]
        assert len({opened, minted, MID}) == 3
        with stage.nothing_written():
            told_ = (await stage.face.chunks(delta("which?"))).refused("INVALID_BODY")
            assert "message_id" in told_["detail"]
        asked = [of("approval.requested", data={"name": "x"}), of("approval.requested", data={"name": "y"})]
        (await stage.face.chunks(*asked)).done()
        approvals = data_of(await stage.events(), "approval.requested")
        assert len({each["approval_id"] for each in approvals}) == 2
        (await stage.face.finish(GID.upper())).done()
        assert await stage.texts() == {MID: "ab", minted: "c"}


# --- a start that opens one


@each_face
async def test_a_start_opens_one_that_chunks_drive(face: str) -> None:
    async with producing(face) as stage:
        started = (await stage.face.start(producer="remote", text="why?", job_id="job", metadata={"k": 1})).done()
        gid = started["generation_id"]
        assert started["turn"] == 1
        with stage.nothing_written():
            (await stage.face.start(producer="remote", input={"x": 1})).refused("INVALID_BODY")
        told = (await stage.face.chunks(delta("because", gid, job_id="job"))).done()
        assert (told["turn"], told["generation_id"]) == (1, gid)
        (await stage.face.finish(gid)).done()
        assert [m["role"] for m in (await stage.client.get(S)).json()["messages"]] == ["user", "assistant"]


#
@each_face
async def test_a_remote_start_that_supersedes_is_told_to_the_one_before(face: str) -> None:
    async with producing(face) as stage:
        (await stage.face.chunks(delta("old", message_id=MID), stamp=("old", 0, 0))).done()
        body = {"producer": "remote", "policy": "supersede", "generation_id": OTHER}
        answer = (await stage.client.post(f"{S}/generations", json=body)).json()
        assert answer["superseded"]["generation_id"] == GID
        assert answer["superseded"]["cleanup"] == "clean"
        if isinstance(stage.face, SocketFace):
            (await stage.face.fenced()).refused("STALE_GENERATION", session_id="s", generation_id=GID)
        with stage.nothing_written():
            for told in (
                await stage.face.chunks(delta("late", message_id=MID), stamp=("old", 0, 1)),
                await stage.face.chunks(delta("late", message_id=MID, seq=1)),
                await stage.face.finish(GID, stamp=("old", 0, 1)),
            ):
                told.refused("STALE_GENERATION", session_id="s", generation_id=GID)
        (await stage.face.chunks(delta("new", OTHER))).done()
        (await stage.face.finish(OTHER)).done()
        end = data_of(await stage.events(), "generation.finished")[0]
        assert (end["outcome"], end["superseded_by"]) == ("superseded", OTHER)


@each_face
async def test_a_remote_start_may_wait_and_takes_chunks_in_its_turn(face: str) -> None:
    async with producing(face) as stage:
        (await stage.face.chunks(delta("first"))).done()
        queued = (await stage.face.start(producer="remote", policy="queue", generation_id=OTHER, text="next?")).done()
        assert (queued["position"], queued["generation_id"]) == (1, OTHER)
        with stage.nothing_written():
            (await stage.face.chunks(delta("early", OTHER))).refused("GENERATION_MISMATCH", generation_id=OTHER)
            (await stage.face.finish(OTHER)).refused("GENERATION_MISMATCH", generation_id=OTHER)
            (await stage.face.start(producer="remote", policy="reject")).refused("GENERATION_ACTIVE")
        (await stage.face.finish(GID)).done()
        await stage.wait_event("generation.started", generation_id=OTHER)
        assert (await stage.face.chunks(delta("second", OTHER))).done()["turn"] == 2
        (await stage.face.finish(OTHER)).done()


# --- stop


#
@each_face
async def test_a_stop_reaches_the_producer_on_its_next_call_and_a_socket_at_once(face: str) -> None:
    async with producing(face) as stage:
        (await stage.face.chunks(delta("so far", message_id=MID))).done()
        stopped = (await stage.client.post(f"{S}/stop", json={"generation_id": GID})).json()
        assert stopped == {"session_id": "s", "state": "stopped", "generation_id": GID}
        if isinstance(stage.face, SocketFace):
            (await stage.face.fenced()).refused("STALE_GENERATION", session_id="s", generation_id=GID)
        with stage.nothing_written():
            (await stage.face.chunks(delta("late", message_id=MID))).refused("STALE_GENERATION", generation_id=GID)
            (await stage.face.finish(GID)).refused("STALE_GENERATION", generation_id=GID)
        shown = (await stage.client.get(S)).json()["messages"][0]
        assert (shown["status"], shown["blocks"][0]["text"]) == ("cancelled", "so far")


@each_face
async def test_a_stop_that_came_first_stops_the_first_chunk(face: str) -> None:
    async with producing(face) as stage:
        assert (await stage.face.stop(generation_id=GID)).done()["state"] == "pending"
        (await stage.face.chunks(delta("x"))).refused("STALE_GENERATION", generation_id=GID)
        events = await stage.events()
        assert types_of(events) == ["session.created", "generation.started", "generation.finished"]
        assert data_of(events, "generation.finished")[0]["outcome"] == "stopped"


async def test_who_ends_it_is_not_told_that_it_has_ended() -> None:
    async with producing("websocket") as stage:
        assert isinstance(stage.face, SocketFace)
        (await stage.face.chunks(delta("a"))).done()
        (await stage.face.finish(GID, outcome="?")).refused("INVALID_BODY")
        (await stage.face.chunks(delta("b"))).done()
        (await stage.face.finish(GID)).done()
        assert (await stage.face.ask("ping", {})).done() == {}, "and no frame came before"
        assert stage.face.unasked == []
        (await stage.face.chunks(delta("c", OTHER))).done()
        (await stage.face.finish(OTHER, code="X")).refused("INVALID_BODY")
        await stage.client.post(f"{S}/stop")
        (await stage.face.fenced()).refused("STALE_GENERATION", generation_id=OTHER)
        (await stage.face.chunks(delta("d", OTHER))).refused("STALE_GENERATION")
        assert stage.face.unasked == [], "it is told once"


async def test_every_socket_that_writes_to_a_generation_is_told() -> None:
    async with producing("websocket") as stage, stage.world.socket() as second, stage.world.socket() as third:
        assert isinstance(stage.face, SocketFace)
        others = SocketFace(second), SocketFace(third)
        (await stage.face.chunks(delta("a"))).done()
        (await others[0].chunks(delta("b"))).done()
        (await others[1].chunks(delta("c", OTHER))).refused("GENERATION_MISMATCH")
        (await others[0].finish(GID)).done()
        (await stage.face.fenced()).refused("STALE_GENERATION", generation_id=GID)
        for other in others:
            assert (await other.ask("ping", {})).done() == {}
            assert other.unasked == []


async def test_a_socket_produces_into_so_many_generations_and_no_more() -> None:
    async with producing("websocket", socket=SocketConfig(max_productions=2)) as stage:
        for name in "tu":
            await stage.client.put(f"/v1/sessions/{name}")
        (await stage.face.chunks(delta("a"))).done()
        (await stage.face.chunks(delta("b", OTHER), session_id="t")).done()
        with stage.nothing_written():
            (await stage.face.chunks(delta("c", THIRD), session_id="u")).refused("OVERLOADED", session_id="u")
        (await stage.face.chunks(delta("a", GID.upper()))).done()
        (await stage.face.finish(GID)).done()
        (await stage.face.chunks(delta("c", THIRD), session_id="u")).done()


async def test_a_socket_that_leaves_does_not_end_what_it_produces() -> None:
    async with producing("http") as stage:
        async with stage.world.socket() as socket:
            (await SocketFace(socket).chunks(delta("a", message_id=MID), stamp=("p", 0, 0))).done()
        assert (await stage.generation())["state"] == "live"
        (await stage.face.chunks(delta("b", message_id=MID), stamp=("p", 0, 1))).done()
        assert await stage.texts() == {MID: "ab"}


# --- people's answers


# the answer of a person comes to a remote producer in the stream.
@each_face
async def test_approvals_and_inputs_come_through_the_stream(face: str) -> None:
    async with producing(face, config=Config(inputs=1)) as stage:
        asked = of("approval.requested", data={"approval_id": "ok?", "name": "rm", "arguments": {"path": "/"}})
        assert (await stage.face.chunks(asked)).done()["accepted"] == 1
        with stage.nothing_written():
            assert (await stage.face.chunks(asked)).done()["duplicates"] == 1
        assert [each["approval_id"] for each in (await stage.client.get(S)).json()["approvals"]] == ["ok?"]
        changed = {"path": "/tmp"}
        answer = {"kind": "approval", "approval_id": "ok?", "approved": True, "by": "ada", "arguments": changed}
        (await stage.face.put_in(GID, **answer)).done()
        resolved = (await stage.wait_event("approval.resolved", generation_id=GID))["data"]
        assert resolved == {"approval_id": "ok?", "approved": True, "by": "ada", "arguments": changed}
        (await stage.face.put_in(GID, **answer)).refused("APPROVAL_NOT_FOUND")
        (await stage.face.put_in(GID, kind="steer", input_id="one", text="shorter")).done()
        accepted = (await stage.wait_event("input.accepted", generation_id=GID))["data"]
        assert accepted == {"input_id": "one", "kind": "steer", "text": "shorter"}
        (await stage.face.put_in(GID, kind="steer", input_id="two")).refused("QUEUE_FULL", generation_id=GID)
        applied = of("input.applied", data={"input_id": "one"})
        told = (await stage.face.chunks(applied, applied)).done()
        assert (told["accepted"], told["duplicates"]) == (1, 1)
        (await stage.face.put_in(GID, kind="steer", input_id="two")).done()
        (await stage.face.chunks(of("approval.requested", data={"approval_id": "more?", "name": "x"}))).done()
        (await stage.face.finish(GID)).done()
        events = await stage.events()
        assert types_of(events)[-3:] == ["approval.resolved", "input.returned", "generation.finished"]
        assert data_of(events, "approval.resolved")[1]["approved"] is False
        assert data_of(events, "input.returned") == [{"input_id": "two"}]


# --- durable before it is answered


async def held(hold: Hold, count: int = 1) -> None:
    with trio.fail_after(PATIENCE):
        while len(hold) < count:  # noqa: ASYNC110  # the log tells nobody
            await trio.sleep(0.01)


#
# Neither the producer nor a reader is told before the commit.
@pytest.mark.parametrize("what", ["first", "chunk", "finish"])
@each_face
async def test_nothing_is_answered_or_seen_before_it_is_stored(face: str, what: str) -> None:
    async with producing(face) as stage, stage.world.lines(f"{S}/events", accept="application/x-ndjson") as lines:
        while '"presence"' not in await lines.next():
            pass
        if what != "first":
            (await stage.face.chunks(delta("a", message_id=MID))).done()
            while '"block.delta"' not in await lines.next():
                pass
        before = len(await stage.events())
        hold = Hold()
        stage.faulty.schedule = lambda _, write: hold if write.session_id == "s" else None
        told: list[Told] = []

        async def ask() -> None:
            if what == "finish":
                told.append(await stage.face.finish(GID, stamp=("p", 0, 0)))
            else:
                told.append(await stage.face.chunks(delta("b", message_id=MID), stamp=("p", 0, 0)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await held(hold)
            # Others are served meanwhile, in this session and beside it; and nobody sees what is not stored.
            assert (await stage.client.put("/v1/sessions/t")).status_code == 201
            assert len(await stage.events()) == before
            shown = (await stage.client.get(S)).json()
            assert shown["cursor"].endswith(f"-{before:016}")
            assert told == []
            stage.faulty.schedule = None
            hold.release()
        assert told[0].code is None
        if what == "finish":
            while '"generation.finished"' not in await lines.next():
                pass
        assert told[0].body["cursor"].endswith(f"-{len(await stage.events()):016}")


# What was not answered in time may be asked for again, and counts once.
@each_face
async def test_a_log_that_hangs_is_a_timeout_and_the_retry_a_duplicate(face: str) -> None:
    async with producing(face, config=Config(flush_timeout=0.1)) as stage:
        (await stage.face.chunks(delta("a", message_id=MID), stamp=("p", 0, 0))).done()
        hold = Hold()
        stage.faulty.schedule = lambda _, __: hold
        for _ in range(2):
            told = await stage.face.chunks(delta("b", message_id=MID), stamp=("p", 0, 1))
            told.refused("TIMEOUT", session_id="s", generation_id=GID)
        stage.faulty.schedule = None
        hold.release()
        again = (await stage.face.chunks(delta("b", message_id=MID), stamp=("p", 0, 1))).done()
        assert (again["accepted"], again["duplicates"]) == (0, 1)
        (await stage.face.chunks(delta("c", message_id=MID), stamp=("p", 0, 2))).done()
        assert await stage.texts() == {MID: "abc"}


# --- silence, shutdown, restart


@each_face
async def test_a_producer_that_vanished_is_noticed(face: str) -> None:
    async with producing(face, config=Config(idle_limit=0.2)) as stage:
        (await stage.face.chunks(delta("a", message_id=MID))).done()
        end = await stage.wait_event("generation.finished", generation_id=GID)
        assert end["data"]["outcome"] == "stalled"
        if isinstance(stage.face, SocketFace):
            (await stage.face.fenced()).refused("STALE_GENERATION", session_id="s", generation_id=GID)
        (await stage.face.chunks(delta("late", message_id=MID))).refused("STALE_GENERATION", generation_id=GID)


# R-71 R-145
@each_face
async def test_a_drain_leaves_it_open_and_the_next_process_goes_on(face: str, tmp_path: Path) -> None:
    path = tmp_path / "produced.db"
    log = await open_sqlite(path)
    async with producing(face, log) as stage:
        (await stage.face.chunks(delta("one ", message_id=MID), stamp=("p", 0, 0))).done()
        asked = of("approval.requested", data={"approval_id": "ok?", "name": "x"})
        (await stage.face.chunks(asked, stamp=("p", 0, 1))).done()
        if isinstance(stage.face, SocketFace):
            stage.world.served.shutdown.set()
            assert (await stage.face.fenced()).refused("DRAINING", session_id="s", generation_id=GID)["retryable"]
            assert await stage.face.socket.closed() == 1001
            await stage.face.socket.stream.aclose()
            await stage.client.aclose()  # the server gives everybody a moment to leave
            with trio.fail_after(PATIENCE):
                await stage.world.served.finished.wait()
        else:
            await stage.world.engine.drain()
            (await stage.face.chunks(delta("no"), stamp=("p", 0, 2))).refused("DRAINING", generation_id=GID)
            (await stage.face.finish(GID, stamp=("p", 0, 2))).refused("DRAINING", generation_id=GID)
        assert types_of(await stage.events())[-2:] == ["block.delta", "approval.requested"]
    await log.aclose()
    log = await open_sqlite(path)
    async with producing(face, log) as stage:
        assert (await stage.generation())["state"] == "live"
        again = await stage.face.chunks(asked, stamp=("p", 0, 1))
        assert again.done()["duplicates"] == 1
        told = (await stage.face.chunks(delta("two", message_id=MID, seq=2), stamp=("p", 0, 2))).done()
        assert (told["turn"], told["accepted"]) == (1, 1)
        (await stage.face.put_in(GID, kind="approval", approval_id="ok?", approved=True)).done()
        (await stage.face.finish(GID, stamp=("p", 0, 3))).done()
        assert await stage.texts() == {MID: "one two"}
        assert types_of(await stage.events()).count("generation.started") == 1
        assert (await stage.generation())["outcome"] == "completed"
    await log.aclose()


# a crash does not end it either, and what was answered is there.
@each_face
async def test_a_crash_leaves_it_open_until_nobody_comes(face: str) -> None:
    log = MemoryLog()
    async with producing(face, log) as stage:
        (await stage.face.chunks(delta("one ", message_id=MID), stamp=("p", 0, 0))).done()
        left, forsaken = await copied(log), await copied(log)
    async with producing(face, left) as stage:
        (await stage.face.chunks(delta("one ", message_id=MID), stamp=("p", 0, 0))).done()
        (await stage.face.chunks(delta("two", message_id=MID), stamp=("p", 0, 1))).done()
        (await stage.face.finish(GID, stamp=("p", 0, 2))).done()
        assert await stage.texts() == {MID: "one two"}
    async with producing(face, forsaken, config=Config(idle_limit=0.2)) as stage:
        end = await stage.wait_event("generation.finished", generation_id=GID)
        assert end["data"]["outcome"] == "lost"
        (await stage.face.chunks(delta("two", message_id=MID), stamp=("p", 0, 1))).refused("STALE_GENERATION")


# --- many at a time


#
# However requests race, each is written once and in order.
@each_face
async def test_the_same_request_on_many_lines_is_written_once(face: str) -> None:
    async with producing(face) as stage:
        told: list[Told] = []

        async def ask(line: Face) -> None:
            told.append(await line.chunks(delta("a", message_id=MID), delta("b", message_id=MID), stamp=("p", 0, 0)))

        async with trio.open_nursery() as lines:
            others = [await lines.start(partial(_another, stage, face)) for _ in range(7)]
            async with trio.open_nursery() as nursery:
                for line in (stage.face, *others):
                    nursery.start_soon(ask, line)
            lines.cancel_scope.cancel()
        assert sorted(each.done()["accepted"] for each in told) == [0] * 7 + [2]
        assert await stage.texts() == {MID: "ab"}


async def _another(stage: Stage, face: str, *, task_status: trio.TaskStatus[Face]) -> None:
    """One more line to the server."""
    if face == "http":
        async with stage.world.client() as client:
            task_status.started(HttpFace(client))
            await trio.sleep_forever()
    else:
        async with stage.world.socket() as socket:
            task_status.started(SocketFace(socket))
            await trio.sleep_forever()
