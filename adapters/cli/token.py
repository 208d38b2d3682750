"""``penstock token``: make a token, to try a server out or in a back end's script."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .access import ALGORITHM, key_option

if TYPE_CHECKING:
    from ..access import Algorithm, Scope

__all__ = ["token"]


@click.command()
@click.argument("subject")
@key_option(
    multiple=False,
    what="The secret for HS256, else the private key in PEM form.  [env: PENSTOCK_JWT_KEY]",
)
@click.option("--jwt-algorithm", default="HS256", show_default=True, envvar="PENSTOCK_JWT_ALGORITHM", type=ALGORITHM)
@click.option("--jwt-audience", metavar="TEXT", envvar="PENSTOCK_JWT_AUDIENCE", help="For whom it is: its aud.")
@click.option("--jwt-issuer", metavar="TEXT", envvar="PENSTOCK_JWT_ISSUER", help="Who made it: its iss.")
@click.option(
    "--session",
    "sessions",
    metavar="PATTERN",
    multiple=True,
    required=True,
    help="A session id in which * may stand for any characters; repeatable.",
)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    default=("read", "write"),
    show_default=True,
    type=click.Choice(["read", "write", "produce", "admin"]),
    help="What it allows; repeatable.",
)
@click.option(
    "--ttl",
    metavar="SECONDS",
    default=3600,
    show_default=True,
    type=click.IntRange(1, 366 * 86400),
    help="How long it holds.",
)
def token(
    subject: str,
    jwt_key: Path,
    jwt_algorithm: Algorithm,
    jwt_audience: str | None,
    jwt_issuer: str | None,
    sessions: tuple[str, ...],
    scopes: tuple[Scope, ...],
    ttl: int,
) -> None:
    """Print a token for SUBJECT, who then is who approves and who asks. Whoever has it, has its rights.

    \b
    Examples:
      (umask 077; openssl rand -base64 48 > penstock.key)
      penstock serve --jwt-key penstock.key
      export PENSTOCK_TOKEN=$(penstock token ann --jwt-key penstock.key --session 'ann-*')
      penstock send ann-1 "hello"
    """
    from ..access import BadKey, JwtTokens, is_pattern, load_signer, make_token  # noqa: PLC0415  as in access
    from ..problems import Unauthenticated  # noqa: PLC0415

    for pattern in sessions:
        if not is_pattern(pattern):
            raise click.BadParameter(f"{pattern!r} is no session id, also with *", param_hint="--session")
    try:
        signer = load_signer(jwt_key, jwt_algorithm)
    except BadKey as error:
        raise click.ClickException(f"--jwt-key: {error}") from error
    made = make_token(
        signer,
        subject=subject,
        scopes=scopes,
        sessions=sessions,
        ttl=ttl,
        audience=jwt_audience,
        issuer=jwt_issuer,
    )
    try:
        JwtTokens([signer.public], jwt_algorithm, audience=jwt_audience, issuer=jwt_issuer)(made)
    except Unauthenticated as error:
        raise click.ClickException(f"no server would take this token: {error}") from error
    click.echo(made)
