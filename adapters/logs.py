"""How the process's log looks: as text for people, or as one JSON object a line for machines.

Owns the two forms. What is logged, under which names, is told where it happens: a record's fields (its ``extra``)
follow the message in either form, and so does the id of the request that it was written for.
"""

from __future__ import annotations

import json
import logging
import re
from typing import Final, Literal, final

from pythonjsonlogger.json import JsonFormatter

from engine import request_id

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


def log_handler(form: LogFormat) -> logging.Handler:
    """A handler that writes to the standard error."""
    handler = logging.StreamHandler()
    handler.addFilter(_Requests())
    handler.setFormatter(
        _Text()
        if form == "text"
        else JsonFormatter(
            "%(levelname)s %(name)s %(message)s",
            rename_fields={"levelname": "level", "name": "logger"},
            timestamp="time",
            reserved_attrs=sorted(_STANDARD),
        )
    )
    return handler
