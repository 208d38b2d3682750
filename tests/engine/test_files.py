"""A session's files: whole or not at all, once however often they are sent, gone with the session."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from penstock.engine import (
    Config,
    Draining,
    EventLog,
    FileNotFound,
    FileTooLarge,
    Generation,
    GenerationQueued,
    IdempotencyConflict,
    IdInUse,
    InvalidBody,
    InvalidId,
    JSONObject,
    Keep,
    MemoryLog,
    MessageView,
    PenstockError,
    Queued,
    Session,
    SessionDeleted,
    WriteFailed,
    back_up,
    new_message_id,
    open_engine,
    open_sqlite,
    restore,
)
from penstock.engine.rules.records import PART, UPLOADING
from penstock.engine.testing import open_test_engine
from penstock.engine.testing.stored import check_session
from tests.engine.faulty import Fail, FaultyLog, Hold
from tests.engine.producers import Steered

PNG: Final = b"\x89PNG\r\n\x1a\n" + bytes(100)
SMALL: Final = Config(file_bytes=2 * PART, session_file_bytes=4 * PART)


def content(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


async def in_pieces(whole: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(whole), size):
        yield whole[start : start + size]
        await trio.lowlevel.checkpoint()


async def kept_records(log: EventLog, session: Session) -> list[str]:
    """The keys of all that the log holds of the session's files."""
    epoch = (await session.cursor()).epoch
    keys = await log.records(session.session_id, epoch)
    return [key for key in keys if key.startswith(("file/", "part/", UPLOADING))]


@given(
    size=st.integers(0, 3 * PART),
    piece=st.integers(1000, PART + 1),
    start=st.integers(0, 3 * PART),
    limit=st.integers(0, PART),
)
def test_a_file_comes_back_as_it_was_sent(size: int, piece: int, start: int, limit: int) -> None:
    async def run() -> None:
        whole = content(size)
        async with open_test_engine() as test:
            session = await test.engine.create_session("s")
            kept = await session.keep_file(in_pieces(whole, piece), media_type="application/pdf", filename="a.pdf")
            assert kept.created
            assert (kept.file.size, kept.file.media_type, kept.file.filename) == (size, "application/pdf", "a.pdf")
            assert await session.file(kept.file.file_id) == kept.file
            assert await session.read_file(kept.file.file_id) == whole
            assert await session.read_file(kept.file.file_id, start=start, limit=limit) == whole[start : start + limit]
            again = await session.keep_file(whole, media_type="application/pdf", filename="a.pdf", size=size)
            assert (again.created, again.file) == (False, kept.file)

    trio.run(run)


async def test_what_is_sent_again_is_kept_once(autojump_clock: MockClock) -> None:
    async with open_test_engine() as test:
        session = await test.engine.create_session("s")
        first = await session.keep_file(content(PART + 1), media_type="text/plain", filename="a")
        before = await kept_records(test.log, session)
        assert len(before) == 3

        async def send() -> None:
            again = await session.keep_file(content(PART + 1), media_type="text/plain", filename="a")
            assert (again.created, again.file) == (False, first.file)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(send)
        assert await kept_records(test.log, session) == before
        other = await session.keep_file(content(PART + 1), media_type="text/plain", filename="b")
        assert other.created
        assert other.file.file_id != first.file.file_id


async def test_of_the_same_file_sent_at_once_one_is_kept(autojump_clock: MockClock) -> None:
    created: list[bool] = []
    async with open_test_engine() as test:
        session = await test.engine.create_session("s")

        async def send() -> None:
            pieces = in_pieces(content(PART + 7), 60_000)
            created.append((await session.keep_file(pieces, media_type="text/plain")).created)

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(send)
        assert sorted(created) == [False, False, False, True]
        assert len(await kept_records(test.log, session)) == 3


# --- what is refused leaves nothing


async def _broken() -> AsyncIterator[bytes]:
    yield content(PART + 1)
    raise ConnectionError("the line broke")


