"""`PgLog`: the durable log, in a Postgres.

Owns opening and closing, and the reads. A round of writes is `writing`'s.
"""

from __future__ import annotations

import logging
import sys
import uuid
from collections.abc import Sequence
from typing import Any, Final, final

import psycopg
import trio

from ...errors import CorruptSession, PenstockError, StaleEpoch, StorageError, UnwritableDatabase
from ..fence import life_over
from ..lane import Lane, LanedLog
from ..port import Delete, Entry, Head, Report, Write, check_plain_key, head_of
from .address import Address
from .opening import check_store, prepare
from .store import Store, connect
from .writing import Writing

__all__ = ["PgLog", "open_postgres"]

logger = logging.getLogger("penstock.log")

# An answer that takes longer is given up, and the connection with it: seconds. Rounds and pages take milliseconds.
_WITHIN: Final = 5.0

# Between two attempts to open: seconds.
_PAUSE: Final = 0.2

# What a Postgres says to somebody who will not be let in a second later either.
_SHUT: Final = ("authentication failed", "does not exist", "no pg_hba.conf entry", "no password supplied")

# Rows of ended lives that are removed in one call.
_PURGED_AT_ONCE: Final = 512

_FIRST: Final = -(2**63)

# Of a prefix with more sessions than this a page is found among all of them, by their places.
_SORTED: Final = 100_000

_DOUBTED: Final = "s.lineage <> (SELECT lineage FROM penstock WHERE single)"
_HEAD: Final = f"s.id, s.epoch, s.tail, s.token, s.deleted, s.owner, {_DOUBTED}, m.place, m.body"
_HEADS: Final = f"SELECT {_HEAD} FROM sessions AS s LEFT JOIN summaries AS m ON m.id = s.id"
_LIFE: Final = "(SELECT life FROM sessions WHERE id = %(session)s AND epoch = %(epoch)s AND NOT deleted) AS s"
_READ: Final = f"""
SELECT p.number, p.body FROM {_LIFE} LEFT JOIN LATERAL (
    SELECT number, body, sum(octet_length(body)) OVER o AS size, row_number() OVER o AS nth
    FROM (SELECT * FROM events WHERE life = s.life AND number > %(after)s ORDER BY number LIMIT %(limit)s) AS e
    WINDOW o AS (ORDER BY number)
) AS p ON p.nth = 1 OR p.size <= %(max_bytes)s ORDER BY p.number
"""
_RECORDS: Final = f"""
SELECT r.key, r.value FROM {_LIFE}
LEFT JOIN records AS r ON r.life = s.life AND {{}} ORDER BY r.key
"""
_RECORD: Final = f"SELECT r.value FROM {_LIFE} LEFT JOIN records AS r ON r.life = s.life AND r.key = %(key)s"
_EACH_RECORD: Final = """
WITH found AS (
    SELECT a.nth, s.life, r.value, sum(coalesce(octet_length(r.value), 0)) OVER (ORDER BY a.nth) AS size
    FROM unnest(%(sessions)s::text[], %(epochs)s::text[]) WITH ORDINALITY AS a (session, epoch, nth)
    LEFT JOIN sessions AS s ON s.id = a.session AND s.epoch = a.epoch AND NOT s.deleted
    LEFT JOIN records AS r ON r.life = s.life AND r.key = %(key)s
)
SELECT life IS NULL, value FROM found WHERE nth = 1 OR size <= %(max_bytes)s ORDER BY nth
"""
_HOLDERS: Final = """
SELECT s.id, r.value FROM records AS r JOIN sessions AS s ON s.life = r.life
WHERE r.key = %s AND strpos(r.key, '/') = 0 AND NOT s.deleted AND s.id > %s ORDER BY s.id LIMIT %s
"""
_OWNED: Final = """
SELECT DISTINCT s.id FROM records AS r JOIN sessions AS s ON s.life = r.life
WHERE r.key = ANY (%s::text[]) AND strpos(r.key, '/') = 0 AND NOT s.deleted AND s.owner = %s AND s.id > %s
ORDER BY s.id LIMIT %s
"""
_HOW_MANY: Final = f"SELECT count(*) FROM (SELECT FROM summaries WHERE {{}} LIMIT {_SORTED + 1}) AS m"
_BEHIND: Final = "(place, id) > (%(place)s, %(behind)s)"
# OFFSET 0 keeps the planner from finding another way: by the first those of a prefix are sorted, by the second all are
# gone through in their order until there are enough.
_RANKED_OF_FEW: Final = f"SELECT * FROM summaries WHERE {_BEHIND} AND {{}} OFFSET 0"
_RANKED_OF_ALL: Final = (
    f"SELECT * FROM (SELECT * FROM summaries WHERE {_BEHIND} ORDER BY place, id OFFSET 0) AS m WHERE {{}}"
)
_RANKED: Final = f"""
SELECT {_HEAD} FROM (SELECT * FROM ({{}}) AS m ORDER BY place, id LIMIT %(limit)s) AS m
JOIN sessions AS s ON s.id = m.id ORDER BY m.place, m.id
"""


