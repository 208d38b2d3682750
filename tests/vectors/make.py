"""Writes the vectors: what a reducer must say to each event, and the state that it has then.

    python -m tests.vectors.make

The cases are written by hand below; verdicts and states are the engine's. A change of a file is a change of what the
protocol means: look at it before it is stored. One file each: ``session_id``, ``epoch`` and ``steps`` of ``event``,
``verdict`` and ``state``, which is the whole snapshot behind that event, and is left out where nothing has changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from penstock.engine import JSON, CallerError, InvalidBody, SessionState, from_json
from penstock.engine.reducer import Applied, Gap

__all__ = ["CASES", "EPOCH", "FOLDER", "Wire", "judge", "vector", "written"]

FOLDER: Final = Path(__file__).parent
SESSION: Final = "s"
EPOCH: Final = "e"

Wire: TypeAlias = dict[str, JSON]


class Log:
    """Stamps events one after the other."""

    def __init__(self) -> None:
        self.events: list[Wire] = []
        self.offset = 0

    def put(self, kind: str, data: Mapping[str, JSON], **stamp: JSON) -> Wire:
        self.offset += 1
        time = f"2026-01-31T09:26:{self.offset % 60:02d}.000Z"
        event: Wire = {"type": kind, "session_id": SESSION, "offset": self.offset, "time": time, **stamp, "data": data}
        self.events.append(event)
        return event

    def again(self, *events: Wire, **changed: JSON) -> None:
        """Events as they were, or with other fields; None takes one away. The next offset stays what it is."""
        self.events += [{k: v for k, v in {**event, **changed}.items() if v is not None} for event in events]

    def skip(self, count: int) -> None:
        self.offset += count


def run(turn: int) -> dict[str, JSON]:
    return {"generation_id": f"g{turn}", "turn": turn}


def block(message: str, index: int, seq: int) -> dict[str, JSON]:
    return {"message_id": message, "block_index": index, "seq": seq}


def text(kind: str, seq: int, said: str) -> Wire:
    return {"kind": kind, "seq": seq, "text": said}


def answer(log: Log) -> None:
    """A question and its answer."""
    log.put("session.created", {"metadata": {"title": "Water"}})
    said: Wire = {"role": "user", "status": "complete", "blocks": [text("text", 0, "Whither?")]}
    log.put("message.snapshot", said, message_id="u1")
    log.put("generation.started", {"producer": "echo", "policy": "supersede"}, **run(1), job_id="j")
    log.put("generation.status", {"status": "thinking"}, **run(1), job_id="j")
    log.put("message.opened", {"role": "assistant", "parent_message_id": "u1"}, **run(1), job_id="j", message_id="m1")
    pieces: list[tuple[str, Wire]] = [
        ("opened", {"kind": "text"}),
        ("delta", {"text": "Down"}),
        ("delta", {"text": "hill 水🚰."}),
        ("closed", {}),
    ]
    for seq, (kind, data) in enumerate(pieces):
        log.put(f"block.{kind}", data, **run(1), job_id="j", **block("m1", 0, seq))
    closed: Wire = {"status": "complete", "finish_reason": "stop", "usage": {"tokens": 2}}
    log.put("message.closed", closed, **run(1), job_id="j", message_id="m1")
    log.put("generation.finished", {"outcome": "completed"}, **run(1), job_id="j")


def tools(log: Log) -> None:
    """Reasoning, a tool call with an approval, its result, data; inputs taken in, used and given back."""
    log.put("session.created", {"metadata": {}})
    log.put("generation.started", {"producer": "agent", "policy": "reject", "metadata": {"model": "m"}}, **run(1))
    log.put("message.opened", {"role": "assistant", "metadata": {"n": None}}, **run(1), message_id="m1")
    log.put("block.opened", {"kind": "reasoning"}, **run(1), **block("m1", 0, 0))
    call: Wire = {"kind": "tool_call", "tool_call_id": "c1", "name": "rm"}
    log.put("block.opened", call, **run(1), **block("m1", 1, 0))
    log.put("block.delta", {"text": "Is it safe?"}, **run(1), **block("m1", 0, 1))
    log.put("block.delta", {"arguments": '{"path": '}, **run(1), **block("m1", 1, 1))
    log.put("block.delta", {"arguments": '"/tmp"}'}, **run(1), **block("m1", 1, 2))
    log.put("block.closed", {"text": "It is safe."}, **run(1), **block("m1", 0, 2))
    log.put("block.closed", {"arguments": {"path": "/tmp"}}, **run(1), **block("m1", 1, 3))
    asked: Wire = {"approval_id": "a1", "tool_call_id": "c1", "name": "rm", "arguments": {"path": "/tmp"}}
    log.put("approval.requested", asked, **run(1), message_id="m1")
    log.put("approval.requested", {"approval_id": "a2", "expires_at": "2026-01-31T10:26:00.000Z"}, **run(1))
    log.put("input.accepted", {"input_id": "i1", "kind": "steer", "text": "shorter", "weight": 1.5}, **run(1))
    log.put("input.accepted", {"input_id": "i2", "kind": "ping"}, **run(1))
    log.put("approval.resolved", {"approval_id": "a1", "approved": True, "by": "ann"}, **run(1))
    log.put("input.applied", {"input_id": "i1"}, **run(1))
    log.put("message.closed", {"status": "complete"}, **run(1), message_id="m1")
    log.put("message.opened", {"role": "tool"}, **run(1), message_id="m2")
    log.put("block.opened", {"kind": "tool_result", "tool_call_id": "c1"}, **run(1), **block("m2", 0, 0))
    log.put("block.closed", {"text": "no such file", "is_error": True}, **run(1), **block("m2", 0, 1))
    log.put("block.opened", {"kind": "data"}, **run(1), **block("m2", 1, 0))
    values: list[JSON] = [{"rows": [1, None, "x"]}, False, 0, "", []]
    for seq, value in enumerate(values, 1):
        log.put("block.delta", {"value": value}, **run(1), **block("m2", 1, seq))
    log.put("approval.resolved", {"approval_id": "a2", "approved": False, "reason": "failed"}, **run(1))
    log.put("input.returned", {"input_id": "i2"}, **run(1))
    log.put("block.closed", {}, **run(1), **block("m2", 1, 6))
    log.put("message.closed", {"status": "failed"}, **run(1), message_id="m2")
    log.put("generation.finished", {"outcome": "failed", "code": "INTERNAL", "message": "it broke"}, **run(1))


def turns(log: Log) -> None:
    """One generation takes over from another, one is rolled back, others wait; the queue is held and goes on."""
    log.put("session.created", {"metadata": {}})
    log.put("generation.started", {"producer": "p", "policy": "supersede"}, **run(1))
    log.put("message.opened", {"role": "assistant"}, **run(1), message_id="m1")
    log.put("block.opened", {"kind": "text"}, **run(1), **block("m1", 0, 0))
    log.put("block.delta", {"text": "old"}, **run(1), **block("m1", 0, 1))
    log.put("generation.cancelling", {"reason": "superseded", "by": "g2"}, **run(1))
    log.put("block.closed", {}, **run(1), **block("m1", 0, 2))
    log.put("message.closed", {"status": "cancelled"}, **run(1), message_id="m1")
    log.put("generation.finished", {"outcome": "superseded", "superseded_by": "g2", "cleanup": "clean"}, **run(1))
    log.put("generation.started", {"producer": "p", "policy": "supersede", "supersedes": "g1"}, **run(2))
    log.put("message.opened", {"role": "assistant"}, **run(2), message_id="m2")
    waits: Wire = {"producer": "p", "policy": "queue", "position": 1, "text": "and then?", "metadata": {"n": 1}}
    log.put("generation.queued", waits, generation_id="g3", job_id="j3")
    log.put("generation.queued", {"producer": "p", "policy": "queue", "position": 2}, generation_id="g4")
    log.put("generation.queued", {"producer": "p", "policy": "latest", "position": 3}, generation_id="g5")
    log.put("generation.cancelling", {"reason": "stopped"}, **run(2))
    log.put("message.closed", {"status": "cancelled"}, **run(2), message_id="m2")
    log.put("message.retracted", {"reason": "superseded"}, **run(2), message_id="m2")
    log.put("generation.finished", {"outcome": "stopped", "cleanup": "overran"}, **run(2))
    log.put("queue.paused", {"reason": "stopped"})
    log.put("generation.finished", {"outcome": "stopped"}, generation_id="g4")
    log.put("queue.resumed", {"reason": "next"})
    started: Wire = {"producer": "p", "policy": "queue"}
    log.put("generation.started", started, generation_id="g3", turn=3, job_id="j3")
    log.put("generation.finished", {"outcome": "lost"}, generation_id="g3", turn=3, job_id="j3")
    log.put("generation.finished", {"outcome": "superseded"}, generation_id="g5")
    log.put("message.retracted", {"reason": "retracted"}, message_id="m1")


def compacted(log: Log) -> None:
    """Closed messages whose blocks gave way to a snapshot: offsets are missing, and nothing else is."""
    log.put("session.created", {"metadata": {}})
    log.put("generation.started", {"producer": "p", "policy": "supersede"}, **run(1))
    log.put("message.opened", {"role": "assistant"}, **run(1), message_id="m1")
    log.skip(3)
    whole: Wire = {"role": "assistant", "status": "complete", "blocks": [text("text", 3, "all of it")]}
    log.put("message.snapshot", whole, **run(1), message_id="m1")
    log.put("message.closed", {"status": "complete", "finish_reason": "stop"}, **run(1), message_id="m1")
    # two at once, of which one was read as far as its first delta
    log.put("message.opened", {"role": "assistant"}, **run(1), message_id="m2")
    log.put("message.opened", {"role": "assistant"}, **run(1), message_id="m3")
    log.put("block.opened", {"kind": "text"}, **run(1), **block("m2", 0, 0))
    log.put("block.delta", {"text": "a"}, **run(1), **block("m2", 0, 1))
    log.skip(5)
    log.put("generation.status", {"status": "working"}, **run(1))
    less: Wire = {"role": "assistant", "status": "complete", "blocks": [text("text", 0, "")]}
    log.put("message.snapshot", less, **run(1), message_id="m2")
    log.skip(-1)
    both: list[JSON] = [text("text", 3, "ab"), {"kind": "data", "seq": 1, "value": {"x": 1}}]
    log.put("message.snapshot", {**whole, "blocks": both}, **run(1), message_id="m2")
    log.put("block.delta", {"text": "late"}, **run(1), **block("m2", 0, 4))
    log.skip(-1)
    log.put("message.closed", {"status": "complete"}, **run(1), message_id="m2")
    log.put("message.closed", {"status": "complete"}, **run(1), message_id="m3")
    # a jump that nothing can explain, and one that only the message could that closes
    log.skip(1)
    log.put("app.note", {})
    log.skip(-2)
    log.put("message.opened", {"role": "assistant"}, **run(1), message_id="m4")
    log.skip(2)
    log.put("generation.status", {"status": "thinking"}, **run(1))
    log.put("message.closed", {"status": "complete"}, **run(1), message_id="m4")


def lives(log: Log) -> None:
    """A fork, metadata, the application's own events, types of a later version, a reset."""
    log.put("session.forked", {"source_session_id": "s0", "source_cursor": f"e-{7:016}", "metadata": {"a": {"b": [1]}}})
    for number, status in enumerate(("complete", "cancelled"), 1):
        blocks: list[JSON] = [
            text("text", 4, f"said {number}"),
            {"kind": "tool_call", "seq": 2, "name": "f", "tool_call_id": "c"},
        ]
        whole: Wire = {"role": "assistant", "status": status, "blocks": blocks, "metadata": {"n": number}}
        log.put("message.snapshot", whole, message_id=f"m{number}")
    log.put("session.updated", {"metadata": {"title": "Fork", "__proto__": 1, "constructor": None}})
    log.put("app.scored", {"score": 0.5})
    log.put("message.newer", {"any": "thing"})
    log.put("generation.queued", {"producer": "p", "policy": "queue", "position": 1}, generation_id="g1")
    log.put("approval.requested", {"approval_id": "a1"})
    log.put("session.reset", {"reason": "again"})
    log.put("generation.started", {"producer": "p", "policy": "supersede"}, **run(4))
    log.put("generation.finished", {"outcome": "completed", "usage": {"tokens": 1}}, **run(4))


