"""`RedisLog`: the durable log, in a Redis.

Owns opening and closing, and the reads. The writing itself is the lanes'.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Final, final

import trio
from attrs import evolve
from coredis.exceptions import AuthenticationError, AuthorizationError, RedisError

from ...errors import CorruptSession, PenstockError, StaleEpoch, StorageError, UnwritableDatabase
from ..fence import life_over
from ..lane import Lane, LanedLog
from ..port import Entry, Head, Report, Write, check_plain_key
from .address import Address
from .checks import check_store, take_layout
from .layout import Layout, Packable, head_from, pack, place_of
from .store import Argument, Client, Script, Store, connected, of_answers, to_bytes
from .writing import Writing

__all__ = ["RedisLog", "open_redis"]

_HEADS: Final = Script.load("heads")
_READ: Final = Script.load("read")
_RECORDS: Final = Script.load("records")
_RECORD: Final = Script.load("record")
_PAGE: Final = Script.load("page")
_DOUBT: Final = Script.load("doubt")

# An answer that takes longer is given up, and the connection with it: seconds. Rounds and pages take milliseconds.
_WITHIN: Final = 5.0

# Between two attempts to open: seconds.
_PAUSE: Final = 0.2

_PLACE: Final = len(place_of(0))


async def open_redis(
    url: str, *, patience: float = 10.0, within: float = _WITHIN, allow_weak_store: bool = False, replicas: int = 0
) -> RedisLog:
    """Open the log in the Redis at ``url``; see `Address` for its form. Nothing but the prefix need be there.

    The store may be away for ``patience`` seconds, at opening and later, before anything fails: writes and reads wait
    meanwhile. An answer that takes longer than ``within`` seconds is asked for again. One engine at a time: nothing
    keeps a second one out.

    With ``replicas`` a write is reported when so many of them have it on their disks, too, and nobody hears of it
    before. The higher of it and what the URL says counts.

    Close it with `RedisLog.aclose`. Raises `UnwritableDatabase`, when it cannot be reached or entered, and unless
    ``allow_weak_store`` when it may lose what it acknowledged, and `NewerSchema`.
    """
    address = Address.parse(url)
    address = evolve(address, replicas=max(replicas, address.replicas))
    log = RedisLog(address, patience=patience, within=within, allow_weak=allow_weak_store)
    try:
        await log._open()
    except BaseException:
        await log.aclose()
        raise
    return log


@final
class RedisLog(LanedLog):
    """The log in a Redis; made by `open_redis`, in the trio loop that uses it.

    A write is reported after the store has answered, which is after it is on its disk (appendfsync always).
    """

    def __init__(self, address: Address, *, patience: float, within: float, allow_weak: bool) -> None:
        super().__init__()
        self._address = address
        self._patience = patience
        self._within = within
        self._allow_weak = allow_weak
        self._opened = trio.Event()
        self._failure: Exception | None = None  # why it could not be opened
        self._verb = ""
        self._lanes: list[Lane] = []

    async def _open(self) -> None:
        # A system task: what was handed over is carried out whoever is cancelled, and no caller has a nursery for it.
        trio.lowlevel.spawn_system_task(self._live, name="penstock redis")
        await self._opened.wait()
        if self._failure is not None:
            raise self._failure

    @property
    def address(self) -> Address:
        return self._address

    def tell_followers(self) -> None:
        """Tell whoever follows a session (`cluster.redis`) of each write to it, together with the write."""
        self._verb = "SPUBLISH" if self._address.cluster else "PUBLISH"

    # --- its task

    async def _live(self) -> None:
        try:
            await self._reach()
        except Exception as error:  # noqa: BLE001  it would end the loop; `open_redis` raises it
            self._failure = error
        finally:
            self._closing.set()
            self._opened.set()
            self._closed.set()

    async def _reach(self) -> None:
        """Try to open it, with patience, and live. Raises why it could not be opened."""
        deadline = trio.current_time() + self._patience
        while not self._closing.is_set():
            try:
                async with connected(self._address, self._within) as client:
                    await self._serve(client)
                return
            except Exception as raised:  # noqa: BLE001  it is raised, or tried again
                error = _one(raised)
                if self._opened.is_set() or not isinstance(error, (RedisError, OSError)):
                    raise error from None
                if isinstance(error, (AuthenticationError, AuthorizationError)):
                    raise UnwritableDatabase(f"{self._address} lets nobody in as this user: {error}") from error
                if trio.current_time() >= deadline:
                    raise UnwritableDatabase(f"{self._address} cannot be reached: {error}") from error
            with trio.move_on_after(_PAUSE):
                await self._closing.wait()

    async def _serve(self, client: Client) -> None:
        await check_store(client, self._address, allow_weak=self._allow_weak)
        shards = await take_layout(client, self._address)
        self._layout = Layout(self._address.prefix, shards, self._address.cluster)
        self._store = store = Store(client, self._patience, self._address.replicas)
        store.on_back = self._check
        self._lanes = [
            Lane(
                Writing(store, self._layout, bases, lambda: self._verb, self._lost_round).carry_out,
                lambda: store.trouble,
                self._told,
            )
            for bases in self._layout.lanes
        ]
        self._opened.set()
        async with trio.open_nursery() as watching:
            watching.start_soon(self._store.watch)
            async with trio.open_nursery() as writing:
                for lane in self._lanes:
                    writing.start_soon(lane.run)
                await self._closing.wait()
                for lane in self._lanes:
                    lane.close()
            watching.cancel_scope.cancel(reason="the log closes")

    def _hand_over(self, write: Write, report: Report) -> None:
        self._lanes[self._layout.lane(write.session_id)].hand_over(write, report)

    @property
    def _trouble(self) -> str | None:
        return self._store.trouble

    # --- reading

    async def head(self, session_id: str) -> Head | None:
        return (await self._heads([session_id])).get(session_id)

    async def living(self, session_ids: Sequence[str]) -> dict[str, Head]:
        return {name: head for name, head in (await self._heads(session_ids)).items() if not head.deleted}

    async def _heads(self, session_ids: Sequence[str]) -> dict[str, Head]:
        answers = await self._of_each(_HEADS, [[session_id] for session_id in session_ids])
        made = (head_from(name, answer) for name, answer in zip(session_ids, answers, strict=True))
        return {head.session_id: head for head in made if head is not None}

    async def read(self, session_id: str, epoch: str, *, after: int, limit: int, max_bytes: int) -> list[Entry]:
        found = await self._of_one(_READ, session_id, epoch, after, limit, max_bytes)
        return [Entry(offset, body) for offset, body in zip(found[::2], found[1::2], strict=True)]  # type: ignore[arg-type]

    async def records(self, session_id: str, epoch: str, prefix: str = "") -> dict[str, bytes]:
        found = await self._of_one(_RECORDS, session_id, epoch, prefix)
        records = {_text(key): to_bytes(value) for key, value in zip(found[::2], found[1::2], strict=True)}
        return dict(sorted(records.items()))

    async def record(self, session_id: str, epoch: str, key: str) -> bytes | None:
        (answer,) = await self._of_each(_RECORD, [[session_id, epoch]], key, 0)
        value = _record(session_id, answer)
        if isinstance(value, PenstockError):
            raise value
        return value

    async def each_record(
        self, key: str, lives: Sequence[tuple[str, str]], *, max_bytes: float
    ) -> list[bytes | StaleEpoch | CorruptSession | None]:
        most = int(min(max_bytes, 2**31))
        answers = await self._of_each(_RECORD, [list(life) for life in lives], key, most, whole=False)
        found: list[bytes | StaleEpoch | CorruptSession | None] = []
        for (session_id, _), answer in zip(lives, answers, strict=True):
            value = None if answer is None else _record(session_id, answer)
            most -= len(value) if isinstance(value, bytes) else 0
            if found and (answer is None or most < 0):
                break
            found.append(value)
        return found

    async def holders(self, key: str, *, after: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
        check_plain_key(key)
        found: list[tuple[str, bytes]] = []
        while len(found) < limit and (names := await self._names("i" + key, after, limit - len(found))):
            answers = await self._of_each(_RECORD, [[name, ""] for name in names], key, 2**53)
            found += [(name, value) for name, value in zip(names, answers, strict=True) if isinstance(value, bytes)]
            after = names[-1]
        return found

    async def owned(self, owner: str, *, having: Sequence[str], after: str = "", limit: int = 1000) -> list[str]:
        for key in having:
            check_plain_key(key)
        found: set[str] = set()
        for key in having:
            heads = await self._listed("i" + key, after, limit, lambda head, _: head.owner == owner)
            found |= {head.session_id for head in heads}
        return sorted(found)[:limit]

    async def heads(self, *, after: str = "", limit: int = 100) -> list[Head]:
        return await self._listed("all", after, limit, lambda _head, _name: True)

    async def ranked(self, *, prefix: str = "", behind: tuple[int, str] | None = None, limit: int = 100) -> list[Head]:
        after = "" if behind is None else place_of(behind[0]) + behind[1]

        def is_there_still(head: Head, name: str) -> bool:
            return head.summary is not None and place_of(head.summary.rank) + head.session_id == name

        return await self._listed("by", after, limit, is_there_still, skip=_PLACE, prefix=prefix)

    async def _listed(
        self,
        index: str,
        after: str,
        limit: int,
        wanted: Callable[[Head, str], bool],
        *,
        skip: int = 0,
        prefix: str = "",
    ) -> list[Head]:
        """The heads of living sessions that an index names, behind ``after``: those that are ``wanted``.

        An index is read before the heads: one that was deleted or has moved in between is passed over. In a name the
        session's id comes behind ``skip`` characters.
        """
        found: list[Head] = []
        while len(found) < limit and (names := await self._names(index, after, limit - len(found), prefix)):
            heads = await self.living([name[skip:] for name in names])
            there = ((heads.get(name[skip:]), name) for name in names)
            found += [head for head, name in there if head is not None and wanted(head, name)]
            after = names[-1]
        return found

    async def _names(self, index: str, after: str, limit: int, prefix: str = "") -> list[str]:
        """The next names of an index over all shards, in order; empty behind the last."""
        found: list[str] = []
        while len(found) < limit:
            # Names are spread evenly: a little more than its share of each shard is enough, most of the time.
            share = min(limit, 2 * (limit - len(found)) // self._layout.shards + 8)
            names: list[str] = []
            certain: str | None = None  # up to this one no shard has any other
            for bases in self._layout.lanes:
                answer = await self._call(_PAGE, bases[0], pack(list(bases)), index, after, share, prefix)
                for page in of_answers(answer, len(bases)):
                    complete, texts = _page(page)
                    names += texts
                    if not complete:
                        certain = texts[-1] if certain is None else min(certain, texts[-1])
            found += sorted(name for name in names if name > after and (certain is None or name <= certain))
            if certain is None:
                break
            after = certain
        return found[:limit]

    async def _of_one(self, script: Script, session_id: str, *arguments: Argument) -> list[object]:
        base = self._layout.base(session_id)
        answer = await self._call(script, base, base, session_id, *arguments)
        if isinstance(answer, int):
            raise _wrong(session_id, answer)
        return list(of_answers(answer, len(answer) if isinstance(answer, list) else 0))

    async def _of_each(
        self, script: Script, asked: Sequence[Sequence[str]], *arguments: Argument, whole: bool = True
    ) -> list[object]:
        """What a script answers for each of ``asked``, which begin with a session's id.

        Unless ``whole``, it may leave out the last ones: for these it is None.
        """
        if not asked:
            await trio.lowlevel.checkpoint()
        lanes: dict[int, list[int]] = {}
        for place, (session_id, *_) in enumerate(asked):
            lanes.setdefault(self._layout.lane(session_id), []).append(place)
        answers: list[object] = [None] * len(asked)
        for places in lanes.values():
            packed: list[Packable] = [[self._layout.base(asked[place][0]), *asked[place]] for place in places]
            base = self._layout.base(asked[places[0]][0])
            answer = await self._call(script, base, pack(packed), *arguments)
            count = len(places) if whole or not isinstance(answer, list) else min(len(places), len(answer))
            for place, each in zip(places, of_answers(answer, count), strict=False):
                answers[place] = each
        return answers

    async def _call(self, script: Script, key: str, *arguments: Argument) -> object:
        self._check_open()
        return await self._store.call(script, key, *arguments)

    # --- a store that went back

    def _check(self) -> None:
        """The store was away: it may be another one."""
        for lane in self._lanes:
            lane.check()

    async def _lost_round(self, bases: list[str], writer: str, number: int) -> None:
        await self._put_in_doubt(bases, "round", number, key=writer)

    async def doubt(self, missed: Head, *, proven: bool) -> bool:
        base = self._layout.base(missed.session_id)
        bases = self._layout.lanes[self._layout.lane(missed.session_id)]
        where: Packable = [base, missed.session_id, missed.epoch, missed.tail, missed.token]
        return await self._put_in_doubt(bases, "missed" if proven else "said", where)

    async def doubt_all(self) -> bool:
        for bases in self._layout.lanes:
            await self._put_in_doubt(bases, "all")
        return True

    async def _put_in_doubt(self, bases: list[str], how: str, missed: Packable = 0, *, key: str = "") -> bool:
        lineage = uuid.uuid4().hex[:16]
        answer = await self._store.call(_DOUBT, key or bases[0], pack(list(bases)), lineage, how, pack(missed))
        return self._doubted(str(self._address), how, changed=answer == 1)


def _one(error: Exception) -> Exception:
    """The error out of the groups that nurseries make."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _record(session_id: str, answer: object) -> bytes | StaleEpoch | CorruptSession | None:
    if isinstance(answer, bytes):
        return answer
    return None if answer == 2 else _wrong(session_id, answer)


def _wrong(session_id: str, answer: object) -> StaleEpoch | CorruptSession:
    if answer == 0:
        return life_over(session_id)
    return CorruptSession("what is stored of it cannot be read", session_id=session_id)


def _page(answer: object) -> tuple[bool, list[str]]:
    match answer:
        case [int(complete), list(names)]:
            return bool(complete), [_text(name) for name in names]
        case _:
            raise StorageError("the store's answer cannot be read")


def _text(value: object) -> str:
    return to_bytes(value).decode()
