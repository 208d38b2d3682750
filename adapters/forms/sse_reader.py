"""The form ``text/event-stream``, read: bytes in, however they are cut, and whole messages out.

Pure, after the WHATWG's rules. Lines are cut in bytes and decoded when they are whole, so that no character is torn
apart by a chunk's end; what stands behind the last blank line when a stream breaks is no message.
"""

from __future__ import annotations

import re
from typing import Final, final

from attrs import frozen

__all__ = ["EventStream", "ServerSent"]

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_BOM: Final = b"\xef\xbb\xbf"


@final
@frozen
class ServerSent:
    """One message. ``id`` is the last one told, also by a message before; ``data`` is None where there was none."""

    event: str
    data: str | None
    id: str
    retry: float | None = None


@final
class EventStream:
    """One connection's parser; ``bound`` is the most bytes that one message may have."""

    def __init__(self, bound: int) -> None:
        self._bound: Final = bound
        self._rest = bytearray()
        self._begun = False
        self._size = 0
        self._id = ""
        self._fresh_id = False
        self._event = ""
        self._data: list[str] = []
        self._retry: float | None = None

    def feed(self, chunk: bytes) -> list[ServerSent]:
        """The messages that are whole now. Raises `ValueError` for what is not UTF-8, or is too long."""
        if self._begun and not self._rest.endswith(b"\r") and b"\n" not in chunk and b"\r" not in chunk:
            self._rest += chunk  # the line goes on: nothing of it is looked at twice
            self._check_bound()
            return []
        text = bytes(self._rest) + chunk
        if not self._begun:
            if len(text) < len(_BOM) and _BOM.startswith(text):
                self._rest = bytearray(text)
                return []
            text = text.removeprefix(_BOM)
            self._begun = True
        found: list[ServerSent] = []
        start = 0
        for end in _LINE_END.finditer(text):
            if end.group() == b"\r" and end.end() == len(text):
                break  # its line feed may be still on the way
            message = self._line(text[start : end.start()])
            if message is not None:
                found.append(message)
            start = end.end()
        self._rest = bytearray(text[start:])
        self._check_bound()
        return found

    def _check_bound(self) -> None:
        if len(self._rest) + self._size > self._bound:
            raise ValueError(f"a message of the stream is longer than {self._bound} bytes")

    def _line(self, line: bytes) -> ServerSent | None:
        if not line:
            return self._dispatch()
        self._size += len(line)
        name, _, value = line.partition(b":")
        if not name:
            return None  # a comment: the heartbeat
        try:
            text = value.removeprefix(b" ").decode()
        except UnicodeDecodeError as error:
            raise ValueError("the stream is not UTF-8") from error
        match name:
            case b"data":
                self._data.append(text)
            case b"event":
                self._event = text
            case b"id" if "\0" not in text:
                self._id = text
                self._fresh_id = True
            case b"retry" if text.isascii() and text.isdigit():
                self._retry = float(text) / 1000  # infinite, where no number is that large
            case _:
                pass
        return None

    def _dispatch(self) -> ServerSent | None:
        """A blank line. A bare ``id`` tells a position too, and a bare ``retry`` a time."""
        message = None
        if self._data or self._fresh_id or self._retry is not None:
            data = "\n".join(self._data) if self._data else None
            message = ServerSent(self._event or "message", data, self._id, self._retry)
        self._event, self._data, self._retry, self._size, self._fresh_id = "", [], None, 0, False
        return message
