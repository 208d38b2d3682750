from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal, get_args, get_type_hints

import pytest
from attrs import NOTHING, evolve, fields
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine import events as events_module
from penstock.engine.codec import (
    PieceEncoder,
    check_json,
    decode,
    decode_json,
    encode,
    encode_json,
    from_json,
    structure,
    to_json,
)
from penstock.engine.errors import InvalidBody
from penstock.engine.events import (
    DATA_TYPES,
    JSON,
    App,
    BlockDelta,
    BlockSnapshot,
    Cursor,
    Data,
    Event,
    ForkedGeneration,
    KnownData,
    Moment,
    Unknown,
    Version,
)
from tests.engine.strategies import json_objects, json_values, logs

_texts = st.text(max_size=8)
_counts = st.integers(0, 2**53)
_unknown_keys = st.text("xyz", min_size=2, max_size=4)  # no field of any event is spelled so
_unknown_fields = st.dictionaries(_unknown_keys, json_values, max_size=2)

_blocks = st.builds(
    BlockSnapshot,
    kind=_texts,
    seq=_counts,
    text=st.none() | _texts,
    arguments=json_values,
    value=st.none() | json_values,
    is_error=st.none() | st.booleans(),
    extra=_unknown_fields,
)
_ends = st.builds(
    ForkedGeneration,
    generation_id=_texts,
    turn=_counts,
    outcome=_texts,
    code=st.none() | _texts,
    message=st.none() | _texts,
    started=st.none() | st.builds(Moment, cursor=st.just(Cursor("e", 7)), time=_texts),
    usage=st.none() | json_objects,
    author=st.none() | _texts,
)
_BY_HINT: dict[object, st.SearchStrategy[object]] = {
    str: _texts,
    int: _counts,
    bool: st.booleans(),
    str | None: st.none() | _texts,
    int | None: st.none() | _counts,
    bool | None: st.none() | st.booleans(),
    ForkedGeneration | None: st.none() | _ends,
    Version | None: st.none() | st.builds(Version, of=_texts, index=_counts, count=_counts),
    tuple[BlockSnapshot, ...]: st.lists(_blocks, max_size=2).map(tuple),
}
_json_hint = get_type_hints(BlockDelta)["value"]
_object_hint = get_type_hints(Event)["extra"]


def _strategy(hint: object) -> st.SearchStrategy[object]:
    if hint in _BY_HINT:
        return _BY_HINT[hint]
    if hint == _json_hint:
        return st.none() | json_values
    if hint == _object_hint:
        return json_objects
    return st.none() | json_objects


def _data_of(cls: type[Data]) -> st.SearchStrategy[Data]:
    hints = get_type_hints(cls)
    names = [a.name for a in fields(cls) if a.name != "extra"]
    return st.builds(cls, extra=_unknown_fields, **{name: _strategy(hints[name]) for name in names})


_apps = st.builds(App, type=st.just("app.x"), value=json_objects)
_unknowns = st.builds(Unknown, type=st.sampled_from(["future.thing", "block.merged"]), value=json_objects)
_ids = st.none() | st.uuids().map(str)
_events = st.builds(
    Event,
    data=st.one_of(_apps, _unknowns, *map(_data_of, DATA_TYPES.values())),
    session_id=st.text("abc", min_size=1, max_size=4),
    time=st.just("2025-03-01T10:00:00.000Z"),
    offset=st.none() | st.integers(1, 2**53),
    generation_id=_ids,
    turn=st.none() | st.integers(1, 9),
    job_id=st.none() | _texts,
    message_id=_ids,
    block_index=st.none() | st.integers(0, 9),
    seq=st.none() | _counts,
    extra=_unknown_fields,
)


#
@given(_events)
def test_every_event_comes_back_from_its_bytes(event: Event) -> None:
    assert decode(encode(event)) == event
    assert from_json(to_json(event)) == event


@given(_events)
def test_an_event_is_shown_as_it_is_written_in_code(event: Event) -> None:
    assert eval(repr(event), dict(vars(events_module))) == event


def test_what_does_not_apply_is_not_shown() -> None:
    event = Event(data=BlockDelta(text="hi"), session_id="s", time="now", offset=3, extra={})
    assert repr(event) == "Event(data=BlockDelta(text='hi'), session_id='s', time='now', offset=3)"
    assert repr(BlockDelta(text="", extra={"later": 0})) == "BlockDelta(extra={'later': 0}, text='')"
    assert all("__repr__" not in vars(cls) for cls in (*DATA_TYPES.values(), Event, BlockSnapshot))


# there is one table, and no type that is written is missing in what reading goes by.
def test_every_type_of_the_union_is_in_the_table() -> None:
    assert {cls: name for name, cls in DATA_TYPES.items()} == {cls: cls.type for cls in get_args(KnownData)}


