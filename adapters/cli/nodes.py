"""``penstock nodes``: which servers share a log, as the store that holds their leases knows them."""

from __future__ import annotations

from collections.abc import Mapping

import click
import trio

from penstock.engine import JSON, Node, PenstockError, encode_json, list_nodes

__all__ = ["nodes"]

_PATIENCE = 5.0  # seconds: somebody sits and waits


@click.command()
@click.option(
    "--log",
    "--bus",
    "url",
    metavar="URL",
    envvar=["PENSTOCK_BUS", "PENSTOCK_LOG"],
    required=True,
    help="The Redis over which they hear of each other, as serve was told of it by --bus, or else by --log.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def nodes(url: str, *, as_json: bool) -> None:
    """Show which servers share a log: since when, where the others reach them, and whether they shut down.

    One that is gone is shown as long as nobody has seen to what it left open. How many sessions each has, its
    /metrics tell (penstock_seats).

    \b
    Examples:
      PENSTOCK_LOG=redis://:secret@127.0.0.1:6379/0 penstock nodes
      penstock nodes --log redis://127.0.0.1:6379/0 --json | jq -r '.nodes[] | select(.state == "there") | .name'
    """
    if url.partition("://")[0] not in ("redis", "rediss", "redis+cluster", "rediss+cluster"):
        raise click.UsageError("--log (or PENSTOCK_LOG) is the URL of a Redis here, such as redis://127.0.0.1:6379/0")
    try:
        found = trio.run(_found, url)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except PenstockError as error:
        raise click.ClickException(error.detail) from error
    told = [_told(name, node) for name, node in sorted(found.items())]
    if as_json:
        click.echo(encode_json({"nodes": told}))
        return
    if not told:
        click.echo("no server shares this log")
    for each in told:
        about = [f"{each['name']:24} {each['state']:9}"]
        about += [f"{each[what]}" for what in ("since", "url", "version") if each.get(what)]
        click.echo("  ".join(about))


async def _found(url: str) -> Mapping[str, Node | None]:
    return await list_nodes(url, patience=_PATIENCE)


def _told(name: str, node: Node | None) -> dict[str, JSON]:
    if node is None:
        return {"name": name, "state": "gone"}
    state = "draining" if node.draining else "there"
    return {
        "name": name,
        "state": state,
        "since": node.since,
        "url": node.url,
        "version": node.version,
        "ttl": node.ttl,
        "producers": list(node.producers),
    }
