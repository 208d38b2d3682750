"""Who may reach a server: the flags of ``penstock serve`` about identity, origins, hosts and addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Final, ParamSpec, final

import click
from attrs import frozen

from .reloading import KeyFiles

if TYPE_CHECKING:  # at run time only where a server is made: tail and send start without the weight of cryptography
    from ..access import Algorithm, Identity

__all__ = ["ALGORITHM", "Access", "access_options", "check_addresses", "key_option"]

P = ParamSpec("P")

ALGORITHM: Final = click.Choice(["HS256", "EdDSA", "RS256"])


@final
@frozen(kw_only=True)
class Access:
    """What `serve` was told about who may reach it."""

    identity: Identity
    keys: KeyFiles | None  # that tokens are checked with, if any are asked for
    allowed_origins: tuple[str, ...]
    allowed_hosts: tuple[str, ...]


def key_option(*, multiple: bool, what: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """The file or files that tokens are signed with."""
    return click.option(
        "--jwt-key",
        metavar="FILE",
        multiple=multiple,
        required=not multiple,
        envvar="PENSTOCK_JWT_KEY",
        type=click.Path(dir_okay=False, path_type=Path),
        help=what,
    )


def _origin(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for text in values:
        from ..access.origins import is_origin  # noqa: PLC0415  where a server is made only, see above

        if not is_origin(text):
            raise click.BadParameter(f"{text!r} is no origin; write it as browsers do, like https://chat.example")
    return values


def _hosts(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for text in values:
        if not text or any(sign in text for sign in "/:@* "):
            raise click.BadParameter(f"{text!r} is no host name; write it without scheme and port")
    return tuple(text.lower() for text in values)


_OPTIONS: Final = (
    key_option(
        multiple=True,
        what="Ask everybody for a JWT signed for the key in this file: a secret of 32 bytes or more for HS256, else a "
        "public key in PEM form. Repeatable, for while keys are being changed.  [env: PENSTOCK_JWT_KEY]",
    ),
    click.option(
        "--jwt-algorithm",
        default="HS256",
        show_default=True,
        envvar="PENSTOCK_JWT_ALGORITHM",
        type=ALGORITHM,
        help="The only one that is accepted.",
    ),
    click.option(
        "--jwt-audience", metavar="TEXT", envvar="PENSTOCK_JWT_AUDIENCE", help="What a token's aud must name."
    ),
    click.option("--jwt-issuer", metavar="TEXT", envvar="PENSTOCK_JWT_ISSUER", help="What a token's iss must be."),
    click.option(
        "--allow-origin",
        "allow_origins",
        metavar="ORIGIN",
        multiple=True,
        callback=_origin,
        help="Let pages of this origin, like https://chat.example, use the server; repeatable.",
    ),
    click.option(
        "--allow-host",
        "allow_hosts",
        metavar="NAME",
        multiple=True,
        callback=_hosts,
        help="Without keys: another name that this server may be asked by, a proxy's for one; repeatable.",
    ),
)


def access_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to ``command``, which gets them as one argument, ``access``."""

    @wraps(command)
    def told(
        *,
        jwt_key: tuple[Path, ...],
        jwt_algorithm: Algorithm,
        jwt_audience: str | None,
        jwt_issuer: str | None,
        allow_origins: tuple[str, ...],
        allow_hosts: tuple[str, ...],
        **others: object,
    ) -> None:
        identity, keys = _identity(jwt_key, jwt_algorithm, jwt_audience, jwt_issuer)
        access = Access(identity=identity, keys=keys, allowed_origins=allow_origins, allowed_hosts=allow_hosts)
        command(access=access, **others)

    made: Callable[..., None] = told
    for option in reversed(_OPTIONS):
        made = option(made)
    return made


def _identity(
    paths: tuple[Path, ...], algorithm: Algorithm, audience: str | None, issuer: str | None
) -> tuple[Identity, KeyFiles | None]:
    """Raises `click.ClickException`."""
    from ..access import OPEN, BadKey, Identity, JwtTokens, Tickets, load_key  # noqa: PLC0415  see above

    if not paths:
        if audience is not None or issuer is not None:
            raise click.UsageError(
                "--jwt-audience and --jwt-issuer need --jwt-key: without a key no token is asked for"
            )
        return OPEN, None
    try:
        keys = [load_key(path, algorithm) for path in paths]
    except BadKey as error:
        raise click.ClickException(f"--jwt-key: {error}") from error
    tokens = JwtTokens(keys, algorithm, audience=audience, issuer=issuer)
    tickets = Tickets(tokens.secrets)
    return Identity(tokens, tickets=tickets), KeyFiles(paths, algorithm, tokens, tickets)


def check_addresses(hosts: Sequence[str], access: Access) -> tuple[str, ...]:
    """The addresses to listen on, each once. Raises `click.UsageError`."""
    return tuple(dict.fromkeys(_check_address(host, access) for host in hosts))


def _check_address(host: str, access: Access) -> str:
    """Without tokens it is one that only this machine reaches."""
    if host == "localhost":
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise click.UsageError(f"--host: {host!r} is not an IP address; use 127.0.0.1 or ::1") from None
    if access.identity.open and not address.is_loopback:
        raise click.UsageError(
            f"--host: {host} can be reached from other machines, and nobody would be asked who they are. "
            "Give a key for their tokens with --jwt-key FILE ((umask 077; openssl rand -base64 48 > FILE) "
            "makes one; 'penstock token' makes tokens), or serve on 127.0.0.1 behind a proxy that authenticates."
        )
    return host
