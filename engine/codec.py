"""Events as JSON bytes and back, strictly: nothing is coerced, nothing unknown is lost.

One flat object per event; a field that does not apply is absent. cattrs converts, msgspec reads and writes the
JSON text. `converter` is the one strict converter; other boundaries structure their bodies with it too. What is written
is held against the same table as what is read (`shapes`): what this module gave, it reads back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from operator import eq
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Self, TypeVar, cast, final, get_args, get_origin

import msgspec
from attrs import evolve, fields
from cattrs import Converter, transform_error
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override
from cattrs.v import format_exception

from .errors import InvalidBody, InvalidCursor
from .events import (
    DATA_TYPES,
    JSON,
    App,
    BlockDelta,
    BlockSnapshot,
    Cursor,
    Data,
    Event,
    ForkedGeneration,
    JSONObject,
    MessageSnapshot,
    Moment,
    Unknown,
    Version,
)
from .shapes import ACCEPTED, check, check_json, check_object
from .work import Work

__all__ = [
    "PieceEncoder",
    "check_data",
    "check_event",
    "check_json",
    "check_object",
    "converter",
    "decode",
    "decode_json",
    "decoding",
    "encode",
    "encode_checked",
    "encode_data",
    "encode_json",
    "encode_record",
    "encode_with",
    "encoding_blocks",
    "from_json",
    "is_large",
    "own_json",
    "structure",
    "to_json",
]

if TYPE_CHECKING:
    from attrs import AttrsInstance


T = TypeVar("T")

_dumps: Final = msgspec.json.Encoder().encode
_loads: Final = msgspec.json.Decoder().decode

_raw_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_raw_array: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode

# An event with more bytes takes a millisecond or two to read.
_LARGE: Final = 64 * 1024

# What the encoder raises: for half a surrogate pair, for a type that it does not know, for a cycle, for a number.
_UNSAYABLE: Final = (ValueError, TypeError, RecursionError, OverflowError)


class _Object(msgspec.Struct, gc=False):
    """Any JSON object: its members are passed over."""


_object: Final = msgspec.json.Decoder(_Object).decode


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


def _cursor(value: object, _: type) -> Cursor:
    try:
        return Cursor.parse(cast(str, value))
    except InvalidCursor as error:
        raise TypeError(error.detail) from error


def _strict_converter() -> Converter:
    made = Converter(omit_if_default=True)
    made.register_structure_hook(Cursor, _cursor)
    made.register_unstructure_hook(Cursor, str)
    for kind, accepted in ACCEPTED.items():
        made.register_structure_hook(kind, _exactly(*accepted))
        made.register_structure_hook_func(partial(eq, kind | None), _optional(_exactly(*accepted)))
    made.register_structure_hook_func(partial(eq, JSONObject), _json_object)
    made.register_structure_hook_func(partial(eq, JSONObject | None), _optional(_json_object))
    made.register_structure_hook_func(partial(eq, JSON), _any_json)
    for within in (ForkedGeneration, Moment, Version):
        made.register_structure_hook_func(partial(eq, within | None), _optional(_object_of(made, within)))
    made.register_structure_hook_func(_is_array, partial(_array, made))
    return made


def _object_of(made: Converter, kind: type) -> Callable[[object, type], object]:
    def structure(value: object, _: type) -> object:
        return made.structure(value, kind)

    return structure


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
_register(ForkedGeneration)
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
_ALWAYS: Final = frozenset({"session_id", "time"})
_FLAT: Final = frozenset({"type", "data"}).union(_STAMP)


def _badly_stamped(name: str, kind: type, least: int | None, type_: str) -> InvalidBody:
    return InvalidBody(f"{name} of {type_} must be {kind.__name__}{'' if least is None else f' of at least {least}'}")


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
            raise _badly_stamped(key, kind, least, type_)
        stamp[key] = item
    if "session_id" not in stamp or "time" not in stamp:
        raise InvalidBody(f"{type_} has no session_id or no time")
    if extra:
        stamp["extra"] = extra
    return Event(data=_data_from_json(type_, value.get("data")), **stamp)  # type: ignore[arg-type]


def decode(body: bytes) -> Event:
    """The event in these bytes. Raises `InvalidBody`."""
    return from_json(decode_json(body))


def decoding(body: bytes) -> Work[Event]:
    """`decode`: a large ``message.snapshot`` block by block, for it may have any number; all else at once."""
    if is_large(body):
        try:
            event = yield from _decoding_blocks(body)
        except (InvalidBody, KeyError, ValueError, RecursionError):
            pass  # `decode` says what is wrong with it
        else:
            return event
    return decode(body)


def is_large(body: bytes) -> bool:
    """Whether these are the bytes of an event that takes long to read, and so is read in bits."""
    return len(body) > _LARGE and body.startswith(b'{"type":"message.snapshot",')


def _decoding_blocks(body: bytes) -> Work[Event]:
    flat = _raw_object(body)
    yield
    data = _raw_object(flat.pop("data"))
    yield
    raw_blocks = _raw_array(data.pop("blocks"))
    yield
    blocks: list[BlockSnapshot] = []
    for raw in raw_blocks:
        blocks.append(structure(_loads(raw), BlockSnapshot))
        yield
    empty: dict[str, JSON] = {**{name: _loads(raw) for name, raw in data.items()}, "blocks": []}
    event = from_json({**{name: _loads(raw) for name, raw in flat.items()}, "data": empty})
    return evolve(event, data=evolve(cast("MessageSnapshot", event.data), blocks=tuple(blocks)))


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
    flat["data"] = _data_to_json(data)
    return {**event.extra, **flat} if event.extra else flat


def _data_to_json(data: Data) -> dict[str, JSON]:
    if type(data) is BlockDelta and data.text is not None and data.arguments is data.value is None and not data.extra:
        return {"text": data.text}  # nine of ten events
    if type(data) is App or type(data) is Unknown:
        return dict(data.value)
    made: dict[str, JSON] = converter.unstructure(data)
    return made


def encode(event: Event) -> bytes:
    """The event's JSON bytes, UTF-8. Raises `InvalidBody` that names the field for what `decode` would not take."""
    check_data(event.data)
    for name, (kind, least) in _STAMP.items():
        value: object = getattr(event, name)
        if value is None and name not in _ALWAYS:
            continue
        if type(value) is not kind or (least is not None and cast(int, value) < least):
            raise _badly_stamped(name, kind, least, event.type)
    if event.extra:
        check_object(event.extra, f"extra of {event.type}")
        if not _FLAT.isdisjoint(event.extra):
            raise InvalidBody(f"extra of {event.type} has a name that is a field's own")
    return encode_checked(event)


