"""What can happen to what is stored of a session: bytes, types, whole rows, in every table and column.

Makes logs with sessions of every kind in them, in memory and as a file, and damages them. A value that is damaged may
still be a sound one: then nobody can tell, and nothing has to.
"""

from __future__ import annotations

import copy
import json
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any, Final, final

import trio
from attrs import frozen
from hypothesis import strategies as st

from penstock.engine import (
    Config,
    Engine,
    Entry,
    Generation,
    MemoryLog,
    Producer,
    Session,
    new_generation_id,
    new_message_id,
    open_engine,
    open_sqlite,
)
from penstock.engine.log import EventLog
from tests.engine.producers import Steered, saying
from tests.engine.remotes import body

__all__ = [
    "CRASHED",
    "KINDS",
    "Damage",
    "damage_file",
    "damage_memory",
    "damages",
    "fill",
    "stored_file",
    "stored_memory",
]

# The sessions, by what is special about each. Of `CRASHED` a generation was live when the process died.
KINDS: Final = ("plain", "remote", "queued", "crashed", "compacted", "forked", "deleted")
CRASHED: Final = "crashed"

PRODUCERS: Final[Mapping[str, Producer]] = {"say": saying("some", " words"), "hold": Steered()}

# What stands in the place of a value, whatever it was.
_VALUES: Final[tuple[object, ...]] = (
    *(None, 0, -1, 1, 3, 7, 10**6, 2**53, 2**62, 2**63 - 1, -(2**63), 1.5, float("inf"), float("nan")),
    *("", "x", "0", "1", "ÿ", "a/b", b"", b"x", b"\xff\x00\x80", b"{}", b"[]", b"null", b"7", b'{"a":', b'{"a":1}{'),
    *(b"[" * 3000, b'{"type":"generation.finished"}', b'{"turn":"x"}', b'{"turn":1e400}', b'{"paused":7}'),
)

# What stands in the place of a part of a value that is JSON.
_PARTS: Final[tuple[Any, ...]] = (None, True, 0, -1, 7, 10**20, 1.5, "", "x", [], [1], {}, {"a": None}, "block.delta")

_COLUMNS: Final = {
    "events": ("id", "life", "offset", "body", "body", "body", "body", "body"),
    "records": ("life", "key", "value", "value", "value"),
    "sessions": ("life", "session", "epoch", "tail", "token", "ended", "owner"),
    "summaries": ("life", "session", "place", "body", "body"),
}


@final
@frozen
class Damage:
    """Something happens to one value of one row of one session.

    ``how``: ``value`` (another one stands there), ``part`` (in what is JSON, another one stands somewhere), ``bytes``
    (some are others), ``cut``, ``text`` (bytes as text), ``broken`` (text that is no Unicode), ``gone`` (the row).
    """

    session: str
    table: str
    row: int
    column: int
    how: str
    what: int
    where: int

    def of(self, value: object) -> object:
        """What stands in its place."""
        random = Random(self.where)
        raw = value if isinstance(value, bytes) else str(value).encode()
        match self.how:
            case "value":
                return _VALUES[self.what % len(_VALUES)]
            case "part":
                return _in_part(raw, _PARTS[self.what % len(_PARTS)], random)
            case "bytes":
                changed = bytearray(raw or b"x")
                for _ in range(1 + self.what % 3):
                    changed[random.randrange(len(changed))] = random.choice([0, 10, 34, 44, 91, 123, 125, 255, 65])
                return bytes(changed)
            case "cut":
                return raw[: random.randrange(len(raw) + 1)]
            case _:
                return raw.decode("utf-8", "replace")


def damages(
    tables: tuple[str, ...] = ("events", "events", "records", "records", "sessions"),
) -> st.SearchStrategy[Damage]:
    return st.builds(
        Damage,
        st.sampled_from(KINDS),
        st.sampled_from(tables),
        st.integers(0, 200),
        st.integers(0, 100),
        st.sampled_from(["value", "value", "part", "part", "bytes", "bytes", "cut", "text", "broken", "gone"]),
        st.integers(0, 200),
        st.integers(0, 1 << 16),
    )


def _in_part(raw: bytes, part: Any, random: Random) -> bytes:
    try:
        value = json.loads(raw)
    except ValueError:
        return raw
    at = value
    while True:
        names: list[Any] = list(at) if isinstance(at, dict) else list(range(len(at))) if isinstance(at, list) else []
        if not names:
            return raw
        name = random.choice(names)
        if isinstance(at[name], dict | list) and at[name] and random.random() < 0.7:
            at = at[name]
            continue
        if random.random() < 0.2 and isinstance(at, dict):
            del at[name]
        else:
            at[name] = part
        return json.dumps(value, ensure_ascii=False).encode()


# --- a log with sessions of every kind


