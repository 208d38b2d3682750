"""Rounds of writes: each is one call of ``write.lua``, carried out once however often it is sent.

A lane is the one writer of its shards. It has one round under way at a time, and takes what has gathered meanwhile as
the next: group commit without a timer. Rounds have numbers, and the store remembers what it said of the last one. So a
round whose answer was lost is sent again, and one that comes late, behind another, changes nothing.
"""

from __future__ import annotations

import logging
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, final

import msgspec
import trio
from attrs import frozen

from ...errors import PenstockError, StorageError, WriteFailed
from ..fence import admit
from ..port import MOST, Append, Compact, Keep, Report, Write
from ..rounds import Rounds
from .layout import Layout, Packable, pack, packed, refusal
from .store import Script, Store, of_answers

__all__ = ["Lane", "Outcome"]

logger = logging.getLogger("penstock.log")

_WRITE: Final = Script.load("write")


@final
@frozen
class Outcome:
    """What came of a round, in the order the writes were handed over. ``seconds`` is how long it took."""

    reports: list[tuple[Report, PenstockError | None]]
    landed: int
    events: int
    seconds: float


@final
class Lane:
    """``bases`` are the shards that it writes to; ``told`` is called with what came of each round."""

    def __init__(self, store: Store, layout: Layout, bases: list[str], told: Callable[[Outcome], None]) -> None:
        self._store = store
        self._layout = layout
        self._told = told
        self._key = f"{bases[0]}b{uuid.uuid4().hex}"
        self._number = 0
        self._rounds = Rounds()
        self._compacts: deque[tuple[Compact, Report]] = deque()
        self._wake = trio.Event()
        self._closing = False

    def hand_over(self, write: Write, report: Report) -> None:
        if isinstance(write, Compact):
            self._compacts.append((write, report))
        else:
            self._rounds.add((write, report))
        self._wake.set()

    def close(self) -> None:
        """Carry out what was handed over, then end. Does not wait."""
        self._closing = True
        self._wake.set()

    async def run(self) -> None:
        """Carry out what is handed over, until it is closed."""
        while True:
            if self._rounds.waiting:
                await self._carry_out(self._rounds.next())
            elif self._compacts:
                await self._carry_out([self._compacts.popleft()])
            elif self._closing:
                return
            else:
                self._wake = trio.Event()
                await self._wake.wait()

    async def _carry_out(self, handed: Sequence[tuple[Write, Report]]) -> None:
        self._number += 1
        begun = trio.current_time()
        writes = [write for write, _ in handed]
        sent = [self._packed(write) for write in writes]
        bodies: list[Packable] = [body for body in sent if isinstance(body, msgspec.Raw)]
        try:
            answer = await self._store.call(_WRITE, self._key, self._number, pack(bodies))
            verdicts = iter(of_answers(answer, len(bodies)))
            errors = [
                refusal(write, next(verdicts)) if isinstance(body, msgspec.Raw) else body
                for write, body in zip(writes, sent, strict=True)
            ]
        except StorageError as error:
            self._fail(handed, error.detail)
        except Exception:  # a task that dies here leaves everyone waiting
            logger.exception("a round of writes failed")
            self._fail(handed, "the round could not be carried out")
        else:
            landed = [write for write, error in zip(writes, errors, strict=True) if error is None]
            self._told(
                Outcome(
                    reports=[(report, error) for (_, report), error in zip(handed, errors, strict=True)],
                    landed=len(landed),
                    events=sum(len(write.events) for write in landed if isinstance(write, Append)),
                    seconds=trio.current_time() - begun,
                )
            )

    def _fail(self, handed: Sequence[tuple[Write, Report]], detail: str) -> None:
        """Report a round as failed, and while the store is in trouble what waits behind it, too: nobody waits twice.

        It may arrive all the same, until the next round has. Who goes on from the head then finds out.
        """
        failed: list[tuple[Write, Report]] = [*handed]
        if self._store.trouble is not None:
            while self._rounds.waiting:
                failed += self._rounds.next()
            failed += self._compacts
            self._compacts.clear()
        reports: list[tuple[Report, PenstockError | None]] = [
            (report, WriteFailed(detail, whole=True, session_id=write.session_id)) for write, report in failed
        ]
        self._told(Outcome(reports, landed=0, events=0, seconds=0.0))

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
