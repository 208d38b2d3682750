"""Servers that speak the providers' wire formats, on loopback: what they answer is scripted, what they see is kept.

A script is one list of answers; each request takes the next one. An answer is a status, headers and a body in pieces,
with pauses between them, and an end: clean, cut off, or none until the client goes.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Literal

import trio
from attrs import define, field, frozen

__all__ = [
    "WIRES",
    "Answer",
    "Call",
    "Provider",
    "Seen",
    "Wire",
    "body",
    "chat",
    "claude",
    "error",
    "provider",
    "responses",
    "sse",
    "whole",
]

End = Literal["clean", "cut", "hang"]


@frozen(kw_only=True)
class Answer:
    """``pieces``: bytes to send, or seconds to wait. ``silent``: seconds in which not even the head is sent."""

    pieces: Sequence[bytes | float] = ()
    silent: float = 0
    status: int = 200
    headers: Mapping[str, str] = field(factory=dict)
    end: End = "clean"


@define(eq=False)
class Seen:
    """One request, and when its client went before the answer was whole."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, object]
    sent: trio.Event = field(factory=trio.Event)  # all pieces are out
    left: trio.Event = field(factory=trio.Event)
    left_at: float | None = None


@define(eq=False)
class Provider:
    url: str
    script: list[Answer] = field(factory=list)
    seen: list[Seen] = field(factory=list)
    connections: int = 0
    arrived: trio.Event = field(factory=trio.Event)

    def then(self, *answers: Answer) -> None:
        self.script += answers

    async def wait_request(self, number: int = 1) -> Seen:
        """The request with this number, from 1."""
        while len(self.seen) < number:
            await self.arrived.wait()
        return self.seen[number - 1]

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        try:
            async with stream:
                buffer = b""
                while True:
                    while b"\r\n\r\n" not in buffer:
                        buffer += (got := await stream.receive_some())
                        if not got:
                            return
                    head, _, buffer = buffer.partition(b"\r\n\r\n")
                    first, *lines = head.decode().split("\r\n")
                    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                    length = int(headers.get("content-length", "0"))
                    while len(buffer) < length:
                        buffer += await stream.receive_some()
                    text, buffer = buffer[:length], buffer[length:]
                    seen = Seen(first.split()[1], headers, json.loads(text))
                    self.seen.append(seen)
                    self.arrived.set()
                    self.arrived = trio.Event()
                    answer = self.script.pop(0) if self.script else error(500, "the script is at its end")
                    if not await self._answer(stream, answer, seen):
                        return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _answer(self, stream: trio.SocketStream, answer: Answer, seen: Seen) -> bool:
        """Whether the connection can be used again."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch, stream, seen, nursery.cancel_scope)
            try:
                await trio.sleep(answer.silent)
                headers = {"content-type": "text/event-stream", "transfer-encoding": "chunked", **answer.headers}
                head = [f"HTTP/1.1 {answer.status} X", *(f"{name}: {value}" for name, value in headers.items())]
                await stream.send_all("\r\n".join([*head, "", ""]).encode())
                for piece in answer.pieces:
                    if isinstance(piece, bytes):
                        await stream.send_all(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                    else:
                        await trio.sleep(piece)
                seen.sent.set()
                if answer.end == "hang":
                    await trio.sleep_forever()
                if answer.end == "clean":
                    await stream.send_all(b"0\r\n\r\n")
            except trio.BrokenResourceError:
                await trio.sleep_forever()  # the watcher sees it, too
            nursery.cancel_scope.cancel()
        return answer.end == "clean" and not seen.left.is_set()


async def _watch(stream: trio.SocketStream, seen: Seen, scope: trio.CancelScope) -> None:
    """Nothing comes from a client that waits for its answer but the end of the connection."""
    with suppress(trio.BrokenResourceError):
        assert not await stream.receive_some()
    seen.left_at = trio.current_time()
    seen.left.set()
    scope.cancel()


@asynccontextmanager
async def provider(*script: Answer) -> AsyncIterator[Provider]:
    async with trio.open_nursery() as nursery:
        made = Provider("", list(script))
        listeners = await nursery.start(partial(trio.serve_tcp, made.serve, 0, host="127.0.0.1"))
        made.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        yield made
        nursery.cancel_scope.cancel()


def sse(data: object, event: str | None = None) -> bytes:
    head = "" if event is None else f"event: {event}\n"
    return f"{head}data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()


def body(value: object, **more: object) -> Answer:
    """An answer in one piece of JSON."""
    return Answer(pieces=[json.dumps(value).encode()], headers={"content-type": "application/json"}, **more)  # type: ignore[arg-type]


def error(status: int, message: str = "no", **more: object) -> Answer:
    """An error before the stream. ``headers``, and fields of the error."""
    headers = {"content-type": "application/json", **more.pop("headers", {})}  # type: ignore[dict-item]
    told = {"type": "error", "error": {"message": message, **more}}
    return Answer(pieces=[json.dumps(told).encode()], status=status, headers=headers)


@frozen
class Call:
    call_id: str
    name: str
    pieces: tuple[str, ...]


@frozen(kw_only=True)
class Wire:
    """How one provider says things."""

    kind: str
    path: str
    base: str  # what the base URL ends in

    def say(
        self,
        *words: str,
        thoughts: Iterable[str] = (),
        calls: Iterable[Call] = (),
        finish: str | None = None,
        refusal: str | None = None,
    ) -> list[bytes]:
        raise NotImplementedError

    def broken(self, code: str) -> bytes:
        """An error told in mid-stream."""
        raise NotImplementedError


class _Chat(Wire):
    def say(
        self,
        *words: str,
        thoughts: Iterable[str] = (),
        calls: Iterable[Call] = (),
        finish: str | None = None,
        refusal: str | None = None,
    ) -> list[bytes]:
        deltas: list[dict[str, object]] = [{"role": "assistant", "content": ""}]
        deltas += [{"reasoning_content": thought} for thought in thoughts]
        deltas += [{"content": word} for word in words]
        if refusal:
            deltas.append({"refusal": refusal})
        made = list(calls)
        for index, call in enumerate(made):
            function: dict[str, object] = {"name": call.name, "arguments": ""}
            deltas.append(
                {"tool_calls": [{"index": index, "id": call.call_id, "type": "function", "function": function}]}
            )
            deltas += [{"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in call.pieces]
        reason = finish or ("tool_calls" if made else "stop")
        usage = {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 2},
        }
        chunks = [_chunk([{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas]
        chunks.append(_chunk([{"index": 0, "delta": {}, "finish_reason": reason}]))
        return [*map(sse, chunks), sse(_chunk([], usage=usage)), sse("[DONE]")]

    def broken(self, code: str) -> bytes:
        return sse({"error": {"message": "secret inside", "type": "server_error", "code": code}})


def _chunk(choices: list[object], **more: object) -> dict[str, object]:
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices, **more}


class _Responses(Wire):
    def say(
        self,
        *words: str,
        thoughts: Iterable[str] = (),
        calls: Iterable[Call] = (),
        finish: str | None = None,
        refusal: str | None = None,
    ) -> list[bytes]:
        events: list[dict[str, object]] = [{"type": "response.created", "response": _response("in_progress")}]
        index = 0
        if thoughts := list(thoughts):
            item = {"type": "reasoning", "id": "rs_1", "summary": []}
            events.append({"type": "response.output_item.added", "output_index": index, "item": item})
            events += [
                {
                    "type": "response.reasoning_summary_text.delta",
                    "output_index": index,
                    "summary_index": 0,
                    "item_id": "rs_1",
                    "delta": thought,
                }
                for thought in thoughts
            ]
            done = {
                **item,
                "encrypted_content": "sealed",
                "summary": [{"type": "summary_text", "text": "".join(thoughts)}],
            }
            events.append({"type": "response.output_item.done", "output_index": index, "item": done})
            index += 1
        if words or refusal:
            place = {"output_index": index, "content_index": 0, "item_id": "msg_1"}
            item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": []}
            events.append({"type": "response.output_item.added", "output_index": index, "item": item})
            events += [{"type": "response.output_text.delta", **place, "delta": word, "logprobs": []} for word in words]
            if refusal:
                events.append({"type": "response.refusal.delta", **place, "delta": refusal})
            events.append({"type": "response.output_item.done", "output_index": index, "item": item})
            index += 1
        for call in calls:
            item = {
                "type": "function_call",
                "id": f"fc_{index}",
                "call_id": call.call_id,
                "name": call.name,
                "arguments": "",
            }
            events.append({"type": "response.output_item.added", "output_index": index, "item": item})
            events += [
                {
                    "type": "response.function_call_arguments.delta",
                    "output_index": index,
                    "item_id": f"fc_{index}",
                    "delta": piece,
                }
                for piece in call.pieces
            ]
            item = {**item, "arguments": "".join(call.pieces)}
            events.append({"type": "response.output_item.done", "output_index": index, "item": item})
            index += 1
        reason = {"length": "max_output_tokens"}.get(finish or "", finish)
        end = _response("incomplete" if reason else "completed", reason)
        events.append({"type": f"response.{end['status']}", "response": end})
        return [sse({**event, "sequence_number": n}, str(event["type"])) for n, event in enumerate(events)]

    def broken(self, code: str) -> bytes:
        told = {"type": "error", "code": code, "message": "secret inside", "param": None, "sequence_number": 9}
        return sse(told, "error")


def _response(status: str, reason: str | None = None) -> dict[str, object]:
    usage = {
        "input_tokens": 10,
        "output_tokens": 5,
        "total_tokens": 15,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens_details": {"reasoning_tokens": 2},
    }
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "m",
        "status": status,
        "error": None,
        "incomplete_details": {"reason": reason} if reason else None,
        "output": [],
        "usage": None if status == "in_progress" else usage,
    }


class _Claude(Wire):
    def say(
        self,
        *words: str,
        thoughts: Iterable[str] = (),
        calls: Iterable[Call] = (),
        finish: str | None = None,
        refusal: str | None = None,
    ) -> list[bytes]:
        usage = {"input_tokens": 6, "cache_read_input_tokens": 4, "output_tokens": 1}
        message = {"id": "m", "type": "message", "role": "assistant", "content": [], "model": "m", "usage": usage}
        events: list[dict[str, object]] = [{"type": "message_start", "message": message}, {"type": "ping"}]
        blocks: list[tuple[dict[str, object], list[dict[str, object]]]] = []
        if thoughts := list(thoughts):
            deltas: list[dict[str, object]] = [{"type": "thinking_delta", "thinking": thought} for thought in thoughts]
            deltas.append({"type": "signature_delta", "signature": "signed"})
            blocks.append(({"type": "thinking", "thinking": "", "signature": ""}, deltas))
        if words or refusal:
            said = [*words, *([refusal] if refusal else [])]
            blocks.append(({"type": "text", "text": ""}, [{"type": "text_delta", "text": word} for word in said]))
        made = list(calls)
        for call in made:
            opened: dict[str, object] = {"type": "tool_use", "id": call.call_id, "name": call.name, "input": {}}
            blocks.append((opened, [{"type": "input_json_delta", "partial_json": piece} for piece in call.pieces]))
        for index, (block, deltas) in enumerate(blocks):
            events.append({"type": "content_block_start", "index": index, "content_block": block})
            events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
            events.append({"type": "content_block_stop", "index": index})
        reason = {"length": "max_tokens", None: "tool_use" if made else "end_turn"}.get(finish, finish)
        if refusal:
            reason = "refusal"
        cost = {"output_tokens": 5, "output_tokens_details": {"thinking_tokens": 2}}
        events.append({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": cost})
        events.append({"type": "message_stop"})
        return [sse(event, str(event["type"])) for event in events]

    def broken(self, code: str) -> bytes:
        return sse({"type": "error", "error": {"type": code, "message": "secret inside"}}, "error")


chat = _Chat(kind="openai", path="/v1/chat/completions", base="/v1")
responses = _Responses(kind="openai-responses", path="/v1/responses", base="/v1")
claude = _Claude(kind="anthropic", path="/v1/messages", base="")
WIRES: Sequence[Wire] = (chat, responses, claude)


def whole(wire: Wire, *words: str, thoughts: Iterable[str] = (), calls: Iterable[Call] = ()) -> Answer:
    """An answer that comes to its end."""
    return Answer(pieces=wire.say(*words, thoughts=thoughts, calls=calls))
