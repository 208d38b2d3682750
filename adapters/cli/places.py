"""Where a log is, as the commands are told: a file, or a store by its URL; and how that is said, without passwords."""

from __future__ import annotations

import os
from typing import Final

import click

from penstock.engine import EventLog, open_log, open_sqlite_reader

__all__ = ["is_url", "name_of", "open_to_read", "place", "there"]

# What behind the ? tells logs of one store apart.
_TOLD: Final = ("prefix=", "schema=")


def is_url(place: str) -> bool:
    return "://" in place


def name_of(place: str) -> str:
    """For people: without what may let somebody in."""
    scheme, url, rest = place.partition("://")
    if not url:
        return place
    where, _, options = rest.partition("?")
    if "@" in options:  # a password's, on whichever side of the ? that begins
        return f"{scheme}://…"
    told = "&".join(each for each in options.split("&") if each.startswith(_TOLD))
    return f"{scheme}://{where.rpartition('@')[2]}" + (f"?{told}" if told else "")


def place(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """What a command takes for a log: FILE, sqlite:FILE, a URL, or env:NAME, a variable that has one of these."""
    if value.startswith("env:"):  # so that a password stands in no list of processes
        name = value.removeprefix("env:")
        if not os.environ.get(name):
            raise click.BadParameter(f"there is no variable {name}")
        value = os.environ[name]
    return value.removeprefix("sqlite:")


def there(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """As `place`, where a file must be there."""
    found = place(context, parameter, value)
    if not is_url(found):
        click.Path(exists=True, dir_okay=False).convert(found, parameter, context)
    return found


async def open_to_read(place: str) -> EventLog:
    """A file is opened beside whoever has it. Raises `DatabaseError`.

    A store may lose something: that was decided by who writes to it.
    """
    return await open_log(place, allow_weak_store=True) if is_url(place) else await open_sqlite_reader(place)