# R-4 R-96
@pytest.mark.parametrize("cls", DATA_TYPES.values(), ids=DATA_TYPES)
@given(st.data())
def test_every_type_comes_back_with_its_unknown_fields(cls: type[Data], data: st.DataObject) -> None:
    event = Event(data=data.draw(_data_of(cls)), session_id="s", time="t", offset=1)
    back = decode(encode(event))
    assert back == event
    assert type(back.data) is cls


#
@given(_events)
def test_bytes_are_stable_through_any_number_of_readers(event: Event) -> None:
    body = encode(event)
    assert encode(decode(body)) == body
    assert encode(decode(encode(decode(body)))) == body


@given(logs())
def test_whole_logs_come_back(log: list[Event]) -> None:
    assert [decode(encode(event)) for event in log] == log


@given(_events)
def test_a_field_that_does_not_apply_is_absent_and_never_null(event: Event) -> None:
    data = to_json(evolve(event, extra={}, data=_without_free_json(event.data)))
    assert None not in data.values()
    inner = data["data"]
    assert isinstance(inner, Mapping)
    assert None not in inner.values()
    blocks = inner.get("blocks", [])
    assert isinstance(blocks, list | tuple)
    for block in blocks:
        assert isinstance(block, Mapping)
        assert None not in block.values()


def _without_free_json(data: Data) -> Data:
    return data if not isinstance(data, App | Unknown) else evolve(data, value={})


#
def test_the_bytes_are_one_flat_object() -> None:  # R-1 R-2 R-10
    event = Event(
        data=BlockDelta(text="hé\u2028"),
        session_id="s",
        time="2025-03-01T10:00:00.000Z",
        offset=7,
        generation_id="g",
        turn=2,
        job_id="j",
        message_id="m",
        block_index=0,
        seq=3,
    )
    assert json.loads(encode(event)) == {
        "type": "block.delta",
        "session_id": "s",
        "offset": 7,
        "time": "2025-03-01T10:00:00.000Z",
        "generation_id": "g",
        "turn": 2,
        "job_id": "j",
        "message_id": "m",
        "block_index": 0,
        "seq": 3,
        "data": {"text": "hé\u2028"},
    }
    assert b"\n" not in encode(evolve(event, data=BlockDelta(text="a\r\nb")))


GOOD: dict[str, JSON] = {
    "type": "block.delta",
    "session_id": "s",
    "time": "2025-03-01T10:00:00.000Z",
    "offset": 7,
    "message_id": "m",
    "block_index": 0,
    "seq": 3,
    "data": {"text": "a"},
}


@pytest.mark.parametrize("name", ["offset", "turn", "block_index", "seq"])
@pytest.mark.parametrize("value", ["12", 1.9, 1.0, True, None, -1, [], {}])
def test_nothing_is_taken_for_an_integer(name: str, value: JSON) -> None:  # R-94 R-117
    with pytest.raises(InvalidBody):
        from_json({**GOOD, name: value})


@pytest.mark.parametrize("name", ["type", "session_id", "time", "generation_id", "job_id", "message_id"])
@pytest.mark.parametrize("value", [5, 1.5, True, None, ["a"], {}])
def test_nothing_is_taken_for_a_string(name: str, value: JSON) -> None:
    with pytest.raises(InvalidBody):
        from_json({**GOOD, name: value})


@pytest.mark.parametrize("name", ["type", "session_id", "time", "data"])
def test_what_every_event_has_must_be_there(name: str) -> None:
    with pytest.raises(InvalidBody):
        from_json({key: value for key, value in GOOD.items() if key != name})


WRONG: list[tuple[str, dict[str, JSON]]] = [
    ("block.delta", {"text": 5}),
    ("block.delta", {"text": None}),
    ("block.delta", {"value": None}),
    ("block.delta", {"arguments": {"q": 1}}),
    ("block.opened", {}),
    ("block.opened", {"kind": "text", "name": True}),
    ("block.closed", {"is_error": "no"}),
    ("block.closed", {"is_error": 1}),
    ("block.closed", {"is_error": None}),
    ("approval.resolved", {"approval_id": "a", "approved": "no"}),
    ("approval.resolved", {"approval_id": "a", "approved": 0}),
    ("approval.resolved", {"approval_id": "a"}),
    ("generation.queued", {"producer": "p", "policy": "queue", "position": "1"}),
    ("generation.queued", {"producer": "p", "policy": "queue", "position": True}),
    ("generation.queued", {"producer": "p", "policy": "queue", "position": 1.0}),
    ("generation.started", {"producer": "p", "policy": "supersede", "metadata": None}),
    ("generation.started", {"producer": "p", "policy": "supersede", "metadata": []}),
    ("generation.started", {"producer": "p", "policy": "supersede", "metadata": "{}"}),
    ("generation.finished", {"outcome": 3}),
    ("message.opened", {"role": None}),
    ("message.closed", {"status": "complete", "usage": 3}),
    ("message.snapshot", {"role": "user", "status": "complete", "blocks": None}),
    ("message.snapshot", {"role": "user", "status": "complete", "blocks": "text"}),
    ("message.snapshot", {"role": "user", "status": "complete", "blocks": ""}),
    ("message.snapshot", {"role": "user", "status": "complete", "blocks": {}}),
    ("message.snapshot", {"role": "user", "status": "complete", "blocks": [3]}),
    ("message.snapshot", {"role": "user", "status": "complete", "blocks": [{"kind": "text", "seq": "1"}]}),
    ("message.snapshot", {"role": "user", "status": "complete", "blocks": [{"kind": "text", "seq": 1, "text": None}]}),
]


