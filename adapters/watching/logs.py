"""How the process's log looks: as text for people, or as one JSON object a line for machines.

Owns the two forms, and that nobody waits for who reads them. What is logged, under which names, is told where it
happens: a record's fields (its ``extra``) follow the message in either form, and so does the id of the request that it
was written for.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from typing import Final, Literal, final

from pythonjsonlogger.json import JsonFormatter

from penstock.engine import request_id

from .spool import Spool
from .traffic import traffic

__all__ = ["LogFormat", "log_handler"]

LogFormat = Literal["text", "json"]

# What every record has: the rest are its fields.
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

# Repeats the message.
_REPEATED: Final = frozenset({"event"})

# What needs no quotes.
_PLAIN: Final = re.compile(r"[\w.:/+~-]+", re.ASCII)

_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F, *range(0x80, 0xA0), 0x2028, 0x2029)}


@final
class _Text(logging.Formatter):
    """``time LEVEL logger: message name=value …``: one line, but for a traceback below it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        # What a client wrote may be in there: it must not begin a line of its own.
        line = super().formatMessage(record).translate(_CONTROLS)
        fields = {name: value for name, value in vars(record).items() if name not in _STANDARD | _REPEATED}
        return " ".join([line, *(f"{name}={_shown(value)}" for name, value in fields.items() if value is not None)])


def _shown(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


@final
class _Requests(logging.Filter):
    """Adds the request's id to what is written for one."""

    def filter(self, record: logging.LogRecord) -> bool:
        if (current := request_id.get()) is not None and not hasattr(record, "request_id"):
            record.request_id = current
        return True


# What the process waits at its end for who reads its log: a moment of a pipe's or a disk's.
_FLUSH_SECONDS: Final = 1.0


@final
class _Handler(logging.Handler):
    """Hands each line to a thread that writes it. Where lines come faster than they are read, some are lost."""

    def __init__(self, form: LogFormat, descriptor: int) -> None:
        super().__init__()
        self.addFilter(_Requests())
        self.setFormatter(
            _Text()
            if form == "text"
            else JsonFormatter(
                "%(levelname)s %(name)s %(message)s",
                rename_fields={"levelname": "level", "name": "logger"},
                timestamp="time",
                reserved_attrs=sorted(_STANDARD),
            )
        )
        self._spool = Spool(descriptor, notice=self._notice, on_lost=_count)

    def emit(self, record: logging.LogRecord) -> None:
        self._spool.put(self._line(record))

    def flush(self) -> None:
        """Wait until all is written, but not for ever."""
        self._spool.flush(_FLUSH_SECONDS)

    def close(self) -> None:
        self._spool.close()
        super().close()

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return f"{self.format(record)}\n"
        except Exception:  # noqa: BLE001  # a line that cannot be made ends nothing; which one it was is told
            broken = logging.makeLogRecord(
                {
                    "name": "penstock.log",
                    "levelno": logging.ERROR,
                    "levelname": "ERROR",
                    "msg": "a line of %s, from %s:%d, cannot be written",
                    "args": (record.name, record.pathname, record.lineno),
                    "exc_info": sys.exc_info(),
                }
            )
            return f"{self.format(broken)}\n"

    def _notice(self, lost: int) -> str:
        fields = {"event": "log_lines_lost", "lost": lost}
        named = {"name": "penstock.log", "levelno": logging.WARNING, "levelname": "WARNING", "msg": "log_lines_lost"}
        return self._line(logging.makeLogRecord({**named, **fields}))


def _count(lost: int) -> None:
    traffic.log_lines_lost += lost


def log_handler(form: LogFormat, descriptor: int = 2) -> logging.Handler:
    """A handler that writes to the standard error, or to another descriptor, in a thread of its own.

    Its ``flush``, which `logging.shutdown` calls, waits for a second at most.
    """
    return _Handler(form, descriptor)