async def _words() -> AsyncIterator[bytes]:
    yield content(PART)
    yield "no bytes"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("send", "error"),
    [
        (lambda s: s.keep_file(content(2 * PART + 1), media_type="text/plain"), FileTooLarge),
        (lambda s: s.keep_file(in_pieces(content(2 * PART + 1), 99_999), media_type="text/plain"), FileTooLarge),
        (lambda s: s.keep_file(in_pieces(content(PART), 99_999), media_type="text/plain", size=9), FileTooLarge),
        (lambda s: s.keep_file(in_pieces(content(PART), 99_999), media_type="text/plain", size=PART + 9), InvalidBody),
        (lambda s: s.keep_file(b"<html>", media_type="image/png"), InvalidBody),
        (lambda s: s.keep_file(b"", media_type="image/gif"), InvalidBody),
        (lambda s: s.keep_file(in_pieces(b"<html>" + PNG, 3), media_type="image/png"), InvalidBody),
        (lambda s: s.keep_file(PNG, media_type="image"), InvalidBody),
        (lambda s: s.keep_file(PNG, media_type="image/png", filename=7), InvalidBody),
        (lambda s: s.keep_file(_words(), media_type="text/plain"), InvalidBody),
        (lambda s: s.keep_file(_broken(), media_type="text/plain"), ConnectionError),
    ],
)
async def test_a_file_that_is_refused_leaves_nothing(
    send: object, error: type[Exception], autojump_clock: MockClock
) -> None:
    async with open_test_engine(config=SMALL) as test:
        session = await test.engine.create_session("s")
        with pytest.raises(error):
            await send(session)  # type: ignore[operator]
        assert await kept_records(test.log, session) == []


async def test_whoever_leaves_while_sending_leaves_nothing(autojump_clock: MockClock) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield content(PART + 1)
        await trio.sleep_forever()

    async with open_test_engine() as test:
        session = await test.engine.create_session("s")
        with trio.move_on_after(1):
            await session.keep_file(slow(), media_type="text/plain")
        assert await kept_records(test.log, session) == []


@pytest.mark.parametrize("number", range(5))
async def test_a_part_that_cannot_be_stored_takes_the_others_with_it(number: int, autojump_clock: MockClock) -> None:
    """The reservation, two parts, the file's record: each fails once, and what is sent again is kept."""
    log = FaultyLog(MemoryLog())
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        producer = Steered()
        await session.start(producer)
        seen = 0

        def schedule(_: int, write: object) -> Fail | None:
            nonlocal seen
            seen += isinstance(write, Keep)
            return Fail() if isinstance(write, Keep) and seen == number + 1 else None

        log.schedule = schedule
        whole = content(PART + 1)
        if number < 4:
            with pytest.raises(WriteFailed):
                await session.keep_file(whole, media_type="text/plain")
            assert await kept_records(log, session) == []
        kept = await session.keep_file(whole, media_type="text/plain")
        assert await session.read_file(kept.file.file_id) == whole
        # Nobody else's write was touched.
        assert (await session.snapshot()).generation is not None


async def test_an_answer_that_is_lost_is_no_loss(autojump_clock: MockClock) -> None:
    """The file's record is stored, its report comes late: the caller leaves, and sends it again."""
    log = FaultyLog(MemoryLog())
    hold = Hold(stored=True)
    log.schedule = lambda _, write: (
        hold if isinstance(write, Keep) and any("file/" in key for key in write.records) else None
    )
    async with open_engine(log, config=Config(flush_timeout=3)) as engine:
        session = await engine.create_session("s")
        with trio.move_on_after(1) as limit:
            await session.keep_file(content(PART + 1), media_type="text/plain")
        assert limit.cancelled_caught
        hold.release()
        again = await session.keep_file(content(PART + 1), media_type="text/plain")
        assert not again.created
        assert await session.read_file(again.file.file_id) == content(PART + 1)


# --- how much there may be


async def test_the_files_of_a_session_are_bounded_together(autojump_clock: MockClock) -> None:
    async with open_test_engine(config=SMALL) as test:
        session = await test.engine.create_session("s")
        for number, size in enumerate((PART, 1, 2 * PART)):
            await session.keep_file(content(size, number), media_type="text/plain")
        for size in (0, 1, 2 * PART):
            with pytest.raises(FileTooLarge, match="the files of a session"):
                await session.keep_file(content(size, 9), media_type="text/plain")
        assert not (await session.keep_file(content(2 * PART, 2), media_type="text/plain")).created  # it is there
        assert len(await kept_records(test.log, session)) == 3 + 4
        other = await test.engine.create_session("other")
        assert (await other.keep_file(content(2 * PART, 9), media_type="text/plain")).created


