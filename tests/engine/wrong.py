"""Values of every wrong kind: what nobody means to give, and what Python lets everybody give.

`VALUES` has each as a function, since some of them are mutable, or a cycle. Some of them are right in some places:
whoever uses them says what has to hold where one is taken.
"""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections import OrderedDict, UserDict
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

import msgspec
from attrs import frozen

__all__ = ["FEW", "JSON_VALUES", "VALUES"]


class Text(str):
    """A subclass, as many libraries have one."""

    __slots__ = ()


class Word(enum.StrEnum):
    USER = "user"
    QUEUE = "queue"
    COMPLETED = "completed"


class Number(enum.IntEnum):
    ONE = 1


class Whole(int):
    pass


class Real(float):
    pass


class Liar(dict[str, object]):
    """Says other items than it holds."""

    def items(self) -> object:  # type: ignore[override]
        return {"a": 1}.items()


@frozen
class Thing:
    text: str = "x"


class Silent:
    def __repr__(self) -> str:
        raise RuntimeError("it has no words for itself")


def _nested(depth: int, *, objects: bool = False) -> object:
    made: object = 1
    for _ in range(depth):
        made = {"a": made} if objects else [made]
    return made


def _cycle() -> object:
    made: dict[str, object] = {"a": 1}
    made["self"] = made
    return made


def _cycle_of_lists() -> object:
    made: list[object] = []
    made.append(made)
    return made


# What JSON can say, so that it may also come in a body.
JSON_VALUES: Final[Mapping[str, Callable[[], Any]]] = {
    "none": lambda: None,
    "true": lambda: True,
    "zero": lambda: 0,
    "one": lambda: 1,
    "minus one": lambda: -1,
    "2^31": lambda: 2**31,
    "2^53": lambda: 2**53,
    "2^63": lambda: 2**63,
    "2^64": lambda: 2**64,
    "2^1200": lambda: 2**1200,
    "-2^64": lambda: -(2**64),
    "a half": lambda: 0.5,
    "very large": lambda: 1e308,
    "empty text": lambda: "",
    "text": lambda: "x",
    "a word": lambda: "user",
    "app.": lambda: "app.",
    "blanks": lambda: " \t\r\n",
    "NUL": lambda: "\0",
    "separators": lambda: "\u2028\u2029\x85\ufeff",
    "outside the plane": lambda: "\U0001f600",
    "combining": lambda: "e\u0301\u202e",
    "a path": lambda: "../..",
    "a uuid": lambda: "0197b0a0-0000-7000-8000-000000000000",
    "a uuid in capitals": lambda: "0197B0A0-0000-7000-8000-00000000000A",
    "a cursor": lambda: "0123456789abcdef-0000000000000001",
    "very long text": lambda: "x" * 50_000,
    "empty list": list,
    "list": lambda: [1],
    "list of null": lambda: [None],
    "list of text": lambda: ["x"],
    "list of lists": lambda: [["x"]],
    "list of objects": lambda: [{}],
    "long list": lambda: list(range(2_000)),
    "empty object": dict,
    "object": lambda: {"a": 1},
    "object of null": lambda: {"a": None},
    "own names": lambda: {"type": "x", "kind": 5, "input_id": 5, "approval_id": [], "text": 5, "extra": {}, "seq": -1},
    "large object": lambda: {"a": "x" * 70_000},
    "depth 64": lambda: _nested(64),
    "depth 66": lambda: _nested(66),
    "depth 66 of objects": lambda: _nested(66, objects=True),
    "depth 900": lambda: _nested(900),
}

VALUES: Final[Mapping[str, Callable[[], Any]]] = {
    **JSON_VALUES,
    "half a pair": lambda: "\ud83d",
    "the other half": lambda: "a\ude00b",
    "two halves": lambda: "\ud83d\ude00",
    "half a pair in an object": lambda: {"a": ["\ud83d"]},
    "half a pair for a key": lambda: {"\ud83d": 1},
    "NaN": lambda: float("nan"),
    "infinity": lambda: float("inf"),
    "NaN in an object": lambda: {"a": [float("nan")]},
    "10^5000": lambda: 10**5000,
    "depth 1000": lambda: _nested(1000),
    "depth 1000 of objects": lambda: _nested(1000, objects=True),
    "depth 5000": lambda: _nested(5_000),
    "cycle": _cycle,
    "cycle of lists": _cycle_of_lists,
    "subclass of str": lambda: Text("user"),
    "subclass of int": lambda: Whole(1),
    "subclass of float": lambda: Real(0.5),
    "subclass of dict": lambda: OrderedDict(a=1),
    "a dict that lies": lambda: Liar(a=float("nan")),
    "enum of str": lambda: Word.USER,
    "enum of a policy": lambda: Word.QUEUE,
    "enum of an outcome": lambda: Word.COMPLETED,
    "enum of int": lambda: Number.ONE,
    "enum in an object": lambda: {"a": Word.USER},
    "subclass for a key": lambda: {Text("a"): 1},
    "number for a key": lambda: {1: 2},
    "None for a key": lambda: {None: 1},
    "tuple for a key": lambda: {(1, 2): 1},
    "bytes": lambda: b"x",
    "bytearray": lambda: bytearray(b"x"),
    "tuple": lambda: (1, "a"),
    "empty tuple": tuple,
    "set": lambda: {1},
    "frozenset": lambda: frozenset("a"),
    "mapping proxy": lambda: MappingProxyType({"a": 1}),
    "mapping proxy in an object": lambda: {"a": MappingProxyType({"b": 1})},
    "user's dict": lambda: UserDict(a=1),
    "raw JSON": lambda: msgspec.Raw(b"}{"),
    "raw JSON in an object": lambda: {"a": msgspec.Raw(b"}{")},
    "datetime": lambda: dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    "datetime in an object": lambda: {"a": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)},
    "UUID": lambda: uuid.UUID("0197b0a0-0000-7000-8000-000000000000"),
    "decimal": lambda: Decimal("1.5"),
    "complex": lambda: 1j,
    "attrs": Thing,
    "a class": lambda: Thing,
    "object without words": Silent,
    "function": lambda: lambda: None,
    "iterator": lambda: iter("ab"),
    "range": lambda: range(3),
    "exception": lambda: ValueError("x"),
    "ellipsis": lambda: ...,
}

# One of each kind, where a value costs more: on a disk, over a socket.
FEW: Final[Mapping[str, Callable[[], Any]]] = {
    label: VALUES[label]
    for label in (
        "none",
        "true",
        "2^63",
        "2^64",
        "a half",
        "empty text",
        "text",
        "NUL",
        "separators",
        "outside the plane",
        "a uuid",
        "very long text",
        "list of text",
        "own names",
        "depth 64",
        "depth 1000",
        "half a pair",
        "half a pair in an object",
        "NaN",
        "NaN in an object",
        "cycle",
        "subclass of str",
        "enum of str",
        "number for a key",
        "bytes",
        "set",
        "mapping proxy",
        "raw JSON in an object",
        "UUID",
    )
}
