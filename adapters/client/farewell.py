"""What a producer that cannot go on still tells the server: one request, at once, within the clean-up's time.

Nothing here is repeated and nothing is raised: where the server does not hear it, its own limits end the generation.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, final

import trio

from penstock.engine import JSON, PenstockError, encode_json

from ..problems import Forbidden
from .wire import Wire, session_path

__all__ = ["Farewell"]

logger = logging.getLogger("penstock.client")


@final
class Farewell:
    """Of one generation."""

    def __init__(self, wire: Wire, session_id: str, generation_id: str) -> None:
        self._wire: Final = wire
        self._path: Final = session_path(session_id)
        self._session_id: Final = session_id
        self._generation_id: Final = generation_id

    async def stopped(self) -> None:
        """The producer was cancelled. Reaches a generation that waits, and one whose start is still on its way."""
        with self._shield():
            try:
                await self._tell("/stop", {"generation_id": self._generation_id, "reason": "cancelled"})
            except Forbidden:  # a token that may only produce
                await self._end("CANCELLED", "The producer was cancelled.")
            except PenstockError as error:
                self._log(error)

    async def failed(self) -> None:
        """Not all that the producer wrote is there: readers are not to wait for the rest."""
        with self._shield():
            await self._end("WRITE_FAILED", "Not all that the producer wrote could be delivered.")

    async def _end(self, code: str, text: str) -> None:
        """It bears no number: what became of the last one is not known."""
        body = {"outcome": "failed", "code": code, "message": text}
        try:
            await self._tell(f"/generations/{self._generation_id}/finish", body)
        except PenstockError as error:
            self._log(error)

    async def _tell(self, path: str, body: Mapping[str, JSON]) -> None:
        answer = await self._wire.exchange("POST", self._path + path, body=encode_json(body))
        if answer.refusal is not None:
            raise answer.refusal

    def _shield(self) -> trio.CancelScope:
        deadline = trio.current_time() + self._wire.config.cleanup_timeout
        return trio.CancelScope(shield=True, deadline=deadline)

    def _log(self, error: PenstockError) -> None:
        logger.warning(
            "session %s: generation %s is left to the server's limits: %s",
            self._session_id,
            self._generation_id,
            error,
        )
