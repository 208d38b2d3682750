"""Rounds of writes: each is one call of ``write.lua``, carried out once however often it is sent.

Rounds have numbers, and the store remembers what it said of the last one. So a round whose answer was lost is sent
again, and one that comes late, behind another, changes nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Final, final

import msgspec

from ...errors import PenstockError, WriteFailed
from ..fence import admit
from ..port import MOST, Append, Compact, Keep, Write
from .layout import Layout, Packable, pack, packed, refusal
from .store import Script, Store, of_answers

__all__ = ["Writing"]

_WRITE: Final = Script.load("write")


@final
class Writing:
    """One writer, to the shards ``bases``, which carries out one round at a time."""

    def __init__(self, store: Store, layout: Layout, bases: list[str], verb: Callable[[], str]) -> None:
        """``verb`` is how others are told of what landed, as a command of the store; "" while nobody is."""
        self._store = store
        self._layout = layout
        self._key = f"{bases[0]}b{uuid.uuid4().hex}"
        self._verb = verb
        self._number = 0

    async def carry_out(self, writes: Sequence[Write]) -> Sequence[PenstockError | None]:
        """As `lane.CarryOut`."""
        self._number += 1
        sent = [self._packed(write) for write in writes]
        bodies: list[Packable] = [body for body in sent if isinstance(body, msgspec.Raw)]
        answer = await self._store.call(_WRITE, self._key, self._number, pack(bodies), self._verb())
        verdicts = iter(of_answers(answer, len(bodies)))
        return [
            refusal(write, next(verdicts)) if isinstance(body, msgspec.Raw) else body
            for write, body in zip(writes, sent, strict=True)
        ]

    def _packed(self, write: Write) -> msgspec.Raw | PenstockError:
        """What is sent of it, or why it is not: numbers that Lua cannot hold, or text that is none."""
        if not isinstance(write, Keep | Compact) and write.token >= MOST:
            refused = admit(None, write)
            assert isinstance(refused, PenstockError)
            return refused
        if isinstance(write, Append) and write.expected_tail + len(write.events) >= MOST:
            return WriteFailed("there are no such offsets", session_id=write.session_id)
        try:
            return msgspec.Raw(pack(packed(write, self._layout.base(write.session_id))))
        except (ValueError, TypeError, OverflowError) as error:
            return WriteFailed(f"it cannot be stored: {error}", session_id=write.session_id)
