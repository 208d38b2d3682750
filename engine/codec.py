"""Events as JSON bytes and back, strictly: nothing is coerced, nothing unknown is lost.

One flat object per event; a field that does not apply is absent. cattrs converts, msgspec reads and writes the
JSON text. `converter` is the one strict converter; other boundaries structure their bodies with it too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import eq
from typing import Final, Literal, TypeVar, cast, final, get_args, get_origin

import msgspec
from attrs import fields
from cattrs import Converter, transform_error
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override
from cattrs.v import format_exception

from .errors import InvalidBody
from .events import (
    DATA_TYPES,
    JSON,
    App,
    BlockDelta,
    BlockSnapshot,
    Data,
    Event,
    JSONObject,
    Unknown,
)

__all__ = [
    "PieceEncoder",
    "check_json",
    "converter",
    "decode",
    "decode_json",
    "encode",
    "encode_json",
    "from_json",
    "structure",
    "to_json",
]

T = TypeVar("T")

# Far deeper than any message needs, far shallower than what exhausts the stack of a reader.
_MAX_DEPTH = 64

_dumps: Final = msgspec.json.Encoder().encode
_loads: Final = msgspec.json.Decoder().decode


def _exactly(*accepted: type) -> Callable[[object, type], object]:
    def structure(value: object, _: type) -> object:
        if type(value) not in accepted:
            raise TypeError(f"must be {accepted[0].__name__}, not {type(value).__name__}")
        return value

    return structure


def _json_object(value: object, _: object) -> JSONObject:
    if not isinstance(value, dict):
        raise TypeError(f"must be an object, not {type(value).__name__}")
    return value


def _any_json(value: object, _: object) -> JSON:
    if value is None:
        raise TypeError("must not be null; leave the field out")
    return cast(JSON, value)


def _optional(inner: Callable[[object, type], object]) -> Callable[[object, type], object]:
    """For ``X | None``: None means absent in Python, and JSON null is refused."""

    def structure(value: object, kind: type) -> object:
        if value is None:
            raise TypeError("must not be null; leave the field out")
        return inner(value, kind)

    return structure


def _strict_converter() -> Converter:
    made = Converter(omit_if_default=True)
    for kind, accepted in ((str, (str,)), (int, (int,)), (bool, (bool,)), (float, (float, int))):
        made.register_structure_hook(kind, _exactly(*accepted))
        made.register_structure_hook_func(partial(eq, kind | None), _optional(_exactly(*accepted)))
    made.register_structure_hook_func(partial(eq, JSONObject), _json_object)
    made.register_structure_hook_func(partial(eq, JSONObject | None), _optional(_json_object))
    made.register_structure_hook_func(partial(eq, JSON), _any_json)
    made.register_structure_hook_func(_is_array, partial(_array, made))
    return made


def _is_array(kind: object) -> bool:
    origin: object = get_origin(kind)
    return origin is tuple or origin is list


def _array(made: Converter, value: object, kind: type) -> object:
    if not isinstance(value, list | tuple):
        raise TypeError(f"must be an array, not {type(value).__name__}")
    item = get_args(kind)[0]  # of ``list[item]`` or ``tuple[item, ...]``, the only arrays that events and bodies have
    items = [made.structure(each, item) for each in value]
    return items if get_origin(kind) is list else tuple(items)


converter: Final = _strict_converter()


def _register(cls: type) -> None:
    """Known fields by their types; what is unknown goes to ``extra`` and comes back from it."""
    known = frozenset(a.name for a in fields(cls)) - {"extra"}
    structure_known = cast(
        Callable[[object, type], object], make_dict_structure_fn(cls, converter, extra=override(omit=True))
    )
    unstructure_known: Callable[[object], dict[str, object]] = make_dict_unstructure_fn(
        cls, converter, extra=override(omit=True), _cattrs_omit_if_default=True
    )

    def structure(value: object, kind: type) -> object:
        if not isinstance(value, dict):
            raise TypeError(f"must be an object, not {type(value).__name__}")
        made = structure_known(value, kind)
        if len(value) > len(known) or not known.issuperset(value):
            object.__setattr__(made, "extra", {k: v for k, v in value.items() if k not in known})
        return made

    def unstructure(instance: object) -> dict[str, object]:
        fields_ = unstructure_known(instance)
        extra: JSONObject = instance.extra  # type: ignore[attr-defined]
        return {**extra, **fields_} if extra else fields_

    converter.register_structure_hook(cls, structure)
    converter.register_unstructure_hook(cls, unstructure)


_register(BlockSnapshot)
for _cls in DATA_TYPES.values():
    _register(_cls)

# The stamp: name, type, least value.
_STAMP: Final[Mapping[str, tuple[type, int | None]]] = {
    "session_id": (str, None),
    "offset": (int, 1),
    "time": (str, None),
    "generation_id": (str, None),
    "turn": (int, 1),
    "job_id": (str, None),
    "message_id": (str, None),
    "block_index": (int, 0),
    "seq": (int, 0),
}


def structure(value: object, kind: type[T]) -> T:
    """Structure ``value`` as ``kind`` with the strict converter. Raises `InvalidBody` that names every bad field."""
    try:
        return converter.structure(value, kind)
    except Exception as error:  # cattrs raises its own groups and whatever a hook raised: all mean bad input
        raise InvalidBody("; ".join(transform_error(error, path="$", format_exception=_say))) from error


def _say(error: BaseException, kind: type | None) -> str:
    return str(error) if type(error) is TypeError else format_exception(error, kind)


def _data_from_json(type_: str, value: object) -> Data:
    if not isinstance(value, dict):
        raise InvalidBody(f"data of {type_} must be an object")
    cls = DATA_TYPES.get(type_)
    if cls is not None:
        return cast(Data, structure(value, cls))
    return App(type=type_, value=value) if type_.startswith("app.") else Unknown(type=type_, value=value)


def from_json(value: JSON) -> Event:
    """The event in a parsed JSON object. Raises `InvalidBody`."""
    if not isinstance(value, dict):
        raise InvalidBody("an event is an object")
    type_ = value.get("type")
    if type(type_) is not str:
        raise InvalidBody("an event has a type")
    stamp: dict[str, object] = {}
    extra: dict[str, JSON] = {}
    for key, item in value.items():
        rule = _STAMP.get(key)
        if rule is None:
            if key != "type" and key != "data":
                extra[key] = item
            continue
        kind, least = rule
        if type(item) is not kind or (least is not None and cast(int, item) < least):
            raise InvalidBody(
                f"{key} of {type_} must be {kind.__name__}{'' if least is None else f' of at least {least}'}"
            )
        stamp[key] = item
    if "session_id" not in stamp or "time" not in stamp:
        raise InvalidBody(f"{type_} has no session_id or no time")
    if extra:
        stamp["extra"] = extra
    return Event(data=_data_from_json(type_, value.get("data")), **stamp)  # type: ignore[arg-type]


def decode(body: bytes) -> Event:
    """The event in these bytes. Raises `InvalidBody`."""
    return from_json(decode_json(body))


def to_json(event: Event) -> dict[str, JSON]:
    """The event as one flat object, in the order type, stamp, data."""
    data = event.data
    flat: dict[str, JSON] = {"type": data.type, "session_id": event.session_id}
    if event.offset is not None:
        flat["offset"] = event.offset
    flat["time"] = event.time
    if event.generation_id is not None:
        flat["generation_id"] = event.generation_id
    if event.turn is not None:
        flat["turn"] = event.turn
    if event.job_id is not None:
        flat["job_id"] = event.job_id
    if event.message_id is not None:
        flat["message_id"] = event.message_id
    if event.block_index is not None:
        flat["block_index"] = event.block_index
    if event.seq is not None:
        flat["seq"] = event.seq
    if type(data) is BlockDelta and data.text is not None and data.arguments is data.value is None and not data.extra:
        flat["data"] = {"text": data.text}  # nine of ten events
    elif isinstance(data, App | Unknown):
        flat["data"] = dict(data.value)
    else:
        flat["data"] = converter.unstructure(data)
    return {**event.extra, **flat} if event.extra else flat


def encode(event: Event) -> bytes:
    """The event's JSON bytes, UTF-8. Raises `InvalidBody` for text that is no Unicode (a lone surrogate)."""
    return encode_json(to_json(event))


