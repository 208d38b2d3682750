"""Which logs of this process have an engine: one, or one of each name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ..errors import DatabaseInUse
from .port import EventLog

__all__ = ["using"]

# The logs that have an engine, by identity, with its name: without one, it believes that all sessions are its own.
_used_logs: Final[dict[tuple[int, str], object]] = {}


@contextmanager
def using(log: EventLog, owner: str) -> Iterator[None]:
    """Raises `DatabaseInUse` when an engine is open over this very log that has this name, or either has none."""
    me = object()
    if _used_logs.setdefault((id(log), owner), me) is not me:  # in one step, for engines of several threads
        raise DatabaseInUse("an engine is open over this log already: use that one, or open another log")
    try:
        if any(each == id(log) and name != owner and not (name and owner) for each, name in list(_used_logs)):
            raise DatabaseInUse("an engine is open over this log already: give each its own name, or open another log")
        yield
    finally:
        del _used_logs[id(log), owner]
