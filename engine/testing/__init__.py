"""For tests of engines, adapters and applications: the rules of every log and every delivery, checked.

Nothing here knows how the engine keeps the rules; that is the point of it.

- `log_rules` with `end_rules`: R1 to R5, R9 and C on one session's log (`check_log`, `assert_log`, `LogCheck`)
- `stored`: the same on a session as it is stored, page by page (`check_session`)
- `delivery_rules`: R6 to R8 on what subscribers got (`check_deliveries`)
"""

from __future__ import annotations

from .delivery_rules import Received, Recording, check_deliveries
from .log_rules import LogCheck, assert_log, check_log
from .stored import StoredSession, check_session
from .violation import Rule, Violation

__all__ = [
    "LogCheck",
    "Received",
    "Recording",
    "Rule",
    "StoredSession",
    "Violation",
    "assert_log",
    "check_deliveries",
    "check_log",
    "check_session",
]
