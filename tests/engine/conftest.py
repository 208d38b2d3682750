"""Logs that are checked when the test is over: whatever a test makes the engine write must keep the rules."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from penstock.engine import MemoryLog
from tests.engine.rules import assert_rules


@pytest.fixture
async def log() -> AsyncIterator[MemoryLog]:
    """A log in memory; when the test is over, it must keep the rules."""
    made = MemoryLog()
    yield made
    await assert_rules(made, closed=False)
