"""What a frame may ask for: each command, read, allowed and carried out in its session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, TypeAlias, final

import trio
from attrs import frozen

from penstock.engine import JSON, Cursor, Engine, InvalidBody, check_session_id

from ..requests.answers import as_json
from ..requests.bodies import (
    EmptyBody,
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
from ..requests.listing import LARGEST_PAGE, FollowedList
from ..requests.presence import carry_out, read_frame
from .envelope import ENVELOPE
from .holder import Holder, right
from .productions import Productions, lease_in
from .subscriptions import Subscriptions

__all__ = ["Commands", "Result"]

# What stands in a header, or in the path, over HTTP.
_START: Final = ENVELOPE | {"idempotency_key", "producer_lease"}
_INPUT: Final = ENVELOPE | {"generation_id"}

# What a command answers with; None when it has answered by itself.
Result: TypeAlias = Mapping[str, JSON] | None

_Command: TypeAlias = Callable[[str, Mapping[str, JSON], JSON], Awaitable[Result]]


@final
@frozen(kw_only=True)
class _SubscribeBody:
    after: str | None = None
    snapshot: bool = False
    limit: int | None = None


@final
@frozen(kw_only=True)
class _WatchBody:
    after: str | None = None
    limit: int = 100


# Those that are about no session.
_OF_THE_SOCKET: Final = ("ping", "watch", "unwatch")


@final
class Commands:
    """The commands of one socket. What goes on behind an answer runs in ``nursery``."""

    def __init__(
        self,
        engine: Engine,
        holder: Holder,
        nursery: trio.Nursery,
        *,
        subscriptions: Subscriptions,
        productions: Productions,
    ) -> None:
        self._engine = engine
        self._holder = holder
        self._nursery = nursery
        self._subscriptions = subscriptions
        self._productions = productions
        self._commands: Final[Mapping[str, _Command]] = {
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "watch": self._watch,
            "unwatch": self._unwatch,
            "start": self._start,
            "stop": self._stop,
            "post": self._post,
            "input": self._input,
            "chunks": self._chunks,
            "finish": self._finish,
            "presence": self._presence,
            "ping": self._ping,
        }

    def session_of(self, value: Mapping[str, JSON]) -> str:
        """The session that the frame is about, if its holder's token is for it; empty where it is about the socket.

        To be asked before the frame has to wait: what is refused anyway takes no room. Where somebody else has a say
        too, they are asked when it is carried out. Raises `InvalidBody`, `InvalidId`, `Unauthenticated`, `Forbidden`.
        """
        op = value.get("op")
        if not isinstance(op, str) or op not in self._commands:
            raise InvalidBody(f"op must be one of {', '.join(self._commands)}")
        if op in _OF_THE_SOCKET:
            self._holder.principal()
            return ""
        session_id = value.get("session_id")
        if not isinstance(session_id, str):
            raise InvalidBody(f"{op} needs session_id, a string")
        needed = right(op, value)
        if needed is not None:
            self._holder.check_token(needed, session_id)
        return check_session_id(session_id)

    async def carry_out(self, session_id: str, value: Mapping[str, JSON], request_id: JSON) -> Result:
        """Do what the frame asks, if its holder may. Raises what is to be said in its stead."""
        op = str(value["op"])
        needed = right(op, value)
        if needed is not None:
            await self._holder.allow(needed, session_id)
        return await self._commands[op](session_id, value, request_id)

    async def _subscribe(self, session_id: str, value: Mapping[str, JSON], request_id: JSON) -> Result:
        body = read_body(value, _SubscribeBody, aside=ENVELOPE)
        after = body.after if body.after is None or body.after == "now" else Cursor.parse(body.after)
        if body.limit is not None and body.limit < 1:
            raise InvalidBody("limit must be a whole number from 1 on")
        while True:
            principal = await self._holder.allow("read", session_id)
            session = await self._engine.session(session_id)
            if self._holder.principal() is principal:
                break  # else the socket has got another token meanwhile
        opening = session.subscribe(after, snapshot=body.snapshot, limit=body.limit)
        await self._subscriptions.add(self._nursery, session_id, opening, request_id)
        return None

    async def _unsubscribe(self, session_id: str, value: Mapping[str, JSON], _: JSON) -> Result:
        read_body(value, EmptyBody, aside=ENVELOPE)
        await self._subscriptions.remove(session_id)
        return {"session_id": session_id}

    async def _watch(self, _: str, value: Mapping[str, JSON], request_id: JSON) -> Result:
        body = read_body(value, _WatchBody, aside=ENVELOPE)
        if not 1 <= body.limit <= LARGEST_PAGE:
            raise InvalidBody(f"limit must be a whole number from 1 to {LARGEST_PAGE} @ $.limit")
        followed = FollowedList(
            self._engine,
            None if body.after is None else Cursor.parse(body.after),
            patterns=self._holder.may_list().sessions,
            # By the token that the socket has then.
            wants=partial(self._holder.covers, "read"),
            permitted=partial(self._holder.may, "read"),
            page_size=body.limit,
        )
        await self._subscriptions.watch(self._nursery, followed, request_id)
        return None

    async def _unwatch(self, _: str, value: Mapping[str, JSON], __: JSON) -> Result:
        read_body(value, EmptyBody, aside=ENVELOPE)
        await self._subscriptions.unwatch()
        return {}

    async def _start(self, session_id: str, value: Mapping[str, JSON], _: JSON) -> Result:
        body = read_body(value, StartBody, aside=_START)
        key = check_idempotency_key(value["idempotency_key"]) if "idempotency_key" in value else None
        if body.is_remote:
            await self._holder.allow("produce", session_id)
        subject = self._holder.principal().subject
        session, lease = await self._engine.session(session_id), lease_in(value)
        made, how = await start(session, body, key, principal=subject, lease=lease)
        # What HTTP says by its status.
        return {**as_json(made), how: True} if how in ("joined", "repeated") else as_json(made)

    async def _stop(self, session_id: str, value: Mapping[str, JSON], _: JSON) -> Result:
        body = read_body(value, StopBody, aside=ENVELOPE)
        subject = self._holder.principal().subject
        return as_json(await stop(await self._engine.session(session_id), body, principal=subject))

    async def _post(self, session_id: str, value: Mapping[str, JSON], _: JSON) -> Result:
        body = read_body(value, MessageBody, aside=ENVELOPE)
        subject = self._holder.principal().subject
        made, _created = await post(await self._engine.session(session_id), body, principal=subject)
        return as_json(made)

    async def _input(self, session_id: str, value: Mapping[str, JSON], _: JSON) -> Result:
        generation_id = value.get("generation_id")
        if not isinstance(generation_id, str):
            raise InvalidBody("input needs generation_id, a string")
        body = read_input(value, aside=_INPUT)
        if body.names_another:
            await self._holder.allow("produce", session_id)
        subject = self._holder.principal().subject
        session = await self._engine.session(session_id)
        return as_json(await put_in(session, generation_id.lower(), body, principal=subject))

    async def _chunks(self, session_id: str, value: Mapping[str, JSON], _: JSON) -> Result:
        session = await self._engine.session(session_id)
        return as_json(await self._productions.chunks(self._nursery, session, value))

    async def _finish(self, session_id: str, value: Mapping[str, JSON], _: JSON) -> Result:
        session = await self._engine.session(session_id)
        return as_json(await self._productions.finish(self._nursery, session, value))

    async def _presence(self, session_id: str, value: Mapping[str, JSON], _: JSON) -> Result:
        frame = read_frame(value, aside=ENVELOPE)
        if frame.actor_id != self._holder.principal().subject:
            await self._holder.allow("produce", session_id)
        return as_json(await carry_out(await self._engine.session(session_id), frame))

    async def _ping(self, _: str, value: Mapping[str, JSON], __: JSON) -> Result:
        read_body(value, EmptyBody, aside=ENVELOPE)
        return {}
