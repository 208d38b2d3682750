"""The API's page in a real browser: it shows what the description says, and how to ask; nothing else is loaded."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from tests.adapters.credentials import SECRET, token
from tests.adapters.describing import description
from tests.e2e.conftest import START, ServerProcess
from tests.e2e.panels import PATIENCE

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Browser, Page, Route, expect

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


def test_it_and_the_playground_lead_to_each_other(docs: Page) -> None:
    docs.get_by_role("link", name="Playground", exact=True).click()
    docs.get_by_role("link", name="The API", exact=True).click()
    expect(docs.locator("#startGeneration")).to_be_visible()


def test_it_has_margins_and_scrolls(docs: Page) -> None:
    docs.evaluate("for (const item of document.querySelectorAll('details.item')) item.open = true")
    width = docs.evaluate("document.documentElement.clientWidth")
    for part in docs.locator(".masthead > *, nav > *, main > section").all():
        if (box := part.bounding_box()) and box["width"]:
            assert box["x"] >= 12, part
            assert box["x"] + box["width"] <= width - 12, part
    docs.mouse.move(width / 2, 400)
    before = docs.evaluate("scrollY")
    docs.mouse.wheel(0, 600)
    docs.wait_for_function("(before) => scrollY > before", arg=before)


# --- curl


def curl_lines(page: Page) -> dict[str, str]:
    """The line of each operation, by its id."""
    page.evaluate("for (const item of document.querySelectorAll('details.item')) item.open = true")
    found: dict[str, str] = page.evaluate("""() => Object.fromEntries(
      [...document.querySelectorAll("details.item .curl code")]
        .map((code) => [code.closest("details.item").id, code.textContent]))""")
    return found


def run(line: str, **variables: str) -> tuple[int, str]:
    """The status and the body that a shell's curl gets; of what does not end, what came in a second."""
    assert line.startswith("curl ")
    more = "curl -sS -m 1 --noproxy '*' -w '\\n%{http_code}' " + line.removeprefix("curl ")
    environment = {"PATH": os.environ["PATH"], "HOME": "/", **variables}
    done = subprocess.run(["sh", "-c", more], capture_output=True, text=True, env=environment, timeout=START)
    assert done.returncode in (0, 28), done.stderr  # 28: it had not ended
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


