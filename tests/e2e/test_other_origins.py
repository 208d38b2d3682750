"""A page of another origin, in a real browser: what it gets of a server that asks nobody who they are, or a cookie."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import START, ServerProcess
from tests.e2e.panels import PATIENCE, answers, body, live, panel, say
from tests.e2e.test_readme import blocks, running_the_recipe

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Browser, ConsoleMessage, expect

pytestmark = pytest.mark.browser


class Elsewhere(BaseHTTPRequestHandler):
    """A page with nothing on it."""

    def do_GET(self) -> None:
        body = b"<!doctype html><title>elsewhere</title>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def elsewhere() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join(PATIENCE)
    server.server_close()


# Everything that a page can have a browser load; which of them came.
TRIES = """async (url) => {
  const loads = (name, source, more = {}) => new Promise((done) => {
    const made = Object.assign(document.createElement(name), more);
    made.onload = () => done(true);
    made.onerror = () => done(false);
    made[name === "link" ? "href" : "src"] = source;
    document.head.append(made);
  });
  const fetches = (path, options) => fetch(url + path, options).then(() => true, () => false);
  const hears = () => new Promise((done) => {
    const source = new EventSource(`${url}/v1/sessions/s/events`);
    source.onopen = () => done(true);
    source.onerror = () => { source.close(); done(false); };
  });
  return {
    fetch: await fetches("/v1/sessions/s"),
    opaque: await fetches("/v1/sessions/s", { mode: "no-cors" }),
    health: await fetches("/healthz", { mode: "no-cors" }),
    image: await loads("img", `${url}/icon.svg`),
    script: await loads("script", `${url}/penstock.js`),
    module: await loads("script", `${url}/penstock.js`, { type: "module" }),
    style: await loads("link", `${url}/playground.css`, { rel: "stylesheet" }),
    stream: await hears(),
  };
}"""


FRAME = """(url) => new Promise((done) => {
  const frame = Object.assign(document.createElement("iframe"), { src: url, onload: done });
  document.body.append(frame);
})"""


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])  # of the same site, and of another one
def test_a_page_elsewhere_gets_nothing_and_who_follows_its_link_gets_the_page(
    browser: Browser, server: ServerProcess, elsewhere: int, name: str
) -> None:
    httpx.put(f"{server.url}/v1/sessions/s", timeout=START, trust_env=False).raise_for_status()
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"http://{name}:{elsewhere}/")
        got: dict[str, Any] = page.evaluate(TRIES, server.url)
        assert not any(got.values()), got
        for path in ("/", "/v1/sessions/s"):
            page.evaluate(FRAME, f"{server.url}{path}")
        for frame in page.frames[1:]:
            frame.wait_for_url("chrome-error://**")
        page.evaluate("(url) => { location.href = url }", f"{server.url}/")
        page.wait_for_url(f"{server.url}/*")
        say(panel(page, "a"), "hello")
        live(panel(page, "a"))
    log = server.log.read_text()
    assert "ORIGIN_REFUSED" in log


def test_the_own_page_and_what_a_person_opens_are_answered(browser: Browser, server: ServerProcess) -> None:
    httpx.put(f"{server.url}/v1/sessions/s", timeout=START, trust_env=False).raise_for_status()
    with browser.new_context() as context:
        page = context.new_page()
        opened = page.goto(f"{server.url}/v1/sessions/s")
        assert opened is not None
        assert opened.status == 200
        page.goto(f"{server.url}/")
        got: dict[str, Any] = page.evaluate(TRIES, server.url)
        assert all(got.values()), got
    assert "ORIGIN_REFUSED" not in server.log.read_text()


def test_a_page_that_is_allowed_reads_and_hears(
    browser: Browser, start_server: Callable[..., ServerProcess], elsewhere: int
) -> None:
    server = start_server("--allow-origin", f"http://localhost:{elsewhere}")
    httpx.put(f"{server.url}/v1/sessions/s", timeout=START, trust_env=False).raise_for_status()
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"http://localhost:{elsewhere}/")
        got: dict[str, Any] = page.evaluate(TRIES, server.url)
    assert (got["fetch"], got["stream"]) == (True, True)
    assert (got["opaque"], got["image"], got["script"]) == (False, False, False)
    assert server.stop() == 0


def test_the_readmes_page_of_another_server_shows_an_answer(
    browser: Browser, start_server: Callable[..., ServerProcess], elsewhere: int
) -> None:
    (program,) = blocks("js")
    origin = f"http://localhost:{elsewhere}"
    server = start_server("--allow-origin", origin)
    with browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(origin)
        with page.expect_console_message(lambda told: "assistant hello complete" in _messages(told)):
            page.add_script_tag(content=program.replace("http://127.0.0.1:8420", server.url), type="module")
    assert server.stop() == 0


def _messages(told: ConsoleMessage) -> list[str]:
    """What the page logged: messages, as their role, their text and their status."""
    logged = told.args[0].json_value()
    return [f"{each['role']} {each['blocks'][0].get('text')} {each['status']}" for each in logged if each["blocks"]]


# What changes something, and what a browser sends cookies with; which of them were answered.
WRITES = """async ([url, session]) => {
  const asks = (path, options) =>
    fetch(`${url}/v1/sessions/${session}${path}`, { credentials: "include", ...options })
      .then((answer) => answer.status, () => 0);
  const opens = () => new Promise((done) => {
    const socket = new WebSocket(`${url.replace("http", "ws")}/v1/ws`);
    socket.onopen = () => { socket.close(); done(true); };
    socket.onerror = () => done(false);
  });
  return {
    post: await asks("/generations", { method: "POST", mode: "no-cors", body: "{}" }),
    read: await asks("", { mode: "no-cors" }),
    socket: await opens(),
  };
}"""


def test_who_is_known_by_a_cookie_talks_where_the_login_leads(browser: Browser, tmp_path: Path) -> None:
    with running_the_recipe(tmp_path) as at, browser.new_context() as context:
        login = context.request.post(f"http://{at}/login", form={"name": "ann"}, max_redirects=0)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(f"http://{at}{login.headers['location']}")
        say(panel(page, "a"), "hello")
        expect(body(answers(panel(page, "a"), "complete"))).to_have_text("hello")


def test_a_cookie_opens_nothing_to_a_page_elsewhere_that_has_it_sent(
    browser: Browser, elsewhere: int, tmp_path: Path
) -> None:
    with running_the_recipe(tmp_path) as at, browser.new_context() as context:
        chat = f"http://{at}/chat"
        page = context.new_page()
        assert context.request.post(f"http://{at}/login", form={"name": "ann"}).ok
        for session in ("u7-own", "u7-other"):
            assert context.request.put(f"{chat}/v1/sessions/{session}").ok
        page.goto(f"{chat}/docs")
        assert page.evaluate(WRITES, [chat, "u7-own"]) == {"post": 201, "read": 200, "socket": True}
        page.goto(f"http://127.0.0.1:{elsewhere}/")  # another port: the same site, to which the cookie is sent
        assert page.evaluate(WRITES, [chat, "u7-other"]) == {"post": 0, "read": 0, "socket": False}
        assert context.request.get(f"{chat}/v1/sessions/u7-other").json()["cursor"].endswith("-0000000000000001")
