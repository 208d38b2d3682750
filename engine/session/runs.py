"""Starts become runs: a producer's task, its pen and its limits, over the structure of one generation.

Owns what a run is made of, for a start and for a remote generation that the log holds open. When one is made, and
what is written of it, is `starting`'s.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import final

from ..config import Config
from ..generation.generation import Producer
from ..generation.run import Run
from ..generation.standin import REMOTE, StandIn
from ..generation.watchdog import LimitName
from ..reducer import Snapshot
from ..rules.lifecycle import OpenGeneration
from ..rules.policy import Policy
from ..stream.history import Reads
from ..stream.journal import Journal
from .arguments import checked_page
from .messages import Messages
from .recovery import Found
from .slot import Slot
from .transaction import StartRequest

__all__ = ["Runs"]


@final
class Runs:
    """Makes the runs of one session in memory."""

    __slots__ = ("_config", "_journal", "_on_limit", "_reads", "_slot", "find_producer", "messages")

    def __init__(
        self,
        journal: Journal,
        reads: Reads,
        config: Config,
        *,
        slot: Slot,
        messages: Messages,
        find_producer: Callable[[str], Producer],
        on_limit: Callable[[Run, LimitName], None],
    ) -> None:
        self._journal = journal
        self._reads = reads
        self._config = config
        self._slot = slot
        self._on_limit = on_limit
        self.messages = messages
        self.find_producer = find_producer

    def make(self, structure: OpenGeneration, request: StartRequest) -> Run:
        """The run that was asked for; it is to be launched."""
        return Run(
            structure,
            self._journal,
            self._config,
            self,
            producer=request.producer,
            producer_name=request.producer_name,
            input=request.input,
            metadata=request.metadata or {},
            on_last_disconnect=request.on_last_disconnect,
        )

    def adopt(self, found: Found) -> None:
        """Let a remote generation that the log holds open go on as the live one; it is to be launched."""
        assert found.open is not None
        assert found.record is not None
        request = StartRequest(
            generation_id=found.open.generation_id,
            proposed=True,
            producer=StandIn(adopted=True),
            producer_name=REMOTE,
            registered=True,
            policy=Policy.REJECT,
            job_id=found.open.job_id,
            on_last_disconnect=found.record.on_last_disconnect,
        )
        run = self._slot.live = self.make(found.open, request)
        for asked in found.approvals:
            run.approvals.note(asked)
        for given in found.inputs:
            run.inputs.adopt(given, waiting=found.open.inputs.get(given.input_id, False))

    # --- for those that were made

    def snapshot(self, limit: int | None, before: str | None) -> Awaitable[Snapshot]:
        return self._reads.snapshot(*checked_page(limit, before))

    def on_done(self, run: Run) -> None:
        self._slot.on_done(run)

    def on_limit(self, run: Run, limit: LimitName) -> None:
        self._on_limit(run, limit)
