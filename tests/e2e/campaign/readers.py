"""Those that follow a conversation from its first event on, each in its own way. They hold on through everything."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, Final, Literal

import httpx
import trio

from penstock.adapters.client import Arrived, Client
from penstock.engine import Ended, Gap, PenstockError, SnapshotTaken

from .ledger import Reader, of_event
from .script import Script

__all__ = ["follow_by_client", "follow_by_hand", "follow_by_script"]

# How long the server is silent at most: it is asked for a sign of life each second.
_SILENCE: Final = 5.0

# What a server that is busy, or going away, answers.
_AWAY: Final = (429, 503, 504)


async def follow_by_client(reader: Reader, client: Client, over: Literal["sse", "websocket"]) -> None:
    """The Python client's, until the session ends."""
    async with client.session(reader.ledger.session_id).events(over=over) as events:
        try:
            while True:
                match delivery := await events.receive():
                    case Arrived():
                        for event in delivery.events:
                            if event.offset is not None:
                                reader.take(f"{delivery.cursor.epoch}-{event.offset}", of_event(event))
                    case Gap() | SnapshotTaken():
                        reader.ledger.fault(f"{reader.name} at {reader.offset} was told {delivery}")
                    case Ended(reason=reason):
                        reader.ended = reason
                    case _:
                        pass
                told = events.statistics()
                reader.connections = told.connections
                if told.duplicates:
                    reader.ledger.fault(f"{reader.name} was told {told.duplicates} events again")
        except trio.EndOfChannel:
            reader.ended = reader.ended or "end"
        except PenstockError as error:
            reader.ended = error.code


async def follow_by_hand(reader: Reader, url: Callable[[], str], chance: random.Random) -> None:
    """Lines of JSON; it moves to another server all the time, and shows it the last cursor that it has seen."""
    cursor = ""
    path = f"/v1/sessions/{reader.ledger.session_id}/events?heartbeat=1"
    timeout = httpx.Timeout(_SILENCE)
    async with httpx.AsyncClient(timeout=timeout) as client:
        while True:
            headers = {"Accept": "application/x-ndjson"} | ({"Last-Event-ID": cursor} if cursor else {})
            with trio.move_on_after(chance.uniform(0.5, 8)):
                try:
                    async with client.stream("GET", url() + path, headers=headers) as stream:
                        if stream.status_code != 200:
                            body = (await stream.aread()).decode()
                            if stream.status_code not in _AWAY:
                                if "SESSION_DELETED" not in body:
                                    reader.ledger.fault(f"{reader.name} was refused: {stream.status_code} {body}")
                                reader.ended = "SESSION_DELETED"
                            await trio.sleep(0.2)
                            continue
                        reader.connections += 1
                        async for line in stream.aiter_lines():
                            cursor = _heard(reader, cursor, line)
                            if reader.ended:
                                break
                except httpx.HTTPError:
                    await trio.sleep(0.2)
            if reader.ended:
                return


def _heard(reader: Reader, cursor: str, line: str) -> str:
    """The cursor behind the line."""
    if not line.strip():
        return cursor
    value: dict[str, Any] = json.loads(line)
    match value.get("control"):
        case None if "offset" in value:
            reader.take(f"{reader.ledger.epoch}-{value['offset']}", value)
            return f"{reader.ledger.epoch}-{value['offset']:016}"
        case "open":
            reader.ledger.life(value["epoch"], reader.name)
        case "gap" | "snapshot":
            reader.ledger.fault(f"{reader.name} at {cursor} was told {value}")
        case "end":
            reader.ended = value["reason"]
        case _:
            pass
    return cursor


async def follow_by_script(reader: Reader, script: Script) -> None:
    """The JavaScript client's, until cancelled or the session ends."""
    over = trio.Event()

    def heard(told: dict[str, Any]) -> None:
        if "event" in told:
            if told["verdict"] == "applied":
                reader.take(told["cursor"], told["event"])
            elif told["verdict"] != "ephemeral":
                reader.ledger.fault(f"{reader.name} at {reader.offset} found {told['verdict']}: {told['event']}")
        elif told.get("control") in ("gap", "snapshot", "bad-frame"):
            reader.ledger.fault(f"{reader.name} at {reader.offset} was told {told}")
        elif "end" in told:
            reader.ended = str(told["end"].get("reason") or told["end"]["state"])
            over.set()
        elif told.get("control") == "caught-up":
            reader.connections += 1

    number = await script.follow(reader.ledger.session_id, heard)
    try:
        await over.wait()
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 2):
            await script.leave(number)
