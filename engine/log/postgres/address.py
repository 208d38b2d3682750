"""Where a Postgres is, as its URL says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, final
from urllib.parse import parse_qsl, unquote

from attrs import field, frozen
from psycopg.pq import Conninfo

from ...errors import UnwritableDatabase

__all__ = ["SCHEMES", "Address"]

SCHEMES: Final = ("postgres", "postgresql")

_SCHEMA: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")


@final
@frozen(kw_only=True)
class Address:
    """``postgres://[user[:password]@][host[:port][,host[:port]…]][/database][?schema=…&sslmode=…]``.

    All that is stored lies in ``schema``. ``settings`` are libpq's: whatever it knows may stand behind the ``?``.
    """

    settings: Mapping[str, str] = field(repr=False)  # a password, too
    schema: str = "penstock"

    @classmethod
    def parse(cls, url: str) -> Address:
        """Raises `UnwritableDatabase`, which says what is wrong and nothing of a password."""
        scheme, _, rest = url.partition("://")
        if scheme not in SCHEMES:
            raise _wrong(f"it begins with {' or '.join(f'{each}://' for each in SCHEMES)}")
        place, _, query = rest.partition("?")
        place, _, database = place.partition("/")
        login, _, hosts = place.rpartition("@")
        user, _, password = login.partition(":")
        places = [_split(each) for each in hosts.split(",")]
        settings = {
            "user": unquote(user),
            "password": unquote(password),
            "dbname": unquote(database),
            "host": ",".join(host for host, _ in places),
            "port": ",".join(port for _, port in places),
        }
        try:
            asked = dict(parse_qsl(query, strict_parsing=bool(query)))
        except ValueError:
            raise _wrong("what stands behind the ? cannot be read") from None
        if "@" in database + query:
            raise _wrong("in user and password stand %40, %2F and %3F for @, / and ?, as %40 does elsewhere")
        schema = asked.pop("schema", "penstock")
        known = {each.keyword.decode() for each in Conninfo.get_defaults()}
        if unknown := asked.keys() - known:
            raise _wrong(f"neither penstock nor libpq knows {', '.join(sorted(unknown))}")
        if not _SCHEMA.fullmatch(schema):
            raise _wrong("the schema is 1 to 63 of a-z 0-9 _ and begins with no digit")
        if len(places) > 1:
            # Of a primary and its standbys, whichever is the primary now.
            asked.setdefault("target_session_attrs", "read-write")
        given = {name: value for name, value in settings.items() if value.strip(",")}
        return cls(settings={**given, **asked}, schema=schema)

    def __str__(self) -> str:
        """For people and logs: without user and password."""
        host, port, database = (self.settings.get(name, "") for name in ("host", "port", "dbname"))
        return f"postgres://{host}{port and ':' + port}/{database}?schema={self.schema}"


def _split(place: str) -> tuple[str, str]:
    found = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(\d*))?", place)
    if found is None:
        raise _wrong("it is host:port, and several of them have a comma between")
    return unquote(found[1]).strip("[]"), found[2] or ""


def _wrong(why: str) -> UnwritableDatabase:
    return UnwritableDatabase(f"the URL of the Postgres is none: {why}")
