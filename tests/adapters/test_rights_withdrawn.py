"""Who may hear less than before hears no more than that: at once after a new token, and soon after a hook says no."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import pytest
import trio

from penstock.adapters.access import Identity, Principal, authority
from penstock.engine import Session
from tests.adapters.credentials import ALL, bearer, identity, token
from tests.adapters.serving import PATIENCE, Penstock, Socket, penstock

Json = dict[str, Any]

GID = str(uuid4())


@asynccontextmanager
async def opened(world: Penstock, *scopes: str, sessions: tuple[str, ...] = ("a", "b")) -> AsyncIterator[Socket]:
    for name in sessions:
        await world.engine.create_session(name)
    made = token(sessions, scopes or ALL)
    async with world.socket(headers=[(b"Authorization", f"Bearer {made}".encode())]) as socket:
        yield socket


async def hear(socket: Socket, answer: int) -> list[Json]:
    """All frames up to the reply with this id, that one included."""
    heard: list[Json] = []
    while not heard or heard[-1].get("id") != answer:
        heard.append(await socket.receive())
    return heard


def about(frames: list[Json], session_id: str) -> list[str]:
    """The kinds of the frames about the session; of errors their codes."""
    found = [
        frame for frame in frames if session_id in (frame.get("session_id"), frame.get("error", {}).get("session_id"))
    ]
    return [frame["error"]["code"] if frame["op"] == "error" else frame["op"] for frame in found]


async def all_that_happens(session: Session) -> None:
    """One of everything that a session tells its readers and its producers."""
    await session.post("a secret")
    await session.update({"x": 1})
    await session.put_presence("ann", "phone")
    await session.stop(GID)
    await session.reset()
    await session.delete()


async def produce_into(socket: Socket, session_id: str, number: int) -> None:
    chunk = {"generation_id": GID, "data": {"text": "x"}}
    await socket.send(op="chunks", id=number, session_id=session_id, chunks=[chunk])
    while (await socket.receive()).get("id") != number:
        pass


# What the later token lacks of the first one, which had all; what is still heard of b.
LESS = [
    (("a",), ALL, []),
    (("a", "c-*"), ALL, []),
    (("a", "b"), ("write",), []),
    (("a", "b"), ("produce",), ["STALE_GENERATION"]),
    (("a", "b"), ("read", "write"), ["events", "events", "events", "events", "end"]),
    ((), ALL, []),
]


@pytest.mark.parametrize(("sessions", "scopes", "still"), LESS)
async def test_behind_the_answer_to_a_token_for_less_nothing_is_heard_that_it_is_not_for(
    sessions: tuple[str, ...], scopes: tuple[str, ...], still: list[str]
) -> None:
    async with penstock(identity=identity()) as world, opened(world) as socket:
        for number, name in enumerate("ab"):
            await socket.ask(op="subscribe", id=number, session_id=name)
        await produce_into(socket, "b", 10)
        session = await world.engine.session("b")
        await socket.send(op="auth", id=20, token=token(sessions, scopes))
        await hear(socket, 20)
        await all_that_happens(session)
        await socket.send(op="ping", id=30)
        kinds = about(await hear(socket, 30), "b")
        expected = {"FORBIDDEN", *still}
        assert set(kinds) <= expected, kinds
        assert set(still) <= set(kinds), kinds
        assert kinds.count("FORBIDDEN") <= 2  # of reading and of producing


@pytest.mark.parametrize("by", ["token", "hook"])
async def test_nothing_slips_through_while_the_token_is_taken(by: str) -> None:
    allowed = True

    async def slow(_: Principal, action: str, session_id: str | None) -> bool:
        if action == "read" and not allowed:
            await trio.sleep(0.02)  # the application's own pace, at which b's events come, too
        return allowed or session_id != "b"

    own = identity(authorize=slow if by == "hook" else None)
    async with penstock(identity=own) as world, opened(world) as socket:
        session = await world.engine.session("b")
        for round_ in range(20):
            allowed = True
            assert (await socket.ask(op="auth", id=1000 + round_, token=token(["a", "b"])))["op"] == "reply"
            await socket.ask(op="subscribe", id=2000 + round_, session_id="b", after="now")
            allowed = by == "token"
            async with trio.open_nursery() as nursery:

                async def chatter() -> None:
                    while True:
                        await session.post("a secret")

                nursery.start_soon(chatter)
                await socket.send(op="auth", id=3000 + round_, token=token(["a"] if by == "token" else ["a", "b"]))
                await hear(socket, 3000 + round_)
                await socket.send(op="ping", id=4000 + round_)
                assert about(await hear(socket, 4000 + round_), "b") == ["FORBIDDEN"]
                nursery.cancel_scope.cancel()


async def test_chunks_that_were_under_way_open_no_ear(monkeypatch: pytest.MonkeyPatch) -> None:
    pushing, go = trio.Event(), trio.Event()
    original = Session.chunks

    async def slow(session: Session, *arguments: Any, **options: Any) -> Any:
        pushing.set()
        await go.wait()
        return await original(session, *arguments, **options)

    async with penstock(identity=identity()) as world, opened(world) as socket:
        monkeypatch.setattr(Session, "chunks", slow)
        chunk = {"generation_id": GID, "data": {"text": "x"}}
        await socket.send(op="chunks", id=1, session_id="b", chunks=[chunk])
        await pushing.wait()
        await socket.ask(op="auth", id=2, token=token(["a"]))
        go.set()
        await hear(socket, 1)
        await (await world.engine.session("b")).stop(GID)
        await socket.send(op="ping", id=3)
        assert about(await hear(socket, 3), "b") == []


async def test_a_subscription_that_was_being_opened_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    opening = trio.Event()

    class Slow:
        def __init__(self, *_: object, **__: object) -> None: ...

        async def __aenter__(self) -> None:
            opening.set()
            await trio.sleep_forever()

        async def __aexit__(self, *_: object) -> None: ...

    async with penstock(identity=identity()) as world, opened(world) as socket:
        monkeypatch.setattr(Session, "subscribe", Slow)
        await socket.send(op="subscribe", id=1, session_id="b")
        await opening.wait()
        await socket.send(op="auth", id=2, token=token(["a"]))
        frames = await hear(socket, 2)
        while not any(frame.get("id") == 1 for frame in frames):
            frames.append(await socket.receive())
        assert set(about(frames, "b")) == {"FORBIDDEN"}


# --- a hook that changes its mind

Hook = Callable[[Principal, str, str | None], Awaitable[bool]]


class Mind:
    """Says yes until it is made up otherwise; only about session b, if it is the right that is asked for."""

    def __init__(self, otherwise: str, right: str = "read") -> None:
        self.asked = 0
        self.changed = False
        self._otherwise = otherwise
        self._right = right

    async def __call__(self, _: Principal, action: str, session_id: str | None) -> bool:
        self.asked += 1
        if not self.changed or action != self._right or session_id != "b":
            return True
        match self._otherwise:
            case "no":
                return False
            case "something":
                return "yes"  # type: ignore[return-value]  # which is no True
            case "bug":
                raise ValueError("a bug of the application's")
            case "silence":
                await trio.sleep_forever()
        raise AssertionError


OTHERWISE = ["no", "something", "bug", "silence"]


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authority, "_ANSWER_AGAIN", 0.2)


async def asked_again(mind: Mind, times: int = 3) -> None:
    before = mind.asked
    with trio.fail_after(PATIENCE):
        while mind.asked < before + times:  # noqa: ASYNC110  # nobody tells
            await trio.sleep(0.01)


@pytest.mark.parametrize("otherwise", OTHERWISE)
@pytest.mark.parametrize("form", ["text/event-stream", "application/x-ndjson"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_a_stream_ends_in_its_own_words_when_a_hook_says_no(otherwise: str, form: str, version: str) -> None:
    mind = Mind(otherwise)
    own = identity(authorize=mind, ask_again=0.05)
    async with penstock(identity=own) as world:
        session = await world.engine.create_session("b")
        headers = {**bearer(token(["b"])), "Accept": form}
        async with world.lines("/v1/sessions/b/events", version=version, **headers) as lines:
            assert lines.status == 200
            await asked_again(mind)
            await session.post("for who may read")
            seen = ""
            while "for who may read" not in seen:
                seen += await lines.next()
            mind.changed = True
            rest: list[str] = []
            with suppress(EOFError):
                while True:
                    rest.append(await lines.next())
            assert lines.ended == (version == "1.1"), "ended in order, not broken off"
        text = "".join(rest)
        assert ("INTERNAL" if otherwise == "bug" else "access-refused") in text
        await session.post("a secret")
        assert "a secret" not in text
        if otherwise in ("no", "something"):
            async with world.client() as client:
                again = await client.get("/v1/sessions/b/events?live=false", headers=bearer(token(["b"])))
                assert again.status_code == 403


@pytest.mark.parametrize("otherwise", OTHERWISE)
@pytest.mark.parametrize("right", ["read", "produce"])
async def test_a_socket_hears_no_more_of_a_session_when_a_hook_says_no(otherwise: str, right: str) -> None:
    mind = Mind(otherwise, right)
    own = identity(authorize=mind, ask_again=0.05)
    async with penstock(identity=own) as world, opened(world) as socket:
        session, other = await world.engine.session("b"), await world.engine.session("a")
        await socket.ask(op="subscribe", id=1, session_id="a")
        if right == "read":
            await socket.ask(op="subscribe", id=2, session_id="b")
        await produce_into(socket, "b", 3)
        await asked_again(mind)
        mind.changed = True
        frame: Json = {}
        while about([frame := await socket.receive()], "b") not in (["FORBIDDEN"], ["INTERNAL"]):
            assert frame["op"] != "error"
        assert "id" not in frame
        assert frame["error"]["code"] == ("INTERNAL" if otherwise == "bug" else "FORBIDDEN")
        await session.post("a secret")
        await session.stop(GID)
        await other.post("for all")
        kinds: list[Json] = []
        while "for all" not in str(kinds):
            kinds.append(await socket.receive())
        # What the hook still allows is still told.
        assert about(kinds, "b") == (["STALE_GENERATION"] if right == "read" else [])
        assert (await socket.ask(op="ping", id=9))["op"] == "reply"


async def test_a_yes_keeps_what_is_open(caplog: pytest.LogCaptureFixture) -> None:
    mind = Mind("no")
    own = identity(authorize=mind, ask_again=0.02)
    async with penstock(identity=own) as world, opened(world) as socket:
        await socket.ask(op="subscribe", id=1, session_id="b")
        async with world.lines("/v1/sessions/b/events", **bearer(token(["b"]))) as lines:
            await asked_again(mind, 20)
            await (await world.engine.session("b")).post("still here")
            seen = ""
            while "still here" not in seen:
                seen += await lines.next()
            while "still here" not in str(await socket.receive()):
                pass


def test_without_a_hook_nobody_is_asked_again_and_never_is_no_interval() -> None:
    assert identity().ask_again == math.inf
    assert identity(authorize=Mind("no")).ask_again == 60.0
    for wrong in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError):
            Identity(authorize=Mind("no"), ask_again=wrong)
