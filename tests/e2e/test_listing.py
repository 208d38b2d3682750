"""penstock.js in a real browser: the list of conversations, followed, is what the server has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.adapters.credentials import SECRET, token
from tests.e2e.conftest import ServerProcess
from tests.e2e.panels import PATIENCE
from tests.engine.stores import free_port

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

OVER = pytest.mark.parametrize("over", ["sse", "websocket"])
MOSTLY_ONE = pytest.mark.parametrize("over", ["websocket", pytest.param("sse", marks=pytest.mark.long)])
Start = Callable[..., ServerProcess]

# A list that is followed, as `list`; what it holds is what `shown` gives.
FOLLOW = """async ([options, place]) => {
  const { Client } = await import("./penstock.js");
  window.list = new Client(place).list(options);
  window.leaving = new AbortController();
  window.end = list.follow({ signal: leaving.signal });
}"""
IDS = "() => list.getSnapshot().sessions.map(({ session_id }) => session_id)"
LIVE = "() => list.getSnapshot().connection.state === 'live'"


@pytest.fixture
def follow(browser: Browser) -> Iterator[Callable[..., Page]]:
    """A page of a server's that follows its list, and is live."""
    context = browser.new_context()
    context.set_default_timeout(PATIENCE)

    def opened(url: str, live: str = LIVE, place: dict[str, Any] | None = None, **options: object) -> Page:
        page = context.new_page()
        page.goto(f"{url}/icon.svg")
        page.evaluate(FOLLOW, [options, place or {}])
        page.wait_for_function(live)
        return page

    yield opened
    context.close()


def make(url: str, *session_ids: str) -> None:
    for session_id in session_ids:
        httpx.put(f"{url}/v1/sessions/{session_id}").raise_for_status()
        httpx.post(f"{url}/v1/sessions/{session_id}/messages", json={"text": session_id}).raise_for_status()


def becomes(page: Page, *session_ids: str) -> None:
    """The list holds these, in their order."""
    page.wait_for_function(f"(wanted) => ({IDS})().join() === wanted", arg=",".join(session_ids))


@OVER
def test_the_list_is_what_the_server_has_in_its_order(
    server: ServerProcess, follow: Callable[..., Page], over: str
) -> None:
    make(server.url, "one", "two", "three")
    page = follow(server.url, over=over)
    becomes(page, "three", "two", "one")
    make(server.url, "four")
    becomes(page, "four", "three", "two", "one")
    make(server.url, "two")
    becomes(page, "two", "four", "three", "one")
    httpx.delete(f"{server.url}/v1/sessions/four").raise_for_status()
    becomes(page, "two", "three", "one")
    told = page.evaluate("() => list.getSnapshot().sessions")
    assert told == httpx.get(f"{server.url}/v1/sessions?order=updated").json()["sessions"]
    assert page.evaluate("() => list.getSnapshot() === list.getSnapshot()")
    assert page.evaluate("() => { leaving.abort(); return end; }") == {"state": "idle", "attempts": 1}


@MOSTLY_ONE
def test_older_pages_come_when_asked_for_and_bring_back_nothing_that_is_gone(
    server: ServerProcess, follow: Callable[..., Page], over: str
) -> None:
    names = [f"s{number}" for number in range(9)]
    make(server.url, *names)
    page = follow(server.url, over=over, limit=3)
    becomes(page, "s8", "s7", "s6")
    assert page.evaluate("() => list.getSnapshot().more")
    httpx.delete(f"{server.url}/v1/sessions/s4").raise_for_status()
    make(server.url, "s0")  # from a page that is not here
    becomes(page, "s0", "s8", "s7", "s6")
    assert page.evaluate("() => list.older({ limit: 3 })")
    becomes(page, "s0", "s8", "s7", "s6", "s5", "s3", "s2")
    assert page.evaluate("() => list.older({ limit: 3 })") is False
    becomes(page, "s0", "s8", "s7", "s6", "s5", "s3", "s2", "s1")
    assert page.evaluate("() => list.getSnapshot().more") is False
    assert page.evaluate("() => list.older()") is False