async def open_postgres(
    url: str, *, patience: float = 10.0, within: float = _WITHIN, allow_weak_store: bool = False, replicas: int = 0
) -> PgLog:
    """Open the log in the Postgres at ``url``; see `Address` for its form. Its tables are made if need be.

    The store may be away for ``patience`` seconds, at opening and later, before anything fails: writes and reads wait
    meanwhile. An answer that takes longer than ``within`` seconds is asked for again. Nothing keeps a
    second engine without a name out.

    With ``replicas`` it must wait for so many standbys before it commits (synchronous_standby_names).

    Close it with `PgLog.aclose`. Raises `UnwritableDatabase`, when it cannot be reached or entered, and unless
    ``allow_weak_store`` when it may lose what it acknowledged, and `NewerSchema`.
    """
    address = Address.parse(url)

    def opened() -> str:
        with connect(address, within) as link:
            check_store(link, address, allow_weak=allow_weak_store, replicas=replicas)
            return prepare(link, address)

    deadline = trio.current_time() + patience
    while True:
        try:
            version = await trio.to_thread.run_sync(opened, abandon_on_cancel=True)
        except psycopg.OperationalError as error:
            if any(words in str(error) for words in _SHUT):
                raise UnwritableDatabase(f"{address} does not let this user in: {error}") from error
            if trio.current_time() >= deadline:
                raise UnwritableDatabase(f"{address} cannot be reached: {error}") from error
            await trio.sleep(_PAUSE)
        except psycopg.Error as error:
            raise UnwritableDatabase(f"{address} cannot be used: {error}") from error
        else:
            return PgLog(Store(address, patience, within), address, version)


