"""A remote producer's line to a server, over HTTP and over WebSocket, so that a test can be written once for both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
from attrs import frozen

from penstock.adapters.problems import PROBLEM_JSON, TABLE
from tests.adapters.serving import Socket

__all__ = ["Face", "HttpFace", "Json", "SocketFace", "Stamp", "Told"]

Json = dict[str, Any]

# A producer's id, epoch and seq.
Stamp = tuple[str, int, int]


@frozen
class Told:
    """An answer, as both faces give it; ``code`` if it is a refusal."""

    code: str | None
    body: Json

    def done(self) -> Json:
        assert self.code is None, self.body
        return self.body

    def refused(self, code: str, **fields: object) -> Json:
        """Check the refusal against the table."""
        assert self.code == code, self.body
        row = TABLE[code]
        assert (self.body["status"], self.body["retryable"]) == (row.status, row.retryable)
        assert fields.items() <= self.body.items(), self.body
        return self.body


class HttpFace:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def ask(self, path: str, body: Mapping[str, Any], stamp: Stamp | None = None, session_id: str = "s") -> Told:
        names = ("Producer-Id", "Producer-Epoch", "Producer-Seq")
        headers = {} if stamp is None else dict(zip(names, map(str, stamp), strict=True))
        answer = await self._client.post(f"/v1/sessions/{session_id}/{path}", json=body, headers=headers)
        if answer.is_success:
            assert answer.headers["content-type"] == "application/json"
            return Told(None, answer.json())
        assert answer.headers["content-type"] == PROBLEM_JSON
        problem = answer.json()
        assert problem["status"] == answer.status_code
        assert ("retry-after" in answer.headers) == (answer.status_code in (429, 503))
        return Told(problem["code"], problem)

    async def chunks(self, *chunks: Json, stamp: Stamp | None = None, session_id: str = "s") -> Told:
        if len(chunks) == 1:
            return await self.ask("chunks", chunks[0], stamp, session_id)
        return await self.batch(list(chunks), stamp, session_id)

    async def batch(self, chunks: object, stamp: Stamp | None = None, session_id: str = "s") -> Told:
        return await self.ask("chunks/batch", {"chunks": chunks}, stamp, session_id)

    async def finish(
        self, generation_id: str, *, stamp: Stamp | None = None, session_id: str = "s", **body: object
    ) -> Told:
        return await self.ask(f"generations/{generation_id}/finish", body, stamp, session_id)

    async def start(self, **body: object) -> Told:
        return await self.ask("generations", body)

    async def stop(self, **body: object) -> Told:
        return await self.ask("stop", body)

    async def put_in(self, generation_id: str, **body: object) -> Told:
        return await self.ask(f"generations/{generation_id}/inputs", body)


class SocketFace:
    """Keeps what came without being asked for."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self.unasked: list[Json] = []
        self._asked = 0

    async def ask(self, op: str, body: Mapping[str, Any], stamp: Stamp | None = None, session_id: str = "s") -> Told:
        self._asked += 1
        names = ("producer_id", "producer_epoch", "producer_seq")
        numbered = {} if stamp is None else dict(zip(names, stamp, strict=True))
        await self.socket.send(op=op, id=self._asked, session_id=session_id, **body, **numbered)
        while (frame := await self.socket.receive()).get("id") != self._asked:
            self.unasked.append(frame)
        if frame["op"] == "reply":
            assert isinstance(frame["result"], dict)
            return Told(None, frame["result"])
        assert isinstance(frame["error"], dict)
        return Told(frame["error"]["code"], frame["error"])

    async def next(self, op: str) -> Json:
        """The next frame of this kind that nobody asked for."""
        while True:
            frame = self.unasked.pop(0) if self.unasked else await self.socket.receive()
            if frame["op"] == op:
                assert "id" not in frame
                return frame

    async def fenced(self) -> Told:
        """What is said, without being asked, when a generation can take nothing more."""
        error = (await self.next("error"))["error"]
        return Told(error["code"], error)

    async def chunks(self, *chunks: Json, stamp: Stamp | None = None, session_id: str = "s") -> Told:
        return await self.batch(list(chunks), stamp, session_id)

    async def batch(self, chunks: object, stamp: Stamp | None = None, session_id: str = "s") -> Told:
        return await self.ask("chunks", {"chunks": chunks}, stamp, session_id)

    async def finish(
        self, generation_id: str, *, stamp: Stamp | None = None, session_id: str = "s", **body: object
    ) -> Told:
        return await self.ask("finish", {"generation_id": generation_id, **body}, stamp, session_id)

    async def start(self, **body: object) -> Told:
        return await self.ask("start", body)

    async def stop(self, **body: object) -> Told:
        return await self.ask("stop", body)

    async def put_in(self, generation_id: str, **body: object) -> Told:
        return await self.ask("input", {"generation_id": generation_id, **body})


Face = HttpFace | SocketFace