@pytest.mark.long
@MOSTLY_ONE
def test_behind_a_restart_the_list_begins_anew(start_server: Start, follow: Callable[..., Page], over: str) -> None:
    port = str(free_port())
    server = start_server("--port", port)
    make(server.url, "one", "two")
    page = follow(server.url, over=over)
    server.kill()
    page.wait_for_function("() => list.getSnapshot().connection.state === 'waiting'")
    again = start_server("--port", port)
    httpx.delete(f"{again.url}/v1/sessions/two").raise_for_status()
    make(again.url, "three")
    page.wait_for_function(LIVE)
    becomes(page, "three", "one")
    assert again.stop() == 0


def test_a_page_that_takes_longer_than_a_line_may_be_silent_comes_in_the_end(blank: Page) -> None:
    """On a WebSocket it is one message, and nothing of it is heard before its end."""
    body = """async () => {
      const { setTimeout: real } = globalThis;
      globalThis.setTimeout = (call, milliseconds) => real(call, milliseconds / 20);
      class Slow {
        OPEN = 1;
        readyState = 1;
        constructor() { real(() => this.onopen?.()); }
        send(text) {
          const { op, id } = JSON.parse(text);
          if (op !== "watch") return;
          const cursor = "e-0000000000000001";
          const tell = (frame) => this.onmessage?.({ data: JSON.stringify(frame) });
          real(() => tell({ op: "reply", id, result: { cursor } }));
          setTimeout(() => {
            tell({ op: "sessions", sessions: [{ session_id: "s" }], list_cursor: cursor });
            tell({ op: "caught-up", list_cursor: cursor });
          }, 10_000);
        }
        close() {}
      }
      const { Client } = await import("./penstock.js");
      const list = new Client({ WebSocket: Slow }).list({ over: "websocket" });
      const isLive = () => list.getSnapshot().connection.state === "live";
      const live = new Promise((done) => list.subscribe(() => isLive() && done()));
      list.follow();
      await live;
      const { sessions, connection } = list.getSnapshot();
      return { ids: sessions.map(({ session_id }) => session_id), attempts: connection.attempts };
    }"""
    assert blank.evaluate(body) == {"ids": ["s"], "attempts": 2}


def test_where_no_websocket_gets_through_the_event_stream_does(browser: Browser, server: ServerProcess) -> None:
    make(server.url, "one")
    context = browser.new_context()
    context.route_web_socket("**/v1/ws", lambda socket: socket.close())
    page = context.new_page()
    page.goto(f"{server.url}/icon.svg")
    page.evaluate(FOLLOW, [{"over": "websocket"}, {}])
    page.wait_for_function(LIVE, timeout=PATIENCE)
    becomes(page, "one")
    context.close()


# A list that is followed where a server says `scripts`, one on each connection, the last one again and again. What it
# holds then, and where each connection was asked to begin.
SCRIPTED = """async ([over, scripts]) => {
  const { Client } = await import("./penstock.js");
  const asked = [];
  const next = (after) => scripts[Math.min(asked.push(after ?? null), scripts.length) - 1];
  const fetch = async (url, { headers }) => {
    if (!String(url).includes("/events?")) return new Response("", { status: 404 });
    const text = next(headers["Last-Event-ID"]).map(({ op, list_cursor, ...data }) => {
      const name = op === "reply" ? "" : `event: ${op}\\n`;
      const told = op === "reply" ? "" : `data: ${op === "bad" ? "{" : JSON.stringify(data)}\\n`;
      return `${name}id: ${list_cursor ?? data.cursor ?? data.from ?? data.result?.cursor ?? ""}\\n${told}\\n`;
    });
    return new Response(text.join(""), { headers: { "Content-Type": "text/event-stream" } });
  };
  class WebSocket {
    OPEN = 1;
    readyState = 1;
    constructor() { setTimeout(() => this.onopen?.()); }
    send(text) {
      const { op, after } = JSON.parse(text);
      const tell = (data) => this.onmessage?.({ data });
      if (op !== "watch") return;
      const frames = next(after);
      setTimeout(() => {
        for (const frame of frames) tell(frame.op === "bad" ? "{" : JSON.stringify(frame));
        if (frames.at(-1).op === "gap") this.onclose?.({ code: 1006 });
      });
    }
    close() {}
  }
  const list = new Client({ fetch, WebSocket }).list({ over });
  const leaving = new AbortController();
  const ids = () => list.getSnapshot().sessions.map(({ session_id }) => session_id).join();
  const late = setTimeout(() => leaving.abort(), 20_000);
  list.subscribe(() => ids() === "whole" && leaving.abort());
  await list.follow({ signal: leaving.signal });
  clearTimeout(late);
  return [ids(), asked];
}"""


