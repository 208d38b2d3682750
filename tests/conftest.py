"""What holds for every test."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Literal

import pytest

from tests import checkout, extent


def pytest_addoption(parser: pytest.Parser) -> None:
    extent.add_option(parser)


def pytest_configure(config: pytest.Config) -> None:
    extent.set_up(config)
    checkout.pass_on()


def pytest_xdist_auto_num_workers() -> int:
    """Two processes more than there are cores: many tests wait for other processes, or for a second to pass."""
    return len(os.sched_getaffinity(0)) + 2


def pytest_ignore_collect(collection_path: Path) -> Literal[True] | None:
    return True if extent.is_left_out(collection_path) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    extent.select(config, items)
    # What waits for other processes begins at once: on one of ours, beside what only computes on the others.
    items.sort(key=lambda item: "e2e" not in item.path.parts)


def pytest_collection_finish(session: pytest.Session) -> None:
    """The folders have the names that an installation gives them: a second copy would have classes of its own."""
    twice = {"engine", "adapters"} & sys.modules.keys()
    if twice:
        raise pytest.UsageError(f"{', '.join(sorted(twice))} is imported beside penstock.engine")
    gc.freeze()  # all that was imported and collected stays: no collection during a test has to look at it again
