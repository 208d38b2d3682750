"""Random interleavings of writes, right and wrong ones, against a plain model; over every log."""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path
from typing import TypeAlias, final

import pytest
import trio
from attrs import define, field, frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.engine.errors import IdInUse, PenstockError, StaleEpoch, StaleToken
from penstock.engine.log import (
    Append,
    Claim,
    Delete,
    Entry,
    EventLog,
    Head,
    Keep,
    MemoryLog,
    Release,
    Summary,
    Write,
    open_sqlite,
)
from penstock.engine.log.opening import open_log
from penstock.engine.log.port import BLOCK
from penstock.engine.testing import check_acknowledged
from tests.engine.postgres_server import PostgresServer
from tests.engine.redis_server import RedisServer
from tests.engine.writes import bodies, kinds
from tests.extent import examples

SESSIONS = ("a", "b", "c")
OWNERS = ("", "n1", "n2")
KEYS = ("open", "queue", "message/1")


@final
@define
class Life:
    epoch: str
    token: int
    deleted: bool = False
    owner: str = ""
    events: list[bytes] = field(factory=list)
    records: dict[str, bytes] = field(factory=dict)
    summary: Summary | None = None
    ended_at: int = 0


@final
@frozen
class Step:
    """A write relative to where its session stands: how far off the tail and the token are, whose epoch it bears."""

    session_id: str
    kind: str
    off_tail: int
    off_token: int
    former_epoch: bool
    events: int
    records: dict[str, bool]
    rank: int | None
    owner: str


Rounds: TypeAlias = list[list[Step]]

steps = st.builds(
    Step,
    session_id=st.sampled_from(SESSIONS),
    kind=st.sampled_from(
        ["append", "append", "append", "append", "create", "create", "delete", "keep", "claim", "release"]
    ),
    off_tail=st.sampled_from([0, 0, 0, 0, 0, -1, 1, 7]),
    off_token=st.sampled_from([0, 0, 0, 0, 1, -1]),
    former_epoch=st.sampled_from([False] * 7 + [True]),
    events=st.integers(0, 4),
    records=st.dictionaries(st.sampled_from(KEYS), st.booleans(), max_size=2),
    rank=st.sampled_from([None, None, -1, 0, 1, 2]),
    owner=st.sampled_from(OWNERS),
)
rounds = st.lists(st.lists(steps, min_size=1, max_size=12), min_size=1, max_size=6)


@final
class Model:
    def __init__(self) -> None:
        self.lives: dict[str, Life] = {}
        self.ledger: dict[tuple[str, str], list[Entry]] = {}
        self.number = 0

    def write(self, step: Step) -> tuple[Write, type[PenstockError] | None]:
        """The write that the step means here and now, and what must be said to it."""
        self.number += 1
        life = self.lives.get(step.session_id)
        living = life if life is not None and not life.deleted else None
        epoch = life.epoch if life is not None and not step.former_epoch else "never"
        token = max(0, (life.token if life is not None else 1) + step.off_token)
        tail = max(0, (len(living.events) if living else 0) + step.off_tail)
        if step.kind == "delete":
            return Delete(session_id=step.session_id, epoch=epoch, token=token), self._delete(living, epoch, token)
        if step.kind == "claim":
            claimed = Claim(session_id=step.session_id, epoch=epoch, seen=token, owner=step.owner)
            return claimed, self._claim(living, claimed)
        if step.kind == "release":
            released = Release(session_id=step.session_id, owner=step.owner, token=token)
            return released, self._release(living, released)
        records = {key: b"%d" % self.number if keep else None for key, keep in step.records.items()}
        if step.kind == "keep":
            kept = Keep(session_id=step.session_id, epoch=epoch, records=records)
            return kept, self._keep(living, kept)
        create = step.kind == "create"
        if create and not step.former_epoch:
            epoch = f"e{self.number}"
        elif create and life is not None:
            epoch = life.epoch
        write = Append(
            session_id=step.session_id,
            epoch=epoch,
            expected_tail=tail,
            token=token,
            events=[b"%d.%d" % (self.number, place) for place in range(step.events)],
            records=records,
            summary=None if step.rank is None else Summary(step.rank, b"%d" % self.number),
            create=create,
            owner=step.owner,
        )
        return write, self._create(life, write) if create else self._append(living, write)

    def _delete(self, life: Life | None, epoch: str, token: int) -> type[PenstockError] | None:
        if life is None or life.epoch != epoch:
            return StaleEpoch
        if token < life.token:
            return StaleToken
        life.deleted, life.token, life.ended_at, life.summary = True, token, len(life.events), None
        life.owner = ""
        return None

    def _claim(self, life: Life | None, write: Claim) -> type[PenstockError] | None:
        if life is None or life.epoch != write.epoch:
            return StaleEpoch
        if write.seen != life.token:
            return StaleToken
        life.token, life.owner = write.seen - write.seen % BLOCK + BLOCK, write.owner
        said = {"owner": write.owner, "tail": len(life.events)}
        life.records[f"claim/{life.token:016}"] = json.dumps(said, separators=(",", ":")).encode()
        return None

    def _release(self, life: Life | None, write: Release) -> type[PenstockError] | None:
        if life is None:
            return StaleEpoch
        if write.token < life.token or write.owner != life.owner:
            return StaleToken
        life.token, life.owner = write.token, ""
        return None

    def _create(self, life: Life | None, write: Append) -> type[PenstockError] | None:
        if life is not None and not life.deleted:
            return IdInUse
        if life is not None and life.epoch == write.epoch:
            return StaleEpoch
        if life is not None and write.token < life.token:
            return StaleToken
        if write.expected_tail:
            return StaleEpoch
        self._store(Life(write.epoch, write.token, owner=write.owner), write)
        return None

    def _append(self, life: Life | None, write: Append) -> type[PenstockError] | None:
        if life is None or life.epoch != write.epoch:
            return StaleEpoch
        if write.token < life.token:
            return StaleToken
        if write.expected_tail != len(life.events):
            return StaleEpoch
        self._store(life, write)
        return None

    def _store(self, life: Life, write: Append) -> None:
        self.lives[write.session_id] = life
        life.token = write.token
        life.events += write.events
        life.summary = write.summary or life.summary
        self._set(life, write)

    def _keep(self, life: Life | None, write: Keep) -> type[PenstockError] | None:
        if life is None or life.epoch != write.epoch:
            return StaleEpoch
        self._set(life, write)
        return None

    def _set(self, life: Life, write: Append | Keep) -> None:
        for key, value in write.records.items():
            life.records.pop(key, None)
            if value is not None:
                life.records[key] = value

    def living(self) -> dict[str, Life]:
        return {name: life for name, life in sorted(self.lives.items()) if not life.deleted}

    def head(self, name: str) -> Head | None:
        life = self.lives.get(name)
        if life is None:
            return None
        tail = life.ended_at if life.deleted else len(life.events)
        return Head(
            session_id=name,
            epoch=life.epoch,
            tail=tail,
            token=life.token,
            deleted=life.deleted,
            owner=life.owner,
            summary=life.summary,
        )


