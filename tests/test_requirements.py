"""The map from requirements to tests is whole, and names tests that exist."""

from __future__ import annotations

import ast
import re
from itertools import takewhile
from pathlib import Path

TESTS = Path(__file__).parent
ROWS = re.findall(r"^\| R-(\d+) \| ?(.*?) ?\|$", (TESTS / "requirements.md").read_text(), re.MULTILINE)


def functions_in(path: Path) -> dict[str, set[int]]:
    """The functions of a file, each with the lines that it names: above it, or beside its signature."""
    source = path.read_text()
    lines = source.splitlines()
    found: dict[str, set[int]] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)]) - 1
            above = list(takewhile(lambda line: line.startswith("#"), reversed(lines[:first])))
            comments = [line.partition("#")[2] for line in [*above, *lines[first : node.body[0].lineno - 1]]]
            found[node.name] = {int(number) for comment in comments for number in re.findall(r"R-(\d+)", comment)}
    return found


def test_every_line_has_its_row_in_order() -> None:
    assert [int(number) for number, _ in ROWS] == list(range(1, 159))


def test_every_row_names_the_tests_that_name_it_and_no_others() -> None:
    rows = {(int(number), name) for number, held in ROWS for name in re.findall(r"`(\S+?::\w+)`", held)}
    tags = {
        (number, f"{path.relative_to(TESTS)}::{name}")
        for path in TESTS.rglob("test_*.py")
        for name, numbers in functions_in(path).items()
        for number in numbers
    }
    assert rows - tags == set(), "named in a row, and the test does not name the line"
    assert tags - rows == set(), "named at a test, and the row does not name the test"
