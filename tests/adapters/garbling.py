"""Bytes for a connection: requests that are nearly right, and what is none at all.

Each string is a request of the grammar, mutated a few times, or random bytes; several of them follow each other on one
connection, cut anywhere. A seed names all of it.
"""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Final, final

from tests.adapters.smuggling import ROWS

__all__ = ["Garbler"]

# Of the table's rows the long ones are about their length, which is one string in a thousand here.
_SHORT: Final = tuple(row.sent for row in ROWS if len(row.sent) < 1500)
_LONG: Final = tuple(row.sent for row in ROWS if len(row.sent) >= 1500)

_METHODS: Final = (
    b"GET",
    b"POST",
    b"PUT",
    b"PATCH",
    b"DELETE",
    b"HEAD",
    b"OPTIONS",
    b"TRACE",
    b"CONNECT",
    b"get",
    b"PRI",
)
_S: Final = b"/v1/sessions/demo"

# What the routes know; any method with any of them is drawn, too.
_KNOWN: Final = (
    (b"GET", b"/healthz"),
    (b"GET", b"/readyz"),
    (b"GET", b"/metrics"),
    (b"GET", b"/"),
    (b"HEAD", b"/penstock.js"),
    (b"GET", b"/v1/sessions?limit=5&after=a"),
    (b"PUT", _S),
    (b"PUT", _S),
    (b"PATCH", _S),
    (b"GET", _S + b"?limit=2"),
    (b"GET", _S + b"/events?live=false&after=now"),
    (b"POST", _S + b"/messages"),
    (b"POST", _S + b"/generations"),
    (b"POST", _S + b"/chunks"),
    (b"POST", _S + b"/chunks/batch"),
    (b"POST", _S + b"/stop"),
    (b"PUT", _S + b"/presence/a/b"),
    (b"DELETE", _S + b"/presence/a/b"),
    (b"GET", b"/v1/ws"),
    (b"POST", b"/v1/tickets"),
    (b"OPTIONS", b"*"),
    (b"GET", b"http://127.0.0.1/healthz"),
)
_HOSTS: Final = (
    b"127.0.0.1",
    b"localhost:8000",
    b"[::1]:80",
    b"xn--mnchen-3ya.localhost",
    b"a_b.localhost.",
    b"evil",
    b"",
)
_FIELDS: Final = (
    b"Content-Type: application/json",
    b"Content-Type: text/event-stream; charset=\xff",
    b"Connection: keep-alive",
    b"Connection: close",
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Upgrade: h2c",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    b"Sec-WebSocket-Protocol: penstock.v1, \xe9",
    b"Sec-WebSocket-Extensions: permessage-deflate",
    b"Origin: http://127.0.0.1",
    b"Origin: null",
    b"Expect: 100-continue",
    b"Accept: text/event-stream;q=nan, application/x-ndjson;q=1e400",
    b"Accept: */*",
    b"Authorization: Bearer \xff",
    b"Cookie: a=b; c",
    b"Range: bytes=0-99999999999999999999999",
    b"If-Modified-Since: Mon, 99 Foo 99999 00:00:00 GMT",
    b'If-None-Match: "a',
    b"Last-Event-ID: ffffffffffffffff-9999999999999999",
    b"Idempotency-Key: k",
    b"Producer-Id: p",
    b"Producer-Epoch: 0",
    b"Producer-Seq: 0",
    b"X-Request-Id: a b\xe9",
    b"X-Forwarded-For: 1.2.3.4, ::1%25x, unknown",
    b"X-Forwarded-Host: a..b",
    b"Forwarded: for=x",
    b"Max-Forwards: x",
)
_HANDSHAKE: Final = (
    b"Upgrade: websocket",
    b"Connection: Upgrade",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)
_BODIES: Final = (
    b"",
    b"{}",
    b'{"text":"x"}',
    b'{"metadata":{"a":1}}',
    b'{"generation_id":"0198c0de-7a11-7abc-8def-0123456789ab","data":{"text":"x"}}',
    b'{"chunks":[{"generation_id":"0198c0de-7a11-7abc-8def-0123456789ab","data":{"text":"x"}}]}',
    b'{"text":"\\ud800"}',
    b"[" * 200,
    b'{"a":1e999}',
    b'{"a":1,"a":2}',
    b"\xef\xbb\xbf{}",
    b"\xff\xfe",
)

