"""One port for HTTP and WebSocket, down to the bytes of a connection."""

from .accept import StartupFailed, serve
from .config import ServerConfig
from .limits import Limits
from .tls import Certificate

__all__ = ["Certificate", "Limits", "ServerConfig", "StartupFailed", "serve"]
