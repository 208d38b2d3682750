"""What must never be lost: cut connections, a killed server, a reader that does not read. A real server each time."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from penstock.engine import Event, decode
from penstock.engine.testing import assert_log
from tests.e2e.conftest import ServerProcess
from tests.e2e.streams import SseReader, call, fold_frames
from tests.extent import examples

Start = Callable[..., ServerProcess]

TEXT = " ".join(f"wörd{i}" for i in range(40))


def log_of(url: str, session: str) -> list[tuple[str, bytes]]:
    """Everything committed, read in one go."""
    reader = SseReader(url, f"/v1/sessions/{session}/events?live=false")
    return list(reader.frames())


def events_of(frames: list[tuple[str, bytes]]) -> list[Event]:
    return [decode(data) for _, data in frames]


def begin(url: str, session: str, text: str = TEXT, **pace: float) -> str:
    call(url, "PUT", f"/v1/sessions/{session}", {})
    started = call(url, "POST", f"/v1/sessions/{session}/generations", {"text": text, "input": pace})
    generation_id = started["generation_id"]
    assert isinstance(generation_id, str)
    return generation_id


def test_cut_at_200_random_points_the_pieces_are_the_log(server: ServerProcess) -> None:  # R-49 R-68 R-70 R-133
    chance = random.Random(20261120)
    begin(server.url, "s", delay=0.002, repeat=30)
    got: list[tuple[str, bytes]] = []
    last_id, cuts, ended = "", 0, False
    while not ended:
        reader = SseReader(server.url, "/v1/sessions/s/events", last_id)
        budget = chance.choice((1, 50, 300, 1000, 3000)) if cuts < 200 else 1 << 30
        while budget > 0 and not ended:
            size = min(budget, chance.randint(1, 700))
            assert reader.read(size)
            budget -= size
            ended = any(b'"generation.finished"' in data for _, data in reader.received[-3:])
        reader.close()
        cuts += not ended
        got += reader.received
        last_id = reader.last_id or last_id
        assert not [frame for frame in reader.control if frame[0] == "gap"]
    assert cuts >= 200
    assert got == log_of(server.url, "s")
    assert_log(events_of(got), closed=True)
    assert fold_frames(got) == "\n".join([TEXT] * 30)


def test_impossible_cursors_are_told(server: ServerProcess) -> None:
    begin(server.url, "s", delay=0)
    events = SseReader(server.url, "/v1/sessions/s/events").frames()
    assert any(b'"generation.finished"' in data for _, data in events)
    events.close()  # type: ignore[attr-defined]  # it is a generator
    old = log_of(server.url, "s")[-1][0]
    epoch = old.partition("-")[0]
    beyond = SseReader(server.url, f"/v1/sessions/s/events?live=false&after={epoch}-{10**15:016d}")
    assert list(beyond.frames()) == []
    assert [(name, data["reason"]) for name, data in beyond.control if name == "gap"] == [("gap", "past_tail")]
    call(server.url, "DELETE", "/v1/sessions/s")
    call(server.url, "PUT", "/v1/sessions/s", {})
    former = SseReader(server.url, "/v1/sessions/s/events?live=false", old)
    assert [decode(data).type for _, data in former.frames()] == ["session.created"]
    gap = next(data for name, data in former.control if name == "gap")
    assert (gap["reason"], gap["asked"]) == ("unknown_epoch", old)
    for malformed in ("x", "abc-1", f"{epoch}-0000", "%C3%A9"):
        with pytest.raises(HTTPError) as refused:
            call(server.url, "GET", f"/v1/sessions/s/events?after={malformed}")
        assert json.loads(refused.value.read())["code"] == "INVALID_CURSOR"


@pytest.mark.further
def test_killed_mid_stream_again_and_again_nothing_seen_is_lost(start_server: Start) -> None:  # R-69 R-71 R-134
    chance = random.Random(7)
    db: Path | None = None
    seen: dict[str, bytes] = {}
    last_id = generation_id = ""
    for round_ in range(examples(20)):
        server = start_server()
        db = server.db
        generation_id = begin(server.url, "s", delay=0.001, repeat=500)
        reader = SseReader(server.url, "/v1/sessions/s/events", last_id)
        deadline = time.monotonic() + chance.uniform(0.02, 0.4)
        while time.monotonic() < deadline or not reader.received:
            assert reader.read()
        server.kill()
        while reader.read():
            pass
        reader.close()
        assert not [frame for frame in reader.control if frame[0] == "gap"], round_
        for cursor, data in reader.received:
            assert cursor not in seen
            seen[cursor] = data
        last_id = reader.last_id
        connection = sqlite3.connect(db)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()
    final = start_server()
    frames = log_of(final.url, "s")
    stored = dict(frames)
    assert {cursor: stored.get(cursor) for cursor in seen} == seen
    events = events_of(frames)
    assert_log(events, closed=True)
    ends = [event.data for event in events if event.type == "generation.finished"]
    assert [getattr(data, "outcome", None) for data in ends] == ["lost"] * examples(20)
    assert call(final.url, "GET", f"/v1/sessions/s/generations/{generation_id}")["outcome"] == "lost"
    resumed = SseReader(final.url, "/v1/sessions/s/events?live=false", last_id)
    assert [cursor for cursor, _ in resumed.frames()] == [cursor for cursor, _ in frames if cursor > last_id]
    assert final.stop() == 0


def memory_of(server: ServerProcess) -> int:
    """Resident set, in KiB."""
    for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    raise AssertionError("no such process")


@pytest.mark.long
def test_reader_that_stops_reading_holds_nobody_up(
    start_server: Start, record_property: Callable[[str, object], None]
) -> None:
    server = start_server("--send-timeout", "2", "--drain-timeout", "3")
    call(server.url, "PUT", "/v1/sessions/s", {})
    stalled = SseReader(server.url, "/v1/sessions/s/events", receive_buffer=2048)
    assert stalled.read(10)
    # What a reader sees of a paced answer while somebody else reads nothing of a flood.
    delays: list[float] = []

    def watch() -> None:
        reader = SseReader(server.url, "/v1/sessions/paced/events?after=now")
        for _, data in reader.frames():
            event: dict[str, Any] = json.loads(data)
            stamped = time.strptime(event["time"][:19], "%Y-%m-%dT%H:%M:%S")
            delays.append(time.time() - (time.mktime(stamped) - time.timezone + int(event["time"][20:23]) / 1000))
            if event["type"] == "generation.finished":
                reader.close()
                return

    call(server.url, "PUT", "/v1/sessions/paced", {})
    watcher = threading.Thread(target=watch)
    watcher.start()
    begin(server.url, "paced", delay=0.02, repeat=4)
    before = memory_of(server)
    begin(server.url, "s", text="flood " * 400, delay=0, repeat=200)
    reader = SseReader(server.url, "/v1/sessions/s/events")
    begun = time.monotonic()
    for _, data in reader.frames():
        if b'"generation.finished"' in data:
            reader.close()
            break
    flooded = time.monotonic() - begun
    watcher.join(60)
    assert not watcher.is_alive()
    delays.sort()
    record_property("flood_seconds", flooded)
    record_property("paced_delay_p50", delays[len(delays) // 2])
    record_property("paced_delay_max", delays[-1])
    assert len(delays) > 160
    # The flood is tens of megabytes; what it costs in memory is pages and buffers.
    assert memory_of(server) - before < 64 * 1024
    # It was cut after the send timeout, and what it had is the beginning of the log.
    stalled.socket.settimeout(10)
    while stalled.read():
        pass
    stalled.close()
    resumed = SseReader(server.url, "/v1/sessions/s/events?live=false", stalled.last_id)
    assert stalled.received + list(resumed.frames()) == log_of(server.url, "s")


@pytest.mark.long
def test_a_reader_that_stops_reading_does_not_keep_the_server(start_server: Start) -> None:
    server = start_server("--drain-timeout", "2")
    call(server.url, "PUT", "/v1/sessions/s", {})
    stalled = SseReader(server.url, "/v1/sessions/s/events", receive_buffer=2048)
    begin(server.url, "s", text="flood " * 400, delay=0, repeat=50)
    reader = SseReader(server.url, "/v1/sessions/s/events")
    for _, data in reader.frames():
        if b'"generation.finished"' in data:
            reader.close()
            break
    begun = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begun < 6
    stalled.close()
