"""One port for HTTP and WebSocket, down to the bytes of a connection."""

from .accept import Drain, StartupFailed, WebSocketHandler, serve
from .config import ServerConfig
from .limits import Limits, LimitsConfig
from .tls import Certificate

__all__ = [
    "Certificate",
    "Drain",
    "Limits",
    "LimitsConfig",
    "ServerConfig",
    "StartupFailed",
    "WebSocketHandler",
    "serve",
]
