"""The playground around its conversations: the list, panes, what is done to a message, who is there, tokens, keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.adapters.credentials import SECRET, token
from tests.e2e.conftest import ServerProcess
from tests.e2e.panels import PATIENCE, answers, body, live, panel, say, session_ids, words

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

pytestmark = pytest.mark.browser

Start = Callable[..., ServerProcess]


def users(conversation: Locator) -> Locator:
    return conversation.locator(".message[data-role=user]")


def press(message: Locator, name: str) -> None:
    message.hover()
    message.get_by_role("button", name=name).click()


def listed(page: Page, title: str) -> Locator:
    return page.locator(".conversations li", has=page.get_by_text(title, exact=True))


def test_conversations_are_listed_opened_renamed_and_deleted(page: Page) -> None:
    a = panel(page, "a")
    page.get_by_role("button", name="New conversation", exact=True).click()
    say(a, "# About *levees*\nand more", "fast")
    expect(answers(a, "complete")).to_have_count(1)
    first = session_ids(page)["a"]
    expect(a.locator("h2")).to_have_text("About *levees*")
    expect(listed(page, "About *levees*").locator(".panes")).to_have_text("A")
    page.get_by_role("button", name="New conversation", exact=True).click()
    expect(answers(a)).to_have_count(0)
    assert session_ids(page)["a"] != first
    press(listed(page, "About *levees*"), "Rename")
    page.locator("dialog[open]").get_by_label("Title").fill("Levees")
    page.locator("dialog[open]").get_by_role("button", name="Rename").click()
    listed(page, "Levees").locator(".open").click()
    expect(a.locator("h2")).to_have_text("Levees")
    expect(answers(a, "complete")).to_have_count(1)
    press(listed(page, "Levees"), "Delete")
    no = page.locator("dialog[open]").get_by_role("button", name="Cancel")
    expect(no).to_be_focused()
    no.click()
    expect(answers(a, "complete")).to_have_count(1)
    press(listed(page, "Levees"), "Delete")
    page.locator("dialog[open]").get_by_role("button", name="Delete").click()
    expect(a.locator(".notice")).to_contain_text("has ended (deleted)")
    expect(listed(page, "Levees")).to_have_count(0)
    a.get_by_role("button", name="Begin another").click()
    say(a, "and another", "fast")
    live(a)


def test_a_conversation_is_emptied_after_a_question(page: Page) -> None:
    a = panel(page, "a")
    say(a, "gone soon", "fast")
    expect(answers(a, "complete")).to_have_count(1)
    a.locator(".menu summary").click()
    a.get_by_role("button", name="Empty it…").click()
    page.locator("dialog[open]").get_by_role("button", name="Empty it").click()
    expect(a.locator(".message")).to_have_count(0)
    say(a, "and on")
    expect(body(answers(a, "complete"))).to_have_text("and on")


def test_a_message_is_edited_and_sent_again(page: Page) -> None:
    a = panel(page, "a")
    say(a, "first", "fast")
    expect(answers(a, "complete")).to_have_count(1)
    say(a, words("w", 200))
    expect(body(answers(a, "open"))).to_contain_text("w2")
    press(users(a).first, "Edit and send again")
    field = a.get_by_label("Edit the message")
    field.press("Escape")
    expect(field).to_have_count(0)
    expect(answers(a, "open")).to_have_count(1)  # Escape was the editor's
    press(users(a).first, "Edit and send again")
    field.fill("second")
    field.press("Enter")
    expect(body(answers(a, "complete"))).to_have_text("second")
    expect(users(a)).to_have_count(1)
    expect(body(users(a))).to_have_text("second")
    a.locator(".composer textarea").press("ArrowUp")
    expect(field).to_have_value("second")


@pytest.mark.long
def test_an_edited_message_that_is_refused_is_not_lost(page: Page, complaints: list[str]) -> None:
    a = panel(page, "a")
    say(a, "as it was")
    expect(answers(a, "complete")).to_have_count(1)
    a.locator(".message[data-role=user]").hover()
    a.get_by_role("button", name="Edit and send again").click()
    field = a.get_by_label("Edit the message")
    field.fill("long " * 300_000)
    field.press("Enter")
    expect(a.locator(".notice")).to_contain_text("Not sent")
    assert a.locator(".composer .field").input_value() == "long " * 300_000
    expect(body(a.locator(".message[data-role=user]"))).to_have_text("as it was")
    assert "413" in complaints.pop()


def test_a_fork_begins_with_what_was_said_up_to_there(page: Page) -> None:
    a = panel(page, "a")
    for text in ("one", "two"):
        say(a, text, "fast")
        expect(body(answers(a, "complete").last)).to_have_text(text)
    press(answers(a).first, "Fork from here")
    c = panel(page, "c")
    live(c)
    expect(c.locator(".message")).to_have_count(2)
    expect(c.locator("h2")).to_have_text("one (fork)")
    say(c, "three", "fast")
    expect(body(answers(c, "complete").last)).to_have_text("three")
    expect(a.locator(".message")).to_have_count(4)
    page.reload()
    live(c)
    c.locator(".menu summary").click()
    c.get_by_role("button", name="Close this pane").click()
    expect(c).to_have_count(0)
    assert set(session_ids(page)) == {"a", "b"}


def test_what_was_steered_in_vain_is_given_back(page: Page) -> None:
    a = panel(page, "a")
    say(a, words("w", 200))
    expect(body(answers(a, "open"))).to_contain_text("w2")
    a.locator(".policy select").select_option("steer")
    say(a, "to the left")
    expect(a.locator(".steering li")).to_have_text("steer: to the left")
    a.locator(".stop").click()
    expect(a.locator(".notice")).to_contain_text("without using: to the left")
    expect(a.locator(".composer textarea")).to_have_value("to the left")


#
def test_who_else_is_there_is_seen(page: Page, browser: Browser) -> None:
    context = browser.new_context()
    other = context.new_page()
    other.goto(page.url)
    a = panel(page, "a")
    expect(a.locator(".present li")).to_have_count(2)
    panel(other, "a").locator(".composer textarea").fill("well")
    expect(a.locator(".present li[data-typing=true]")).to_have_count(1)
    other.goto("about:blank")
    expect(a.locator(".present li")).to_have_count(1)
    context.close()


def test_the_event_stream_carries_it_too(page: Page) -> None:
    a = panel(page, "a")
    say(a, words("w", 40))
    expect(body(answers(a, "open"))).to_contain_text("w3")
    a.locator(".menu summary").click()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    a.get_by_role("button", name="Over event stream instead").click()
    expect(body(answers(a, "complete"))).to_have_text(words("w", 40), timeout=PATIENCE)
    expect(answers(a)).to_have_count(1)
    assert any("/events" in url for url in asked)


def test_where_no_websocket_gets_through_the_event_stream_does(browser: Browser, site: ServerProcess) -> None:
    context = browser.new_context(viewport={"width": 1360, "height": 860})
    context.set_default_timeout(PATIENCE)
    context.route_web_socket("**/v1/ws", lambda socket: socket.close())
    page = context.new_page()
    page.goto(site.url)
    a = panel(page, "a")
    say(a, "all the same", "fast")
    live(a)
    expect(body(answers(a, "complete"))).to_have_text("all the same")
    context.close()


# Around what has the focus, or around the field's frame, is a ring.
FOCUS_SEEN = """() => {
  const ring = getComputedStyle(document.activeElement).outlineStyle;
  const frame = document.activeElement.closest(".composer");
  const glow = frame ? getComputedStyle(frame).boxShadow : "none";
  return document.activeElement === document.body || ring !== "none" || glow !== "none";
}"""


def test_the_page_is_used_by_keyboard_alone(page: Page) -> None:
    a, b = panel(page, "a"), panel(page, "b")
    expect(a.locator(".composer textarea")).to_be_focused()
    page.keyboard.type("two")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("lines")
    page.keyboard.press("Enter")
    expect(body(users(a))).to_have_text(re.compile(r"two\s+lines"))
    expect(page.locator("#announce")).to_contain_text("Answer: two")
    first = answers(a, "complete").get_attribute("data-id")
    page.keyboard.press("Alt+r")
    expect(a.locator(f"[data-id='{first}']")).to_have_count(0)
    page.keyboard.press("Alt+2")
    expect(b.locator(".composer textarea")).to_be_focused()
    opened = b.locator(".inspector").get_attribute("open")
    page.keyboard.press("Alt+i")
    assert (b.locator(".inspector").get_attribute("open") is None) != (opened is None)
    before = session_ids(page)["b"]
    page.keyboard.press("Alt+n")
    page.wait_for_url(re.compile(f"^(?!.*{before})"))
    b.locator(".transcript").focus()
    page.keyboard.press("?")
    expect(page.locator("#shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#shortcuts")).to_be_hidden()
    for _ in range(20):
        page.keyboard.press("Tab")
        assert page.evaluate(FOCUS_SEEN), page.evaluate("document.activeElement.outerHTML")


def test_everything_that_can_be_pressed_has_a_name(page: Page) -> None:
    a = panel(page, "a")
    say(a, "**x**\n\n```py\ny\n```", "fast")
    expect(answers(a, "complete")).to_have_count(1)
    nameless = page.evaluate("""() => [...document.querySelectorAll("button, input, select, textarea, summary, a")]
        .filter((each) => !(each.getAttribute("aria-label") || each.textContent.trim() || each.labels?.length))
        .filter((each) => !each.closest("[hidden]")).map((each) => each.outerHTML)""")
    assert nameless == []


@pytest.fixture
def narrow(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


# Whether what is chosen fits beside the arrow.
READABLE = """(select) => {
  const canvas = document.createElement("canvas").getContext("2d");
  const style = getComputedStyle(select);
  canvas.font = style.font;
  const room = select.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight) - 16;
  return canvas.measureText(select.selectedOptions[0].text).width <= room;
}"""


def test_a_narrow_screen_shows_one_pane_and_the_list_on_demand(narrow: BrowserContext, site: ServerProcess) -> None:
    for key in "ab":
        httpx.put(f"{site.url}/v1/sessions/narrow-{key}").raise_for_status()
    page = narrow.new_page()
    page.goto(f"{site.url}/#a=narrow-a&b=narrow-b")
    a, b = panel(page, "a"), panel(page, "b")
    live(a)
    expect(b).to_be_hidden()
    say(
        a,
        "| "
        + " | ".join(words("column", 12).split())
        + " |\n"
        + "|-" * 12
        + "|\n\n```\n"
        + "x" * 300
        + "\n```\n"
        + "y" * 300,
        "fast",
    )
    expect(answers(a, "complete")).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert a.evaluate("pane => pane.scrollWidth <= pane.clientWidth")
    assert a.locator(".transcript").evaluate("element => element.scrollWidth <= element.clientWidth")
    assert a.locator(".policy select").evaluate(READABLE)
    page.locator(".tabs").get_by_role("button", name="B").click()
    expect(a).to_be_hidden()
    live(b)
    page.get_by_role("button", name="Conversations").click()
    expect(page.get_by_role("button", name="New conversation", exact=True)).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator(".conversations .filter")).to_be_hidden()
    expect(page.get_by_role("button", name="Conversations")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".conversations .filter")).to_be_visible()
    page.locator(".conversations .open").last.click()
    expect(page.locator(".conversations .filter")).to_be_hidden()


@pytest.fixture
def guarded(start_server: Start, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that asks for tokens, below a path of a larger site."""
    key = tmp_path / "key"
    key.write_bytes(SECRET)
    running = start_server("--jwt-key", str(key), "--root-path", "/chat")
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log.read_text()


