"""The producer over a model: asks it with the session's transcript, runs the tools that it calls, and asks again.

Owns the loop. What the model sees is always read from the session, so what was said, steered or refused meanwhile is
part of it, and every tool's result is durable before the model hears of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, final

import trio

from penstock.engine import Generation, Input, JSONObject, ProducerError

from ..halves import mended
from .answering import Answered, Asked, Ledger, answer
from .attaching import attached
from .failures import ModelFailure
from .model import Model, Request
from .retries import Retries
from .shortening import fitted
from .tools import Outcome, Tool, offers, run_call, toolbox
from .transcript import transcript
from .waiting import FIRST_WORD

__all__ = ["Assistant"]

# A model that calls tools in a circle spends money until somebody looks.
_ROUNDS: Final = 16


@final
class Assistant:
    """A producer: ``producers={"assistant": Assistant(model, system="Be brief.", tools=[…])}``.

    It does not read the generation's input. Tools run one after the other, in the order in which the model called
    them: a later one may rely on an earlier. A ``steer`` input with a ``text`` is heard before the model is asked
    again.

    With ``context_tokens``, how many the model reads and writes in all, the oldest turns are left out of a
    conversation that is longer; without it they are left out when the provider says that it is. The first word of an
    answer may take ``first_word`` seconds, or the generation's idle limit where that is longer. With ``show_errors``
    readers are told in the provider's own words why it did not accept a request: for who may see what the server's
    log says.

    Fails with a code of `failures`. `aclose` closes the model's connections.
    """

    def __init__(
        self,
        model: Model,
        *,
        system: str | None = None,
        tools: Iterable[Tool] = (),
        rounds: int = _ROUNDS,
        retries: Retries | None = None,
        context_tokens: int | None = None,
        first_word: float = FIRST_WORD,
        show_errors: bool = False,
    ) -> None:
        self._model: Final = model
        self._system: Final = system
        self._tools: Final = toolbox(tools)
        self._rounds: Final = rounds
        self._retries: Final = retries or Retries()
        self._context_tokens: Final = context_tokens
        self._first_word: Final = first_word
        self._show_errors: Final = show_errors

    async def __call__(self, generation: Generation) -> None:
        try:
            await self._run(generation)
        except ModelFailure as failure:
            text = failure.told(in_own_words=self._show_errors)
            raise ProducerError(mended(text), reason=failure.code, again=failure.retryable) from failure

    async def _run(self, generation: Generation) -> None:
        ledger = Ledger(generation)
        for _ in range(self._rounds):
            await generation.status("thinking")
            said = await self._ask(ledger)
            if not said.calls:
                return
            for call in said.calls:
                await _tell(generation, call, await run_call(generation, self._tools, call))
            await _hear(generation)
        raise ModelFailure("MODEL_TOO_MANY_ROUNDS", f"{self._rounds} rounds")

    async def aclose(self) -> None:
        await self._model.aclose()

    async def _ask(self, ledger: Ledger) -> Answered:
        generation = ledger.generation
        await generation.flush()  # a snapshot holds what is stored
        turns = transcript((await generation.snapshot()).messages, generation.generation_id)
        if not turns:
            raise ModelFailure("MODEL_NOTHING_ASKED", "no user message")
        request = Request(turns=turns, system=self._system, tools=offers(self._tools))
        request = await attached(generation, request, self._model)
        if self._context_tokens is not None:
            request = fitted(request, self._context_tokens)
        return await answer(ledger, self._model, request, self._retries, self._first_word)


async def _tell(generation: Generation, call: Asked, outcome: Outcome) -> None:
    """Write the result of a call into the transcript."""
    async with generation.message(role="tool") as message, message.tool_result(call.call_id, name=call.name) as block:
        if isinstance(outcome.value, str):
            await block.write(outcome.value)
        else:
            await block.put(outcome.value)
        block.finish(is_error=outcome.is_error or None)


async def _hear(generation: Generation) -> None:
    """Take what was steered meanwhile into the transcript. Other inputs are handed back at the end."""
    while True:
        try:
            given = generation.receive_input_nowait()
        except trio.WouldBlock:
            return
        text = _steering(given)
        if text:
            async with generation.message(role="user") as message, message.text() as block:
                await block.write(text)
            await generation.apply(given)


def _steering(given: Input) -> str | None:
    content: JSONObject = given.content
    text = content.get("text")
    return text if given.kind == "steer" and isinstance(text, str) and text.strip() else None
