"""The conversation on one WebSocket: commands in order per session, subscriptions side by side, a keep-alive.

Owns who waits for whom: commands of one session run one after the other, those of others beside them, and a
subscription never waits for a command. All of it waits for this socket's peer, and nothing else does.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from typing import Final, TypeAlias, final

import trio
from attrs import frozen
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest

from engine import (
    JSON,
    Cursor,
    Draining,
    Engine,
    InvalidBody,
    InvalidId,
    PenstockError,
    TimedOut,
    check_session_id,
    decode_json,
    is_uuid,
)

from ..bodies import (
    MessageBody,
    StartBody,
    StopBody,
    check_idempotency_key,
    post,
    put_in,
    read_body,
    read_input,
    start,
    stop,
)
from ..head import Head
from ..origins import check_origin
from ..problems import OriginRefused, answer, close_code
from .frames import frame_error, frame_reply
from .subscriptions import Subscriptions

__all__ = ["SUBPROTOCOL", "SocketConfig", "websocket_handler"]

_log = logging.getLogger("penstock.websocket")

SUBPROTOCOL: Final = "penstock.v1"

# What of a frame belongs to the frame and not to the body that it carries.
_ENVELOPE: Final = frozenset({"op", "id", "session_id"})

# And what stands in a header, or in the path, over HTTP.
_START_ENVELOPE: Final = _ENVELOPE | {"idempotency_key"}
_INPUT_ENVELOPE: Final = _ENVELOPE | {"generation_id"}

_Handler: TypeAlias = Callable[[WebSocketRequest, Head, trio.Event], Awaitable[None]]

# What a command answers with; None when it has answered by itself.
_Result: TypeAlias = Mapping[str, JSON] | None


@final
@frozen(kw_only=True)
class SocketConfig:
    """The bounds of one socket, each with its reason. Times are in seconds."""

    # Below the 30 to 60 s after which proxies cut a silent line.
    heartbeat: float = 15.0

    # A phone on a bad line answers within a few seconds, or it is gone.
    pong_timeout: float = 10.0

    # The pong of a slow reader stands behind all that it has yet to read; while it takes frames it gets this
    # long, which is what a send may take without any progress.
    slow_pong_timeout: float = 30.0

    # Each holds up to 1024 events in memory when its reader is slow.
    max_subscriptions: int = 256

    # Commands under way; then the socket is not read, and the peer waits.
    max_commands: int = 64

    # For the peer's own close frame.
    close_timeout: float = 2.0


@final
@frozen(kw_only=True)
class _SubscribeBody:
    after: str | None = None
    snapshot: bool = False


@final
@frozen(kw_only=True)
class _EmptyBody:
    pass


def websocket_handler(
    engine: Engine, *, allowed_origins: Collection[str] = (), config: SocketConfig | None = None
) -> _Handler:
    """The handler over ``engine`` for `adapters.server.serve`.

    Pages of other origins are refused unless ``allowed_origins`` names them.
    """
    allowed = frozenset(allowed_origins)
    bounds = config or SocketConfig()

    async def handle(request: WebSocketRequest, head: Head, drained: trio.Event) -> None:
        proposed = request.proposed_subprotocols
        try:
            check_origin(head.get("origin"), head.get("host"), allowed)
            if proposed and SUBPROTOCOL not in proposed:
                raise InvalidBody(f"the subprotocol here is {SUBPROTOCOL}")
        except (OriginRefused, InvalidBody) as error:
            told = answer(error)
            headers = [(name.encode(), value.encode()) for name, value in told.headers]
            await request.reject(told.status, extra_headers=headers, body=told.body)
            return
        ws = await request.accept(subprotocol=SUBPROTOCOL if proposed else None)
        await _Conversation(ws, engine, bounds).run(drained)

    return handle


@final
class _Conversation:
    def __init__(self, ws: WebSocketConnection, engine: Engine, config: SocketConfig) -> None:
        self._ws = ws
        self._engine = engine
        self._config = config
        self._subscriptions = Subscriptions(self._send, config.max_subscriptions)
        self._lanes: dict[str, deque[Callable[[], Awaitable[None]]]] = {}
        self._room = trio.Semaphore(config.max_commands)
        self._pong: trio.CancelScope | None = None
        self._pong_limit = 0.0
        self._nursery: trio.Nursery
        self._commands: dict[str, Callable[[str, Mapping[str, JSON], JSON], Awaitable[_Result]]] = {
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "start": self._start,
            "stop": self._stop,
            "post": self._post,
            "input": self._input,
            "ping": self._ping,
        }

    async def run(self, drained: trio.Event) -> None:
        """Until either side closes. Raises nothing but `trio.Cancelled`."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._keep_alive)
                nursery.start_soon(self._leave_when, drained)
                await self._read()
                nursery.cancel_scope.cancel(reason="the socket has closed")
        except Exception as error:  # noqa: BLE001  # the last resort: the peer is told, the server goes on
            _log.exception("a conversation failed")
            await self._close(close_code(error), "internal error")

    # --- commands

    async def _read(self) -> None:
        while True:
            try:
                message = await self._ws.get_message()
            except ConnectionClosed:
                return
            await self._room.acquire()
            request_id: JSON = None
            try:
                value = _parse(message)
                request_id = _request_id(value)
                self._dispatch(value, request_id)
            except PenstockError as error:
                self._room.release()
                await self._send(frame_error(request_id, error))

    def _dispatch(self, value: Mapping[str, JSON], request_id: JSON) -> None:
        """Put the command behind those of its session. Raises `InvalidBody`."""
        op = value.get("op")
        command = self._commands.get(op) if isinstance(op, str) else None
        if command is None:
            raise InvalidBody(f"op must be one of {', '.join(self._commands)}")
        session_id = "" if command == self._ping else value.get("session_id")
        if not isinstance(session_id, str):
            raise InvalidBody(f"{op} needs session_id, a string")
        lane = self._lanes.get(session_id)
        if lane is None:
            lane = self._lanes[session_id] = deque()
            self._nursery.start_soon(self._work, session_id)
        lane.append(partial(self._carry_out, command, session_id, value, request_id))

    async def _work(self, session_id: str) -> None:
        """Carry out the commands of one session, one after the other, while there are any."""
        lane = self._lanes[session_id]
        while lane:
            await lane[0]()
            lane.popleft()
            self._room.release()
        del self._lanes[session_id]

    async def _carry_out(
        self,
        command: Callable[[str, Mapping[str, JSON], JSON], Awaitable[_Result]],
        session_id: str,
        value: Mapping[str, JSON],
        request_id: JSON,
    ) -> None:
        try:
            result = await command(session_id, value, request_id)
        except PenstockError as error:
            await self._send(frame_error(request_id, error, **_ids(session_id, value)))
        except Exception as error:  # noqa: BLE001  # one command's bug is not the others'
            _log.exception("the command %s failed", value.get("op"))
            await self._send(frame_error(request_id, error, **_ids(session_id, value)))
        else:
            if result is not None:
                await self._send(frame_reply(request_id, result))

    async def _subscribe(self, session_id: str, value: Mapping[str, JSON], request_id: JSON) -> _Result:
        body = read_body(value, _SubscribeBody, aside=_ENVELOPE)
        after = body.after if body.after is None or body.after == "now" else Cursor.parse(body.after)
        session = await self._engine.session(session_id)
        await self._subscriptions.add(self._nursery, session, after, body.snapshot, request_id)
        return None

    async def _unsubscribe(self, session_id: str, value: Mapping[str, JSON], _: JSON) -> _Result:
        read_body(value, _EmptyBody, aside=_ENVELOPE)
        await self._subscriptions.remove(session_id)
        return {"session_id": session_id}

    async def _start(self, session_id: str, value: Mapping[str, JSON], _: JSON) -> _Result:
        body = read_body(value, StartBody, aside=_START_ENVELOPE)
        key = check_idempotency_key(value["idempotency_key"]) if "idempotency_key" in value else None
        made, how = await start(await self._engine.session(session_id), body, key)
        # What HTTP says by its status.
        return {**made, how: True} if how in ("joined", "repeated") else made

    async def _stop(self, session_id: str, value: Mapping[str, JSON], _: JSON) -> _Result:
        body = read_body(value, StopBody, aside=_ENVELOPE)
        return await stop(await self._engine.session(session_id), body)

    async def _post(self, session_id: str, value: Mapping[str, JSON], _: JSON) -> _Result:
        body = read_body(value, MessageBody, aside=_ENVELOPE)
        made, _created = await post(await self._engine.session(session_id), body)
        return made

    async def _input(self, session_id: str, value: Mapping[str, JSON], _: JSON) -> _Result:
        generation_id = value.get("generation_id")
        if not isinstance(generation_id, str):
            raise InvalidBody("input needs generation_id, a string")
        body = read_input(value, aside=_INPUT_ENVELOPE)
        return await put_in(await self._engine.session(session_id), generation_id.lower(), body)

    async def _ping(self, _: str, value: Mapping[str, JSON], __: JSON) -> _Result:
        read_body(value, _EmptyBody, aside=_ENVELOPE)
        return {}

    # --- the peer

    async def _send(self, told: bytes) -> None:
        """Send a frame in its turn. Where the socket has closed, it is lost, and the reading side ends all."""
        try:
            await self._ws.send_message(told.decode())
        except ConnectionClosed:
            await trio.lowlevel.checkpoint()
            return
        if self._pong is not None:
            self._pong.deadline = min(self._pong_limit, trio.current_time() + self._config.pong_timeout)

    async def _keep_alive(self) -> None:
        """Close when a pong is overdue: a peer that has vanished says nothing."""
        config = self._config
        while True:
            await trio.sleep(config.heartbeat)
            if not self._room.value:
                continue  # while commands wait, nothing is read, and a pong would not be seen
            self._pong_limit = trio.current_time() + config.slow_pong_timeout
            with trio.move_on_after(config.pong_timeout) as self._pong:
                try:
                    await self._ws.ping()
                except ConnectionClosed:
                    return
            late, self._pong = self._pong.cancelled_caught, None
            if late and self._room.value:
                await self._close(close_code(TimedOut("no pong in time")), "no pong in time")
                return

    async def _leave_when(self, drained: trio.Event) -> None:
        await drained.wait()
        await self._subscriptions.ended()  # each says `drain` as its last word
        await self._close(close_code(Draining("")), "the server is shutting down")

    async def _close(self, code: int, reason: str) -> None:
        """Close by force if need be: trio-websocket would wait for the peer."""
        with trio.move_on_after(self._config.close_timeout):
            await self._ws.aclose(code, reason)


def _parse(message: str | bytes) -> Mapping[str, JSON]:
    """The object in one frame. Raises `InvalidBody`."""
    if not isinstance(message, str):
        raise InvalidBody("a frame is text, not binary")
    value = decode_json(message.encode())
    if not isinstance(value, dict):
        raise InvalidBody("a frame is a JSON object")
    return value


def _ids(session_id: str, value: Mapping[str, JSON]) -> dict[str, str]:
    """What the command was about; what is no id is not told back as one."""
    ids: dict[str, str] = {}
    with suppress(InvalidId):
        ids["session_id"] = check_session_id(session_id)
    generation_id = value.get("generation_id")
    if isinstance(generation_id, str) and is_uuid(generation_id):
        ids["generation_id"] = generation_id.lower()
    return ids


def _request_id(value: Mapping[str, JSON]) -> JSON:
    """What the answer will name. Raises `InvalidBody`."""
    request_id = value.get("id")
    if request_id is None or isinstance(request_id, str) or type(request_id) is int:
        return request_id
    raise InvalidBody("id must be a string or a whole number")
