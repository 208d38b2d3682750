"""`KeptLog`: a log around another one that keeps everything that was ever committed, of deleted lives too.

What readers were told of a session outlives it in what they recorded; this is what the rules of deliveries, and of
logs that are gone, are checked against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import final

from .. import (
    Append,
    Claim,
    Compact,
    Delete,
    Entry,
    EventLog,
    Head,
    Keep,
    LogStatistics,
    PenstockError,
    Release,
    StaleEpoch,
)
from ..log.port import BLOCK, Write
from ..rules.records import CLAIMS
from .violation import Violation

__all__ = ["KeptLog"]

# So many are kept of a session at least.
_CLAIMS = 64


@final
class KeptLog(EventLog):
    """Passes everything on to ``inner``. Compaction changes what ``inner`` has, not what is kept here.

    ``strays`` has what was written by who is not the session's owner (R10); `check_kept` has it among what it finds.
    """

    def __init__(self, inner: EventLog) -> None:
        self.inner = inner
        self.strays: list[Violation] = []
        self._blocks: dict[str, int] = {}  # of tokens, by session: what its last owner was given
        self._lives: dict[tuple[str, str], list[Entry]] = {}
        self._over: set[tuple[str, str]] = set()
        self._claims: dict[tuple[str, str], dict[str, bytes]] = {}

    def lives(self) -> Iterator[tuple[str, str]]:
        """Every life of every session, as session id and epoch, in the order they began."""
        return iter(list(self._lives))

    def kept(self, session_id: str, epoch: str) -> list[Entry]:
        """What was committed in this life so far, as it was at its commit."""
        return list(self._lives.get((session_id, epoch), ()))

    @property
    def acknowledged(self) -> dict[tuple[str, str], list[Entry]]:
        """What was committed in lives that were not deleted through this log, for `check_acknowledged`."""
        return {life: entries for life, entries in self._lives.items() if life not in self._over}

    def tail(self, session_id: str, epoch: str) -> int:
        """The committed tail of this life at this very moment."""
        return len(self._lives.get((session_id, epoch), ()))

    def submit(self, write: Write, report: Callable[[PenstockError | None], None]) -> None:
        def reported(error: PenstockError | None) -> None:
            if error is None:
                self._check_owner(write)
            if error is None and isinstance(write, Delete):
                self._over |= {life for life in self._lives if life[0] == write.session_id}
            if error is None and isinstance(write, Append):
                entries = self._lives.setdefault((write.session_id, write.epoch), self._inherited(write))
                entries.extend(map(Entry, range(write.expected_tail + 1, 1 << 62), write.events))
            report(error)

        self.inner.submit(write, reported)

    def _inherited(self, write: Append) -> list[Entry]:
        """What a new epoch of the life that the session had begins with: the store went back, and so much is there."""
        former = [entries for (session_id, _), entries in self._lives.items() if session_id == write.session_id]
        return former[-1][: write.expected_tail] if write.expected_tail else []

    def _check_owner(self, write: Write) -> None:
        """R10: what is stored is written under the block of tokens that the last claim, or the creation, has given."""
        if isinstance(write, Compact | Keep | Release):
            return
        block = write.token // BLOCK
        if isinstance(write, Claim):
            self._note_claim(write)
        if isinstance(write, Claim) or (isinstance(write, Append) and write.create):
            self._blocks[write.session_id] = block
        elif block != self._blocks.setdefault(write.session_id, block) and not (
            isinstance(write, Delete) and write.forced
        ):
            text = f"{write.session_id} was written under token {write.token}, which no claim has given"
            self.strays.append(Violation("R10", None, text))

    def _note_claim(self, write: Claim) -> None:
        life = (write.session_id, write.epoch)
        if life in self._lives and write.anew is None:
            self._claims.setdefault(life, {}).update(write.record(self.tail(*life)))

    async def check_claims(self) -> list[Violation]:
        """R10: what is stored of claims is what was claimed, by whom and at which tail; and nothing of them is missing.

        But for those that are too old to be kept. What is claimed meanwhile may be told as missing.
        """
        found: list[Violation] = []
        for (session_id, epoch), claims in self._claims.items():
            try:
                stored = await self.inner.records(session_id, epoch, CLAIMS)
            except StaleEpoch:
                continue
            # Of a store that went back, what was before the epoch is not known here.
            stored = {key: value for key, value in stored.items() if key >= min(claims)}
            if stored != dict(list(claims.items())[-max(len(stored), _CLAIMS) :]):
                text = f"{session_id} has of its claims {sorted(stored)}, and they were {claims}"
                found.append(Violation("R10", None, text))
        return found

    async def head(self, session_id: str) -> Head | None:
        return await self.inner.head(session_id)

    async def read(self, session_id: str, epoch: str, *, after: int, limit: int, max_bytes: int) -> list[Entry]:
        return await self.inner.read(session_id, epoch, after=after, limit=limit, max_bytes=max_bytes)

    async def records(self, session_id: str, epoch: str, prefix: str = "") -> dict[str, bytes]:
        return await self.inner.records(session_id, epoch, prefix)

    async def record(self, session_id: str, epoch: str, key: str) -> bytes | None:
        return await self.inner.record(session_id, epoch, key)

    async def holders(self, key: str, *, after: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
        return await self.inner.holders(key, after=after, limit=limit)

    async def owned(self, owner: str, *, having: Sequence[str], after: str = "", limit: int = 1000) -> list[str]:
        return await self.inner.owned(owner, having=having, after=after, limit=limit)

    async def heads(self, *, after: str = "", limit: int = 100) -> list[Head]:
        return await self.inner.heads(after=after, limit=limit)

    async def ranked(self, *, prefix: str = "", behind: tuple[int, str] | None = None, limit: int = 100) -> list[Head]:
        return await self.inner.ranked(prefix=prefix, behind=behind, limit=limit)

    async def doubt(self, missed: Head, *, proven: bool) -> bool:
        return await self.inner.doubt(missed, proven=proven)

    async def doubt_all(self) -> bool:
        return await self.inner.doubt_all()

    def statistics(self) -> LogStatistics:
        return self.inner.statistics()

    async def aclose(self) -> None:
        await self.inner.aclose()
