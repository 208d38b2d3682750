"""TLS for the server: a context from a certificate and its key, which may be changed while it serves."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import final

__all__ = ["Certificate", "TlsError", "tls_context"]


@final
class TlsError(Exception):
    """The files cannot be used; the text names which, why, and what to do."""


class _Encrypted(Exception):
    pass


def _refuse_password() -> str:
    """OpenSSL would ask on the terminal, where nobody sits."""
    raise _Encrypted


def tls_context(certfile: str, keyfile: str | None = None) -> ssl.SSLContext:
    """TLS 1.2 or newer with the certificate chain in ``certfile`` (PEM) and its key, in ``keyfile`` or beside it.

    Offers HTTP/1.1 and nothing else: a proxy in front may speak HTTP/2. Raises `TlsError`.
    """
    for name in filter(None, (certfile, keyfile)):
        try:
            with Path(name).open("rb"):
                pass
        except OSError as error:
            raise TlsError(f"{name} cannot be read: {error.strerror}") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996 buried what was before
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certfile, keyfile, password=_refuse_password)
    except _Encrypted as error:
        raise TlsError(f"the key in {keyfile or certfile} is encrypted; decrypt it (openssl pkey) first") from error
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsError(f"the key in {keyfile or certfile} is not that of the certificate in {certfile}") from error
        files = certfile if keyfile is None else f"{certfile} and {keyfile}"
        raise TlsError(f"{files} must hold a certificate and its private key as PEM") from error
    return context


@final
class Certificate:
    """What `tls_context` makes of the files, and what it makes of them later: for the connections from then on."""

    def __init__(self, certfile: str, keyfile: str | None = None) -> None:
        """Raises `TlsError`."""
        self._certfile = certfile
        self._keyfile = keyfile
        self.context = tls_context(certfile, keyfile)

    def reload(self) -> None:
        """Read the files again. Raises `TlsError`, and then the context is the one that it was."""
        self.context = tls_context(self._certfile, self._keyfile)
