"""The playground when things go wrong: three tabs, a network that goes away, a server that is killed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypedDict
from uuid import uuid4

import pytest

from tests.e2e.conftest import ServerProcess
from tests.e2e.panels import PATIENCE, answers, body, give, live, panel, say, words
from tests.engine.stores import free_port

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

pytestmark = pytest.mark.browser

# What a browser says by itself when a server or the network is away. Nobody can keep it from that.
AWAY = re.compile("Failed to load resource: net::ERR_|WebSocket connection to .* failed|ERR_INTERNET_DISCONNECTED")

Start = Callable[..., ServerProcess]


class Tabs(TypedDict):
    one: Page
    two: Page
    other: Page


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def running(start_server: Start, port: int) -> ServerProcess:
    return start_server("--port", str(port))


@pytest.fixture
def tabs(browser: Browser, running: ServerProcess) -> Iterator[Tabs]:
    """Two tabs on one conversation, each with a network of its own, and one on another; silent to the end."""
    complaints: list[str] = []
    contexts: list[BrowserContext] = []

    def tab(context: BrowserContext, session: str) -> Page:
        page = context.new_page()
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.request.put(f"{running.url}/v1/sessions/{session}")
        page.goto(f"{running.url}/#a={session}")
        live(panel(page, "a"))
        return page

    for _ in range(2):
        contexts.append(browser.new_context(viewport={"width": 1000, "height": 800}))
        contexts[-1].set_default_timeout(PATIENCE)
    yield {"one": tab(contexts[0], "shared"), "two": tab(contexts[1], "shared"), "other": tab(contexts[0], "other")}
    for context in contexts:
        context.close()
    assert [complaint for complaint in complaints if not AWAY.search(complaint)] == []


SHOWN = """(pane) => [...pane.querySelectorAll(".message:not([hidden])")].map((message) => {
  const { id, role, status } = message.dataset;
  return [id, role, status, message.querySelector(".body").textContent.trim()];
})"""


def shown(page: Page) -> list[list[str]]:
    found: list[list[str]] = panel(page, "a").evaluate(SHOWN)
    return found


def stored(page: Page, url: str, session: str) -> list[list[str]]:
    snapshot = page.request.get(f"{url}/v1/sessions/{session}").json()
    return [
        [
            message["message_id"],
            message["role"],
            message["status"],
            "".join(block.get("text", "") for block in message["blocks"]).strip(),
        ]
        for message in snapshot["messages"]
    ]


def the_same(tabs: Tabs, url: str) -> None:
    """Each tab shows what the server has, each message once, and nothing else."""
    for page, session in ((tabs["one"], "shared"), (tabs["two"], "shared"), (tabs["other"], "other")):
        live(panel(page, "a"))
        expect(panel(page, "a").locator(".message[data-status=open]")).to_have_count(0, timeout=PATIENCE)
        page.wait_for_function(
            "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"
        )
        told = shown(page)
        assert told == stored(page, url, session)
        assert len({message[0] for message in told}) == len(told)
        expect(panel(page, "a").locator(".counts")).not_to_contain_text(re.compile("foreign|gaps"))


def begun(conversation: Locator, word: str) -> None:
    expect(body(answers(conversation).last)).to_contain_text(word, timeout=PATIENCE)


#
def test_three_tabs_type_stop_and_supersede(tabs: Tabs, running: ServerProcess) -> None:
    one, two, other = (panel(tabs[name], "a") for name in ("one", "two", "other"))
    say(other, words("other", 60))
    say(one, words("first", 25))
    begun(two, "first3")
    begun(one, "first24")
    say(two, words("second", 200))  # a text that is longer is folded
    begun(one, "second3")
    one.locator(".stop").click()
    expect(answers(two, "cancelled")).to_have_count(1)
    expect(answers(two, "cancelled").locator(".foot")).to_contain_text("stopped")
    say(one, words("old", 300))
    say(one, "new and final")
    expect(body(answers(two, "complete").last)).to_have_text("new and final", timeout=PATIENCE)
    expect(body(answers(other, "complete"))).to_have_text(words("other", 60), timeout=PATIENCE)
    the_same(tabs, running.url)
    assert [message[3] for message in shown(tabs["one"]) if message[1] == "user"][-1] == "new and final"


#
def test_what_is_sent_in_a_row_goes_out_in_its_order_and_nothing_is_lost(tabs: Tabs, running: ServerProcess) -> None:
    one, two = panel(tabs["one"], "a"), panel(tabs["two"], "a")
    one.locator(".policy select").select_option("queue")
    one.locator(".composer").evaluate("""(form) => {
      for (const text of ["one", "two", "three"]) {
        form.querySelector(".field").value = text;
        form.requestSubmit();
      }
    }""")
    expect(answers(two, "complete")).to_have_count(3, timeout=PATIENCE)
    assert [message[3] for message in shown(tabs["two"])] == ["one", "one", "two", "two", "three", "three"]
    the_same(tabs, running.url)


#
def test_a_stop_reaches_what_waits_to_be_sent(tabs: Tabs, running: ServerProcess) -> None:
    one = panel(tabs["one"], "a")
    tabs["one"].context.set_offline(True)
    say(one, "not yet")
    say(one, "nor this")
    one.locator(".stop").click()
    tabs["one"].context.set_offline(False)
    expect(one.locator(".composer textarea")).to_have_value("not yet\nnor this", timeout=PATIENCE)
    live(one)
    the_same(tabs, running.url)
    assert not any(message[1] == "user" and message[2] == "open" for message in shown(tabs["one"]))
    assert shown(tabs["two"]) == []


#
@pytest.mark.long
def test_a_tab_is_reloaded_in_mid_answer(tabs: Tabs, running: ServerProcess) -> None:
    one, two = panel(tabs["one"], "a"), panel(tabs["two"], "a")
    say(one, words("w", 60))
    begun(two, "w5")
    tabs["two"].reload()
    live(two)
    begun(two, "w7")
    expect(body(answers(two, "complete"))).to_have_text(words("w", 60), timeout=PATIENCE)
    expect(body(answers(one, "complete"))).to_have_text(words("w", 60), timeout=PATIENCE)
    the_same(tabs, running.url)


#
@pytest.mark.long
def test_a_tab_goes_offline_and_comes_back(tabs: Tabs, running: ServerProcess) -> None:
    one, two = panel(tabs["one"], "a"), panel(tabs["two"], "a")
    say(one, words("w", 60))
    begun(two, "w3")
    tabs["two"].context.set_offline(True)
    two.locator(".pill[data-state=waiting]").wait_for()
    expect(two.locator(".notice")).to_contain_text("resumes behind event")
    begun(one, "w20")
    assert "w20" not in (body(answers(two).last).text_content() or "")
    tabs["two"].context.set_offline(False)
    live(two)
    expect(two.locator(".notice")).to_contain_text("none is missing")
    expect(body(answers(two, "complete"))).to_have_text(words("w", 60), timeout=PATIENCE)
    expect(body(answers(one, "complete"))).to_have_text(words("w", 60), timeout=PATIENCE)
    the_same(tabs, running.url)


#
@pytest.mark.long
def test_the_server_is_killed_and_comes_back(
    tabs: Tabs, running: ServerProcess, start_server: Start, port: int
) -> None:
    one, two = panel(tabs["one"], "a"), panel(tabs["two"], "a")
    say(one, "kept from before", "fast")
    expect(answers(two, "complete")).to_have_count(1)
    say(one, words("w", 400))
    for conversation in (one, two):
        begun(conversation, "w12")  # a tab in the background may be behind
    running.kill()
    for conversation in (one, two):
        conversation.locator(".pill[data-state=waiting]").wait_for()
    seen = [body(answers(conversation).last).text_content() or "" for conversation in (one, two)]
    say(one, "sent while it was away")
    again = start_server("--port", str(port))
    # Each tab comes back after a pause of its own, up to ten seconds; chromium holds back sockets that were refused.
    expect(body(answers(two, "complete").last)).to_have_text("sent while it was away", timeout=3 * PATIENCE)
    the_same(tabs, again.url)
    lost = answers(two, "failed")
    expect(lost).to_have_count(1)
    expect(lost.locator(".foot")).to_contain_text(re.compile("lost"))
    kept = body(lost).text_content() or ""
    assert words("w", 400).startswith(kept.strip())
    assert all(kept.startswith(text.strip()) for text in seen)  # what was seen is never taken back
    say(two, "and on")
    expect(body(answers(one, "complete").last)).to_have_text("and on", timeout=PATIENCE)
    the_same(tabs, again.url)
    for page in (tabs["one"], tabs["two"], tabs["other"]):
        page.goto("about:blank")
    assert again.stop() == 0
    assert "Traceback" not in again.log.read_text()


# The page is told that nobody looks at it, or that somebody does.
LOOK = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


@pytest.mark.long
def test_more_tabs_than_event_streams_where_no_websocket_gets_through(browser: Browser, running: ServerProcess) -> None:
    """Each tab has two of a browser's six. One that nobody looks at lets go of them, once its answer has ended."""
    context = browser.new_context()
    context.set_default_timeout(PATIENCE)
    context.route_web_socket("**/v1/ws", lambda socket: socket.close())
    context.request.put(f"{running.url}/v1/sessions/streamed")
    pages = [context.new_page() for _ in range(4)]
    for number, page in enumerate(pages):
        page.goto(f"{running.url}/#a=streamed")
        live(panel(page, "a"))
        if number == 0:
            give(panel(page, "a"), '{"delay": 0.2}')
            say(panel(page, "a"), words("w", 30))
        page.evaluate(LOOK, True)
    expect(body(answers(panel(pages[0], "a"), "complete"))).to_have_text(words("w", 30))
    say(panel(pages[-1], "a"), "heard by all", "fast")
    for page in pages:
        page.evaluate(LOOK, False)
        live(panel(page, "a"))
        expect(body(answers(panel(page, "a"), "complete").last)).to_have_text("heard by all")
        expect(page.locator(".conversations li .name")).to_have_count(1)
        page.evaluate(LOOK, True)
    context.close()


