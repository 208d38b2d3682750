"""A request's id: the client's, if it is fit to be told back and logged, else one of ours.

It goes out with the answer and stands in every log line that is written for the request.
"""

from __future__ import annotations

import re
from typing import Final

from uuid_utils import uuid7

__all__ = ["REQUEST_ID", "request_id_of"]

REQUEST_ID: Final = "X-Request-Id"

# UUIDs, ULIDs, trace ids, base64. Nothing in it can end a header or a log line.
_SANE: Final = re.compile(r"[A-Za-z0-9._~:+/=@-]{1,128}")


def request_id_of(given: str | None) -> str:
    """The id to use for a request that came with ``given``."""
    return given if given is not None and _SANE.fullmatch(given) else str(uuid7())
