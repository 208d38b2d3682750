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

from . import errors, events, observer
from .approvals import Approval
from .chunks import Chunk, Pieces, ProducerStamp
from .codec import (
    check_json,
    converter,
    decode,
    decode_json,
    encode,
    encode_data,
    encode_json,
    from_json,
    structure,
    to_json,
)
from .compaction import CompactionStatistics, Compactor, Progress
from .config import Config
from .engine import Engine, EngineStatistics, open_engine
from .errors import *  # noqa: F403  every error is public
from .events import *  # noqa: F403  the whole vocabulary is public
from .hub import Batch, Degraded, Drained, Ended
from .inputs import Input
from .lease import check_lease
from .log import (
    Append,
    Compact,
    CopyProgress,
    Delete,
    Entry,
    EventLog,
    FileState,
    Head,
    LogStatistics,
    MemoryLog,
    SqliteLog,
    SqliteReader,
    back_up,
    open_sqlite,
    open_sqlite_reader,
    restore,
)
from .observer import *  # noqa: F403  every fact is public
from .policy import PolicyName
from .producing import Generation, Producer, run_producer
from .reducer import ApprovalView, BlockView, MessageView, SessionState, Snapshot, SnapshotPage
from .results import (
    ChunksAccepted,
    Finished,
    GenerationInfo,
    Posted,
    Present,
    Queued,
    QueueNext,
    SessionInfo,
    Started,
    Stopped,
    StopState,
    Superseded,
    Updated,
)
from .retention import expire_sessions
from .session import Session
from .states import Outcome, StateName
from .subscription import (
    CaughtUp,
    Delivery,
    Ephemeral,
    Gap,
    Opened,
    PresenceListed,
    SnapshotTaken,
    Subscription,
)
from .writing import Block, Message

__all__ = [
    "Append",
    "Approval",
    "ApprovalView",
    "Batch",
    "Block",
    "BlockView",
    "CaughtUp",
    "Chunk",
    "ChunksAccepted",
    "Compact",
    "CompactionStatistics",
    "Compactor",
    "Config",
    "CopyProgress",
    "Degraded",
    "Delete",
    "Delivery",
    "Drained",
    "Ended",
    "Engine",
    "EngineStatistics",
    "Entry",
    "Ephemeral",
    "EventLog",
    "FileState",
    "Finished",
    "Gap",
    "Generation",
    "GenerationInfo",
    "Head",
    "Input",
    "LogStatistics",
    "MemoryLog",
    "Message",
    "MessageView",
    "Opened",
    "Outcome",
    "Pieces",
    "PolicyName",
    "Posted",
    "PresenceListed",
    "Present",
    "Producer",
    "ProducerStamp",
    "Progress",
    "QueueNext",
    "Queued",
    "Session",
    "SessionInfo",
    "SessionState",
    "Snapshot",
    "SnapshotPage",
    "SnapshotTaken",
    "SqliteLog",
    "SqliteReader",
    "Started",
    "StateName",
    "StopState",
    "Stopped",
    "Subscription",
    "Superseded",
    "Updated",
    "back_up",
    "check_json",
    "check_lease",
    "converter",
    "decode",
    "decode_json",
    "encode",
    "encode_data",
    "encode_json",
    "expire_sessions",
    "from_json",
    "open_engine",
    "open_sqlite",
    "open_sqlite_reader",
    "restore",
    "run_producer",
    "structure",
    "to_json",
]
__all__ += errors.__all__
__all__ += events.__all__
__all__ += observer.__all__
