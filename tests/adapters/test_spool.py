"""Text that leaves through a thread: nobody waits for the reader, and what is lost is counted where it was lost."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.adapters.watching.logs import log_handler
from penstock.adapters.watching.metrics import Metrics
from penstock.adapters.watching.spool import Spool

PATIENCE = 10.0

Pipe = tuple[int, int]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    ends = os.pipe()
    yield ends
    for each in ends:
        with suppress(OSError):  # the test has closed it
            os.close(each)


def fill(writing: int) -> None:
    """Leave no room in the pipe."""
    flags = fcntl.fcntl(writing, fcntl.F_GETFL)
    fcntl.fcntl(writing, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    try:
        for size in (4096, 1):
            while True:
                try:
                    os.write(writing, b"\0" * size)
                except BlockingIOError:
                    break
    finally:
        fcntl.fcntl(writing, fcntl.F_SETFL, flags)


class Reader:
    """Reads all that comes out of a pipe, until it is closed."""

    def __init__(self, reading: int) -> None:
        self._reading = reading
        self._data = b""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while piece := os.read(self._reading, 1 << 16):
            self._data += piece

    def text(self, writing: int) -> str:
        os.close(writing)
        self._thread.join(PATIENCE)
        return self._data.lstrip(b"\0").decode()


def notice(lost: int) -> str:
    return f"[{lost}]\n"


@given(st.lists(st.text(st.characters(exclude_characters="\0"), max_size=300), max_size=60))
def test_what_is_read_is_written_whole_and_in_order(texts: list[str]) -> None:
    reading, writing = os.pipe()
    reader = Reader(reading)
    spool = Spool(writing, notice=notice)
    for text in texts:
        spool.put(text)
    assert spool.flush(PATIENCE)
    spool.close()
    assert reader.text(writing) == "".join(texts).encode(errors="backslashreplace").decode()
    os.close(reading)


def test_halves_of_characters_do_not_end_it(pipe: Pipe) -> None:
    reader = Reader(pipe[0])
    spool = Spool(pipe[1])
    spool.put("\ud800\n")
    spool.put("on\n")
    assert spool.flush(PATIENCE)
    spool.close()
    assert reader.text(pipe[1]) == "\\ud800\non\n"


@given(st.lists(st.integers(1, 400), min_size=1, max_size=100), st.integers(200, 3000), st.integers(0, 3))
def test_of_what_nobody_reads_no_more_is_kept_than_fits_and_the_rest_is_counted_in_its_place(
    sizes: list[int], bound: int, later: int
) -> None:
    reading, writing = os.pipe()
    fill(writing)
    counted: list[int] = []
    spool = Spool(writing, bound=bound, notice=notice, on_lost=counted.append)
    lines = [f"{number}:{'x' * size}\n" for number, size in enumerate(sizes)]
    for line in lines:
        spool.put(line)  # none of them waits
    assert not spool.flush(0.0)
    reader = Reader(reading)
    assert spool.flush(PATIENCE)
    more = [f"more {number}\n" for number in range(later)]
    for line in more:
        spool.put(line)
        assert spool.flush(PATIENCE)
    spool.close()
    text = reader.text(writing)
    os.close(reading)
    rest = iter([*lines, *more])
    kept, lost = 0, 0
    for line in text.splitlines(keepends=True):
        if told := re.fullmatch(r"\[(\d+)]\n", line):  # it stands exactly where they are missing
            lost += int(told[1])
            for _ in range(int(told[1])):
                next(rest)
        else:
            assert line == next(rest)
            kept += len(line)
    assert list(rest) == []
    assert lost == sum(counted)
    assert kept - sum(map(len, more)) <= max(bound, len(lines[0]))


def test_a_reader_that_is_gone_is_no_reason_to_wait_or_to_try_for_ever(pipe: Pipe) -> None:
    reading, writing = pipe
    os.close(reading)
    counted: list[int] = []
    spool = Spool(writing, notice=notice, on_lost=counted.append)
    for _ in range(50):
        spool.put("x\n")
        assert spool.flush(PATIENCE)
    assert 50 <= sum(counted) <= 100  # and notices, none of which was read either
    spool.close()


def test_a_descriptor_that_refuses_rather_than_waits_is_waited_for(pipe: Pipe) -> None:
    reading, writing = pipe
    os.set_blocking(writing, False)
    fill(writing)
    spool = Spool(writing, notice=notice)
    lines = [f"{number}\n" for number in range(2000)]
    for line in lines:
        spool.put(line)
    reader = Reader(reading)
    assert spool.flush(PATIENCE)
    spool.close()
    assert reader.text(writing) == "".join(lines)


def test_what_is_put_behind_the_end_is_counted(pipe: Pipe) -> None:
    counted: list[int] = []
    spool = Spool(pipe[1], on_lost=counted.append)
    spool.close()
    spool.put("x")
    assert counted == [1]


# --- the log's handler


def record(message: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("penstock.test", logging.INFO, "file.py", 7, message, args, None)


@pytest.mark.parametrize("form", ["text", "json"])
def test_lines_that_nobody_reads_are_counted_in_one_line_and_a_metric(form: str, pipe: Pipe) -> None:
    reading, writing = pipe
    fill(writing)
    handler = log_handler("text" if form == "text" else "json", writing)
    before = lost_lines()
    for number in range(3000):
        handler.handle(record(f"line {number} {'x' * 5000}"))
    lost = lost_lines() - before
    assert 0 < lost < 3000
    reader = Reader(reading)
    handler.flush()
    handler.handle(record("on it goes"))
    handler.flush()
    handler.close()
    *kept, told, last = reader.text(writing).splitlines()
    assert len(kept) == 3000 - lost
    assert "log_lines_lost" in told
    assert re.search(rf'lost"?[=:] ?{lost}\b', told)
    assert "WARNING" in told
    assert "on it goes" in last


def lost_lines() -> int:
    body, _ = Metrics().render()
    found = re.search(rb"^penstock_log_lines_lost_total (\S+)$", body, re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_line_that_cannot_be_made_is_told_of_and_raises_nothing(form: str, pipe: Pipe) -> None:
    reader = Reader(pipe[0])
    handler = log_handler("text" if form == "text" else "json", pipe[1])
    handler.handle(record("%d of them", "three"))
    handler.handle(record("on it goes"))
    handler.flush()
    handler.close()
    text = reader.text(pipe[1])
    assert "a line of penstock.test, from file.py:7, cannot be written" in text
    assert "on it goes" in text
