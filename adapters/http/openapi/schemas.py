"""JSON Schemas (2020-12) of attrs types, each once, under its class's name.

Owns what a Python type says about JSON in this project: a field with None as its default is one that may be left
out, and never null. What a type does not say comes from a `Grammar`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Final,
    Literal,
    NewType,
    TypeAlias,
    Union,
    final,
    get_args,
    get_origin,
    get_type_hints,
)

from attrs import NOTHING, Attribute, fields, frozen, has

from penstock.engine import JSON, Cursor, JSONObject

if TYPE_CHECKING:
    from attrs import AttrsInstance

__all__ = ["Grammar", "Schema", "Schemas", "reference"]

Schema: TypeAlias = dict[str, JSON]

_PRIMITIVES: Final[Mapping[object, str]] = {str: "string", bool: "boolean", int: "integer", float: "number"}


def reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


@final
@frozen(kw_only=True)
class Grammar:
    """What types leave open. ``named``: a text's or a number's schema by the name of its field, wherever it stands.

    The others go by the class's name. ``own``: the schemas of single fields, before all else; ``also``: what holds
    of the whole object; ``absent``: fields that
    JSON does not have; ``required``: fields that are always there although they have a default; ``told``: what
    is said of a type in place of its docstring, which is for those who read the code.
    """

    named: Mapping[str, Schema]
    own: Mapping[str, Mapping[str, Schema]]
    also: Mapping[str, Schema]
    absent: Mapping[str, Collection[str]]
    required: Mapping[str, Collection[str]]
    told: Mapping[str, str]


@final
class Schemas:
    """Collects the schemas of types while they are referred to."""

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar
        self._types: dict[str, type] = {}
        self.made: dict[str, Schema] = {}

    def add(self, name: str, schema: Schema) -> Schema:
        """Put in a schema of no type; the reference to it."""
        if name in self.made:
            raise ValueError(f"two schemas are named {name}")
        self.made[name] = schema
        return reference(name)

    def of(self, kind: type[AttrsInstance], *, closed: bool = False) -> Schema:
        """The reference to the type's schema. ``closed``: fields that it does not name are refused."""
        name = kind.__name__
        known = self._types.setdefault(name, kind)
        if known is not kind:
            raise ValueError(f"two types are named {name}: {known} and {kind}")
        if name not in self.made:
            self.made[name] = {}  # a type that holds itself finds this
            self.made[name] = self._object(kind, closed=closed)
        return reference(name)

    def _object(self, kind: type[AttrsInstance], *, closed: bool) -> Schema:
        hints = get_type_hints(kind)
        own = self._grammar.own.get(kind.__name__, {})
        absent = {"extra", *self._grammar.absent.get(kind.__name__, ())}
        always = self._grammar.required.get(kind.__name__, ())
        properties: Schema = {}
        required: list[str] = []
        for field in fields(kind):
            if field.name in absent:
                continue
            found = own.get(field.name)
            schema = dict(found) if found is not None else self._field(field.name, hints[field.name], closed=closed)
            default = _default(field)
            if closed and default is not None:
                schema["default"] = default
            properties[field.name] = schema
            if field.name in always or (field.default is NOTHING and not _optional(hints[field.name])):
                required.append(field.name)
        made: Schema = {"type": "object", "properties": properties, **self._grammar.also.get(kind.__name__, {})}
        if required:
            made["required"] = required
        if closed:
            made["additionalProperties"] = False
        told = self._grammar.told.get(kind.__name__) or vars(kind).get("__doc__")
        if told:
            made["description"] = " ".join(told.replace("``", "`").split())
        return made

    def _field(self, name: str, hint: object, *, closed: bool) -> Schema:
        plain = _without_none(hint)
        if (plain in (str, int) or get_origin(plain) is Literal) and name in self._grammar.named:
            return dict(self._grammar.named[name])
        return self._type(plain, closed=closed)

    def _type(self, hint: object, *, closed: bool) -> Schema:
        hint = _without_none(hint)
        if isinstance(hint, NewType):
            hint = hint.__supertype__
        if hint is JSON:
            return reference("Json")
        if hint == JSONObject:
            return {"type": "object"}
        if hint is Cursor:
            return reference("Cursor")
        if hint in _PRIMITIVES:
            return {"type": _PRIMITIVES[hint]}
        if isinstance(hint, type) and has(hint):
            return self.of(hint, closed=closed)
        arguments = get_args(hint)
        if get_origin(hint) is Literal:
            return {"enum": list(arguments)}
        if get_origin(hint) in (list, tuple):
            return {"type": "array", "items": self._type(arguments[0], closed=closed)}
        raise TypeError(f"there is no schema for {hint!r}")


def _optional(hint: object) -> bool:
    return get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint)


def _without_none(hint: object) -> object:
    if not _optional(hint):
        return hint
    rest = [each for each in get_args(hint) if each is not NoneType]
    if len(rest) != 1:
        raise TypeError(f"there is no schema for {hint!r}")
    return rest[0]


def _default(field: Attribute[object]) -> JSON:
    """The default, where it says something."""
    value = field.default
    return value if isinstance(value, str | bool | int | float) else None
