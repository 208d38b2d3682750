"""Approvals and stops in the terminal: what is asked, what counts as a yes, and what becomes of the answer."""

from __future__ import annotations

import json
import shlex
import signal
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from attrs import frozen

from penstock.adapters.access import Scope, load_signer, make_token
from penstock.adapters.client import connect
from penstock.engine import ApprovalRequested
from tests.adapters.providers import WIRES, Answer, Call, Provider, Wire, provider, whole
from tests.e2e.conftest import ServerProcess
from tests.e2e.terminal import penstock, terminal

# The others speak otherwise to the provider, not to the terminal.
every_wire = pytest.mark.parametrize(
    "wire",
    [pytest.param(wire, id=wire.kind, marks=[pytest.mark.long] * (wire is not WIRES[0])) for wire in WIRES],
)

Start = Callable[..., ServerProcess]

KEEPER = ("--producer", "keeper=penstock.adapters.models.example:keeper", "--default-producer", "keeper")
CALL = Call("call_1", "move_gate", ('{"gate": "pen', 'stock", "perc', 'ent": 10}'))
QUESTION = 'Allow move_gate {"gate": "penstock", "percent": 10}? [y/n] '

# Asks for two things at once, one of which tries to look like another.
TWO = """
    import trio

    async def two(generation):
        async def ask(name, arguments):
            approval = await generation.approve(name, arguments=arguments)
            async with generation.message() as message, message.text() as block:
                await block.write(f"{name}: {approval.approved} {approval.reason or ''}")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "first", {"path": "a\\u202eb\\nc", "long": "x" * 100})
            await trio.sleep(0.05)
            nursery.start_soon(ask, "second", None)
"""


@frozen
class Gates:
    """The example with tools, served, and the model behind it."""

    url: str
    model: Provider


@asynccontextmanager
async def served(start: Start, *arguments: str, cwd: Path | None = None) -> AsyncIterator[str]:
    running = await trio.to_thread.run_sync(partial(start, *arguments, cwd=cwd))
    yield running.url
    assert await trio.to_thread.run_sync(running.stop) == 0
    assert "Traceback" not in running.log.read_text()


@asynccontextmanager
async def gates(start: Start, wire: Wire, monkeypatch: pytest.MonkeyPatch, *script: Answer) -> AsyncIterator[Gates]:
    async with provider(*script) as model:
        monkeypatch.setenv("PENSTOCK_MODEL", f"{wire.kind}:small")
        monkeypatch.setenv("PENSTOCK_MODEL_BASE_URL", model.url + wire.base)
        monkeypatch.setenv("OPENAI_API_KEY", "key")
        monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
        async with served(start, *KEEPER) as url:
            yield Gates(url, model)


def wanting_then(wire: Wire, *words: str) -> tuple[Answer, Answer]:
    """A model that wants to move a gate, and what it says then."""
    return whole(wire, "I will close it.", calls=[CALL]), whole(wire, *words)


def told(model: Provider) -> str:
    """All that the model heard with its second request, without the marks of JSON inside JSON."""
    return json.dumps(model.seen[1].body).replace("\\", "").replace(" ", "")