def check_data(data: Data) -> None:
    """Hold what an event says against the table. Raises `InvalidBody` that names the field. Behind it, only text in
    fields of its own may still be no Unicode, and is refused by `encode_checked`."""
    if type(data) is BlockDelta and type(data.text) is str and data.arguments is data.value is None and not data.extra:
        return  # nine of ten events
    if type(data) is App or type(data) is Unknown:
        _check_free(data)
    else:
        check(data, data.type)


def _check_free(data: App | Unknown) -> None:
    """A type that this version does not know may not be spelled as one that it knows: it would be read as that."""
    check(data, "an event of the application's own")
    if data.type in DATA_TYPES or data.type.startswith("app.") is not isinstance(data, App):
        raise InvalidBody(f"{data.type!r:.80} is no type for an {type(data).__name__}")


def encode_checked(event: Event) -> bytes:
    """`encode`, for an event with a stamp of our own and data that `check_data` has passed."""
    flat = to_json(event)
    try:
        return _dumps(flat)
    except _UNSAYABLE as error:
        raise _unsayable({**_data_to_json(event.data), **flat}, event.type, error) from error


def encode_data(data: Data) -> bytes:
    """What an event says, as the JSON of its ``data``. Raises `InvalidBody` that names the field."""
    check_data(data)
    return _encode_flat(_data_to_json(data), data.type)


def encoding_blocks(value: AttrsInstance, blocks: Iterable[AttrsInstance]) -> Work[bytes]:
    """The JSON of a message with these blocks in place of its own, block by block: the bytes that all of it at once
    would be. What it holds was read."""
    pieces: list[bytes] = []
    for name, part in converter.unstructure(evolve(cast("MessageSnapshot", value), blocks=())).items():
        pieces += (b"," if pieces else b"{", _dumps(name), b":")
        if name != "blocks":
            pieces.append(_dumps(part))
            continue
        opening = b"["
        for block in blocks:
            pieces += (opening, _dumps(converter.unstructure(block)))
            opening = b","
            yield
        pieces.append(b"[]" if opening == b"[" else b"]")
    pieces.append(b"}")
    return b"".join(pieces)


