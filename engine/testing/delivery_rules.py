"""R6 to R8 on recorded deliveries: only what is committed, in the log's bytes and order, only of one's own sessions.

A test records what each subscriber got, across its reconnects, and compares with the log as it stands afterwards:
after a crash that is what R6 is about. Compaction between delivery and check makes bytes differ; check before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, final

from attrs import field, frozen

from ..log.port import Entry
from .violation import Violation

__all__ = ["Received", "Recording", "check_deliveries"]


@final
@frozen(kw_only=True)
class Received:
    """One event as a subscriber got it: under which session, at which offset, the bytes of its JSON.

    ``committed``: the committed tail of that session at this moment, where the recorder knows it.
    """

    session_id: str
    offset: int
    body: bytes
    committed: int | None = None


@final
@frozen(kw_only=True)
class Recording:
    """All that one subscriber got, in order. ``after``: the offset it first subscribed from, by session; else 0."""

    subscriber: str
    sessions: frozenset[str]
    received: Sequence[Received]
    after: Mapping[str, int] = field(factory=dict)


def check_deliveries(
    recordings: Sequence[Recording], committed: Mapping[str, Sequence[Entry]], *, whole: bool = False
) -> list[Violation]:
    """What the recordings break, against the committed log of each session (all of one epoch).

    With ``whole`` every subscriber must have got everything up to the tail of each of its sessions.
    """
    logs = {session_id: {entry.offset: entry.body for entry in entries} for session_id, entries in committed.items()}
    following = {session_id: _following(sorted(log)) for session_id, log in logs.items()}
    found: list[Violation] = []
    for recording in recordings:
        position = dict(recording.after)
        for received in recording.received:
            log = logs.get(received.session_id, {})
            found.extend(_check_one(recording, received, log))
            before = position.get(received.session_id, 0)
            after = following.get(received.session_id, {})
            if received.offset <= before:
                found.append(_violation("R1", recording, received, f"came again or too late, behind {before}"))
            elif received.offset in log and after.get(before, received.offset) != received.offset:
                found.append(_violation("R1", recording, received, f"came where {after[before]} had to come"))
            position[received.session_id] = max(before, received.offset)
        if whole:
            for session_id in sorted(recording.sessions):
                tail = max(logs.get(session_id, {}), default=0)
                if position.get(session_id, 0) < tail:
                    text = f"{recording.subscriber} of {session_id} got nothing behind {position.get(session_id, 0)}"
                    found.append(Violation("R1", tail, text))
    return found


def _check_one(recording: Recording, received: Received, log: Mapping[int, bytes]) -> Iterator[Violation]:
    if received.session_id not in recording.sessions:
        yield _violation("R8", recording, received, "is of a session it did not subscribe to")
    try:
        event = json.loads(received.body)
        stamp = (event["session_id"], event["offset"])
    except (ValueError, TypeError, KeyError):
        yield _violation("R7", recording, received, "is not the JSON of a logged event")
    else:
        if stamp[0] != received.session_id:
            yield _violation("R8", recording, received, f"bears the stamp of session {stamp[0]}")
        if stamp[1] != received.offset:
            yield _violation("R7", recording, received, f"bears the offset {stamp[1]}")
    if received.offset not in log:
        yield _violation("R6", recording, received, "is not in the committed log")
    elif log[received.offset] != received.body:
        yield _violation("R7", recording, received, "has other bytes than the log")
    if received.committed is not None and received.committed < received.offset:
        yield _violation("R6", recording, received, f"came while the committed tail was {received.committed}")


def _violation(rule: Literal["R1", "R6", "R7", "R8"], recording: Recording, received: Received, text: str) -> Violation:
    return Violation(rule, received.offset, f"what {recording.subscriber} got of {received.session_id} {text}")


def _following(offsets: Sequence[int]) -> dict[int, int]:
    """For every position a reader may be at, the next offset in the log."""
    following: dict[int, int] = {}
    before = 0
    for offset in offsets:
        following.update((position, offset) for position in range(before, offset))
        before = offset
    return following
