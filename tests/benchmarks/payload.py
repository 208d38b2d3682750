"""The bytes of an event, for all systems: a text that bears its times, penstock's own form around it, and frames.

When an event was due and when it was written stands in the text of a delta, so that it comes through every system
unchanged. Both are `time.monotonic_ns`, which all processes of one machine share.

Nothing but the standard library: the peers run in an environment of their own.
"""

from __future__ import annotations

import re
import time

__all__ = ["LONGEST", "MARK", "STAMP", "body", "chunk", "frame", "stamped"]

# How an event's text begins, in JSON without spaces. Nothing else on the wire has it, so counting it counts events.
MARK = b':"@'

STAMP = re.compile(rb"@(\d{19})\+(\d{19})")

# A stamp's length: of what was read so much may be the beginning of one.
LONGEST = 40

_ID = "0198c0de-7a11-7abc-8def-0123456789ab"


def stamped(due: int, size: int) -> str:
    """A text of ``size`` characters, 40 at least, that was due at ``due`` and is written now."""
    return f"@{due:019d}+{time.monotonic_ns():019d}".ljust(size, "x")


def body(stream: str, number: int, text: str) -> str:
    """One event, as long as penstock's own for the same text."""
    return (
        f'{{"type":"block.delta","session_id":"{stream}","offset":{number},"time":"2026-01-31T09:26:53.589Z",'
        f'"generation_id":"{_ID}","turn":1,"message_id":"{_ID}","block_index":0,"seq":{number},'
        f'"data":{{"text":"{text}"}}}}'
    )


def frame(number: int, data: str) -> bytes:
    """The event as one of a stream of server-sent events."""
    return f"id: 3f2a9c0d1b7e4a58-{number:016d}\ndata: {data}\n\n".encode()


def chunk(data: bytes) -> bytes:
    """A piece of an answer of unknown length (HTTP/1.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)
