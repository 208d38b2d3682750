"""The bytes of every delivery in every form. Pure; how they travel is `test_streams`'s."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import pytest
import wsproto.connection
import wsproto.events

from penstock.adapters.forms import frames, ndjson, sse
from penstock.adapters.forms.controls import Control, fields_of, read_control
from penstock.engine import (
    Batch,
    CaughtUp,
    Cursor,
    Degraded,
    Delivery,
    Drained,
    Ended,
    Entry,
    Ephemeral,
    Gap,
    InvalidBody,
    Opened,
    PresenceListed,
    Present,
    SessionState,
    SnapshotTaken,
)

AT = Cursor("e1", 7)
TEXT = "e1-0000000000000007"
BATCH = Batch("s", "e1", [Entry(6, '{"a":"ü\u2028"}'.encode()), Entry(7, b'{"b":2}')])
SNAPSHOT = SessionState("s", "e1").snapshot()
ASIDE = Ephemeral(AT, '{"c":"ü"}'.encode())
LISTED = PresenceListed(
    (Present(actor_id="a", device_id="d"), Present(actor_id="b", device_id="d", name="B", status="typing"))
)
LISTED_JSON: list[dict[str, str]] = [
    {"actor_id": "a", "device_id": "d"},
    {"actor_id": "b", "device_id": "d", "name": "B", "status": "typing"},
]

CONTROLS: list[tuple[Delivery, str, dict[str, object], str | None]] = [
    (SnapshotTaken(SNAPSHOT), "snapshot", dict(SNAPSHOT.to_json()), "e1-0000000000000000"),
    (CaughtUp(AT), "caught-up", {"cursor": TEXT}, TEXT),
    (Gap("past_tail", "x", AT), "gap", {"reason": "past_tail", "asked": "x", "from": TEXT}, TEXT),
    (LISTED, "presence", {"presence": LISTED_JSON}, None),
    (Degraded("WRITE_FAILED"), "degraded", {"code": "WRITE_FAILED"}, None),
    (Ended("deleted"), "end", {"reason": "deleted"}, None),
]
PLAIN = [Degraded("WRITE_FAILED"), Ended("deleted"), Drained("shutdown")]
each_control = pytest.mark.parametrize(("delivery", "name", "value", "cursor"), CONTROLS)


def test_sse_events_are_id_and_data_and_nothing_else() -> None:
    assert sse.frame(BATCH).decode() == (
        'id: e1-0000000000000006\ndata: {"a":"ü\u2028"}\n\nid: e1-0000000000000007\ndata: {"b":2}\n\n'
    )
    assert sse.frame(Opened(AT)).decode() == f"id: {TEXT}\n\n"
    assert sse.HEARTBEAT.startswith(b":")


@each_control
def test_sse_control_frames(delivery: Delivery, name: str, value: dict[str, object], cursor: str | None) -> None:
    framed = sse.frame(delivery).decode()
    assert framed.endswith("\n\n")
    assert "\r" not in framed
    fields = dict(line.split(": ", 1) for line in framed[:-2].split("\n"))
    assert json.loads(fields.pop("data")) == value
    assert ("retry" in fields) == (name == "degraded")
    fields.pop("retry", None)
    assert fields == {"event": name, **({} if cursor is None else {"id": cursor})}


@pytest.mark.parametrize(
    ("delivery", "name", "value"),
    [
        (Drained("shutdown"), "drain", '{"reason":"shutdown"}'),
        (Degraded("WRITE_FAILED"), "degraded", '{"code":"WRITE_FAILED"}'),
    ],
)
def test_sse_readers_are_told_to_come_back_spread_out(delivery: Delivery, name: str, value: str) -> None:
    frames_ = {sse.frame(delivery).decode() for _ in range(50)}
    assert len(frames_) > 10
    for framed in frames_:
        found = re.fullmatch(rf"event: {name}\nretry: (\d+)\ndata: {value}\n\n", framed)
        assert found is not None
        assert 1_000 <= int(found[1]) <= 5_000


def test_ndjson_events_are_one_line_each() -> None:
    assert ndjson.frame(BATCH).decode() == '{"a":"ü\u2028"}\n{"b":2}\n'
    assert json.loads(ndjson.frame(Opened(AT))) == {"control": "open", "epoch": "e1", "cursor": TEXT}
    assert json.loads(ndjson.frame(Drained("shutdown"))) == {"control": "drain", "reason": "shutdown"}
    assert ndjson.HEARTBEAT == b"\n"


@each_control
def test_ndjson_control_frames(delivery: Delivery, name: str, value: dict[str, object], cursor: str | None) -> None:
    framed = ndjson.frame(delivery)
    assert framed.count(b"\n") == 1
    assert json.loads(framed) == {"control": name, **value}


def test_websocket_events_are_joined_as_they_are_stored() -> None:
    assert frames.frame("s", BATCH).decode() == (
        f'{{"op":"events","session_id":"s","events":[{{"a":"ü\u2028"}},{{"b":2}}],"cursor":"{TEXT}"}}'
    )
    assert json.loads(frames.frame("s", Opened(AT), 5)) == {
        "op": "reply",
        "id": 5,
        "result": {"session_id": "s", "cursor": TEXT},
    }
    drained = {"op": "drain", "session_id": "s", "reason": "shutdown"}
    assert json.loads(frames.frame("s", Drained("shutdown"))) == drained


@each_control
def test_websocket_control_frames(delivery: Delivery, name: str, value: dict[str, object], cursor: str | None) -> None:
    assert json.loads(frames.frame("s", delivery)) == {"op": name, **value, "session_id": "s"}


@pytest.mark.parametrize("control", [CaughtUp(AT), Gap("past_tail", "x", AT), LISTED, *PLAIN])
def test_a_control_frame_is_read_back_also_with_fields_of_a_later_version(control: Control) -> None:
    name, fields = fields_of(control)
    assert read_control(name, {**fields, "session_id": "s", "later": 1}) == control
    assert read_control("later", fields) is None
    for field in fields:
        with pytest.raises(InvalidBody):
            read_control(name, {**fields, field: 1})
        with pytest.raises(InvalidBody):
            read_control(name, {})


def test_a_batch_is_framed_once_for_all_readers_of_a_form() -> None:
    assert sse.frame(BATCH) is sse.frame(BATCH)
    assert ndjson.frame(BATCH) is ndjson.frame(BATCH)
    assert frames.wire_frames("s", BATCH) is frames.wire_frames("s", BATCH)


#
def test_an_event_that_is_not_in_the_log_moves_no_cursor() -> None:
    assert sse.frame(ASIDE).decode() == 'data: {"c":"ü"}\n\n'
    assert ndjson.frame(ASIDE).decode() == '{"c":"ü"}\n'
    assert frames.frame("s", ASIDE).decode() == (
        f'{{"op":"events","session_id":"s","events":[{{"c":"ü"}}],"cursor":"{TEXT}"}}'
    )


def test_a_large_batch_goes_out_in_frames_that_a_client_takes() -> None:
    sizes = [10, 40_000, 30_000, 5, 100_000, 1, 64 * 1024]
    batch = Batch("s", "e1", [Entry(offset, b"x" * size) for offset, size in enumerate(sizes, 7)])
    cut = list(frames.cut(batch))
    assert [[entry.offset for entry in part.entries] for part in cut] == [[7, 8], [9, 10], [11], [12], [13]]
    assert [part.cursor for part in cut][-1] == batch.cursor
    assert texts(frames.wire_frames("s", batch)) == [frames.frame("s", part) for part in cut]
    assert texts(frames.wire_frames("s", BATCH)) == [frames.frame("s", BATCH)]
    assert texts(frames.wire_frames("s", Opened(AT), 7)) == [frames.frame("s", Opened(AT), 7)]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
def test_a_frame_on_the_wire_is_what_a_client_reads(size: int) -> None:
    assert texts([frames.on_the_wire(b"x" * size)]) == [b"x" * size]


def texts(wire: Sequence[bytes]) -> list[bytes]:
    """What a client reads in these frames: one text in each."""
    client = wsproto.connection.Connection(wsproto.connection.ConnectionType.CLIENT)
    found = []
    for frame in wire:
        client.receive_data(frame)
        pieces = [event for event in client.events() if isinstance(event, wsproto.events.TextMessage)]
        assert [piece.message_finished for piece in pieces][-1:] == [True]
        found.append("".join(piece.data for piece in pieces).encode())
    return found