def named(log: Log) -> None:
    """Pictures, files and sources: posted, written by a producer, and come whole."""
    log.put("session.created", {"metadata": {}})
    picture: Wire = {"kind": "image", "seq": 0, "media_type": "image/png", "file_id": "f1", "filename": "pen水.png"}
    paper: Wire = {"kind": "file", "seq": 0, "media_type": "application/pdf", "url": "https://example.org/a.pdf"}
    asked: Wire = {"role": "user", "status": "complete", "blocks": [text("text", 0, "What is this?"), picture, paper]}
    log.put("message.snapshot", {**asked, "metadata": {"n": 1}}, message_id="u1")
    log.put("generation.started", {"producer": "p", "policy": "supersede"}, **run(1))
    log.put("message.opened", {"role": "assistant"}, **run(1), message_id="m1")
    said: list[Wire] = [
        {"kind": "image", "url": "https://example.org/b.png"},
        {"kind": "source", "url": "https://example.org/", "title": "Where it stands"},
        {"kind": "source", "file_id": "f1"},
    ]
    for index, head in enumerate(said):
        log.put("block.opened", head, **run(1), **block("m1", index, 0))
        log.put("block.closed", {}, **run(1), **block("m1", index, 1))
    log.put("message.closed", {"status": "complete"}, **run(1), message_id="m1")
    # one that was compacted, of which one block had been read
    log.put("message.opened", {"role": "assistant"}, **run(1), message_id="m2")
    log.put("block.opened", said[1], **run(1), **block("m2", 0, 0))
    log.skip(2)
    whole: Wire = {"role": "assistant", "status": "complete", "blocks": [{**said[1], "seq": 1}, {**said[0], "seq": 1}]}
    log.put("message.snapshot", whole, **run(1), message_id="m2")
    log.put("message.closed", {"status": "complete"}, **run(1), message_id="m2")
    log.put("generation.finished", {"outcome": "completed"}, **run(1))
    for name in ("media_type", "file_id", "url", "filename", "title"):
        opened = log.put("app.note", {})
        log.again(opened, type="block.opened", data={**said[0], name: 1}, **run(1), **block("m3", 0, 0))


