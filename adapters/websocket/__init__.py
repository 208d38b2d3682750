"""The engine over one WebSocket: many sessions, commands and streams (subprotocol ``penstock.v1``).

`frames` makes the server's frames, `connection` holds the conversation.
"""

from .connection import SocketConfig, websocket_handler

__all__ = ["SocketConfig", "websocket_handler"]
