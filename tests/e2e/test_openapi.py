"""The description against a served process: whatever is sent, no answer is a bug, and each one is described."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from zlib import crc32

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, assume, settings
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    unsupported_method,
)

from penstock.adapters.access import load_signer, make_token
from tests.adapters.describing import description
from tests.e2e.conftest import ServerProcess
from tests.engine.exploring import exploring

if TYPE_CHECKING:
    from pathlib import Path

    from schemathesis import Case

pytestmark = pytest.mark.long

# Requests of each operation, beside those that schemathesis makes of every parameter's edges.
EXAMPLES = 8

# What there is at the path asked for.
KINDS = ("made up", "empty", "live", "queued", "ended", "remote")

SESSION_ID = re.compile(r"[A-Za-z0-9._~:-]{1,128}")
UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")

# What a schema cannot say.
EXCEPTIONS: dict[str, list[Any]] = {
    # Where a page begins is an id or a place, by its order.
    "GET /v1/sessions": [positive_data_acceptance],
    # A form is no file, and an image begins as one.
    "POST /v1/sessions/{session_id}/files": [positive_data_acceptance],
    # What a start may bring depends on its policy.
    "POST /v1/sessions/{session_id}/generations": [positive_data_acceptance],
    # A cursor must be one of this life of the session, and not past its tail.
    "POST /v1/sessions/{session_id}/fork": [positive_data_acceptance],
    # Whether a chunk may stand where it wants to is a matter of what was written before, and the headers belong
    # together. One whose number is known is answered as the first with it, whatever it says itself.
    "POST /v1/sessions/{session_id}/chunks": [positive_data_acceptance, negative_data_rejection],
    "POST /v1/sessions/{session_id}/chunks/batch": [positive_data_acceptance, negative_data_rejection],
    "POST /v1/sessions/{session_id}/generations/{generation_id}/finish": [positive_data_acceptance],
    # What may be asked for hangs together.
    "POST /v1/tickets": [positive_data_acceptance],
    # A tool's block says whose it is, and is not a user's.
    "POST /v1/sessions/{session_id}/messages": [positive_data_acceptance],
    # `live` is set below, so that what was made to be refused for it no longer is.
    "GET /v1/sessions/{session_id}/events": [positive_data_acceptance],
    # Only a handshake gets anywhere, and that is not for an HTTP client to make.
    "GET /v1/ws": [positive_data_acceptance],
    # The path also fits that of one in the queue, which can be deleted.
    "POST /v1/sessions/{session_id}/queue/next": [allow_header_conformance, unsupported_method],
}

# A request may be right and come too late: to a session that was deleted, or where there is no more room. And one
# that is wrong is not looked at where there is no session.
CONFIG = schemathesis.Config.from_dict(
    {
        "checks": {
            "positive_data_acceptance": {"expected-statuses": ["2xx", "403", "404", "409", "410", "429"]},
            "negative_data_rejection": {"expected-statuses": ["400", "401", "403", "404", "405", "409", "410", "429"]},
        }
    }
)

# The same requests each time, unless more of them are asked for.
SETTINGS = settings(
    exploring(EXAMPLES),
    derandomize="PENSTOCK_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)

schema = schemathesis.openapi.from_dict(description(), config=CONFIG)
guarded = schemathesis.openapi.from_dict(description(secured=True), config=CONFIG)


@pytest.fixture(scope="module")
def client(site: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site.url, trust_env=False, timeout=30) as client:
        yield client


@schema.hook
@guarded.hook
def map_body(context: object, body: object) -> object:
    """JSON Schema takes 1.0 for a whole number; penstock reads what is written."""
    if isinstance(body, float) and body.is_integer():
        return int(body)
    if isinstance(body, dict):
        return {name: map_body(context, item) for name, item in body.items()}
    if isinstance(body, list):
        return [map_body(context, item) for item in body]
    return body


def aimed(case: Case[Any], client: httpx.Client, kind: str) -> None:
    """Put ids of things that there are in place of some that were made up; what breaks the grammar stays."""
    ids = case.path_parameters
    if not isinstance(session_id := ids.get("session_id"), str) or not SESSION_ID.fullmatch(session_id):
        return
    ids["session_id"] = "s"
    client.put("/v1/sessions/s")
    if kind == "empty":
        return
    body: dict[str, object] = {"text": "a b c", "input": {"delay": 0.0 if kind == "ended" else 5.0}}
    if kind == "remote":
        body = {"text": "a b c", "producer": "remote"}
    started = client.post("/v1/sessions/s/generations", json=body).raise_for_status().json()
    if kind == "queued":
        waiting = client.post("/v1/sessions/s/generations", json={**body, "policy": "latest"})
        started |= waiting.raise_for_status().json()
    for name in ("generation_id", "message_id"):
        put_in(ids, name, started[name])
    chunks = case.body.get("chunks", [case.body]) if isinstance(case.body, dict) else []
    for chunk in chunks if "/chunks" in case.operation.path and isinstance(chunks, list) else []:
        put_in(chunk, "generation_id", started["generation_id"])


def put_in(where: object, name: str, known: str) -> None:
    if isinstance(where, dict) and isinstance(proposed := where.get(name), str) and UUID.fullmatch(proposed):
        where[name] = known


#
@schema.parametrize()
@SETTINGS
def test_every_answer_to_anything_is_described(case: Case[Any], client: httpx.Client, site: ServerProcess) -> None:
    sent = repr((case.path_parameters, case.query, case.headers, case.body))
    kind = KINDS[crc32(sent.encode()) % len(KINDS)]
    if kind != "made up":
        aimed(case, client, kind)
    if case.operation.path.endswith("/events"):
        case.query["live"] = "false"  # a stream without an end has no answer to look at
    without_lease(case)
    assume(is_counted(case.body))
    case.call_and_validate(base_url=site.url, excluded_checks=EXCEPTIONS.get(case.operation.label, []))


def is_counted(value: object) -> bool:
    """Whether every reader knows its numbers: of a whole number of more than 1023 bits a schema cannot say that."""
    if isinstance(value, dict):
        return all(map(is_counted, value.values()))
    if isinstance(value, list):
        return all(map(is_counted, value))
    return not isinstance(value, int) or value.bit_length() <= 1023


def without_lease(case: Case[Any]) -> None:
    """A start has a lease only where its producer is remote, which a schema cannot say."""
    if case.operation.path.endswith("/generations"):
        case.headers.pop("Producer-Lease", None)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "key"
    path.write_bytes(os.urandom(48).hex().encode())
    return path


@pytest.fixture(scope="module")
def guarded_site(tmp_path_factory: pytest.TempPathFactory, key: Path) -> Iterator[ServerProcess]:
    arguments = ("--jwt-key", str(key), "--rate", "1e6", "--auth-failures", "1e6")
    running = ServerProcess(tmp_path_factory.mktemp("guarded"), *arguments)
    yield running
    assert running.stop() == 0, running.log.read_text()
    assert "Traceback" not in running.log.read_text()


@guarded.parametrize()
@settings(SETTINGS, max_examples=5)
def test_without_a_valid_token_nothing_guarded_is_answered(
    case: Case[Any], guarded_site: ServerProcess, key: Path
) -> None:
    """Each request is sent with a token, and then by schemathesis without, and with one that is none."""
    signer = load_signer(key, "HS256")
    token = make_token(signer, subject="ann", scopes=["admin"], sessions=["*"], ttl=600)
    if case.operation.path.endswith("/events"):
        case.query["live"] = "false"
    without_lease(case)
    assume(is_counted(case.body))
    excluded = EXCEPTIONS.get(case.operation.label, [])
    headers = {"Authorization": f"Bearer {token}"}
    case.call_and_validate(base_url=guarded_site.url, headers=headers, excluded_checks=excluded)
