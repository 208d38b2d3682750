"""How an answer ended is never a secret: what the page shows of answers that failed, were stopped, or were cut off."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import ServerProcess
from tests.e2e.page_producers import CUT, REST, WRONG_KEY
from tests.e2e.panels import PATIENCE, answers, body, live, panel, say, session_ids

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Browser, Locator, Page, expect

pytestmark = pytest.mark.browser

WORDLESS = "the model ended without a word"

WAYWARD = ("--producer", "wayward=tests.e2e.page_producers:wayward", "--default-producer", "wayward")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """As the others', with a producer that goes wrong."""
    running = ServerProcess(tmp_path_factory.mktemp("wayward"), *WAYWARD)
    yield running
    assert running.stop() == 0, running.log.read_text()
    assert "Traceback" not in running.log.read_text()


def ends(conversation: Locator) -> Locator:
    return conversation.locator(".ended")


def test_an_answer_that_failed_before_its_first_word_says_why_wherever_it_is_looked_at(
    page: Page, browser: Browser
) -> None:
    a = panel(page, "a")
    context = browser.new_context()
    other = context.new_page()
    other.goto(page.url)
    live(panel(other, "a"))
    say(a, "wrong key")
    told = f"No answer: {WRONG_KEY}"
    for seen in (a, panel(other, "a")):
        expect(ends(seen).locator(".why")).to_have_text(told)
        expect(ends(seen).get_by_role("button", name="Try again")).to_be_visible()
    page.reload()
    live(a)
    expect(ends(a).locator(".why")).to_have_text(told)
    expect(ends(a).get_by_role("button", name="Try again")).to_be_visible()
    said = a.locator(".message[data-role=user]")
    said.hover()
    said.get_by_role("button", name="Fork from here").click()
    expect(ends(panel(page, "c")).locator(".why")).to_have_text(told)
    context.close()


def test_try_again_asks_again_and_what_went_wrong_stays_told(page: Page) -> None:
    a = panel(page, "a")
    say(a, "wrong once, by button")
    ends(a).get_by_role("button", name="Try again").click()
    expect(body(answers(a, "complete"))).to_have_text("You said wrong once, by button.")
    expect(a.locator(".message[data-role=user]")).to_have_count(1)
    expect(ends(a)).to_have_count(1)
    expect(ends(a).get_by_role("button", name="Try again")).to_be_hidden()
    say(a, "wrong once, by key")
    expect(ends(a)).to_have_count(2)
    a.locator(".field").press("Alt+r")
    expect(body(answers(a, "complete").last)).to_have_text("You said wrong once, by key.")


def test_what_was_stopped_superseded_or_empty_before_its_first_word_is_shown_in_its_place(page: Page) -> None:
    a = panel(page, "a")
    say(a, "silence, please")
    expect(a.locator(".working")).to_be_visible()
    a.locator(".stop").click()
    expect(ends(a).locator(".why")).to_have_text("No answer: it was stopped")
    say(a, "silence again")
    expect(a.locator(".working")).to_be_visible()
    say(a, "nothing at all")
    whys = ["No answer: it was stopped", "No answer: something else was asked", f"No answer: {WORDLESS}"]
    order = "(all) => [...all.querySelectorAll('.message, .ended')].map((each) => each.className)"
    for _ in range(2):
        expect(ends(a).locator(".why")).to_have_text(whys)
        assert a.locator(".transcript").evaluate(order) == ["message", "ended"] * 3
        assert [each.is_visible() for each in ends(a).locator(".retry").all()] == [False, False, True]
        page.reload()
        live(a)
    said = a.locator(".message[data-role=user]").last
    said.hover()
    said.get_by_role("button", name="Fork from here").click()
    expect(ends(panel(page, "c")).locator(".why")).to_have_text(whys)


