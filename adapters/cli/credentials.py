"""Who a command is to a server that asks: a token from the environment or from a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from .client import ClientError

__all__ = ["token_option", "token_source"]

_Command = TypeVar("_Command", bound=Callable[..., object])


def token_option(command: _Command) -> _Command:
    """Adds ``--token-file``. A token itself is no argument: other users of the machine see those."""
    return click.option(
        "--token-file",
        metavar="FILE",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Where the token is, if the server asks for one; read before every request.  [default: $PENSTOCK_TOKEN]",
    )(command)


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
