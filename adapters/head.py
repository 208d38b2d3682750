"""A request's head as it came: what those who decide about a handshake look at."""

from __future__ import annotations

from typing import final

from attrs import frozen

__all__ = ["Head"]


@final
@frozen(kw_only=True)
class Head:
    """The request's target, and its headers in order with lower-case names."""

    target: str
    headers: tuple[tuple[str, str], ...]

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def get(self, name: str) -> str | None:
        """The first header of this (lower-case) name."""
        return next((value for key, value in self.headers if key == name), None)
