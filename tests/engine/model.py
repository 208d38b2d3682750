"""What an engine has to do, said plainly: lists and dicts, no concurrency, no log. For `test_model`.

Every operation is carried out to its end before the next one; `Session.advance` does what falls due meanwhile. An
operation returns what the engine has to answer, or raises the class of error that the engine has to raise.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Literal

from attrs import define, field

from penstock.engine import (
    ApprovalNotFound,
    GenerationActive,
    GenerationMismatch,
    GenerationNotFound,
    IdempotencyConflict,
    IdInUse,
    InvalidBody,
    MessageNotFound,
    PenstockError,
    PolicyName,
    QueueFull,
    SequenceGap,
    SessionDeleted,
    SessionNotFound,
    StaleGeneration,
    StaleProducer,
    TooManyStragglers,
)
from tests.engine.actors import APPROVAL_EXPIRES, CLEANUP_SECONDS, SHIELDED, SLOW

__all__ = ["Generation", "Message", "Model", "Refused", "Said", "Session", "StartOf"]

CLEANUP_TIMEOUT = 2.0
MAX_STRAGGLERS = 2
QUEUE_LIMIT = 3
INPUTS = 2
PENDING_STOP = 60.0
IDLE = 50.303
TOTAL = 200.907


class Refused(Exception):
    """The engine has to raise this class."""

    def __init__(self, error: type[PenstockError]) -> None:
        super().__init__(error.__name__)
        self.error = error


@define(eq=False)
class Place:
    """Where versions of a message stand: those that were replaced, by number, each with what followed it."""

    left: dict[int, list[Message]] = field(factory=dict)
    behind: Message | None = None  # what the one replaced last stood behind
    resets: int = 0

    def __deepcopy__(self, _: object) -> Place:
        return self


@define(eq=False)
class Message:
    role: str
    blocks: list[tuple[str, str | None]]
    status: str = "open"
    generation_id: str | None = None
    message_id: str | None = None  # as seen, where the engine makes it
    seq: int = 0  # of a remote one's block: its last event's
    place: Place | None = None
    index: int = 1

    def view(self) -> tuple[object, ...]:
        return (self.role, self.status, tuple(self.blocks), self.generation_id)


@define(frozen=True, kw_only=True)
class StartOf:
    """A start as it is asked for; two with the same fields are the same request."""

    generation_id: str | None
    producer: str
    registered: bool = field(eq=False)
    policy: PolicyName
    text: str | None
    replaces: str | None
    on_last_disconnect: float | None


@define(frozen=True, kw_only=True)
class Said:
    """A chunk, with the ids and the seq that it bears; ``text`` of ``applied`` is the input's id."""

    kind: str
    message_id: str | None
    text: str
    seq: int | None


@define(eq=False)
class Generation:
    generation_id: str
    asked: StartOf
    turn: int | None = None
    outcome: str | None = None
    cleanup: str | None = None
    began: float = 0.0
    last_event: float = 0.0
    messages: list[Message] = field(factory=list)
    question: Message | None = None  # the message behind which it began
    call: Message | None = None  # of a tool call without a result
    approval_until: float | None = None
    ends: tuple[float, str] | None = None  # a limit was reached: when it is over, as what
    lying: list[str] = field(factory=list)  # inputs that the producer has not received
    open_inputs: list[str] = field(factory=list)
    inputs: dict[str, tuple[object, ...]] = field(factory=dict)
    by: str | None = None  # the remote producer that finished it; empty for one without an id
    unheard: bool = False  # it was begun in another process, and its producer has not spoken since
    asked_people: bool = False
    applied: set[str] = field(factory=set)
    version: tuple[Place, int] | None = None  # what its first message is
    carried: bool = False  # it was a fork's source's; its turn is known as long as its message is

    @property
    def does(self) -> str:
        return self.asked.producer.partition("/")[0]

    @property
    def when_cancelled(self) -> str:
        return self.asked.producer.partition("/")[2]

    @property
    def state(self) -> str:
        if self.outcome is not None:
            return "finished"
        return "queued" if self.turn is None else "live"


