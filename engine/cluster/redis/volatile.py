"""`RedisVolatile`: what engines know together for a while, in a Redis and by its server's clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, final

from ...errors import StorageError
from ...events import new_epoch
from ...log.redis.layout import Layout
from ...log.redis.store import Script, of_answers
from ...stream.volatile import Noted, Place, Volatile

__all__ = ["RedisVolatile"]

_PUT: Final = Script.of(__package__, "put")
_LISTED: Final = Script.of(__package__, "listed")
_DROP: Final = Script.of(__package__, "drop")
_REDEEM: Final = Script.of(__package__, "redeem")
_NOTE: Final = Script.of(__package__, "note")
_NOTED: Final = Script.of(__package__, "noted")

_KINDS: Final = {"present": "yp", "reading": "yr"}


@final
class RedisVolatile(Volatile):
    """``call`` has a script answer where a key lies; it raises `StorageError`."""

    def __init__(self, layout: Layout, call: Callable[..., Awaitable[object]]) -> None:
        self._layout = layout
        self._call = call
        self._list = f"{{{layout.prefix}:list}}"

    def _key(self, place: Place) -> str:
        session_id, epoch, kind = place
        return f"{self._layout.base(session_id)}{_KINDS[kind]}{session_id}:{epoch}"

    async def put(self, place: Place, key: str, value: bytes, *, ttl: float, limit: int | None = None) -> bool | None:
        most = "" if limit is None else limit
        answer = await self._call(_PUT, self._key(place), key, value, _milliseconds(ttl), most)
        return None if answer == -1 else answer == 1

    async def drop(self, place: Place, keys: Sequence[str]) -> bool:
        return await self._call(_DROP, self._key(place), *keys) != 0

    async def listed(self, asked: Sequence[Place]) -> Sequence[Mapping[str, bytes]]:
        lanes: dict[int, list[int]] = {}
        for number, (session_id, *_) in enumerate(asked):
            lanes.setdefault(self._layout.lane(session_id), []).append(number)
        found: list[Mapping[str, bytes]] = [{}] * len(asked)
        for numbers in lanes.values():
            keys = [self._key(asked[number]) for number in numbers]
            answer = await self._call(_LISTED, keys[0], *keys)
            for number, here in zip(numbers, of_answers(answer, len(keys)), strict=True):
                found[number] = _entries(here)
        return found

    async def redeem(self, ticket_id: str, ttl: float) -> bool:
        key = f"{self._layout.base(ticket_id)}yt{ticket_id}"
        return await self._call(_REDEEM, key, _milliseconds(ttl)) == 1

    async def note(self, session_ids: Sequence[str], *, keep: int) -> None:
        await self._call(_NOTE, self._list, new_epoch(), keep, *session_ids)

    async def noted(self, after: int, *, limit: int = 1000) -> Noted:
        match await self._call(_NOTED, self._list, new_epoch(), after, limit):
            case [bytes(epoch), bytes(number), bytes(forgotten), list(found)]:
                sessions = [(int(at), each.decode()) for each, at in zip(found[::2], found[1::2], strict=True)]
                return Noted(epoch.decode(), int(number), int(forgotten), sessions)
            case _:
                raise StorageError("the store's answer cannot be read")


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _entries(here: object) -> Mapping[str, bytes]:
    match here:
        case list():
            came = sorted(zip(here[::3], here[1::3], here[2::3], strict=True))
            return {key.decode(): value for _, key, value in came}
        case _:
            raise StorageError("the store's answer cannot be read")
