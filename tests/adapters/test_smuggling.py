"""What can be read in two ways is refused, or read as the grammar has it: see the table in `smuggling`."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import trio

from tests.adapters.serving import PATIENCE, Penstock, penstock
from tests.adapters.smuggling import BEHIND, PARTS, Row


class Answers:
    """The statuses of the answers on one connection."""

    def __init__(self, stream: trio.SocketStream, asked: bytes) -> None:
        self._stream = stream
        self._bodiless = asked.startswith(b"HEAD ")  # the first of them
        self._data = b""
        self.ended = False

    async def _more(self) -> bool:
        try:
            piece = await self._stream.receive_some()
        except trio.BrokenResourceError:  # the server has closed before it had all
            piece = b""
        self._data += piece
        self.ended = not piece
        return not self.ended

    async def next(self) -> int | None:
        """None: the server has closed."""
        while b"\r\n\r\n" not in self._data:
            if not await self._more():
                assert not self._data
                return None
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        status = int(head[9:12])
        length = re.search(rb"\r\ncontent-length: (\d+)", head.lower())
        size = 0 if length is None or self._bodiless else int(length[1])
        self._bodiless = False
        while len(self._data) < size and await self._more():
            pass
        assert len(self._data) >= size, "the answer is not whole"
        self._data = self._data[size:]
        if status == 101:  # what follows are frames
            while not self.ended and await self._more():
                pass
            assert b"HTTP/" not in self._data
            self._data = b""
        return await self.next() if status == 100 else status

    async def rest(self) -> list[int]:
        found = []
        while (status := await self.next()) is not None:
            found.append(status)
        return found


async def check(world: Penstock, row: Row, *, byte_by_byte: bool) -> None:
    async with await world.served.connect() as stream:
        try:
            for piece in [row.sent[at : at + 1] for at in range(len(row.sent))] if byte_by_byte else [row.sent]:
                await stream.send_all(piece)
        except trio.BrokenResourceError:
            assert row.closed or row.statuses == (101,)
        answers = Answers(stream, row.sent)
        if row.statuses == (101,) and not row.closed:
            with suppress(trio.BrokenResourceError):
                await stream.send_eof()
            assert await answers.next() in ((101, None) if row.early else (101,))
        elif row.closed:
            assert await answers.rest() == list(row.statuses)
        else:
            found = [await answers.next() for _ in row.statuses]
            if row.early and answers.ended:
                assert found == [row.statuses[0]] + [None] * (len(found) - 1)
                return
            assert found == list(row.statuses)
            await stream.send_all(BEHIND)
            assert await answers.next() == (None if row.early and answers.ended else 200)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
async def test_bytes_mean_one_thing_however_they_arrive(
    part: Callable[[], Iterator[Row]], caplog: pytest.LogCaptureFixture
) -> None:
    async with penstock() as world:
        await world.engine.create_session("demo")
        for row in part():
            try:
                with trio.fail_after(PATIENCE):
                    await check(world, row, byte_by_byte=False)
                    if len(row.sent) < 2000:  # the others are about their length
                        await check(world, row, byte_by_byte=True)
                assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
            except Exception as error:
                error.add_note(f"in the row {row.name!r}")
                raise
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
