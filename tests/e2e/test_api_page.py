"""The API's page in a real browser: it shows what the description says, and nothing else is loaded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.adapters.describing import description
from tests.e2e.conftest import ServerProcess
from tests.e2e.panels import PATIENCE

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.browser


@pytest.fixture(params=[1280, 390], ids=["wide", "narrow"])
def docs(browser: Browser, site: ServerProcess, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page; that the console stays silent and nothing stands out at the side is part of every test."""
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": request.param, "height": 850})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{site.url}/docs#startGeneration")
    yield page
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    context.close()
    assert complaints == []


def test_every_operation_and_schema_is_shown_and_opens(docs: Page) -> None:
    told = description()
    names = {each["operationId"] for item in told["paths"].values() for each in item.values()}
    names |= told["components"]["schemas"].keys()
    items = docs.locator("details.item")
    expect(items).to_have_count(len(names))
    assert {item.get_attribute("id") for item in items.all()} == names
    docs.evaluate("for (const item of document.querySelectorAll('details.item')) item.open = true")
    expect(docs.locator("details.item .inside")).to_have_count(len(names))
    expect(docs.get_by_text("undefined")).to_have_count(0)


def test_an_address_opens_what_it_names_and_search_finds_it(docs: Page) -> None:
    start = docs.locator("#startGeneration")
    expect(start.locator(".inside")).to_contain_text("Idempotency-Key")
    expect(start.locator(".inside")).to_contain_text("IDEMPOTENCY_CONFLICT")
    start.get_by_role("link", name="QueuedAnswer").first.click()
    expect(docs.locator("#QueuedAnswer .inside")).to_contain_text("position")
    docs.get_by_role("searchbox").fill("queue delete")
    expect(docs.locator("#removeFromQueue")).to_be_visible()
    expect(docs.locator("#readEvents")).to_be_hidden()


def test_an_address_that_names_nothing_shows_all(docs: Page, site: ServerProcess) -> None:
    for fragment in ("%", "%2", "%ff", "%E0%A4%A", "<b>", "nothing", ""):
        docs.goto("about:blank")
        docs.goto(f"{site.url}/docs#{fragment}")
        expect(docs.locator("#startGeneration"), fragment).to_be_visible()
        expect(docs.locator(".notice"), fragment).to_have_count(0)
        docs.evaluate("location.hash = 'stopGeneration'")
        expect(docs.locator("#stopGeneration .inside"), fragment).to_be_visible()
