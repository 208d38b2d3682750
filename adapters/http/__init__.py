"""The engine over HTTP: a Quart-Trio application.

`app` puts it together and turns every refusal into a problem answer; `sessions` has the routes that answer
once, `events` the stream, `page` the playground's files.
"""

from .app import create_app

__all__ = ["create_app"]
