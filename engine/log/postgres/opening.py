"""What a Postgres must be, so that nothing is lost that it acknowledged; and the tables and functions in it."""

from __future__ import annotations

import hashlib
import logging
import re
from importlib.resources import files
from typing import Final

import psycopg

from ...errors import NewerSchema, UnwritableDatabase
from .address import Address
from .store import Link

__all__ = ["check_store", "prepare"]

logger = logging.getLogger("penstock.log")

# What this version writes; a store of a higher one is left alone.
_SCHEMA: Final = 1

_OLDEST: Final = 12

# What must be said, and what may be lost where something else is.
_SETTINGS: Final = {
    "fsync": ("off", "so that with its machine all may be lost"),
    "full_page_writes": ("off", "so that with its machine pages may be lost"),
    "synchronous_commit": ("off", "so that the last second is lost with its machine, or when it is killed"),
}

# Every advisory lock of a database is in one space: this is "penstock" in ASCII.
_LOCK: Final = 0x70656E73746F636B


def check_store(link: Link, address: Address, *, allow_weak: bool, replicas: int = 0) -> None:
    """Raises `UnwritableDatabase` when the store takes no writes, or, unless ``allow_weak``, may lose some.

    Also when it does not wait for so many standbys.
    """
    if link.info.server_version < _OLDEST * 10_000:
        raise UnwritableDatabase(f"{address} is too old: it takes Postgres {_OLDEST} or newer")
    if _shown(link, "server_encoding") != "UTF8":
        raise UnwritableDatabase(f"{address} is not encoded in UTF8: make a database that is (createdb -E UTF8)")
    if _shown(link, "transaction_read_only") == "on":
        raise UnwritableDatabase(f"{address} is read only, such as a standby: name the primary, or let it become one")
    waits = _waits_for(_shown(link, "synchronous_standby_names"), _shown(link, "synchronous_commit"))
    if waits < replicas:
        raise UnwritableDatabase(
            f"{address} commits when {waits} standbys have it, and --replicas says {replicas}: set "
            f"synchronous_standby_names, such as 'ANY {replicas} (*)', and synchronous_commit to on"
        )
    weak = [f"{name} is {bad}, {loss}" for name, (bad, loss) in _SETTINGS.items() if _shown(link, name) == bad]
    if not weak:
        return
    text = "; ".join(weak)
    if not allow_weak:
        raise UnwritableDatabase(
            f"{address} may lose what it acknowledged: {text}. Change it (ALTER SYSTEM, and pg_reload_conf()), or "
            "allow a weak store (--allow-weak-store)"
        )
    logger.warning("%s may lose what it acknowledged: %s", address, text)


def _waits_for(standbys: str, commit: str) -> int:
    """For how many standbys a commit waits until they have it on their disks."""
    if not standbys.strip() or commit not in ("on", "remote_apply"):
        return 0
    found = re.match(r"\s*(?:FIRST\s+|ANY\s+)?(\d+)\s*\(", standbys, re.IGNORECASE)
    return int(found[1]) if found else 1


def _shown(link: Link, name: str) -> str:
    (value,) = link.execute("SELECT current_setting(%s)", (name,)).fetchone() or ("",)
    return str(value)


# Run as one transaction. Under the lock, for another may make the same just now.
_MAKE: Final = """
SELECT pg_advisory_xact_lock({lock});
DO $make$ BEGIN
    IF to_regnamespace('{schema}') IS NULL THEN
        CREATE SCHEMA "{schema}";
    END IF;
    IF to_regclass('{schema}.penstock') IS NULL THEN
        {tables}
    END IF;
    IF to_regproc('{schema}.purge_{version}') IS NULL THEN
        {functions}
    END IF;
END $make$
"""


def prepare(link: Link, address: Address) -> str:
    """Make what is not there yet, all in one transaction; the version of the functions.

    Raises `NewerSchema`, and `UnwritableDatabase` when that cannot be made.
    """
    folder = files(__package__)
    functions = folder.joinpath("functions.sql").read_text()
    version = hashlib.sha256(functions.encode()).hexdigest()[:16]
    schema = address.schema
    if _names(link, f"to_regclass('{schema}.penstock')"):
        ((stored,),) = link.execute("SELECT max(version) FROM penstock").fetchall()
        if stored is None or stored > _SCHEMA:
            raise NewerSchema(f"{address} was written by a newer penstock: use that one, or another schema")
    if not _names(link, f"to_regproc('{schema}.purge_{version}')"):
        script = _MAKE.format(
            lock=_LOCK,
            schema=schema,
            version=version,
            tables=folder.joinpath("schema.sql").read_text(),
            functions=functions.replace("VERSION", version),
        )
        try:
            link.execute(script)
        except psycopg.errors.InsufficientPrivilege as error:
            raise UnwritableDatabase(f"{address}: its user may not make tables there: {error}") from error
        except (psycopg.errors.DuplicateTable, psycopg.errors.DuplicateObject) as error:
            raise UnwritableDatabase(f"{address} has tables of something else: name another schema") from error
    link.execute("DELETE FROM writers WHERE at < now() - interval '1 day'")
    return version


def _names(link: Link, sought: str) -> bool:
    return link.execute(f"SELECT {sought} IS NOT NULL").fetchall() == [(True,)]
