"""The walks through the code in engine/README.md: the files are there, and about as long as it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

ENGINE: Final = Path(__file__).parents[1] / "engine"
ROW: Final = re.compile(r"^\| \[`([\w/]+\.py)`\]\(([\w/]+\.py)\) \| (\d+) \|", re.MULTILINE)


def test_the_files_on_the_way_are_as_long_as_the_readme_says_within_a_tenth() -> None:
    rows = ROW.findall((ENGINE / "README.md").read_text())
    assert len(rows) > 15
    for named, linked, said in rows:
        assert named == linked
        lines = len((ENGINE / named).read_text().splitlines())
        assert abs(lines - int(said)) <= lines / 10, f"{named} has {lines} lines, not {said}"


def test_what_is_to_be_read_first_says_enough() -> None:
    """The four modules that explain how the engine works, 40 lines or more each."""
    for name in ("stream/journal.py", "session/core.py", "stream/subscription.py", "rules/lifecycle.py"):
        text = (ENGINE / name).read_text()
        assert 40 <= text[: text.index('"""', 3)].count("\n") <= 80, name


def test_the_size_of_the_code_can_be_asked_for() -> None:
    child = subprocess.run([sys.executable, "-m", "tests.size"], cwd=ENGINE.parent, capture_output=True, check=True)
    told = dict(re.findall(r"^(\S.*?) {2,}(.+)$", child.stdout.decode(), re.MULTILINE))
    assert int(told["arrows between them"]) <= 98
    functions, lines, _ = map(int, told["one delta on its way: functions, lines, modules"].split(", "))
    assert 20 < functions < lines < 1000
