"""The shared vectors are what the engine's fold says, at every cut. `e2e/test_fold.py` holds penstock.js to them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.vectors.make import CASES, FOLDER, Log, vector, written


#
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_vectors_are_what_the_engine_says(case: Callable[[Log], None]) -> None:
    stored = (FOLDER / f"{case.__name__}.json").read_text(encoding="utf-8")
    assert written(vector(case)) == stored, "see what has changed, then: python -m tests.vectors.make"


def test_every_vector_has_its_case() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == {case.__name__ for case in CASES}