async def assert_like(log: EventLog, model: Model) -> None:
    living = model.living()
    assert await log.heads() == [model.head(name) for name in living]
    ranked = sorted((-life.summary.rank, name) for name, life in living.items() if life.summary is not None)
    assert await log.ranked() == [model.head(name) for _, name in ranked]
    assert await log.living(SESSIONS) == {name: model.head(name) for name in living}
    for name in SESSIONS:
        assert await log.head(name) == model.head(name)
    for name, life in living.items():
        assert await bodies(log, name, life.epoch) == life.events
        assert await log.records(name, life.epoch) == life.records
    for key in ("open", "queue"):
        holders = [(name, life.records[key]) for name, life in living.items() if key in life.records]
        assert await log.holders(key) == holders
    for owner in OWNERS:
        having = [
            name for name, life in living.items() if life.owner == owner and life.records.keys() & {"open", "queue"}
        ]
        assert await log.owned(owner, having=["open", "queue"]) == having
    for name, life in model.lives.items():
        if life.deleted:
            with pytest.raises(StaleEpoch):
                await log.read(name, life.epoch, after=0, limit=1, max_bytes=1)


async def compare(log: EventLog, rounds: Rounds, model: Model) -> None:
    for steps in rounds:
        planned = [model.write(step) for step in steps]
        assert await kinds(log, *(write for write, _ in planned)) == [expected for _, expected in planned]
        for write, expected in planned:
            if expected is None and isinstance(write, Append):
                offsets = itertools.count(write.expected_tail + 1)
                model.ledger.setdefault((write.session_id, write.epoch), []).extend(map(Entry, offsets, write.events))
        await assert_like(log, model)
        assert await check_acknowledged(model.ledger, log) == []


@given(rounds=rounds)
def test_memory_log_is_like_the_model(rounds: Rounds) -> None:
    async def run() -> None:
        await compare(MemoryLog(), rounds, Model())

    trio.run(run)


@settings(max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rounds=rounds, reopened=rounds)
def test_sqlite_log_is_like_the_model_also_after_it_was_reopened(rounds: Rounds, reopened: Rounds) -> None:
    async def run() -> None:
        model = Model()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "chat.db"
            for part in (rounds, reopened):
                log = await open_sqlite(path)
                await compare(log, part, model)
                await log.aclose()
            log = await open_sqlite(path)
            await assert_like(log, model)
            assert await check_acknowledged(model.ledger, log) == []
            await log.aclose()

    trio.run(run)


async def compare_twice(url: str, rounds: Rounds, reopened: Rounds) -> None:
    model = Model()
    for part in (rounds, reopened):
        log = await open_log(url)
        await compare(log, part, model)
        await log.aclose()
    log = await open_log(url)
    await assert_like(log, model)
    assert await check_acknowledged(model.ledger, log) == []
    await log.aclose()


@pytest.mark.long
@settings(
    max_examples=examples(20),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(rounds=rounds, reopened=rounds)
def test_postgres_log_is_like_the_model_also_after_it_was_reopened(
    postgres_server: PostgresServer, rounds: Rounds, reopened: Rounds
) -> None:
    trio.run(compare_twice, postgres_server.url(), rounds, reopened)


@pytest.mark.parametrize("shards", [1, 64])
@settings(
    max_examples=examples(20),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(rounds=rounds, reopened=rounds)
def test_redis_log_is_like_the_model_also_after_it_was_reopened(
    redis_server: RedisServer, shards: int, rounds: Rounds, reopened: Rounds
) -> None:
    trio.run(compare_twice, redis_server.url(shards=shards), rounds, reopened)
