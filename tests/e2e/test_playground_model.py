"""The playground with a model behind it: thoughts, a tool call, an approval, steering, a stop the provider sees."""

from __future__ import annotations

import itertools
import json
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import trio

from tests.adapters.providers import WIRES, Answer, Call, Provider, error, provider, whole
from tests.e2e.conftest import ServerProcess
from tests.e2e.panels import PATIENCE, answers, body, live, panel, say

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.browser

WIRE = WIRES[0]
CALL = Call("call_1", "move_gate", ('{"gate": "pen', 'stock", "perc', 'ent": 10}'))
ASKS = whole(WIRE, "I will **close** it.", thoughts=["Nearly ", "closed."], calls=[CALL])

Start = Callable[..., ServerProcess]
Open = Callable[..., AbstractContextManager[tuple[Page, "Behind"]]]


class Behind:
    """The provider, in a thread of its own; `left` are the times at which clients went, by the clock on the wall."""

    def __init__(self, *script: Answer) -> None:
        self.left: queue.Queue[float] = queue.Queue()
        self._script = script
        self._ready: queue.Queue[tuple[Provider, trio.lowlevel.TrioToken, trio.Event]] = queue.Queue()
        self._thread = threading.Thread(target=trio.run, args=(self._run,), daemon=True)
        self._thread.start()
        self.provider, self._token, self._done = self._ready.get(timeout=PATIENCE)

    async def _run(self) -> None:
        done = trio.Event()
        async with provider(*self._script) as made, trio.open_nursery() as nursery:
            self._ready.put((made, trio.lowlevel.current_trio_token(), done))
            nursery.start_soon(self._watch, made)
            await done.wait()
            nursery.cancel_scope.cancel()

    async def _watch(self, made: Provider) -> None:
        for number in itertools.count(1):
            await (await made.wait_request(number)).left.wait()
            self.left.put(time.time())

    def close(self) -> None:
        self._token.run_sync_soon(self._done.set)
        self._thread.join(PATIENCE)


