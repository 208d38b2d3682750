"""What the clients of one conversation were told, and what of it is not so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from attrs import define, field

from penstock.engine import Cursor, Event, decode_json, encode

__all__ = ["Ledger", "Reader", "digest", "of_event"]

# By kind of acknowledgement but for inputs: the types of event that bear it, and in which field.
_BEARERS: Final = {
    "start": (("generation.started", "generation.queued"), "generation_id"),
    "end": (("generation.finished",), "generation_id"),
    "post": (("message.snapshot",), "message_id"),
}

# As many of one kind of fault say all that there is to be said.
_MOST = 20


def digest(event: Mapping[str, Any]) -> str:
    """Of an event however it was written."""
    text = json.dumps(event, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def of_event(event: Event) -> dict[str, Any]:
    """An event as JSON has it."""
    value = decode_json(encode(event))
    assert isinstance(value, dict)
    return dict(value)


@define
class Reader:
    """One that reads a conversation from its first event on, over any number of connections."""

    name: str
    ledger: Ledger
    offset: int = 0
    connections: int = 0
    ended: str = ""  # why nothing follows

    def take(self, cursor: str, event: Mapping[str, Any]) -> None:
        """An event with its cursor; what does not follow on the last one is a fault."""
        epoch, _, number = cursor.rpartition("-")
        offset = int(number)
        if offset != self.offset + 1 or event.get("offset") != offset:
            self.ledger.fault(f"{self.name} was at {self.offset} and was told {cursor}, {event.get('offset')}")
        self.offset = max(self.offset, offset)
        self.ledger.saw(self.name, epoch, offset, event)


@define
class Ledger:
    """Of one session."""

    session_id: str
    epoch: str = ""
    offset: int = 0  # the highest that an answer, or an event, has told
    seen: dict[int, str] = field(factory=dict)  # offset to digest
    ids: dict[str, set[str]] = field(factory=dict)  # what was acknowledged, by the types of event that bear it
    texts: dict[str, str] = field(factory=dict)  # by message id: what was acknowledged of a message's text
    wholes: set[str] = field(factory=set)  # messages whose text is that, and not more
    faults: list[str] = field(factory=list)

    def fault(self, text: str) -> None:
        if len(self.faults) < _MOST:
            self.faults.append(f"{self.session_id}: {text}")

    def life(self, epoch: str, who: str) -> None:
        """There is one life of the session while this is kept."""
        self.epoch = self.epoch or epoch
        if epoch != self.epoch:
            self.fault(f"{who} was told of the epoch {epoch}, and it is {self.epoch}")

    def saw(self, who: str, epoch: str, offset: int, event: Mapping[str, Any]) -> None:
        self.life(epoch, who)
        told = digest(event)
        if self.seen.setdefault(offset, told) != told:
            self.fault(f"{who} was told another event at {offset}: {event}")
        self.offset = max(self.offset, offset)

    def acknowledge(self, kind: str, ident: str, cursor: Cursor | str | None = None) -> None:
        """An answer says that what bears ``ident`` is stored, whatever else becomes of it."""
        if cursor is not None:
            at = Cursor.parse(cursor) if isinstance(cursor, str) else cursor
            self.life(at.epoch, f"the answer to a {kind}")
            self.offset = max(self.offset, at.offset)
        self.ids.setdefault(kind, set()).add(ident)

    # --- the verdict

    def judge(self, epoch: str, events: Iterable[Mapping[str, Any]]) -> None:
        """Hold it against the whole log of this life, which may have been compacted."""
        self.life(epoch, "the log")
        stored = list(events)
        offsets = {event["offset"] for event in stored}
        tail = max(offsets, default=0)
        if tail < self.offset:
            self.fault(f"offset {self.offset} was told, and the log ends at {tail}")
        for event in stored:
            seen = self.seen.get(event["offset"])
            # Compaction puts whole messages where their pieces were.
            if seen is not None and seen != digest(event) and event["type"] != "message.snapshot":
                self.fault(f"offset {event['offset']} was told in another way than the log has it: {event}")
        for kind, idents in self.ids.items():
            for ident in idents - set(_borne(kind, stored)):
                self.fault(f"the {kind} of {ident} was acknowledged and is not in the log")
        self._judge_texts(stored)

    def _judge_texts(self, stored: list[Mapping[str, Any]]) -> None:
        said: dict[str, str] = {}
        for event in stored:
            message, data = event.get("message_id", ""), event["data"]
            if event["type"] == "message.snapshot":
                said[message] = "".join(block.get("text", "") for block in data["blocks"])
            elif event["type"] == "block.delta":
                said[message] = said.get(message, "") + data.get("text", "")
        for message, text in self.texts.items():
            have = said.get(message, "")
            if not have.startswith(text) or (message in self.wholes and have != text):
                self.fault(f"of message {message} {text[-80:]!r} was acknowledged; the log has {have[-80:]!r}")


def _borne(kind: str, stored: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    if kind == "input":
        yield from (event["data"]["input_id"] for event in stored if event["type"] == "input.accepted")
        return
    types, name = _BEARERS[kind]
    yield from (event[name] for event in stored if event["type"] in types)
