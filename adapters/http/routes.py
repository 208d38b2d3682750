"""Routes, each described where it is added: its method and path, what it takes and answers, and its errors.

The description (`openapi`) is made of these, so nothing is said of a route in a second place. What several of them
take and answer in the same way stands here, too.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, TypeVar, final

from attrs import frozen
from quart import Response, request
from quart_trio import QuartTrio

from penstock.engine import InvalidBody, encode_json

from ..access import Scope
from ..requests.answers import as_json
from ..requests.bodies import check_idempotency_key
from ..requests.listing import LARGEST_PAGE
from .guard import allow
from .openapi.schemas import Schema, reference

if TYPE_CHECKING:
    from attrs import AttrsInstance

__all__ = [
    "HEARTBEAT",
    "KEY",
    "LARGEST_PAGE",
    "LIMIT",
    "SESSION",
    "Answer",
    "Body",
    "Operation",
    "Parameter",
    "Routes",
    "Shape",
    "answered",
    "behind",
    "flag",
    "header",
    "idempotency_key",
    "json_answer",
    "no_body",
    "number",
    "page_size",
    "query",
    "seconds_between",
    "text_answer",
]

# An attrs type, one of several, or a schema of no type.
Shape: TypeAlias = "type[AttrsInstance] | tuple[type[AttrsInstance], ...] | Schema"


@final
@frozen(kw_only=True)
class Parameter:
    """One of the query's or a header; those of the path are known by their names."""

    name: str
    schema: Schema
    description: str
    place: Literal["query", "header"] = "query"


@final
@frozen(kw_only=True)
class Body:
    """A JSON object, or what ``media`` says.

    ``needed``: an empty one would be refused. ``example``: one that does something.
    """

    shape: Shape
    needed: bool = False
    example: Schema | None = None
    media: str = "application/json"


@final
@frozen(kw_only=True)
class Answer:
    """A success, or an answer of its own kind. ``content``: what is said, by media type; of a stream, one piece."""

    description: str
    content: Mapping[str, Shape]


def json_answer(description: str, shape: Shape) -> Answer:
    return Answer(description=description, content={"application/json": shape})


def answered(value: AttrsInstance | bytes, status: int = 200) -> Response:
    """An answer; ``value`` may be its JSON."""
    body = value if isinstance(value, bytes) else encode_json(as_json(value))
    return Response(body, status, content_type="application/json")


def no_body(description: str) -> Answer:
    return Answer(description=description, content={})


def text_answer(description: str, *media_types: str) -> Answer:
    string: Schema = {"type": "string"}
    return Answer(description=description, content=dict.fromkeys(media_types, string))


@final
@frozen(kw_only=True)
class Operation:
    """``codes``: the errors that are its own; those that any request may meet are added, by ``scope`` also the
    guard's. ``scope``: what the caller must be allowed; None: anybody, also who does not say who they are. Where the
    path names a session, that is asked before the handler is called; one that ``asks_itself`` needs the body for it.
    """

    method: Literal["get", "put", "patch", "post", "delete"]
    path: str
    id: str
    tag: str
    summary: str
    answers: Mapping[int, Answer]
    scope: Scope | None
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None
    codes: tuple[str, ...] = ()
    asks_itself: bool = False


Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Response]])


@final
class Routes:
    """The routes of one application, and what was said of each."""

    def __init__(self, app: QuartTrio) -> None:
        self.app: Final = app
        self.operations: Final[dict[tuple[str, str], Operation]] = {}
        self.public: Final[set[str]] = set()  # the endpoints that anybody may ask

    def add(self, operation: Operation, **options: object) -> Callable[[Handler], Handler]:
        """A decorator: have this function answer what is described. ``options`` are those of Quart's `route`.

        Raises `ValueError` for a method and path that have a route.
        """
        where = (operation.method, operation.path)
        if where in self.operations:
            raise ValueError(f"{operation.method} {operation.path} has a route")
        self.operations[where] = operation
        rule = operation.path.replace("{", "<").replace("}", ">")

        def added(handler: Handler) -> Handler:
            answer: Callable[..., Awaitable[Response]] = handler
            if operation.path.startswith("/v1/"):
                answer = _asked_only(operation, handler)
            if operation.scope is None:
                self.public.add(str(options.get("endpoint", handler.__name__)))
            elif "{session_id}" in operation.path and not operation.asks_itself:
                answer = _guarded(operation.scope, answer)
            self.app.route(rule, methods=[operation.method.upper()], **options)(answer)
            return handler

        return added


