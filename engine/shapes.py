"""What the fields of events and records may hold: one table, by which `codec` reads and by which it writes.

Whatever is to be stored is held against it before it becomes bytes, so that whatever is stored can be read back. Types
are exact: a subclass of ``str`` or an enum may say something else than its bytes would. It is refused, never converted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter, contains
from types import MappingProxyType, NoneType
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias, get_args, get_origin

from attrs import fields, has, resolve_types

from .errors import InvalidBody
from .events import JSON, JSONObject

if TYPE_CHECKING:
    from attrs import AttrsInstance

__all__ = ["ACCEPTED", "check", "check_json", "check_object", "check_text", "checked_text", "is_text", "shown"]

# For a field of this type, the types that a value of it may have.
ACCEPTED: Final[Mapping[type, tuple[type, ...]]] = {str: (str,), int: (int,), bool: (bool,), float: (float, int)}

# Far deeper than any message needs, far shallower than what exhausts the stack of a reader.
_MAX_DEPTH: Final = 64

# Bits of a whole number: with more, readers whose numbers are doubles make infinity of it.
_MAX_BITS: Final = 1023

_HALF: Final = "half a surrogate pair, which is no text"

# How one field is looked at: its name, the types that need no second look, what takes one. The look is told the value
# and what to call it.
_Look: TypeAlias = Callable[[object, str], object]
_Rule: TypeAlias = tuple[str, tuple[type, ...], _Look]
_ValuesOf: TypeAlias = Callable[[object], tuple[object, ...]]

# What gives the values of a class's own fields, the types of each that need no second look, their rules, and that of
# what ``extra`` keeps beside them.
_Rules: TypeAlias = tuple[_ValuesOf, tuple[frozenset[type], ...], tuple[_Rule, ...], _Look | None]
_KNOWN: Final[dict[type, _Rules]] = {}


def shown(value: object) -> str:
    """What a refusal says of a value: what it is, or only of which type where that may be long, or deep."""
    if type(value) is int and value.bit_length() > _MAX_BITS:
        return "a whole number with no end"
    return f"{value!r:.80}" if type(value) in (str, int, float, bool, NoneType) else f"a {type(value).__name__}"


def is_text(text: str) -> bool:
    """Whether it holds no half of a surrogate pair."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_text(value: object, what: str) -> str:
    """``value``, if it is a str that can be stored. Raises `InvalidBody`, naming ``what``."""
    if type(value) is not str:
        raise InvalidBody(f"{what} must be str, not {type(value).__name__}")
    if not (value.isascii() or is_text(value)):
        raise InvalidBody(f"{what} holds {_HALF}")
    return value


def checked_text(value: object, what: str) -> str | None:
    """`check_text`, for a text that may be left out."""
    return None if value is None else check_text(value, what)


def check_json(value: object, what: str) -> JSON:
    """``value``, if it is made of what JSON has: str, int, finite float, bool, None, lists, dicts with str keys.

    For values that come from Python code; parsed JSON needs no check. Raises `InvalidBody`, naming ``what``.
    """
    _check_json(value, what, 0)
    return value  # type: ignore[return-value]


def check_object(value: object, what: str) -> JSONObject:
    """``value``, if it is a dict that `check_json` takes. Raises `InvalidBody`, naming ``what``."""
    if not isinstance(value, dict):
        raise InvalidBody(f"{what} must be an object, a dict, not {type(value).__name__}")
    _check_json(value, what, 0)
    return value


def _check_json(value: object, what: str, depth: int) -> None:
    kind = type(value)
    if kind is str:
        if not is_text(value):  # type: ignore[arg-type]
            raise InvalidBody(f"{what} holds {_HALF}")
    elif kind is bool or value is None:
        pass
    elif kind is int:
        if value.bit_length() > _MAX_BITS:  # type: ignore[attr-defined]
            raise InvalidBody(f"{what} holds a whole number of more than {_MAX_BITS} bits: not every reader knows it")
    elif kind is float:
        if not math.isfinite(value):  # type: ignore[arg-type]
            raise InvalidBody(f"{what} holds {value}, which JSON cannot say")
    elif depth > _MAX_DEPTH:
        raise InvalidBody(f"{what} is nested deeper than {_MAX_DEPTH}")
    # What a subclass makes of its own items is passed by: the encoder does so, too.
    elif isinstance(value, dict):
        for key, item in dict.items(value):
            if type(key) is not str:
                raise InvalidBody(f"{what} has a key that is no str: {shown(key)}")
            if not is_text(key):
                raise InvalidBody(f"a key of {what} holds {_HALF}")
            _check_json(item, what, depth + 1)
    elif isinstance(value, list):
        for item in list.__iter__(value):
            _check_json(item, what, depth + 1)
    elif isinstance(value, tuple):
        for item in tuple.__iter__(value):
            _check_json(item, what, depth + 1)
    else:
        raise InvalidBody(f"{what} holds a {kind.__name__}, which JSON cannot say")


