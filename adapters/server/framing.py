"""Where a request begins and ends in the bytes of a connection: as RFC 9112 writes it, and not otherwise.

h11 forgives much that was met in the wild: a line that ends with LF alone, one that goes on in the next, control
characters, two lengths. What stands in front of a server may read such bytes in another way, and then what it let pass
as a body is a request here. So what the grammar does not have is refused, before h11 gets it.

The rules for chunks are held here, too, as far as they are about where lines end. All errors are raised by
`StrictConnection.next_event`; behind one of them nothing on the connection can be trusted.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias, final

import h11

from penstock.engine import InvalidBody

from ..problems import BodyTooLarge

__all__ = ["StrictConnection"]

_Event: TypeAlias = h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]

# Empty lines before a request are left out: clients of old send one behind a body (RFC 9112, 2.2).
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)*")

# Where whoever is the most forgiving sees the end of a head: it is looked at there, and refused if it is not CRLF CRLF.
_END: Final = re.compile(rb"\n\r{0,2}\n")

# All but the horizontal tab, and the ends of lines, which are looked at by themselves.
_CONTROLS: Final = bytes({*range(0x20), 0x7F} - set(b"\t\r\n"))

# The size, of 64 bits at most, and extensions, which mean nothing here (RFC 9112, 7.1).
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(;[\t\x20-\x7e\x80-\xff]*)?\r\n")

# Behind the data of each.
_FOOTER: Final = b"\r\n"

# No line for one chunk is longer: an extension is a few words, such as a signature.
_CHUNK_LINE_BYTES: Final = 512


def _check_lines(text: bytes) -> None:
    """Raises `InvalidBody` unless these are lines of a head, or of a trailer."""
    lines = text.count(b"\r\n")
    if text.count(b"\n") != lines or text.count(b"\r") != lines:
        raise InvalidBody("the lines of a request's head end with CRLF, and nothing else is CR or LF")
    if b"\n " in text or b"\n\t" in text:
        raise InvalidBody("a line of a request's head does not go on in the next")
    if len(text.translate(None, _CONTROLS)) != len(text):
        raise InvalidBody("there is a control character in the request's head")


@final
class StrictConnection(h11.Connection):
    """A server's side of h11, whose requests are in the bytes as the grammar has them.

    A head, with the line that ends it, takes ``head_bytes`` at most, however it arrives; so do all extensions and
    trailers of one body together. ``request`` is the head that was read last.
    """

    request: h11.Request | None = None

    def __init__(self, head_bytes: int) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=head_bytes)
        self._head_bytes = head_bytes
        self._ahead = b""  # of a request whose head is not complete
        self._ended = False  # nothing comes behind that
        self._searched = 0  # how much of that has been looked through for the end
        self._line_next = False  # what comes next in the body is the line of a chunk
        self._footer = 0  # the bytes that end the chunk before it
        self._spent = 0  # on extensions

    @property
    def trailing_data(self) -> tuple[bytes, bool]:
        return self._ahead + super().trailing_data[0], self._ended

    def receive_data(self, data: bytes) -> None:
        if not data:
            self._ended = True
            if not self._ahead:
                super().receive_data(data)
        elif self.their_state is h11.IDLE:
            self._ahead += data
        elif self.their_state is not h11.MUST_CLOSE:  # behind its last request a client has nothing to say
            super().receive_data(data)

    def next_event(self) -> _Event:
        """h11's, and beside its errors `InvalidBody` and `BodyTooLarge` for what h11 would have let pass."""
        state = self.their_state
        if state is h11.MUST_CLOSE:
            return h11.NEED_DATA  # h11 would find fault with what came behind, and the answer is still to be sent
        if state is h11.IDLE and self._ahead:
            if not self._head_is_there():
                return h11.NEED_DATA
            whole, self._ahead, self._searched = self._ahead, b"", 0
            super().receive_data(whole)
            if self._ended:
                super().receive_data(b"")
        elif state is h11.SEND_BODY and self._line_next:
            if not self._chunk_line_is_there():
                return h11.NEED_DATA
            self._line_next = False
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.request = event
            self._begin_body(event)
        elif isinstance(event, h11.Data) and event.chunk_end:
            self._line_next, self._footer = True, 2
        return event

    def start_next_cycle(self) -> None:
        behind, _ = super().trailing_data
        super().start_next_cycle()
        if behind:
            # What h11 was given it keeps, and the next head is to be looked at first. Between two requests it knows
            # nothing of the first one, so it may as well begin anew.
            super().__init__(h11.SERVER, max_incomplete_event_size=self._head_bytes)
            self._ahead = behind

    def _head_is_there(self) -> bool:
        """Whether the head can be read. Raises as `next_event`."""
        empty = _EMPTY_LINES.match(self._ahead)
        if empty is not None and empty.end():
            self._ahead, self._searched = self._ahead[empty.end() :], 0
        found = _END.search(self._ahead, self._searched)
        size = len(self._ahead) if found is None else found.end()
        if size > self._head_bytes:
            raise BodyTooLarge(f"a request's head is at most {self._head_bytes} bytes")
        if found is not None:
            _check_lines(self._ahead[:size])
            return True
        if self._ahead and self._ahead[0] <= 0x20 and self._ahead != b"\r":
            raise InvalidBody("this is not HTTP/1.1")  # TLS, perhaps; more of it will not be better
        self._searched = max(0, len(self._ahead) - 3)  # of an end that has begun
        return self._ended  # at the end of all bytes it is h11 that says what is missing

    def _begin_body(self, request: h11.Request) -> None:
        names = [name for name, _ in request.headers if name in (b"content-length", b"transfer-encoding")]
        self._line_next = b"transfer-encoding" in names
        self._footer = self._spent = 0
        if self._line_next and (len(names) > 1 or request.http_version < b"1.1"):  # RFC 9112, 6.1
            raise InvalidBody("a body has a Content-Length or, from HTTP/1.1 on, a Transfer-Encoding, never both")

    def _chunk_line_is_there(self) -> bool:
        """Whether the next chunk's line can be read; of the last chunk also what follows it. Raises as `next_event`."""
        waiting, _ = super().trailing_data
        begin = self._footer
        if len(waiting) < begin:
            return self._ended
        if waiting[:begin] != _FOOTER[:begin]:
            return True  # h11 says so
        end = waiting.find(b"\n", begin) + 1
        if (end or len(waiting)) - begin > _CHUNK_LINE_BYTES:
            raise InvalidBody(f"the line of a chunk is at most {_CHUNK_LINE_BYTES} bytes")
        if not end:
            return self._ended
        line = _CHUNK_LINE.fullmatch(waiting, begin, end)
        if line is None:
            raise InvalidBody("the line of a chunk is its size in hexadecimal digits, and ends with CRLF")
        size, extensions = line.groups(b"")
        spent = self._spent + len(extensions)
        if not int(size, 16):
            found = _END.search(waiting, end - 1)
            spent += (len(waiting) if found is None else found.end()) - end
            if found is not None:
                _check_lines(waiting[end : found.end()])
            elif spent <= self._head_bytes:
                return self._ended
        if spent > self._head_bytes:
            raise BodyTooLarge(f"what a body carries beside its data is at most {self._head_bytes} bytes")
        self._spent = spent
        return True