def test_a_token_is_asked_for_and_kept_for_the_tab_only(guarded: ServerProcess, browser: Browser) -> None:
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": 1360, "height": 860})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{guarded.url.removesuffix('/chat')}/chat/")
    made = token(("ann-*",), ("read", "write"))
    dialog, a = page.locator("dialog[open]"), panel(page, "a")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_have_count(0)  # who does not want to is not asked again
    a.get_by_role("button", name="Give a token").click()
    dialog.locator("input[name=token]").fill(made)
    dialog.get_by_role("button", name="Use it").click()
    expect(dialog).to_have_count(0)
    say(a, "with leave", "fast")
    live(a)
    assert session_ids(page)["a"].startswith("ann-")
    expect(body(answers(a, "complete"))).to_have_text("with leave")
    expect(a.locator(".present li")).to_have_attribute("data-actor", "ann")
    page.reload()
    live(a)
    expect(body(answers(a, "complete"))).to_have_text("with leave")
    kept = page.evaluate(
        "[JSON.stringify({...localStorage}), {...sessionStorage}['penstock.token'], document.cookie, location.href]"
    )
    assert kept[1] == made
    assert not any("eyJ" in kept[place] for place in (0, 2, 3))
    context.close()
    assert [complaint for complaint in complaints if "401" not in complaint] == []


def test_who_gives_a_token_when_asked_may_begin_a_conversation(guarded: ServerProcess, browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 1360, "height": 860})
    page.set_default_timeout(PATIENCE)
    page.goto(f"{guarded.url.removesuffix('/chat')}/chat/")
    dialog, a = page.locator("dialog[open]"), panel(page, "a")
    dialog.wait_for()
    a.locator(".field").evaluate("(field) => { field.value = 'written before'; }")
    dialog.locator("input[name=token]").fill(token(("ann-*",), ("read", "write")))
    dialog.get_by_role("button", name="Use it").click()
    expect(dialog).to_have_count(0)
    expect(a.locator(".field")).to_have_value("written before")
    expect(page).to_have_url(re.compile(r"[#&]a=ann-"))
    a.locator(".field").press("Enter")
    expect(body(answers(a, "complete"))).to_have_text("written before")
    page.close()
