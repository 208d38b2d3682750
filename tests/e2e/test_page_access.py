"""The page for everybody: by keyboard alone, in light and dark, from left and from right, on a phone and on a desk."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx
import pytest

from tests.e2e.conftest import ServerProcess
from tests.e2e.node import AXE, install
from tests.e2e.panels import PATIENCE, inspect, live, panel

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Browser, Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.long]

WIDTHS: Final = {"wide": 1360, "narrow": 390}

# Everything that a message can be made of, and what can stand around it.
FORMED: Final = (
    "# A *title*\n\nText with `code`, **strong** and [a link](https://example.org/).\n\n- one\n- two\n\n> quoted\n\n"
    "| a | b |\n|-|-:|\n| 1 | 2 |\n\n```py\n# water\nturn('wheel', 12)\n```"
)
PARTS: Final = (
    {"type": "block.opened", "kind": "reasoning"},
    {"data": {"text": "Nearly closed."}},
    {"type": "block.closed"},
    {"type": "block.opened", "block_index": 1, "kind": "tool_call", "data": {"tool_call_id": "c", "name": "move_gate"}},
    {"type": "block.closed", "block_index": 1, "data": {"arguments": {"gate": "penstock"}}},
    {
        "type": "approval.requested",
        "data": {"tool_call_id": "c", "approval_id": "a", "name": "move_gate", "arguments": {}},
    },
)


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    return (install(tmp_path_factory.mktemp("axe"), AXE) / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


def furnish(site: ServerProcess) -> str:
    """A conversation with all there is: formed text, an answer that failed, a thought, a call that asks, a queue."""
    session_id, generation = str(uuid4()), str(uuid4())
    session = f"{site.url}/v1/sessions/{session_id}"
    httpx.put(session, json={"metadata": {"title": "Gates and water"}}).raise_for_status()
    httpx.post(f"{session}/messages", json={"text": FORMED}).raise_for_status()
    httpx.post(f"{session}/messages", json={"role": "assistant", "text": FORMED}).raise_for_status()
    httpx.post(f"{session}/generations", json={"text": "fail", "input": "none"}).raise_for_status()
    httpx.post(f"{session}/generations", json={"producer": "remote", "generation_id": generation, "text": "close it"})
    chunks = [{"generation_id": generation, **part} for part in PARTS]
    httpx.post(f"{session}/chunks/batch", json={"chunks": chunks}).raise_for_status()
    httpx.post(f"{session}/generations", json={"text": "and then?", "policy": "queue"}).raise_for_status()
    return session_id


@pytest.fixture(params=product(WIDTHS, ("light", "dark"), ("ltr", "rtl")), ids="-".join)
def shown(
    browser: Browser, site: ServerProcess, request: pytest.FixtureRequest, complaints: list[str]
) -> Iterator[tuple[Page, str]]:
    """A conversation with all that there is, and how it is shown."""
    width, scheme, side = request.param
    context = browser.new_context(viewport={"width": WIDTHS[width], "height": 860}, color_scheme=scheme)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{site.url}/#a={furnish(site)}")
    page.evaluate("(side) => { document.documentElement.dir = side; }", side)
    live(panel(page, "a"))
    panel(page, "a").locator(".approval").wait_for()
    yield page, "-".join(request.param)
    context.close()
    assert complaints == []


def violations(page: Page, axe: str) -> list[str]:
    """What axe-core says, of each rule the first place. It comes by the debugger: the page runs no foreign text."""
    page.evaluate(axe)
    found: dict[str, Any] = page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{each['id']}: {each['nodes'][0]['html'][:200]} {each['nodes'][0]['failureSummary']}"
        for each in found["violations"]
    ]


# What is wider than what it stands in, or than the page.
TOO_WIDE: Final = """() => [...document.querySelectorAll("body *")].filter((each) => {
  const box = each.getBoundingClientRect();
  const beyond = box.left < -1 || box.right > innerWidth + 1;
  return each.checkVisibility() && box.width > 0 && beyond && !each.closest(".unseen, pre, .table, .log, .sprite");
}).map((each) => each.outerHTML.slice(0, 120))"""


def test_nothing_is_in_the_way_of_anybody(shown: tuple[Page, str], axe: str, tmp_path: Path) -> None:
    page, how = shown
    a = panel(page, "a")
    assert violations(page, axe) == []
    assert page.evaluate(TOO_WIDE) == []
    page.screenshot(path=tmp_path / f"page-{how}.png")
    for fold in a.locator(".fold summary").all():
        fold.click()
    inspect(a)
    a.get_by_role("button", name="Input for who answers").click()
    expect(a.locator(".given")).to_be_visible()
    assert violations(page, axe) == []
    assert page.evaluate(TOO_WIDE) == []
    page.screenshot(path=tmp_path / f"page-given-{how}.png")
    page.keyboard.press("Escape")
    expect(a.locator("tbody tr:not(.space)").first).to_be_visible()
    page.get_by_role("button", name="Conversations").click()
    assert violations(page, axe) == []
    assert page.evaluate(TOO_WIDE) == []
    page.screenshot(path=tmp_path / f"page-open-{how}.png")
    if how.startswith("narrow"):
        page.keyboard.press("Escape")
    a.locator(".menu summary").click()
    assert violations(page, axe) == []
    assert page.evaluate(TOO_WIDE) == []
    a.get_by_role("button", name="Rename…").click()
    assert violations(page, axe) == []
    page.keyboard.press("Escape")


def test_a_new_conversation_is_in_nobodys_way(browser: Browser, site: ServerProcess, axe: str) -> None:
    page = browser.new_page()
    page.goto(site.url)
    expect(panel(page, "a").locator(".field")).to_be_focused()
    assert violations(page, axe) == []
    page.get_by_role("button", name="Keyboard shortcuts").click()
    assert violations(page, axe) == []
    page.close()


def test_what_is_in_the_way_is_seen(browser: Browser, site: ServerProcess, axe: str) -> None:
    page = browser.new_page()
    page.goto(site.url)
    page.evaluate("() => { const all = document.querySelector('.begin'); all.replaceChildren(); all.title = ''; }")
    assert [each.partition(":")[0] for each in violations(page, axe)] == ["button-name"]
    page.close()