def ends(log: Log) -> None:
    """How generations ended that wrote no message, or whose messages come from elsewhere; what approvals came to."""
    source: Wire = {"source_session_id": "s0", "source_cursor": f"e-{9:016}", "metadata": {}}
    log.put("session.forked", source)
    for number, message in enumerate(("f1", "f2", "f3")):
        end: Wire = {"generation_id": f"s0-{number % 2}", "turn": 5 + number % 2, "outcome": "superseded"}
        if number % 2:
            end |= {"outcome": "failed", "code": "MODEL_AUTH", "message": "the key is wrong"}
        whole: Wire = {
            "role": "assistant",
            "status": "cancelled",
            "blocks": [text("text", 1, "old")],
            "generation": end,
        }
        log.put("message.snapshot", whole, message_id=message)
    asked: Wire = {"role": "user", "status": "complete", "blocks": [text("text", 0, "And?")]}
    silent: Wire = {"generation_id": "s0-2", "turn": 7, "outcome": "stalled", "code": "STALLED", "message": "Nothing."}
    log.put("message.snapshot", {**asked, "silent": silent}, message_id="f4")
    said: Wire = {"role": "user", "status": "complete", "blocks": [text("text", 0, "Hello?")], "author": "ann"}
    log.put("message.snapshot", said, message_id="u1")
    began: Wire = {"producer": "p", "policy": "supersede", "author": "ann"}
    failed: Wire = {"outcome": "failed", "code": "MODEL_AUTH", "message": "the key is wrong", "retryable": False}
    # nothing came of the first two; of the third a message did, and it was cut off
    for turn in (1, 2):
        log.put("generation.started", began, **run(turn))
        log.put("generation.finished", failed, **run(turn))
    waits: Wire = {"producer": "gone", "policy": "queue", "position": 1, "author": "bob"}
    log.put("generation.started", began, **run(3))
    log.put("generation.queued", waits, generation_id="q1")
    log.put("message.opened", {"role": "assistant"}, **run(3), message_id="m1")
    call: Wire = {"kind": "tool_call", "tool_call_id": "c1", "name": "rm"}
    log.put("block.opened", call, **run(3), **block("m1", 0, 0))
    log.put("approval.requested", {"approval_id": "a1", "tool_call_id": "c1", "name": "rm"}, **run(3), message_id="m1")
    log.put("block.closed", {"arguments": {}}, **run(3), **block("m1", 0, 1))
    cut: Wire = {"status": "complete", "finish_reason": "length"}
    log.put("message.closed", cut, **run(3), message_id="m1")
    no: Wire = {"approval_id": "a1", "approved": False, "tool_call_id": "c1", "reason": "not now", "by": "bob"}
    log.put("approval.resolved", no, **run(3), message_id="m1")
    # one that the fold keeps with no message, for it bears none
    log.put("approval.requested", {"approval_id": "a2", "name": "mv"}, **run(3))
    log.put("approval.resolved", {"approval_id": "a2", "approved": True, "arguments": {"n": 1}}, **run(3))
    log.put("generation.cancelling", {"reason": "stopped", "author": "bob"}, **run(3))
    lost: Wire = {"outcome": "failed", "code": "PRODUCER_NOT_FOUND", "message": "Nobody here can produce it."}
    log.put("generation.finished", lost, generation_id="q1")
    stopped: Wire = {"outcome": "stopped", "usage": {"tokens": 7, "partial": True}, "author": "bob"}
    log.put("generation.finished", stopped, **run(3))
    # the answer goes on
    log.put("generation.started", {**began, "continues": "m1"}, **run(4))
    log.put("message.opened", {"role": "assistant", "continues": "m1"}, **run(4), message_id="m2")
    log.put("message.closed", {"status": "complete"}, **run(4), message_id="m2")
    log.put("generation.finished", {"outcome": "completed"}, **run(4))
    # with what they stand behind go those that wrote nothing; with its only message, the one that wrote it
    for message in ("u1", "f1", "m1", "f4"):
        log.put("message.retracted", {"reason": "retracted"}, message_id=message)
    log.put("generation.started", began, **run(5))
    log.put("message.retracted", {"reason": "retracted"}, message_id="m2")
    log.put("generation.finished", failed, **run(5))
    log.put("session.reset", {})


