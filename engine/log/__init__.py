"""Event logs: the port, and the two logs that come with the engine."""

from __future__ import annotations

from .memory import MemoryLog
from .port import Append, Delete, Entry, EventLog, Head, LogStatistics, Report, Write
from .sqlite import SqliteLog, open_sqlite

__all__ = [
    "Append",
    "Delete",
    "Entry",
    "EventLog",
    "Head",
    "LogStatistics",
    "MemoryLog",
    "Report",
    "SqliteLog",
    "Write",
    "open_sqlite",
]
