"""How far a run of the tests goes.

``pytest`` runs every test but the long ones. ``pytest --long`` runs these instead, and once more the properties and
what is marked ``further``, over more cases. Both together hold what the tests promise; neither runs the other's part.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final, TypeVar
from zlib import crc32

import pytest
from hypothesis import HealthCheck, settings

__all__ = ["add_option", "examples", "is_left_out", "is_long", "select", "set_up", "some"]

T = TypeVar("T")

# Of 100 examples of a property a run without ``--long`` has so many.
_SHARE: Final = 20

# Of so many other cases it takes one.
_STEP: Final = 10

_LONG: Final = [False]  # until the options are known


def add_option(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long",
        action="store_true",
        help="the long tests instead of the others: campaigns, each benchmark once, properties over all their examples",
    )


def set_up(config: pytest.Config) -> None:
    """Before any test is collected."""
    _LONG[:] = [bool(config.getoption("--long"))]
    # No deadline for an example or for making one: a busy machine is no bug, and pytest's own limit catches what hangs.
    settings.register_profile(
        "penstock", deadline=None, max_examples=examples(100), suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("penstock")


def is_long() -> bool:
    """Whether this is a long run."""
    return _LONG[0]


def examples(count: int) -> int:
    """So many examples, or other cases, in a long run; else a part of them."""
    return count if is_long() else max(1, count * _SHARE // 100)


def some(cases: Iterable[T], beside: object) -> list[T]:
    """All of them in a long run; else every tenth, and one at least.

    It begins where ``beside`` says, by its repr: tests that stand beside each other take different ones, and together
    they take all.
    """
    whole = list(cases)
    if is_long() or not whole:
        return whole
    begin = crc32(repr(beside).encode()) % _STEP
    return whole[begin::_STEP] or [whole[begin % len(whole)]]


def is_left_out(path: Path) -> bool:
    """Whether the file has tests of the other run only: it need not be imported, which may take seconds."""
    return not is_long() and path.suffix == ".py" and "\npytestmark = pytest.mark.long\n" in path.read_text()


def select(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep those that this run is for."""
    left_out = [item for item in items if not _wanted(item)]
    if left_out:
        items[:] = [item for item in items if _wanted(item)]
        config.hook.pytest_deselected(items=left_out)


def _wanted(item: pytest.Item) -> bool:
    if item.get_closest_marker("long") is not None:
        return is_long()
    if not is_long():
        return True
    explores = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
    return bool(explores) or item.get_closest_marker("further") is not None
