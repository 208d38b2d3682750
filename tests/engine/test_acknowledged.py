"""R11: what was acknowledged and is not there any more is found."""

from __future__ import annotations

from penstock.engine import MemoryLog
from penstock.engine.log import Entry
from penstock.engine.testing import check_acknowledged
from tests.engine.writes import compact, create, delete, store


async def test_what_was_acknowledged_and_is_not_there_is_found() -> None:
    log = MemoryLog()
    await store(log, create(b"1", b"2", of="a"), create(b"1", of="b"), create(b"1", of="c", epoch="e2"), delete("b"))
    ledger = {
        ("a", "e1"): [Entry(1, b"1"), Entry(2, b"2")],
        ("b", "e1"): [Entry(1, b"1"), Entry(2, b"of a life that is over")],
        ("c", "e1"): [Entry(1, b"of a life that another has followed")],
    }
    assert await check_acknowledged(ledger, log) == []
    ledger["a", "e1"] += [Entry(3, b"3")]
    ledger["none", "e1"] = []
    found = await check_acknowledged(ledger, log)
    assert [(each.rule, each.offset) for each in found] == [("R11", 3), ("R11", None)]
    await store(log, compact("a", remove=[1], replace={2: b"whole"}))
    assert [each.offset for each in await check_acknowledged(ledger, log)] == [1, 2, 3, None]
    assert [each.offset for each in await check_acknowledged(ledger, log, compacted=True)] == [3, None]
