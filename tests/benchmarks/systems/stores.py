"""The stores that a log can lie in, each started for one measurement: a file, a Redis, a Postgres.

They are the tests' own servers, at their most durable. ``used`` is what is stored, in bytes, without what is free.
"""

from __future__ import annotations

import sqlite3
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TypeAlias, final

import pytest

from tests.benchmarks.children import cpu_seconds
from tests.benchmarks.peers.install import Unavailable
from tests.engine.postgres_server import PostgresServer
from tests.engine.redis_server import RedisServer

__all__ = ["OpenStore", "Store", "file_store", "postgres_store", "redis_store"]


class Store(ABC):
    """``place`` is what `open_engine` and ``penstock serve --log`` take."""

    place: str

    @abstractmethod
    def used(self) -> int:
        """Bytes that are stored now."""

    @abstractmethod
    def cpu(self) -> float:
        """Processor seconds that the store's own processes have used."""


# Starts a store with its files in a folder; it ends when the block is left. Raises `Unavailable`.
OpenStore: TypeAlias = Callable[[Path], AbstractContextManager[Store]]


@final
class _File(Store):
    def __init__(self, path: Path) -> None:
        self.place = str(path)

    def used(self) -> int:
        if not Path(self.place).exists():
            return 0
        with closing(sqlite3.connect(self.place)) as connection:
            pages, free, size = (
                int(connection.execute(f"PRAGMA {name}").fetchone()[0])
                for name in ("page_count", "freelist_count", "page_size")
            )
        return (pages - free) * size

    def cpu(self) -> float:
        return 0.0  # it is the engine's


@contextmanager
def file_store(folder: Path) -> Iterator[Store]:
    yield _File(folder / "b12.db")


@final
class _Redis(Store):
    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self.place = server.url(prefix="b12")

    def used(self) -> int:
        return int(self._server.info("memory")["used_memory"])

    def cpu(self) -> float:
        return cpu_seconds(self._server.pid)


@contextmanager
def redis_store(folder: Path) -> Iterator[Store]:
    with _had():
        server = RedisServer(Path(tempfile.mkdtemp(prefix="redis-", dir=folder)))
        server.start()
    try:
        yield _Redis(server)
    finally:
        server.kill()


@final
class _Postgres(Store):
    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self.place = server.url(schema="b12")

    def used(self) -> int:
        self._server.run("VACUUM FULL")
        return int(str(self._server.run("SELECT pg_database_size(current_database())")))

    def cpu(self) -> float:
        return sum(cpu_seconds(pid) for pid in self._server.pids)


@contextmanager
def postgres_store(folder: Path) -> Iterator[Store]:  # it has one of another user
    with _had():
        server = PostgresServer()
        server.start()
    try:
        yield _Postgres(server)
    finally:
        server.remove()


@contextmanager
def _had() -> Iterator[None]:
    """What a test is skipped for, a measurement cannot have."""
    try:
        yield
    except pytest.skip.Exception as reason:
        raise Unavailable(str(reason)) from reason