@final
class PieceEncoder:
    """`encode` for a block's deltas of one string each: what they have in common is encoded once.

    Gives the very bytes that `encode` gives, in a fifth of the time; nine of ten events are such deltas.
    """

    __slots__ = ("_form",)

    def __init__(
        self,
        *,
        session_id: str,
        generation_id: str,
        turn: int,
        job_id: str | None,
        message_id: str,
        block_index: int,
        field: Literal["text", "arguments"],
    ) -> None:
        job = b"" if job_id is None else b'"job_id":%b,' % _dumps(job_id)
        head = b'{"type":"block.delta","session_id":%b,"offset":' % _dumps(session_id)
        stamp = b'","generation_id":%b,"turn":%d,%b"message_id":%b,"block_index":%d,"seq":' % (
            _dumps(generation_id),
            turn,
            job,
            _dumps(message_id),
            block_index,
        )
        # What is left to fill in: offset, time, seq, piece.
        self._form: Final = b'%b%%d,"time":"%%b%b%%d,"data":{"%b":%%b}}' % (
            head.replace(b"%", b"%%"),
            stamp.replace(b"%", b"%%"),
            field.encode(),
        )

    def encode(self, offset: int, time: str, seq: int, piece: str) -> bytes:
        """The event's JSON bytes. Raises `InvalidBody` for text that is no Unicode."""
        return self._form % (offset, time.encode(), seq, encode_json(piece))

    def encode_all(self, offset: int, time: str, seq: int, pieces: Sequence[str]) -> list[bytes]:
        """`encode` for pieces one behind the other, all of one time. Raises `InvalidBody` for any of them."""
        form, at = self._form, time.encode()
        try:
            return [form % (offset + n, at, seq + n, _dumps(piece)) for n, piece in enumerate(pieces)]
        except UnicodeEncodeError as error:
            raise InvalidBody(f"not representable as JSON: {error}") from error


