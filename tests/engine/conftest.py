"""Logs that are checked when the test is over: whatever a test makes the engine write must keep the rules."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.engine import MemoryLog
from tests.engine.postgres_server import PostgresServer
from tests.engine.redis_server import RedisCluster, RedisServer
from tests.engine.rules import assert_rules


@pytest.fixture
async def log() -> AsyncIterator[MemoryLog]:
    """A log in memory; when the test is over, it must keep the rules."""
    made = MemoryLog()
    yield made
    await assert_rules(made, closed=False)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One for all tests of this process that do it no harm; each has a prefix of its own."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """One that a test may do harm."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.go_on()
    server.kill()


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """As `redis_server`, of three nodes."""
    cluster = RedisCluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """As `redis_server`; each test has a schema of its own."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite binds 100 variables to one statement at most, however it was built, so that little is larger than one."""
    plain = sqlite3.connect

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = plain(*arguments, **options)
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 100)
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect)
