"""The queue of one session: generations that wait for the live one, in order, paused or not.

Owns the order and what a waiting start is made of. Durable as records, one per waiting start and one, under a plain
key, that says that there are any; what a start does to the queue is `policy`'s decision, when the next one starts
is `session.starting`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from attrs import define, field, frozen

from ..codec import decode_json, encode_record, structure
from ..errors import InvalidBody
from ..events import JSON, JSONObject, MessageSnapshot
from .policy import Policy
from .records import QUEUED

__all__ = ["Queue", "QueuedStart"]

_PREFIX = f"{QUEUED}/"

_POLICIES = frozenset(policy.value for policy in Policy)


@final
@frozen(kw_only=True)
class QueuedStart:
    """A start that waits, as it is stored. ``number`` orders them; it only grows. ``idle_limit``: 0 stands for none."""

    number: int
    generation_id: str
    producer: str
    policy: str
    message_id: str
    text: str | None = None
    message: MessageSnapshot | None = None
    input: JSON = None
    job_id: str | None = None
    metadata: JSONObject | None = None
    replaces: str | None = None
    on_last_disconnect: float | None = None
    idle_limit: float | None = None
    continues: str | None = None
    author: str | None = None

    @property
    def key(self) -> str:
        return f"{_PREFIX}{self.number:016d}"


@final
@frozen(kw_only=True)
class _Standing:
    paused: bool


@final
@define
class Queue:
    """In memory and as records. Every change returns the records that make it durable."""

    items: list[QueuedStart] = field(factory=list)
    paused: bool = False
    _last_number: int = 0

    @classmethod
    def load(cls, records: Mapping[str, bytes], standing: bytes | None) -> Queue:
        """From the records under `prefix` and the one under `QUEUED`."""
        items = [_item(key, records[key]) for key in sorted(records)]
        paused = standing is not None and structure(decode_json(standing), _Standing).paused
        return cls(items, paused, items[-1].number if items else 0)

    @staticmethod
    def prefix() -> str:
        return _PREFIX

    def __len__(self) -> int:
        return len(self.items)

    @property
    def generation_ids(self) -> tuple[str, ...]:
        return tuple(item.generation_id for item in self.items)

    def find(self, generation_id: str) -> QueuedStart | None:
        return next((item for item in self.items if item.generation_id == generation_id), None)

    def next_number(self) -> int:
        return self._last_number + 1

    def add(self, item: QueuedStart) -> dict[str, bytes | None]:
        """Put ``item`` behind the others."""
        self.items.append(item)
        self._last_number = item.number
        return {item.key: encode_record(item), **self._standing()}

    def remove(self, item: QueuedStart) -> dict[str, bytes | None]:
        """Take ``item`` out. A queue that is empty is no longer paused."""
        self.items.remove(item)
        if not self.items:
            self.paused = False
        return {item.key: None, **self._standing()}

    def pause(self, paused: bool) -> dict[str, bytes | None]:
        """Pause the queue, or let it go on."""
        self.paused = paused
        return self._standing()

    def _standing(self) -> dict[str, bytes | None]:
        return {QUEUED: encode_record(_Standing(paused=self.paused)) if self.items else None}


def _item(key: str, body: bytes) -> QueuedStart:
    """A start that waits, as it is stored. Raises `InvalidBody`, also for one that could never start."""
    item = structure(decode_json(body), QueuedStart)
    if item.key != key or item.policy not in _POLICIES:
        raise InvalidBody(f"what waits under {key} could not start")
    return item
