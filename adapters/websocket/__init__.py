"""The engine over one WebSocket: many sessions, commands and streams (subprotocol ``penstock.v1``).

`handshake` says who may come in, `connection` holds the conversation, `commands` has what may be asked for;
`subscriptions` and `productions` are what goes on behind the answers, `holder` is whose socket it is, `envelope` and
`frames` are what is read and written.
"""

from .connection import SocketConfig
from .handshake import SUBPROTOCOL, websocket_handler

__all__ = ["SUBPROTOCOL", "SocketConfig", "websocket_handler"]
