"""The client where the server asks who comes: tokens that are sent, refused, and changed in the middle of a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import pytest
import trio

from penstock.adapters.access import Identity, JwtTokens, Scope, make_token
from penstock.adapters.access.tokens import Signer
from penstock.adapters.client import Client, ClientConfig, Token, connect
from penstock.adapters.problems import Forbidden, Unauthenticated
from tests.adapters import credentials
from tests.adapters.serving import PATIENCE, Penstock, penstock

KEY = b"0123456789abcdef0123456789abcdef"
FORMS = pytest.mark.parametrize("over", ["sse", "websocket"])
HASTY = ClientConfig(first_pause=0.01, longest_pause=0.05)


def token(*scopes: Scope, ttl: float = 60.0, sessions: tuple[str, ...] = ("*",)) -> str:
    signer = Signer(algorithm="HS256", key=KEY, public=KEY)
    return make_token(signer, subject="ann", scopes=scopes, sessions=sessions, ttl=ttl)


@asynccontextmanager
async def servers() -> AsyncIterator[Penstock]:
    async with penstock(identity=Identity(JwtTokens([KEY], "HS256", leeway=0.0))) as server:
        with trio.fail_after(PATIENCE):
            yield server


@asynccontextmanager
async def clients(server: Penstock, given: Token) -> AsyncIterator[Client]:
    async with connect(server.url, token=given, config=HASTY) as client:
        yield client


@FORMS
async def test_a_token_is_sent_with_everything(over: Literal["sse", "websocket"]) -> None:
    async with servers() as server, clients(server, token("read", "write")) as client:
        session = await client.create_session("s")
        posted = await session.post("hello")
        async with session.events(over=over) as events:
            assert (await anext(events)).type == "session.created"
            assert (await anext(events)).message_id == posted.message_id


@FORMS
async def test_who_may_not_learns_so_and_is_not_reconnected(over: Literal["sse", "websocket"]) -> None:
    async with servers() as server:
        async with clients(server, token("read", "write")) as client:
            await client.create_session("s")
        for given, error in ((None, Unauthenticated), ("nonsense", Unauthenticated), (token("write"), Forbidden)):
            async with clients(server, given) as client, client.session("s").events(over=over) as events:
                with pytest.raises(error):
                    await anext(events)
                assert events.statistics().attempts == 1


@FORMS
@pytest.mark.parametrize("given", ["se\ncret", "se\0cret", "s\u00e9cret", " \n"])
async def test_a_token_that_no_header_takes_is_refused_here_and_not_repeated(
    over: Literal["sse", "websocket"], given: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with servers() as server, clients(server, given) as client:
        with pytest.raises(Unauthenticated) as caught:
            await client.create_session("s")
        assert "cret" not in str(caught.value)
        async with client.session("s").events(over=over) as events:
            with pytest.raises(Unauthenticated):
                await anext(events)
    assert "cret" not in caplog.text


async def test_a_token_out_of_a_file_may_have_its_lines_end() -> None:
    async with servers() as server, clients(server, token("write") + "\n") as client:
        await client.create_session("s")


@FORMS
async def test_a_stream_outlives_its_tokens(over: Literal["sse", "websocket"]) -> None:
    async def fetch() -> str:
        return credentials.token(scopes=["read", "write"], lasts=0.5)

    async with penstock(identity=credentials.identity()) as server, clients(server, fetch) as client:
        session = await client.create_session("s")
        posted = 0
        with trio.fail_after(PATIENCE):
            async with session.events(over=over) as events:
                assert (await anext(events)).type == "session.created"
                while events.statistics().connections < 3:
                    await session.post(f"message {posted}")
                    posted += 1
                    assert (await anext(events)).type == "message.snapshot"
                    with trio.move_on_after(0.1):
                        await anext(events)
                        pytest.fail("an event came twice")
    assert posted
