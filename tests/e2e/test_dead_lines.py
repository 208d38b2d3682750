"""Lines that die without a word: how long until penstock.js and the page have another, and what is sent meanwhile."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.e2e.black_hole import BlackHole
from tests.e2e.panels import PATIENCE, answers, body, live, panel, say
from tests.e2e.stream_proxy import in_thread
from tests.e2e.streams import call
from tests.e2e.test_following import OVER, port_of

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Page, expect

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.e2e.conftest import ServerProcess

pytestmark = pytest.mark.browser

# What was promised: another line within ten seconds, whoever finds out that the first is dead.
SOON = 10.0

FOLLOW = """async ([id, over]) => {
  const { Session } = await import("/penstock.js");
  window.followed = new Session(id, { url: location.origin, over });
  await followed.create();
  followed.follow();
}"""

LIVE = """(attempts) => {
  const { connection } = followed.getSnapshot();
  return connection.state === "live" && connection.attempts >= attempts;
}"""


FOLLOW_LIST = """async (over) => {
  const { Client } = await import("/penstock.js");
  window.list = new Client({ url: location.origin }).list({ over });
  list.follow();
}"""


@pytest.fixture
def hole(site: ServerProcess) -> Iterator[BlackHole]:
    with in_thread(BlackHole(port_of(site.url)).running) as proxy:
        yield proxy


@pytest.fixture
def far(browser: Browser, hole: BlackHole) -> Iterator[Page]:
    """A page behind the proxy, with connections in the browser's pool that its files came by."""
    context = browser.new_context()
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(f"{hole.url}/docs")
    yield page
    context.close()


def cases(*events: str | None) -> pytest.MarkDecorator:
    """Each event over each transport; but for one of each transport with --long only."""
    shown = {("websocket", "online"), ("sse", None)}
    return pytest.mark.parametrize(
        ("over", "event"),
        [
            pytest.param(*case, marks=[pytest.mark.long] * (case not in shown))
            for case in product(("sse", "websocket"), events)
        ],
    )


def said(site: ServerProcess, session_id: str) -> list[str]:
    """What users said, as the server has it."""
    snapshot = call(site.url, "GET", f"/v1/sessions/{session_id}")
    return [message["blocks"][0]["text"] for message in snapshot["messages"] if message["role"] == "user"]


#
@cases("online", "pageshow", "visibilitychange", None)
def test_a_line_that_dies_without_a_word_is_replaced_within_ten_seconds(
    far: Page, hole: BlackHole, over: str, event: str | None
) -> None:
    far.evaluate(FOLLOW, [str(uuid4()), over])
    far.wait_for_function(LIVE, arg=1)
    hole.freeze()
    begun = time.monotonic()
    if event is not None:
        far.evaluate("(name) => document.dispatchEvent(new Event(name, { bubbles: true }))", event)
    far.wait_for_function(LIVE, arg=2)
    assert time.monotonic() - begun < SOON


#
@pytest.mark.long
@cases("online", None)
def test_a_list_whose_line_died_has_what_came_meanwhile(
    far: Page, hole: BlackHole, site: ServerProcess, over: str, event: str | None
) -> None:
    far.evaluate(FOLLOW_LIST, over)
    far.wait_for_function("() => list.getSnapshot().connection.state === 'live'")
    hole.freeze()
    begun = time.monotonic()
    session_id = str(uuid4())
    call(site.url, "PUT", f"/v1/sessions/{session_id}", {})
    if event is not None:
        far.evaluate("(name) => dispatchEvent(new Event(name))", event)
    far.wait_for_function("(id) => list.getSnapshot().sessions.some((each) => each.session_id === id)", arg=session_id)
    assert time.monotonic() - begun < SOON


