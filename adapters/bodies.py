"""What clients ask of a session, in HTTP bodies and WebSocket frames alike: read strictly, carried out, answered.

Owns the shapes of requests and of success answers. An unknown field is refused by name and nothing is
converted: a client that misspells a field, or sends a number as text, learns of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence  # noqa: F401  # what `JSON` is made of, resolved by name in here
from typing import TYPE_CHECKING, Final, TypeVar, final

from attrs import fields_dict, frozen

from engine import JSON, InvalidBody, JSONObject, Session, structure

if TYPE_CHECKING:
    from attrs import AttrsInstance

__all__ = [
    "MessageBody",
    "SessionBody",
    "StartBody",
    "StopBody",
    "post",
    "read_body",
    "show_generation",
    "start",
    "stop",
]

_ROLES: Final = ("user", "assistant", "tool", "system")


@final
@frozen(kw_only=True)
class SessionBody:
    metadata: JSONObject | None = None


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
class StartBody:
    producer: str | None = None
    text: str | None = None
    input: JSON = None
    policy: str = "supersede"
    job_id: str | None = None
    generation_id: str | None = None
    replaces: str | None = None
    on_last_disconnect: JSON = None
    metadata: JSONObject | None = None


@final
@frozen(kw_only=True)
class StopBody:
    generation_id: str | None = None
    reason: str | None = None
    queue: str | None = None


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
    return structure(own, kind)


async def start(session: Session, body: StartBody) -> dict[str, JSON]:
    """Start a generation. What later versions will know is refused by name, so that nobody relies on it."""
    if body.policy in ("queue", "latest"):
        raise InvalidBody(f"policy {body.policy!r} is not supported; there are supersede, rollback, reject and join")
    if body.replaces is not None:
        raise InvalidBody(f"replaces ({body.replaces!r}) is not supported")
    if body.on_last_disconnect not in (None, "continue"):
        raise InvalidBody(f"on_last_disconnect must be 'continue', not {body.on_last_disconnect!r}")
    started = await session.start(
        body.producer,
        text=body.text,
        input=body.input,
        policy=body.policy,
        job_id=body.job_id,
        generation_id=body.generation_id,
        metadata=body.metadata,
    )
    made: dict[str, JSON] = {
        "session_id": session.session_id,
        "generation_id": started.generation_id,
        "turn": started.turn,
        "cursor": str(started.cursor),
    }
    if started.message_id is not None:
        made["message_id"] = started.message_id
    if started.superseded is not None:
        made["superseded"] = {
            "generation_id": started.superseded.generation_id,
            "cleanup": started.superseded.cleanup,
            "seconds": round(started.superseded.seconds, 6),
        }
    return made


async def stop(session: Session, body: StopBody) -> dict[str, JSON]:
    """Stop the live generation or the one that is named."""
    if body.queue not in (None, "pause"):
        raise InvalidBody(f"queue must be 'pause', not {body.queue!r}")
    stopped = await session.stop(body.generation_id, reason="stopped" if body.reason is None else body.reason)
    made: dict[str, JSON] = {"session_id": session.session_id, "state": stopped.state}
    if stopped.generation_id is not None:
        made["generation_id"] = stopped.generation_id
    return made


async def post(session: Session, body: MessageBody) -> tuple[dict[str, JSON], bool]:
    """Post a message; also whether it is new."""
    if body.role not in _ROLES:
        raise InvalidBody(f"role must be one of {', '.join(_ROLES)}, not {body.role!r}")
    posted = await session.post(
        body.text, blocks=body.blocks, role=body.role, message_id=body.message_id, metadata=body.metadata
    )
    made: dict[str, JSON] = {
        "session_id": session.session_id,
        "message_id": posted.message_id,
        "cursor": str(posted.cursor),
    }
    return made, posted.created


async def show_generation(session: Session, generation_id: str) -> Mapping[str, JSON]:
    """Where a generation stands."""
    found = await session.generation(generation_id)
    made: dict[str, JSON] = {
        "session_id": session.session_id,
        "generation_id": found.generation_id,
        "state": found.state,
    }
    if found.turn is not None:
        made["turn"] = found.turn
    if found.outcome is not None:
        made["outcome"] = found.outcome
    return made