def check(instance: AttrsInstance, what: str) -> None:
    """Hold the fields of an event's data or of a record against the table. Raises `InvalidBody` that names the field.

    Whether text is Unicode is left to the encoder, but for text inside JSON values.
    """
    cls = type(instance)
    values_of, accepted, rules, look_at_extra = _KNOWN.get(cls) or _rules(cls)
    values = values_of(instance)
    if not all(map(contains, accepted, map(type, values))):
        for value, (name, types, look) in zip(values, rules, strict=True):
            if type(value) not in types:
                look(value, f"{name} of {what}")
    if look_at_extra is not None and (extra := instance.extra):  # type: ignore[attr-defined]
        look_at_extra(extra, f"extra of {what}")


def _rules(cls: type[AttrsInstance]) -> _Rules:
    """Those of a class that is looked at for the first time."""
    found = fields(resolve_types(cls))
    names = frozenset(field.name for field in found)
    own = tuple((field.name, *_rule(field.type)) for field in found if field.name != "extra")
    rules = _KNOWN[cls] = (
        _values_of([name for name, _, _ in own]),
        tuple(frozenset(types) for _, types, _ in own),
        own,
        _extra_beside(names) if "extra" in names else None,
    )
    return rules


def _values_of(names: Sequence[str]) -> _ValuesOf:
    """All at once: `attrgetter` gives a tuple where there are two or more."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda instance: tuple(getattr(instance, name) for name in names)


def _rule(kind: object) -> tuple[tuple[type, ...], _Look]:
    """What a field with this annotation may hold. An annotation that is not known here is a mistake of ours."""
    if NoneType in get_args(kind):
        (known,) = (option for option in get_args(kind) if option is not NoneType)
        accepted, look = _rule(known)
        return (*accepted, NoneType), look
    if kind is JSON:
        return (bool, NoneType), check_json
    if kind == JSONObject:
        return (), _object
    if kind is float:
        return (int,), _finite
    if get_origin(kind) is tuple:
        item, _ = get_args(kind)
        return (), _array_of(item)
    assert isinstance(kind, type), kind
    if has(kind):
        return (), _instance_of(kind)
    return ACCEPTED[kind], _refuse_all_but(ACCEPTED[kind])


def _object(value: object, what: str) -> None:
    if type(value) is not MappingProxyType or value:  # one that is empty is what stands where nothing was given
        check_object(value, what)


def _finite(value: object, what: str) -> None:
    if type(value) is not float or not math.isfinite(value):
        raise InvalidBody(f"{what} must be a finite number, not {shown(value)}")


def _refuse_all_but(accepted: tuple[type, ...]) -> _Look:
    def refuse(value: object, what: str) -> NoReturn:
        raise InvalidBody(f"{what} must be {accepted[0].__name__}, not {type(value).__name__}")

    return refuse


def _instance_of(kind: type) -> _Look:
    def look(value: object, what: str) -> None:
        if type(value) is not kind:
            raise InvalidBody(f"{what} must be a {kind.__name__}, not {type(value).__name__}")
        check(value, what)  # type: ignore[arg-type]

    return look


def _array_of(kind: type) -> _Look:
    look_at = _instance_of(kind)

    def look(value: object, what: str) -> None:
        if type(value) is not tuple:
            raise InvalidBody(f"{what} must be a tuple, not {type(value).__name__}")
        for index, item in enumerate(value):
            look_at(item, f"[{index}] of {what}")

    return look


def _extra_beside(names: frozenset[str]) -> _Look:
    def look(value: object, what: str) -> None:
        _object(value, what)
        if value and not names.isdisjoint(value):  # type: ignore[arg-type]  # each would be read back as that field
            raise InvalidBody(f"{what} has a name that is a field's own")

    return look