@final
class PgLog(LanedLog):
    """The log in a Postgres; made by `open_postgres`, in the trio loop that uses it.

    A write is reported after the store has committed it, which is after it is on its disk (synchronous_commit on).
    """

    def __init__(self, store: Store, address: Address, version: str) -> None:
        super().__init__()
        self._store = store
        self._address = address
        self._doubt = (
            f"SELECT doubt_{version}(%s, %s, %s::uuid, %s::bigint, %s::text, %s::text, %s::bigint, %s::bigint)"
        )
        self._purging = f"SELECT purge_{version}({_PURGED_AT_ONCE})"
        self._to_purge = trio.Event()
        self._to_purge.set()  # a former process may have left something
        writing = Writing(store, version, self._lost_round)
        self._lane = Lane(writing.carry_out, lambda: store.trouble, self._told)
        store.on_back = self._lane.check
        # A system task: what was handed over is carried out whoever is cancelled, and no caller has a nursery for it.
        trio.lowlevel.spawn_system_task(self._live, name="penstock postgres")

    async def _live(self) -> None:
        try:
            async with trio.open_nursery() as beside:
                beside.start_soon(self._store.watch)
                beside.start_soon(self._purge)
                async with trio.open_nursery() as writing:
                    writing.start_soon(self._lane.run)
                    await self._closing.wait()
                    self._lane.close()
                beside.cancel_scope.cancel(reason="the log closes")
            await self._store.aclose()
        finally:
            self._closed.set()

    async def _purge(self) -> None:
        """Remove what is left of ended lives, a few rows at a time, beside all else."""
        while True:
            await self._to_purge.wait()
            self._to_purge = trio.Event()
            try:
                while await self._store.read(lambda link: link.execute(self._purging).fetchall()) == [(True,)]:
                    pass
            except (psycopg.Error, StorageError) as error:  # no write of anybody's: again behind the next delete
                logger.warning("what is left of deleted sessions could not be removed: %s", error)

    def _hand_over(self, write: Write, report: Report) -> None:
        def told(error: PenstockError | None) -> None:
            if error is None:
                self._to_purge.set()
            report(error)

        self._lane.hand_over(write, told if isinstance(write, Delete) else report)

    @property
    def _trouble(self) -> str | None:
        return self._store.trouble

    # --- reading

    async def head(self, session_id: str) -> Head | None:
        rows = await self._rows(f"{_HEADS} WHERE s.id = %s", [session_id], session_id)
        return _head(*rows[0]) if rows else None

    async def read(self, session_id: str, epoch: str, *, after: int, limit: int, max_bytes: int) -> list[Entry]:
        wanted = {"session": session_id, "epoch": epoch, "after": after, "limit": limit, "max_bytes": max_bytes}
        rows = _of_living(await self._rows(_READ, wanted, session_id), session_id)
        return [Entry(number, body) for number, body in rows if number is not None]

    async def records(self, session_id: str, epoch: str, prefix: str = "") -> dict[str, bytes]:
        begins, bounds = _beginning("r.key", prefix)
        wanted = {"session": session_id, "epoch": epoch, **bounds}
        rows = _of_living(await self._rows(_RECORDS.format(begins), wanted, session_id), session_id)
        return {key: value for key, value in rows if key is not None}

    async def record(self, session_id: str, epoch: str, key: str) -> bytes | None:
        wanted = {"session": session_id, "epoch": epoch, "key": key}
        ((value,),) = _of_living(await self._rows(_RECORD, wanted, session_id), session_id)
        found: bytes | None = value
        return found

    async def each_record(
        self, key: str, lives: Sequence[tuple[str, str]], *, max_bytes: float
    ) -> list[bytes | StaleEpoch | CorruptSession | None]:
        sessions, epochs = [session_id for session_id, _ in lives], [epoch for _, epoch in lives]
        wanted = {"sessions": sessions, "epochs": epochs, "key": key, "max_bytes": max_bytes}
        rows = await self._rows(_EACH_RECORD, wanted)
        return [
            life_over(session_id) if over else value
            for session_id, (over, value) in zip(sessions, rows, strict=False)  # as many as fit
        ]

    async def holders(self, key: str, *, after: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
        check_plain_key(key)
        return [(session_id, value) for session_id, value in await self._rows(_HOLDERS, [key, after, limit])]

    async def owned(self, owner: str, *, having: Sequence[str], after: str = "", limit: int = 1000) -> list[str]:
        for key in having:
            check_plain_key(key)
        return [session_id for (session_id,) in await self._rows(_OWNED, [list(having), owner, after, limit])]

    async def heads(self, *, after: str = "", limit: int = 100) -> list[Head]:
        sql = f"{_HEADS} WHERE s.id > %s AND NOT s.deleted ORDER BY s.id LIMIT %s"
        return [_head(*row) for row in await self._rows(sql, [after, limit])]

    async def ranked(self, *, prefix: str = "", behind: tuple[int, str] | None = None, limit: int = 100) -> list[Head]:
        begins, bounds = _beginning("id", prefix)
        few = bool(prefix) and (await self._rows(_HOW_MANY.format(begins), bounds))[0][0] <= _SORTED
        place, name = (_FIRST, "") if behind is None else (-behind[0], behind[1])
        found = (_RANKED_OF_FEW if few else _RANKED_OF_ALL).format(begins)
        rows = await self._rows(_RANKED.format(found), {**bounds, "place": place, "behind": name, "limit": limit})
        return [_head(*row) for row in rows]

    async def living(self, session_ids: Sequence[str]) -> dict[str, Head]:
        rows = await self._rows(f"{_HEADS} WHERE s.id = ANY (%s::text[]) AND NOT s.deleted", [list(session_ids)])
        return {row[0]: _head(*row) for row in rows}

    async def _rows(self, sql: str, values: Any, session_id: str | None = None) -> list[tuple[Any, ...]]:
        """``session_id``: what is stored of this one session is read. Raises `StorageError`."""
        self._check_open()
        try:
            return await self._store.read(lambda link: link.execute(sql, values, binary=True).fetchall())
        except psycopg.Error as error:
            if session_id is not None and (error.sqlstate or "").startswith("XX"):
                raise CorruptSession(f"what is stored of it cannot be read: {error}", session_id=session_id) from error
            raise StorageError(f"cannot read: {error}") from error

    # --- a store that went back

    async def _lost_round(self, writer: uuid.UUID, number: int) -> None:
        await self._put_in_doubt("round", writer, number)

    async def doubt(self, missed: Head, *, proven: bool) -> bool:
        how = "missed" if proven else "said"
        where = (missed.session_id, missed.epoch, missed.tail, missed.token)
        return await self._put_in_doubt(how, None, None, *where)

    async def doubt_all(self) -> bool:
        return await self._put_in_doubt("all")

    async def _put_in_doubt(self, how: str, *of: Any) -> bool:
        values = [how, uuid.uuid4().hex[:16], *of, *[None] * (6 - len(of))]
        try:
            rows = await self._store.read(lambda link: link.execute(self._doubt, values).fetchall())
        except psycopg.Error as error:
            raise StorageError(f"what the store holds cannot be put in doubt: {error}") from error
        return self._doubted(str(self._address), how, changed=rows == [(True,)])


def _head(
    session_id: str,
    epoch: str,
    tail: int,
    token: int,
    deleted: bool,
    owner: str,
    doubted: bool,
    place: int | None,
    body: bytes | None,
) -> Head:
    rank = None if place is None else -place
    return head_of(session_id, epoch, tail, token, deleted=deleted, owner=owner, doubted=doubted, rank=rank, body=body)


def _beginning(column: str, prefix: str) -> tuple[str, dict[str, str]]:
    """The condition that a text begins so, as bounds that an index knows; and their values."""
    short = prefix.rstrip(chr(sys.maxunicode))
    if not short:
        return f"{column} >= %(prefix)s", {"prefix": prefix}
    # The next character, but for the surrogates, which are none.
    following = max(ord(short[-1]) + 1, 0xE000 if short[-1] == "\ud7ff" else 0)
    return f"{column} >= %(prefix)s AND {column} < %(end)s", {"prefix": prefix, "end": short[:-1] + chr(following)}


def _of_living(rows: list[tuple[Any, ...]], session_id: str) -> list[tuple[Any, ...]]:
    """What a life has, read with a LEFT JOIN. Raises `StaleEpoch` when the life is not there."""
    if not rows:
        raise life_over(session_id)
    return rows
