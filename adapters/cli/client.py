"""The client of the commands: that of `penstock.adapters.client`, with a person's patience and in a person's words.

Which server it is, and by which token, are options of every command that has one.

A server that was never there is an error at once, and so is one that stays away for long; in between, a connection
that breaks is taken up where it broke off.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self, TypeVar, final

import click
import httpx
import trio

from penstock.engine import CaughtUp, Degraded, Drained, Ended, Gap, InvalidBody, PenstockError

from ..client import Arrived, Client, ClientConfig, Delivery, Events, Lost, Unreachable, connect

__all__ = [
    "DEFAULT_URL",
    "PATIENCE",
    "ClientError",
    "Following",
    "connected",
    "run",
    "server_options",
    "token_source",
]

T = TypeVar("T")
_Command = TypeVar("_Command", bound=Callable[..., object])

DEFAULT_URL: Final = "http://127.0.0.1:8420"

# A server that restarts is back long before; one that is not is not coming.
PATIENCE: Final = 60.0


@final
class ClientError(Exception):
    """It cannot go on; the text says why and what to do."""


def server_options(command: _Command) -> _Command:
    """Adds ``--url`` and ``--token-file``. A token itself is no argument: other users of the machine see those."""
    url = click.option(
        "--url", default=DEFAULT_URL, show_default=True, envvar="PENSTOCK_URL", show_envvar=True, help="The server."
    )
    token_file = click.option(
        "--token-file",
        metavar="FILE",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Where the token is, if the server asks for one; read before every request.  [default: $PENSTOCK_TOKEN]",
    )
    return url(token_file(command))


def token_source(path: Path | None) -> Callable[[], str | None]:
    """What tells the token as it is now. It raises `ClientError`."""

    def read() -> str | None:
        if path is None:
            return os.environ.get("PENSTOCK_TOKEN") or None
        try:
            token = path.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise ClientError(f"the token cannot be read from {path}: {error}") from error
        if not token.isprintable():
            raise ClientError(f"there is more than a token in {path}")
        return token

    return read


def run(command: Callable[[], Awaitable[T]]) -> T:
    """Run a command to its end. Ctrl-C exits with 130; what cannot go on is one clear line."""
    try:
        return trio.run(command, restrict_keyboard_interrupt_to_checkpoints=True)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except ClientError as error:
        raise click.ClickException(str(error)) from error
    except Unreachable as error:
        raise click.ClickException(
            f"{error.detail}; start one with 'penstock serve' or name another with --url"
        ) from error
    except PenstockError as error:
        raise click.ClickException(f"{error.detail} [{error.code}]") from error


@asynccontextmanager
async def connected(
    url: str,
    token: Callable[[], str | None],
    *,
    patience: float = 0.0,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator[Client]:
    """A client that asks ``token`` before each request, and repeats what is safe to repeat for ``patience`` seconds."""

    async def current() -> str | None:
        return token()

    try:
        opening = connect(url, token=current, config=ClientConfig(patience=patience), transport=transport)
        async with opening as client:
            yield client
    except httpx.InvalidURL as error:
        raise InvalidBody(f"{url!r} is no URL: {error}") from error


@final
class Following:
    """A stream's deliveries for a terminal. ``note`` is told once when the connection is lost.

    Raises what it was refused with, and the last error where the server was never there, or stays away for a minute.
    """

    def __init__(self, events: Events, note: Callable[[str], None]) -> None:
        self._events: Final = events
        self._note: Final = note
        self._lost_at: float | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivery:
        while True:
            try:
                delivery = await self._events.receive()
            except trio.EndOfChannel:
                raise StopAsyncIteration from None
            if isinstance(delivery, CaughtUp):
                self._lost_at = None  # it is back, also where nothing was said meanwhile
            if not isinstance(delivery, Lost):
                if isinstance(delivery, Arrived | Gap | Ended | Drained | Degraded):
                    self._lost_at = None
                    return delivery
                continue
            never_there = not self._events.statistics().connections
            now = trio.current_time()
            if self._lost_at is None:
                self._lost_at = now
                if not never_there:
                    self._note("connection lost, resuming")
            if delivery.error is not None and (never_there or now - self._lost_at > PATIENCE):
                raise delivery.error
