"""``penstock serve``: what it may be told. The serving is `process`'s."""

from __future__ import annotations

import logging
import math
import secrets
from typing import Final

import click

from penstock.engine import Config, Producer

from ..echo import echo
from ..watching.logs import LogFormat, log_handler
from .access import Access, access_options, check_addresses
from .edge import Edge, edge_options
from .listening import ListenError
from .models import ChosenModel, model_options
from .peering import Peering, peering_options
from .places import name_of
from .producers import LoadError, load_producers
from .sharing import check_workers, log_place, node_name

__all__ = ["serve"]


_SECONDS: Final = click.FloatRange(min=0, min_open=True)
_MIB: Final = 1024 * 1024

_IDLE_LIMIT: Final = Config().idle_limit

# Who writes what no producer of this process does, and may be named where producers are.
_REMOTE: Final = "remote"


def _idle_limits(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    """Seconds by the producer's name; the limit of all others stands under the empty one."""
    made: dict[str, float] = {}
    for text in values:
        name, _equals, said = text.rpartition("=")
        try:
            made[name] = math.inf if said == "none" else float(said)
        except ValueError:
            made[name] = math.nan
        if not made[name] > 0:
            raise click.BadParameter(f"{said!r} is neither a number of seconds above 0 nor none")
    return made


@click.command()
@click.option("--db", default="penstock.db", show_default=True, help="The database file, made if need be; or :memory:.")
@click.option(
    "--log",
    "url",
    metavar="URL",
    envvar="PENSTOCK_LOG",
    help="Instead of --db: redis://[user:password@]host[:port][/db], rediss:// over TLS, redis+cluster://, "
    "redis+sentinel://; sqlite:FILE is --db FILE. The variable PENSTOCK_LOG says the same, and its password stands in "
    "no list of processes.",
)
@click.option(
    "--log-patience",
    metavar="SECONDS",
    default=Config().log_patience,
    show_default=True,
    type=_SECONDS,
    help="A Redis or Postgres may be away for so long; answers wait meanwhile.",
)
@click.option(
    "--node",
    metavar="NAME",
    envvar="PENSTOCK_NODE",
    help="Share the log with other servers, each under a name of its own. Over a Redis there is always one: without "
    "this it is the machine's with something random. A server that begins again under the same name ends at once what "
    "a crash has left open; else that takes one and a half times --lease-ttl.",
)
@click.option(
    "--lease-ttl",
    metavar="SECONDS",
    envvar="PENSTOCK_LEASE_TTL",
    default=Config().lease_ttl,
    show_default=True,
    type=_SECONDS,
    help="A server of the same log that says nothing for so long is gone, and others take over its answers.",
)
@click.option(
    "--bus",
    metavar="URL",
    envvar="PENSTOCK_BUS",
    help="Over which Redis servers hear of each other that share a Postgres. Without it a named one reads within 5 s "
    "what others write, and none takes over what another left. A log in a Redis needs none.",
)
@click.option(
    "--replicas",
    metavar="N",
    envvar="PENSTOCK_REPLICAS",
    default=0,
    show_default=True,
    type=click.IntRange(0, 64),
    help="What is acknowledged is on the disks of so many replicas of the store, too.",
)
@peering_options
@click.option(
    "--workers",
    metavar="N",
    envvar="PENSTOCK_WORKERS",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="So many processes behind the same addresses, for more than one core. They share a log: a Redis that --log "
    "names. Each is a server of its own, NAME-1 and so on; limits such as --rate and --max-connections are each one's.",
)
@click.option(
    "--worker-port",
    metavar="PORT",
    envvar="PENSTOCK_WORKER_PORT",
    type=click.IntRange(1, 65535),
    help="Each of the --workers answers at 127.0.0.1 as well, the first at PORT, the next one port further: for its "
    "/metrics.",
)
@click.option("--allow-weak-store", is_flag=True, help="Take a store that may lose what it acknowledged, too.")
@click.option(
    "--host",
    "hosts",
    metavar="ADDRESS",
    multiple=True,
    default=["127.0.0.1"],
    show_default=True,
    help="Any address of this machine's; without --jwt-key a loopback one. Repeatable. :: serves IPv4, too, unless an "
    "address of IPv4 is named beside it.",
)
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
    "--idle-limit",
    "idle_limits",
    metavar="[NAME=]SECONDS|none",
    multiple=True,
    callback=_idle_limits,
    help="An answer that writes nothing for so long is ended; with NAME= those of one producer. Repeatable. A model "
    f"that has not said its first word has ten minutes all the same.  [default: {_IDLE_LIMIT:g}]",
)
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
    "--file-limit",
    metavar="MIB",
    default=Config().file_bytes // _MIB,
    show_default=True,
    type=click.IntRange(min=1),
    help="The largest file that a session keeps.",
)
@click.option(
    "--session-file-limit",
    metavar="MIB",
    default=Config().session_file_bytes // _MIB,
    show_default=True,
    type=click.IntRange(min=1),
    help="All files of one session. They lie in the database.",
)
@model_options
@edge_options
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
)
@click.option(
    "--log-format",
    default="text",
    show_default=True,
    type=click.Choice(["text", "json"]),
    help="Lines for people, or one JSON object a line.",
)
@access_options
@click.pass_context
def serve(
    context: click.Context,
    access: Access,
    db: str,
    url: str | None,
    log_patience: float,
    node: str | None,
    lease_ttl: float,
    bus: str | None,
    replicas: int,
    peering: Peering | None,
    workers: int,
    worker_port: int | None,
    allow_weak_store: bool,
    hosts: tuple[str, ...],
    port: int,
    specs: tuple[str, ...],
    default_producer: str | None,
    idle_limits: dict[str, float],
    send_timeout: float,
    drain_timeout: float,
    file_limit: int,
    session_file_limit: int,
    model: ChosenModel | None,
    edge: Edge,
    log_level: str,
    log_format: LogFormat,
) -> None:
    """Serve sessions over HTTP and WebSocket, and the playground at /.

    The producer 'echo' is always there: it says back what was said, word by word. SIGTERM, SIGQUIT or
    Ctrl-C ends every answer and every stream in an orderly way; a second one ends the process at once. SIGHUP has the
    certificate and the keys read again.

    \b
    Examples:
      penstock serve
      penstock serve --db chat.db --port 9000
      PENSTOCK_LOG=redis://:secret@127.0.0.1:6379/0 penstock serve --node one
      penstock serve --log redis://127.0.0.1:6379/0 --workers 4
      penstock serve --host 127.0.0.1 --host ::1
      penstock serve --trusted-proxy 127.0.0.1 --root-path /chat
      penstock serve --producer story=my_app.producers:story
      penstock serve --model anthropic:claude-sonnet-4-5 --system "Be brief."
      penstock serve --model openai:llama3.2 --base-url http://127.0.0.1:11434/v1
      penstock serve --producer report=my_app:report --idle-limit report=none
    """
    log = log_handler(log_format)
    logging.basicConfig(level=log_level.upper(), handlers=[log])
    place = log_place(context, db, url)
    checked = check_addresses(hosts, access)
    if workers == 1 and worker_port is not None:
        raise click.UsageError("--worker-port is for --workers")
    from .workers import Team, Worker, run_workers  # noqa: PLC0415  as `process` below

    worker = Worker.told()
    if worker is not None:
        log.addFilter(worker.mark)
        node, peering = worker.node, worker.peering(peering)
    elif workers > 1:
        name = check_workers(place, node, bus, peering, workers, worker_port)
        try:
            team = Team.gather(
                workers,
                hosts=checked,
                port=port,
                first_own=worker_port,
                name=name,
                log_name=name_of(place),
                scheme="http" if edge.certificate is None else "https",
                secret=secrets.token_bytes(48) if peering is None else b"",
            )
        except ListenError as error:
            raise click.ClickException(str(error)) from error
        raise SystemExit(run_workers(team))
    try:
        own = load_producers(specs)
    except LoadError as error:
        raise click.ClickException(f"--producer: {error}") from error
    if model is not None:
        if "model" in own:
            raise click.ClickException("--model: a --producer is named 'model', too; give it another name")
        own["model"] = model.open(show_errors=access.identity.open)  # without tokens, readers may do everything
    producers: dict[str, Producer] = {**own, "echo": own.get("echo", echo)}
    chosen = default_producer or next(iter(producers))
    if chosen not in producers:
        raise click.ClickException(f"--default-producer: there is no {chosen!r}; there are {', '.join(producers)}")
    idle_limit = idle_limits.pop("", _IDLE_LIMIT)
    for name in idle_limits.keys() - {*producers, _REMOTE}:
        raise click.ClickException(f"--idle-limit: there is no {name!r}; there are {', '.join(producers)}")
    from .process import Options, ServeError, run  # noqa: PLC0415  so that tail and send start without a server's weight

    named = node_name(place, node, bus)
    if peering is not None and named is None:
        raise click.UsageError(
            "--node-listen is for servers that share a log: name it by --log, and this one by --node"
        )
    if peering is not None and peering.encrypted and edge.certificate is None:
        raise click.UsageError("--node-url says https, which takes a --certfile")
    try:
        run(
            Options(
                log=place,
                node=named,
                peering=peering,
                lease_ttl=lease_ttl,
                bus=bus,
                log_patience=log_patience,
                replicas=replicas,
                allow_weak_store=allow_weak_store,
                hosts=checked,
                port=port,
                access=access,
                producers=producers,
                default_producer=chosen,
                idle_limit=idle_limit,
                idle_limits=idle_limits,
                send_timeout=send_timeout,
                drain_timeout=drain_timeout,
                file_bytes=file_limit * _MIB,
                session_file_bytes=session_file_limit * _MIB,
                edge=edge,
                worker=worker,
            )
        )
    except ServeError as error:
        log.flush()  # the last line says why
        raise click.ClickException(str(error)) from error
