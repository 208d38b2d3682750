"""What clients ask of a session, in HTTP bodies and WebSocket frames alike: read strictly, carried out, answered.

Owns the shapes of requests. An unknown field is refused by name and nothing is
converted: a client that misspells a field, or sends a number as text, learns of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence  # noqa: F401  # what `JSON` is made of, resolved by name in here
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, TypeVar, cast, final

from attrs import fields_dict, frozen

from penstock.engine import (
    JSON,
    InvalidBody,
    JSONObject,
    PolicyName,
    Queued,
    Session,
    StaleError,
    structure,
)

from .answers import InputAnswer, PostAnswer, QueuedAnswer, StartAnswer, StopAnswer, SupersededAnswer

if TYPE_CHECKING:
    from attrs import AttrsInstance

__all__ = [
    "ApprovalAnswer",
    "EmptyBody",
    "How",
    "InputBody",
    "InputHead",
    "MessageBody",
    "QuestionBody",
    "StartBody",
    "StopBody",
    "check_idempotency_key",
    "post",
    "put_in",
    "read_body",
    "read_input",
    "start",
    "stop",
]

_ROLES: Final = ("user", "assistant", "tool", "system")
_QUEUE: Final = ("pause", "continue", "clear")

# The producer that is another process, which sends chunks.
_REMOTE: Final = "remote"

# What a start came to: over HTTP its status tells, on a WebSocket a field of the answer.
How: TypeAlias = Literal["started", "queued", "joined", "repeated"]

# A UUID or a hash fits many times over; what fits no header is no key.
_KEY: Final = re.compile(r"[!-~]{1,255}")


@final
@frozen(kw_only=True)
class EmptyBody:
    """Of a request that says all by what it is."""


@final
@frozen(kw_only=True)
class MessageBody:
    role: str = "user"
    text: str | None = None
    blocks: list[JSONObject] | None = None
    message_id: str | None = None
    metadata: JSONObject | None = None


@final
@frozen(kw_only=True)
class QuestionBody:
    """The user's message that a start brings, where it is more than a text."""

    blocks: list[JSONObject]
    message_id: str | None = None
    metadata: JSONObject | None = None


@final
@frozen(kw_only=True)
class StartBody:
    producer: str | None = None
    text: str | None = None
    message: JSONObject | None = None
    input: JSON = None
    policy: str = "supersede"
    job_id: str | None = None
    generation_id: str | None = None
    replaces: str | None = None
    on_last_disconnect: JSON = None
    idle_limit: float | None = None  # infinite where the body says null
    continues: str | None = None
    metadata: JSONObject | None = None

    @property
    def is_remote(self) -> bool:
        """Whether it is to be driven by chunks: who may not send them may not open it either."""
        return self.producer == _REMOTE


@final
@frozen(kw_only=True)
class StopBody:
    generation_id: str | None = None
    reason: str | None = None
    queue: str = "pause"


@final
@frozen(kw_only=True)
class InputBody:
    """An input for a live generation; ``content`` is what else stood in the body."""

    kind: str
    content: JSONObject
    input_id: str | None = None
    by: str | None = None  # who answers an approval, if that is not who asks

    @property
    def names_another(self) -> bool:
        """Whether the body says who it is from. Only who may produce can speak for others."""
        return self.by is not None or "by" in self.content


@final
@frozen(kw_only=True)
class InputHead:
    kind: str
    input_id: str | None = None


@final
@frozen(kw_only=True)
class ApprovalAnswer:
    """What an approval is answered with: a yes or a no, in so many words."""

    approval_id: str
    approved: bool
    reason: str | None = None
    arguments: JSON = None
    by: str | None = None


T = TypeVar("T", bound="AttrsInstance")


def read_body(value: JSON, kind: type[T], *, aside: frozenset[str] = frozenset()) -> T:
    """The request in a parsed JSON object; fields in ``aside`` are somebody else's.

    Raises `InvalidBody`, naming the field.
    """
    if not isinstance(value, dict):
        raise InvalidBody("the body must be a JSON object")
    own = {name: item for name, item in value.items() if name not in aside}
    known = fields_dict(kind)
    unknown = sorted(own.keys() - known.keys())
    if unknown:
        raise InvalidBody(f"there is no field {unknown[0]!r} here; there are {', '.join(known) or 'none'}")
    if "blocks" in own and not isinstance(own["blocks"], list):
        raise InvalidBody("blocks must be a list of objects @ $.blocks")
    if own.get("idle_limit", 0) is None:  # the one null that says something: that there is no limit
        own["idle_limit"] = math.inf
    return structure(own, kind)