def versions(log: Log) -> None:
    """An answer is given anew, in vain at first; what it replaced comes back, and leaves again."""
    log.put("session.created", {"metadata": {}})
    said: Wire = {"role": "user", "status": "complete", "blocks": [text("text", 0, "Why?")]}
    log.put("message.snapshot", said, message_id="u1")
    began: Wire = {"producer": "p", "policy": "supersede", "author": "ann"}

    def message(message_id: str, turn: int, opened: Mapping[str, JSON], piece: str) -> None:
        log.put("message.opened", {"role": "assistant", **opened}, **run(turn), message_id=message_id)
        log.put("block.opened", {"kind": "text"}, **run(turn), **block(message_id, 0, 0))
        log.put("block.delta", {"text": piece}, **run(turn), **block(message_id, 0, 1))
        log.put("block.closed", {}, **run(turn), **block(message_id, 0, 2))
        log.put("message.closed", {"status": "complete"}, **run(turn), message_id=message_id)

    first = log.put("generation.started", began, **run(1))
    message("m1", 1, {}, "Because.")
    message("m2", 1, {"parent_message_id": "m1"}, "So.")
    usage: Wire = {
        "outcome": "failed",
        "code": "MODEL_AUTH",
        "retryable": False,
        "usage": {"tokens": 3, "partial": True},
    }
    last = log.put("generation.finished", usage, **run(1))
    # the second part of it anew: of the first generation one message stays
    second: Wire = {"of": "m2", "index": 2, "count": 2}
    log.put("message.retracted", {"reason": "replaced"}, message_id="m2")
    log.put("generation.started", {**began, "version": second}, **run(2))
    log.put("generation.finished", {"outcome": "failed"}, **run(2))
    log.put("generation.started", {**began, "version": second}, **run(3))
    message("m3", 3, {"version": second}, "Hence.")
    log.put("generation.finished", {"outcome": "completed"}, **run(3))
    wrote: Wire = {**run(1), **usage, "author": "ann"}
    for name, event in (("started", first), ("finished", last)):
        wrote[name] = {"cursor": f"{EPOCH}-{event['offset']:016}", "time": event["time"]}
    end: Wire = {"status": "complete", "finish_reason": "length", "usage": {"output_tokens": 3}}
    whole: Wire = {"role": "assistant", **end, "blocks": [text("text", 2, "So.")], "generation": wrote}
    log.put("message.retracted", {"reason": "replaced"}, message_id="m3")
    log.put("message.snapshot", {**whole, "version": {**second, "index": 1}}, message_id="m4")
    # the whole answer anew, and back: nothing of its generation was left
    for message_id in ("m1", "m4"):
        log.put("message.retracted", {"reason": "replaced"}, message_id=message_id)
    log.put("generation.started", {**began, "version": {"of": "m1", "index": 2, "count": 2}}, **run(4))
    log.put("generation.finished", {"outcome": "stopped"}, **run(4))
    log.put("message.snapshot", {**whole, "version": {"of": "m1", "index": 1, "count": 1}}, message_id="m5")
    log.put("message.snapshot", {**whole, "version": {**second, "index": 1}}, message_id="m6")
    edited: Wire = {"of": "u1", "index": 2, "count": 2}
    for message_id in ("u1", "m5", "m6"):
        log.put("message.retracted", {"reason": "replaced"}, message_id=message_id)
    log.put("message.snapshot", {**said, "version": edited}, message_id="u2")
    bad: Wire = {"of": "u1", "index": "2", "count": 2}
    ahead = log.offset + 1
    log.again(first, offset=ahead, **run(9), data={**began, "version": bad})
    log.again(first, offset=ahead, type="message.snapshot", data={**said, "version": bad}, message_id="u3")
    broken: Wire = {**wrote, "started": {"cursor": "e-1", "time": ""}}
    log.again(first, offset=ahead, type="message.snapshot", data={**whole, "generation": broken}, message_id="u3")


