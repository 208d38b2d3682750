"""For tests of engines, adapters and applications: the rules of every log and every delivery, checked.

Nothing here knows how the engine keeps the rules; that is the point of it.

- `log_rules` with `end_rules`: R1 to R5, R9 and C on one session's log (`check_log`, `assert_log`, `LogCheck`)
- `stored`: the same on a session as it is stored, page by page (`check_session`)
- `delivery_rules`: R6 to R8 on what subscribers got (`check_deliveries`)
- `running`, `kept`: an engine in memory that is held against all of these when it is left (`open_test_engine`,
  `check_kept`); R10, where engines share a log
- `acknowledged`: R11, for what was acknowledged and who remembers it (`check_acknowledged`)
- `scripted`, `stubborn`: producers that do what a test says, and that do not do what they are told
"""

from __future__ import annotations

from .acknowledged import check_acknowledged
from .delivery_rules import Received, Recording, check_deliveries
from .kept import KeptLog
from .log_rules import LogCheck, assert_log, check_log
from .running import EngineUnderTest, Watcher, check_kept, open_test_engine
from .scripted import ScriptedProducer, ScriptedRun
from .stored import StoredSession, check_session
from .stubborn import StubbornProducer
from .violation import Rule, Violation

__all__ = [
    "EngineUnderTest",
    "KeptLog",
    "LogCheck",
    "Received",
    "Recording",
    "Rule",
    "ScriptedProducer",
    "ScriptedRun",
    "StoredSession",
    "StubbornProducer",
    "Violation",
    "Watcher",
    "assert_log",
    "check_acknowledged",
    "check_deliveries",
    "check_kept",
    "check_log",
    "check_session",
    "open_test_engine",
]
