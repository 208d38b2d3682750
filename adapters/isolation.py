"""What every answer says to browsers: it is for pages of this server only, in nobody's frame, and what it says it is.

Also errors, and what no framework has touched: an answer that lacks it is the one that somebody looks for.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ISOLATION"]

ISOLATION: Final = (
    # Kept from pages of other origins that load it as a script or an image; those that may read ask by CORS, which
    # this leaves alone.
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Content-Security-Policy", "frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
)