def repeats(log: Log) -> None:
    """What a reader meets who reconnects, or has two lines at once: every event once, whatever comes again."""
    answer(log)
    first = list(log.events)
    log.again(*first)
    log.again(*reversed(first[4:9]))
    log.again(first[6], session_id="t", offset=log.offset + 1)
    gone: Wire = {"actor_id": "ann", "device_id": "desk", "status": "gone"}
    log.again(first[0], type="presence.changed", offset=None, data=gone)
    log.again(first[0], type="future.ephemeral", offset=None)
    log.put("block.delta", {"text": "Down"}, **run(1), job_id="j", **block("m1", 0, 1))  # its seq is known
    log.again(*first[2:5])
    log.put("app.note", {})


def refused(log: Log) -> None:
    """What does not follow from what is known, or is not whole. None of it leaves a trace."""
    log.put("session.created", {"metadata": {}})
    started = log.put("generation.started", {"producer": "p", "policy": "supersede"}, **run(3))
    opened = log.put("message.opened", {"role": "assistant"}, **run(3), message_id="m1")
    log.put("block.opened", {"kind": "text"}, **run(3), **block("m1", 0, 0))
    delta = log.put("block.delta", {"text": "a"}, **run(3), **block("m1", 0, 1))
    ahead: dict[str, JSON] = {"offset": log.offset + 1}
    bad: list[tuple[Wire, dict[str, JSON]]] = [
        (started, {"generation_id": "g4", "turn": 4}),  # another one is live
        (opened, {}),  # again
        (opened, {"message_id": "m2", "generation_id": "g2", "turn": 2}),  # of a generation that is over
        (delta, {"seq": 3}),
        (delta, {"seq": 2, "block_index": 1}),
        (delta, {"seq": 2, "message_id": "m2"}),
        (delta, {"seq": 2, "generation_id": "g2", "turn": 2}),
        (delta, {"seq": 2, "generation_id": None, "turn": None}),
        (delta, {"type": "block.opened", "data": {"kind": "text"}, "block_index": 2, "seq": 0}),
        (delta, {"type": "block.opened", "data": {"kind": "text"}, "block_index": 1, "seq": 1}),
        (opened, {"type": "message.closed", "data": {"status": "complete"}}),  # with an open block
        (opened, {"type": "message.retracted", "data": {}}),  # while it is open
        (opened, {"type": "message.retracted", "data": {}, "message_id": "m2"}),
        (started, {"type": "generation.finished", "data": {"outcome": "completed"}}),  # with an open message
        (started, {"type": "generation.finished", "data": {"outcome": "completed"}, "generation_id": "g2"}),
        (started, {"type": "generation.status", "data": {"status": "working"}, "generation_id": "g2"}),
        (started, {"type": "generation.queued", "data": {"producer": "p", "policy": "queue", "position": 1}}),
        (started, {"type": "session.reset", "data": {}}),  # while one is live
        (started, {"type": "approval.resolved", "data": {"approval_id": "a9", "approved": True}}),
        (started, {"type": "input.applied", "data": {"input_id": "i9"}}),
        # and what is not whole
        (delta, {"seq": 2, "type": None}),
        (delta, {"seq": 2, "session_id": None}),
        (delta, {"seq": 2, "time": None}),
        (delta, {"seq": 2, "data": None}),
        (delta, {"seq": 2, "message_id": None}),
        (delta, {"seq": 2, "block_index": None}),
        (delta, {"seq": None}),
        (delta, {"seq": "2"}),
        (delta, {"seq": 2, "data": {"text": 7}}),
        (delta, {"seq": 2, "data": []}),
        (started, {"generation_id": None}),
        (started, {"type": "generation.status", "data": {}}),
        (opened, {"message_id": "m2", "data": {}}),
        (opened, {"message_id": "m2", "type": "message.snapshot", "data": {"role": "user", "status": "complete"}}),
        (opened, {"message_id": "m2", "type": "message.snapshot", "data": {"role": "", "status": "", "blocks": [{}]}}),
    ]
    for event, changed in bad:
        log.again(event, **{**ahead, **changed})
    log.again(delta, **{**ahead, "seq": 2})


