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
from . import facts as observer
from .cluster.opening import list_nodes
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
from .config import Config
from .engine import Engine, EngineStatistics, open_engine
from .errors import *  # noqa: F403  every error is public
from .events import *  # noqa: F403  the whole vocabulary is public
from .facts import *  # noqa: F403  every fact is public
from .generation.approvals import Approval
from .generation.generation import Generation, Producer, run_producer
from .generation.inputs import Input
from .generation.lease import check_lease
from .generation.message import Block, Message
from .log import (
    Append,
    Claim,
    Compact,
    CopyProgress,
    Delete,
    Entry,
    EventLog,
    FileState,
    Head,
    Keep,
    LogStatistics,
    MemoryLog,
    Release,
    SqliteLog,
    SqliteReader,
    Summary,
    back_up,
    open_log,
    open_sqlite,
    open_sqlite_reader,
    rebase_log,
    restore,
)
from .reducer import ApprovalView, BlockView, MessageView, ResolvedView, SessionState, Snapshot, SnapshotPage
from .results import (
    ChunksAccepted,
    FileInfo,
    FileKept,
    Finished,
    GenerationInfo,
    LastSaid,
    Posted,
    Present,
    ProducerInfo,
    Queued,
    QueueNext,
    Restored,
    SessionInfo,
    Started,
    Stopped,
    StopState,
    Superseded,
    Updated,
    Versions,
)
from .rules.chunks import Chunk, Pieces, ProducerStamp
from .rules.policy import PolicyName
from .rules.states import Outcome, StateName
from .session.peers import Peers, Unanswered
from .session.session import Session
from .stream.bus import Bus, LocalBus, Node
from .stream.hub import Batch, Degraded, Drained, Ended
from .stream.subscription import (
    CaughtUp,
    Delivery,
    Ephemeral,
    Gap,
    Opened,
    PresenceListed,
    SnapshotTaken,
    Subscription,
)
from .stream.volatile import LocalVolatile, Noted, Place, Volatile
from .stream.watch import ListChange, ListDelivery, Watch
from .upkeep.compaction import CompactionStatistics, Compactor, Progress
from .upkeep.copying import Copied, copy_log
from .upkeep.retention import expire_sessions

__all__ = [
    "Append",
    "Approval",
    "ApprovalView",
    "Batch",
    "Block",
    "BlockView",
    "Bus",
    "CaughtUp",
    "Chunk",
    "ChunksAccepted",
    "Claim",
    "Compact",
    "CompactionStatistics",
    "Compactor",
    "Config",
    "Copied",
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
    "FileInfo",
    "FileKept",
    "FileState",
    "Finished",
    "Gap",
    "Generation",
    "GenerationInfo",
    "Head",
    "Input",
    "Keep",
    "LastSaid",
    "ListChange",
    "ListDelivery",
    "LocalBus",
    "LocalVolatile",
    "LogStatistics",
    "MemoryLog",
    "Message",
    "MessageView",
    "Node",
    "Noted",
    "Opened",
    "Outcome",
    "Peers",
    "Pieces",
    "Place",
    "PolicyName",
    "Posted",
    "PresenceListed",
    "Present",
    "Producer",
    "ProducerInfo",
    "ProducerStamp",
    "Progress",
    "QueueNext",
    "Queued",
    "Release",
    "ResolvedView",
    "Restored",
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
    "Summary",
    "Superseded",
    "Unanswered",
    "Updated",
    "Versions",
    "Volatile",
    "Watch",
    "back_up",
    "check_json",
    "check_lease",
    "converter",
    "copy_log",
    "decode",
    "decode_json",
    "encode",
    "encode_data",
    "encode_json",
    "expire_sessions",
    "from_json",
    "list_nodes",
    "open_engine",
    "open_log",
    "open_sqlite",
    "open_sqlite_reader",
    "rebase_log",
    "restore",
    "run_producer",
    "structure",
    "to_json",
]
__all__ += errors.__all__
__all__ += events.__all__
__all__ += observer.__all__
