"""The map from requirements to tests is whole, and names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
ROWS = re.findall(r"^\| R-(\d+) \| ?(.*?) ?\|$", (TESTS / "requirements.md").read_text(), re.MULTILINE)


def functions_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_line_has_its_row_in_order() -> None:
    assert [int(number) for number, _ in ROWS] == list(range(1, 159))


def test_every_test_that_is_named_exists() -> None:
    named = {name for _, held in ROWS for name in re.findall(r"`(\S+?::\w+)`", held)}
    known = {f"{path.relative_to(TESTS)}::{name}" for path in TESTS.rglob("test_*.py") for name in functions_in(path)}
    assert named - known == set()