def read_input(value: JSON, *, aside: frozenset[str] = frozenset()) -> InputBody:
    """An input: ``kind``, ``input_id``, and its content. Of an approval's answer every field is known.

    Raises `InvalidBody`, naming the field.
    """
    if not isinstance(value, dict):
        raise InvalidBody("the body must be a JSON object")
    own = {name: item for name, item in value.items() if name not in aside}
    names = fields_dict(InputHead).keys()
    head = structure({name: item for name, item in own.items() if name in names}, InputHead)
    content = {name: item for name, item in own.items() if name not in names}
    by: str | None = None
    if head.kind == "approval":
        by = read_body(content, ApprovalAnswer).by
        content.pop("by", None)
    return InputBody(kind=head.kind, input_id=head.input_id, content=content, by=by)


def check_idempotency_key(key: JSON) -> str:
    """The key, if it is 1 to 255 visible ASCII characters. Raises `InvalidBody`."""
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise InvalidBody("an idempotency key is 1 to 255 visible ASCII characters, without spaces")
    return key


async def start(
    session: Session,
    body: StartBody,
    idempotency_key: str | None,
    *,
    principal: str = "",
    lease: float | None = None,
) -> tuple[StartAnswer | QueuedAnswer, How]:
    """Start a generation for ``principal``, or have it wait; also what it came to.

    ``lease`` is the remote producer's that asks for it.
    """
    if lease is not None and not body.is_remote:
        raise InvalidBody("only the producer of a generation that is driven by chunks has a lease")
    made, how = await _start(session, body, idempotency_key, principal)
    if lease is not None and how == "started":
        with suppress(StaleError):  # it is over already, which its producer hears with its first chunk
            await session.keep(made.generation_id, lease=lease)
    return made, how


async def _start(
    session: Session, body: StartBody, idempotency_key: str | None, principal: str
) -> tuple[StartAnswer | QueuedAnswer, How]:
    if body.message is not None:
        read_body(body.message, QuestionBody)
    started = await session.start(
        body.producer,
        text=body.text,
        message=body.message,
        input=body.input,
        policy=cast("PolicyName", body.policy),  # the engine refuses any other word
        job_id=body.job_id,
        generation_id=body.generation_id,
        metadata=body.metadata,
        replaces=body.replaces,
        on_last_disconnect=_seconds_alone(body.on_last_disconnect),
        idle_limit=body.idle_limit,
        continues=body.continues,
        idempotency_key=idempotency_key,
        principal=principal,
        author=principal or None,
    )
    if isinstance(started, Queued):
        waits = QueuedAnswer(
            session_id=session.session_id,
            generation_id=started.generation_id,
            position=started.position,
            cursor=started.cursor,
        )
        return waits, "repeated" if started.repeated else "queued"
    ended = started.superseded
    runs = StartAnswer(
        session_id=session.session_id,
        generation_id=started.generation_id,
        turn=started.turn,
        cursor=started.cursor,
        message_id=started.message_id,
        superseded=None
        if ended is None
        else SupersededAnswer(
            generation_id=ended.generation_id, cleanup=ended.cleanup, seconds=round(ended.seconds, 6)
        ),
    )
    return runs, "joined" if started.joined else "repeated" if started.repeated else "started"


def _seconds_alone(value: JSON) -> float | None:
    """How long a generation goes on with nobody there; None: for ever. Raises `InvalidBody`."""
    if value is None or value == "continue":
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            pass
    raise InvalidBody("on_last_disconnect is 'continue' or a number of seconds, 0 or more")


async def stop(session: Session, body: StopBody, *, principal: str = "") -> StopAnswer:
    """Stop the live generation or the one that is named, for ``principal``."""
    if body.queue not in _QUEUE:
        raise InvalidBody(f"queue must be one of {', '.join(_QUEUE)}, not {body.queue!r}")
    reason = "stopped" if body.reason is None else body.reason
    queue = cast(Literal["pause", "continue", "clear"], body.queue)
    stopped = await session.stop(body.generation_id, reason=reason, queue=queue, author=principal or None)
    return StopAnswer(session_id=session.session_id, state=stopped.state, generation_id=stopped.generation_id)


async def put_in(session: Session, generation_id: str, body: InputBody, *, principal: str = "") -> InputAnswer:
    """Send an input of ``principal``, or of whom it names, into a live generation."""
    by = body.by or principal or None
    input_id = await session.input(generation_id, body.kind, body.content, input_id=body.input_id, by=by)
    return InputAnswer(session_id=session.session_id, generation_id=generation_id, input_id=input_id)


async def post(session: Session, body: MessageBody, *, principal: str = "") -> tuple[PostAnswer, bool]:
    """Post a message of ``principal``; also whether it is new."""
    if body.role not in _ROLES:
        raise InvalidBody(f"role must be one of {', '.join(_ROLES)}, not {body.role!r}")
    posted = await session.post(
        body.text,
        blocks=body.blocks,
        role=body.role,
        message_id=body.message_id,
        metadata=body.metadata,
        author=principal or None,
    )
    answer = PostAnswer(session_id=session.session_id, message_id=posted.message_id, cursor=posted.cursor)
    return answer, posted.created