# A ticket stands in the query for a token, and is the guard's to read.
_TICKET: Final = "ticket"


def _asked_only(
    operation: Operation, handler: Callable[..., Awaitable[Response]]
) -> Callable[..., Awaitable[Response]]:
    """The handler, for requests whose query has no other fields than the operation is described with."""
    known = {each.name for each in operation.parameters if each.place == "query"}

    @wraps(handler)
    async def answer(*given: str, **path: str) -> Response:
        for name in request.args:
            if name not in known and name != _TICKET:
                there = f"; there are {', '.join(sorted(known))}" if known else ""
                raise InvalidBody(f"the query has no field {name!r:.80}{there}")
        return await handler(*given, **path)

    return answer


def _guarded(scope: Scope, handler: Callable[..., Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
    """The handler, for those who may do this to the session that it is about."""

    @wraps(handler)
    async def answer(session_id: str, **others: str) -> Response:
        await allow(scope, session_id)
        return await handler(session_id, **others)

    return answer


# What every request about a session may be refused with.
SESSION: Final = (
    "INVALID_ID",
    "SESSION_NOT_FOUND",
    "SESSION_DELETED",
    "CORRUPT_SESSION",
    "WRITE_FAILED",
    "DRAINING",
    "SESSION_MOVED",
    "STORE_AWAY",
)

# Messages, or sessions, in one page unless the client asks otherwise: a screenful many times over.
_PAGE: Final = 100

# Seconds between two signs of life that may be asked for, at most: they are never more than the server's own.
_LONGEST_HEARTBEAT: Final = 3600

# What a number in a query looks like; the bound on it is not longer.
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)

LIMIT: Final = Parameter(
    name="limit",
    schema={"type": "integer", "minimum": 1, "maximum": LARGEST_PAGE, "default": _PAGE},
    description="How many in one page, at most: a page is bounded in bytes, too. Written in decimal, given once.",
)


HEARTBEAT: Final = Parameter(
    name="heartbeat",
    schema={"type": "integer", "minimum": 1, "maximum": _LONGEST_HEARTBEAT},
    description="Seconds of silence before it says that it lives; at most the server's own.",
)


def seconds_between(own: float) -> float:
    """`HEARTBEAT`, of the request that Quart is at; at most the server's ``own``. Raises `InvalidBody`."""
    return min(own, number(HEARTBEAT.name, _LONGEST_HEARTBEAT) or own)


def page_size() -> int:
    """`LIMIT`, of the request that Quart is at. Raises `InvalidBody`."""
    return number(LIMIT.name, LARGEST_PAGE) or _PAGE


def behind() -> int:
    """``after``, of the request that Quart is at: the number behind which a page begins. Raises `InvalidBody`."""
    return number("after", 10**9 - 1, least=0) or 0


def number(name: str, most: int, *, least: int = 1) -> int | None:
    """What the query of the request that Quart is at says under this name, if anything. Raises `InvalidBody`."""
    given = request.args.getlist(name)
    if not given:
        return None
    if len(given) > 1 or _NUMBER.fullmatch(given[0]) is None or not least <= int(given[0]) <= most:
        raise InvalidBody(f"{name} must be a whole number from {least} to {most}, given once")
    return int(given[0])


def flag(name: str, *, default: bool) -> bool:
    """What the query of the request that Quart is at says of it. Raises `InvalidBody`."""
    text = request.args.get(name)
    if text is None:
        return default
    if text not in ("true", "false"):
        raise InvalidBody(f"{name} must be true or false, not {text!r}")
    return text == "true"


def query(name: str, schema: Schema | str, description: str) -> Parameter:
    return Parameter(
        name=name, schema=reference(schema) if isinstance(schema, str) else schema, description=description
    )


def header(name: str, schema: Schema | str, description: str) -> Parameter:
    made = reference(schema) if isinstance(schema, str) else schema
    return Parameter(name=name, schema=made, description=description, place="header")


KEY: Final = header(
    "Idempotency-Key",
    {"type": "string", "pattern": "^[!-~]{1,255}$"},
    "Makes the request safe to repeat: for a day the same key in the same session gets the first answer.",
)


def idempotency_key() -> str | None:
    """`KEY`, of the request that Quart is at. Raises `InvalidBody`."""
    given = request.headers.getlist(KEY.name)
    if len(given) > 1:
        raise InvalidBody(f"there is more than one {KEY.name}")
    return check_idempotency_key(given[0]) if given else None