# What decides where things begin and end.
_TOKENS: Final = (
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\r\n",
        b"\r\n\r\n",
        b"\n\n",
        b"\r\n ",
        b"\r\n\t",
        b"\0",
        b"\t",
        b" ",
        b"  ",
        b":",
        b": ",
    ),
    *(
        b";",
        b",",
        b"%",
        b"%2f",
        b"%00",
        b"//",
        b"/../",
        b"?",
        b"#",
        b"@",
        b"[",
        b"]",
        b"[::1]",
        b"..",
        b".",
        b"xn--",
        b"\xff",
    ),
    *(
        b"\x7f",
        b"\x80",
        b"\xc3\xa9",
        b"0",
        b"-1",
        b"+1",
        b"1_0",
        b"0x1",
        b"99999999999999999999999",
        b"\xb2",
        b"HTTP/1.1",
    ),
    *(
        b"HTTP/1.0",
        b"HTTP/2.0",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"0\r\n\r\n",
        b"5\r\nhello\r\n",
    ),
    *(
        b"Host: x\r\n",
        b"Connection: close\r\n",
        b"Expect: 100-continue\r\n",
        b"Upgrade: websocket\r\n",
        b"a" * 70,
        b"a" * 300,
    ),
)


@final
class Garbler:
    """Draws what one connection sends."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def connection(self) -> tuple[int, list[bytes]]:
        """How many strings, and the pieces that they come in together."""
        strings = [
            self.string() if self._random.random() < 0.3 else self._request() for _ in range(self._random.randrange(6))
        ]
        strings.append(self.string())  # behind what is refused nothing is read
        return len(strings), self._cut(b"".join(strings))

    def string(self) -> bytes:
        match self._random.randrange(20):
            case 0:
                return self._random.randbytes(self._random.choice((1, 3, 20, 200)))
            case 1 | 2 | 3 | 4:
                return self._garbled(self._random.choice(_SHORT))
            case 5 | 6:
                one, other = self._random.choice(_SHORT), self._random.choice(_SHORT)
                return one[: self._random.randrange(len(one) + 1)] + other[self._random.randrange(len(other) + 1) :]
            case 7 if self._random.randrange(50) == 0:
                return self._random.choice(_LONG)
            case 8 | 9 | 10 | 11:
                return self._request()
            case _:
                return self._garbled(self._request())

    def _request(self) -> bytes:
        method, target = self._random.choice(_KNOWN)
        if self._random.randrange(10) == 0:
            method = self._random.choice(_METHODS)
        version = self._random.choice((b"1.1",) * 8 + (b"1.0", b"1.2"))
        head = b"%b %b HTTP/%b\r\n" % (method, target, version)
        lines = [b"Host: " + self._random.choice((_HOSTS[0],) * 9 + _HOSTS)] if self._random.randrange(20) else []
        lines += self._random.choices(_FIELDS, k=self._random.choice((0, 0, 0, 1, 1, 3)))
        body = self._random.choice(_BODIES)
        if target == b"/v1/ws":
            lines += _HANDSHAKE
        match self._random.randrange(4):
            case 0:
                body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
                lines.append(b"Transfer-Encoding: chunked")
            case 1 | 2:
                lines.append(b"Content-Length: %d" % len(body))
            case _:
                body = b""
        return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body

    def _garbled(self, text: bytes) -> bytes:
        for _ in range(self._random.choice((1, 1, 1, 2, 3, 8))):
            text = self._mutated(text)
        return text

    def _mutated(self, text: bytes) -> bytes:
        at = self._random.randrange(len(text) + 1)
        to = min(len(text), at + self._random.choice((1, 1, 2, 5, 20)))
        match self._random.randrange(9):
            case 0:
                return text[:at] + self._random.randbytes(1) + text[to:]
            case 1:
                return text[:at] + text[to:]
            case 2:
                return text[:to] + text[at:]
            case 3:
                return text[:at]
            case 4:
                return text[:at] + text[at:to].swapcase() + text[to:]
            case 5:
                ends = [place for place in range(len(text)) if text[place : place + 2] == b"\r\n"]
                place = self._random.choice(ends) if ends else at
                return text[:place] + self._random.choice(_TOKENS) + text[place + 2 :]
            case 6:
                lines = text.split(b"\r\n")
                self._random.shuffle(lines)
                return b"\r\n".join(lines)
            case _:
                return text[:at] + self._random.choice(_TOKENS) + text[at:]

    def _cut(self, whole: bytes) -> list[bytes]:
        most = self._random.choice((0, 0, 1, 2, 5))
        places = sorted({0, len(whole), *(self._random.randrange(len(whole) + 1) for _ in range(most))})
        return [whole[one:other] for one, other in pairwise(places)]