CASES: Final[tuple[Callable[[Log], None], ...]] = (
    answer,
    tools,
    turns,
    compacted,
    lives,
    named,
    ends,
    versions,
    repeats,
    refused,
)


def judge(state: SessionState, event: Wire) -> str:
    """What the engine's fold says to one event, in the words that penstock.js has for it."""
    try:
        known = from_json(event)
        if known.offset is None and known.session_id == state.session_id:
            return "ephemeral"
        folded = state.apply(known)
    except InvalidBody:
        return "invalid"
    except CallerError:
        return "foreign"
    if isinstance(folded, Gap):
        return "gap"
    return "applied" if isinstance(folded, Applied) else "duplicate"


def vector(case: Callable[[Log], None]) -> dict[str, JSON]:
    """The case, folded by the engine."""
    log = Log()
    case(log)
    state = SessionState(SESSION, EPOCH)
    known: object = None
    steps: list[JSON] = []
    for event in log.events:
        step: dict[str, JSON] = {"event": event, "verdict": judge(state, event)}
        shown = json.loads(json.dumps(state.snapshot().to_json()))
        if shown != known:
            step["state"] = known = shown
        steps.append(step)
    return {"about": (case.__doc__ or "").strip(), "session_id": SESSION, "epoch": EPOCH, "steps": steps}


def written(made: Mapping[str, JSON]) -> str:
    """As it stands in the file: a line for each event, for each verdict, and for each part of a state."""
    steps = made["steps"]
    assert isinstance(steps, Sequence)
    head = "".join(f"  {_line(name)}: {_line(made[name])},\n" for name in ("about", "session_id", "epoch"))
    return "{\n" + head + '  "steps": [\n' + ",\n".join(map(_step, steps)) + "\n  ]\n}\n"


def _step(step: JSON) -> str:
    assert isinstance(step, Mapping)
    parts = [f'"{name}": {_line(step[name])}' for name in ("event", "verdict")]
    if "state" in step:
        state = step["state"]
        assert isinstance(state, Mapping)
        fields = ",\n        ".join(f"{_line(name)}: {_line(value)}" for name, value in state.items())
        parts.append('"state": {\n        ' + fields + "\n      }")
    return "    {\n      " + ",\n      ".join(parts) + "\n    }"


def _line(value: JSON) -> str:
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    for each in CASES:
        (FOLDER / f"{each.__name__}.json").write_text(written(vector(each)), encoding="utf-8")
