"""Event logs: the port, and the two logs that come with the engine."""

from __future__ import annotations

from .backup import CopyProgress, back_up, restore
from .memory import MemoryLog
from .port import Append, Compact, Delete, Entry, EventLog, Head, LogStatistics, Report, Write
from .reader import FileState, SqliteReader, open_sqlite_reader
from .sqlite import SqliteLog, open_sqlite

__all__ = [
    "Append",
    "Compact",
    "CopyProgress",
    "Delete",
    "Entry",
    "EventLog",
    "FileState",
    "Head",
    "LogStatistics",
    "MemoryLog",
    "Report",
    "SqliteLog",
    "SqliteReader",
    "Write",
    "back_up",
    "open_sqlite",
    "open_sqlite_reader",
    "restore",
]
