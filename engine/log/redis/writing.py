"""Rounds of writes: each is one call of ``write.lua``, carried out once however often it is sent.

Rounds have numbers, and the store remembers what it said of the last one. So a round whose answer was lost is sent
again, and one that comes late, behind another, changes nothing. And a store that does not remember a round which it has
answered went back: then all that it holds is put in doubt, before anything of the next round is carried out.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, final

import msgspec
import trio

from ...errors import PenstockError, WriteFailed
from ..fence import admit
from ..port import MOST, Append, Compact, Keep, Write
from .layout import Layout, Packable, pack, packed, refusal
from .store import Script, Store, of_answers

__all__ = ["Writing"]

_WRITE: Final = Script.load("write")

# So long the store remembers a round for certain: seconds. It is half of what the script says.
_REMEMBERED: Final = 12 * 3600.0


@final
class Writing:
    """One writer, to the shards ``bases``, which carries out one round at a time.

    ``verb`` is how others are told of what landed, as a command of the store; "" while nobody is. ``doubt`` is called
    with the shards, the writer's key and the number of a round that the store has lost.
    """

    def __init__(
        self,
        store: Store,
        layout: Layout,
        bases: list[str],
        verb: Callable[[], str],
        doubt: Callable[[list[str], str, int], Awaitable[None]],
    ) -> None:
        self._store = store
        self._layout = layout
        self._bases = bases
        self._doubt = doubt
        self._key = f"{bases[0]}b{uuid.uuid4().hex}"
        self._verb = verb
        self._number = 0
        self._answered = 0  # the last round that the store must remember, and when it was answered
        self._at = trio.current_time()

    async def carry_out(self, writes: Sequence[Write]) -> Sequence[PenstockError | None]:
        """As `lane.CarryOut`. A round without writes shows whether the store went back."""
        self._number += 1
        sent = [self._packed(write) for write in writes]
        bodies: list[Packable] = [body for body in sent if isinstance(body, msgspec.Raw)]
        if trio.current_time() - self._at > _REMEMBERED:
            self._answered = 0
        sent_, verb = pack(bodies), self._verb()
        # Where replicas must have it, too, nobody hears of it before: it is told by sending the round once more.
        first = "" if self._store.replicas else verb
        round_ = (self._key, self._number, sent_)
        while isinstance(answer := await self._store.call_safely(_WRITE, *round_, first, self._answered), int):
            await self._doubt(self._bases, self._key, self._answered)
        if verb != first:
            await self._store.call(_WRITE, *round_, verb, 0)
        self._answered, self._at = self._number, trio.current_time()
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
