"""The table of public reports is whole: no thread is named twice, and tests that a row names exist."""

from __future__ import annotations

import re
from itertools import chain

from tests.test_requirements import TESTS, functions_in

LINES = re.findall(r"^\|(.+)\|$", (TESTS / "reports.md").read_text(), re.MULTILINE)
CELLS = [[cell.strip() for cell in line.split(" | ")] for line in LINES]
ROWS = [cells for cells in CELLS if cells[0] != "reports" and not cells[0].startswith("---")]
THREAD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+#[1-9]\d*")


def test_there_are_enough_and_each_says_all() -> None:
    assert len(ROWS) >= 42
    assert [cells[0] for cells in ROWS if len(cells) != 4 or not all(cells)] == []


def test_threads_are_written_as_such_and_none_is_named_twice() -> None:
    threads = list(chain.from_iterable(cells[0].split(", ") for cells in ROWS))
    assert [thread for thread in threads if not THREAD.fullmatch(thread)] == []
    assert sorted({thread for thread in threads if threads.count(thread) > 1}) == []


def test_each_row_names_tests_that_exist_or_is_not_held() -> None:
    held = {cells[0]: re.findall(r"`(\S+?)::(\w+)`", cells[3]) for cells in ROWS}
    without = [cells for cells in ROWS if not held[cells[0]]]
    assert [cells[0] for cells in without if cells[3] != "not held" or "**Not held**" not in cells[2]] == []
    named = set(chain.from_iterable(held.values()))
    there = {path for path, _ in named if (TESTS / path).is_file()}
    functions = {path: functions_in(TESTS / path) for path in there}
    assert sorted(f"{path}::{name}" for path, name in named if name not in functions.get(path, ())) == []
