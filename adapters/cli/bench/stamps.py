"""The time inside an event: when it was due, and when it was written.

It stands in the text of a delta, so that it comes through every system unchanged. Both are `time.monotonic_ns`, which
all processes of one machine share.
"""

from __future__ import annotations

import re
import time
from typing import Final

__all__ = ["LONGEST", "MARK", "STAMP", "stamped"]

# How an event's text begins, in JSON without spaces. Nothing else on the wire has it, so counting it counts events.
MARK: Final = b':"@'

STAMP: Final = re.compile(rb"@(\d{19})\+(\d{19})")

# A stamp's length: of what was read so much may be the beginning of one.
LONGEST: Final = 40


def stamped(due: int, size: int) -> str:
    """A text of ``size`` characters, 40 at least, that was due at ``due`` and is written now."""
    return f"@{due:019d}+{time.monotonic_ns():019d}".ljust(size, "x")
