"""What is done in a conversation, turn by turn: by both clients, and whatever becomes of the turns before."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, Literal, TypeAlias, TypeVar, final
from uuid import uuid4

import httpx
import trio
from attrs import frozen

from penstock.adapters.client import RemoteSession
from penstock.engine import Cursor, PenstockError, PolicyName, Queued, new_message_id

from .ledger import Ledger
from .script import Script, ScriptRefused

__all__ = ["TURNS", "Talk"]

# What one turn may meet in the turns of others, and what is so for whoever asks.
_EXPECTED: Final = frozenset(
    [
        *("GENERATION_NOT_FOUND", "STALE_GENERATION", "GENERATION_MISMATCH", "GENERATION_ACTIVE", "QUEUE_FULL"),
        *("STALE_PRODUCER", "TOO_MANY_STRAGGLERS"),
    ]
)

# What a command may be refused with that is sent once, when its node dies, or the store is away.
_UNSENT: Final = frozenset(
    ["UNREACHABLE", "SESSION_MOVED", "DRAINING", "OVERLOADED", "TIMEOUT", "WRITE_FAILED", "DEGRADED"]
)

_POLICIES: Final[list[PolicyName]] = ["supersede", "supersede", "rollback", "queue", "queue", "latest", "reject"]

_OF_PRODUCERS: Final[list[PolicyName | None]] = [None, "supersede", "queue", "latest"]

_QUEUES: Final[list[Literal["pause", "continue", "clear"]]] = ["pause", "continue", "clear"]

# What a stop answers behind which the end is stored.
_ENDED: Final = ("stopped", "stopping", "already_done")

T = TypeVar("T")


@final
@frozen
class Talk:
    """One conversation, for who talks in it. ``urls`` gives that of any node that is up."""

    session: RemoteSession
    script: Script
    ledger: Ledger
    chance: random.Random
    counts: Counter[str]
    urls: Callable[[], str]

    async def ask(self, what: str, answer: Awaitable[T], *, once: bool = False) -> T | None:
        """Wait for an answer and count it; None where it is a refusal. ``once``: the client does not repeat it.

        What a client repeats is refused by what is so, and never because a node or the store was away.
        """
        try:
            told = await answer
        except (PenstockError, ScriptRefused) as error:
            self.counts[f"{what}: {error.code}"] += 1
            if error.code not in _EXPECTED and not (once and error.code in _UNSENT):
                self.ledger.fault(f"{what} was refused: {error.code} {error}")
            return None
        self.counts[what] += 1
        return told

    async def pause(self, longest: float) -> None:
        await trio.sleep(self.chance.uniform(0, longest))

    def words(self) -> str:
        return " ".join(f"wörd{self.chance.randrange(10_000)}💧" for _ in range(self.chance.randint(3, 60)))


Turn: TypeAlias = Callable[[Talk], Awaitable[None]]


async def answer(talk: Talk) -> None:
    """An answer of the built-in producer that is written for seconds, and what people do to it."""
    session, chance, ledger = talk.session, talk.chance, talk.ledger
    policy = chance.choice(_POLICIES)
    generation_id = str(uuid4())
    pace = {"delay": chance.choice([0.01, 0.05, 0.2])}
    start = session.start("echo", text=talk.words(), input=pace, policy=policy, generation_id=generation_id)
    started = await talk.ask(f"start {policy}", start)
    if started is not None:
        ledger.acknowledge("start", started.generation_id, started.cursor)
        await talk.pause(3)
        await _meddle(talk, generation_id, waits=isinstance(started, Queued))
    else:
        await talk.pause(3)


async def _meddle(talk: Talk, generation_id: str, *, waits: bool) -> None:
    session, chance, ledger = talk.session, talk.chance, talk.ledger
    what = chance.random()
    if what < 0.35:
        queue = chance.choice(_QUEUES)
        stopped = await talk.ask("stop", session.stop(generation_id, queue=queue))
        if stopped is not None and stopped.state in _ENDED:
            ledger.acknowledge("end", generation_id)
    elif what < 0.55:
        input_id = await talk.ask("input", session.input(generation_id, "steer", {"text": "faster"}))
        if input_id is not None:
            ledger.acknowledge("input", input_id)
    elif what < 0.65 and waits:
        await talk.ask("dequeue", session.dequeue(generation_id), once=True)
    elif what < 0.75:
        await talk.ask("queue/next", session.queue_next(), once=True)


async def post(talk: Talk) -> None:
    """A message, and then a read of any node: it is as new as the answer was."""
    message_id = new_message_id()
    posted = await talk.ask("post", talk.session.post(f"said {uuid4().hex}", message_id=message_id))
    if posted is not None:
        talk.ledger.acknowledge("post", message_id, posted.cursor)
        await _read(talk, posted.cursor)
    await talk.pause(1)


async def _read(talk: Talk, cursor: Cursor) -> None:
    """R11: what was acknowledged is in every later read, whichever node is asked."""
    url = f"{talk.urls()}/v1/sessions/{talk.session.session_id}"
    try:
        async with httpx.AsyncClient(timeout=5) as client:
            got = await client.get(f"{url}?limit=1")
    except httpx.HTTPError:
        return
    if got.status_code != 200:
        talk.counts[f"read: {got.status_code}"] += 1
        if got.status_code not in (410, 429, 503, 504):
            talk.ledger.fault(f"a read was refused: {got.status_code} {got.text[:200]}")
        return
    talk.counts["read"] += 1
    told = Cursor.parse(got.json()["cursor"])
    if told.epoch != cursor.epoch or told.offset < cursor.offset:
        talk.ledger.fault(f"{cursor} was acknowledged, and {url} was at {told} behind that")


async def produce(talk: Talk) -> None:
    """A producer elsewhere, of the Python client, that is told of every piece whether it is stored."""
    await talk.ask("produce", _produced(talk))
    await talk.pause(2)


async def _produced(talk: Talk) -> None:
    chance, ledger = talk.chance, talk.ledger
    said = ""
    async with (
        talk.session.produce(policy=chance.choice(_OF_PRODUCERS)) as generation,
        generation.message() as message,
        message.text() as block,
    ):
        for number in range(chance.randint(3, 40)):
            said += (piece := f"piece{number} {uuid4().hex[:6]} ")
            await block.write(piece)
            await trio.sleep(chance.choice([0, 0.02, 0.1]))
            if chance.random() < 0.2:
                await generation.flush()
                ledger.texts[message.message_id] = said
    ledger.texts[message.message_id] = said
    ledger.wholes.add(message.message_id)
    ledger.acknowledge("end", generation.generation_id)


async def answer_by_script(talk: Talk) -> None:
    """The same as `answer` and `post`, by the JavaScript client."""
    session_id, chance, ledger, script = talk.session.session_id, talk.chance, talk.ledger, talk.script
    generation_id, message_id = str(uuid4()), str(uuid4())
    policy = chance.choice(_POLICIES)
    body = {"producer": "echo", "text": talk.words(), "policy": policy, "generation_id": generation_id}
    started = await talk.ask(
        f"start {policy} (js)", script.ask(session_id, "start", {**body, "input": {"delay": 0.05}})
    )
    if started is not None:
        ledger.acknowledge("start", generation_id, started["cursor"])
    said = {"text": f"said {uuid4().hex}", "message_id": message_id}
    posted = await talk.ask("post (js)", script.ask(session_id, "post", said))
    if posted is not None:
        ledger.acknowledge("post", message_id, posted["cursor"])
    await talk.pause(3)
    if chance.random() < 0.5:
        stopped = await talk.ask("stop (js)", script.ask(session_id, "stop", {"generation_id": generation_id}))
        if stopped is not None and stopped["state"] in _ENDED:
            ledger.acknowledge("end", generation_id)


async def be_here(talk: Talk) -> None:
    """Come, and go."""
    await talk.ask("presence", talk.session.put_presence("ann", "phone", name="Ann"))
    await talk.pause(2)
    await talk.ask("presence", talk.session.drop_presence("ann", "phone"))
    await talk.pause(5)


# Who takes turns in a conversation, each on its own.
TURNS: Final[list[Turn]] = [answer, answer, post, produce, answer_by_script, be_here]