@pytest.mark.parametrize(("type_", "data"), WRONG, ids=[f"{type_} {json.dumps(data)}" for type_, data in WRONG])
def test_data_of_the_wrong_shape_is_refused(type_: str, data: dict[str, JSON]) -> None:  # R-94 R-117
    with pytest.raises(InvalidBody):
        from_json({**GOOD, "type": type_, "data": data})


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b"null", b'"text"', b"{}", b"\xff", b'{"type": 1}', b"NaN"])
def test_bytes_that_are_no_event_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidBody):
        decode(body)


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(InvalidBody) as caught:
        from_json({**GOOD, "type": "message.opened", "data": {"role": 3, "parent_message_id": 4}})
    assert "role" in caught.value.detail
    assert "parent_message_id" in caught.value.detail


def test_an_unknown_type_keeps_its_data_as_it_came() -> None:
    event = from_json({**GOOD, "type": "block.merged", "data": {"a": None, "b": [1, {"c": None}]}, "zz": None})
    assert event.data == Unknown(type="block.merged", value={"a": None, "b": [1, {"c": None}]})
    assert event.extra == {"zz": None}
    assert decode(encode(event)) == event


@pytest.mark.parametrize("value", ["\ud800", {"a": "\udfff"}, object()])
def test_what_json_cannot_say_is_refused(value: JSON) -> None:
    with pytest.raises(InvalidBody):
        encode_json(value)


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", {"a": object()}, {1: "a"}, float("nan"), [float("inf")]])
def test_a_value_from_code_that_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(InvalidBody):
        check_json(value, "input")


def test_deep_nesting_is_refused_and_does_not_break_the_reader() -> None:
    with pytest.raises(InvalidBody):
        decode_json(b"[" * 100_000 + b"]" * 100_000)


@given(json_values)
def test_json_comes_back(value: JSON) -> None:
    assert decode_json(encode_json(value)) == value


def test_every_field_of_every_type_has_a_default_or_is_required_as_the_protocol_says() -> None:
    required = {name: {a.name for a in fields(cls) if a.default is NOTHING} for name, cls in DATA_TYPES.items()}
    assert required["block.delta"] == set()
    assert required["message.opened"] == {"role"}
    assert required["generation.started"] == {"producer", "policy"}
    assert required["generation.finished"] == {"outcome"}


def test_a_text_is_no_list_of_its_letters() -> None:
    assert structure(["a", "b"], list[str]) == ["a", "b"]
    for wrong in ("ab", {"a": 1}, None, [1], ["a", None]):
        with pytest.raises(InvalidBody):
            structure(wrong, list[str])


@given(
    st.text(min_size=1, max_size=8),
    st.none() | st.text(min_size=1, max_size=8),
    st.text(max_size=40),
    st.sampled_from(("text", "arguments")),
    st.integers(1, 2**53),
    st.integers(1, 10**6),
)
def test_pieces_are_the_very_bytes_of_their_events(
    name: str, job_id: str | None, piece: str, field: Literal["text", "arguments"], offset: int, number: int
) -> None:
    encoder = PieceEncoder(
        session_id=name,
        generation_id="g",
        turn=number,
        job_id=job_id,
        message_id="m",
        block_index=number - 1,
        field=field,
    )
    event = Event(
        data=BlockDelta(text=piece) if field == "text" else BlockDelta(arguments=piece),
        session_id=name,
        time="2026-01-01T00:00:00.000Z",
        offset=offset,
        generation_id="g",
        turn=number,
        job_id=job_id,
        message_id="m",
        block_index=number - 1,
        seq=number,
    )
    assert encoder.encode(offset, event.time.encode(), number, piece) == encode(event)
    pieces = [piece, "", piece * 2]
    alone = [encoder.encode(offset + n, event.time.encode(), number + n, each) for n, each in enumerate(pieces)]
    assert encoder.encode_all(offset, event.time.encode(), number, pieces) == alone


def test_a_piece_that_is_no_unicode_is_refused() -> None:
    encoder = PieceEncoder(
        session_id="s", generation_id="g", turn=1, job_id=None, message_id="m", block_index=0, field="text"
    )
    with pytest.raises(InvalidBody):
        encoder.encode(1, b"", 1, "\ud800")
    with pytest.raises(InvalidBody):
        encoder.encode_all(1, b"", 1, ["fine", "\ud800"])
