"""One answer of a model, written into a generation as it comes.

Owns when a model is asked again, and with what: as long as nothing of its answer was written, and without the oldest
turns where all of them are too much for it. From the first piece on an error ends the generation, since readers have
seen what came. However it is left, the provider's connection is closed at once.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Hashable
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Final, Self, final

import trio
from attrs import define, field, frozen
from uuid_utils import uuid4

from penstock.engine import JSON, Block, Generation, InvalidBody, JSONObject, Message, check_json

from ..halves import Halves, mended
from .attaching import unattached
from .failures import ModelFailure
from .model import Answer, Model, Request
from .pieces import CARRIED, CallArguments, CallOpened, Carried, Closed, Finished, Piece, Spent, Words
from .retries import Retries
from .shortening import halved
from .transcript import parse_arguments
from .usage import add
from .waiting import patience

__all__ = ["Answered", "Asked", "Ledger", "answer"]

_log = logging.getLogger("penstock.models")

# An answer that was not one for these reasons ends the generation as failed; what was said before is kept.
_REFUSALS: Final = frozenset({"refusal", "content_filter"})


@final
@frozen
class Asked:
    """A tool call as the model made it; None for arguments that are no JSON object."""

    call_id: str
    name: str
    arguments: JSONObject | None


@final
@frozen(kw_only=True)
class Answered:
    """What became of an answer that came to its end."""

    reason: str
    calls: tuple[Asked, ...]


@final
@define
class Ledger:
    """What one generation's answers share: what they cost in sum, and the ids of their calls.

    The cost is told as it is known. While an answer is on its way it is ``partial``: a generation that ends in it has
    cost more than that.
    """

    generation: Generation
    _spent: JSONObject = field(factory=dict, init=False)
    _spending: JSONObject = field(factory=dict, init=False)
    _call_ids: set[str] = field(factory=set, init=False)

    def begin_answer(self) -> None:
        self._report({"partial": True})

    def spend(self, usage: JSONObject) -> None:
        """What the present answer cost so far. Told at once: an answer that is stopped has its price, too."""
        self._spending = usage
        self._report({"partial": True})

    def end_answer(self) -> None:
        self._spent, self._spending = add(self._spent, self._spending), {}
        self._report({})

    def _report(self, mark: JSONObject) -> None:
        known = add(self._spent, self._spending)
        if known:
            self.generation.report_usage({**known, **mark})

    @property
    def spending(self) -> JSONObject:
        return self._spending

    def call_id(self, proposed: str) -> str:
        """The id, or one of our own where the provider gave none or gave it twice: in a generation ids are unique."""
        call_id = proposed if proposed and proposed not in self._call_ids else f"call_{uuid4().hex[:24]}"
        self._call_ids.add(call_id)
        return call_id


async def answer(ledger: Ledger, model: Model, request: Request, retries: Retries, first_word: float) -> Answered:
    """Ask, and write what comes. The first word may take ``first_word`` seconds. Raises `ModelFailure`."""
    generation = ledger.generation
    ledger.begin_answer()
    attempt = 0
    while True:
        attempt += 1
        if request.left_out:
            await generation.status("shortened", {"left_out": request.left_out})
        if request.unseen:
            await generation.status("unseen", {"files": list(request.unseen)})
        writer = _Writer(ledger, model.name, request)
        try:
            await _attempt(generation, model, request, writer, first_word)
            break
        except ModelFailure as failure:
            pause = None if writer.begun else retries.pause(attempt, failure, random.random())
            if pause is not None and pause >= generation.idle_limit:
                pause = None  # it would end as stalled meanwhile, and nobody would know why
            if not writer.begun and (shorter := _shorter(request, failure)) is not request:
                request, pause = shorter, 0.0
            _log.warning(
                "session %s, generation %s: model %s, attempt %d: %.500s; %s",
                generation.session_id,
                generation.generation_id,
                model.name,
                attempt,
                failure,
                "giving up" if pause is None else f"again in {pause:.1f} s",
            )
            if pause is None:
                raise
            # Seen by readers, who else would take the silence for a standstill; the idle limit takes it as a sign, too.
            await generation.status("retrying", {"code": failure.code, "attempt": attempt, "seconds": round(pause, 3)})
        await trio.sleep(pause)
        await generation.status("thinking")
    ledger.end_answer()
    if writer.reason in _REFUSALS:
        raise ModelFailure("MODEL_REFUSED", writer.reason)
    return Answered(reason=writer.reason, calls=tuple(writer.calls))


def _shorter(request: Request, failure: ModelFailure) -> Request:
    """What can be asked in place of a request that was too long, or had something attached that the model does not
    take; the request itself if there is no such thing."""
    if failure.code == "MODEL_CONTEXT_TOO_LONG":
        shorter = halved(request)
        return unattached(request) if shorter is request else shorter
    return unattached(request) if failure.code == "MODEL_REJECTED" else request


async def _attempt(generation: Generation, model: Model, request: Request, writer: _Writer, first_word: float) -> None:
    asked: Answer | None = None
    going = True
    try:
        async with writer:
            async with patience(generation, first_word):
                asked = await model.ask(request)
                while going and not writer.begun:
                    going = await _write_next(asked, writer)
            while going:
                assert asked is not None
                going = await _write_next(asked, writer)
    finally:
        if asked is not None:
            with generation.cleanup():
                await asked.close()


async def _write_next(asked: Answer, writer: _Writer) -> bool:
    """Write what came; False behind the last of it."""
    pieces = await asked.next()
    for piece in pieces or ():
        await writer.write(piece)
    return pieces is not None


@define
class _OpenCall:
    asked: Asked
    json: str = ""


@define
class _OpenBlock:
    block: Block
    halves: Halves = field(factory=Halves)


@final
class _Writer:
    """Turns pieces into a message and its blocks. The message opens with the first piece that belongs into it."""

    def __init__(self, ledger: Ledger, model: str, request: Request) -> None:
        self._ledger: Final = ledger
        self._metadata: Final[dict[str, JSON]] = {"model": model}
        if request.left_out:
            self._metadata["left_out"] = request.left_out
        if request.unseen:
            self._metadata["unseen"] = list(request.unseen)
        self._carries: Final = bool(request.tools)  # without tools nothing is sent back, and none is kept for it
        self._stack = AsyncExitStack()
        self._message: Message | None = None
        self._blocks: dict[Hashable, _OpenBlock] = {}
        self._speaking: Hashable = None  # the key of the open block of text or reasoning
        self._open_calls: dict[Hashable, _OpenCall] = {}
        self.calls: list[Asked] = []
        self.reason = "stop"

    @property
    def begun(self) -> bool:
        """Whether something was written."""
        return self._message is not None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None and (self.begun or self.reason not in _REFUSALS):
                message = await self._open_message()
                for key in list(self._blocks):
                    await self._close(key)
                message.finish(reason=self.reason, usage=self._ledger.spending or None)
        finally:
            await self._stack.__aexit__(kind, error, traceback)

    async def write(self, piece: Piece) -> None:
        if type(piece) is Words:  # nearly all of them
            opened = self._blocks.get(piece.key)
            if opened is None:
                opened = await self._open_words(piece)
            await opened.block.write(opened.halves.add(piece.text))
            return
        match piece:
            case CallArguments(key, text):
                if key not in self._open_calls:
                    raise ModelFailure("MODEL_GARBLED", "arguments came for a call that is not open")
                opened = self._blocks[key]
                whole = opened.halves.add(text)
                self._open_calls[key].json += whole
                await opened.block.write(whole)
            case CallOpened(key, call_id, name):
                if not name or key in self._open_calls:
                    raise ModelFailure("MODEL_GARBLED", "a call came without a name, or twice")
                await self._close(self._speaking)
                call_id, name = self._ledger.call_id(mended(call_id)), mended(name)
                message = await self._open_message()
                await self._open(key, message.tool_call(call_id, name))
                self._open_calls[key] = _OpenCall(Asked(call_id, name, None))
            case Closed(key):
                await self._close(key)
            case Carried(value) if self._carries:
                _check_carried(value)
                await self._close(self._speaking)
                message = await self._open_message()
                async with message.data(name=CARRIED) as block:
                    await block.put(value)
            case Spent(usage):
                self._ledger.spend(usage)
            case Finished(reason):
                self.reason = mended(reason)

    async def _open_message(self) -> Message:
        if self._message is None:
            message = self._ledger.generation.message(metadata=self._metadata)
            self._message = await self._stack.enter_async_context(message)
        return self._message

    async def _open_words(self, piece: Words) -> _OpenBlock:
        await self._close(self._speaking)
        message = await self._open_message()
        block = message.text() if piece.kind == "text" else message.reasoning()
        self._speaking = piece.key
        return await self._open(piece.key, block)

    async def _open(self, key: Hashable, block: Block) -> _OpenBlock:
        opened = self._blocks[key] = _OpenBlock(await block.__aenter__())
        self._stack.push_async_exit(partial(self._leave, key))
        return opened

    async def _leave(
        self,
        key: Hashable,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the block of this key as it must be, if it still is open."""
        opened = self._blocks.pop(key, None)
        if opened is not None:
            await opened.block.__aexit__(kind, error, traceback)

    async def _close(self, key: Hashable) -> None:
        opened = self._blocks.get(key)
        if opened is None:
            return
        rest = opened.halves.rest()
        await opened.block.write(rest)
        call = self._open_calls.pop(key, None)
        if call is not None:
            arguments = parse_arguments(call.json + rest)
            if arguments is not None:
                opened.block.finish(arguments=arguments)
            self.calls.append(Asked(call.asked.call_id, call.asked.name, arguments))
        await self._leave(key, None, None, None)


def _check_carried(value: JSONObject) -> None:
    try:
        check_json(value, "what the provider wants back")
    except InvalidBody as error:
        raise ModelFailure("MODEL_GARBLED", error.detail) from error