async def fill(log: EventLog) -> None:
    """Sessions of every kind but `CRASHED`."""
    config = Config(compact_after=0)
    async with open_engine(log, producers=PRODUCERS, config=config) as engine:
        compacted = await engine.create_session("compacted")
        for _ in range(3):
            await answer(compacted)
        await trio.sleep(3)  # the walk that compacts
    async with open_engine(log, producers=PRODUCERS, config=Config(compact_after=None)) as engine:
        plain = await engine.create_session("plain", metadata={"title": "é", "n": {"a": 1}})
        await answer(plain, idempotency_key="k")
        await plain.post("one more", message_id=new_message_id())
        await plain.update({"more": [1, 2]})
        await answer(plain)
        remote = await engine.create_session("remote")
        gid = new_generation_id()
        await remote.start("remote", generation_id=gid, text="go")
        await remote.chunks([body(gid, "a"), body(gid, "b")])
        await remote.chunks([body(gid, type="approval.requested", data={"approval_id": "a", "arguments": {"n": 1}})])
        await remote.input(gid, "continue", {})
        await remote.input(gid, "steer", {"n": 1})
        queued = await engine.create_session("queued")
        await answer(queued)
        await queued.start("hold")
        await queued.start("say", policy="queue", text="later")
        await queued.start("say", policy="queue", metadata={"a": 1})
        await queued.stop()
        await (await engine.session("plain")).fork("forked")
        await answer(await engine.session("forked"))
        await engine.create_session("deleted")
        await engine.delete_session("deleted")


async def _elaborate(generation: Generation) -> None:
    async with generation.message() as message, message.text() as text:
        await text.write("so far")
        await generation.flush()
        await trio.sleep_forever()


async def answer(session: Session, idempotency_key: str | None = None) -> None:
    """Ask, and hear the answer to its end."""
    async with session.subscribe("now") as events:
        await session.start("say", text="hi", idempotency_key=idempotency_key)
        async for event in events:
            if event.type == "generation.finished":
                return


async def stored_memory() -> MemoryLog:
    """What a process that died has left in memory, so to speak."""
    log = MemoryLog()
    await fill(log)
    left = MemoryLog()
    async with open_engine(log, producers=PRODUCERS, config=Config(compact_after=None)) as engine:
        await _leave_open(engine)
        left._lives = copy.deepcopy(log._lives)
    return left


async def _leave_open(engine: Engine) -> None:
    crashed = await engine.create_session("crashed", metadata={"a": 1})
    await answer(crashed)
    async with crashed.subscribe("now") as events:
        await crashed.start(_elaborate, text="go")
        async for event in events:
            if event.type == "block.delta":
                return


async def stored_file(path: Path) -> None:
    """The same as a file."""
    working = path.with_suffix(".working")
    log = await open_sqlite(working)
    try:
        await fill(log)
        async with open_engine(log, producers=PRODUCERS, config=Config(compact_after=None)) as engine:
            await _leave_open(engine)
            with closing(sqlite3.connect(working)) as source, closing(sqlite3.connect(path)) as copied:
                source.backup(copied)
    finally:
        await log.aclose()


# --- the damage

_IS_LIFE: Final = "SELECT 1 FROM sessions WHERE life = ?"


def damage_file(source: Path, path: Path, damage: Damage) -> bool:
    """Copy the file, damaged; False when its own constraints do not let that happen."""
    shutil.copy(source, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        life = connection.execute("SELECT max(life) FROM sessions WHERE session = ?", (damage.session,)).fetchone()[0]
        key = "rowid" if damage.table != "records" else "key"
        rows = connection.execute(f"SELECT {key} FROM {damage.table} WHERE life = ? ORDER BY {key}", (life,)).fetchall()
        if not rows:
            return False
        (at,) = rows[damage.row % len(rows)]
        where = f"WHERE life = {life} AND {key} = ?"
        columns = _COLUMNS[damage.table]
        column = columns[damage.column % len(columns)]
        try:
            if damage.how == "gone":
                connection.execute(f"DELETE FROM {damage.table} {where}", (at,))
            elif damage.how == "broken":
                connection.execute(f"UPDATE {damage.table} SET {column} = CAST(X'61FF62' AS TEXT) {where}", (at,))
            else:
                (value,) = connection.execute(f"SELECT {column} FROM {damage.table} {where}", (at,)).fetchone()
                value = damage.of(value)
                if column == "life" and connection.execute(_IS_LIFE, (value,)).fetchone():
                    return False  # it would be another session's
                connection.execute(f"UPDATE {damage.table} SET {column} = ? {where}", (value, at))
        except (sqlite3.IntegrityError, OverflowError):
            return False
    return True


def damage_memory(log: MemoryLog, damage: Damage) -> bool:
    """The same in memory."""
    life = log._lives[damage.session]
    match damage.table:
        case "events" if life.entries:
            at = damage.row % len(life.entries)
            if damage.how == "gone":
                del life.entries[at]
            else:
                entry = life.entries[at]
                life.entries[at] = Entry(entry.offset, damage.of(entry.body))  # type: ignore[arg-type]
        case "records" if life.records:
            key = sorted(life.records)[damage.row % len(life.records)]
            if damage.how == "gone":
                del life.records[key]
            else:
                life.records[key] = damage.of(life.records[key])  # type: ignore[assignment]
        case "sessions":
            name = ("epoch", "tail", "token")[damage.column % 3]
            value = damage.of(getattr(life.standing, name))
            life.standing = life.standing._replace(**{name: value})  # type: ignore[arg-type]
        case _:
            return False
    return True