def encode_json(value: JSON) -> bytes:
    """Compact JSON bytes. Raises `InvalidBody` for what JSON cannot say."""
    try:
        return _dumps(value)
    except (UnicodeEncodeError, TypeError, RecursionError, OverflowError) as error:
        raise InvalidBody(f"not representable as JSON: {error}") from error


def decode_json(body: bytes) -> JSON:
    """Parse JSON bytes. Raises `InvalidBody`."""
    try:
        return cast(JSON, _loads(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidBody(f"not JSON: {error}") from error


def check_json(value: object, what: str) -> JSON:
    """``value``, if it is made of what JSON has: str, int, finite float, bool, None, lists, dicts with str keys.

    For values that come from Python code; parsed JSON needs no check. Raises `InvalidBody`, naming ``what``.
    """
    _check(value, what, 0)
    return cast(JSON, value)


def _check(value: object, what: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise InvalidBody(f"{what} is nested deeper than {_MAX_DEPTH}")
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return
    if kind is float:
        if not math.isfinite(cast(float, value)):
            raise InvalidBody(f"{what} holds {value}, which JSON cannot say")
    elif isinstance(value, dict):
        for key, item in value.items():
            if type(key) is not str:
                raise InvalidBody(f"{what} has a key that is no string: {key!r}")
            _check(item, what, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, what, depth + 1)
    else:
        raise InvalidBody(f"{what} holds a {kind.__name__}, which JSON cannot say")
