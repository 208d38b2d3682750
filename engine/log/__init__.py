"""Event logs: the port, and the logs that come with the engine."""

from __future__ import annotations

from .memory import MemoryLog
from .opening import open_log
from .port import (
    Append,
    Claim,
    Compact,
    Delete,
    Entry,
    EventLog,
    Head,
    Keep,
    LogStatistics,
    Release,
    Report,
    Summary,
    Write,
)
from .rebasing import rebase_log
from .sqlite.backup import CopyProgress, back_up, restore
from .sqlite.log import SqliteLog, open_sqlite
from .sqlite.reader import FileState, SqliteReader, open_sqlite_reader

__all__ = [
    "Append",
    "Claim",
    "Compact",
    "CopyProgress",
    "Delete",
    "Entry",
    "EventLog",
    "FileState",
    "Head",
    "Keep",
    "LogStatistics",
    "MemoryLog",
    "Release",
    "Report",
    "SqliteLog",
    "SqliteReader",
    "Summary",
    "Write",
    "back_up",
    "open_log",
    "open_sqlite",
    "open_sqlite_reader",
    "rebase_log",
    "restore",
]
