"""Text that comes in pieces which may be cut in the middle of a character.

Who counts in UTF-16, as JavaScript and some providers do, may cut a character outside the basic plane in two: each
piece then has half a surrogate pair, which is no Unicode, and which no log takes. Pure.
"""

from __future__ import annotations

from typing import Final, final

__all__ = ["Halves", "mended"]

# What stands for half a character whose other half never came, as in every decoder of Unicode.
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


@final
class Halves:
    """Holds back half a character at the end of a piece, and joins it to the next piece."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = ""

    def add(self, piece: str) -> str:
        """What can be written now; empty where there is nothing yet."""
        if self._held:
            piece, self._held = self._held + piece, ""
        elif piece.isascii():
            return piece
        if "\ud800" <= piece[-1:] <= "\udbff":
            piece, self._held = piece[:-1], piece[-1]
        return mended(piece)

    def rest(self) -> str:
        """What is left when nothing follows: a replacement character for half a one, else nothing."""
        held, self._held = self._held, ""
        return _REPLACEMENT if held else ""


def mended(text: str) -> str:
    """The text with its pairs joined, and a replacement character for each half that stands alone."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
