"""A remote producer's chunks on the wire: one batch after the other, each exactly once, in order.

Owns the producer's numbers (`Producer-Id`, `-Epoch`, `-Seq`), the attempts, and who waits for room and for
acknowledgements. One task sends; what cannot be delivered is told to ``on_failed`` once, and nothing is sent behind it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Final, final

import trio
from attrs import frozen
from uuid_utils import uuid7

from penstock.engine import JSON, JSONObject, PenstockError, SessionDeleted, StaleError, TimedOut, encode_json

from ..problems import Unauthenticated
from ..requests.answers import ChunksAnswer
from .answers import parsed, read
from .backoff import Backoff
from .batching import Batcher
from .refusals import Unreachable
from .retrying import Again, Budget, Failure, GiveUp, Recover, Verdict
from .wire import Wire, session_path

__all__ = ["SendStatistics", "Sender"]

logger = logging.getLogger("penstock.client")


@final
@frozen(kw_only=True)
class SendStatistics:
    """``chunks`` written, ``acknowledged`` of them, in ``batches``; ``requests`` counts every attempt."""

    chunks: int
    acknowledged: int
    batches: int
    requests: int
    recovered: bool


@final
class Sender:
    """The way to one generation. `run` is its task."""

    def __init__(
        self,
        wire: Wire,
        session_id: str,
        generation_id: str,
        *,
        on_answer: Callable[[ChunksAnswer], None],
        on_failed: Callable[[Exception], None],
    ) -> None:
        config = wire.config
        self._wire: Final = wire
        self._session_id: Final = session_id
        self._generation_id: Final = generation_id
        self._on_answer: Final = on_answer
        self._on_failed: Final = on_failed
        self._batcher: Final = Batcher(
            linger=config.linger, count=config.batch, size=config.batch_bytes, bound=config.buffered
        )
        self._work: Final = trio.lowlevel.ParkingLot()
        self._progress: Final = trio.lowlevel.ParkingLot()
        self._producer_id: Final = str(uuid7())
        self._seq = 0
        self._batches = 0
        self._requests = 0
        self._recovered = False
        self._failed = False
        self._keeps = False
        self._asked_at = -math.inf  # when the last request went out
        self.scope: Final = trio.CancelScope()

    @property
    def began(self) -> bool:
        """Whether anything was written at all."""
        return self._batcher.put_count > 0

    @property
    def full(self) -> bool:
        return self._batcher.full and not self._failed

    def statistics(self) -> SendStatistics:
        return SendStatistics(
            chunks=self._batcher.put_count,
            acknowledged=self._batcher.acknowledged,
            batches=self._batches,
            requests=self._requests,
            recovered=self._recovered,
        )

    def put(self, chunk: bytes) -> None:
        """Have a chunk sent, behind those before it."""
        idle = self._batcher.put_count == self._batcher.acknowledged
        self._batcher.put(chunk, trio.current_time())
        if idle or self._batcher.due <= trio.current_time():
            self._work.unpark_all()

    def keep(self) -> None:
        """The generation is live: keep its lease from here on, also before its first chunk."""
        self._keeps = True
        self._work.unpark_all()

    async def wait_room(self) -> None:
        """Wait while as many chunks as may are not acknowledged."""
        while self.full:
            await self._progress.park()

    async def flush(self) -> None:
        """Wait until all that was put is acknowledged, or nothing more will be.

        Raises `TimedOut` after `ClientConfig.flush_timeout`.
        """
        wanted = self._batcher.put_count
        self._batcher.hasten()
        self._work.unpark_all()
        with trio.move_on_after(self._wire.config.flush_timeout) as limit:
            while self._batcher.acknowledged < wanted and not self._failed:
                await self._progress.park()
        if limit.cancelled_caught:
            missing = wanted - self._batcher.acknowledged
            raise TimedOut(
                f"{missing} chunks are not acknowledged after {self._wire.config.flush_timeout} s",
                session_id=self._session_id,
                generation_id=self._generation_id,
            )

    async def run(self) -> None:
        """Send until cancelled, or until something cannot be delivered. Raises nothing."""
        try:
            with self.scope:
                while True:
                    if not await self._wait_due():
                        await self._say_that_it_lives()
                        continue
                    batch = self._batcher.take()
                    answer = await self._deliver("/chunks/batch", batch.body)
                    self._batcher.delivered()
                    self._batches += 1
                    self._keeps = True
                    self._on_answer(read(ChunksAnswer, answer))
                    self._progress.unpark_all()
        except Exception as error:  # noqa: BLE001  # whatever it is, the producer learns of it
            level = logging.INFO if isinstance(error, StaleError) else logging.ERROR
            logger.log(
                level,
                "session %s: what generation %s wrote cannot be delivered: %s",
                self._session_id,
                self._generation_id,
                error,
            )
            self._on_failed(error)
        finally:
            self._failed = True
            self._progress.unpark_all()

    async def finish(self, body: Mapping[str, JSON]) -> None:
        """Send the generation's end, behind what was flushed. Raises what it is refused with, or `TimedOut`."""
        with trio.move_on_after(self._wire.config.finish_timeout):
            try:
                await self._deliver(f"/generations/{self._generation_id}/finish", encode_json(body))
                return
            except PenstockError as error:
                logger.error(
                    "session %s: generation %s could not be finished: %s [%s]",
                    self._session_id,
                    self._generation_id,
                    error,
                    error.code,
                )
                raise
        raise TimedOut(
            f"the generation's end is not acknowledged after {self._wire.config.finish_timeout} s",
            session_id=self._session_id,
            generation_id=self._generation_id,
        )

    async def _wait_due(self) -> bool:
        """Wait until a batch is to go, or, then False, a sign of life in its place."""
        while (due := self._batcher.due) > trio.current_time():
            if self._lease_due <= trio.current_time():
                return False
            with trio.move_on_at(min(due, self._lease_due)):
                await self._work.park()
        return True

    @property
    def _lease_due(self) -> float:
        """When the server is to hear of the producer again: twice before it would be missed."""
        lease = self._wire.config.lease
        return math.inf if lease is None or not self._keeps else self._asked_at + lease / 3

    async def _say_that_it_lives(self) -> None:
        """One attempt, which has no number: where it does not arrive, the next one tells the same.

        Raises what says that nothing more can be written.
        """
        body = encode_json({"generation_id": self._generation_id, "chunks": []})
        tried = await self._attempt("POST", f"{session_path(self._session_id)}/chunks/batch", body, counts=False)
        if isinstance(tried, Failure) and isinstance(tried.error, StaleError | SessionDeleted):
            raise tried.error

    async def _deliver(self, path: str, body: bytes) -> JSONObject:
        """One request under the next number, with all its attempts. The number is used up when it is answered."""
        config = self._wire.config
        budget = Budget(
            config.attempts,
            config.outage,
            Backoff(config.first_retry, config.longest_retry),
            now=trio.current_time,
            renews=self._wire.renews,
            # A new session lacks what the lost one held: only a generation that has nothing in it yet may begin there.
            may_recover=self._seq == 0 and not self._recovered,
        )
        while True:
            tried = await self._attempt("POST", f"{session_path(self._session_id)}{path}", body)
            if not isinstance(tried, Failure):
                self._seq += 1
                return tried
            verdict: Verdict = budget.judge(tried)
            if isinstance(verdict, Recover):
                logger.warning("session %s does not exist and is made", self._session_id)
                made = await self._attempt("PUT", session_path(self._session_id), b"{}")
                if not isinstance(made, Failure):
                    self._recovered = True
                    budget.made()
                    continue
                verdict = budget.judge(made, making=True)  # then the request itself again: it may be there by now
            if isinstance(verdict, GiveUp):
                raise verdict.error
            assert isinstance(verdict, Again)
            logger.info(
                "session %s: %s is sent again in %.3f s (%s)",
                self._session_id,
                path,
                verdict.pause,
                tried.error.code,
            )
            await trio.sleep(min(verdict.pause, config.longest_retry_after))

    async def _attempt(self, method: str, path: str, body: bytes, *, counts: bool = True) -> JSONObject | Failure:
        stamp = {}
        if counts and method == "POST":
            stamp = {
                "Producer-Id": self._producer_id,
                "Producer-Epoch": "0",
                "Producer-Seq": str(self._seq),
            }
        if self._wire.config.lease is not None and method == "POST":
            stamp["Producer-Lease"] = f"{self._wire.config.lease:g}"
        self._requests += 1
        self._asked_at = trio.current_time()
        try:
            answer = await self._wire.exchange(method, path, body=body, headers=stamp, repeatable=True)
        except (Unauthenticated, Unreachable) as error:
            return Failure(error=error)
        if answer.refusal is None:
            return parsed(answer.body)
        return Failure(error=answer.refusal, status=answer.status, retry_after=answer.retry_after or 0.0)
