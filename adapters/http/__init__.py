"""The engine over HTTP: a Quart-Trio application.

`app` puts it together and turns every refusal into a problem answer; `sessions` and `generations` have the routes
that answer once, `events` the stream, `health` the server's own state, `page` the playground's files. `routes` is
what they share. `mounting` puts it below a path of another application.
"""

from .app import create_app
from .mounting import mount

__all__ = ["create_app", "mount"]
