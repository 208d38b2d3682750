"""The places of the messages that were evicted longest ago, in columns: some 70 bytes each, instead of some 500.

Owns how a place is found by its message's id or by its number, and how little it takes. A value that never changes;
whoever has it puts another in its stead.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Final, Self, final

from attrs import evolve, frozen

from .content import Evicted

__all__ = ["BLOCK", "NO_PLACES", "Places"]

# Places in one block. Fewer make a search longer, more are longer kept as objects before they make a block.
BLOCK: Final = 128

# A block has a Bloom filter of 16 bits for each place and sets 4 of them: 1 search in 400 is in vain (Bloom 1970).
_BITS: Final = 16 * BLOCK
_PROBES: Final = 4


@final
@frozen
class _Block:
    ids: str  # one on each line
    numbers: array[int]  # of each place the first and last offset, and the weight
    bloom: int

    @classmethod
    def of(cls, places: Sequence[Evicted]) -> Self:
        bloom = 0
        for place in places:
            bloom |= _mask(place.message_id)
        return cls(
            "\n".join([place.message_id for place in places]),
            array("Q", [number for place in places for number in (place.first, place.last, place.weight)]),
            bloom,
        )

    def __len__(self) -> int:
        return len(self.numbers) // 3

    def place(self, number: int) -> Evicted:
        first, last, weight = self.numbers[3 * number : 3 * number + 3]
        return Evicted(message_id=self.ids.split("\n")[number], first=first, last=last, weight=weight)

    def without(self, number: int) -> Self:
        """The filter still finds the one that is left out, which costs a search in vain."""
        ids, numbers = self.ids.split("\n"), self.numbers[:]
        del ids[number], numbers[3 * number : 3 * number + 3]
        return evolve(self, ids="\n".join(ids), numbers=numbers)

    def with_last(self, number: int, last: int) -> Self:
        numbers = self.numbers[:]
        numbers[3 * number + 1] = last
        return evolve(self, numbers=numbers)

    def places(self) -> list[Evicted]:
        columns = zip(self.ids.split("\n"), *(self.numbers[column::3] for column in range(3)), strict=True)
        return [Evicted(message_id=mid, first=first, last=last, weight=weight) for mid, first, last, weight in columns]


@final
@frozen
class Places:
    """Closed messages whose content is not in memory, in the transcript's order."""

    _blocks: tuple[_Block, ...] = ()
    _count: int = 0

    def __len__(self) -> int:
        return self._count

    def with_block(self, places: Sequence[Evicted]) -> Places:
        """These, too, behind the others. Their ids are UUIDs."""
        return Places((*self._blocks, _Block.of(places)), self._count + len(places))

    def without(self, message_id: str) -> Places:
        """All but this one. Raises `KeyError`."""
        at, number = self._search(message_id)
        left = self._blocks[at].without(number)
        blocks = [*self._blocks]
        blocks[at : at + 1] = [left] if len(left) else []
        return evolve(self, blocks=tuple(blocks), count=self._count - 1)

    def with_last(self, message_id: str, last: int) -> Places:
        """All of them; of this one the log has something up to the offset ``last``. Raises `KeyError`."""
        at, number = self._search(message_id)
        block = self._blocks[at].with_last(number, last)
        return evolve(self, blocks=(*self._blocks[:at], block, *self._blocks[at + 1 :]))

    def get(self, message_id: str) -> Evicted | None:
        try:
            at, number = self._search(message_id)
        except KeyError:
            return None
        return self._blocks[at].place(number)

    def index(self, message_id: str) -> int:
        """How many are before this one. Raises `KeyError`."""
        at, number = self._search(message_id)
        return sum(map(len, self._blocks[:at])) + number

    def between(self, start: int, end: int) -> Iterator[Evicted]:
        """Those with these numbers, from ``start`` to before ``end``."""
        before = 0
        for block in self._blocks:
            if before >= end:
                return
            if before + len(block) > start:
                yield from block.places()[max(0, start - before) : end - before]
            before += len(block)

    def backwards(self, end: int) -> Iterator[Evicted]:
        """Those before the number ``end``, the last one first."""
        before = self._count
        for block in reversed(self._blocks):
            before -= len(block)
            if before < end:
                yield from reversed(block.places()[: end - before])

    def ids(self, start: int) -> list[str]:
        """The ids from the number ``start`` on."""
        return "\n".join([block.ids for block in self._blocks]).split("\n")[start:] if self._blocks else []

    def _search(self, message_id: str) -> tuple[int, int]:
        """The number of the block, and the number of the place in it. Raises `KeyError`."""
        mask = _mask(message_id)
        for at in range(len(self._blocks) - 1, -1, -1):
            block = self._blocks[at]
            if block.bloom & mask == mask and message_id in (ids := block.ids.split("\n")):
                return at, ids.index(message_id)
        raise KeyError(message_id)


NO_PLACES: Final = Places()


def _mask(message_id: str) -> int:
    left = hash(message_id)
    mask = 0
    for _ in range(_PROBES):
        mask |= 1 << left % _BITS
        left //= _BITS
    return mask
