"""A producer's lease over HTTP and WebSocket: where it is said, what keeps it, what is no lease."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio

from tests.adapters.faces import HttpFace, Json, SocketFace, Told
from tests.adapters.serving import PATIENCE
from tests.adapters.test_producing import GID, MID, OTHER, S, Stage, delta, each_face, producing
from tests.engine.living import data_of

#


async def ask(stage: Stage, what: str, body: Mapping[str, Any], lease: object = None) -> Told:
    """``what``: ``start``, ``chunks``, ``batch`` or ``finish``; ``lease`` as it is written on the wire."""
    if isinstance(stage.face, SocketFace):
        said = dict(body)
        if what == "chunks":
            said = {"chunks": [said]}
        if lease is not None:
            said["producer_lease"] = lease
        return await stage.face.ask("chunks" if what == "batch" else what, said)
    assert isinstance(stage.face, HttpFace)
    said = dict(body)
    path = {"start": "generations", "batch": "chunks/batch", "chunks": "chunks"}.get(what)
    path = path or f"generations/{said.pop('generation_id')}/finish"
    headers = {} if lease is None else {"Producer-Lease": str(lease)}
    answer = await stage.client.post(f"{S}/{path}", json=said, headers=headers)
    return Told(None if answer.is_success else answer.json()["code"], answer.json())


async def ended(stage: Stage, generation_id: str = GID) -> Json:
    with trio.fail_after(PATIENCE):
        return await stage.wait_event("generation.finished", generation_id=generation_id)


#
@each_face
@pytest.mark.parametrize("said_in", ["start", "chunks", "batch", "nothing but a lease"])
async def test_a_producer_that_goes_silent_is_told_and_lost(face: str, said_in: str) -> None:
    async with producing(face) as stage:
        if said_in == "start":
            (await ask(stage, "start", {"producer": "remote", "generation_id": GID}, 0.2)).done()
        elif said_in == "chunks":
            (await ask(stage, "chunks", delta("x"), 0.2)).done()
        elif said_in == "batch":
            (await ask(stage, "batch", {"chunks": [delta("x"), delta("y")]}, 0.2)).done()
        else:
            (await ask(stage, "chunks", delta("x"))).done()
            (await ask(stage, "batch", {"chunks": []}, 0.2)).done()
        assert (await ended(stage))["data"]["outcome"] == "lost"
        assert data_of(await stage.events(), "generation.status") == [
            {"status": "producer-silent", "detail": {"seconds": 0.2}}
        ]
        assert (await ask(stage, "batch", {"chunks": [], "generation_id": GID})).code == "STALE_GENERATION"


#
@each_face
async def test_a_batch_without_chunks_keeps_the_lease_and_writes_nothing(face: str) -> None:
    async with producing(face) as stage:
        assert (await ask(stage, "batch", {"chunks": []}, 30)).code == "GENERATION_NOT_FOUND"
        (await ask(stage, "chunks", delta("x", message_id=MID))).done()
        with stage.nothing_written():
            # Who declared no lease has nothing to keep: as before, a batch has chunks.
            assert (await ask(stage, "batch", {"chunks": []})).code == "INVALID_BODY"
            bodies: list[Json] = [{"chunks": []}, {"chunks": [], "generation_id": GID.upper()}]
            for body in bodies:
                told = (await ask(stage, "batch", body, 30)).done()
                assert (told["session_id"], told["generation_id"], told["turn"]) == ("s", GID, 1)
                assert (told["accepted"], told["duplicates"]) == (0, 0)
                assert told["cursor"] == (await stage.client.get(S)).json()["cursor"]
            assert (await ask(stage, "batch", {"chunks": [], "generation_id": OTHER})).code == "GENERATION_NOT_FOUND"
            assert (await ask(stage, "batch", {"chunks": [], "generation_id": "x"})).code == "INVALID_ID"
            assert (await ask(stage, "batch", {"chunks": [], "generation_id": None})).code == "INVALID_BODY"
            assert (await ask(stage, "batch", {"chunks": [delta("x")], "generation_id": GID})).code == "INVALID_BODY"
        (await ask(stage, "finish", {"generation_id": GID}, 30)).done()


WRONG = ["0", "-1", "1e3", "abc", "", "+5", "86401", "1000000000", "nan", "inf", "1.", ".5", "0x1"]
MORE: list[object] = [*WRONG, " 5", "٣", 0, -1, True, [5], {"seconds": 5}, 1e300]  # what no header can say


#
@pytest.mark.parametrize(("face", "lease"), [("http", each) for each in WRONG] + [("websocket", each) for each in MORE])
async def test_what_is_no_lease_is_refused_and_nothing_written(face: str, lease: object) -> None:
    async with producing(face) as stage:
        with stage.nothing_written():
            for what, body in (
                ("chunks", delta("x")),
                ("batch", {"chunks": [delta("x"), delta("y")]}),
                ("batch", {"chunks": []}),
                ("finish", {"generation_id": GID}),
                ("start", {"producer": "remote"}),
            ):
                told = await ask(stage, what, body, lease)
                assert told.code in ("INVALID_BODY", "GENERATION_NOT_FOUND"), (what, told)
                assert told.code == "INVALID_BODY" or what in ("finish", "batch")


@each_face
async def test_only_a_remote_start_has_a_lease(face: str) -> None:
    async with producing(face) as stage:
        assert (await ask(stage, "start", {}, 30)).code == "INVALID_BODY"