def encode_with(event: Event, data: bytes) -> bytes:
    """`encode_checked`, for an event whose data is this JSON and not what it holds."""
    bare = encode_checked(evolve(event, data=Unknown(type=event.type, value={})))
    return b"".join((bare[:-3], data, b"}"))


def encode_record(record: AttrsInstance) -> bytes:
    """A record's JSON bytes, which `structure` reads back as what it was. Raises `InvalidBody` that names the field."""
    name = type(record).__name__
    check(record, name)
    return _encode_flat(converter.unstructure(record), name)


def _encode_flat(flat: Mapping[str, JSON], what: str) -> bytes:
    try:
        return _dumps(flat)
    except _UNSAYABLE as error:
        raise _unsayable(flat, what, error) from error


def _unsayable(flat: Mapping[str, JSON], what: str, error: Exception) -> InvalidBody:
    """The refusal of what the encoder could not say, by the name of the field."""
    try:
        for name, value in flat.items():
            check_json(value, f"{name} of {what}")
    except InvalidBody as found:
        return found
    return InvalidBody(f"{what} is not representable as JSON: {error}")


@final
class Unstamped(NamedTuple):
    """An event's JSON bytes but for its offset and its time, which stand side by side."""

    before: bytes
    behind: bytes

    @classmethod
    def of(cls, event: Event) -> Self:
        """Of an event that would pass `encode_checked` and has no place yet: offset 1, no time. Raises as that."""
        assert event.offset == 1
        assert not event.time
        return cls.made(encode_checked(event))

    @classmethod
    def made(cls, body: bytes) -> Self:
        """Of such an event's bytes."""
        # Whatever stands before is a name or inside a string, where a quotation mark has a backslash.
        before, _, behind = body.partition(b'"offset":1,"time":"')
        return cls(before, behind)

    def at(self, offset: int, time: bytes) -> bytes:
        """The bytes that `encode_checked` gives for the event with this offset and time."""
        return b'%b"offset":%d,"time":"%b%b' % (self.before, offset, time, self.behind)


@final
class PieceEncoder:
    """`encode` for a block's deltas of one string each: what they have in common is encoded once.

    Gives the very bytes that `encode` gives, in a fifth of the time; nine of ten events are such deltas.
    """

    __slots__ = ("_field", "_form")

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
        self._field: Final = field
        # What is left to fill in: offset, time, seq, piece.
        self._form: Final = b'%b%%d,"time":"%%b%b%%d,"data":{"%b":%%b}}' % (
            head.replace(b"%", b"%%"),
            stamp.replace(b"%", b"%%"),
            field.encode(),
        )

    def encode(self, offset: int, time: bytes, seq: int, piece: str) -> bytes:
        """The event's JSON bytes. Raises `InvalidBody` for text that is no Unicode."""
        try:
            return self._form % (offset, time, seq, _dumps(piece))
        except UnicodeEncodeError:
            raise self._no_text() from None

    def encode_all(self, offset: int, time: bytes, seq: int, pieces: Sequence[str]) -> list[bytes]:
        """`encode` for pieces one behind the other, all of one time. Raises `InvalidBody` for any of them."""
        form = self._form
        try:
            return [form % (offset + n, time, seq + n, _dumps(piece)) for n, piece in enumerate(pieces)]
        except UnicodeEncodeError:
            raise self._no_text() from None

    def _no_text(self) -> InvalidBody:
        return InvalidBody(
            f"{self._field} of a block.delta holds half a surrogate pair: hold it back until its other half comes"
        )


def encode_json(value: JSON) -> bytes:
    """Compact JSON bytes. Raises `InvalidBody` for what JSON cannot say."""
    try:
        return _dumps(value)
    except _UNSAYABLE as error:
        raise InvalidBody(f"not representable as JSON: {error}") from error


def own_json(value: object, what: str) -> JSON:
    """A copy of ``value`` that nobody else can change. Raises `InvalidBody` as `check_json` does, naming ``what``."""
    return None if value is None else decode_json(encode_json(check_json(value, what)))


def decode_json(body: bytes) -> JSON:
    """Parse JSON bytes. Raises `InvalidBody`."""
    try:
        value: JSON = _loads(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidBody(f"not JSON: {error}") from error
    return value


def check_event(body: bytes) -> None:
    """See that it is one JSON object in UTF-8, for a tenth of what reading it takes. Raises `InvalidBody`."""
    try:
        body.decode()
        _object(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidBody(f"not a JSON object: {error}") from error