async def test_files_on_their_way_count_as_what_they_may_become(autojump_clock: MockClock) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        await trio.sleep_forever()

    async with open_test_engine(config=SMALL) as test, trio.open_nursery() as nursery:
        session = await test.engine.create_session("s")

        async def send() -> None:
            await session.keep_file(slow(), media_type="text/plain")

        for _ in range(3):
            nursery.start_soon(send)
        await wait_all_tasks_blocked()
        with pytest.raises(FileTooLarge, match="the files of a session"):
            await session.keep_file(b"y", media_type="text/plain")
        nursery.cancel_scope.cancel()


# --- what becomes of them


async def test_a_file_that_is_not_there_is_not_found(autojump_clock: MockClock) -> None:
    async with open_test_engine() as test:
        session = await test.engine.create_session("s")
        kept = await (await test.engine.create_session("other")).keep_file(PNG, media_type="image/png")
        for ask in (session.file, session.read_file):
            with pytest.raises(FileNotFound):
                await ask(kept.file.file_id)
            with pytest.raises(InvalidId):
                await ask("a/b")


async def test_files_go_with_their_session(autojump_clock: MockClock) -> None:
    async with open_test_engine() as test:
        session = await test.engine.create_session("s")
        kept = await session.keep_file(PNG, media_type="image/png")
        await session.delete()
        with pytest.raises(SessionDeleted):
            await session.read_file(kept.file.file_id)
        with pytest.raises(SessionDeleted):
            await session.keep_file(PNG, media_type="image/png")
        session = await test.engine.create_session("s")
        with pytest.raises(FileNotFound):
            await session.read_file(kept.file.file_id)


async def test_a_session_that_is_deleted_takes_what_is_on_its_way(autojump_clock: MockClock) -> None:
    async with open_test_engine() as test:
        session = await test.engine.create_session("s")
        gone = trio.Event()

        async def pieces() -> AsyncIterator[bytes]:
            yield content(PART)
            await gone.wait()
            yield content(PART)

        async with trio.open_nursery() as nursery:

            async def send() -> None:
                with pytest.raises(SessionDeleted):
                    await session.keep_file(pieces(), media_type="text/plain")

            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            await session.delete()
            gone.set()
        session = await test.engine.create_session("s")
        assert await kept_records(test.log, session) == []


async def test_a_draining_engine_takes_no_more_of_a_file(autojump_clock: MockClock) -> None:
    async with open_test_engine() as test:
        session = await test.engine.create_session("s")

        async def pieces() -> AsyncIterator[bytes]:
            yield content(PART)
            await test.engine.drain()
            yield content(PART)

        with pytest.raises(Draining):
            await session.keep_file(pieces(), media_type="text/plain")


async def test_a_reset_keeps_what_messages_before_it_name(autojump_clock: MockClock) -> None:
    async with open_test_engine() as test:
        session = await test.engine.create_session("s")
        kept = await session.keep_file(PNG, media_type="image/png")
        await session.post(blocks=[{"kind": "image", "file_id": kept.file.file_id}])
        await session.reset()
        assert await session.read_file(kept.file.file_id) == PNG


async def test_a_fork_has_its_own_copy_of_what_its_messages_name(autojump_clock: MockClock) -> None:
    async with open_test_engine() as test:
        session = await test.engine.create_session("s")
        ids = [
            (await session.keep_file(content(PART + seed, seed), media_type="text/plain")).file.file_id
            for seed in range(3)
        ]
        first = await session.post(blocks=[{"kind": "file", "file_id": ids[0]}, {"kind": "source", "file_id": ids[1]}])
        await session.post(blocks=[{"kind": "file", "file_id": ids[2]}])
        fork = await session.fork("fork", at=first.message_id)
        whole = await session.fork("whole")
        await session.delete()
        assert [await fork.read_file(each) == content(PART + seed, seed) for seed, each in enumerate(ids[:2])] == [
            True
        ] * 2
        with pytest.raises(FileNotFound):
            await fork.file(ids[2])
        assert await whole.read_file(ids[2]) == content(PART + 2, 2)
        assert await test.log.holders("copying") == []
        assert len(await kept_records(test.log, fork)) == 2 + 3


