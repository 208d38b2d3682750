"""What holds for every test."""

from __future__ import annotations

import sys

import pytest
from hypothesis import settings

# No deadline per example: a busy machine is no bug, and pytest's own limit catches what hangs.
settings.register_profile("penstock", deadline=None)
settings.load_profile("penstock")


def pytest_collection_finish(session: pytest.Session) -> None:
    """The folders have the names that an installation gives them: a second copy would have classes of its own."""
    twice = {"engine", "adapters"} & sys.modules.keys()
    if twice:
        raise pytest.UsageError(f"{', '.join(sorted(twice))} is imported beside penstock.engine")
