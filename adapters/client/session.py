"""A session on a server: the operations of the engine's own `Session`, with its names, results and errors.

A handle is cheap and makes no request by itself. What it is told is durable; cancelling a caller loses the answer,
and it may or may not have been done.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Final, Literal, final
from urllib.parse import quote

import trio
from uuid_utils import uuid7

from penstock.engine import (
    JSON,
    Cursor,
    FileKept,
    Generation,
    GenerationInfo,
    InvalidBody,
    JSONObject,
    PolicyName,
    Posted,
    Present,
    Producer,
    Queued,
    QueueNext,
    Restored,
    SessionId,
    Snapshot,
    Started,
    Stopped,
    Updated,
    Versions,
    check_session_id,
    check_uuid,
    new_generation_id,
    new_message_id,
)

from ..requests.answers import (
    ForkAnswer,
    GenerationAnswer,
    InputAnswer,
    PostAnswer,
    PresenceAnswer,
    QueueAnswer,
    ResetAnswer,
    RestoreAnswer,
    RetractAnswer,
    StopAnswer,
    UpdateAnswer,
    VersionsAnswer,
)
from .answers import read, read_started
from .commands import Commands, given
from .files import keep_file, read_file
from .lines import Over
from .place import Place
from .producing import Opening, Production
from .reading import Events, follow
from .refusals import Unreachable
from .snapshots import read_page, take_snapshot
from .transcript import Transcript, open_transcript
from .wire import session_path

__all__ = ["RemoteSession"]


@final
class RemoteSession:
    """One conversation. ``created`` tells whether the call that gave this handle made the session."""

    def __init__(self, commands: Commands, tasks: trio.Nursery, session_id: str, *, created: bool = False) -> None:
        self.session_id: Final[SessionId] = check_session_id(session_id)
        self.created: Final = created
        self._commands: Final = commands
        self._tasks: Final = tasks
        self._path: Final = session_path(session_id)

    def __repr__(self) -> str:
        return f"<RemoteSession {self.session_id}>"

    async def create(self, metadata: JSONObject | None = None) -> bool:
        """Make the session where it does not exist; True if it was made now."""
        _, status = await self._ask("PUT", "", given(metadata=metadata), repeatable=True)
        return status == 201

    async def start(
        self,
        producer: str | None = None,
        *,
        text: str | None = None,
        message: JSONObject | None = None,
        input: JSON = None,  # noqa: A002  the protocol's name
        policy: PolicyName = "supersede",
        job_id: str | None = None,
        generation_id: str | None = None,
        metadata: JSONObject | None = None,
        replaces: str | None = None,
        on_last_disconnect: float | None = None,
        idle_limit: float | None = None,
        continues: str | None = None,
        idempotency_key: str | None = None,
    ) -> Started | Queued:
        """Start a generation, as `engine.Session.start`; ``producer`` is a name that the server knows.

        ``idle_limit`` in seconds, infinite for no limit; None leaves it to the server.
        It goes under a key, so that one whose answer was lost is asked for again and carried out once. Where no answer
        comes at all, `Unreachable` bears the ``generation_id``: whether it was carried out is not known. The same start
        with that id is the same start, and `generation` tells what became of it. With an ``idempotency_key`` no id
        is made here: repeat the start under that key.
        """
        if generation_id is None and idempotency_key is None and policy != "join":
            generation_id = new_generation_id()
        body = given(
            producer=producer,
            text=text,
            message=message,
            input=input,
            policy=policy,
            job_id=job_id,
            generation_id=generation_id,
            metadata=metadata,
            replaces=replaces,
            on_last_disconnect=on_last_disconnect,
            continues=continues,
        )
        if idle_limit is not None:
            body["idle_limit"] = None if idle_limit == math.inf else idle_limit
        key = (generation_id or str(uuid7())) if idempotency_key is None else idempotency_key
        try:
            answer, status = await self._commands.ask(
                "POST",
                f"{self._path}/generations",
                body,
                headers={"Idempotency-Key": key},
                repeatable=True,
            )
        except Unreachable as error:
            error.session_id, error.generation_id = self.session_id, generation_id
            raise
        return read_started(answer, status, own_key=idempotency_key is None, joins=policy == "join")

    async def stop(
        self,
        generation_id: str | None = None,
        *,
        reason: str = "stopped",
        queue: Literal["pause", "continue", "clear"] = "pause",
    ) -> Stopped:
        """Stop the live generation, or the one with this id, whenever its time comes. The answer is true."""
        body = given(reason=reason, queue=queue, generation_id=generation_id)
        # Without an id a second one could meet the generation that came behind.
        answer, _ = await self._ask("POST", "/stop", body, repeatable=generation_id is not None)
        stopped = read(StopAnswer, answer)
        return Stopped(state=stopped.state, generation_id=stopped.generation_id)

    async def queue_next(self) -> QueueNext:
        """Let a paused queue go on; tells which generation started now, if one did."""
        answer, _ = await self._ask("POST", "/queue/next", {}, repeatable=False)
        went_on = read(QueueAnswer, answer)
        return QueueNext(cursor=went_on.cursor, generation_id=went_on.generation_id)

    async def dequeue(self, generation_id: str) -> None:
        """Take a waiting generation out of the queue; it ends as ``stopped``. Raises `GenerationNotFound`."""
        await self._ask("DELETE", f"/queue/{quote(generation_id, safe='')}", repeatable=False)

    async def post(
        self,
        text: str | None = None,
        *,
        blocks: Sequence[JSONObject] | None = None,
        role: str = "user",
        message_id: str | None = None,
        metadata: JSONObject | None = None,
    ) -> Posted:
        """Add a whole message. It bears an id of ours, so that one whose answer was lost is posted once."""
        mid = new_message_id() if message_id is None else message_id
        listed: list[JSON] | None = None if blocks is None else list(blocks)
        body = given(role=role, message_id=mid, text=text, blocks=listed, metadata=metadata)
        answer, status = await self._ask("POST", "/messages", body, repeatable=True)
        created = status == 201 or message_id is None
        posted = read(PostAnswer, answer)
        return Posted(message_id=posted.message_id, cursor=posted.cursor, created=created)

    async def keep_file(self, content: bytes, *, media_type: str, filename: str | None = None) -> FileKept:
        """Keep a file with this session, for messages to name, as `engine.Session.keep_file`.

        Sent again while there is no answer: the same file is kept once.
        """
        return await keep_file(self._commands, self.session_id, content, media_type=media_type, filename=filename)

    async def read_file(self, file_id: str) -> bytes:
        """The whole of one of the session's files. Raises `FileNotFound`."""
        return await read_file(self._commands, self.session_id, file_id)

    async def retract(self, message_id: str, *, and_after: bool = False) -> Cursor:
        """Take a message, and with ``and_after`` those behind it, out of the transcript."""
        path = f"/messages/{quote(message_id, safe='')}/retract"
        answer, _ = await self._ask("POST", path, {"and_after": and_after}, repeatable=False)
        return read(RetractAnswer, answer).cursor

    async def versions(self, message_id: str, *, after: int = 0, limit: int | None = None) -> Versions:
        """The versions of a message that was regenerated, or edited and sent again, the oldest first.

        Those behind the number ``after``, at most ``limit``: 100 unless said, 1000 or less.
        """
        asked = given(after=after or None, limit=limit)
        query = {name: str(number) for name, number in asked.items()}
        path = f"/messages/{quote(message_id, safe='')}/versions"
        answer, _ = await self._commands.ask("GET", f"{self._path}{path}", query=query, repeatable=True)
        found = read(VersionsAnswer, answer)
        return Versions(versions=found.versions, more=found.more)

    async def restore(self, message_id: str, *, idempotency_key: str | None = None) -> Restored:
        """Bring back a version of a message with all that followed it, in place of what stands there now.

        It goes under a key, so that one whose answer was lost is asked for again and carried out once.
        """
        key = str(uuid7()) if idempotency_key is None else idempotency_key
        path = f"{self._path}/messages/{quote(message_id, safe='')}/restore"
        answer, _ = await self._commands.ask("POST", path, {}, headers={"Idempotency-Key": key}, repeatable=True)
        restored = read(RestoreAnswer, answer)
        return Restored(message_ids=tuple(restored.message_ids), cursor=restored.cursor)

    async def update(self, patch: JSONObject) -> Updated:
        """Merge ``patch`` into the metadata (RFC 7396: null removes a member, objects merge).

        One whose answer was lost is sent again: to merge it twice is to merge it once.
        """
        answer, _ = await self._ask("PATCH", "", {"metadata": patch}, repeatable=True)
        updated = read(UpdateAnswer, answer)
        return Updated(metadata=updated.metadata, cursor=updated.cursor)

    async def reset(self, reason: str | None = None) -> Cursor:
        """End what is live and what waits; then the transcript is empty."""
        answer, _ = await self._ask("POST", "/reset", given(reason=reason), repeatable=False)
        return read(ResetAnswer, answer).cursor

    async def fork(
        self,
        session_id: str | None = None,
        *,
        at: Cursor | str | None = None,
        metadata: JSONObject | None = None,
    ) -> RemoteSession:
        """A new, independent session that begins with this one's messages: all, or those up to ``at``."""
        body = given(session_id=session_id, at=None if at is None else str(at), metadata=metadata)
        answer, _ = await self._ask("POST", "/fork", body, repeatable=False)
        return RemoteSession(self._commands, self._tasks, read(ForkAnswer, answer).session_id, created=True)

    async def input(
        self,
        generation_id: str,
        kind: str,
        content: JSONObject,
        *,
        input_id: str | None = None,
        by: str | None = None,
    ) -> str:
        """Send something into a live generation; returns the input's id when it is durable.

        It bears an id of ours, so that one whose answer was lost is taken once. ``by``, who answers an approval, is
        only for tokens that may speak for others.
        """
        body = {**content, "kind": kind, "input_id": input_id or str(uuid7()), **given(by=by)}
        path = f"/generations/{quote(generation_id, safe='')}/inputs"
        answer, _ = await self._ask("POST", path, body, repeatable=True)
        return read(InputAnswer, answer).input_id

    async def generation(self, generation_id: str) -> GenerationInfo:
        """Where the generation stands, and how it ended. Raises `GenerationNotFound`."""
        answer, _ = await self._ask("GET", f"/generations/{quote(generation_id, safe='')}", repeatable=True)
        return read(GenerationAnswer, answer).info

    async def snapshot(self, limit: int | None = None, before: str | None = None) -> Snapshot:
        """The session's state at its committed tail; ``limit`` messages (all of them; else at most 1000), the newest
        or those before ``before``."""
        return await take_snapshot(self._commands, self.session_id, limit, before)

    async def cursor(self) -> Cursor:
        """The committed tail."""
        return (await self.snapshot(limit=1)).cursor

    async def delete(self) -> None:
        """End what is live, then this life of the session; creating it again begins a new one."""
        await self._ask("DELETE", "", repeatable=False)

    async def put_presence(
        self, actor_id: str, device_id: str, *, name: str | None = None, status: str | None = None
    ) -> None:
        """Be here, for as long as the server keeps it: an actor, on one of its devices. Put it again to stay."""
        await self._ask("PUT", _presence(actor_id, device_id), given(name=name, status=status), repeatable=True)

    async def drop_presence(self, actor_id: str, device_id: str | None = None) -> None:
        """Be gone: on one device, or without ``device_id`` on all of them."""
        await self._ask("DELETE", _presence(actor_id, device_id), repeatable=True)

    async def presence(self) -> tuple[Present, ...]:
        """All who are here."""
        answer, _ = await self._ask("GET", "/presence", repeatable=True)
        return read(PresenceAnswer, answer).presence

    # --- streams

    def events(
        self,
        after: Cursor | str | None = None,
        *,
        over: Over = "sse",
        snapshot: bool = False,
        limit: int | None = None,
    ) -> AbstractAsyncContextManager[Events]:
        """Follow from ``after``: a cursor, ``"now"`` for the tail, or None for the start.

            async with session.events() as events:
                async for event in events: ...

        Reconnects for ever, behind the last event, and ends with the session. With ``snapshot`` a `SnapshotTaken`
        comes first (see `Events.receive`), of at most ``limit`` messages, the newest. Raises `InvalidCursor` at once;
        what the server refuses for good comes out of the iteration.
        """
        place = Place(
            self.session_id,
            Cursor.parse(after) if isinstance(after, str) and after != "now" else after,
            snapshot=snapshot,
            limit=limit,
        )
        return follow(self._tasks, self._commands.wire, place, over)

    def transcript(self, *, over: Over = "sse", limit: int | None = None) -> AbstractAsyncContextManager[Transcript]:
        """The session's state, kept up to date while the block lasts.

        It begins with the newest messages: ``limit`` of them, without it as many as the server gives in a page.
        """
        events = self.events(snapshot=True, over=over, limit=limit)
        read = partial(read_page, self._commands, self.session_id)
        return open_transcript(self._tasks, events, self.session_id, read)

    # --- remote producers

    @asynccontextmanager
    async def produce(
        self,
        *,
        generation_id: str | None = None,
        job_id: str | None = None,
        input: JSON = None,  # noqa: A002  the protocol's name
        policy: PolicyName | None = None,
        text: str | None = None,
        message: JSONObject | None = None,
        metadata: JSONObject | None = None,
        replaces: str | None = None,
        on_last_disconnect: float | None = None,
        idle_limit: float | None = None,
        continues: str | None = None,
        producers: Mapping[str, Producer] | None = None,
        listen: bool = True,
    ) -> AsyncIterator[Generation]:
        """Be the producer of a generation: the block writes it, with the very interface a local producer has.

        Nothing is asked before the first token: the first chunk registers the generation, where nothing is live.
        With a ``policy``, or anything else that a start has, it begins with a start, which may end what is live.
        ``input`` is for the producer itself and goes nowhere. ``producers`` are those that may be handed off to by
        name. ``idle_limit`` is the server's and, in place of `ClientConfig.idle_limit`, this process's. With ``listen``
        the session's events are followed, which tells of a stop at once and not only at the next write, and brings
        approvals' answers and inputs; it needs a token that may read.

        Left in order, all that was written is acknowledged and the generation finished, or an error is raised. Left
        by an error, the generation is finished as failed, and the error comes out. Cancelled, requests under way
        are dropped at once and the server is told once to stop the generation. When the generation is fenced
        (stopped, superseded, ended, or not deliverable) the block is cancelled and that error is raised:
        `StaleGeneration`, `GenerationMismatch`, `StaleProducer`, `SequenceGap`, `SessionDeleted`, `SessionNotFound`,
        `CorruptSession`, `Unreachable`, `TimedOut` …
        """
        if policy == "join":
            raise InvalidBody("a producer has a generation of its own; it cannot join the live one")
        if policy in ("queue", "latest") and not listen:
            raise InvalidBody("a producer that waits for its turn hears of it only with listen=True")
        asked = (policy, text, message, metadata, replaces, on_last_disconnect, idle_limit, continues)
        starts = any(each is not None for each in asked)
        opening = Opening(
            generation_id=new_generation_id() if generation_id is None else check_uuid(generation_id, "generation_id"),
            job_id=job_id,
            input=input,
            metadata=metadata or {},
            listens=listen,
            idle_limit=idle_limit,
            continues=continues,
        )
        production = Production(self._commands.wire, self.session_id, opening, dict(producers or {}))
        started: Started | Queued | None = None
        if starts:
            start = partial(
                self.start,
                "remote",
                text=text,
                message=message,
                policy=policy or "supersede",
                job_id=job_id,
                generation_id=opening.generation_id,
                metadata=metadata,
                replaces=replaces,
                on_last_disconnect=on_last_disconnect,
                idle_limit=idle_limit,
                continues=continues,
            )
            started = await production.start(start)
        async with production.run(self._tasks, started) as generation:
            yield generation

    async def run(
        self,
        producer: Producer,
        *,
        input: JSON = None,  # noqa: A002  the protocol's name
        text: str | None = None,
        message: JSONObject | None = None,
        policy: PolicyName = "supersede",
        job_id: str | None = None,
        generation_id: str | None = None,
        metadata: JSONObject | None = None,
        replaces: str | None = None,
        on_last_disconnect: float | None = None,
        idle_limit: float | None = None,
        continues: str | None = None,
        producers: Mapping[str, Producer] | None = None,
    ) -> None:
        """Start a generation and run a producer here that was written for the engine, unchanged, to its end.

        Raises what `start` and `produce` raise, and what the producer does.
        """
        opened = self.produce(
            generation_id=generation_id,
            job_id=job_id,
            input=input,
            policy=policy,
            text=text,
            message=message,
            metadata=metadata,
            replaces=replaces,
            on_last_disconnect=on_last_disconnect,
            idle_limit=idle_limit,
            continues=continues,
            producers=producers,
        )
        async with opened as generation:
            await generation.hand_off(producer, input)

    async def _ask(
        self, method: str, path: str, body: Mapping[str, JSON] | None = None, *, repeatable: bool
    ) -> tuple[JSONObject, int]:
        return await self._commands.ask(method, self._path + path, body, repeatable=repeatable)


def _presence(actor_id: str, device_id: str | None) -> str:
    ids = [actor_id] if device_id is None else [actor_id, device_id]
    return "/presence/" + "/".join(quote(part, safe="") for part in ids)