@pytest.mark.parametrize("number", range(7))
async def test_a_fork_that_cannot_get_a_file_is_none(number: int, autojump_clock: MockClock) -> None:
    """Two files of two parts, each part and each record: where one fails nothing is left, and the id can be used."""
    log = FaultyLog(MemoryLog())
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        for seed in range(2):
            kept = await session.keep_file(content(PART + 1, seed), media_type="text/plain")
            await session.post(blocks=[{"kind": "file", "file_id": kept.file.file_id}])
        keeps = 0

        def schedule(_: int, write: object) -> Fail | None:
            nonlocal keeps
            keeps += isinstance(write, Keep)
            return Fail() if isinstance(write, Keep) and keeps == number + 1 else None

        log.schedule = schedule
        with pytest.raises(WriteFailed):
            await session.fork("fork")
        assert [info.session_id for info in await engine.sessions()] == ["s"]
        assert await log.holders("copying") == []
        fork = await session.fork("fork")
        for message in (await fork.snapshot()).messages:
            assert len(await fork.read_file(message.blocks[0].file_id or "")) == PART + 1


# --- messages that name files


async def questions(session: Session) -> list[MessageView]:
    return [message for message in (await session.snapshot()).messages if message.role == "user"]


def blocks(file_id: str, kind: str = "image") -> list[JSONObject]:
    return [{"kind": "text", "text": "What is it?"}, {"kind": kind, "file_id": file_id}]


async def test_a_block_says_of_a_file_what_the_session_knows(autojump_clock: MockClock) -> None:
    async with open_test_engine() as test:
        session = await test.engine.create_session("s")
        file = (await session.keep_file(PNG, media_type="image/png", filename="a.png")).file
        lies: JSONObject = {"kind": "file", "file_id": file.file_id, "media_type": "text/html", "filename": "b.html"}
        await session.post(blocks=[lies, {"kind": "source", "file_id": file.file_id, "title": "A"}])
        await session.post(blocks=[{"kind": "image", "url": "https://example.org/", "media_type": "image/png"}])
        (first, second) = (await session.snapshot()).messages
        named, source = first.blocks
        assert (named.media_type, named.filename) == ("image/png", "a.png")
        assert (source.media_type, source.title) == (None, "A")
        assert second.blocks[0].url == "https://example.org/"


@pytest.mark.parametrize("kind", ["image", "file", "source"])
async def test_a_message_names_no_file_that_is_not_there(kind: str, autojump_clock: MockClock) -> None:
    async with open_test_engine(producers={"p": Steered()}) as test:
        session = await test.engine.create_session("s")
        before = await session.cursor()
        with pytest.raises(InvalidBody, match=r"blocks\[1\] names a file"):
            await session.post(blocks=blocks("f", kind))
        with pytest.raises(InvalidBody, match=r"blocks\[1\] names a file"):
            await session.start("p", message={"blocks": blocks("f", kind)})
        page = (await session.keep_file(b"<html>", media_type="text/html")).file.file_id
        if kind == "image":
            with pytest.raises(InvalidBody, match="make it a block of kind file"):
                await session.post(blocks=blocks(page))
        assert await session.cursor() == before


async def test_a_start_brings_a_message_in_one_append(autojump_clock: MockClock) -> None:
    seen: list[bytes] = []

    async def look(generation: Generation) -> None:
        (asked,) = (await generation.snapshot()).messages
        seen.append(await generation.read_file(asked.blocks[1].file_id or ""))
        async with generation.message() as message:
            await message.image(url="https://example.org/b.png", media_type="image/png")
            await message.file(url="https://example.org/b.pdf", filename="b.pdf")
            await message.source(file_id=asked.blocks[1].file_id, title="Where it stands")

    async with open_test_engine(producers={"look": look}) as test:
        session = await test.engine.create_session("s")
        file_id = (await session.keep_file(PNG, media_type="image/png")).file.file_id
        mid = new_message_id()
        message: JSONObject = {"blocks": blocks(file_id), "message_id": mid.upper(), "metadata": {"n": 1}}
        started = await session.start("look", message=message, author="ann", idempotency_key="k")
        assert started.message_id == mid
        await test.settle()
        asked, answer = (await session.snapshot()).messages
        assert (asked.message_id, asked.role, asked.metadata, asked.author) == (mid, "user", {"n": 1}, "ann")
        assert [block.kind for block in answer.blocks] == ["image", "file", "source"]
        assert seen == [PNG]
        again = await session.start("look", message=message, author="ann", idempotency_key="k")
        assert (again.repeated, again.message_id) == (True, mid)
        with pytest.raises(IdempotencyConflict):
            await session.start("look", message={**message, "metadata": {"n": 2}}, idempotency_key="k")
        with pytest.raises(IdInUse):
            await session.start("look", message=message)


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"text": "x"}, "either text or message"),
        ({"policy": "join"}, "brings neither"),
        ({"continues": "0198c0de-7a21-7abc-8def-0123456789ab"}, "continues"),
        ({"message": {"blocks": [], "role": "system"}}, "no field 'role'"),
        ({"message": {"text": "x"}}, "no field 'text'"),
        ({"message": {}}, "either text or blocks"),
        ({"message": []}, "must be an object"),
        ({"message": {"blocks": [{"kind": "tool_result", "tool_call_id": "c"}]}}, "no tool_result"),
    ],
)
async def test_a_message_that_a_start_cannot_bring_is_refused(
    more: JSONObject, what: str, autojump_clock: MockClock
) -> None:
    async with open_test_engine(producers={"p": Steered()}) as test:
        session = await test.engine.create_session("s")
        asked: JSONObject = {"message": {"blocks": [{"kind": "text", "text": "x"}]}, **more}
        with pytest.raises(InvalidBody, match=what):
            await session.start("p", **asked)  # type: ignore[call-overload]
        assert (await session.cursor()).offset == 1


