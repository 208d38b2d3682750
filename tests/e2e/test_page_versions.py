"""The page between versions of a message that was regenerated or edited, and between those who may answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import ServerProcess
from tests.e2e.panels import answers, body, give, live, panel, say, words

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Browser, Locator, Page, expect

pytestmark = pytest.mark.browser

WAYWARD = ("--producer", "wayward=tests.e2e.page_producers:wayward", "--default-producer", "echo")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """As the others', where somebody else may answer, too."""
    running = ServerProcess(tmp_path_factory.mktemp("versions"), *WAYWARD)
    yield running
    assert running.stop() == 0, running.log.read_text()
    assert "Traceback" not in running.log.read_text()


def users(conversation: Locator) -> Locator:
    return conversation.locator(".message[data-role=user]")


def place(message: Locator) -> Locator:
    return message.locator(".versions .place")


def edit(conversation: Locator, message: Locator, text: str) -> None:
    message.hover()
    message.get_by_role("button", name="Edit and send again").click()
    field = conversation.get_by_label("Edit the message")
    field.fill(text)
    field.press("Enter")


def test_one_goes_back_and_forth_between_the_versions_of_an_answer(page: Page, browser: Browser) -> None:
    a = panel(page, "a")
    context = browser.new_context()
    other = context.new_page()
    other.goto(page.url)
    live(panel(other, "a"))
    give(a, '{"delay": 0, "repeat": 1}')
    say(a, "once")
    expect(body(answers(a, "complete"))).to_have_text("once")
    expect(answers(a).locator(".versions")).to_be_hidden()
    give(a, '{"delay": 0, "repeat": 3}')
    a.locator(".again").click()
    for number in ("2/2", "1/2", "2/2"):
        for seen in (a, panel(other, "a")):
            expect(place(answers(seen, "complete"))).to_have_text(number)
            expect(body(answers(seen))).to_have_text("once" if number == "1/2" else "onceonceonce")
            expect(answers(seen)).to_have_count(1)
        page.reload()
        live(a)
        before = answers(a).get_by_role("button", name="The version before")
        behind = answers(a).get_by_role("button", name="The version behind")
        expect(before if number == "1/2" else behind).to_be_disabled()
        (behind if number == "1/2" else before).click()
    context.close()


def test_an_edited_question_is_brought_back_with_all_that_followed_it(page: Page) -> None:
    a = panel(page, "a")
    give(a, '{"delay": 0}')
    for number, text in enumerate(("first", "second"), 1):
        say(a, text)
        expect(answers(a, "complete")).to_have_count(number)
    edit(a, users(a).first, "changed")
    expect(a.locator(".message .body")).to_have_text(["changed", "changed"])
    expect(place(users(a))).to_have_text("2/2")
    users(a).get_by_role("button", name="The version before").click()
    expect(a.locator(".message .body")).to_have_text(["first", "first", "second", "second"])
    expect(place(users(a).first)).to_have_text("1/2")
    edit(a, users(a).first, "changed again")
    expect(a.locator(".message .body")).to_have_text(["changed again", "changed again"])
    expect(place(users(a))).to_have_text("3/3")


def test_while_an_answer_runs_versions_stay(page: Page) -> None:
    a = panel(page, "a")
    give(a, '{"delay": 0}')
    say(a, "one")
    expect(answers(a, "complete")).to_have_count(1)
    a.locator(".again").click()
    expect(place(answers(a, "complete"))).to_have_text("2/2")
    give(a, '{"delay": 0.3}')
    say(a, words("w", 50))
    expect(answers(a, "open")).to_have_count(1)
    expect(answers(a).first.get_by_role("button", name="The version before")).to_be_disabled()
    a.locator(".stop").click()
    expect(answers(a).first.get_by_role("button", name="The version before")).to_be_enabled()


def test_who_answers_is_chosen_and_a_version_that_failed_leads_back(page: Page) -> None:
    a = panel(page, "a")
    choice = a.locator(".producer select")
    assert sorted(choice.locator("option").all_inner_texts()) == ["echo", "wayward"]
    give(a, '{"delay": 0}')
    say(a, "wrong key")
    expect(body(answers(a, "complete"))).to_have_text("wrong key")
    expect(a.locator(".given small")).to_contain_text("delay")
    choice.select_option("wayward")
    expect(a.locator(".given small")).to_have_text("")
    a.locator(".again").click()
    failed = a.locator(".ended")
    expect(failed).to_contain_text("does not accept this server's key")
    expect(answers(a)).to_have_count(0)
    expect(place(failed)).to_have_text("2/2")
    failed.get_by_role("button", name="The version before").click()
    expect(body(answers(a, "complete"))).to_have_text("wrong key")
    expect(failed.get_by_role("button")).to_have_count(0)  # it is told, and there is nothing to be done about it


def test_a_regeneration_that_failed_is_tried_again_as_the_same_version(page: Page) -> None:
    a = panel(page, "a")
    give(a, '{"delay": 0}')
    say(a, "wrong once, when it is asked anew")
    expect(answers(a, "complete")).to_have_count(1)
    a.locator(".producer select").select_option("wayward")
    a.locator(".again").click()
    failed = a.locator(".ended")
    expect(place(failed)).to_have_text("2/2")
    failed.get_by_role("button", name="Try again").click()
    expect(body(answers(a, "complete"))).to_have_text("You said wrong once, when it is asked anew.")
    expect(place(answers(a))).to_have_text("2/2")
    answers(a).get_by_role("button", name="The version before").click()
    expect(body(answers(a, "complete"))).to_have_text("wrong once, when it is asked anew")


def test_a_version_that_is_brought_back_says_how_it_ended(page: Page) -> None:
    a = panel(page, "a")
    a.locator(".producer select").select_option("wayward")
    say(a, "cut it")
    expect(answers(a).locator(".end")).to_have_text("cut off at the token limit")
    a.locator(".producer select").select_option("echo")
    give(a, '{"delay": 0}')
    a.locator(".again").click()
    expect(body(answers(a, "complete"))).to_have_text("cut it")
    answers(a).get_by_role("button", name="The version before").click()
    expect(answers(a).locator(".end")).to_have_text("cut off at the token limit")
    a.locator(".producer select").select_option("wayward")
    answers(a).get_by_role("button", name="Go on").click()
    expect(answers(a).locator("strong")).to_have_text("all")
    expect(answers(a)).to_have_count(1)
