"""The ASGI lifespan of one application: started once, stopped once, each within a deadline.

Owns what the server tells the application about its own life. hypercorn's own version goes on with a warning
when the start fails; here a server whose application cannot start does not start either.
"""

from __future__ import annotations

import logging
from typing import cast, final

import trio
from hypercorn.typing import ASGIFramework, ASGIReceiveEvent, ASGISendEvent, LifespanScope, LifespanState

__all__ = ["Lifespan", "StartupFailed"]

_log = logging.getLogger("penstock.server")


class StartupFailed(Exception):
    """The application could not start; the text is what it said."""


@final
class Lifespan:
    """Run `run` in a nursery, then call `startup`, and in the end `shutdown`.

    An application that does not know the lifespan protocol (it raises or returns before it answers) is served
    without it, as ASGI asks for.
    """

    def __init__(self, app: ASGIFramework) -> None:
        self.state: LifespanState = cast(LifespanState, {})
        self._app = app
        self._to_app, self._from_server = trio.open_memory_channel[ASGIReceiveEvent](2)  # startup and shutdown
        self._started = trio.Event()
        self._stopped = trio.Event()
        self._failure: str | None = None

    async def run(self) -> None:
        scope = cast(
            LifespanScope, {"type": "lifespan", "asgi": {"spec_version": "2.0", "version": "3.0"}, "state": self.state}
        )
        try:
            await self._app(scope, self._from_server.receive, self._answer)
        except Exception:  # noqa: BLE001  # ASGI: to raise is to say that one does not know the protocol
            if self._started.is_set():
                _log.exception("the application failed outside of requests")
            else:
                _log.debug("the application does not speak the lifespan protocol", exc_info=True)
        finally:
            self._started.set()
            self._stopped.set()

    async def _answer(self, event: ASGISendEvent) -> None:
        kind = event["type"]
        if kind == "lifespan.startup.failed":
            self._failure = cast("dict[str, str]", event).get("message") or "no reason given"
        elif kind == "lifespan.shutdown.failed":
            _log.error("the application failed to stop: %s", cast("dict[str, str]", event).get("message"))
        if kind.startswith("lifespan.startup."):
            self._started.set()
        elif kind.startswith("lifespan.shutdown."):
            self._stopped.set()

    async def startup(self, seconds: float) -> str | None:
        """Start the application. None, or why it could not start."""
        await self._to_app.send({"type": "lifespan.startup"})
        with trio.move_on_after(seconds) as limit:
            await self._started.wait()
        if limit.cancelled_caught:
            return f"it did not start within {seconds} s"
        return self._failure

    async def shutdown(self, seconds: float) -> None:
        """Stop the application, waiting at most ``seconds``."""
        if self._stopped.is_set():
            return
        await self._to_app.send({"type": "lifespan.shutdown"})
        with trio.move_on_after(seconds) as limit:
            await self._stopped.wait()
        if limit.cancelled_caught:
            _log.error("the application did not stop within %s s", seconds)