async def test_a_start_that_waits_keeps_its_message(tmp_path: Path) -> None:
    mid, path = new_message_id(), tmp_path / "chat.db"
    async with open_engine(path, producers={"p": Steered(), "q": Steered()}) as engine:
        session = await engine.create_session("s")
        file_id = (await session.keep_file(PNG, media_type="image/png")).file.file_id
        await session.start("p")
        message: JSONObject = {"blocks": blocks(file_id), "message_id": mid}
        waits = await session.start("q", message=message, policy="queue")
        assert isinstance(waits, Queued)
        (item,) = (await session.snapshot()).queue.items
        assert item.text == "What is it?"
    async with open_engine(path, producers={"p": Steered(), "q": Steered()}) as engine:
        session = await engine.session("s")
        await session.queue_next()
        (asked,) = await questions(session)
        assert asked.message_id == mid
        assert asked.blocks[1].file_id == file_id


async def test_nobody_else_takes_the_id_while_the_old_answer_ends(autojump_clock: MockClock) -> None:
    async with open_test_engine() as test:
        session = await test.engine.create_session("s")

        async def lingers(generation: Generation) -> None:
            try:
                await trio.sleep_forever()
            finally:
                with generation.cleanup():
                    await trio.sleep(1)

        await session.start(lingers)
        mid = new_message_id()
        outcomes: list[object] = []

        async def post() -> None:
            await trio.sleep(0.5)
            try:
                outcomes.append(await session.post("mine", message_id=mid))
            except PenstockError as error:
                outcomes.append(type(error))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(post)
            await session.start(Steered(), message={"blocks": [{"kind": "text", "text": "x"}], "message_id": mid})
        assert outcomes == [IdInUse]
        assert [message.message_id for message in await questions(session)] == [mid]


async def test_the_id_of_one_that_waits_may_be_used_meanwhile(autojump_clock: MockClock) -> None:
    async with open_test_engine(producers={"p": Steered()}) as test:
        session = await test.engine.create_session("s")
        await session.start(Steered())
        mid = new_message_id()
        waits = await session.start("p", message={"blocks": [], "message_id": mid}, policy="queue")
        await session.post("mine", message_id=mid)
        await session.stop(queue="continue")
        await test.settle()
        mine, asked = await questions(session)
        assert mine.message_id == mid
        generation = (await session.snapshot()).generation
        assert generation is not None
        assert generation.generation_id == waits.generation_id
        assert asked.message_id != mid


async def test_a_queued_start_tells_its_words(autojump_clock: MockClock) -> None:
    texts: list[JSONObject] = [
        {"kind": "text", "text": "one"},
        {"kind": "data", "value": 1},
        {"kind": "text", "text": "two"},
    ]
    async with open_test_engine(producers={"p": Steered()}) as test:
        session = await test.engine.create_session("s")
        await session.start(Steered())
        for given_blocks in (texts, texts[1:2]):
            await session.start("p", message={"blocks": given_blocks}, policy="queue")
        await test.settle()
        queued = [event.data for event in await test.events(session) if isinstance(event.data, GenerationQueued)]
        assert [each.text for each in queued] == ["one\n\ntwo", None]


# --- after a crash

