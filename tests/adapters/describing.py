"""Answers held against the API's own description: every status, media type, code and body must stand there.

Every client of `serving` checks each of its answers, so whatever route a test asks, the description is tested, too.
Schemas are closed here: a field that is not described fails, although clients are told to expect more some day.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any, cast
from urllib.parse import unquote

import httpx
import jsonschema_rs
from quart_trio import QuartTrio

from penstock.adapters.http.app import _App, create_app
from penstock.adapters.http.openapi import document
from penstock.adapters.http.page import FILES
from penstock.engine import Engine

__all__ = ["described", "described_line", "description", "rules", "validate"]

_METHODS = ("get", "put", "patch", "post", "delete")


@cache
def description(*, secured: bool = False) -> dict[str, Any]:
    """The document as a client gets it."""
    app = create_app(cast(Engine, None))  # it is asked nothing
    assert isinstance(app, _App)
    told = document(app.routes.operations.values(), files=FILES, known_by=["bearer"] if secured else [])
    made: dict[str, Any] = json.loads(json.dumps(told))
    return made


def rules(app: QuartTrio) -> set[tuple[str, str]]:
    """Method and path of every route, the path as the description writes it."""
    return {
        (method.lower(), re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", str(rule)))
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
        if method.lower() in _METHODS
    }


@cache
def _closed() -> dict[str, Any]:
    """The schemas, with no room for fields that they do not name."""
    schemas: dict[str, Any] = json.loads(json.dumps(description()["components"]["schemas"]))
    for name, schema in schemas.items():
        open_ = name in _OPEN or "properties" not in schema
        if not open_:
            schema["additionalProperties"] = False
    return schemas


# What others than the server fill: an input's content, a block of a kind of the application's own.
_OPEN = frozenset({"InputAccepted", "BlockSnapshot", "Steering", "PostedBlock"})


@cache
def _validator(schema: str) -> Any:
    return jsonschema_rs.Draft202012Validator(
        {**json.loads(schema), "components": {"schemas": _closed()}}, validate_formats=True
    )


def validate(value: object, schema: dict[str, Any]) -> None:
    """Raises `AssertionError` that says where ``value`` is not what ``schema`` describes."""
    validator = _validator(json.dumps(schema))
    problems = [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(value)]
    assert not problems, problems


def described_line(line: str) -> None:
    """A line of a stream, in either form. Raises `AssertionError` for an event or a frame that is not described."""
    data = line.removeprefix("data: ")
    if data.startswith('{"type":'):
        validate(json.loads(data), {"$ref": "#/components/schemas/Event"})
    elif data.startswith('{"control":'):
        validate(json.loads(data), {"$ref": "#/components/schemas/StreamLine"})


def _operation(method: str, path: str) -> dict[str, Any] | None:
    """The operation behind a request; a path in so many words comes before one with a hole."""
    for template, item in sorted(description()["paths"].items(), key=lambda each: each[0].count("{")):
        pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template))
        if re.fullmatch(pattern, path):
            found: dict[str, Any] | None = item.get("get" if method == "head" else method)
            return found
    return None


def _check_ids(path: str, value: dict[str, Any]) -> None:
    """A success says again what its path names."""
    parts = path.split("/")
    for before, name in (("sessions", "session_id"), ("generations", "generation_id"), ("queue", "generation_id")):
        if before in parts[:-1] and (given := unquote(parts[parts.index(before) + 1])) != "next":
            assert str(value[name]).lower() == given.lower(), path


async def described(response: httpx.Response) -> None:
    """A hook of httpx clients. Raises `AssertionError` for an answer that the description does not know."""
    request = response.request
    path = request.url.raw_path.partition(b"?")[0].decode()
    operation = _operation(request.method.lower(), path)
    media = response.headers.get("content-type", "").partition(";")[0]
    if operation is None:
        assert response.status_code in (204, 400, 401, 403, 404, 405, 413, 429, 503), (request.method, path)
        return
    told = operation["responses"].get(str(response.status_code))
    assert told is not None, f"{response.status_code} of {request.method} {path} is not described"
    if "$ref" in told:
        told = description()["components"]["responses"][told["$ref"].rpartition("/")[2]]
    content = told.get("content", {})
    if not content or request.method == "HEAD":
        return
    assert media in content, f"{media} of {request.method} {path} is not described"
    if media.endswith("json") and media != "application/x-ndjson":
        await response.aread()
        value = response.json()
        validate(value, content[media]["schema"])
        if response.is_success and not path.endswith("/fork"):  # which names the new session
            _check_ids(path, value)
