from __future__ import annotations

import jsonschema_rs
import pytest
import trio
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from penstock.adapters.echo import Pace, echo, pieces
from penstock.engine import JSON, Event, Generation, InvalidBody, JSONObject, MemoryLog, Snapshot, open_engine
from penstock.engine.testing import open_test_engine


@given(st.text())
def test_pieces_joined_are_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one two", ["one", " two"]),
        ("  one\n\ttwo ", ["  one", "\n\ttwo", " "]),
        ("水" * 30, ["水" * 24, "水" * 6]),
        ("", []),
        (" \n", [" \n"]),
    ],
)
def test_pieces_are_words_with_the_space_before_them(text: str, expected: list[str]) -> None:
    assert list(pieces(text)) == expected


@pytest.mark.parametrize(
    "value",
    [
        "fast",
        [],
        {"delay": "0.1"},
        {"delay": True},
        {"delay": -0.1},
        {"delay": 61},
        {"delay": float("nan")},
        {"delay": None},
        {"repeat": 2.0},
        {"repeat": True},
        {"repeat": 0},
        {"repeat": 100_001},
        {"speed": 1},
    ],
)
def test_input_is_checked_and_nothing_is_converted(value: JSON) -> None:
    with pytest.raises(InvalidBody):
        Pace.of(value)


def test_input_has_defaults() -> None:
    assert Pace.of(None) == Pace.of({}) == Pace(delay=0.08, repeat=1)
    assert Pace.of({"delay": 0, "repeat": 3}) == Pace(delay=0.0, repeat=3)


async def say(text: str | None, value: JSON) -> list[Event]:
    async with open_engine(":memory:", producers={"echo": echo}) as engine:
        session = await engine.create_session("talk")
        await session.start("echo", text=text, input=value)
        events: list[Event] = []
        async with session.subscribe() as subscription:
            async for event in subscription:
                events.append(event)
                if event.type == "generation.finished":
                    break
    return events


def said(events: list[Event]) -> str:
    return "".join(getattr(event.data, "text", None) or "" for event in events if event.type == "block.delta")


async def test_echo_says_the_text_back_exactly(autojump_clock: trio.testing.MockClock) -> None:
    text = "  Größe 水門 🚰\n\n\tand  so on "
    assert said(await say(text, None)) == text


async def test_echo_takes_its_time_for_each_word(autojump_clock: trio.testing.MockClock) -> None:
    begin = trio.current_time()
    await say("one two three", {"delay": 2})
    assert trio.current_time() - begin == pytest.approx(6)


async def test_echo_repeats_on_a_new_line(autojump_clock: trio.testing.MockClock) -> None:
    assert said(await say("one two", {"repeat": 3})) == "one two\none two\none two"


async def test_echo_with_nothing_to_say_tells_what_to_do(autojump_clock: trio.testing.MockClock) -> None:
    assert "post a user message" in said(await say(None, None))


async def test_echo_finds_what_was_said_last_however_far_back_and_reads_no_more_than_that(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    snapshot = Generation.snapshot

    async def noting(self: Generation, limit: int | None = None, before: str | None = None) -> Snapshot:
        found = await snapshot(self, limit, before)
        read.append(len(found.messages))
        return found

    async def others(generation: Generation) -> None:
        for number in range(45):
            async with generation.message() as message, message.text() as block:
                await block.write(f"{number}")

    monkeypatch.setattr(Generation, "snapshot", noting)
    async with open_engine(":memory:", producers={"echo": echo, "others": others}) as engine:
        session = await engine.create_session("talk")
        for number in range(100):
            await session.post(f"before {number}")
        await session.start("others", text="the question")
        await trio.testing.wait_all_tasks_blocked()
        await session.start("echo", policy="queue")
        await trio.sleep(60)
        newest = (await session.snapshot(limit=1)).messages[0]
    assert newest.blocks[0].text == "the question"
    assert read == [20, 20, 20]


async def test_bad_input_ends_as_failed_with_its_reason(autojump_clock: trio.testing.MockClock) -> None:
    end = (await say("one", {"delay": "slow"}))[-1]
    assert getattr(end.data, "outcome", None) == "failed"
    assert getattr(end.data, "code", None) == "INVALID_BODY"
    assert "delay" in getattr(end.data, "message", "")


async def test_its_schema_says_what_its_input_may_be() -> None:
    async with open_engine(MemoryLog(), producers={"echo": echo}) as engine:
        (info,) = engine.producer_infos
    assert info.description == "Say the session's newest user message back; repetitions are set apart by a line break."
    assert info.input_schema is not None
    check = jsonschema_rs.validator_for(dict(info.input_schema))
    right: list[JSON] = [{}, {"delay": 0}, {"delay": 60, "repeat": 1}, {"repeat": 100_000}]
    for value in right:
        assert check.is_valid(value)
        Pace.of(value)
    wrong: list[JSON] = [[], {"delay": 61}, {"delay": -1}, {"delay": "1"}, {"repeat": 0}, {"repeat": 100_001}, {"x": 1}]
    for value in wrong:
        assert not check.is_valid(value)
        with pytest.raises(InvalidBody):
            Pace.of(value)


async def test_echo_shows_what_was_attached(autojump_clock: trio.testing.MockClock) -> None:
    async with open_test_engine(producers={"echo": echo}) as test:
        session = await test.engine.create_session()
        file = (await session.keep_file(b"x", media_type="text/plain", filename="a.txt")).file
        named: list[JSONObject] = [
            {"kind": "file", "file_id": file.file_id},
            {"kind": "image", "url": "https://example.org/a.png"},
            {"kind": "source", "url": "https://example.org/", "title": "A"},
        ]
        words: list[JSONObject] = [{"kind": "text", "text": each} for each in ("one", "two")]
        for blocks, said in (([*words, *named], ["one\n\ntwo"]), (named, [])):
            await session.start("echo", message={"blocks": blocks})
            await test.settle()
            await trio.sleep(9)
            asked, answer = (await session.snapshot()).messages[-2:]
            assert [block.text for block in answer.blocks if block.kind == "text"] == said
            assert [evolve(block, seq=0) for block in answer.blocks if block.kind != "text"] == list(
                asked.blocks[len(blocks) - 3 :]
            )