# In an order in which each has something to do, with what it is answered.
LINES = {
    "createSession": 201,
    "listSessions": 200,
    "listProducers": 200,
    "updateSession": 200,
    "startGeneration": 201,
    "stopGeneration": 200,
    "postMessage": 201,
    "listVersions": 200,
    "restoreVersion": 200,
    "retractMessage": 200,
    "sendFile": 201,
    "readFile": 200,
    "writeChunk": 200,
    "writeChunks": 200,
    "sendInput": 202,
    "removeFromQueue": 200,
    "finishGeneration": 200,
    "readGeneration": 200,
    "continueQueue": 200,
    "readSession": 200,
    "putPresence": 200,
    "readPresence": 200,
    "dropDevice": 200,
    "dropActor": 200,
    "readEvents": 200,
    "watchSessions": 200,
    "openSocket": 101,
    "makeTicket": 201,
    "forkSession": 201,
    "resetSession": 200,
    "deleteSession": 200,
    "healthz": 200,
    "readyz": 200,
    "metrics": 200,
    "playground": 200,
    "docs": 200,
    "file": 200,
    "describe": 200,
}


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl is installed")
def test_every_operation_has_a_line_for_curl_that_works_as_it_stands(
    browser: Browser, start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    (tmp_path / "a drop").write_text("of water")
    server = start_server()
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{server.url}/docs#startGeneration")
        expect(page.locator("#startGeneration .curl")).to_be_visible()
        lines = curl_lines(page)
    assert lines.keys() == LINES.keys()
    ids = {"FILE": str(tmp_path / "a drop")}
    for operation, status in LINES.items():
        variables = dict(ids)
        if operation == "removeFromQueue":
            waiting = {"policy": "queue"}
            made = httpx.post(f"{server.url}/v1/sessions/demo/generations", json=waiting, trust_env=False)
            variables["GENERATION_ID"] = made.json()["generation_id"]
        got, body = run(lines[operation], **variables)
        assert got == status, (operation, lines[operation], body)
        told: dict[str, Any] = httpx.Response(200, text=body).json() if body.startswith("{") else {}
        if operation != "removeFromQueue":
            ids |= {name.upper(): told[name] for name in ("generation_id", "message_id", "file_id") if name in told}
        if operation == "readEvents":
            assert "event: caught-up" in body, "it is shown as it comes"
    assert server.stop() == 0


def test_what_is_filled_in_reaches_curl_and_the_server_as_it_stands(docs: Page, site: ServerProcess) -> None:
    text = 'it\'s "$HOME" `id` $(id) \\ !! %20'
    session = f"own:{docs.viewport_size['width']}" if docs.viewport_size else "own"
    httpx.put(f"{site.url}/v1/sessions/{session}", trust_env=False).raise_for_status()
    lines = curl_lines(docs)
    assert "$MESSAGE_ID" in lines["retractMessage"]
    post = docs.locator("#postMessage")
    post.get_by_label("session_id").fill(session)
    post.get_by_label("body, as JSON").fill(httpx.Request("POST", "http://a", json={"text": text}).content.decode())
    status, body = run(post.locator(".curl code").inner_text())
    assert status == 201, body
    post.get_by_role("button", name="Send").click()
    expect(post.locator(".answer .status")).to_contain_text("201")
    told = httpx.get(f"{site.url}/v1/sessions/{session}", trust_env=False).json()
    assert [message["blocks"][0]["text"] for message in told["messages"]] == [text, text]


def test_a_body_that_is_no_json_is_a_file(docs: Page, site: ServerProcess, tmp_path: Path) -> None:
    told = copy.deepcopy(description())
    post = told["paths"]["/v1/sessions/{session_id}/messages"]["post"]
    post["requestBody"]["content"] = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
    sent: list[tuple[str | None, bytes | None]] = []

    def answer(route: Route) -> None:
        sent.append((route.request.header_value("content-type"), route.request.post_data_buffer))
        route.fulfill(body="kept")

    docs.route("**/openapi.json", lambda route: route.fulfill(json=told))
    docs.route("**/messages", answer)
    docs.goto("about:blank")
    docs.goto(f"{site.url}/docs#postMessage")
    item = docs.locator("#postMessage")
    expect(item.locator(".curl code")).to_contain_text('--data-binary @"$FILE"')
    (tmp_path / "a drop.png").write_bytes(b"\x89PNG")
    item.get_by_label("body, a file").set_input_files(tmp_path / "a drop.png")
    expect(item.locator(".curl code")).to_contain_text("--data-binary '@a drop.png'")
    item.get_by_role("button", name="Send").click()
    expect(item.locator(".answer > pre")).to_have_text("kept")
    assert sent == [("image/png", b"\x89PNG")]


def test_a_server_that_asks_for_tokens_has_them_in_its_lines_and_no_forms(
    browser: Browser, start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_bytes(SECRET)
    key.chmod(0o600)
    server = start_server("--jwt-key", str(key))
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{server.url}/docs#startGeneration")
        expect(page.locator("#startGeneration .curl")).to_be_visible()
        lines = curl_lines(page)
        expect(page.locator("form")).to_have_count(0)
    assert run(lines["createSession"])[0] == 401
    assert run(lines["createSession"], PENSTOCK_TOKEN=token())[0] == 201
    assert "PENSTOCK_TOKEN" not in lines["healthz"]
    assert server.stop() == 0


# --- try it


def test_a_request_is_sent_and_its_answer_shown(docs: Page) -> None:
    create = docs.locator("#createSession")
    create.locator("summary").first.click()
    create.get_by_label("session_id").fill(name := f"tried-{os.urandom(4).hex()}")
    create.get_by_role("button", name="Send").click()
    expect(create.locator(".answer .status")).to_contain_text("201 after")
    expect(create.locator(".answer > pre")).to_contain_text(f'"session_id": "{name}"')
    create.locator(".answer summary").click()
    expect(create.locator(".answer details pre")).to_contain_text("content-type: application/json")
    expect(create.get_by_role("button", name="Stop")).to_be_hidden()
    read = docs.locator("#readGeneration")
    read.locator("summary").first.click()
    read.get_by_role("button", name="Send").click()
    assert read.get_by_label("generation_id").evaluate("(input) => input.matches(':invalid')"), "it has to be said"


def test_a_stream_is_shown_as_it_comes_until_it_is_stopped(docs: Page, site: ServerProcess) -> None:
    name = f"stream-{os.urandom(4).hex()}"
    session = f"{site.url}/v1/sessions/{name}"
    httpx.put(session, trust_env=False).raise_for_status()
    events = docs.locator("#readEvents")
    events.locator("summary").first.click()
    events.get_by_label("session_id").fill(name)
    events.get_by_role("button", name="Send").click()
    shown = events.locator(".answer > pre")
    expect(shown).to_contain_text("event: caught-up")
    httpx.post(f"{session}/messages", json={"text": "so it goes"}, trust_env=False).raise_for_status()
    expect(shown).to_contain_text("so it goes")
    expect(events.get_by_role("button", name="Send")).to_be_disabled()
    events.get_by_role("button", name="Stop").click()
    expect(events.locator(".answer .status")).to_contain_text(re.compile("^200 after .* ms, stopped$"))
    expect(events.get_by_role("button", name="Send")).to_be_enabled()
    events.get_by_role("button", name="Send").click()
    expect(shown).to_contain_text("so it goes")
    events.locator("summary").first.click()  # closed: nothing is left open
    expect(events.locator(".answer .status")).to_contain_text("stopped")


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_screenshot(docs: Page, site: ServerProcess, scheme: Literal["light", "dark"], tmp_path: Path) -> None:
    httpx.put(f"{site.url}/v1/sessions/demo", trust_env=False).raise_for_status()
    folder = Path(os.environ.get("PENSTOCK_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    docs.emulate_media(color_scheme=scheme)
    start = docs.locator("#startGeneration")
    start.get_by_role("button", name="Send").click()
    expect(start.locator(".answer .status")).to_contain_text("201")
    width = docs.evaluate("innerWidth")
    start.locator(".curl").evaluate("(line) => line.scrollIntoView()")
    docs.screenshot(path=folder / f"docs-{width}-{scheme}.png")
    assert (folder / f"docs-{width}-{scheme}.png").stat().st_size > 10_000