@every_wire
async def test_an_approval_is_asked_and_answered_at_the_terminal(
    wire: Wire, start_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gates(start_server, wire, monkeypatch, *wanting_then(wire, "It is ", "at 10 %.")) as found:
        async with terminal("send", "gates", "Nearly close it.", "--url", found.url) as screen:
            await screen.until(QUESTION)
            assert len(found.model.seen) == 1  # the model waits for the person, too
            await screen.type("\n")
            await screen.until("Please type y or n: ")
            await screen.type("perhaps\n")
            await screen.until("Please type y or n: ")
            assert len(found.model.seen) == 1
            await screen.type("y\n")
            seen = await screen.until("It is at 10 %.")
            assert "was given" in seen
            assert 'tool result> {"gate": "penstock", "percent": 10}' in seen
            assert await screen.end() == 0
        assert '"percent":10' in told(found.model)


@every_wire
async def test_a_no_is_a_result_that_the_model_hears_of(
    wire: Wire, start_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gates(start_server, wire, monkeypatch, *wanting_then(wire, "Then I leave it.")) as found:
        async with terminal("send", "gates", "Nearly close it.", "--url", found.url) as screen:
            await screen.until(QUESTION)
            await screen.type("No\n")
            assert "was refused" in await screen.until("Then I leave it.")
            assert await screen.end() == 0
        assert "refused" in told(found.model).lower()


@pytest.mark.long
async def test_what_was_typed_before_the_question_is_no_yes(
    start_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = WIRES[0]
    async with (
        gates(start_server, wire, monkeypatch, *wanting_then(wire, "Then I leave it.")) as found,
        terminal("send", "gates", "Nearly close it.", "--url", found.url) as screen,
    ):
        await screen.type("y\nyes\n")
        await screen.until(QUESTION)
        await screen.type("n\n")
        assert "was refused" in await screen.until("Then I leave it.")
        assert await screen.end() == 0


@pytest.mark.long
async def test_without_a_terminal_the_way_to_answer_is_told(
    start_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = WIRES[0]
    async with gates(start_server, wire, monkeypatch, *wanting_then(wire, "It is at 10 %.")) as found:
        url = ("--url", found.url)
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                waiting = await asked(found.url, "gates", 1)
                listed = await penstock("approve", "gates", *url)
                assert listed.returncode == 1
                assert f'{waiting[0]}  move_gate {{"gate": "penstock", "percent": 10}}' in listed.stderr.decode()
                assert len(found.model.seen) == 1
                done = await penstock("approve", "gates", "--yes", "--reason", "I looked", *url)
                assert (done.returncode, done.stderr) == (0, b"")
                assert done.stdout.decode() == f"approval {waiting[0]} was given\n"

            nursery.start_soon(answer)
            sent = await penstock("send", "gates", "Nearly close it.", *url)
        assert sent.returncode == 0
        shown = sent.stdout.decode()
        assert shown.endswith("It is at 10 %.\n")
        assert "was given (I looked)" in shown
        (hint,) = [line for line in sent.stderr.decode().splitlines() if "answer with" in line]
        command = shlex.split(hint.partition("answer with: ")[2].partition(" (or")[0])
        assert command[:5] == ["penstock", "approve", "--yes", *url]
        assert command[6] in shown
        nothing = await penstock(*command[1:])
        assert nothing.returncode == 1
        assert "no approval with this id waits for an answer in gates" in nothing.stderr.decode()


async def asked(url: str, session: str, number: int) -> list[str]:
    """The approvals that are asked for, once there are so many."""
    found: list[str] = []
    async with connect(url) as client, (await client.create_session(session)).events() as events:
        async for event in events:
            if isinstance(event.data, ApprovalRequested):
                found.append(event.data.approval_id)
                if len(found) == number:
                    return found
    raise AssertionError("the session has ended")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server for all who are asked for two things, each in a session of its own; where it is."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "mine.py").write_text(textwrap.dedent(TWO))
    running = ServerProcess(folder, "--producer", "two=mine:two")
    yield running.url
    assert running.stop() == 0
    assert "Traceback" not in running.log.read_text()


async def test_several_are_asked_one_after_the_other_and_in_full(two: str) -> None:
    async with terminal("send", "in-a-row", "go", "--url", two) as screen:
        first = await screen.until("[y/n] ")
        assert f'Allow first {{"path": "a\\u202eb\\nc", "long": "{"x" * 100}"}}? [y/n] ' in first
        await screen.type("y\n")
        await screen.until("Allow second? [y/n] ")
        await screen.type("n\n")
        await screen.until("second: False")
        assert "first: True" in screen.screen
        assert await screen.end() == 0


async def test_an_answer_from_elsewhere_takes_the_question_away(two: str) -> None:
    async with terminal("send", "elsewhere", "go", "--url", two) as screen:
        await screen.until("Allow first")
        waiting = await asked(two, "elsewhere", 2)
        both = await penstock("approve", "elsewhere", "--yes", "--url", two)
        assert both.returncode == 1
        assert "there are several" in both.stderr.decode()
        assert all(one in both.stderr.decode() for one in waiting)
        assert (await penstock("approve", "elsewhere", waiting[0], "--no", "--url", two)).returncode == 0
        between = await screen.until("Allow second? [y/n] ")
        assert "\n-- approval" in between  # the question's line was ended
        assert "was refused" in between
        await screen.type("y\n")
        assert await screen.end() == 0
        assert "second: True" in screen.screen


@pytest.mark.long
async def test_a_question_may_be_left_to_others(two: str) -> None:
    async with terminal("send", "others", "go", "--url", two) as screen:
        await screen.until("Allow first")
        await screen.type("\x04")
        await screen.until("answer with: penstock approve --yes --url")
        await screen.until("Allow second? [y/n] ")
        async with terminal("approve", "others", "--reason", "late", "--url", two) as other:
            await other.until("Allow first")
            await other.type("y\n")
            await other.until("was given")
            await other.until("Allow second? [y/n] ")
            await other.type("\x04")
            assert await other.end() == 1
        assert "was given (late)" in await screen.until("Allow second? [y/n] ")  # which is asked again below
        await screen.type("n\n")
        assert await screen.end() == 0


async def test_ctrl_c_at_a_question_leaves_it_open(two: str) -> None:
    async with terminal("send", "open", "go", "--url", two) as screen:
        await screen.until("Allow first")
        screen.process.send_signal(signal.SIGINT)
        assert await screen.end() == 130
        assert "Traceback" not in screen.screen
    await asked(two, "open", 2)
    async with connect(two) as client:
        assert len((await client.session("open").snapshot()).approvals) == 2


@pytest.mark.long
async def test_a_stop_from_another_terminal_ends_the_answer(two: str) -> None:
    async with terminal("send", "stopped", "go", "--url", two) as screen:
        await screen.until("Allow first")
        stopped = await penstock("stop", "stopped", "--reason", "enough", "--url", two)
        assert (stopped.returncode, stopped.stdout) == (0, b"stopped; what was said is kept\n")
        await screen.until("[stopped]")
        assert await screen.end() == 1
    again = await penstock("stop", "stopped", "--url", two)
    assert (again.returncode, again.stdout) == (0, b"nothing was running\n")
    missing = await penstock("stop", "nowhere", "--url", two)
    assert missing.returncode == 1
    assert "SESSION_NOT_FOUND" in missing.stderr.decode()


@every_wire
async def test_a_stop_from_the_terminal_is_seen_by_the_provider_before_it_is_answered(
    wire: Wire, start_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = wire.say("The first word", " and more")
    cut = next(number for number, piece in enumerate(pieces) if b"first word" in piece) + 1
    async with (
        gates(start_server, wire, monkeypatch, Answer(pieces=pieces[:cut], end="hang")) as found,
        terminal("send", "gates", "Go on.", "--url", found.url) as screen,
    ):
        await screen.until("first word")
        assert (await penstock("stop", "gates", "--url", found.url)).returncode == 0
        with trio.fail_after(0.1):
            await found.model.seen[0].left.wait()
        await screen.until("[stopped]")
        assert await screen.end() == 1


@pytest.mark.long
async def test_who_answers_is_who_the_token_names(start_server: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(textwrap.dedent(TWO))
    key = tmp_path / "key"
    key.write_text("k" * 40)

    def token(subject: str, *scopes: Scope) -> str:
        return make_token(load_signer(key, "HS256"), subject=subject, scopes=scopes, sessions=["s"], ttl=600)

    async with served(start_server, "--producer", "two=mine:two", "--jwt-key", str(key), cwd=tmp_path) as url:
        ann, reader = token("ann", "read", "write"), token("bob", "read")
        async with terminal("send", "s", "go", "--url", url, PENSTOCK_TOKEN=ann) as screen:
            await screen.until("Allow first")
            first, *_ = (line for line in (await refused(url, reader)).splitlines() if "  first" in line)
            read_only = await penstock("approve", "s", first.split()[0], "--yes", "--url", url, PENSTOCK_TOKEN=reader)
            assert read_only.returncode == 1
            assert "FORBIDDEN" in read_only.stderr.decode()
            assert "FORBIDDEN" in (await penstock("stop", "s", "--url", url, PENSTOCK_TOKEN=reader)).stderr.decode()
            await screen.type("y\n")
            await screen.until("Allow second? [y/n] ")
            await screen.type("n\n")
            assert await screen.end() == 0
            assert "was given by ann" in screen.screen
            assert "was refused by ann" in screen.screen


async def refused(url: str, token: str) -> str:
    """What `approve` lists where nobody can be asked."""
    return (await penstock("approve", "s", "--url", url, PENSTOCK_TOKEN=token)).stderr.decode()
