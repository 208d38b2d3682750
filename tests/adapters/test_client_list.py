"""The Python client's list of sessions: its pages, and following it over lost connections."""

from __future__ import annotations

import pytest
import trio

from penstock.adapters.client import BadAnswer, ListEvents, Lost, SessionPage, connect
from penstock.adapters.problems import Forbidden, Unauthenticated
from penstock.engine import CaughtUp, Gap, LastSaid, ListChange, MemoryLog
from tests.adapters.credentials import identity, token
from tests.adapters.serving import PATIENCE, penstock


async def caught_up(changes: ListEvents) -> list[object]:
    """What comes before it is."""
    seen: list[object] = []
    with trio.fail_after(PATIENCE):
        while not isinstance(delivery := await changes.receive(), CaughtUp):
            seen.append(delivery)
    return seen


async def test_pages_of_the_list_say_what_the_engine_does() -> None:
    async with penstock(MemoryLog()) as served, connect(served.url) as client:
        for name in ("a", "b", "c"):
            await (await served.engine.create_session(name, metadata={"k": name})).post(f"hello {name}")
            await trio.sleep(0.002)
        first = await client.sessions_page(limit=2)
        assert list(first.sessions) == await served.engine.sessions(order="updated", limit=2)
        assert first.sessions[0].last == LastSaid(role="user", text="hello c")
        rest = await client.sessions_page(first.next, limit=2)
        assert [each.session_id for each in rest.sessions] == ["a"]
        assert rest.next is None
        assert await client.sessions() == await served.engine.sessions()
        by_id = await client.sessions_page(limit=1, order="id")
        assert by_id.next == "a"
        assert await client.sessions(after="a", limit=1) == await served.engine.sessions("a", 1)


async def test_whoever_watches_gets_a_page_and_then_what_changes() -> None:
    async with penstock(MemoryLog()) as served, connect(served.url) as client:
        await served.engine.create_session("a")
        async with client.watch() as changes:
            with trio.fail_after(PATIENCE):
                page = await anext(changes)
                assert isinstance(page, SessionPage)
                assert [each.session_id for each in page.sessions] == ["a"]
                await caught_up(changes)
                await (await served.engine.create_session("b")).post("hi")
                change = await anext(changes)
                assert isinstance(change, ListChange)
                assert change.session_id == "b"
                while change.session is None or change.session.last is None:
                    change = await anext(changes)
                    assert isinstance(change, ListChange)
                await served.engine.delete_session("a")
                gone = await anext(changes)
                assert isinstance(gone, ListChange)
                assert (gone.session_id, gone.session) == ("a", None)
        async with client.watch(change.cursor) as changes:
            with trio.fail_after(PATIENCE):
                again = await anext(changes)
                assert isinstance(again, ListChange)
                assert again.session_id == "a"


async def test_a_new_server_is_a_gap_and_a_page() -> None:
    log = MemoryLog()
    async with penstock(log) as served, connect(served.url) as client, client.watch() as changes:
        await caught_up(changes)
        await served.engine.drain()
        with trio.fail_after(PATIENCE):
            while not isinstance(delivery := await changes.receive(), Lost):
                pass
        assert delivery.error is None
    async with penstock(log) as served, connect(served.url) as client:
        async with client.watch() as changes:
            await caught_up(changes)
        async with penstock(MemoryLog()) as other, connect(other.url) as elsewhere:
            await other.engine.create_session("there")
            async with client.watch() as here:
                await caught_up(here)
                await served.engine.create_session("x")
                with trio.fail_after(PATIENCE):
                    change = await anext(here)
                assert isinstance(change, ListChange)
            async with elsewhere.watch(change.cursor) as changes:
                seen = await caught_up(changes)
                assert [type(each) for each in seen][1:] == [Gap, SessionPage]


async def test_what_the_server_refuses_comes_out_of_the_iteration() -> None:
    async with penstock(identity=identity()) as served:
        for given, kind in ((token(["*"], ["write"]), Forbidden), (None, Unauthenticated)):
            async with connect(served.url, token=given) as client, client.watch() as changes:
                with trio.fail_after(PATIENCE), pytest.raises(kind):
                    await anext(changes)
    async with penstock(MemoryLog()) as served, connect(f"{served.url}/nothing") as client:
        async with client.watch() as changes:
            with trio.fail_after(PATIENCE), pytest.raises(Exception) as raised:
                await anext(changes)
        assert not isinstance(raised.value, BadAnswer)
