"""What every event log keeps, run over each of them; also over the faulty one when nothing is at fault."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from penstock.engine.errors import IdInUse, PenstockError, StaleEpoch, StaleToken, StorageError, WriteFailed
from penstock.engine.log import Entry, EventLog, MemoryLog, Summary, Write, open_sqlite
from penstock.engine.log.opening import open_log
from penstock.engine.log.port import BLOCK
from tests.engine.faulty import FaultyLog
from tests.engine.postgres_server import PostgresServer
from tests.engine.redis_server import RedisCluster, RedisServer
from tests.engine.writes import (
    append,
    bodies,
    claim,
    compact,
    create,
    delete,
    entries,
    head,
    keep,
    kinds,
    outcomes,
    release,
    store,
)


@pytest.fixture(
    params=[
        "memory",
        "sqlite",
        "faulty",
        pytest.param("redis", marks=pytest.mark.long),
        "redis-1",
        pytest.param("redis-cluster", marks=pytest.mark.long),
        pytest.param("postgres", marks=pytest.mark.long),
    ]
)
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EventLog]:
    log: EventLog
    if request.param == "memory":
        log = MemoryLog()
    elif request.param == "redis-cluster":
        cluster: RedisCluster = request.getfixturevalue("redis_cluster")
        log = await open_log(cluster.url())
    elif request.param.startswith("redis"):
        server: RedisServer = request.getfixturevalue("redis_server")
        log = await open_log(server.url(shards=1 if request.param == "redis-1" else 64))
    elif request.param == "postgres":
        postgres: PostgresServer = request.getfixturevalue("postgres_server")
        log = await open_log(postgres.url())
    else:
        log = await open_sqlite(tmp_path / "chat.db")
    if request.param == "faulty":
        log = FaultyLog(log)
    yield log
    await log.aclose()


async def test_events_come_back_as_they_were_appended(log: EventLog) -> None:
    await store(log, create(b"one", b"", b"\x00\xff not text"), append(b"four", tail=3))
    assert await entries(log) == [Entry(1, b"one"), Entry(2, b""), Entry(3, b"\x00\xff not text"), Entry(4, b"four")]
    assert await log.head("s") == head(tail=4)


async def test_nothing_is_known_of_a_session_nobody_created(log: EventLog) -> None:
    assert await log.head("s") is None
    assert await kinds(log, append(b"x"), delete()) == [StaleEpoch, StaleEpoch]
    assert await log.head("s") is None
    with pytest.raises(StaleEpoch):
        await log.read("s", "e1", after=0, limit=1, max_bytes=1)
    with pytest.raises(StaleEpoch):
        await log.records("s", "e1")
    with pytest.raises(StaleEpoch):
        await log.record("s", "e1", "key")


@pytest.mark.parametrize("tail", [0, 1, 3, 99])
async def test_append_at_a_wrong_tail_is_refused_and_leaves_nothing(log: EventLog, tail: int) -> None:
    await store(log, create(b"1", b"2"))
    refused = append(b"x", tail=tail, token=9, records={"open": b"x"})
    assert await kinds(log, refused) == [StaleEpoch]
    assert await bodies(log) == [b"1", b"2"]
    assert await log.records("s", "e1") == {}
    assert await log.head("s") == head(tail=2)


async def test_append_of_another_epoch_is_refused(log: EventLog) -> None:
    await store(log, create(b"1"))
    assert await kinds(log, append(b"x", epoch="e2", tail=1), delete(epoch="e2")) == [StaleEpoch, StaleEpoch]
    assert await bodies(log) == [b"1"]


async def test_a_higher_token_becomes_current_and_a_lower_one_is_refused(log: EventLog) -> None:
    await store(log, create(b"1", token=3))
    assert await kinds(log, append(b"x", tail=1, token=2)) == [StaleToken]
    await store(log, append(b"2", tail=1, token=7))
    assert await kinds(log, append(b"x", tail=2, token=6), delete(token=6)) == [StaleToken, StaleToken]
    await store(log, append(b"3", tail=2, token=7))
    assert await log.head("s") == head(tail=3, token=7)
    assert await bodies(log) == [b"1", b"2", b"3"]


async def test_an_append_of_nothing_raises_the_fence(log: EventLog) -> None:
    await store(log, create(b"1"), append(tail=1, token=2))
    assert await kinds(log, append(b"x", tail=1, token=1)) == [StaleToken]
    await store(log, append(tail=1, token=2))
    assert await log.head("s") == head(tail=1, token=2)


async def test_an_overtaken_writer_of_a_former_life_is_told_that_it_is_over(log: EventLog) -> None:
    await store(log, create(b"1", token=5), delete(token=5), create(b"2", epoch="e2", token=5))
    assert await kinds(log, append(b"x", tail=1, token=1)) == [StaleEpoch]
    assert await bodies(log, epoch="e2") == [b"2"]


async def test_an_overtaken_writer_with_a_wrong_tail_is_told_that_it_was_overtaken(log: EventLog) -> None:
    await store(log, create(b"1", token=5))
    assert await kinds(log, append(b"x", tail=77, token=1)) == [StaleToken]


async def test_records_change_with_the_events_or_not_at_all(log: EventLog) -> None:
    await store(log, create(b"1", records={"open": b"g1", "queue": b"[]"}))
    await store(log, append(b"2", tail=1, records={"open": None, "queue": b"[1]", "absent": None}))
    assert await log.records("s", "e1") == {"queue": b"[1]"}
    assert await kinds(log, append(b"x", tail=1, records={"queue": None, "open": b"g2"})) == [StaleEpoch]
    assert await log.records("s", "e1") == {"queue": b"[1]"}
    await store(log, append(tail=2, records={"open": b"g3"}))
    assert await log.record("s", "e1", "open") == b"g3"
    assert await log.record("s", "e1", "absent") is None
    assert await log.head("s") == head(tail=2)


async def test_within_one_commit_the_last_value_of_a_record_stands(log: EventLog) -> None:
    await store(
        log,
        create(records={"a": b"1", "b": b"1"}),
        append(records={"a": b"2", "b": None}),
        append(records={"a": None, "b": b"3"}),
    )
    assert await log.records("s", "e1") == {"b": b"3"}


async def test_records_are_found_by_prefix_in_key_order(log: EventLog) -> None:
    keys = ["message/b", "message/a", "message", "message0", "messagé", "zebra", "a", "message/\U0010ffff"]
    await store(log, create(records={key: key.encode() for key in keys}))
    assert list(await log.records("s", "e1")) == sorted(keys)
    assert list(await log.records("s", "e1", "message/")) == ["message/a", "message/b", "message/\U0010ffff"]
    assert list(await log.records("s", "e1", "message")) == [key for key in sorted(keys) if key.startswith("message")]
    assert await log.records("s", "e1", "nothing") == {}


async def test_one_refused_write_takes_no_other_with_it(log: EventLog) -> None:
    await store(log, create(b"1", of="a"), create(b"1", of="b"), create(b"1", of="c"))
    assert await kinds(
        log,
        append(b"2", to="a", tail=1),
        append(b"x", to="b", tail=5),
        append(b"2", to="c", tail=1),
        append(b"x", to="nobody"),
        append(b"2", to="b", tail=1),
        append(b"3", to="a", tail=2),
    ) == [None, StaleEpoch, None, StaleEpoch, None, None]
    assert await bodies(log, "a") == [b"1", b"2", b"3"]
    assert await bodies(log, "b") == [b"1", b"2"]
    assert await bodies(log, "c") == [b"1", b"2"]


async def test_a_write_is_judged_by_what_the_ones_before_it_left(log: EventLog) -> None:
    assert await kinds(
        log,
        create(b"1"),
        append(b"x", tail=0),
        append(b"2", tail=1, token=2),
        append(b"x", tail=2, token=1),
        append(b"3", tail=2, token=2),
    ) == [None, StaleEpoch, None, StaleToken, None]
    assert await bodies(log) == [b"1", b"2", b"3"]


async def test_reports_come_in_the_order_of_each_sessions_writes(log: EventLog) -> None:
    seen: list[tuple[str, int]] = []
    done = trio.Event()

    def note(session_id: str, number: int) -> None:
        seen.append((session_id, number))
        if len(seen) == 60:
            done.set()

    def reporting(error: PenstockError | None, session_id: str, number: int) -> None:
        note(session_id, number)

    for number in range(20):
        for session_id in ("a", "b", "c"):
            write = append(b"x", to=session_id, tail=number, create=number == 0)
            if number % 7 == 3:
                write = append(b"refused", to=session_id, tail=1000)

            def report(error: PenstockError | None, session_id: str = session_id, number: int = number) -> None:
                reporting(error, session_id, number)

            log.submit(write, report)
    assert seen == []
    with trio.fail_after(10):
        await done.wait()
    for session_id in ("a", "b", "c"):
        assert [number for name, number in seen if name == session_id] == list(range(20))


async def test_a_report_may_hand_over_the_next_write(log: EventLog) -> None:
    done = trio.Event()

    def go_on(tail: int) -> None:
        if tail == 20:
            done.set()
        else:
            write = append(b"%d" % tail, tail=tail, create=tail == 0)
            log.submit(write, lambda error: done.set() if error else go_on(tail + 1))

    go_on(0)
    with trio.fail_after(10):
        await done.wait()
    assert await bodies(log) == [b"%d" % number for number in range(20)]


async def test_what_was_handed_over_is_stored_though_the_caller_was_cancelled(log: EventLog) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await outcomes(log, create(b"1"))
    assert scope.cancelled_caught
    await store(log, append(b"2", tail=1))
    assert await bodies(log) == [b"1", b"2"]


async def test_an_id_in_use_cannot_be_created_again(log: EventLog) -> None:
    await store(log, create(b"1"))
    assert await kinds(log, create(b"x", epoch="e2", token=9), create(b"x")) == [IdInUse, IdInUse]
    assert await bodies(log) == [b"1"]


async def test_of_two_creates_at_once_one_wins(log: EventLog) -> None:
    assert await kinds(log, create(b"1", epoch="e1"), create(b"2", epoch="e2")) == [None, IdInUse]
    assert await log.head("s") == head(tail=1)


async def test_a_new_life_begins_at_its_start(log: EventLog) -> None:
    assert await kinds(log, append(b"x", tail=3, create=True)) == [StaleEpoch]
    assert await log.head("s") is None


async def test_a_deleted_session_is_gone_but_for_its_tombstone(log: EventLog) -> None:
    await store(log, create(b"1", b"2", records={"open": b"g"}), delete(token=4))
    assert await log.head("s") == head(tail=2, token=4, deleted=True)
    assert await kinds(log, append(b"x", tail=2, token=4), delete(token=4)) == [StaleEpoch, StaleEpoch]
    for reading in (
        log.read("s", "e1", after=0, limit=9, max_bytes=99),
        log.records("s", "e1"),
        log.record("s", "e1", "open"),
    ):
        with pytest.raises(StaleEpoch):
            await reading
    assert await log.heads() == []
    assert await log.holders("open") == []


async def test_a_new_life_shares_nothing_with_the_former_one(log: EventLog) -> None:
    await store(log, create(b"old", b"old", records={"open": b"g", "queue": b"q"}), delete())
    await store(log, create(b"new", epoch="e2", records={"queue": b"n"}))
    assert await log.head("s") == head(epoch="e2", tail=1)
    assert await bodies(log, epoch="e2") == [b"new"]
    assert await log.records("s", "e2") == {"queue": b"n"}
    assert await log.holders("open") == []
    with pytest.raises(StaleEpoch):
        await log.read("s", "e1", after=0, limit=9, max_bytes=99)
    assert await kinds(log, append(b"x", tail=2), append(b"x", tail=1)) == [StaleEpoch, StaleEpoch]


async def test_lives_may_follow_each_other_within_one_commit(log: EventLog) -> None:
    await store(
        log,
        create(b"a", records={"r": b"a"}),
        delete(),
        create(b"b", epoch="e2", records={"r": b"b"}),
        delete(epoch="e2"),
        create(b"c", epoch="e3"),
        append(b"d", epoch="e3", tail=1),
    )
    assert await log.head("s") == head(epoch="e3", tail=2)
    assert await bodies(log, epoch="e3") == [b"c", b"d"]
    assert await log.records("s", "e3") == {}


async def test_a_new_life_needs_a_new_epoch_and_no_lower_token(log: EventLog) -> None:
    await store(log, create(b"1", token=5), delete(token=6))
    assert await kinds(log, create(b"x", token=6), create(b"x", epoch="e2", token=5)) == [StaleEpoch, StaleToken]
    assert await log.head("s") == head(tail=1, token=6, deleted=True)
    await store(log, create(b"2", epoch="e2", token=6))


async def test_records_are_kept_beside_whatever_else_is_written(log: EventLog) -> None:
    await store(log, create(b"1", token=4, records={"a": b"1", "b": b"1"}))
    await store(
        log,
        append(b"2", tail=1, token=4, records={"a": b"2"}),
        keep(records={"a": b"3", "b": None, "part/1": bytes(300_000)}),
        append(b"3", tail=2, token=5, records={"c": b"1"}),
    )
    assert await log.records("s", "e1") == {"a": b"3", "c": b"1", "part/1": bytes(300_000)}
    assert await log.head("s") == head(tail=3, token=5)
    assert await bodies(log) == [b"1", b"2", b"3"]
    await store(log, keep(records={"part/1": None}), keep(records={}))
    assert await log.records("s", "e1") == {"a": b"3", "c": b"1"}


async def test_nothing_is_kept_of_a_life_that_is_over(log: EventLog) -> None:
    refused = keep(records={"r": b"x"})
    assert await kinds(log, refused) == [StaleEpoch]
    await store(log, create(b"1"))
    assert await kinds(log, keep(epoch="e2", records={"r": b"x"}), delete(), refused) == [StaleEpoch, None, StaleEpoch]
    await store(log, create(b"2", epoch="e2"))
    assert await kinds(log, refused) == [StaleEpoch]
    assert await log.records("s", "e2") == {}


async def test_a_claim_gives_the_first_token_of_a_new_block_and_changes_nothing_else(log: EventLog) -> None:
    await store(log, create(b"1", token=7, records={"open": b"g"}, rank=3, owner="a"))
    await store(log, claim(seen=7, owner="b"))
    assert await log.head("s") == head(tail=1, token=BLOCK, summary=Summary(3, b"s"), owner="b")
    first = {f"claim/{BLOCK:016}": b'{"owner":"b","tail":1}'}
    assert await log.records("s", "e1") == {**first, "open": b"g"}
    await store(log, append(b"2", tail=1, token=BLOCK), append(b"3", tail=2, token=BLOCK + 5))
    await store(log, claim(seen=BLOCK + 5, owner="a"))
    assert await log.head("s") == head(tail=3, token=2 * BLOCK, summary=Summary(3, b"s"), owner="a")
    assert await log.records("s", "e1", "claim/") == {**first, f"claim/{2 * BLOCK:016}": b'{"owner":"a","tail":3}'}
    await store(log, compact(remove=[2]))
    assert len(await log.records("s", "e1", "claim/")) == 2
    assert claim(seen=BLOCK - 1, owner="a").token == BLOCK
    assert claim(seen=BLOCK, owner="a").token == 2 * BLOCK


async def test_of_two_claims_that_saw_the_same_token_one_wins(log: EventLog) -> None:
    await store(log, create(b"1"))
    won, lost = await outcomes(log, claim(seen=1, owner="a"), claim(seen=1, owner="b"))
    assert won is None
    assert isinstance(lost, StaleToken)
    assert lost.owner == "a"
    assert await log.head("s") == head(tail=1, token=BLOCK, owner="a")
    assert await kinds(log, claim(seen=1, owner="a")) == [StaleToken]  # also for who has it


async def test_a_claim_is_refused_once_the_fence_was_raised(log: EventLog) -> None:
    await store(log, create(b"1", owner="a"), append(tail=1, token=2))
    assert await kinds(log, claim(seen=1, owner="b"), claim(seen=3, owner="b")) == [StaleToken, StaleToken]
    assert await log.head("s") == head(tail=1, token=2, owner="a")


async def test_nothing_lands_under_a_block_from_before_a_claim(log: EventLog) -> None:
    await store(log, create(b"1", owner="a"), claim(seen=1, owner="b"))
    late = append(b"x", tail=1, token=2, records={"open": b"x"})
    (refused,) = await outcomes(log, late)
    assert isinstance(refused, StaleToken)
    assert refused.owner == "b"
    assert await kinds(log, delete(token=3)) == [StaleToken]
    assert await bodies(log) == [b"1"]
    assert await log.records("s", "e1") == {f"claim/{BLOCK:016}": b'{"owner":"b","tail":1}'}


async def test_what_the_former_owner_appends_before_the_claim_lands_counts(log: EventLog) -> None:
    await store(log, create(b"1", owner="a"))
    seen = await log.head("s")
    assert seen is not None
    assert await kinds(
        log, append(b"2", tail=1), claim(seen=seen.token, owner="b"), append(b"x", tail=2), append(b"x", tail=3)
    ) == [None, None, StaleToken, StaleToken]
    assert await log.head("s") == head(tail=2, token=BLOCK, owner="b")
    assert await bodies(log) == [b"1", b"2"]


async def test_what_is_not_there_or_over_cannot_be_claimed(log: EventLog) -> None:
    assert await kinds(log, claim(seen=0, owner="a"), release(owner="a", token=1)) == [StaleEpoch, StaleEpoch]
    assert await log.head("s") is None
    await store(log, create(b"1", owner="a"), delete(token=2))
    assert (
        await kinds(log, claim(seen=2, owner="b"), release(owner="a", token=2), release(owner="", token=2))
        == [StaleEpoch] * 3
    )
    assert await log.head("s") == head(tail=1, token=2, deleted=True)
    await store(log, create(b"2", epoch="e2", token=2, owner="c"))
    assert await kinds(log, claim(seen=2, owner="b")) == [StaleEpoch]
    assert await log.head("s") == head(epoch="e2", tail=1, token=2, owner="c")


async def test_a_released_session_is_nobodys_until_the_next_claim(log: EventLog) -> None:
    await store(log, create(b"1", owner="a"), append(tail=1, token=3), release(owner="a", token=4))
    assert await log.head("s") == head(tail=1, token=4)
    assert await kinds(log, claim(seen=3, owner="b"), release(owner="a", token=4)) == [StaleToken, StaleToken]
    await store(log, claim(seen=4, owner="b"))
    assert await log.head("s") == head(tail=1, token=BLOCK, owner="b")


async def test_a_former_owner_cannot_release(log: EventLog) -> None:
    await store(log, create(b"1", owner="a"), claim(seen=1, owner="b"))
    refused = [release(owner="a", token=1), release(owner="a", token=BLOCK), release(owner="b", token=BLOCK - 1)]
    assert await kinds(log, *refused) == [StaleToken] * 3
    assert await log.head("s") == head(tail=1, token=BLOCK, owner="b")
    await store(log, delete(token=BLOCK), create(b"2", epoch="e2", token=2 * BLOCK, owner="b"))
    assert await kinds(log, release(owner="b", token=BLOCK)) == [StaleToken]  # of its former life
    assert await log.head("s") == head(epoch="e2", tail=1, token=2 * BLOCK, owner="b")


async def test_claims_come_in_order_with_all_other_writes_and_share_their_commits(log: EventLog) -> None:
    assert await kinds(
        log,
        create(b"1", owner="a"),
        claim(seen=1, owner="b"),
        append(b"x", tail=1),
        append(b"2", tail=1, token=BLOCK),
        keep(records={"kept": b"1"}),
        release(owner="b", token=BLOCK + 1),
        claim(seen=BLOCK, owner="c"),
        claim(seen=BLOCK + 1, owner="c"),
        append(b"3", tail=2, token=2 * BLOCK),
        delete(token=2 * BLOCK),
        create(b"4", epoch="e2", token=3 * BLOCK, owner="d"),
    ) == [None, None, StaleToken, None, None, None, StaleToken, None, None, None, None]
    assert await log.head("s") == head(epoch="e2", tail=1, token=3 * BLOCK, owner="d")


async def test_no_token_is_taken_that_json_or_lua_cannot_hold(log: EventLog) -> None:
    assert await kinds(log, create(b"x", token=2**53)) == [StaleToken]
    await store(log, create(b"1", owner="a"), append(tail=1, token=2**53 - BLOCK - 1))
    await store(log, claim(seen=2**53 - BLOCK - 1, owner="b"), append(b"2", tail=1, token=2**53 - 1))
    refused: list[Write] = [
        claim(seen=2**53 - 1, owner="c"),
        append(b"x", tail=2, token=2**53),
        delete(token=2**53),
        release(owner="b", token=2**53),
    ]
    assert await kinds(log, *refused) == [StaleToken] * 4
    assert await log.head("s") == head(tail=2, token=2**53 - 1, owner="b")


async def test_an_owners_sessions_are_found_by_the_records_they_hold(log: EventLog) -> None:
    holding = {"a": ["open"], "b": ["queued"], "c": ["other"], "d": ["open", "queued"], "e": [], "f": ["open"]}
    for name, keys in holding.items():
        await store(log, create(of=name, records=dict.fromkeys(keys, b"1"), owner="n1"))
    await store(log, create(of="g", records={"open": b"1"}, owner="n2"), create(of="h", records={"open": b"1"}))
    await store(log, delete("f"))

    async def owned(owner: str, **asked: Any) -> list[str]:
        return await log.owned(owner, having=["open", "queued"], **asked)

    assert await owned("n1") == ["a", "b", "d"]
    assert await owned("n1", limit=2) == ["a", "b"]
    assert await owned("n1", after="b", limit=2) == ["d"]
    assert await owned("n2") == ["g"]
    assert await owned("") == ["h"]
    assert await owned("nobody") == []
    assert await log.owned("n1", having=["queued"]) == ["b", "d"]
    await store(
        log, claim("a", seen=1, owner="n2"), release("b", owner="n1", token=1), append(to="d", records={"open": None})
    )
    assert await owned("n1") == ["d"]
    assert await owned("n2") == ["a", "g"]
    assert await owned("") == ["b", "h"]
    with pytest.raises(ValueError, match="plain"):
        await log.owned("n1", having=["open", "message/1"])


async def test_reads_show_what_was_replaced_and_pass_over_what_was_removed(log: EventLog) -> None:
    await store(log, create(*(b"%d" % number for number in range(1, 11))))
    await store(log, compact(replace={8: b"whole"}, remove=[7, 6, 5, 3]))
    assert await entries(log, page=2) == [
        Entry(1, b"1"),
        Entry(2, b"2"),
        Entry(4, b"4"),
        Entry(8, b"whole"),
        Entry(9, b"9"),
        Entry(10, b"10"),
    ]
    assert await log.read("s", "e1", after=4, limit=1, max_bytes=1) == [Entry(8, b"whole")]
    assert await log.read("s", "e1", after=6, limit=2, max_bytes=99) == [Entry(8, b"whole"), Entry(9, b"9")]
    assert await log.read("s", "e1", after=2, limit=9, max_bytes=6) == [Entry(4, b"4"), Entry(8, b"whole")]


async def test_compacting_moves_neither_tail_nor_token(log: EventLog) -> None:
    await store(log, create(b"1", b"2", b"3", token=4))
    await store(log, compact(replace={2: b"x"}, remove=[3, 1]))
    assert await log.head("s") == head(tail=3, token=4)
    assert await kinds(log, append(b"x", tail=2, token=4), append(b"x", tail=3, token=3)) == [StaleEpoch, StaleToken]
    await store(log, append(b"4", tail=3, token=4))
    assert await entries(log) == [Entry(2, b"x"), Entry(4, b"4")]
    assert await log.heads() == [head(tail=4, token=4)]


async def test_compacting_what_is_not_there_changes_nothing(log: EventLog) -> None:
    await store(log, create(b"1", b"2", b"3"))
    write = compact(replace={2: b"x", 9: b"never"}, remove=[1, 7])
    await store(log, write)
    await store(log, write, compact())
    assert await entries(log) == [Entry(2, b"x"), Entry(3, b"3")]
    assert await log.head("s") == head(tail=3)
    await store(log, compact(remove=[3]), compact(replace={1: b"again", 3: b"again"}))
    assert await entries(log) == [Entry(2, b"x")]


async def test_records_change_with_a_compaction_or_not_at_all(log: EventLog) -> None:
    await store(log, create(b"1", b"2", records={"dirty": b"d", "kept": b"k"}))
    refused = compact(epoch="e2", remove=[1], records={"done": b"x", "kept": None}, forget={"dirty": b"d"})
    assert await kinds(log, refused) == [StaleEpoch]
    assert await log.records("s", "e1") == {"dirty": b"d", "kept": b"k"}
    await store(log, compact(remove=[1], records={"done": b"2", "kept": None}, forget={"dirty": b"d"}))
    assert await log.records("s", "e1") == {"done": b"2"}
    assert await entries(log) == [Entry(2, b"2")]
    assert await log.holders("dirty") == []


async def test_a_record_that_was_set_anew_is_not_forgotten(log: EventLog) -> None:
    await store(log, create(b"1", records={"dirty": b"1", "other": b"1"}))
    await store(log, append(tail=1, records={"dirty": b"2"}))
    await store(log, compact(forget={"dirty": b"1", "other": b"1", "absent": b"1"}))
    assert await log.records("s", "e1") == {"dirty": b"2"}
    assert await log.holders("dirty") == [("s", b"2")]


async def test_nothing_is_compacted_of_a_life_that_is_over(log: EventLog) -> None:
    await store(log, create(b"1"), delete(), create(b"2", epoch="e2"), create(b"1", of="gone"), delete("gone"))
    assert await kinds(log, compact(remove=[1]), compact("gone", remove=[1]), compact("nobody")) == [StaleEpoch] * 3
    assert await bodies(log, epoch="e2") == [b"2"]
    assert await log.head("nobody") is None


async def test_a_compaction_comes_after_the_writes_that_were_handed_over_before_it(log: EventLog) -> None:
    await store(
        log,
        create(b"1", b"2", records={"r": b"1"}),
        compact(replace={3: b"x"}, remove=[1], records={"r": b"2"}),
        append(b"3", tail=2),
    )
    assert await log.record("s", "e1", "r") == b"2"
    assert [entry.offset for entry in await entries(log)] == [2, 3]


async def test_appends_and_compactions_of_a_session_do_not_hinder_each_other(log: EventLog) -> None:
    await store(log, create(b"0"))
    writes: list[Write] = []
    for tail in range(1, 101):
        writes += [append(b"%d" % tail, tail=tail), compact(remove=[tail - 1])]
    await store(log, *writes)
    assert [entry.offset for entry in await entries(log)] == [100, 101]
    assert await log.head("s") == head(tail=101)


async def carry_out_one_that_leaves_the_last_of(count: int, log: EventLog) -> None:
    await store(log, create(*[b"x"] * count))
    await store(log, compact(replace={count: b"y"}, remove=range(count - 1, 0, -1)))
    assert await entries(log) == [Entry(count, b"y")]


@pytest.mark.usefixtures("narrow")
async def test_a_compaction_larger_than_one_statement_is_carried_out_whole(log: EventLog) -> None:
    await carry_out_one_that_leaves_the_last_of(1000, log)


@pytest.mark.long
async def test_a_compaction_as_large_as_any_statement_is_carried_out_whole(log: EventLog) -> None:
    await carry_out_one_that_leaves_the_last_of(40_000, log)


async def test_a_page_holds_no_more_than_its_limit(log: EventLog) -> None:
    await store(log, create(*(b"%d" % number for number in range(1, 11))))
    page = await log.read("s", "e1", after=3, limit=4, max_bytes=1000)
    assert page == [Entry(number, b"%d" % number) for number in range(4, 8)]
    assert await log.read("s", "e1", after=9, limit=4, max_bytes=1000) == [Entry(10, b"10")]
    assert await log.read("s", "e1", after=10, limit=4, max_bytes=1000) == []
    assert await log.read("s", "e1", after=99, limit=4, max_bytes=1000) == []


async def test_a_page_holds_no_more_bytes_than_asked_for_past_its_first_event(log: EventLog) -> None:
    await store(log, create(b"a" * 100, b"b" * 10, b"c" * 10, b"d" * 10, b"e"))

    async def page(after: int, max_bytes: int) -> list[int]:
        return [entry.offset for entry in await log.read("s", "e1", after=after, limit=100, max_bytes=max_bytes)]

    assert await page(0, 1) == [1]
    assert await page(0, 109) == [1]
    assert await page(0, 110) == [1, 2]
    assert await page(1, 20) == [2, 3]
    assert await page(1, 30) == [2, 3, 4]
    assert await page(1, 31) == [2, 3, 4, 5]


async def test_holders_are_the_living_sessions_with_the_record(log: EventLog) -> None:
    for name in ("d", "b", "a", "c", "e"):
        await store(log, create(of=name, records={"open": name.encode(), "session": b"1", "message/1": b"2"}))
    await store(log, append(to="c", records={"open": None}), delete("d"), append(to="b", records={"open": b"new"}))
    assert await log.holders("open") == [("a", b"a"), ("b", b"new"), ("e", b"e")]
    assert await log.holders("open", limit=2) == [("a", b"a"), ("b", b"new")]
    assert await log.holders("open", after="b", limit=2) == [("e", b"e")]
    assert await log.holders("nothing") == []
    with pytest.raises(ValueError, match="plain"):
        await log.holders("message/1")


async def test_heads_are_the_living_sessions_in_order(log: EventLog) -> None:
    await store(log, *(create(b"x", of=name) for name in ("d", "b", "a", "c")), delete("b"))
    assert await log.heads() == [head("a", tail=1), head("c", tail=1), head("d", tail=1)]
    assert await log.heads(limit=2) == [head("a", tail=1), head("c", tail=1)]
    assert await log.heads(after="c") == [head("d", tail=1)]
    await store(log, create(of="b", epoch="e2"))
    assert await log.heads(after="a", limit=1) == [head("b", epoch="e2")]


async def ranked(log: EventLog, **asked: Any) -> list[str]:
    """The ids, in order; each has the summary that `create` gave it."""
    heads = await log.ranked(**asked)
    assert all(head.summary is not None and head.summary.body == head.session_id.encode() for head in heads)
    return [head.session_id for head in heads]


async def test_the_highest_rank_comes_first_and_of_one_rank_the_lowest_id(log: EventLog) -> None:
    for name, rank in (("b", 5), ("d", 7), ("a", 5), ("c", 5), ("e", -1)):
        await store(log, create(b"x", of=name, rank=rank))
    await store(log, create(b"x", of="untold"))
    assert await ranked(log) == ["d", "a", "b", "c", "e"]
    assert await log.ranked(limit=1) == [head("d", tail=1, summary=Summary(7, b"d"))]
    assert await log.head("untold") == head("untold", tail=1)


async def test_pages_by_rank_go_on_behind_the_last_one(log: EventLog) -> None:
    await store(log, *(create(of=f"s{number:02}", rank=number // 4) for number in range(30)))
    whole = await ranked(log)
    seen: list[str] = []
    behind: tuple[int, str] | None = None
    while page := await log.ranked(behind=behind, limit=7):
        seen += [head.session_id for head in page]
        assert page[-1].summary is not None
        behind = (page[-1].summary.rank, page[-1].session_id)
    assert (
        seen
        == whole
        == [f"s{number:02}" for rank in range(7, -1, -1) for number in range(4 * rank, min(4 * rank + 4, 30))]
    )
    assert await ranked(log, behind=(3, "s13x"), limit=2) == ["s14", "s15"]  # a place where nobody stands
    assert await ranked(log, behind=(-100, "")) == []


@pytest.mark.parametrize("few", [True, False])
async def test_those_of_a_prefix_are_ranked_among_themselves(
    log: EventLog, few: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not few:  # as of a prefix that a good part of all sessions have
        monkeypatch.setattr("penstock.engine.log.sqlite.reading._HOW_MANY", "SELECT 1000000")
    ids = ("a", "a-", "a-1", "a-2", "a.1", "b-1", "a-~", "A-1")
    await store(log, *(create(of=name, rank=rank) for rank, name in enumerate(ids)))
    assert await ranked(log, prefix="a-") == ["a-~", "a-2", "a-1", "a-"]
    assert await ranked(log, prefix="a-", behind=(6, "a-~"), limit=2) == ["a-2", "a-1"]
    assert await ranked(log, prefix="a-1") == ["a-1"]
    assert await ranked(log, prefix="c") == []


async def test_a_summary_stays_until_the_next_and_changes_with_the_events_or_not_at_all(log: EventLog) -> None:
    await store(log, create(b"1", of="s", rank=3), create(b"1", of="t", rank=4))
    await store(log, append(b"2", tail=1), append(tail=2, records={"open": b"g"}), append(tail=2, token=2))
    assert await log.head("s") == head(tail=2, token=2, summary=Summary(3, b"s"))
    refused = append(b"x", tail=9, token=2, summary=Summary(9, b"no"))
    assert await kinds(log, refused, append(b"3", tail=2, token=2, summary=Summary(5, b"s"))) == [StaleEpoch, None]
    assert await ranked(log) == ["s", "t"]
    await store(log, append(b"4", tail=3, token=2, summary=Summary(1, b"s")), compact(remove=[1, 2]))
    assert await ranked(log) == ["t", "s"]
    assert await log.heads() == [
        head("s", tail=4, token=2, summary=Summary(1, b"s")),
        head("t", tail=1, summary=Summary(4, b"t")),
    ]


async def test_within_one_commit_the_last_summary_stands(log: EventLog) -> None:
    await store(log, create(b"1", rank=1), *(append(b"x", tail=n, summary=Summary(10 - n, b"s")) for n in (1, 2, 3)))
    assert await log.head("s") == head(tail=4, summary=Summary(7, b"s"))
    assert await ranked(log) == ["s"]


async def test_a_life_that_is_over_is_ranked_no_more_and_the_next_has_none_of_its_summary(log: EventLog) -> None:
    await store(log, create(b"1", rank=1), create(b"1", of="t", rank=2), delete())
    assert await ranked(log) == ["t"]
    assert await log.head("s") == head(tail=1, deleted=True)
    await store(log, create(b"1", epoch="e2"))
    assert await ranked(log) == ["t"]
    assert await log.head("s") == head(epoch="e2", tail=1)
    await store(log, delete(epoch="e2"), create(b"1", epoch="e3", rank=9))
    assert await ranked(log) == ["s", "t"]
    await store(log, delete(epoch="e3"), create(b"1", epoch="e4", rank=0), delete("t"))
    assert await log.ranked() == [head(epoch="e4", tail=1, summary=Summary(0, b"s"))]


async def test_of_many_sessions_those_that_live_are_found_at_once(log: EventLog) -> None:
    await store(log, *(create(b"x", of=name, rank=1) for name in ("a", "b", "c")), delete("b"), create(b"y", of="d"))
    assert await log.living(["d", "b", "nobody", "a"]) == {
        "d": head("d", tail=1),
        "a": head("a", tail=1, summary=Summary(1, b"a")),
    }
    await store(log, create(b"new", of="b", epoch="e2"))
    assert await log.living(["b"]) == {"b": head("b", epoch="e2", tail=1)}
    assert await log.living([]) == {}


async def test_a_record_of_many_lives_is_read_at_once(log: EventLog) -> None:
    for name in ("a", "b", "c", "d"):
        await store(log, create(of=name, records={} if name == "c" else {"m": name.encode() * 10}))
    await store(log, delete("b"))

    async def each(*names: str, epoch: str = "e1", max_bytes: float = 1000) -> list[object]:
        found = await log.each_record("m", [(name, epoch) for name in names], max_bytes=max_bytes)
        return [type(value) if isinstance(value, Exception) else value for value in found]

    assert await each("d", "b", "c", "a", "nobody") == [b"d" * 10, StaleEpoch, None, b"a" * 10, StaleEpoch]
    assert await each("a", epoch="e2") == [StaleEpoch]
    assert await each() == []
    assert await each("a", "c", "d", max_bytes=19) == [b"a" * 10, None]
    assert await each("a", "d", max_bytes=20) == [b"a" * 10, b"d" * 10]
    assert await each("a", "d", max_bytes=1) == [b"a" * 10]


async def test_statistics_count_what_was_stored(log: EventLog) -> None:
    assert log.statistics().commits == 0
    log.submit(create(b"1", b"2"), lambda _: None)
    assert log.statistics().waiting == 1
    await store(log, create(b"1", of="b"))
    assert await kinds(log, append(b"x", tail=9)) == [StaleEpoch]
    statistics = log.statistics()
    assert statistics.events == 3
    assert 1 <= statistics.commits <= 2
    assert statistics.waiting == 0
    assert statistics.failed_writes == 0


async def test_close_carries_out_what_was_handed_over(log: EventLog) -> None:
    reports: list[PenstockError | None] = []
    for number in range(5):
        log.submit(append(b"x", tail=number, create=number == 0), reports.append)
        log.submit(compact(remove=[number]), reports.append)
    await log.aclose()
    assert reports == [None] * 10


async def test_a_cancelled_close_closes_all_the_same(log: EventLog) -> None:
    reports: list[PenstockError | None] = []
    log.submit(create(b"1"), reports.append)
    with trio.CancelScope() as scope:
        scope.cancel()
        await log.aclose()
    assert scope.cancelled_caught
    assert reports == [None]


async def test_a_closed_log_fails_writes_and_reads(log: EventLog) -> None:
    await store(log, create(b"1"))
    await log.aclose()
    await log.aclose()
    (error,) = await outcomes(log, append(b"2", tail=1))
    assert isinstance(error, WriteFailed)
    assert error.whole
    assert log.statistics().failed_writes == 1
    for reading in (log.head("s"), log.heads(), log.ranked(), log.records("s", "e1"), log.holders("open")):
        with pytest.raises(StorageError):
            await reading