@pytest.mark.parametrize("how", ["", "behind a tool", "behind a tool alone"])
def test_an_answer_without_a_word_says_so_and_can_be_asked_for_again(page: Page, how: str) -> None:
    a = panel(page, "a")
    text = f"no word {how}"
    say(a, text)
    for _ in range(2):
        end = a.locator(".end").filter(visible=True)
        expect(end).to_have_text(re.compile(WORDLESS))
        expect(a.locator(".fold").filter(visible=True)).to_have_count(1 if how else 0)
        page.reload()
        live(a)
    answers(a).get_by_role("button", name="Try again").filter(visible=True).click()
    expect(body(answers(a, "complete")).last).to_have_text(f"You said {text}.")
    expect(answers(a)).to_have_count(1)
    expect(a.get_by_text(WORDLESS)).to_have_count(0)
    expect(a.locator(".versions .place").filter(visible=True)).to_have_text("2/2")


def test_an_answer_that_broke_off_says_why_and_can_be_asked_for_again(page: Page) -> None:
    a = panel(page, "a")
    say(a, "break")
    expect(answers(a, "failed").locator(".end")).to_have_text("failed: The model's answer broke off before its end.")
    expect(ends(a)).to_have_count(0)
    answers(a, "failed").get_by_role("button", name="Try again").click()
    expect(body(answers(a, "complete"))).to_have_text("You said break.")
    expect(answers(a)).to_have_count(1)


def test_an_answer_that_was_cut_off_is_gone_on_with_as_one(page: Page, site: ServerProcess) -> None:
    a = panel(page, "a")
    say(a, "cut it")
    expect(answers(a).locator(".end")).to_have_text("cut off at the token limit")
    answers(a).get_by_role("button", name="Go on").click()
    for _ in range(2):
        expect(answers(a)).to_have_count(1)
        expect(answers(a).locator(".code code")).to_have_text("for drop in water:\n    wheel.turn(drop)")
        expect(answers(a).locator("strong")).to_have_text("all")
        expect(answers(a).get_by_role("button", name="Go on")).to_have_count(0)
        expect(answers(a).locator(".end")).to_be_hidden()
        page.reload()
        live(a)
    answers(a).hover()
    answers(a).get_by_role("button", name="Show as written").click()
    expect(answers(a).locator(".source")).to_have_text(CUT + REST)
    stored = httpx.get(f"{site.url}/v1/sessions/{session_ids(page)['a']}").json()["messages"]
    assert stored[2]["continues"] == stored[1]["message_id"]
    answers(a).get_by_role("button", name="Regenerate").click()  # all of it, not only its end
    expect(answers(a).locator(".end")).to_have_text("cut off at the token limit", timeout=PATIENCE)
    expect(answers(a)).to_have_count(1)


def test_all_of_it_is_done_by_keyboard(page: Page) -> None:
    a = panel(page, "a")
    say(a, "wrong once, and by keyboard")
    expect(ends(a).get_by_role("button", name="Try again")).to_be_visible()
    page.keyboard.press("Shift+Tab")
    while page.evaluate("() => document.activeElement.textContent") != "Try again":
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(answers(a, "complete")).to_have_count(1)
    expect(a.locator(".transcript")).to_be_focused()  # where the button was
    a.locator(".field").focus()
    say(a, "cut it")
    expect(answers(a).get_by_role("button", name="Go on")).to_be_visible()
    while page.evaluate("() => document.activeElement.textContent") != "Go on":
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(answers(a).last.locator("strong")).to_have_text("all")
    expect(a.locator(".transcript")).to_be_focused()


def test_screenshots(page: Page, tmp_path: Path) -> None:
    a = panel(page, "a")
    for text in ("wrong key", "silence"):
        say(a, text)
    a.locator(".stop").click()
    say(a, "cut it")
    expect(answers(a, "complete")).to_have_count(1)
    page.screenshot(path=tmp_path / "endings.png")
    assert (tmp_path / "endings.png").stat().st_size > 10_000