def at(offset: int) -> str:
    return f"0123456789abcdef-{offset:016}"


def listed(*session_ids: str) -> dict[str, Any]:
    sessions = [{"session_id": each, "cursor": at(1), "metadata": {}} for each in session_ids]
    return {"op": "sessions", "list_cursor": at(5), "sessions": sessions}


OPENED = {"op": "reply", "id": 1, "result": {"cursor": at(5)}}
BEHIND = {"op": "session", "list_cursor": at(7), "session_id": "late", "cursor": at(1), "metadata": {}}


@MOSTLY_ONE
@pytest.mark.parametrize(
    ("said", "known"),
    [
        ([{"op": "gap", "from": at(5), "reason": "expired", "asked": at(1)}], None),
        ([listed("one"), {"op": "degraded", "code": "INTERNAL"}, BEHIND], at(5)),
        ([listed("one"), {"op": "drain", "reason": "shutdown"}, BEHIND], at(5)),
        ([listed("one"), {"op": "bad"}, BEHIND], at(5)),
    ],
    ids=["gap", "degraded", "drain", "bad"],
)
def test_a_line_that_ends_before_all_was_told_is_followed_by_another_that_tells_it(
    server: ServerProcess, browser: Browser, over: str, said: list[dict[str, Any]], known: str | None
) -> None:
    page = browser.new_page()
    page.goto(f"{server.url}/icon.svg")
    scripts = [[OPENED, *said], [OPENED, listed("whole")]]
    assert page.evaluate(SCRIPTED, [over, scripts]) == ["whole", [None, known]]
    page.close()


@pytest.mark.long
@MOSTLY_ONE
def test_a_token_sees_its_own_and_without_one_the_list_is_refused(
    start_server: Start, follow: Callable[..., Page], tmp_path: Any, over: str
) -> None:
    key = tmp_path / "key"
    key.write_bytes(SECRET)
    server = start_server("--jwt-key", str(key))
    everything = {"Authorization": f"Bearer {token(('*',), ('read', 'write'))}"}
    for session_id in ("ann-1", "bob-1"):
        httpx.put(f"{server.url}/v1/sessions/{session_id}", headers=everything).raise_for_status()
    page = follow(server.url, place={"token": token(("ann-*",), ("read",))}, over=over)
    becomes(page, "ann-1")
    refused = follow(server.url, "() => list.getSnapshot().connection.state === 'refused'", over=over)
    assert refused.evaluate("() => list.getSnapshot().connection.problem.code") == "UNAUTHENTICATED"
    assert server.stop() == 0


@MOSTLY_ONE
def test_the_events_before_are_those_of_the_log(server: ServerProcess, browser: Browser, over: str) -> None:
    session = f"{server.url}/v1/sessions/{uuid4()}"
    httpx.put(session).raise_for_status()
    for number in range(20):
        httpx.post(f"{session}/messages", json={"text": f"{number}"}).raise_for_status()
    page = browser.new_page()
    page.goto(f"{server.url}/icon.svg")
    pages: list[list[int]] = page.evaluate(
        """async ([id, over]) => {
      const { Client } = await import("./penstock.js");
      const one = new Client().session(id, { over });
      one.subscribe(() => one.getSnapshot().connection.state === "live" && one.close());
      await one.follow();
      const found = [];
      for (let before = 22; before > 1; before = found.at(-1)[0]) {
        found.push((await one.history({ before, limit: 8 })).map(({ offset }) => offset));
      }
      found.push(await one.history({ before: 1 }));
      return found;
    }""",
        [session.rpartition("/")[2], over],
    )
    assert pages == [list(range(14, 22)), list(range(6, 14)), list(range(1, 6)), []]
    page.close()