@pytest.mark.long
@OVER
def test_a_line_that_is_well_outlives_that_the_page_is_looked_at(far: Page, over: str) -> None:
    far.evaluate(FOLLOW, [str(uuid4()), over])
    far.wait_for_function(LIVE, arg=1)
    for _ in range(5):
        far.evaluate("""() => {
          for (const name of ["online", "pageshow"]) dispatchEvent(new Event(name));
          document.dispatchEvent(new Event("visibilitychange"));
        }""")
        far.wait_for_timeout(1_000)
    assert far.evaluate("() => followed.getSnapshot().connection.attempts") == 1


def comes_to(page: Page, site: ServerProcess, session_id: str, devices: int) -> None:
    """So many devices are in the session, soon."""
    deadline = time.monotonic() + SOON
    while len(call(site.url, "GET", f"/v1/sessions/{session_id}/presence")["presence"]) != devices:
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)


def test_a_page_that_the_browser_kept_goes_on_and_is_seen_again(browser: Browser, site: ServerProcess) -> None:
    """Over the event stream: chromium keeps no page that holds a WebSocket."""
    kept = "--disable-back-forward-cache"  # which playwright asks for
    other = browser.browser_type.launch(
        executable_path=shutil.which("chromium"), args=["--no-sandbox"], ignore_default_args=[kept]
    )
    session_id = str(uuid4())
    call(site.url, "PUT", f"/v1/sessions/{session_id}", {})
    page = other.new_page()
    page.goto(f"{site.url}/icon.svg")
    page.evaluate("() => localStorage.setItem('penstock.over', 'sse')")
    page.goto(f"{site.url}/#a={session_id}")
    a = panel(page, "a")
    live(a)
    comes_to(page, site, session_id, 1)
    page.evaluate("() => addEventListener('pageshow', ({ persisted }) => { window.kept = persisted; })")
    page.goto(f"{site.url}/docs")
    comes_to(page, site, session_id, 0)
    call(site.url, "POST", f"/v1/sessions/{session_id}/messages", {"text": "said meanwhile"})
    page.evaluate("() => void setTimeout(() => history.back())")  # `go_back` waits for a page that is loaded
    expect(body(a.locator(".message"))).to_have_text("said meanwhile")
    assert page.evaluate("() => window.kept") is True
    comes_to(page, site, session_id, 1)
    other.close()


#
@pytest.mark.long
def test_a_start_whose_answer_is_swallowed_is_carried_out_once(far: Page, hole: BlackHole, site: ServerProcess) -> None:
    session_id = str(uuid4())
    far.evaluate(FOLLOW, [session_id, "websocket"])
    far.wait_for_function(LIVE, arg=1)
    hole.deafen()
    far.evaluate("() => void (window.starting = followed.start({ text: 'once' }))")
    time.sleep(3)
    assert said(site, session_id) == ["once"]
    hole.heal()
    begun = time.monotonic()
    started = far.evaluate("() => starting")
    assert started["turn"] == 1
    assert time.monotonic() - begun < SOON
    assert said(site, session_id) == ["once"]


#
@pytest.mark.long
def test_the_page_does_not_take_for_not_sent_what_was(browser: Browser, hole: BlackHole, site: ServerProcess) -> None:
    session_id = str(uuid4())
    context = browser.new_context()
    page = context.new_page()
    page.request.put(f"{site.url}/v1/sessions/{session_id}")
    page.goto(f"{hole.url}/#a={session_id}")
    a = panel(page, "a")
    live(a)
    page.evaluate("""() => {
      window.notices = [];
      const notice = document.querySelector("[data-panel=a] .notice");
      new MutationObserver(() => notices.push(notice.textContent)).observe(notice, { childList: true, subtree: true });
    }""")
    hole.deafen()
    say(a, "do it once")
    page.wait_for_timeout(3_000)
    hole.heal()
    expect(body(answers(a, "complete"))).to_have_text("do it once", timeout=PATIENCE)
    expect(a.locator(".message[data-role=user]")).to_have_count(1)
    page.wait_for_timeout(6_000)  # as long as another attempt would take
    expect(a.locator(".composer textarea")).to_have_value("")
    assert said(site, session_id) == ["do it once"]
    assert not any("Not sent" in text for text in page.evaluate("() => notices"))
    context.close()
