"""An engine with a model's producer in it, over a scripted provider; held against all rules when it is left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import trio
from attrs import define

from penstock.adapters.models import Assistant, Model, Retries, Tool, open_model
from penstock.engine import JSON, Config, Event, GenerationFinished, GenerationStatus, JSONObject, MessageView, Session
from penstock.engine.testing import EngineUnderTest, open_test_engine
from tests.adapters.providers import Provider, Wire

__all__ = ["QUICK", "Talk", "model_of", "talking"]

PATIENCE = 10.0

# Pauses that nobody waits for; their lengths are `test_models_retries`'s.
QUICK = Retries(first_pause=0.001, longest_pause=0.002)


def model_of(wire: Wire, provider: Provider, options: JSONObject | None = None) -> Model:
    return open_model(f"{wire.kind}:small", base_url=provider.url + wire.base, api_key="key", options=options)


@define
class Talk:
    world: EngineUnderTest
    session: Session

    async def say(self, text: str | None) -> GenerationFinished:
        """Start an answer and wait for its end."""
        await self.session.start("model", text=text)
        return await self.end()

    async def end(self) -> GenerationFinished:
        """The end of the newest generation."""
        started: str | None = None
        with trio.fail_after(PATIENCE):
            async with self.session.subscribe() as events:
                async for event in events:
                    if event.type == "generation.started":
                        started = event.generation_id
                    if (
                        isinstance(event.data, GenerationFinished)
                        and event.offset == (await self.session.cursor()).offset
                    ):
                        assert event.generation_id == started
                        return event.data
        raise AssertionError("the stream ended")

    async def messages(self) -> list[MessageView]:
        return list((await self.session.snapshot()).messages)

    async def last(self) -> MessageView:
        return (await self.messages())[-1]

    async def events(self) -> list[Event]:
        return await self.world.events(self.session)

    async def statuses(self) -> list[tuple[str, JSON]]:
        """What was told of what goes on, with the detail."""
        found = [event.data for event in await self.events()]
        return [(data.status, data.detail) for data in found if isinstance(data, GenerationStatus)]

    async def until(self, text: str) -> None:
        """Wait until this stands in a block of the newest message."""
        with trio.fail_after(PATIENCE):
            async with self.session.subscribe() as events:
                async for _ in events:
                    if text in str((await self.last()).blocks):
                        return
        raise AssertionError("the stream ended")

    async def wait_event(self, type_: str, number: int = 1) -> Event:
        """The event of this type with this number, from 1."""
        with trio.fail_after(PATIENCE):
            async with self.session.subscribe() as events:
                async for event in events:
                    if event.type == type_:
                        number -= 1
                        if not number:
                            return event
        raise AssertionError("the stream ended")


@asynccontextmanager
async def talking(
    model: Model,
    *,
    system: str | None = None,
    tools: Iterable[Tool] = (),
    rounds: int = 4,
    retries: Retries = QUICK,
    context_tokens: int | None = None,
    first_word: float = 600,
    show_errors: bool = False,
    config: Config | None = None,
) -> AsyncIterator[Talk]:
    assistant = Assistant(
        model,
        system=system,
        tools=tools,
        rounds=rounds,
        retries=retries,
        context_tokens=context_tokens,
        first_word=first_word,
        show_errors=show_errors,
    )
    try:
        async with open_test_engine(producers={"model": assistant}, config=config) as world:
            yield Talk(world, await world.engine.create_session("talk"))
    finally:
        with trio.move_on_after(1, shield=True):
            await assistant.aclose()