@pytest.fixture
def opened(browser: Browser, start_server: Start, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Open the page of a server whose model is behind a provider with this script; silent to the end."""

    @contextmanager
    def open_page(*script: Answer) -> Iterator[tuple[Page, Behind]]:
        behind = Behind(*script)
        monkeypatch.setenv("PENSTOCK_MODEL", f"{WIRE.kind}:small")
        monkeypatch.setenv("PENSTOCK_MODEL_BASE_URL", behind.provider.url + WIRE.base)
        monkeypatch.setenv("OPENAI_API_KEY", "key")
        producer = "keeper=penstock.adapters.models.example:keeper"
        running = start_server("--producer", producer, "--default-producer", "keeper")
        complaints: list[str] = []
        context = browser.new_context(viewport={"width": 1000, "height": 900})
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.request.put(f"{running.url}/v1/sessions/gates")
        page.goto(f"{running.url}/#a=gates")
        live(panel(page, "a"))
        yield page, behind
        context.close()
        behind.close()
        assert running.stop() == 0, running.log.read_text()
        assert "Traceback" not in running.log.read_text()
        assert complaints == []

    return open_page


#
def test_a_tool_call_is_let_through_with_other_arguments(opened: Open) -> None:
    with opened(ASKS, whole(WIRE, "It is ", "at 20 %.")) as (page, behind):
        a = panel(page, "a")
        say(a, "Nearly close the penstock.")
        card = a.locator(".approval")
        expect(card).to_contain_text("move_gate needs your yes")
        assert json.loads(card.get_by_label("Arguments").input_value()) == {"gate": "penstock", "percent": 10}
        call = a.locator(".fold[data-kind=tool_call]")
        expect(call).to_have_attribute("data-state", "asks")
        expect(page.locator("#announce")).to_contain_text("move_gate needs your yes")
        card.get_by_label("Arguments").fill("{")
        card.get_by_role("button", name="Approve").click()
        expect(card).to_contain_text("no JSON")
        card.get_by_label("Arguments").fill('{"gate": "penstock", "percent": 20}')
        card.get_by_role("button", name="Approve").click()
        expect(body(answers(a, "complete").last)).to_have_text("It is at 20 %.")
        expect(a.locator(".approvals")).to_be_hidden()
        expect(call).to_have_attribute("data-state", "done")
        call.locator("summary").click()
        expect(call).to_contain_text('"percent": 20')
        expect(a.locator(".message[data-role=tool]")).to_be_hidden()  # its result stands with the call
        expect(answers(a).first.locator("strong")).to_have_text("close")
        thoughts = a.locator(".fold[data-kind=reasoning]")
        expect(thoughts.locator(".inside")).to_be_hidden()
        thoughts.locator("summary").click()
        expect(thoughts.locator(".inside")).to_have_text("Nearly closed.")
        assert "20" in json.dumps(behind.provider.seen[1].body)


def test_a_tool_call_is_refused_with_a_reason(opened: Open) -> None:
    with opened(ASKS, whole(WIRE, "Then not.")) as (page, behind):
        a = panel(page, "a")
        say(a, "Nearly close the penstock.")
        page.reload()
        live(a)
        a.locator(".approval").get_by_label("Reason").fill("there is ice")
        a.locator(".approval").get_by_role("button", name="Deny").click()
        expect(body(answers(a, "complete").last)).to_have_text("Then not.")
        expect(a.locator(".fold[data-kind=tool_call]")).to_have_attribute("data-state", "failed")
        assert "there is ice" in json.dumps(behind.provider.seen[1].body)


def test_a_question_outlives_the_page_that_showed_it(opened: Open) -> None:
    with opened(ASKS, whole(WIRE, "It is ", "at 10 %.")) as (page, behind):
        a = panel(page, "a")
        say(a, "Nearly close the penstock.")
        expect(a.locator(".approval")).to_contain_text("move_gate needs your yes")
        page.reload()
        live(a)
        other = page.context.new_page()
        other.goto(page.url)
        for card in (a.locator(".approval"), panel(other, "a").locator(".approval")):
            expect(card).to_contain_text("move_gate needs your yes")
            expect(card.get_by_label("Arguments")).to_have_value(re.compile("penstock"))
        panel(other, "a").locator(".approval").get_by_role("button", name="Approve").click()
        expect(body(answers(a, "complete").last)).to_have_text("It is at 10 %.")
        expect(a.locator(".approvals")).to_be_hidden()
        assert len(behind.provider.seen) == 2


def test_what_is_steered_is_heard_before_the_model_is_asked_again(opened: Open) -> None:
    with opened(ASKS, whole(WIRE, "Gently.")) as (page, behind):
        a = panel(page, "a")
        say(a, "Nearly close the penstock.")
        a.locator(".approval").wait_for()
        a.locator(".policy select").select_option("steer")
        say(a, "But gently.")
        expect(a.locator(".steering li")).to_have_text("steer: But gently.")
        a.locator(".approval").get_by_role("button", name="Approve").click()
        expect(body(answers(a, "complete").last)).to_have_text("Gently.")
        expect(a.locator(".steering")).to_be_hidden()
        expect(a.locator(".message[data-role=user]")).to_have_count(2)
        assert "But gently." in json.dumps(behind.provider.seen[1].body)


def test_an_answer_says_that_it_was_made_without_the_oldest_turns(opened: Open) -> None:
    too_long = error(400, "prompt is too long: 210 tokens > 200 maximum")
    with opened(whole(WIRE, "One."), whole(WIRE, "Two."), too_long, whole(WIRE, "Three.")) as (page, behind):
        a = panel(page, "a")
        for number, question in enumerate(("First?", "Second?", "Third?"), 1):
            say(a, question)
            expect(answers(a, "complete")).to_have_count(number)
        for _ in range(2):
            expect(answers(a).last.locator(".end")).to_contain_text("made without the oldest 2 turns")
            expect(answers(a).first.locator(".end")).not_to_contain_text("without")
            page.reload()
            live(a)
        assert "First?" not in json.dumps(behind.provider.seen[-1].body)


def test_a_stop_in_the_page_reaches_the_provider_within_a_tenth_of_a_second(opened: Open) -> None:
    pieces = WIRE.say("The first word", " and more")
    cut = next(i for i, piece in enumerate(pieces) if b"first word" in piece) + 1
    took: list[float] = []
    with opened(*[Answer(pieces=pieces[:cut], end="hang") for _ in range(3)]) as (page, behind):
        a = panel(page, "a")
        for turn in range(1, 4):
            say(a, "Go.")
            expect(body(answers(a, "open"))).to_have_text("The first word")
            clicked = a.locator(".stop").evaluate("(button) => { const now = Date.now(); button.click(); return now; }")
            took.append(behind.left.get(timeout=PATIENCE) - clicked / 1000)
            expect(answers(a, "cancelled")).to_have_count(turn)
    assert min(took) < 0.1, "the quickest: a busy machine may hold up any of them"
