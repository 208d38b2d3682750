"""penstock's engine: answers that are produced, stamped, stored and delivered without being mixed up or lost.

    async with open_engine("chat.db", producers={"story": story}) as engine:
        session = await engine.create_session("demo")
        await session.start("story", text="Tell me one.")
        async with session.subscribe() as events:
            async for event in events:
                ...

Read on: `open_engine` runs sessions; a `Session` starts and stops generations, takes posts and is subscribed to;
a producer gets a `Generation` and writes messages and blocks; an `Event` is what all of it becomes.
"""

from __future__ import annotations

from . import errors, events
from .codec import check_json, converter, decode, decode_json, encode, encode_json, from_json, structure, to_json
from .config import Config
from .engine import Engine, EngineStatistics, open_engine
from .errors import *  # noqa: F403  every error is public
from .events import *  # noqa: F403  the whole vocabulary is public
from .generation import Producer
from .hub import Batch, Degraded, Drained, Ended
from .log import Append, Delete, Entry, EventLog, Head, LogStatistics, MemoryLog, SqliteLog, open_sqlite
from .reducer import SessionState, Snapshot
from .results import GenerationInfo, Posted, Started, Stopped, StopState, Superseded
from .session import Session
from .subscription import CaughtUp, Delivery, Gap, Opened, SnapshotTaken, Subscription
from .writing import Block, Generation, Message

__all__ = [
    "Append",
    "Batch",
    "Block",
    "CaughtUp",
    "Config",
    "Degraded",
    "Delete",
    "Delivery",
    "Drained",
    "Ended",
    "Engine",
    "EngineStatistics",
    "Entry",
    "EventLog",
    "Gap",
    "Generation",
    "GenerationInfo",
    "Head",
    "LogStatistics",
    "MemoryLog",
    "Message",
    "Opened",
    "Posted",
    "Producer",
    "Session",
    "SessionState",
    "Snapshot",
    "SnapshotTaken",
    "SqliteLog",
    "Started",
    "StopState",
    "Stopped",
    "Subscription",
    "Superseded",
    "check_json",
    "converter",
    "decode",
    "decode_json",
    "encode",
    "encode_json",
    "from_json",
    "open_engine",
    "open_sqlite",
    "structure",
    "to_json",
]
__all__ += errors.__all__
__all__ += events.__all__