@pytest.mark.long
def test_more_tabs_than_a_browser_has_connections_for(browser: Browser, running: ServerProcess) -> None:
    """To one server a browser opens six connections for requests; streams that stay open would use them up."""
    context = browser.new_context()
    context.set_default_timeout(PATIENCE)
    context.request.put(f"{running.url}/v1/sessions/shared")
    pages = [context.new_page() for _ in range(9)]
    for page in pages:
        page.goto(f"{running.url}/#a=shared")
        live(panel(page, "a"))
    say(panel(pages[-1], "a"), "heard by all", "fast")
    for page in pages:
        expect(body(answers(panel(page, "a"), "complete"))).to_have_text("heard by all")
    context.close()


# What a page holds on to: the window's listeners, and timers that go on.
HELD = """
  window.held = new Set();
  const { addEventListener, setInterval, clearInterval } = window;
  window.addEventListener = (type, listener, options) => {
    held.add(listener);
    options?.signal?.addEventListener("abort", () => held.delete(listener));
    addEventListener.call(window, type, listener, options);
  };
  window.setInterval = (...asked) => {
    const id = setInterval(...asked);
    held.add(id);
    return id;
  };
  window.clearInterval = (id) => {
    held.delete(id);
    clearInterval(id);
  };
"""


def test_a_pane_that_is_closed_leaves_nothing_behind(browser: Browser, running: ServerProcess) -> None:
    context = browser.new_context(viewport={"width": 1000, "height": 800})
    context.set_default_timeout(PATIENCE)
    context.add_init_script(HELD)
    page = context.new_page()
    for session in ("stays", "asks"):
        page.request.put(f"{running.url}/v1/sessions/{session}")
    asked = {"approval_id": "p", "name": "delete", "expires_at": "2126-01-01T00:00:00.000Z"}
    chunk = {"generation_id": str(uuid4()), "type": "approval.requested", "data": asked}
    assert page.request.post(f"{running.url}/v1/sessions/asks/chunks", data=chunk).ok
    page.goto(f"{running.url}/#a=stays")
    live(panel(page, "a"))
    held: list[int] = []
    for _ in range(4):
        page.evaluate("location.hash = '#a=stays&b=asks'")
        pane = panel(page, "b")
        live(pane)
        pane.locator(".approval").wait_for()
        pane.locator(".drop").evaluate("(button) => button.click()")
        pane.locator(".pill[data-state=waiting]").wait_for()
        page.evaluate("location.hash = '#a=stays'")
        expect(page.locator(".panel")).to_have_count(1)
        held.append(page.evaluate("held.size"))
    page.wait_for_function("(most) => held.size <= most", arg=held[0] + 2)  # a connection has some for its time
    context.close()
