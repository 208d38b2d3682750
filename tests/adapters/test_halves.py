"""A character that was cut in two is joined again, wherever pieces of text come from others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from penstock.adapters.halves import Halves, mended
from penstock.engine import Generation, InvalidBody, MemoryLog, open_engine
from tests.adapters.fake_server import FakeServer
from tests.adapters.providers import WIRES, Call, Wire, provider, whole
from tests.adapters.talking import model_of, talking

FACE = "\U0001f600"
HIGH, LOW = "\ud83d", "\ude00"


def in_units(text: str) -> list[str]:
    """The text in units of UTF-16, each as a str of its own."""
    coded = text.encode("utf-16-le", "surrogatepass")
    return [coded[at : at + 2].decode("utf-16-le", "surrogatepass") for at in range(0, len(coded), 2)]


@given(st.text(st.sampled_from(["a", "é", "水", FACE, "\U0010ffff"]), max_size=12), st.data())
def test_text_that_is_cut_anywhere_is_whole_again(text: str, data: st.DataObject) -> None:
    pieces = [""]
    for unit in in_units(text):
        if data.draw(st.booleans()):
            pieces.append("")
        pieces[-1] += unit
    halves = Halves()
    out = [halves.add(piece) for piece in pieces]
    for each in out:
        each.encode()  # it can be stored
    assert "".join(out) == text
    assert halves.rest() == ""


@given(st.lists(st.text(st.sampled_from(["a", FACE, HIGH, LOW]), max_size=3), max_size=6))
def test_whatever_comes_what_goes_is_text_and_nothing_else_is_lost(pieces: list[str]) -> None:
    halves = Halves()
    out = "".join([*map(halves.add, pieces), halves.rest()])
    out.encode()
    joined = "".join(pieces).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert out == joined == mended("".join(pieces))


every_wire = pytest.mark.parametrize("wire", WIRES, ids=[wire.kind for wire in WIRES])


@every_wire
async def test_a_model_that_cuts_characters_in_two_is_read(wire: Wire) -> None:
    answer = whole(wire, f"a{HIGH}", f"{LOW}b", HIGH, LOW, f"{LOW}c{HIGH}", thoughts=[f"hm{HIGH}", LOW])
    async with provider(answer) as server, talking(model_of(wire, server)) as talk:
        assert (await talk.say("x")).outcome == "completed"
        message = await talk.last()
        said = {block.kind: block.text for block in message.blocks if block.kind != "data"}
        assert said == {"reasoning": f"hm{FACE}", "text": f"a{FACE}b{FACE}\ufffdc\ufffd"}


@every_wire
async def test_arguments_that_are_cut_in_the_middle_of_a_character_are_arguments(wire: Wire) -> None:
    call = Call("call_1", "look_up", ('{"word": "', HIGH, f'{LOW}"}}'))
    async with (
        provider(whole(wire, calls=[call]), whole(wire, "Done.")) as server,
        talking(model_of(wire, server)) as talk,
    ):
        assert (await talk.say("x")).outcome == "completed"
        calls = [block for message in await talk.messages() for block in message.blocks if block.kind == "tool_call"]
        assert [block.arguments for block in calls] == [{"word": FACE}]


async def test_a_remote_producer_may_cut_characters_in_two(autojump_clock: MockClock) -> None:
    server = FakeServer()

    async def produce(generation: Generation) -> None:
        async with generation.message() as message:
            async with message.text() as block:
                for piece in (f"a{HIGH}", f"{LOW}b", HIGH):
                    await block.write(piece)
            async with message.tool_call("c", "look") as call:
                for piece in ('{"a": "', HIGH, f'{LOW}"}}'):
                    await call.write(piece)

    async with server.client() as client, client.session("s").produce(listen=False) as generation:
        await produce(generation)
    said = [chunk["data"] for chunk in server.chunks if chunk["type"] == "block.delta"]
    assert said == [{"text": "a"}, {"text": f"{FACE}b"}, {"text": "\ufffd"}] + [
        {"arguments": piece} for piece in ('{"a": "', f'{FACE}"}}')
    ]


async def test_the_engine_itself_refuses_half_a_character_and_goes_on(autojump_clock: MockClock) -> None:
    refused: list[str] = []

    async def producer(generation: Generation) -> None:
        async with generation.message() as message, message.text() as block:
            for piece in ("a", HIGH, LOW, f"b{HIGH}", "c"):
                try:
                    await block.write(piece)
                except InvalidBody as error:
                    refused.append(error.detail)

    async with open_engine(MemoryLog()) as engine:
        session = await engine.create_session("s")
        await session.start(producer)
        async with session.subscribe() as events:
            async for event in events:
                if event.type == "generation.finished":
                    break
        assert (await session.snapshot()).messages[0].blocks[0].text == "ac"
    assert len(refused) == 3
    assert all("text" in detail for detail in refused)
