"""The document: every operation with its parameters, body and answers, and the schemas they refer to. And its route."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Literal, TypeAlias, cast

from quart import Response, request

from penstock.engine import JSON, BlockSnapshot, Chunk, encode_json

from ...access import Identity
from ...problems import PROBLEM_JSON, TABLE
from ...requests.bodies import ApprovalAnswer, InputHead, QuestionBody
from ..page import FILES
from ..routes import Answer, Body, Operation, Parameter, Routes, Shape, no_body
from .grammar import GRAMMAR, KIND, SHARED, WORD
from .schemas import Schema, Schemas, reference
from .vocabulary import add_events, add_frames, add_problem

__all__ = ["add_openapi", "document"]

# What the server knows people by.
Scheme: TypeAlias = Literal["bearer", "application"]

_TAGS: Final = {
    "sessions": "A session is one conversation.",
    "messages": "What stands in it beside the answers.",
    "files": "Pictures and documents that messages name.",
    "generations": "One run of a producer, which makes the answer. At most one is live in a session.",
    "producing": "What a producer in another process writes.",
    "queue": "Generations that wait for the live one.",
    "presence": "Who is here, on which device; never stored.",
    "streams": "The log of a session as it grows.",
    "server": "The server itself.",
    "pages": "What a browser is shown.",
}

_ABOUT: Final = """Live answers: produced, stamped, stored and delivered without being mixed up or lost. JSON goes in
and comes out, in UTF-8; no body at all is an empty object. A field that does not apply is absent, never null; one that
is not known is refused by name. Every answer has an `X-Request-Id`, yours if you sent one. GET may be asked as HEAD. A
path that is not listed is answered with 404, another method with 405, both with a problem."""

# What any request may meet, before its route or behind it.
_ANYWHERE: Final = (
    "INVALID_BODY",
    "ORIGIN_REFUSED",
    "BODY_TOO_LARGE",
    "RATE_LIMITED",
    "INTERNAL",
    "OVERLOADED",
    "TIMEOUT",
)
_GUARDED: Final = ("UNAUTHENTICATED", "FORBIDDEN")

# No schema fits a stream as a whole before OpenAPI 3.2; of these, one piece is described.
_STREAMS: Final = ("text/event-stream", "application/x-ndjson")

_PATH: Final = {
    "session_id": "SessionId",
    "generation_id": "Uuid",
    "message_id": "Uuid",
    "actor_id": "PresenceId",
    "device_id": "PresenceId",
    "file_id": "FileId",
    "name": "FileName",
}

# Of ids that whoever asks makes up; the others are the server's to make.
_EXAMPLES: Final[dict[str, Schema]] = {
    "session_id": {"example": "demo"},
    "actor_id": {"example": "ann"},
    "device_id": {"example": "phone"},
    "name": {"example": "penstock.js"},
}

_HEADERS: Final[dict[int, Schema]] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "How to authenticate: `Bearer`."}},
    429: {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds."}},
    503: {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds."}},
}


def add_openapi(routes: Routes, identity: Identity) -> None:
    """Add ``/openapi.json``, as the last route: it describes those that are there, with the prefix under which this
    server is reached, and what ``identity`` knows people by."""

    @routes.add(
        Operation(
            method="get",
            path="/openapi.json",
            id="describe",
            tag="server",
            summary="This description",
            scope=None,
            answers={
                200: Answer(description="OpenAPI 3.1.", content={"application/json": {"type": "object"}}),
                304: no_body("It is what `If-None-Match` names."),
            },
        )
    )
    async def openapi() -> Response:
        prefix = request.root_path.rstrip("/")
        body = encode_json({**told(), "servers": [{"url": prefix}]} if prefix else told())
        response = Response(body, 200, {"Cache-Control": "no-cache"}, content_type="application/json")
        response.set_etag(sha256(body).hexdigest()[:32])
        return await response.make_conditional(request)

    tokens: list[Scheme] = ["bearer"] if identity.takes_tokens else []
    known_by: list[Scheme] = [*tokens, "application"] if identity.ambient else tokens

    @cache  # it takes as long as all other routes together, and most servers are never asked
    def told() -> Schema:
        return document(routes.operations.values(), files=FILES, known_by=known_by)


def document(operations: Iterable[Operation], *, files: Collection[str], known_by: Collection[Scheme] = ()) -> Schema:
    """The whole document. ``files``: what is served beside the pages; ``known_by``: nobody is asked who they are
    where there is nothing."""
    made = _Making(files)
    paths: Schema = {}
    for operation in operations:
        item = cast(Schema, paths.setdefault(operation.path, {}))
        item[operation.method] = made.operation(operation, known_by)
    return {
        "openapi": "3.1.0",
        "info": {"title": "penstock", "version": _version(), "summary": "Live answers", "description": _one(_ABOUT)},
        "tags": [{"name": name, "description": told} for name, told in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(made.schemas.made.items())),
            "responses": dict(sorted(made.problems.items())),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "With a subject, scopes and patterns of session ids.",
                },
                "application": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Cookie",
                    "description": "What the application that runs this server knows people by: its own cookie, say.",
                },
                "ticket": {
                    "type": "apiKey",
                    "in": "query",
                    "name": "ticket",
                    "description": "For clients that cannot send headers: streams and the WebSocket.",
                },
            },
        },
    }


def _one(text: str) -> str:
    return " ".join(text.split())


def _version() -> str:
    try:
        return version("penstock")
    except PackageNotFoundError:  # run from its sources
        return "0"


class _Making:
    def __init__(self, files: Collection[str]) -> None:
        self.schemas = Schemas(GRAMMAR)
        self.problems: dict[str, JSON] = {}
        for name, schema in SHARED.items():
            self.schemas.add(name, schema)
        self.schemas.add("FileName", {"type": "string", "enum": sorted(files)})
        self._inputs()
        add_events(self.schemas)
        add_frames(self.schemas)
        add_problem(self.schemas)

    def _inputs(self) -> None:
        """Bodies that are read piece by piece, or by what stands in them."""
        chunks: Schema = {
            "type": "array",
            "items": self.schemas.of(Chunk, closed=True),
            "minItems": 1,
            "maxItems": 500,
        }
        written: Schema = {"type": "object", "properties": {"chunks": chunks}, "required": ["chunks"]}
        alive: Schema = {
            "type": "object",
            "properties": {"chunks": {"type": "array", "maxItems": 0}, "generation_id": reference("Uuid")},
            "required": ["chunks"],
        }
        closed = ({**shape, "additionalProperties": False} for shape in (written, alive))
        self.schemas.add("ChunkBatch", {"anyOf": list(closed)})
        self.schemas.of(BlockSnapshot)
        whole = self.schemas.made["BlockSnapshot"]
        fields_of_block = cast(Schema, whole["properties"]) | {"kind": KIND}
        told = (
            "A block as it is to stand. A tool's has `tool_call_id`, a tool call also `name`; an image, a file or a "
            "source has `file_id`, one of the session's files, or `url`. Of a file the session knows type and name."
        )
        self.schemas.add(
            "PostedBlock", {**whole, "properties": fields_of_block, "description": told, "required": ["kind"]}
        )
        self.schemas.of(QuestionBody, closed=True)
        head, answer = Schemas(GRAMMAR), Schemas(GRAMMAR)
        head.of(InputHead)
        answer.of(ApprovalAnswer, closed=True)
        own, approval = head.made["InputHead"], answer.made["ApprovalAnswer"]
        fields = (
            cast(Schema, approval["properties"]) | cast(Schema, own["properties"]) | {"kind": {"const": "approval"}}
        )
        self.schemas.add(
            "Approval",
            {**approval, "properties": fields, "required": ["kind", *cast("list[JSON]", approval["required"])]},
        )
        self.schemas.add(
            "Steering",
            {
                **own,
                "description": "`steer`, or a kind of your own; what else stands here is its content.",
                "properties": cast(Schema, own["properties"]) | {"kind": {**WORD, "not": {"const": "approval"}}},
            },
        )
        self.schemas.add("InputBody", {"oneOf": [reference("Approval"), reference("Steering")]})

    def operation(self, told: Operation, known_by: Collection[Scheme]) -> Schema:
        names = [part[1:-1] for part in told.path.split("/") if part.startswith("{")]
        parameters: list[JSON] = [
            {"name": name, "in": "path", "required": True, "schema": reference(_PATH[name]), **_EXAMPLES.get(name, {})}
            for name in names
        ]
        parameters += [_parameter(each) for each in told.parameters]
        made: Schema = {"operationId": told.id, "tags": [told.tag], "summary": told.summary}
        if told.description:
            made["description"] = told.description
        if parameters:
            made["parameters"] = parameters
        if told.body is not None:
            made["requestBody"] = self._body(told.body)
        answers: Schema = {str(status): self._answer(answer) for status, answer in told.answers.items()}
        answers |= self._problems(told)
        made["responses"] = dict(sorted(answers.items()))
        made["security"] = _security(told, known_by)
        return made

    def _body(self, body: Body) -> Schema:
        content: Schema = {"schema": self._shape(body.shape, closed=True)}
        if body.example is not None:
            content["example"] = body.example
        return {"required": body.needed, "content": {body.media: content}}

    def _answer(self, answer: Answer) -> Schema:
        made: Schema = {"description": answer.description}
        content: Schema = {}
        for media, shape in answer.content.items():
            content[media] = {"x-item-schema" if media in _STREAMS else "schema": self._shape(shape)}
        if content:
            made["content"] = content
        return made

    def _shape(self, shape: Shape, *, closed: bool = False) -> Schema:
        if isinstance(shape, dict):
            return shape
        if isinstance(shape, tuple):
            return {"anyOf": [self.schemas.of(each, closed=closed) for each in shape]}
        return self.schemas.of(shape, closed=closed)

    def _problems(self, told: Operation) -> Schema:
        """The refusals by status; where the route itself answers with a status, both."""
        codes = {*_ANYWHERE, *told.codes, *(_GUARDED if told.scope is not None else ())}
        by_status: dict[int, list[str]] = {}
        for code in TABLE:
            if code in codes:
                by_status.setdefault(TABLE[code].status, []).append(code)
        made: Schema = {}
        for status, named in by_status.items():
            problem = self._problem(status, named)
            own = told.answers.get(status)
            if own is not None:
                both = self._answer(own)
                both["content"] = cast(Schema, both["content"]) | _problem_content(named)
                made[str(status)] = both
            else:
                made[str(status)] = problem
        return made

    def _problem(self, status: int, codes: list[str]) -> Schema:
        name = "_".join([str(status), *codes])
        if name not in self.problems:
            made: Schema = {"description": ", ".join(codes), "content": _problem_content(codes)}
            if status in _HEADERS:
                made["headers"] = _HEADERS[status]
            self.problems[name] = made
        return {"$ref": f"#/components/responses/{name}"}


def _problem_content(codes: list[str]) -> Schema:
    narrowed: Schema = {"properties": {"code": {"enum": list(codes)}}}
    return {PROBLEM_JSON: {"schema": {"allOf": [reference("Problem"), narrowed]}}}


def _parameter(told: Parameter) -> Schema:
    return {
        "name": told.name,
        "in": told.place,
        "description": told.description,
        "schema": told.schema,
    }


def _security(told: Operation, known_by: Collection[Scheme]) -> list[JSON]:
    if told.scope is None or not known_by:
        return []
    made: list[JSON] = [{scheme: [told.scope]} for scheme in known_by]
    if told.tag == "streams":
        made.append({"ticket": []})
    return made
