"""Where a server's log is, as ``penstock serve`` was told, and what the server is called among those that share it."""

from __future__ import annotations

import re
import secrets
import socket

import click
from click.core import ParameterSource

from penstock.engine import InvalidId, check_path_id

from .peering import Peering
from .places import is_url

__all__ = ["check_workers", "log_place", "node_name"]


def log_place(context: click.Context, db: str, url: str | None) -> str:
    """Where the log is. What is wrong with the URL is said without it: it may hold a password."""
    if url is None:
        return db
    if context.get_parameter_source("db") is not ParameterSource.DEFAULT:
        raise click.UsageError("--db and --log (or PENSTOCK_LOG) are two places for one log: name one of them")
    scheme, _, file = url.partition(":")
    if scheme == "sqlite" and file and not file.startswith("//"):
        return file
    if "://" not in url:
        raise click.UsageError(
            "--log (or PENSTOCK_LOG) is a URL such as redis://127.0.0.1:6379/0, postgres://127.0.0.1/db, or sqlite:FILE"
        )
    return url


def node_name(place: str, node: str | None, bus: str | None) -> str | None:
    """What the server is called among those that share its log; None where it is alone."""
    shared = place.partition("://")[0].startswith(("redis", "postgres")) and "://" in place
    if not shared:
        if node is not None or bus is not None:
            raise click.UsageError("--node and --bus are for servers that share a log: name it by --log")
        return None
    if node is not None:
        try:
            return check_path_id(node, "--node")
        except InvalidId as error:
            raise click.UsageError(error.detail) from error
    if place.startswith("redis") or bus is not None:
        machine = re.sub(r"[^A-Za-z0-9.-]+", "-", socket.gethostname())[:64].strip(".-")
        return f"{machine or 'node'}-{secrets.token_hex(3)}"
    return None


def check_workers(
    place: str, node: str | None, bus: str | None, peering: Peering | None, workers: int, worker_port: int | None
) -> str:
    """What the workers are called, before their numbers. Raises `click.UsageError`."""
    if not is_url(place):
        raise click.UsageError(
            "--workers share a log, which a file cannot be: start a Redis and name it, with "
            "--log redis://127.0.0.1:6379/0\n\n  redis-server --appendonly yes --appendfsync always "
            "--no-appendfsync-on-rewrite no --maxmemory-policy noeviction"
        )
    if place.startswith("postgres") and bus is None:
        raise click.UsageError("--workers over a Postgres take a --bus, a Redis over which they hear of each other")
    for option, first in (("--worker-port", worker_port), ("--node-listen", peering.port if peering else None)):
        if first and first + workers - 1 >= 2**16:
            raise click.UsageError(f"{option}: there are no {workers} ports from {first} on")
    named = node_name(place, node, bus)
    assert named is not None
    node_name(place, f"{named}-{workers}", bus)  # with the longest number
    return named
