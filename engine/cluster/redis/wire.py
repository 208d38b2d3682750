"""The protocol of a Redis (RESP2), as far as it takes to follow channels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias, final

__all__ = ["Answers", "Refused", "Reply", "command"]

Reply: TypeAlias = "bytes | int | list[Reply] | Refused | None"

# Longer than any message: what claims to be longer is none.
_MOST: Final = 64 * 1024 * 1024


@final
class Refused(Exception):
    """What the server refuses a command with."""


def command(*words: bytes) -> bytes:
    return b"".join((b"*%d\r\n" % len(words), *(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)))


@final
class Answers:
    """Takes what arrives, in whatever pieces, and gives what is whole. Never holds more than one answer and a piece."""

    def __init__(self) -> None:
        self._left = bytearray()
        self._need = 0  # so many bytes must be there before the next answer can be whole

    def take(self, piece: bytes) -> Iterator[Reply]:
        """Raises `ValueError` for what is not the protocol."""
        self._left += piece
        position = 0
        if len(self._left) >= self._need:
            self._need = 0
            while position < len(self._left):
                try:
                    reply, position = self._read(position)
                except _Short as short:
                    self._need = short.need - position
                    break
                yield reply
        del self._left[:position]

    def _read(self, at: int) -> tuple[Reply, int]:
        end = self._left.find(b"\r\n", at)
        if end < 0:
            raise _Short(len(self._left) + 1)
        kind, rest = self._left[at : at + 1], bytes(self._left[at + 1 : end])
        at = end + 2
        match bytes(kind):
            case b"+":
                return rest, at
            case b"-":
                return Refused(rest.decode(errors="replace")), at
            case b":":
                return int(rest), at
            case b"$":
                return self._text(int(rest), at)
            case b"*":
                items: list[Reply] = []
                for _ in range(int(rest)):
                    item, at = self._read(at)
                    items.append(item)
                return items, at
            case _:
                raise ValueError("this is no answer of a Redis")

    def _text(self, length: int, at: int) -> tuple[Reply, int]:
        if length < 0:
            return None, at
        if length > _MOST:
            raise ValueError("this is no answer of a Redis")
        if len(self._left) < at + length + 2:
            raise _Short(at + length + 2)
        return bytes(self._left[at : at + length]), at + length + 2


class _Short(Exception):
    """The answer is not whole before so many bytes are there."""

    def __init__(self, need: int) -> None:
        self.need: Final = need