def unasked(generation_id: str) -> StartOf:
    """Of a generation that no start asked for: its first chunk began it, or a fork carries it."""
    return StartOf(
        generation_id=generation_id,
        producer="remote",
        registered=True,
        policy="reject",
        text=None,
        replaces=None,
        on_last_disconnect=None,
    )


def carried(generation_id: str, turn: int | None, outcome: str) -> Generation:
    """One of a fork's source, of which the fork knows how it ended, and which turn of the source it was."""
    return Generation(generation_id, unasked(generation_id), turn=turn, outcome=outcome, carried=True)


@define(eq=False)
class Session:
    """One life of one session."""

    now: float
    new_id: Callable[[], str]
    metadata: dict[str, object] = field(factory=dict)
    messages: list[Message] = field(factory=list)
    generations: dict[str, Generation] = field(factory=dict)
    live: Generation | None = None
    queue: list[Generation] = field(factory=list)
    paused: bool = False
    turn: int = 0
    posts: dict[str, str | None] = field(factory=dict)  # every message id ever seen → the user's text, if it is one
    keys: dict[str, tuple[StartOf, dict[str, object]]] = field(factory=dict)
    pending: dict[str, float] = field(factory=dict)
    stragglers: list[float] = field(factory=list)  # when they are over
    owners: dict[str, str | None] = field(factory=dict)  # of messages with a proposed id; None for posted ones
    number: tuple[int, int] | None = None  # the last request of the remote producer: epoch and seq
    watchers: int = 0
    last_left: float = -math.inf
    last: Generation | None = None  # the last one that started
    replaced: dict[str, tuple[Place, int]] = field(factory=dict)  # which version each message was that was replaced
    resets: int = 0

    # --- time

    def advance(self, to: float) -> None:
        """Do everything that falls due up to ``to``."""
        while True:
            self._start_next()
            due = [(until, partial(self.stragglers.remove, until)) for until in self.stragglers]
            if self.live is not None:
                due += self._due(self.live)
            if not due:
                break
            when, what = min(due, key=lambda item: item[0])
            if when > to:
                break
            self.now = when
            what()
        self.now = to

    def _due(self, live: Generation) -> Iterator[tuple[float, partial[None]]]:
        if live.ends is not None:
            when, outcome = live.ends
            yield when, partial(self._after_limit, live, outcome)
            return
        if live.does == "slow":
            yield live.began + SLOW, partial(self._finish_slow, live)
        if live.approval_until is not None:
            yield live.approval_until, partial(self.resolve, live, approved=False)
        elif live.does != "calls":
            yield live.last_event + IDLE, partial(self._limit, live, "lost" if live.unheard else "stalled")
        yield live.began + TOTAL, partial(self._limit, live, "expired")
        if live.asked.on_last_disconnect is not None and not self.watchers:
            alone = max(live.began, self.last_left) + live.asked.on_last_disconnect
            yield alone, partial(self._limit, live, "stopped")

    def _limit(self, live: Generation, outcome: str) -> None:
        live.ends = (self.now + self.cost(live), outcome)
        live.approval_until = None

    def _after_limit(self, live: Generation, outcome: str) -> None:
        self.end(live, outcome, cancelled=True)
        if outcome == "stopped":
            self._after_stop("pause")

    def _finish_slow(self, live: Generation) -> None:
        live.messages[0].blocks[0] = ("text", "one two")
        self.end(live, "completed")

    # --- generations

    def cost(self, live: Generation) -> float:
        """How long it takes to wind it down."""
        return {"bounded": CLEANUP_SECONDS, "overruns": CLEANUP_TIMEOUT}.get(live.when_cancelled, 0.0)

    def wind_down(self, outcome: str) -> tuple[Generation, float]:
        """End the live one, by force; what it was, and how long that takes."""
        live = self.live
        assert live is not None
        cost = self.cost(live)
        self.end(live, outcome, cancelled=True)
        self.now += cost
        return live, cost

    def end(self, live: Generation, outcome: str, *, cancelled: bool = False) -> None:
        if cancelled:
            live.cleanup = "clean"
            if live.when_cancelled == "overruns":
                live.cleanup = "overran"
                begun = self.now if live.ends is None else live.ends[0] - CLEANUP_TIMEOUT
                self.stragglers.append(begun + SHIELDED)
            if live.when_cancelled in ("raises", "panics"):
                outcome = "failed"
        self.close(live, outcome)

    def close(self, live: Generation, outcome: str) -> None:
        """What is open is closed, the end is written."""
        status = {"completed": "complete"}.get(
            outcome, "cancelled" if outcome in ("superseded", "stopped", "reset", "shutdown") else "failed"
        )
        for message in live.messages:
            if message.status == "open":
                message.status = status
        if live.call is not None:
            self._write(live, "tool", [("tool_result", f"No result: the answer ended as {outcome}.")], status)
        live.call = live.approval_until = None
        live.lying, live.open_inputs = [], []
        live.outcome = outcome
        self.live = None

    def _write(self, live: Generation, role: str, blocks: list[tuple[str, str | None]], status: str) -> Message:
        message = Message(role, blocks, status, live.generation_id)
        if live.version is not None and not live.messages:
            message.place, message.index = live.version
        live.messages.append(message)
        self.messages.append(message)
        return message

    def begin(self, generation: Generation, version: tuple[Place, int] | None = None) -> None:
        """It starts, and does what it does without waiting. ``version`` is that of its question, else of its answer."""
        asked = generation.asked
        if asked.text is not None:
            self.messages.append(Message("user", [("text", asked.text)], "complete"))
            if version is not None:
                self.messages[-1].place, self.messages[-1].index = version
        generation.version = None if asked.text is not None else version
        self.last = generation
        self.turn += 1
        generation.turn = self.turn
        generation.question = self.messages[-1] if self.messages else None
        generation.began = generation.last_event = self.now
        if generation.outcome is not None:  # it was stopped before it began
            return
        self.live = generation
        match generation.does:
            case "says" | "hands":
                self._write(generation, "assistant", [("text", "one two")], "complete")
                self.end(generation, "completed")
            case "slow":
                self._write(generation, "assistant", [("text", "one")], "open")
            case "waits":
                self._write(generation, "assistant", [("text", "begun")], "open")
            case "asks":
                generation.call = self._write(generation, "assistant", [("tool_call", None)], "complete")
                generation.approval_until = self.now + APPROVAL_EXPIRES
            case "calls":
                generation.call = self._write(generation, "assistant", [("tool_call", None)], "complete")
            case "fails_2" | "fails_3" | "fails_6" | "fails_7":
                status = "failed" if generation.does in ("fails_2", "fails_6") else "complete"
                self._write(generation, "assistant", [("text", "so far")], status)
                self.end(generation, "failed")
            case "fails_0" | "fails_1" | "fails_4" | "fails_5":
                self.end(generation, "failed")
            case _:
                pass

    def resolve(self, live: Generation, *, approved: bool) -> None:
        """The approval is answered, or its time is over."""
        live.approval_until = live.call = None
        live.last_event = self.now
        if live.does == "remote":
            return
        self._write(live, "tool", [("tool_result", "yes" if approved else "no")], "complete")
        self.end(live, "completed")

    def _start_next(self) -> None:
        while self.live is None and self.queue and not self.paused and len(self.stragglers) < MAX_STRAGGLERS:
            self._begin_waiting()

    def _begin_waiting(self) -> Generation:
        generation = self.queue.pop(0)
        self.paused = self.paused and bool(self.queue)
        self.begin(generation, self._replace(generation.asked))
        return generation

    def _replace(self, asked: StartOf, rolled_back: Iterable[Message] = ()) -> tuple[Place, int] | None:
        """Take out what is rolled back, and what the start replaces; which version comes in its place, if one does."""
        rolled_back = list(rolled_back)
        replaced = self._from(asked.replaces)
        version = None
        if replaced and replaced[0] in rolled_back:
            head = replaced[0]
            version = None if head.place is None else (head.place, head.index)
        elif replaced:
            version = self._leave([message for message in replaced if message not in rolled_back])
        elif asked.replaces is None and asked.text is None and self.last is not None and not self.last.messages:
            stands = self.last.question is (self.messages[-1] if self.messages else None)
            version = self.last.version if stands else None
        self._remove([*rolled_back, *replaced])
        return version

    def _leave(self, tail: list[Message]) -> tuple[Place, int]:
        """These leave for another version of the first; what the next new one would be."""
        head = tail[0]
        assert head.message_id is not None
        place = head.place = head.place or Place()
        place.left[head.index] = tail
        at = self.messages.index(head)
        place.behind = self.messages[at - 1] if at else None
        place.resets = self.resets
        self.replaced[head.message_id] = place, head.index
        return place, max(place.left) + 1

    def _remove(self, gone: Iterable[Message]) -> None:
        gone = list(gone)
        self.messages = [message for message in self.messages if message not in gone]
        if self.last is not None and not self.last.messages and self.last.question in gone:
            self.last.version = None  # it stands nowhere any more

    def heads(self, place: Place) -> list[Message]:
        """Its versions, the oldest first."""
        heads = {index: tail[0] for index, tail in place.left.items()}
        heads |= {message.index: message for message in self.messages if message.place is place}
        return [heads[index] for index in sorted(heads)]

    def restore(self, message_id: str) -> int:
        """How many messages stand there then, from the version on."""
        at = next((at for at, message in enumerate(self.messages) if message.message_id == message_id), None)
        if at is not None:
            return len(self.messages) - at
        if message_id not in self.replaced:
            raise Refused(MessageNotFound)
        place, index = self.replaced[message_id]
        at = next((at for at, message in enumerate(self.messages) if message.place is place), len(self.messages))
        if at == len(self.messages):
            if place.resets != self.resets or place.behind is not (self.messages[-1] if self.messages else None):
                raise Refused(MessageNotFound)
        elif self.messages[at].index == index:
            return len(self.messages) - at
        if self.live is not None:
            raise Refused(GenerationActive)
        if at < len(self.messages):
            tail = self.messages[at:]
            self._leave(tail)
            self._remove(tail)
        for message in place.left[index]:
            again = copy.copy(message)
            again.message_id = None
            self.messages.append(again)
        return len(self.messages) - at

    def _from(self, message_id: str | None) -> list[Message]:
        """The message and what follows it."""
        ids = [message.message_id for message in self.messages]
        return self.messages[ids.index(message_id) :] if message_id is not None and message_id in ids else []

    def _drop(self, generations: Iterable[Generation], outcome: str) -> None:
        for generation in list(generations):
            self.queue.remove(generation)
            generation.outcome = outcome
        self.paused = self.paused and bool(self.queue)

    def _after_stop(self, choice: str) -> None:
        if choice == "clear":
            self._drop(self.queue, "stopped")
        elif choice == "pause" and self.queue:
            self.paused = True

    # --- what clients ask for

    def start(self, asked: StartOf, key: str | None) -> dict[str, object]:
        if key is not None and key in self.keys:
            first, answer = self.keys[key]
            if first != asked:
                raise Refused(IdempotencyConflict)
            return {**answer, "repeated": True}
        if asked.generation_id is not None and asked.generation_id in self.generations:
            raise Refused(IdInUse)
        if asked.replaces is not None and asked.replaces not in [m.message_id for m in self.messages]:
            raise Refused(MessageNotFound)
        waits = asked.policy in ("queue", "latest") and (self.live is not None or bool(self.queue))
        if waits:
            answer = self._enqueue(asked)
        elif self.live is not None and asked.policy == "reject":
            raise Refused(GenerationActive)
        elif self.live is not None and asked.policy == "join":
            answer = {"generation_id": self.live.generation_id, "turn": self.live.turn, "joined": True}
        elif len(self.stragglers) >= MAX_STRAGGLERS:
            raise Refused(TooManyStragglers)
        else:
            answer = self._start_now(asked)
        if key is not None:
            self.keys[key] = (asked, answer)
        return answer

    def _made(self, asked: StartOf) -> Generation:
        generation = Generation(asked.generation_id or self.new_id(), asked)
        self.generations[generation.generation_id] = generation
        if self.pending.pop(generation.generation_id, -math.inf) > self.now:
            generation.outcome = "stopped"
        return generation

    def _enqueue(self, asked: StartOf) -> dict[str, object]:
        if not asked.registered:
            raise Refused(InvalidBody)
        pushed_out = list(self.queue) if asked.policy == "latest" else []
        if len(self.queue) - len(pushed_out) >= QUEUE_LIMIT:
            raise Refused(QueueFull)
        generation = self._made(asked)
        self.queue.append(generation)
        self._drop(pushed_out, "superseded")
        position = len(self.queue)
        if generation.outcome == "stopped":
            self._drop([generation], "stopped")
        return {"generation_id": generation.generation_id, "position": position}

    def _start_now(self, asked: StartOf) -> dict[str, object]:
        answer: dict[str, object] = {"superseded": None}
        if self.live is not None:
            old, cost = self.wind_down("superseded")
            answer["superseded"] = (old.generation_id, old.cleanup, round(cost, 3))
            version = self._replace(asked, old.messages if asked.policy == "rollback" else ())
        else:
            version = self._replace(asked)
        generation = self._made(asked)
        self.begin(generation, version)
        return {**answer, "generation_id": generation.generation_id, "turn": generation.turn}

    def stop(self, generation_id: str | None, choice: str) -> tuple[str, str | None]:
        if self.live is not None and generation_id in (None, self.live.generation_id):
            live, _ = self.wind_down("stopped")
            self._after_stop(choice)
            if live.outcome != "stopped":
                return "already_done", live.generation_id
            return ("stopping" if live.cleanup == "overran" else "stopped"), live.generation_id
        if generation_id is None:
            self._after_stop(choice)
            return "nothing_active", None
        known = self.generations.get(generation_id)
        if known is None:
            self.pending[generation_id] = self.now + PENDING_STOP
            return "pending", generation_id
        if known in self.queue:
            self._drop([known], "stopped")
            return "stopped", generation_id
        return "already_done", generation_id

    def queue_next(self) -> str | None:
        self.paused = False
        if self.live is None and self.queue and len(self.stragglers) < MAX_STRAGGLERS:
            return self._begin_waiting().generation_id
        return None

    def dequeue(self, generation_id: str) -> None:
        found = self.generations.get(generation_id)
        if found is None or found not in self.queue:
            raise Refused(GenerationNotFound)
        self._drop([found], "stopped")

    def post(self, text: str, message_id: str | None) -> bool:
        """Whether it is new."""
        if message_id is not None and message_id in self.posts:
            if self.posts[message_id] != text:
                raise Refused(IdInUse)
            return False
        self.messages.append(Message("user", [("text", text)], "complete", message_id=message_id))
        if message_id is not None:
            self.posts[message_id] = text
            self.owners[message_id] = None
        return True

    def retract(self, message_id: str, *, and_after: bool) -> None:
        ids = [message.message_id for message in self.messages]
        if message_id not in ids:
            raise Refused(MessageNotFound)
        index = ids.index(message_id)
        wanted = self.messages[index:] if and_after else [self.messages[index]]
        live = self.live
        if live is not None and any(message in live.messages or message is live.question for message in wanted):
            raise Refused(GenerationActive)
        self._remove(wanted)

    @property
    def unused(self) -> bool:
        """Whether nobody is in it, and nothing is under way or to come by itself."""
        self.pending = {gid: until for gid, until in self.pending.items() if until > self.now}
        return self.live is None and not (self.stragglers or self.watchers or self.pending)

    def reset(self) -> None:
        if self.live is not None:
            self.wind_down("reset")
        self._drop(self.queue, "reset")
        self.messages = []
        self.last = None
        self.resets += 1

    def input(self, generation_id: str, kind: str, do: str, input_id: str) -> None:
        found = self.generations.get(generation_id)
        if found is None:
            raise Refused(GenerationNotFound)
        if found.state != "live":
            raise Refused(GenerationMismatch if found.state == "queued" else StaleGeneration)
        given = (kind, do)
        if input_id in found.inputs:
            if found.inputs[input_id] != given:
                raise Refused(IdInUse)
            return
        if kind == "approval":
            if found.approval_until is None:
                raise Refused(ApprovalNotFound)
            found.inputs[input_id] = given
            self.resolve(found, approved=do == "yes")
            return
        if len(found.lying) >= INPUTS:
            raise Refused(QueueFull)
        found.inputs[input_id] = given
        found.last_event = self.now
        found.open_inputs.append(input_id)
        if found.does != "waits":
            found.lying.append(input_id)
        elif do != "drop":
            found.open_inputs.remove(input_id)
        if found.does == "waits" and do == "finish":
            self.end(found, "completed")
        elif found.does == "waits" and do in ("fail", "panic"):
            self.end(found, "failed")

    def restart(self, outcome: Literal["shutdown", "lost"]) -> None:
        """The process ended, and another one has come."""
        if self.live is not None and self.live.does != "remote":
            live = self.live
            if outcome == "shutdown":
                self.end(live, outcome, cancelled=True)
            else:
                self.close(live, outcome)
        self.stragglers = []
        self.pending = {}
        self.watchers = 0
        self.last_left = -math.inf

    # --- what remote producers ask for

    def adopt(self) -> None:
        """Another process lets a remote generation go on: its limits are counted anew."""
        if self.live is not None:
            self.live.began = self.live.last_event = self.now
            self.live.unheard = True
            # Answers to approvals are not stored as inputs.
            self.live.inputs = {i: given for i, given in self.live.inputs.items() if given[0] != "approval"}

    def repeats(self, number: tuple[int, int] | None) -> bool:
        """Whether the request was taken before."""
        if number is None:
            return False
        epoch, last = self.number or (0, -1)
        if number[0] < epoch:
            raise Refused(StaleProducer)
        following = last + 1 if number[0] == epoch else 0
        if number[1] > following:
            raise Refused(SequenceGap)
        return number[1] < following

    def _driven(self, generation_id: str) -> Generation | None:
        """The live one, if it is this one."""
        if self.live is None or self.live.generation_id != generation_id:
            return None
        if self.live.does != "remote":
            raise Refused(GenerationMismatch)
        return self.live

    def chunks(self, generation_id: str, says: list[Said], number: tuple[int, int] | None) -> dict[str, object]:
        if self.repeats(number):
            live = self.live if self.live is not None and self.live.generation_id == generation_id else None
            return {"accepted": 0, "duplicates": len(says), "turn": None if live is None else live.turn}
        if self._driven(generation_id) is None:
            known = self.generations.get(generation_id)
            if known is not None:
                raise Refused(GenerationMismatch if known.state == "queued" else StaleGeneration)
            if self.live is not None:
                raise Refused(GenerationMismatch)
            if len(self.stragglers) >= MAX_STRAGGLERS:
                raise Refused(TooManyStragglers)
        copy.deepcopy(self)._take(generation_id, says)  # all or nothing
        accepted = self._take(generation_id, says)
        if accepted is None:
            raise Refused(StaleGeneration)
        self.number = self.number if number is None else number
        assert self.live is not None
        return {"accepted": accepted, "duplicates": len(says) - accepted, "turn": self.live.turn}

    def _take(self, generation_id: str, says: list[Said]) -> int | None:
        """How many chunks are written; None when a stop had come first."""
        if self.live is None:
            self.begin(self._made(unasked(generation_id)))
        live = self.live
        if live is None:
            return None
        live.last_event = self.now
        live.unheard = False
        return sum([self._say(live, said) for said in says])

    def _say(self, live: Generation, said: Said) -> bool:
        """Whether it is written; else it was before."""
        match said.kind:
            case "delta" | "close":
                return self._say_in(live, self._meant(live, said), said)
            case "ask":
                if live.asked_people:
                    return False
                live.asked_people = True
                live.approval_until = math.inf
            case "applied":
                if said.text in live.applied:
                    return False
                if said.text not in live.open_inputs:
                    raise Refused(InvalidBody)
                live.open_inputs.remove(said.text)
                live.lying.pop()
                live.applied.add(said.text)
            case _:
                pass
        return True

    def _meant(self, live: Generation, said: Said) -> Message | None:
        """The message that a chunk is about, if there is one."""
        if said.message_id is None:
            open_ = [message for message in live.messages if message.status == "open"]
            if len(open_) > 1:
                raise Refused(InvalidBody)
            return open_[0] if open_ else None
        found = next((message for message in live.messages if message.message_id == said.message_id), None)
        if found is None and said.message_id in self.owners:
            raise Refused(IdInUse if self.owners[said.message_id] is None else GenerationMismatch)
        return found

    def _say_in(self, live: Generation, message: Message | None, said: Said) -> bool:
        if said.kind == "close":
            if message is None:
                raise Refused(InvalidBody)
            if message.status != "open":
                return False
            message.status = "complete"
            message.seq += 1
            return True
        if message is not None and said.seq is not None and said.seq <= message.seq:
            return False
        if message is not None and message.status != "open":
            raise Refused(InvalidBody)
        if said.seq is not None and said.seq > (0 if message is None else message.seq) + 1:
            raise Refused(SequenceGap)
        if message is None:
            message = self._write(live, "assistant", [("text", "")], "open")
            message.message_id = said.message_id
            if said.message_id is not None:
                self.owners[said.message_id] = live.generation_id
        message.blocks[0] = ("text", f"{message.blocks[0][1]}{said.text}")
        message.seq += 1
        return True

    def finish(self, generation_id: str, outcome: str, number: tuple[int, int] | None) -> bool:
        """Whether it had ended so before."""
        if self.repeats(number):
            return True
        by = "" if number is None else "p"
        live = self._driven(generation_id)
        known = self.generations.get(generation_id)
        if live is not None:
            live.by = by
            self.end(live, outcome)
        elif known is None:
            raise Refused(GenerationNotFound if self.live is None else GenerationMismatch)
        elif known.state == "queued":
            raise Refused(GenerationMismatch)
        elif (known.by, known.outcome) != (by, outcome):
            raise Refused(StaleGeneration)
        self.number = self.number if number is None else number
        return live is None

    def view(self) -> dict[str, object]:
        """What a snapshot has to show."""
        live = self.live
        return {
            "messages": [message.view() for message in self.messages],
            "live": None if live is None else (live.generation_id, live.turn, tuple(live.open_inputs)),
            "queue": (self.paused, [waiting.generation_id for waiting in self.queue]),
            "approvals": int(live is not None and live.approval_until is not None),
            "metadata": self.metadata,
        }


@define
class Model:
    """All sessions by id; None is one that was deleted."""

    sessions: dict[str, Session | None] = field(factory=dict)

    def session(self, session_id: str) -> Session:
        if session_id not in self.sessions:
            raise Refused(SessionNotFound)
        found = self.sessions[session_id]
        if found is None:
            raise Refused(SessionDeleted)
        return found

    def living(self) -> dict[str, Session]:
        return {session_id: session for session_id, session in self.sessions.items() if session is not None}
