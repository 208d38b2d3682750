"""A request's body in one piece, for who sends with httpx."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import final

import httpx

__all__ = ["WholeBody"]


@final
class WholeBody(httpx.AsyncByteStream):
    """No generator, as the library's own is: one that a broken connection leaves in the middle would be the garbage
    collector's, with a warning. The request's headers tell its length."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _OnePiece(self._content)


@final
class _OnePiece(AsyncIterator[bytes]):
    def __init__(self, content: bytes) -> None:
        self._left = [content] if content else []

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()
