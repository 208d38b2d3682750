"""What the writer lets pass is what the reader takes: one table, held against itself with values of every kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any, get_args, get_type_hints

import pytest
from attrs import AttrsInstance, evolve, fields

from penstock.engine import events
from penstock.engine.codec import decode, decode_json, encode, encode_json, encode_record, structure, to_json
from penstock.engine.errors import InvalidBody
from penstock.engine.events import DATA_TYPES, App, BlockSnapshot, Data, Event, MessageSnapshot, Unknown
from penstock.engine.results import Superseded
from penstock.engine.rules.queue import QueuedStart, _Standing
from penstock.engine.rules.records import (
    CompactedRecord,
    DirtyRecord,
    GenerationRecord,
    MessageRecord,
    OpenRecord,
    SessionRecord,
)
from penstock.engine.session.idempotency import _Answer
from tests.engine.wrong import JSON_VALUES, VALUES

_RECORDS: Sequence[type[AttrsInstance]] = (
    SessionRecord,
    OpenRecord,
    DirtyRecord,
    CompactedRecord,
    GenerationRecord,
    MessageRecord,
    QueuedStart,
    _Standing,
    _Answer,
    Superseded,
)
_TYPES: Sequence[type[Data]] = (*DATA_TYPES.values(), App, Unknown)

# The writer alone has bounds: how deep a value is, and how large a number.
_BOUNDED = ("2^1200", "depth 66", "depth 66 of objects", "depth 900")


def _right(hint: object) -> Any:
    """Some value that a field with this annotation may have."""
    options = [option for option in get_args(hint) if option is not NoneType]
    if NoneType in get_args(hint):
        return _right(options[0])
    known: dict[object, object] = {str: "x", int: 1, float: 1.5, bool: True, events.JSON: [1, {"a": "b"}]}
    known[tuple[BlockSnapshot, ...]] = (BlockSnapshot(kind="text", seq=1, text="x"),)
    known[events.JSONObject] = {"unheard of": 1}
    return known[hint] if hint in known else _made(hint)  # type: ignore[arg-type]


def _made(cls: type[AttrsInstance]) -> Any:
    hints = get_type_hints(cls)
    given = {field.name: _right(hints[field.name]) for field in fields(cls)}
    types = {App: "app.x", Unknown: "future.x"}
    return cls(**{**given, "type": types[cls]} if cls in types else given)


def _event(data: Data) -> Event:
    return Event(data=data, session_id="s", time="t", offset=1)


# `ProducerMark` is made of a `ProducerStamp` alone, which refuses what is no number itself.


def _places(classes: Sequence[type[AttrsInstance]]) -> list[Any]:
    return [
        pytest.param(cls, field.name, id=f"{cls.__name__}.{field.name}") for cls in classes for field in fields(cls)
    ]


def _are_refused_or_read_back(write: Callable[[Any], bytes], again: Callable[[bytes], bytes], named: str) -> None:
    for label, made in VALUES.items():
        try:
            body = write(made())
        except InvalidBody as error:
            refused = error
        else:
            assert again(body) == body, label
            continue
        assert named in str(refused), label


def _again(body: bytes) -> bytes:
    return encode(decode(body))


@pytest.mark.parametrize(("cls", "name"), _places(_TYPES))
def test_what_an_event_says_is_refused_or_read_back(cls: type[Data], name: str) -> None:
    right = _made(cls)
    _are_refused_or_read_back(lambda value: encode(_event(evolve(right, **{name: value}))), _again, name)


@pytest.mark.parametrize(("cls", "name"), _places(_RECORDS))
def test_a_record_is_refused_or_read_back(cls: type[AttrsInstance], name: str) -> None:
    right = _made(cls)

    def again(body: bytes) -> bytes:
        return encode_record(structure(decode_json(body), cls))

    _are_refused_or_read_back(lambda value: encode_record(evolve(right, **{name: value})), again, name)


@pytest.mark.parametrize("name", [field.name for field in fields(Event) if field.name != "data"])
def test_a_stamp_is_refused_or_read_back(name: str) -> None:
    right = _event(App(type="app.x"))
    _are_refused_or_read_back(lambda value: encode(evolve(right, **{name: value})), _again, name)


@pytest.mark.parametrize("name", [field.name for field in fields(BlockSnapshot)])
def test_a_block_of_a_message_is_refused_or_read_back(name: str) -> None:
    def write(value: Any) -> bytes:
        block = evolve(BlockSnapshot(kind="text", seq=1), **{name: value})
        return encode(_event(MessageSnapshot(role="user", status="complete", blocks=(block,))))

    _are_refused_or_read_back(write, _again, "blocks")


@pytest.mark.parametrize("cls", _TYPES)
def test_whatever_can_be_read_can_be_written(cls: type[Data]) -> None:
    right = to_json(_event(_made(cls)))
    said = right["data"]
    assert isinstance(said, dict)
    for label in JSON_VALUES.keys() - _BOUNDED:
        for name in said:
            try:
                event = decode(encode_json({**right, "data": {**said, name: JSON_VALUES[label]()}}))
            except InvalidBody:
                continue
            assert decode(encode(event)) == event, (name, label)


@pytest.mark.parametrize("cls", DATA_TYPES.values())
def test_what_stands_beside_the_known_fields_cannot_pass_for_one(cls: type[Data]) -> None:
    for name in (field.name for field in fields(cls)):
        with pytest.raises(InvalidBody):
            encode(_event(evolve(_made(cls), extra={name: "x"})))


@pytest.mark.parametrize("type_", ["session.created", "message.snapshot", "generation.finished", "app.x"])
def test_an_event_of_no_known_type_cannot_pass_for_one(type_: str) -> None:
    with pytest.raises(InvalidBody):
        encode(_event(Unknown(type=type_)))


@pytest.mark.parametrize("type_", ["session.created", "x", "", "App.x"])
def test_an_event_of_the_application_bears_its_name(type_: str) -> None:
    with pytest.raises(InvalidBody):
        encode(_event(App(type=type_)))
