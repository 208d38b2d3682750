"""Requests that two readers of the same bytes may read in two ways, and what this server says to each.

One row is what is sent over one connection, the statuses of the answers, in order, and whether the server closes behind
them. Where it does, nothing that came behind is a request: what was smuggled gets no answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from attrs import frozen

__all__ = ["PARTS", "ROWS", "Row"]


@frozen
class Row:
    name: str
    sent: bytes
    statuses: tuple[int, ...]
    closed: bool = False
    early: bool = False  # the first answer may come before its body has, and then the server closes behind it


HOST: Final = b"Host: 127.0.0.1:8000\r\n"
JSON: Final = b"Content-Type: application/json\r\n"
BEHIND: Final = b"GET /healthz HTTP/1.1\r\n" + HOST + b"X-Smuggled: 1\r\n\r\n"
POST: Final = b"POST /v1/sessions/demo/messages HTTP/1.1\r\n" + HOST + JSON
BODY: Final = b'{"text":"x"}'
LENGTH: Final = b"Content-Length: 12\r\n"
CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
CHUNKS: Final = b"c\r\n" + BODY + b"\r\n0\r\n\r\n"
KEY: Final = b"AAAAAAAAAAAAAAAAAAAAAA=="
SHAKE: Final = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n"
)


def get(target: bytes, *lines: bytes, version: bytes = b"1.1", host: bytes = HOST, method: bytes = b"GET") -> bytes:
    head = method + b" " + target + b" HTTP/" + version + b"\r\n" + host
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def post(*lines: bytes, body: bytes = BODY, version: bytes = b"1.1") -> bytes:
    head = POST.replace(b"HTTP/1.1", b"HTTP/" + version, 1)
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def two_lengths() -> Iterator[Row]:
    for first, second in ((LENGTH, CHUNKED), (CHUNKED, LENGTH)):
        yield Row(f"{first!r} and {second!r}", POST + first + second + b"\r\n" + CHUNKS + BEHIND, (400,), True)
    whole = POST + b"Content-Length: %d\r\n" % len(CHUNKS + BEHIND) + CHUNKED + b"\r\n" + CHUNKS + BEHIND
    yield Row("a length that hides a request in chunks", whole, (400,), True)
    yield Row(
        "a length of 0 and chunks", post(b"Content-Length: 0", b"Transfer-Encoding: chunked", body=CHUNKS), (400,), True
    )
    yield Row("lengths that differ", post(b"Content-Length: 12", b"Content-Length: 5") + BEHIND, (400,), True)
    yield Row("lengths that are the same", post(b"Content-Length: 12", b"Content-Length: 12") + BEHIND, (201, 200))
    yield Row("a list of lengths that differ", post(b"Content-Length: 12, 5") + BEHIND, (400,), True)
    yield Row("a list of lengths that are the same", post(b"Content-Length: 12, 12") + BEHIND, (201, 200))
    odd = (b"+12", b"-12", b"1_2", b"0x0c", b"0c", b"12.0", b"1 2", b"12;", b"", b"\xb2", b"9" * 23, b"12,", b"'12'")
    for length in odd:
        yield Row(f"the length {length!r}", post(b"Content-Length: " + length) + BEHIND, (400,), True)
    yield Row("the length 012", post(b"Content-Length: 012") + BEHIND, (201, 200))
    yield Row("a length past the limit", post(b"Content-Length: 99999999"), (413,), True)


def codings() -> Iterator[Row]:
    yield Row("chunked", post(b"Transfer-Encoding: chunked", body=CHUNKS) + BEHIND, (201, 200))
    yield Row("Chunked, behind a tab", post(b"Transfer-Encoding:\tChunked", body=CHUNKS) + BEHIND, (201, 200))
    odd = (
        b"xchunked",
        b"gzip, chunked",
        b"chunked, chunked",
        b"chunked, identity",
        b"identity",
        b"gzip",
        b"",
        b'"chunked"',
    )
    for coding in (*odd, b"chunked;a=b", b"\x0bchunked", b"chunked\x00", b"\xa0chunked", b"chunk ed"):
        yield Row(f"the coding {coding!r}", post(b"Transfer-Encoding: " + coding, body=CHUNKS) + BEHIND, (400,), True)
    yield Row("chunked twice", post(*[CHUNKED[:-2]] * 2, body=CHUNKS) + BEHIND, (400,), True)
    yield Row("identity and a length", post(b"Transfer-Encoding: identity", LENGTH[:-2]) + BEHIND, (400,), True)
    for more in ((), (b"Connection: keep-alive",), (LENGTH[:-2],)):
        sent = post(CHUNKED[:-2], *more, body=CHUNKS, version=b"1.0")
        yield Row(f"chunks in HTTP/1.0 {more}", sent + BEHIND, (400,), True)


def chunks() -> Iterator[Row]:
    def of(body: bytes) -> bytes:
        return post(CHUNKED[:-2], body=body)

    good = (
        (b"c;a=b\r\n" + BODY + b"\r\n0;x\r\n\r\n", "extensions"),
        (b'c;a="b, c"; d\r\n' + BODY + b"\r\n0\r\n\r\n", "two extensions"),
        (b"0000000c\r\n" + BODY + b"\r\n00\r\n\r\n", "zeros before a size"),
        (b"C\r\n" + BODY + b"\r\n0\r\n\r\n", "a size in capitals"),
        (b"5\r\n" + BODY[:5] + b"\r\n7\r\n" + BODY[5:] + b"\r\n0\r\n\r\n", "two"),
        (b"c\r\n" + BODY + b"\r\n0\r\nContent-Length: 5\r\nAuthorization: x\r\n\r\n", "a trailer"),
    )
    for body, name in good:
        yield Row(f"chunks: {name}", of(body) + BEHIND, (201, 200))
    bad = (
        (b"c;a\n" + BODY + b"\r\n0\r\n\r\n", "an extension that ends with LF"),
        (b"c;a\rb\r\n" + BODY + b"\r\n0\r\n\r\n", "a CR in an extension"),
        (b"c;a\x00b\r\n" + BODY + b"\r\n0\r\n\r\n", "a NUL in an extension"),
        (b"c\n" + BODY + b"\n0\n\n", "lines that end with LF"),
        (b"c\r" + BODY + b"\r\n0\r\n\r\n", "a line that ends with CR"),
        (b"c\r\n" + BODY + b"XX0\r\n\r\n", "data past the size"),
        (b"c\r\n" + BODY + b"\n0\r\n\r\n", "data that ends with LF"),
        (b"d\r\n" + BODY + b"\r\n0\r\n\r\n", "a size past the data"),
        (b"0xc\r\n" + BODY + b"\r\n0\r\n\r\n", "the size 0xc"),
        (b"-1\r\n" + BODY + b"\r\n0\r\n\r\n", "the size -1"),
        (b"+c\r\n" + BODY + b"\r\n0\r\n\r\n", "the size +c"),
        (b"1_0\r\n" + BODY + b"\r\n0\r\n\r\n", "the size 1_0"),
        (b"c \r\n" + BODY + b"\r\n0\r\n\r\n", "a space behind the size"),
        (b" c\r\n" + BODY + b"\r\n0\r\n\r\n", "a space before the size"),
        (b"c ;a\r\n" + BODY + b"\r\n0\r\n\r\n", "a space before an extension"),
        (b"\r\n" + BODY + b"\r\n0\r\n\r\n", "no size"),
        (b";a=b\r\n" + BODY + b"\r\n0\r\n\r\n", "an extension of no size"),
        (b"1000000000000000c\r\n" + BODY + b"\r\n0\r\n\r\n", "a size of 68 bits"),
        (b"0" * 21 + b"c\r\n" + BODY + b"\r\n0\r\n\r\n", "a size of 22 digits"),
        (b"c;" + b"a" * 30_000 + b"\r\n" + BODY + b"\r\n0\r\n\r\n", "an extension without an end"),
        (b"c\r\n" + BODY + b"\r\n0\r\n\n", "an end of LF"),
        (b"c\r\n" + BODY + b"\r\n0\r\nX: y\n\n", "a trailer that ends with LF"),
        (b"c\r\n" + BODY + b"\r\n0\r\nX: a\x01b\r\n\r\n", "a control character in a trailer"),
        (b"c\r\n" + BODY + b"\r\n0\r\nX : y\r\n\r\n", "a space before a trailer's colon"),
        (b"c\r\n" + BODY + b"\r\n0\r\nX: y\r\n z\r\n\r\n", "a folded trailer"),
    )
    for body, name in bad:
        yield Row(f"chunks: {name}", of(body) + BEHIND, (400,), True)
    yield Row("chunks: a trailer without an end", of(b"0\r\nX: " + b"y" * 40_000), (413,), True)
    many = b"".join(b"1;" + b"a" * 400 + b"\r\n \r\n" for _ in range(100))
    yield Row("chunks: extensions without an end", of(many + CHUNKS) + BEHIND, (413,), True)


def lines() -> Iterator[Row]:
    bad = {
        "LF ends the lines": (POST + LENGTH + b"\r\n").replace(b"\r\n", b"\n") + BODY,
        "LF hides a header": POST + b"X: a\nContent-Length: 12\r\n\r\n" + BODY,
        "LF ends the head": POST + LENGTH + b"\n" + BODY,
        "LF and CRLF end the head": POST + LENGTH[:-2] + b"\n\r\n" + BODY,
        "CR in a value": POST + b"X: a\rContent-Length: 0\r\n" + LENGTH + b"\r\n" + BODY,
        "CR before the end": POST + LENGTH + b"\r\r\n" + BODY,
        "CR CR LF ends a line": POST + LENGTH[:-2] + b"\r\r\n\r\n" + BODY,
        "a folded header": post(b"Content-Length:", b" 12"),
        "a folded coding": post(b"Transfer-Encoding:", b"\tchunked", body=CHUNKS),
        "a space before a header": post(b" X: 1", LENGTH[:-2]),
        "a space before the first header": POST.replace(b"\r\n", b"\r\n X: y\r\n", 1) + LENGTH + b"\r\n" + BODY,
        "a space before a colon": post(b"Content-Length : 12"),
        "a tab before a colon": post(b"Content-Length\t: 12"),
        "a space before the coding's colon": post(LENGTH[:-2], b"Transfer-Encoding : chunked"),
        "no colon": post(LENGTH[:-2], b"Transfer-Encoding chunked"),
        "no name": post(LENGTH[:-2], b": chunked"),
        "a name with a bracket": post(LENGTH[:-2], b"X(: y"),
        "an 8-bit name": post(LENGTH[:-2], b"X\xe9: y"),
        "NUL in a value": post(b"X: a\x00b", LENGTH[:-2]),
        "NUL in a name": post(b"X\x00: b", LENGTH[:-2]),
        "NUL in the target": get(b"/health\x00z"),
        "a control character in a value": post(b"X: a\x01b", LENGTH[:-2]),
        "DEL in a value": post(b"X: a\x7fb", LENGTH[:-2]),
        "VT for a space": post(b"Transfer-Encoding:\x0bchunked", LENGTH[:-2]),
        "two spaces in the first line": b"GET  /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
        "a tab in the first line": b"GET\t/healthz HTTP/1.1\r\n" + HOST + b"\r\n",
        "a space in the target": get(b"/healthz /v1"),
        "a space behind the first line": b"GET /healthz HTTP/1.1 \r\n" + HOST + b"\r\n",
        "a space before the first line": b" GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
        "LF before the first line": b"\nGET /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
        "CR before the first line": b"\rGET /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
        "no version": b"GET /healthz\r\n\r\n",
        "HTTP/1.2": get(b"/healthz", version=b"1.2"),
        "HTTP/2.0": get(b"/healthz", version=b"2.0"),
        "http/1.1": get(b"/healthz").replace(b"HTTP", b"http"),
        "a method with a brace": get(b"/healthz", method=b"FOO{"),
        "HTTP/2 without asking": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    }
    for name, sent in bad.items():
        yield Row(name, sent + (BEHIND if name != "TLS" else b""), (400,), True)
    yield Row("8-bit values", get(b"/healthz", b"X: \xff\xfe\x80") + BEHIND, (200, 200))
    yield Row("a value of spaces", get(b"/healthz", b"X: \t ", b"Y:") + BEHIND, (200, 200))
    yield Row("empty lines before a request", b"\r\n\r\n\r\n" + BEHIND, (200,))
    yield Row("an empty line behind a body", post(LENGTH[:-2]) + b"\r\n" + BEHIND, (201, 200))
    yield Row("a thousand headers", get(b"/healthz", *[b"a%d: b" % n for n in range(1000)]), (200,))
    for size in (17_000, 60_000):
        yield Row(f"a head of {size}", get(b"/healthz", b"a: " + b"b" * size) + BEHIND, (413,), True)
    yield Row("a head without an end", get(b"/healthz")[:-2] + b"a: " + b"b" * 60_000, (413,), True)
    for method in (b"get", b"Get", b"gET"):
        yield Row(f"the method {method!r}", get(b"/healthz", method=method) + BEHIND, (405,), True)
    yield Row("an unknown method", get(b"/healthz", method=b"BREW") + BEHIND, (405, 200))
    yield Row("TRACE", get(b"/healthz", b"Authorization: secret", method=b"TRACE") + BEHIND, (405, 200))
    override = get(b"/v1/sessions/demo", b"X-HTTP-Method-Override: DELETE", b"Content-Length: 0", method=b"POST")
    yield Row("another method in a header", override + BEHIND, (405, 200))


def hosts() -> Iterator[Row]:
    long = b".".join([b"a" * 63] * 4)
    bad = b"a..b . .. .a localhost.. [::1 [ ] [] [::1]x [::1]:x [:::1] [::1%25lo] [v1.x] ::1 [127.0.0.1]".split()
    bad += b"127.0.0.1:abc 127.0.0.1:99999999 127.0.0.1:65536 127.0.0.1:80:80 127.0.0.1:-1 :80 * <x> a;b a\\b".split()
    bad += b"evil@127.0.0.1 127.0.0.1#.evil 127.0.0.1/.evil http://x \xff\xfe xn--\xff \xe9.localhost %zz %31".split()
    bad += [b"127.0.0.1, evil", b"127.0.0.1 evil", b"evil.com\xad", b"a" * 64, b"a." * 128 + b"b", long + b".a"]
    bad.append(b"xn--" + b"a" * 15_000)
    for host in bad:
        line = b"Host: " + host + b"\r\n"
        yield Row(f"the host {host[:40]!r}", get(b"/healthz", host=line) + BEHIND, (400,), True)
        yield Row(f"a handshake with the host {host[:40]!r}", get(b"/v1/ws", SHAKE[:-2], host=line), (400,), True)
    for host in (
        b"127.0.0.1",
        b"localhost.",
        b"LOCALHOST:65535",
        b"localhost:",
        b"[::1]",
        b"[::1]:1",
        b"a_b.localhost",
    ):
        line = b"Host: " + host + b"\r\n"
        yield Row(f"the host {host!r}", get(b"/healthz", host=line) + BEHIND, (200, 200))
        yield Row(f"a handshake with the host {host!r}", get(b"/v1/ws", SHAKE[:-2], host=line), (101,))
    for host in (b"evil.example", b"xn--", b"xn--a", b"xn--ls8h.la:80", long, b"2130706433", b"0.0.0.0", b"a-.b_"):
        line = b"Host: " + host + b"\r\n"
        yield Row(f"another host {host[:40]!r}", get(b"/healthz", host=line) + BEHIND, (403, 200))
        yield Row(f"a handshake with another host {host[:40]!r}", get(b"/v1/ws", SHAKE[:-2], host=line), (403,), True)
    for version in (b"1.0", b"1.1"):
        twice = get(b"/healthz", host=HOST * 2, version=version)
        yield Row(f"two hosts in HTTP/{version.decode()}", twice + BEHIND, (400,), True)
    yield Row("another host in small letters", get(b"/healthz", b"host: evil") + BEHIND, (400,), True)
    yield Row("no host in HTTP/1.1", get(b"/healthz", host=b"") + BEHIND, (400,), True)
    yield Row("no host in HTTP/1.0", get(b"/healthz", host=b"", version=b"1.0"), (200,), True)
    yield Row("an empty host", get(b"/healthz", host=b"Host: \r\n") + BEHIND, (200, 200))


def targets() -> Iterator[Row]:
    for target in (b"http://127.0.0.1/healthz", b"HTTP://localhost:80/healthz?a", b"http://127.0.0.1?a"):
        yield Row(f"the target {target!r}", get(target) + BEHIND, (200, 200))
    mine = get(b"http://127.0.0.1/healthz", host=b"Host: evil.example\r\n")
    yield Row("a target's host goes before the header's", mine + BEHIND, (200, 200))
    for target in (b"http://evil.example/v1/sessions", b"http://evil.example", b"HTTP://evil.example/healthz"):
        yield Row(f"the target {target!r}", get(target) + BEHIND, (403, 200))
    bad = b"http:// http:///healthz http://[ http://[/x http://a..b/ http:/x http://user@127.0.0.1/".split()
    bad += b"http://127.0.0.1:x/ http://127.0.0.1#x ftp://127.0.0.1/ ws://127.0.0.1/v1/ws /\xff".split()
    bad += b"healthz ?a *foo ** \\healthz %2fhealthz #".split()
    for target in (*bad, b"http://xn--" + b"a" * 9000):
        yield Row(f"the target {target[:40]!r}", get(target) + BEHIND, (400,), True)
    yield Row("a handshake for a target with a host", get(b"http://127.0.0.1/v1/ws", SHAKE[:-2]), (101,))
    yield Row("a handshake for a target with no host", get(b"http://[/v1/ws", SHAKE[:-2]), (400,), True)
    yield Row("CONNECT", get(b"evil:443", method=b"CONNECT") + BEHIND, (400,), True)
    yield Row("CONNECT to a path", get(b"/healthz", method=b"CONNECT") + BEHIND, (405, 200))
    yield Row("OPTIONS *", get(b"*", method=b"OPTIONS") + BEHIND, (204, 200))
    yield Row("GET *", get(b"*") + BEHIND, (404, 200))
    nowhere = b"//metrics ///metrics //v1/sessions //[ //evil.example/healthz /v1//sessions /%2Fmetrics".split()
    nowhere += (
        b"/v1%2fsessions /v1%2Fsessions /v1%2fsessions%2fdemo /healthz%2f /healthz/ /./healthz /v1/../healthz".split()
    )
    nowhere += b"/v1/%2e%2e/healthz /healthz;x=1 /healthz%00 /healthz%20 /x%3f".split()
    for target in nowhere:
        yield Row(f"the path {target!r}", get(target) + BEHIND, (404, 200))
    for text in b"a%2Freset a%2freset a%252Freset a%00b a%ff a%0d%0aX:1 %e2%80%ae %2F . %2e%2e".split():
        yield Row(f"the session {text!r}", get(b"/v1/sessions/" + text) + BEHIND, (400, 200))
    reset = get(b"/v1/sessions/demo%2Freset", b"Content-Length: 0", method=b"POST")
    yield Row("a reset behind an escaped slash", reset + BEHIND, (405, 200))
    chunk = b'{"generation_id":"x","data":{}}'
    sent = get(b"/v1/sessions/demo%2Fchunks", b"Content-Length: %d" % len(chunk), method=b"POST") + chunk
    yield Row("chunks behind an escaped slash", sent + BEHIND, (405, 200), early=True)
    yield Row("an escaped letter is a letter", get(b"/%68ealthz") + BEHIND, (200, 200))


def origins() -> Iterator[Row]:
    own, other = b"Origin: http://127.0.0.1:8000", b"Origin: http://evil"
    for first, second in ((own, other), (other, own), (own, own)):
        yield Row(f"{first!r} and {second!r}", post(first, second, LENGTH[:-2]) + BEHIND, (400,), True)
        yield Row(f"{first!r} and {second!r} to read", get(b"/healthz", first, second) + BEHIND, (400,), True)
        yield Row(f"{first!r} and {second!r} in a handshake", get(b"/v1/ws", first, second, SHAKE[:-2]), (400,), True)
    yield Row("the own origin", post(own, LENGTH[:-2]) + BEHIND, (201, 200))
    for text in (
        b"http://evil",
        b"null",
        b"",
        b"http://[::1",
        b"http://a:b:c",
        b"http://[",
        b"//",
        b"http://\xff",
        b"x" * 9000,
    ):
        yield Row(f"the origin {text[:40]!r}", post(b"Origin: " + text, LENGTH[:-2]) + BEHIND, (403, 200), early=True)
        yield Row(
            f"the origin {text[:40]!r} in a handshake", get(b"/v1/ws", b"Origin: " + text, SHAKE[:-2]), (403,), True
        )


def connections() -> Iterator[Row]:
    yield Row("two requests at once", post(LENGTH[:-2]) * 2 + BEHIND, (201, 201, 200))
    yield Row("what comes behind a last request", get(b"/healthz", b"Connection: close") + BEHIND, (200,), True)
    yield Row("what comes behind a last body", post(LENGTH[:-2], b"Connection: close") + BEHIND, (201,), True)
    yield Row("what is no request behind a last one", get(b"/healthz", b"Connection: close") + b"\x00 \n", (200,), True)
    yield Row("what is no request behind another", get(b"/healthz") + b"\x00 \n", (200, 400), True)
    yield Row("what comes behind HTTP/1.0", get(b"/healthz", version=b"1.0") + BEHIND, (200,), True)
    yield Row("a body for GET", get(b"/healthz", b"Content-Length: %d" % len(BEHIND)) + BEHIND, (200,), early=True)
    yield Row("chunks for GET", get(b"/healthz", CHUNKED[:-2]) + b"0\r\n\r\n" + BEHIND, (200, 200), early=True)
    gone = get(b"/v1/sessions/demo/presence/a", b"Content-Length: 5", method=b"DELETE") + b"abcde"
    yield Row("a body for DELETE", gone + BEHIND, (200, 200), early=True)
    yield Row("HEAD", get(b"/healthz", method=b"HEAD") + BEHIND, (200, 200))
    yield Row("HEAD that is refused", get(b"/healthz", method=b"HEAD", host=b"Host: a..b\r\n") + BEHIND, (400,), True)
    heads = post(LENGTH[:-2], CHUNKED[:-2], body=CHUNKS).replace(b"POST", b"HEAD", 1)
    yield Row("HEAD with two lengths", heads + BEHIND, (400,), True)
    yield Row("HEAD with a body", get(b"/healthz", LENGTH[:-2], method=b"HEAD") + BODY + BEHIND, (200, 200), early=True)
    yield Row("Expect what is unknown", post(b"Expect: 200-ok", LENGTH[:-2]) + BEHIND, (201, 200))
    yield Row("Expect that is not waited for", post(b"Expect: 100-continue", LENGTH[:-2]) + BEHIND, (201, 200))
    yield Row("Expect in HTTP/1.0", post(b"Expect: 100-continue", LENGTH[:-2], version=b"1.0"), (201,), True)
    h2c = (b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")
    yield Row("an upgrade to h2c", get(b"/healthz", *h2c) + BEHIND, (200, 200))
    yield Row("an upgrade to h2c with a body", post(*h2c, LENGTH[:-2]) + BEHIND, (201, 200))


def handshakes() -> Iterator[Row]:
    yield Row("a handshake", get(b"/v1/ws", SHAKE[:-2]), (101,))
    yield Row(
        "a handshake with a list", get(b"/v1/ws", SHAKE.replace(b": Upgrade", b": keep-alive, upgrade")[:-2]), (101,)
    )
    yield Row("a handshake with two lists", get(b"/v1/ws", SHAKE[:-2], b"Connection: keep-alive"), (101,))
    yield Row("a handshake with extensions", get(b"/v1/ws", SHAKE[:-2], b"Sec-WebSocket-Extensions: \xff, x"), (101,))
    half = {
        "no key": SHAKE.replace(b"Sec-WebSocket-Key", b"X"),
        "two keys": SHAKE + b"Sec-WebSocket-Key: " + KEY + b"\r\n",
        "a short key": SHAKE.replace(KEY, b"AAAA"),
        "a key that is none": SHAKE.replace(KEY, b"\xff" * 24),
        "another version": SHAKE.replace(b"13", b"8"),
        "two versions": SHAKE + b"Sec-WebSocket-Version: 8\r\n",
        "two upgrades": SHAKE + b"Upgrade: h2c\r\n",
        "no connection": SHAKE.replace(b"Connection", b"X"),
        "an 8-bit protocol": SHAKE + b"Sec-WebSocket-Protocol: \xff\r\n",
    }
    for name, lines in half.items():
        yield Row(f"a handshake with {name}", get(b"/v1/ws", lines[:-2]) + BEHIND, (400, 200))
    body = get(b"/v1/ws", SHAKE[:-2], b"Content-Length: %d" % len(BEHIND)) + BEHIND
    yield Row("a handshake with a body", body + BEHIND, (400, 200), early=True)
    chunked = get(b"/v1/ws", SHAKE[:-2], CHUNKED[:-2]) + b"0\r\n\r\n"
    yield Row("a handshake with chunks", chunked + BEHIND, (400, 200), early=True)
    yield Row("a handshake elsewhere", get(b"/v1/wsx", SHAKE[:-2]) + BEHIND, (404, 200))
    yield Row("a handshake for an escaped path", get(b"/v1/%77s", SHAKE[:-2]) + BEHIND, (400, 200))
    yield Row("a handshake for a doubled slash", get(b"//v1/ws", SHAKE[:-2]) + BEHIND, (404, 200))
    yield Row("a handshake in HTTP/1.0", get(b"/v1/ws", SHAKE[:-2], version=b"1.0"), (400,), True)
    yield Row("a request behind a handshake", get(b"/v1/ws", SHAKE[:-2]) + BEHIND, (101,), early=True)


PARTS: Final = (two_lengths, codings, chunks, lines, hosts, targets, origins, connections, handshakes)
ROWS: Final = tuple(row for part in PARTS for row in part())
