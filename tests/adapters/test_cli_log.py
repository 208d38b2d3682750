"""`penstock log copy`, and what else takes a store by its URL where it takes a file: in this process."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
import trio
from click.testing import CliRunner, Result

from penstock.adapters.cli import main
from penstock.adapters.cli.places import name_of
from penstock.engine import Config, copy_log, open_engine
from penstock.engine.errors import StorageError
from tests.engine.living import begin
from tests.engine.producers import saying
from tests.engine.redis_server import RedisServer

PASSWORD: Final = "open-sesame"


def penstock(*arguments: str, code: int = 0, **variables: str) -> Result:
    done = CliRunner(env=variables).invoke(main, arguments)
    assert done.exit_code == code, done.output
    assert PASSWORD not in done.output
    return done


async def talk(place: str) -> None:
    async with open_engine(place, config=Config(compact_after=None)) as engine:
        for name in ("one", "two"):
            session = await engine.create_session(name)
            await session.post(text="hello")
            await begin(session, saying(*map(str, range(30))))


@pytest.fixture
def db(tmp_path: Path) -> str:
    """A database with two sessions."""
    path = str(tmp_path / "chat.db")
    trio.run(talk, path)
    return path


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    """The URL of a Redis that nothing is in, with its password."""
    server = RedisServer(tmp_path, requirepass=PASSWORD)
    server.start()
    yield f"redis://:{PASSWORD}@127.0.0.1:{server.port}/0"
    server.kill()


def test_a_file_goes_into_a_store_and_back_and_both_are_looked_at_by_their_names(
    db: str, redis: str, tmp_path: Path
) -> None:
    told = penstock("log", "copy", f"sqlite:{db}", redis)
    assert "2 sessions" in told.stdout
    before = json.loads(penstock("inspect", db, "--json").stdout)
    there = json.loads(penstock("inspect", redis, "--json").stdout)
    assert there["sessions"] == before["sessions"]
    assert there["database"] == {"path": redis.replace(f":{PASSWORD}@", "")}
    assert "Nothing is wrong" in penstock("inspect", "env:STORE", "--session", "one", STORE=redis).stdout
    assert "2 messages compacted, 62 events removed." in penstock("compact", redis, "--older-than", "0").stdout
    back = str(tmp_path / "back.db")
    penstock("log", "copy", "env:STORE", back, STORE=redis)
    assert penstock("inspect", back, "--json").exit_code == 0
    assert "not empty" in penstock("log", "copy", db, redis, code=1).output
    for command, *places in (("backup", redis, "no.db"), ("backup", db, redis), ("restore", back, redis)):
        assert "penstock log copy" in penstock(command, *places, code=2).output


def test_what_was_interrupted_is_said_and_no_server_opens_it(
    db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def interrupted(*arguments: object, **options: object) -> object:
        def show(_: object) -> None:
            raise KeyboardInterrupt

        return await copy_log(*arguments, progress=show)  # type: ignore[arg-type]

    monkeypatch.setattr("penstock.adapters.cli.log.copy_log", interrupted)
    half = str(tmp_path / "half.db")
    told = penstock("log", "copy", db, half, code=130)
    assert f"What is in {half} is not whole" in told.output
    with pytest.raises(StorageError) as refused:
        trio.run(talk, half)
    assert "not whole" in refused.value.detail


def test_a_session_that_cannot_be_read_is_named_and_the_others_are_copied(db: str, tmp_path: Path) -> None:
    with closing(sqlite3.connect(db)) as connection, connection:
        connection.execute("UPDATE sessions SET epoch = '' WHERE session = 'one'")
    told = penstock("log", "copy", db, str(tmp_path / "copy.db"), code=1)
    assert "session one was left out" in told.output
    assert "1 sessions" in told.output


def test_what_is_not_there_is_refused_by_its_name(db: str, tmp_path: Path) -> None:
    assert "nowhere.db" in penstock("log", "copy", "nowhere.db", str(tmp_path / "copy.db"), code=2).output
    assert "NOTHING" in penstock("log", "copy", db, "env:NOTHING", code=2).output
    assert "mysql" in penstock("log", "copy", db, f"mysql://me:{PASSWORD}@127.0.0.1/x", code=1).output
    assert "one place" in penstock("log", "copy", db, f"sqlite:{db}", code=2).output


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("chat.db", "chat.db"),
        ("redis://:secret@store:1/0?shards=2&prefix=x", "redis://store:1/0?prefix=x"),
        ("postgres://store/chat?password=secret&schema=x", "postgres://store/chat?schema=x"),
        ("postgres://me:se@cret@store/chat?sslmode=require", "postgres://store/chat"),
        ("postgres://store/chat?password=se@cret", "postgres://…"),
        ("postgres://me:sec?ret@store/chat", "postgres://…"),
    ],
)
def test_a_name_has_no_password(place: str, name: str) -> None:
    assert name_of(place) == name


def test_behind_a_backup_every_session_goes_on_in_a_new_epoch(db: str, redis: str) -> None:
    penstock("log", "copy", db, redis)
    for place in (db, redis):
        before = json.loads(penstock("inspect", place, "--json").stdout)["sessions"]
        assert "new epoch" in penstock("log", "rebase", place).stdout
        trio.run(talk_on, place)
        after = json.loads(penstock("inspect", place, "--json").stdout)["sessions"]
        assert [each["session_id"] for each in after] == ["one", "two"]
        assert not {each["epoch"] for each in after} & {each["epoch"] for each in before}


async def talk_on(place: str) -> None:
    async with open_engine(place) as engine:
        for name in ("one", "two"):
            await (await engine.session(name)).post(text="again")
