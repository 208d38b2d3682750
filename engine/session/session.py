"""A session as applications hold it: an id with the operations on it.

A handle is cheap, stays valid while the session leaves memory and comes back, and may be kept or thrown away.
Every operation answers after its commit; cancelling a caller loses the answer, not what it asked for.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, Literal, TypeVar, cast, final, overload

from ..codec import own_json
from ..errors import InvalidBody, Moved, PenstockError, ProducerNotFound
from ..events import (
    JSON,
    Cursor,
    JSONObject,
    SessionId,
    check_job_id,
    check_path_id,
    check_session_id,
    check_uuid,
    new_generation_id,
    new_message_id,
    new_session_id,
)
from ..generation.generation import Producer
from ..generation.lease import check_lease
from ..generation.remote import RemoteProducer
from ..log.port import Head
from ..reducer import Snapshot, SnapshotPage
from ..results import (
    ChunksAccepted,
    FileInfo,
    FileKept,
    Finished,
    GenerationInfo,
    Posted,
    Present,
    Queued,
    QueueNext,
    Restored,
    Started,
    Stopped,
    Updated,
    Versions,
)
from ..rules.attachments import check_media_type
from ..rules.chunks import Chunk, ProducerStamp, check_chunks
from ..rules.merging import own_metadata
from ..rules.policy import PolicyName
from ..shapes import check_object, check_text, checked_text
from ..stream.subscription import Subscription
from ..stream.versions import list_versions
from ..supervision import protected
from .arguments import (
    checked_choice,
    checked_count,
    checked_cursor,
    checked_ending,
    checked_filename,
    checked_flag,
    checked_fork_point,
    checked_instance,
    checked_limit,
    checked_message,
    checked_page,
    checked_policy,
    checked_principal,
    checked_question,
    checked_seconds,
)
from .commands import (
    Command,
    DeleteSession,
    Dequeue,
    Give,
    KeepFile,
    Post,
    Reset,
    Restore,
    Resume,
    Retract,
    Start,
    Stop,
    Update,
)
from .files import file_info, read_file, whole
from .forks import fork
from .life import Call
from .registry import Registry
from .remote_commands import FENCE_WAIT, Chunks, Finish, Keep, WaitFenced
from .transaction import StartRequest

__all__ = ["Session"]

T = TypeVar("T")


@final
@protected
class Session:
    """One conversation. ``created`` tells whether the call that gave this handle made the session."""

    def __init__(self, registry: Registry, session_id: SessionId, *, created: bool = False) -> None:
        self._registry = registry
        self.session_id: Final = session_id
        self.created: Final = created

    def __repr__(self) -> str:
        return f"<Session {self.session_id}>"

    async def _carry_out(self, command: Command[T]) -> T:
        """Have it done by whom the session belongs to."""
        return await self._registry.carry_out(self.session_id, command)

    @overload
    async def start(
        self,
        producer: str | Producer | AsyncIterable[str] | None = ...,
        *,
        text: str | None = ...,
        message: JSONObject | None = ...,
        input: JSON = ...,
        policy: Literal["supersede", "rollback", "reject", "join"] = ...,
        job_id: str | None = ...,
        generation_id: str | None = ...,
        metadata: JSONObject | None = ...,
        replaces: str | None = ...,
        on_last_disconnect: float | None = ...,
        idle_limit: float | None = ...,
        continues: str | None = ...,
        idempotency_key: str | None = ...,
        principal: str = ...,
        author: str | None = ...,
    ) -> Started: ...

    @overload
    async def start(
        self,
        producer: str | Producer | AsyncIterable[str] | None = ...,
        *,
        text: str | None = ...,
        message: JSONObject | None = ...,
        input: JSON = ...,
        policy: PolicyName,
        job_id: str | None = ...,
        generation_id: str | None = ...,
        metadata: JSONObject | None = ...,
        replaces: str | None = ...,
        on_last_disconnect: float | None = ...,
        idle_limit: float | None = ...,
        continues: str | None = ...,
        idempotency_key: str | None = ...,
        principal: str = ...,
        author: str | None = ...,
    ) -> Started | Queued: ...

    async def start(
        self,
        producer: str | Producer | AsyncIterable[str] | None = None,
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
        principal: str = "",
        author: str | None = None,
    ) -> Started | Queued:
        """Start a generation; by default in place of the live one, whose clean-up is awaited first.

        ``producer`` is a registered name, an async function or async generator function of a `Generation`,
        an async iterable of text, ``"remote"`` for one in another process that writes by `chunks`, or None for the
        engine's default. ``text`` posts the user's message in the
        same commit; so does ``message``, which has more than a text: ``{blocks, message_id?, metadata?}``, with blocks
        as `post` takes them. ``policy`` says what a live generation means: ``supersede``, ``rollback`` (its messages
        are retracted too), ``queue`` (wait behind it and those that wait already), ``latest`` (wait in place of
        those), ``reject``, or ``join`` (start nothing, answer with the live one). ``replaces`` names a message that
        leaves the transcript with all that follows it: regenerate, or edit and send again. With
        ``on_last_disconnect`` the generation is stopped when nobody has been subscribed for so many seconds.
        ``idle_limit`` is how many seconds it may write nothing before it ends as ``stalled``, infinite for no limit, in
        place of its producer's (`Config.idle_limits`) or the engine's (`Config.idle_limit`).
        ``continues`` names a message that was cut off: the first one that the producer opens says that it goes on with
        it. A start that is repeated with the same ``idempotency_key`` (and ``principal``) gets the first answer.
        ``author`` is who starts it, for all readers to see.

        Returns after the commit, just before the producer runs. Raises `GenerationActive`, `ProducerNotFound`,
        `MessageNotFound`, `IdInUse`, `IdempotencyConflict`, `InvalidBody`, `InvalidId`, `QueueFull`,
        `TooManyStragglers`, `WriteFailed`, `Draining`; nothing was cancelled or written then, except where
        `WriteFailed` came from the very commit.
        """
        call, name, unknown = self._find(producer)
        checked_text(author, "author")
        question, message_id = (None, None) if message is None else checked_question(message, author)
        request = StartRequest(
            generation_id=new_generation_id() if generation_id is None else check_uuid(generation_id, "generation_id"),
            proposed=generation_id is not None,
            producer=call,
            producer_name=name,
            registered=producer is None or isinstance(producer, str),
            policy=checked_policy(policy),
            text=checked_text(text, "text"),
            message=question,
            message_id=message_id or new_message_id(),
            names_message=message_id is not None,
            input=own_json(input, "input"),
            job_id=None if job_id is None else check_job_id(job_id),
            metadata=own_metadata(metadata),
            replaces=None if replaces is None else check_uuid(replaces, "message_id"),
            on_last_disconnect=checked_seconds(on_last_disconnect),
            idle_limit=checked_limit(idle_limit),
            continues=None if continues is None else check_uuid(continues, "continues"),
            idempotency_key=checked_text(idempotency_key, "idempotency_key"),
            principal=checked_principal(principal),
            author=author,
        )
        if isinstance(call, RemoteProducer) and input is not None:
            raise InvalidBody("a remote generation takes no input: nobody here would read it")
        return await self._carry_out(Start(request=request, unknown=unknown))

    def _find(
        self, producer: str | Producer | AsyncIterable[str] | None
    ) -> tuple[Producer, str, ProducerNotFound | None]:
        """The producer meant, its name, and whether this engine does not know it: one that it can ask may know it."""
        try:
            return *self._registry.producers.find(producer), None
        except ProducerNotFound as error:
            if self._registry.forwarding.peers is None or producer is None:
                raise
            return RemoteProducer(), cast("str", producer), error

    async def stop(
        self,
        generation_id: str | None = None,
        *,
        reason: str = "stopped",
        queue: Literal["pause", "continue", "clear"] = "pause",
        author: str | None = None,
    ) -> Stopped:
        """Stop the live generation, or the one with this id, whenever its time comes. The answer is true.

        Waits for the clean-up at most `Config.cleanup_timeout`. What the answer had so far is kept. When the live
        one is stopped, what waits behind it is paused until `queue_next`, goes on, or is cleared. ``author`` is who
        stops it, for all readers to see.
        """
        checked_choice(queue, ("pause", "continue", "clear"), "queue")
        check_text(reason, "reason")
        checked_text(author, "author")
        if generation_id is not None:
            generation_id = check_uuid(generation_id, "generation_id")
        return await self._carry_out(Stop(generation_id=generation_id, reason=reason, queue=queue, author=author))

    async def queue_next(self) -> QueueNext:
        """Let a paused queue go on; tells which generation started now, if one did."""
        return await self._carry_out(Resume())

    async def dequeue(self, generation_id: str) -> None:
        """Take a waiting generation out of the queue; it ends as ``stopped``. Raises `GenerationNotFound`."""
        await self._carry_out(Dequeue(generation_id=check_uuid(generation_id, "generation_id")))

    async def post(
        self,
        text: str | None = None,
        *,
        blocks: Sequence[JSONObject] | None = None,
        role: str = "user",
        message_id: str | None = None,
        metadata: JSONObject | None = None,
        author: str | None = None,
    ) -> Posted:
        """Add a whole message: ``text``, or ``blocks`` as `message.snapshot` has them.

        A block that has a ``file_id`` names one of the session's files (`keep_file`), and says of it what the session
        knows.
        ``author`` is who posts it, for all readers to see. The same ``message_id`` with the same content again changes
        nothing, whoever posts it; with other content `IdInUse`.
        """
        message = checked_message(text, blocks, role, metadata, checked_text(author, "author"))
        proposed = message_id is not None
        mid = new_message_id() if message_id is None else check_uuid(message_id, "message_id")
        return await self._carry_out(Post(message=message, message_id=mid, proposed=proposed))

    async def retract(self, message_id: str, *, and_after: bool = False) -> Cursor:
        """Take a message, and with ``and_after`` those behind it, out of the transcript.

        Raises `MessageNotFound`, and `GenerationActive` for a message of the live generation, and for the one behind
        which that began: what it answers.
        """
        message_id = check_uuid(message_id, "message_id")
        checked_flag(and_after, "and_after")
        return await self._carry_out(Retract(message_id=message_id, and_after=and_after))

    async def versions(self, message_id: str, *, after: int = 0, limit: int | None = None) -> Versions:
        """The versions of a message that was regenerated, or edited and sent again, the oldest first; it is among them.

        ``message_id`` is that of any of them. Those behind the number ``after``: ``limit`` of them (at most 1000),
        within `Config.snapshot_bytes`, but one at least. Each has its `Version`; what followed it is not told of.
        Raises `MessageNotFound` where none of them stands in the transcript, or could at its end.
        """
        message_id = check_uuid(message_id, "message_id")
        checked_count(after, "after")
        if limit is not None:
            checked_count(limit, "limit")
        reader = await self._registry.reader(self.session_id)
        return await list_versions(reader.history, self._registry.config, message_id, after, limit)

    async def restore(self, message_id: str, *, idempotency_key: str | None = None, principal: str = "") -> Restored:
        """Bring back a version of a message with all that followed it, in place of what stands there now.

        ``message_id`` is that of the version, as `versions` shows it. Its messages come whole, under new ids; it keeps
        its number, and what it takes the place of can be restored in its turn. A version that stands in the transcript
        stays as it is. Repeated with the same ``idempotency_key`` (and ``principal``) it gets the first answer; where
        the version stood there, with those of its messages that stand there still.

        Raises `MessageNotFound`, `GenerationActive` while a generation is live, `IdempotencyConflict`, `WriteFailed`.
        """
        message_id = check_uuid(message_id, "message_id")
        key, principal = checked_text(idempotency_key, "idempotency_key"), checked_principal(principal)
        return await self._carry_out(Restore(message_id=message_id, key=key, principal=principal))

    async def update(self, patch: JSONObject) -> Updated:
        """Merge ``patch`` into the metadata (RFC 7396: null removes a member, objects merge)."""
        patch = cast("JSONObject", own_json(check_object(patch, "metadata"), "metadata"))
        return await self._carry_out(Update(patch=patch))

    async def reset(self, reason: str | None = None) -> Cursor:
        """End what is live and what waits; then the transcript is empty. Epoch, offsets and turns go on."""
        return await self._carry_out(Reset(reason=checked_text(reason, "reason")))

    async def fork(
        self,
        session_id: str | None = None,
        *,
        at: Cursor | str | None = None,
        metadata: JSONObject | None = None,
    ) -> Session:
        """A new, independent session that begins with this one's messages: all, or those up to ``at``.

        ``at`` is a cursor, or the id of the last message to take. ``metadata`` are this session's unless given. The
        files that its messages name are copied. Raises `IdInUse`, `InvalidCursor`, `MessageNotFound`, and `WriteFailed`
        where there is no new session because something of it could not be stored.
        """
        sid = new_session_id() if session_id is None else check_session_id(session_id)
        await fork(self._registry, sid, self.session_id, checked_fork_point(at), own_metadata(metadata))
        return Session(self._registry, sid, created=True)

    @asynccontextmanager
    async def subscribe(
        self,
        after: Cursor | str | None = None,
        *,
        live: bool = True,
        snapshot: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[Subscription]:
        """Read from ``after``: a cursor, ``"now"`` for the tail, or None for the start.

        ``live=False`` ends at the tail; ``snapshot=True`` begins with the state and goes on behind it: with the newest
        messages, ``limit`` of them at most, as `snapshot_page` has them, and with those that are open. A reader
        that is slow loses time, never events, and holds nobody up. Raises `InvalidCursor`, `InvalidBody`.
        """
        from_tail = type(after) is str and after == "now"
        cursor = None if after is None or from_tail else checked_cursor(after)
        checked_flag(live, "live")
        checked_flag(snapshot, "snapshot")
        limit, _ = checked_page(limit, None)
        reader = await self._registry.reader(self.session_id, to_follow=True)
        tail = reader.history.cursor
        if cursor is not None and cursor.epoch == tail.epoch and cursor.offset > tail.offset:
            missed = Head(session_id=self.session_id, epoch=cursor.epoch, tail=cursor.offset, token=0)
            self._registry.doubts.missed(missed, proven=False)
        subscription = Subscription(
            reader.history,
            cursor,
            from_tail=from_tail,
            live=live,
            snapshot=snapshot,
            limit=limit,
        )
        async with subscription:
            yield subscription

    async def snapshot(self, limit: int | None = None, before: str | None = None) -> Snapshot:
        """The session's state at its committed tail; ``limit`` messages, the newest or those before ``before``.

        Raises `InvalidBody`, `InvalidId`, and `MessageNotFound` when no message has the id ``before``.
        """
        limit, before = checked_page(limit, before)
        return await (await self._registry.reader(self.session_id)).history.snapshot(limit, before)

    async def snapshot_page(self, limit: int | None = None, before: str | None = None) -> SnapshotPage:
        """`snapshot` with its JSON, for readers elsewhere: within `Config.snapshot_messages` and `snapshot_bytes`.

        Of these bytes there may be more where a single message has them. Made once for all who ask at the same cursor.
        """
        limit, before = checked_page(limit, before)
        return await (await self._registry.reader(self.session_id)).history.snapshot_page(limit, before)

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

        ``approval`` answers what the generation asked for: ``{approval_id, approved, reason?, arguments?}``, where
        anything but ``approved: true`` is a no; ``by`` is who answers. ``steer``, or a kind of your own, lies
        before the producer until it takes it, and is handed back at the end if it was not used. The same
        ``input_id`` with the same content again changes nothing; with other content it raises `IdInUse`.

        Raises `ApprovalNotFound`, `QueueFull`, `GenerationNotFound`, `GenerationMismatch` for a generation that
        waits, `StaleGeneration` for one that ended, `InvalidBody`, `InvalidId`, `WriteFailed`, `Draining`.
        """
        generation_id = check_uuid(generation_id, "generation_id")
        checked_text(by, "by")
        return await self._carry_out(
            Give(generation_id=generation_id, kind=kind, content=content, input_id=input_id, by=by)
        )

    # --- files

    async def keep_file(
        self,
        content: bytes | AsyncIterable[bytes],
        *,
        media_type: str,
        filename: str | None = None,
        size: int | None = None,
    ) -> FileKept:
        """Keep a file with this session, for blocks of kind image, file and source to name; durable when this returns.

        Sent again, with the same content, type and name, it is the same file. ``media_type`` has no parameters; a file
        that is said to be a PNG, JPEG, GIF or WebP must begin as one. ``filename`` loses what deceives: folders, and
        characters that are not printed. With ``size`` it must have just so many bytes. The file is gone with the
        session; a fork has a copy of those that its messages name.

        Raises `FileTooLarge` past `Config.file_bytes` or `Config.session_file_bytes`, `InvalidBody`, `WriteFailed`,
        `Draining`; nothing of it is kept then. Whoever is told `TimedOut`, or is cancelled while the last of it is
        stored, does not know whether it is kept, and sends it again. ``content`` is closed, if it is a generator.
        """
        if not isinstance(content, bytes | AsyncIterable):
            raise InvalidBody(f"content is bytes, or an async iterable of bytes, not {type(content).__name__}")
        check_media_type(media_type)
        filename = checked_filename(filename)
        if size is not None:
            checked_count(size, "size")
        elif isinstance(content, bytes):
            size = len(content)
        forwarding = self._registry.forwarding
        try:
            resident = await self._registry.resident(self.session_id)
        except Moved:
            if forwarding.peers is None:
                raise
            async with forwarding.files:
                most = self._registry.config.file_bytes if size is None else size
                held = await whole(content, most) if most <= self._registry.config.file_bytes else b""
                return await self._carry_out(
                    KeepFile(content=held, media_type=media_type, filename=filename, size=size)
                )
        return await resident.keep_file(content, media_type, filename, size)

    async def file(self, file_id: str) -> FileInfo:
        """What the session knows of a file that it keeps. Raises `FileNotFound`, `InvalidId`."""
        check_path_id(file_id, "a file_id")
        return await file_info((await self._registry.reader(self.session_id)).history, file_id)

    async def read_file(self, file_id: str, *, start: int = 0, limit: int | None = None) -> bytes:
        """The file's bytes from ``start`` on, at most ``limit`` of them; none behind its end.

        Raises `FileNotFound`, `InvalidId`, `InvalidBody`.
        """
        check_path_id(file_id, "a file_id")
        checked_count(start, "start")
        if limit is not None:
            checked_count(limit, "limit")
        return await read_file((await self._registry.reader(self.session_id)).history, file_id, start, limit)

    # --- remote producers

    async def chunks(
        self, chunks: Sequence[Chunk], *, stamp: ProducerStamp | None = None, lease: float | None = None
    ) -> ChunksAccepted:
        """Write chunks of one remote generation, all or none of them; durable when this returns.

        The first chunk of an id that the session never saw starts the generation, when nothing is live. Message and
        block are opened as needed. A chunk with a ``seq`` that was written before is a duplicate: accepted and passed
        over. With a ``stamp`` the whole request counts once: repeated, it changes nothing and succeeds, whatever
        became of the generation; one that is refused consumes no number.

        With a ``lease`` the producer promises a request at least every so many seconds, in place of the idle limit:
        silent for so long, readers get the status ``producer-silent``; for twice as long, the generation ends as
        ``lost``. It holds for the requests that follow, too, and `keep` is one that writes nothing.

        Raises `StaleGeneration` for a generation that is fenced or has ended, `GenerationMismatch` for another one
        than the live one, for one that waits, and for a message or job of another, `SequenceGap`, `StaleProducer`,
        `IdInUse` for the id of a posted message, `InvalidBody`, `InvalidId`, `Draining`; nothing was written then.
        With `WriteFailed` nothing of it is stored, with `TimedOut` it may yet be.
        """
        check_chunks(chunks)
        if stamp is not None:
            checked_instance(stamp, ProducerStamp, "stamp")
        if not 1 <= len(chunks) <= self._registry.config.batch_chunks:
            raise InvalidBody(f"a batch has 1 to {self._registry.config.batch_chunks} chunks")
        seconds = check_lease(lease)
        return await self._carry_out(Chunks(chunks=chunks, stamp=stamp, lease=seconds))

    async def keep(
        self,
        generation_id: str | None = None,
        *,
        lease: float | None = None,
        stamp: ProducerStamp | None = None,
    ) -> ChunksAccepted:
        """Tell that the remote producer lives: what keeps its lease while it has nothing to write.

        ``generation_id``: left out, the one that is live. With a ``stamp`` it is a request like any other, and counts.

        Raises what `chunks` raises where the producer is no longer the one that writes; `GenerationNotFound` where
        nothing is live that another process drives, and `InvalidBody` for a producer that declared no lease.
        """
        if generation_id is not None:
            generation_id = check_uuid(generation_id, "generation_id")
        if stamp is not None:
            checked_instance(stamp, ProducerStamp, "stamp")
        seconds = check_lease(lease)
        return await self._carry_out(Keep(generation_id=generation_id, stamp=stamp, lease=seconds))

    async def finish(
        self,
        generation_id: str,
        *,
        outcome: Literal["completed", "failed"] = "completed",
        code: str | None = None,
        message: str | None = None,
        usage: JSONObject | None = None,
        stamp: ProducerStamp | None = None,
    ) -> Finished:
        """End a remote generation in its producer's name; what is open is closed. Returns when all of it is durable.

        ``code`` and ``message`` say why it failed, to readers. The same end again by the same producer (its stamp's
        id, or none both times) changes nothing and succeeds.

        Raises `FinishFailed` when something that the generation wrote, or the end itself, could not be stored,
        `StaleGeneration` when it ended otherwise, `GenerationMismatch` for one that waits or has a producer here,
        `GenerationNotFound`, `SequenceGap`, `StaleProducer`, `InvalidBody`, `InvalidId`, `Draining`, `TimedOut`.
        """
        generation_id = check_uuid(generation_id, "generation_id")
        checked_ending(outcome, code, message, usage)
        if stamp is not None:
            checked_instance(stamp, ProducerStamp, "stamp")
        return await self._carry_out(
            Finish(generation_id=generation_id, outcome=outcome, code=code, message=message, usage=usage, stamp=stamp)
        )

    async def wait_fenced(self, generation_id: str) -> PenstockError:
        """Wait until nothing more can be written under this generation, and return what says so.

        What its producer's next write would raise: `StaleGeneration` for one that was superseded, stopped or has
        ended, finished by its own producer included; `WriteFailed`; `Draining`. At once for one that is past. Raises
        `GenerationNotFound`, and `GenerationMismatch` for one that waits.
        """
        generation_id = check_uuid(generation_id, "generation_id")
        alone = self._registry.forwarding.peers is None
        asked = WaitFenced(generation_id=generation_id, within=math.inf if alone else FENCE_WAIT)
        while True:
            error = await self._carry_out(asked)
            # A session that went to another engine goes on there, and with it what another process drives.
            if error is not None and (alone or not isinstance(error, Moved)):
                return error

    # --- presence

    async def put_presence(
        self, actor_id: str, device_id: str, *, name: str | None = None, status: str | None = None
    ) -> None:
        """Be here for `Config.presence_ttl` seconds: an actor, on one of its devices. Put it again to stay.

        Readers are told by `PresenceChanged` at once if it says anything new, and once more, with the status
        ``gone``, when it was not put again in time. Never stored; a reset leaves it as it is.

        Where engines share the log they share this, too. Raises `InvalidId`, `InvalidBody`, `Overloaded` past
        `Config.presence_limit`, and `TimedOut` while their store does not answer.
        """
        reader = await self._registry.reader(self.session_id)
        reader.check(Call.BE_HERE)
        await reader.presence.put(actor_id, device_id, name=name, status=status)

    async def drop_presence(self, actor_id: str, device_id: str | None = None) -> None:
        """Be gone: on one device, or without ``device_id`` on all of them. Who is not here changes nothing."""
        await (await self._registry.reader(self.session_id)).presence.drop(actor_id, device_id)

    async def presence(self) -> tuple[Present, ...]:
        """All who are here, in the order in which they came."""
        return await (await self._registry.reader(self.session_id)).presence.asked()

    async def generation(self, generation_id: str) -> GenerationInfo:
        """Where the generation stands, and how it ended, as snapshots tell it. Raises `GenerationNotFound`."""
        generation_id = check_uuid(generation_id, "generation_id")
        return await (await self._registry.reader(self.session_id)).generation(generation_id)

    async def cursor(self) -> Cursor:
        """The committed tail."""
        return (await self._registry.reader(self.session_id)).history.cursor

    async def delete(self) -> None:
        """End what is live, then this life of the session; creating it again begins a new one.

        Works also where everything else raises `CorruptSession`: what is stored of it is gone then, as it is.
        """
        await self._carry_out(DeleteSession())
