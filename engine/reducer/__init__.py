"""The fold: what a session's events add up to.

Idempotent by offset and by each block's seq, and strict: an event that does not follow from what is known is a
`Gap`, nothing of it is applied, and no message is invented from a delta. From the inside out:

- `snapshot`: what a session looks like at one cursor, frozen, and its JSON
- `page`: a snapshot and its JSON, shared by who asks for it
- `folded`: what folding one event comes to
- `content`: a message while it grows
- `generations`: which generations are told of, and how they ended
- `transcript`: the messages, and which of their events fit
- `state`: the session
"""

from __future__ import annotations

from .folded import Applied, Duplicate, Folded, Gap
from .page import SnapshotPage
from .snapshot import (
    ApprovalView,
    BlockView,
    GenerationInfo,
    GenerationView,
    InputView,
    MessageView,
    QueuedView,
    QueueView,
    ResolvedView,
    Snapshot,
)
from .state import SessionState

__all__ = [
    "Applied",
    "ApprovalView",
    "BlockView",
    "Duplicate",
    "Folded",
    "Gap",
    "GenerationInfo",
    "GenerationView",
    "InputView",
    "MessageView",
    "QueueView",
    "QueuedView",
    "ResolvedView",
    "SessionState",
    "Snapshot",
    "SnapshotPage",
]
