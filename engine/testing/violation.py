"""What a checker reports."""

from __future__ import annotations

from typing import Literal, TypeAlias, final

from attrs import frozen

__all__ = ["Rule", "Violation"]

Rule: TypeAlias = Literal["R1", "R2", "R3", "R4", "R5", "R6", "R7", "R8", "R9", "R10", "R11", "C", "stamp", "stored"]


@final
@frozen
class Violation:
    """A broken rule, the offset of the event that breaks it (None: no single one does), and what is wrong there.

    ``stamp`` and ``stored`` are not numbered among the rules: the table of what each event must carry, and that what is
    stored can be read at all. A session that breaks the latter is one that an engine sets aside.
    """

    rule: Rule
    offset: int | None
    text: str

    def __str__(self) -> str:
        return f"{self.rule} at {'the end' if self.offset is None else f'offset {self.offset}'}: {self.text}"
