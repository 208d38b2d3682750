"""The engine over one WebSocket: many sessions, commands and streams (subprotocol ``penstock.v1``).

`handshake` says who may come in, `connection` holds the conversation, `commands` has what may be asked for, and `lanes`
has it wait for its turn and for room; `subscriptions` and `productions` are what goes on behind the answers, and
`hearing` whether it still may; `holder` is whose socket it is, `envelope` and `forms.frames` are what is read and
written.
"""

from .connection import SocketConfig
from .handshake import SUBPROTOCOL, websocket_handler

__all__ = ["SUBPROTOCOL", "SocketConfig", "websocket_handler"]
