"""Commands over HTTP: sent, repeated where that is safe, and refused by exceptions.

Owns what is repeated. A command that the server carries out once however often it comes (reads, patches, and what bears
an id or a key of ours) is repeated while there is no answer, or one that asks for it; another one is sent once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, final

import trio

from penstock.engine import JSON, CapacityError, JSONObject, PenstockError, check_json, encode_json

from ..problems import Unauthenticated
from .answers import parsed
from .backoff import Backoff
from .wire import Answer, Wire

__all__ = ["Commands", "given"]


def given(**fields: JSON) -> dict[str, JSON]:
    """A body of those fields that are something."""
    return {name: value for name, value in fields.items() if value is not None}


@final
class Commands:
    """The commands of one client."""

    def __init__(self, wire: Wire) -> None:
        self.wire: Final = wire

    async def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, JSON] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool,
    ) -> tuple[JSONObject, int]:
        """The answer (empty where it has no content) and its status.

        Raises `InvalidBody` for a body that JSON cannot say, `Unreachable`, `BadAnswer`, and the error that the server
        refuses with.
        """
        content = None if body is None else encode_json(check_json(body, "the body"))
        answer = await self.exchange(method, path, content, query=query, headers=headers, repeatable=repeatable)
        return parsed(answer.body), answer.status

    async def exchange(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        within: float | None = None,
        repeatable: bool,
    ) -> Answer:
        """The answer as it came, to a body that is what it is. Each attempt has ``within`` seconds at most.

        Raises as `ask`, but for what is said of JSON.
        """
        config = self.wire.config
        backoff = Backoff(config.first_pause, config.longest_pause)
        given_up = trio.current_time() + config.patience
        renewed = False
        while True:
            begun = trio.current_time()
            try:
                # It is cut short only where another attempt may follow.
                again = repeatable and config.patience > 0
                answer = await self.wire.exchange(
                    method, path, body=content, query=query, headers=headers, repeatable=again, within=within
                )
                if answer.refusal is not None:
                    raise answer.refusal
                return answer
            except Unauthenticated:
                # Refused before anything was done: another token, if there is one to be had, and once.
                if renewed or not self.wire.renews:
                    raise
                renewed = True
                continue
            except PenstockError as error:
                if not repeatable or not error.retryable:
                    raise
                asked = error.retry_after if isinstance(error, CapacityError) else 0.0
                pause = backoff.next(asked, spent=trio.current_time() - begun)
                if trio.current_time() + pause > given_up:
                    raise
            await trio.sleep(pause)
