"""A penstock server from a Trio program in another process: its sessions, their streams, and producers for them.

    async with connect("http://127.0.0.1:8420", token=fetch_token) as client:
        session = await client.create_session("demo")
        await session.start(text="hello")
        async with session.events() as events:
            async for event in events: ...

The names, results and errors are the engine's. From the outside in:

- `client`, `session`: what an application calls
- `reading`, `transcript`: a stream that reconnects for ever, and the state that it adds up to
- `listing`: the list of sessions, by pages and as it changes
- `producing`, `hearing`, `writer`, `farewell`: a remote producer under the engine's own `Generation`
- `files`: what a session keeps beside its messages
- `sending`, `following`, `reconnecting`, `commands`: tasks and requests, and when they are repeated
- `lines`, `wire`: connections
- pure: `batching`, `numbering`, `retrying`, `backoff`, `place`, `frames`, `answers`, `refusals`, `config`
"""

from __future__ import annotations

from .client import Client, connect
from .config import ClientConfig
from .listing import ListDelivery, ListEvents, SessionPage
from .place import Arrived, Delivery
from .reading import Events, FollowStatistics
from .reconnecting import Lost
from .refusals import BadAnswer, Refused, Unreachable
from .session import RemoteSession
from .transcript import Transcript
from .wire import Token

__all__ = [
    "Arrived",
    "BadAnswer",
    "Client",
    "ClientConfig",
    "Delivery",
    "Events",
    "FollowStatistics",
    "ListDelivery",
    "ListEvents",
    "Lost",
    "Refused",
    "RemoteSession",
    "SessionPage",
    "Token",
    "Transcript",
    "Unreachable",
    "connect",
]
