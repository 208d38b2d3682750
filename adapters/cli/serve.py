"""``penstock serve``: what it may be told. The serving is `process`'s."""

from __future__ import annotations

import ipaddress
import logging
from typing import Final

import click

from engine import Producer

from ..echo import echo
from .producers import LoadError, load_producers

__all__ = ["serve"]


_SECONDS: Final = click.FloatRange(min=0, min_open=True)


def _loopback(_: click.Context, __: click.Parameter, host: str) -> str:
    if host == "localhost":
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise click.BadParameter(f"{host!r} is not an IP address; use 127.0.0.1 or ::1") from None
    if not address.is_loopback:
        raise click.BadParameter(
            f"{host} can be reached from other machines, and there is no authentication yet. "
            "Serve on 127.0.0.1 and put a proxy that authenticates in front of it."
        )
    return host


@click.command()
@click.option("--db", default="penstock.db", show_default=True, help="The database file, made if need be; or :memory:.")
@click.option("--host", default="127.0.0.1", show_default=True, callback=_loopback, help="A loopback address.")
@click.option("--port", default=8420, show_default=True, type=click.IntRange(0, 65535), help="0: any that is free.")
@click.option(
    "--producer",
    "specs",
    metavar="NAME=module:function",
    multiple=True,
    help="Register a producer; repeatable. The current folder is searched first.",
)
@click.option("--default-producer", metavar="NAME", help="Who answers a start that names none.  [default: the first]")
@click.option(
    "--send-timeout",
    metavar="SECONDS",
    default=30.0,
    show_default=True,
    type=_SECONDS,
    help="A connection that takes no byte for so long is cut; it resumes by its cursor.",
)
@click.option(
    "--drain-timeout",
    metavar="SECONDS",
    default=10.0,
    show_default=True,
    type=_SECONDS,
    help="The time answers and connections get to end in on SIGTERM or Ctrl-C.",
)
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
)
def serve(
    db: str,
    host: str,
    port: int,
    specs: tuple[str, ...],
    default_producer: str | None,
    send_timeout: float,
    drain_timeout: float,
    log_level: str,
) -> None:
    """Serve sessions over HTTP and WebSocket, and the playground at /.

    The producer 'echo' is always there: it says back what was said, word by word. SIGTERM or Ctrl-C ends every
    answer and every stream in an orderly way; a second one ends the process at once.

    \b
    Examples:
      penstock serve
      penstock serve --db chat.db --port 9000
      penstock serve --producer story=my_app.producers:story
    """
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        own = load_producers(specs)
    except LoadError as error:
        raise click.ClickException(f"--producer: {error}") from error
    producers: dict[str, Producer] = {**own, "echo": own.get("echo", echo)}
    chosen = default_producer or next(iter(producers))
    if chosen not in producers:
        raise click.ClickException(f"--default-producer: there is no {chosen!r}; there are {', '.join(producers)}")
    from .process import Options, ServeError, run  # noqa: PLC0415  so that tail and send start without a server's weight

    try:
        run(
            Options(
                db=db,
                host=host,
                port=port,
                producers=producers,
                default_producer=chosen,
                send_timeout=send_timeout,
                drain_timeout=drain_timeout,
            )
        )
    except ServeError as error:
        raise click.ClickException(str(error)) from error