# Sends files to a session without end, and says which it keeps; forks it now and then.
SENDER: Final = """
import random, sys, trio
from penstock.engine import open_engine

async def main():
    async with open_engine(sys.argv[1]) as engine:
        session = await engine.create_session("s")
        for seed in range(1000):
            whole = random.Random(seed).randbytes(random.Random(seed).randrange(900_000))
            kept = await session.keep_file(whole, media_type="text/plain")
            print("file", kept.file.file_id, seed, flush=True)
            await session.post(blocks=[{"kind": "file", "file_id": kept.file.file_id}])
            if seed % 3 == 2:
                fork = await session.fork(f"fork{seed}")
                print("fork", fork.session_id, seed, flush=True)

trio.run(main)
"""


@pytest.mark.parametrize("lines", [0, 1, 3, 4, 6, 9])
async def test_after_a_kill_files_are_whole_or_not_there(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "chat.db"
    files = _kept_until_killed(path, lines)
    async with open_engine(path) as engine:
        session = await engine.create_session("s")
        await trio.sleep(0.2)  # forks get what they lack
        log = engine._log
        assert await log.holders(UPLOADING) == await log.holders("copying") == []
        for file_id, seed in files.items():
            whole = random.Random(seed).randbytes(random.Random(seed).randrange(900_000))
            assert await session.read_file(file_id) == whole
        for info in await engine.sessions():
            each = await engine.session(info.session_id)
            records = await log.records(each.session_id, (await each.cursor()).epoch)
            ids = [key.removeprefix("file/") for key in records if key.startswith("file/")]
            stored = [await each.read_file(file_id) for file_id in ids]
            parts = [key for key in records if key.startswith("part/")]
            assert len(parts) == sum(-(-len(whole) // PART) for whole in stored)
            for message in (await each.snapshot()).messages:
                assert message.blocks[0].file_id in ids
            head = await log.head(each.session_id)
            assert head is not None
            assert (await check_session(log, head)).violations == ()


def _kept_until_killed(path: Path, lines: int) -> dict[str, int]:
    """The files that were kept by a process killed after so many lines, with what each was made of."""
    command = [sys.executable, "-c", SENDER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout
        told = [process.stdout.readline() for _ in range(lines)]
        while not lines and not _some_part(path):  # in the middle of the first
            time.sleep(0.001)
        process.kill()
        told += process.stdout.readlines()
    said = [line.split() for line in told if line.endswith("\n")]
    return {file_id: int(seed) for what, file_id, seed in said if what == "file"}


def _some_part(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        with closing(sqlite3.connect(path)) as connection:
            return bool(
                connection.execute("SELECT EXISTS (SELECT 1 FROM records WHERE key LIKE 'part/%')").fetchone()[0]
            )
    except sqlite3.Error:
        return False


async def test_a_backup_has_the_files(tmp_path: Path) -> None:
    path, copy = tmp_path / "chat.db", tmp_path / "copy.db"
    async with open_engine(path) as engine:
        session = await engine.create_session("s")
        file_id = (await session.keep_file(content(PART + 1), media_type="text/plain")).file.file_id
        await back_up(path, copy)
        await session.delete()
    await restore(copy, path)
    async with open_engine(path) as engine:
        assert await (await engine.session("s")).read_file(file_id) == content(PART + 1)


async def test_what_a_crash_left_of_an_upload_goes_with_the_next_opening(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with open_engine(path) as engine:
        session = await engine.create_session("s")
        epoch = (await session.cursor()).epoch
        kept = await session.keep_file(PNG, media_type="image/png")
    log = await open_sqlite(path)
    left = {UPLOADING: b'{"most":{"u":600000,"none":0}}', "part/u/000000": bytes(PART), "part/u/000001": bytes(PART)}
    await log.write(Keep(session_id="s", epoch=epoch, records=left))
    await log.aclose()
    async with open_engine(path) as engine:
        session = await engine.session("s")
        assert len(await kept_records(engine._log, session)) == 2
        assert await session.read_file(kept.file.file_id) == PNG


async def test_a_session_whose_uploads_cannot_be_read_hinders_nobody(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with open_engine(path) as engine:
        epoch = (await (await engine.create_session("s")).cursor()).epoch
    log = await open_sqlite(path)
    await log.write(Keep(session_id="s", epoch=epoch, records={UPLOADING: b"no JSON", "copying": b"{}"}))
    await log.aclose()
    async with open_engine(path) as engine:
        await (await engine.session("s")).post("hello")
        assert (await (await engine.create_session("other")).keep_file(PNG, media_type="image/png")).created
