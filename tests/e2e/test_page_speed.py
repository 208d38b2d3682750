"""The page while 600 pieces a second come: a click is heard, and what nobody looks at costs nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.e2e.conftest import ServerProcess
from tests.e2e.panels import PATIENCE, answers, body, inspect, live, offsets, panel, say

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Browser, Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.long]

FLOOD = ("--producer", "flood=tests.e2e.page_producers:flood", "--default-producer", "flood")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """As the others', with a producer that pours."""
    running = ServerProcess(tmp_path_factory.mktemp("flood"), *FLOOD)
    yield running
    assert running.stop() == 0, running.log.read_text()
    assert "Traceback" not in running.log.read_text()


@pytest.fixture
def page(browser: Browser, site: ServerProcess) -> Iterator[Page]:
    """One conversation, live."""
    session_id = str(uuid4())
    httpx.put(f"{site.url}/v1/sessions/{session_id}").raise_for_status()
    context = browser.new_context(viewport={"width": 1360, "height": 860})
    context.set_default_timeout(PATIENCE)
    opened = context.new_page()
    opened.goto(f"{site.url}/#a={session_id}")
    live(panel(opened, "a"))
    yield opened
    context.close()


# How many frames are drawn, and how long it takes, from a click on Stop until its request leaves. The click is a real
# one: its time is that at which the browser had it, before anything of the page could run.
WATCH = """() => {
  let frames = 0;
  const count = () => { frames += 1; requestAnimationFrame(count); };
  requestAnimationFrame(count);
  window.stops = [];
  let click = null;
  const clicked = (event) => { click = { at: event.timeStamp, frames }; };
  document.querySelector(".stop").addEventListener("click", clicked, true);
  const real = window.fetch;
  window.fetch = (url, options) => {
    if (String(url).endsWith("/stop")) window.stops.push([frames - click.frames, performance.now() - click.at]);
    return real(url, options);
  };
}"""


def test_a_stop_leaves_before_the_next_frames(page: Page) -> None:
    a = panel(page, "a")
    page.evaluate(WATCH)
    for attempt in range(3):
        say(a, f"pour {attempt}")
        expect(body(answers(a, "open"))).to_contain_text("word1500 ", timeout=3 * PATIENCE)
        box = a.locator(".stop").bounding_box()
        assert box is not None
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        expect(answers(a, "cancelled")).to_have_count(attempt + 1)
    stops: list[tuple[int, float]] = page.evaluate("() => window.stops")
    assert len(stops) == 3
    assert max(frames for frames, _ in stops) <= 1
    assert min(milliseconds for _, milliseconds in stops) < 100


# What changes in the inspector, and beside it in the messages.
CHANGES = """() => {
  window.changes = { inspector: 0, transcript: 0 };
  for (const name of Object.keys(window.changes)) {
    const all = { childList: true, subtree: true, characterData: true, attributes: true };
    const count = (records) => { window.changes[name] += records.length; };
    new MutationObserver(count).observe(document.querySelector(`.${name}`), all);
  }
}"""


def test_a_closed_inspector_costs_nothing_and_an_open_one_has_few_rows(page: Page) -> None:
    a = panel(page, "a")
    page.evaluate(CHANGES)
    say(a, "pour")
    expect(body(answers(a, "open"))).to_contain_text("word1200 ", timeout=3 * PATIENCE)
    changes: dict[str, Any] = page.evaluate("() => window.changes")
    assert changes["transcript"] > 20
    assert changes["inspector"] == 0
    inspect(a)
    expect(body(answers(a, "open"))).to_contain_text("word2400 ", timeout=3 * PATIENCE)
    assert 10 < a.locator("tbody tr").count() < 80
    a.locator(".stop").click()
    expect(answers(a, "cancelled")).to_have_count(1)
    seen = offsets(a)
    assert len(seen) > 2000
    assert seen == list(range(1, len(seen) + 1))


def test_the_events_of_a_conversation_that_is_opened_again_are_fetched(page: Page) -> None:
    a = panel(page, "a")
    say(a, "pour")
    expect(body(answers(a, "open"))).to_contain_text("word900 ", timeout=3 * PATIENCE)
    a.locator(".stop").click()
    expect(answers(a, "cancelled")).to_have_count(1)
    page.reload()
    live(a)
    inspect(a)
    rows = a.locator("tbody tr:not(.space)")
    expect(rows.last.locator("td").nth(1)).to_have_text("generation.finished")
    seen = offsets(a)
    assert len(seen) > 900
    assert seen == list(range(1, len(seen) + 1))
    a.locator(".log").evaluate("(log) => { log.scrollTop = 0; }")
    rows.get_by_text("session.created", exact=True).click()
    expect(a.locator(".whole")).to_contain_text('"type": "session.created"')
    a.get_by_label("pieces").uncheck()
    expect(rows.locator("td:nth-child(2)", has_text="block.delta")).to_have_count(0)
    expect(rows.locator("td:nth-child(2)", has_text="generation.finished")).to_have_count(1)
