"""Commands that are carried out and whose answers never come: each is carried out once, and soon its caller knows."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.e2e.black_hole import BlackHole
from tests.e2e.conftest import ServerProcess
from tests.e2e.panels import PATIENCE
from tests.e2e.stream_proxy import in_thread
from tests.e2e.streams import SseReader
from tests.e2e.test_following import port_of

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

ASKING = ("--producer", "asking=tests.e2e.page_producers:asking", "--default-producer", "echo")
SOON = 10.0

# A session each: something was said, answered and answered anew. What is live there is named by `live`.
PREPARE = """async (names) => {
  const { Client } = await import("/penstock.js");
  const client = new Client({ url: location.origin });
  window.sessions = {};
  const until = (session, holds) => new Promise((done) => {
    const look = () => holds(session.getSnapshot()) && done();
    session.subscribe(look);
    look();
  });
  const rest = ({ generation, messages }) => generation === null && messages.at(-1)?.role === "assistant";
  await Promise.all(names.map(async (name) => {
    const session = sessions[name] = client.session(crypto.randomUUID(), { over: "websocket" });
    await session.create();
    session.follow();
    await session.start({ text: "one" });
    await until(session, rest);
    session.question = session.getSnapshot().messages[0].message_id;
    session.first = session.getSnapshot().messages[1].message_id;
    await session.start({ replaces: session.first });
    await until(session, (state) => rest(state) && state.messages[1].version);
    session.answer = session.getSnapshot().messages[1].message_id;
    if (!["stop", "approve", "refuse", "input"].includes(name)) return; // into what is live
    await session.start({ producer: "asking" });
    await until(session, ({ approvals }) => approvals.length);
    session.live = session.getSnapshot().generation.generation_id;
    session.asked = session.getSnapshot().approvals[0].approval_id;
  }));
  return Object.fromEntries(names.map((name) => [name, sessions[name].sessionId]));
}"""

# What is called, and the type of event that it adds to the log once. A file adds none, and a name may be given again.
COMMANDS = {
    "start": ("generation.started", "(s) => s.start({ text: 'two' })"),
    "stop": ("generation.cancelling", "(s) => s.stop({ generation_id: s.live })"),
    "approve": ("approval.resolved", "(s) => s.approve(s.asked)"),
    "refuse": ("approval.resolved", "(s) => s.refuse(s.asked)"),
    "input": ("input.accepted", "(s) => s.input(s.live, { kind: 'steer', text: 'faster' })"),
    "edit": ("generation.started", "(s) => s.start({ replaces: s.question, text: 'another' })"),
    "regenerate": ("generation.started", "(s) => s.start({ replaces: s.answer, policy: 'reject' })"),
    "restore": ("message.snapshot", "(s) => s.restore(s.first)"),
    "post": ("message.snapshot", "(s) => s.post({ text: 'said' })"),
    "rename": ("", "(s) => s.update({ title: 'called' })"),
    "keep a file": ("", "(s) => s.keepFile(new Blob(['word '.repeat(10_000)], { type: 'text/plain' }))"),
}
CONNECTIONS = 6  # that a browser makes to a server: more commands would not go out

CARRY_OUT = """(commands) => {
  window.answers = {};
  const told = (name) => (answer) => { answers[name] = answer instanceof Error ? String(answer) : ""; };
  for (const [name, text] of Object.entries(commands)) (0, eval)(text)(sessions[name]).then(told(name), told(name));
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """As the others', where somebody asks, too."""
    running = ServerProcess(tmp_path_factory.mktemp("asking"), *ASKING)
    yield running
    assert running.stop() == 0, running.log.read_text()
    assert "Traceback" not in running.log.read_text()


def count(site: ServerProcess, session_id: str, kind: str) -> int:
    """How many events of this type the session has."""
    reader = SseReader(site.url, f"/v1/sessions/{session_id}/events?live=false")
    while reader.read():
        pass
    reader.close()
    return sum(json.loads(data)["type"] == kind for _, data in reader.received)


#
@pytest.mark.long
@pytest.mark.parametrize("names", [tuple(COMMANDS)[:CONNECTIONS], tuple(COMMANDS)[CONNECTIONS:]], ids=", ".join)
def test_what_is_carried_out_and_not_answered_is_known_soon(
    browser: Browser, site: ServerProcess, names: tuple[str, ...]
) -> None:
    with in_thread(BlackHole(port_of(site.url)).running) as hole:
        context = browser.new_context()
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.goto(f"{hole.url}/docs")
        ids = page.evaluate(PREPARE, names)

        def carried_out() -> dict[str, int]:
            return {name: count(site, ids[name], COMMANDS[name][0]) for name in names}

        before = carried_out()
        once = {name: number + bool(COMMANDS[name][0]) for name, number in before.items()}
        hole.deafen()
        page.evaluate(CARRY_OUT, {name: COMMANDS[name][1] for name in names})
        time.sleep(3)
        assert carried_out() == once
        assert page.evaluate("() => answers") == {}
        hole.heal()
        begun = time.monotonic()
        page.wait_for_function("(count) => Object.keys(answers).length === count", arg=len(names))
        assert time.monotonic() - begun < SOON
        assert page.evaluate("() => answers") == dict.fromkeys(names, "")
        assert carried_out() == once
        context.close()
