"""The files that a server reads again on SIGHUP: its certificate, and the keys that tokens are signed with.

What cannot be read leaves things as they were: a server with yesterday's certificate is better than none.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, final

from ..server.tls import Certificate, TlsError

if TYPE_CHECKING:  # at run time only where a server is made: tail and send start without the weight of cryptography
    from ..access import Algorithm, JwtTokens, Tickets

__all__ = ["CertificateFiles", "KeyFiles", "Reloadable", "others_can_read", "reload_all", "warn_of_readable"]

_log = logging.getLogger("penstock.serve")


class NotReloaded(Exception):
    """The files cannot be used; the text says which and why."""


class Reloadable(Protocol):
    """Something that was made of files."""

    @property
    def what(self) -> str:
        """For people."""

    @property
    def secrets(self) -> Sequence[Path]:
        """Those of the files that nobody else should read."""

    def reload(self) -> None:
        """Read them again. Raises `NotReloaded`, and changes nothing."""


@final
class CertificateFiles:
    """The certificate of a server."""

    what = "the certificate"

    def __init__(self, certfile: str, keyfile: str | None) -> None:
        """Raises `TlsError`."""
        self.certificate = Certificate(certfile, keyfile)
        self.secrets = (Path(keyfile or certfile),)

    def reload(self) -> None:
        try:
            self.certificate.reload()
        except TlsError as error:
            raise NotReloaded(str(error)) from error


@final
class KeyFiles:
    """The keys that ``tokens`` are checked with, and that ``tickets`` are signed with if they are secrets."""

    what = "the keys of tokens"

    def __init__(self, paths: Sequence[Path], algorithm: Algorithm, tokens: JwtTokens, tickets: Tickets) -> None:
        self._paths = tuple(paths)
        self._algorithm = algorithm
        self._tokens = tokens
        self._tickets = tickets
        self.secrets = self._paths if algorithm == "HS256" else ()

    def reload(self) -> None:
        from ..access import BadKey, load_key  # noqa: PLC0415  see above

        try:
            self._tokens.replace([load_key(path, self._algorithm) for path in self._paths])
        except BadKey as error:
            raise NotReloaded(str(error)) from error
        self._tickets.replace(self._tokens.secrets)


def reload_all(things: Sequence[Reloadable]) -> None:
    """Read all of them again, and say what became of each. Raises nothing."""
    if not things:
        _log.info("SIGHUP: there is nothing to read again, neither a certificate nor keys")
    for thing in things:
        try:
            thing.reload()
        except NotReloaded as error:
            _log.error("SIGHUP: not read again, what was before goes on: %s: %s", thing.what, error)
        except Exception:  # noqa: BLE001  # nothing about files is a reason to end a server
            _log.exception("SIGHUP: not read again, what was before goes on: %s", thing.what)
        else:
            _log.info("SIGHUP: read again, for all that begins from now on: %s", thing.what)
    warn_of_readable(things)


def warn_of_readable(things: Sequence[Reloadable]) -> None:
    """Say which secrets others than this user can read."""
    for path in [path for thing in things for path in thing.secrets]:
        if others_can_read(path):
            _log.warning("%s can be read by others; it should be yours alone (chmod 600 %s)", path, path)


def others_can_read(path: Path) -> bool:
    """As PostgreSQL judges it: a file of somebody else's, root's say, is read by us through its group."""
    try:
        found = path.stat()
    except OSError:
        return False
    group_is_other = found.st_uid == os.geteuid()
    return bool(found.st_mode & stat.S_IROTH or (group_is_other and found.st_mode & stat.S_IRGRP))
