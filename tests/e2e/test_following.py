"""penstock.js in a real browser: it follows a session through a bad network, and its store keeps its promises."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.adapters.credentials import SECRET, token
from tests.e2e import stream_proxy
from tests.e2e.stream_proxy import StreamProxy, in_thread
from tests.e2e.streams import call
from tests.engine.stores import free_port

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Page

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.e2e.conftest import ServerProcess

pytestmark = pytest.mark.browser

EVENTS = 10_000
OVER = pytest.mark.parametrize("over", ["sse", "websocket"])


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def produce(url: str, session_id: str, events: int) -> None:
    """One generation with so many events and more, by chunks: text with characters of several bytes."""
    path, generation_id = f"/v1/sessions/{session_id}", str(uuid4())
    for start in range(0, events, 250):
        chunks = [
            {"generation_id": generation_id, "data": {"text": f"wörd{number} 水🚰 "}}
            for number in range(start, start + 250)
        ]
        call(url, "POST", f"{path}/chunks/batch", {"chunks": chunks})
        time.sleep(0.05)  # at the pace of a fast model, so that it is followed while it grows
    call(url, "POST", f"{path}/generations/{generation_id}/finish", {})


FOLLOW = """([id, url, over]) => import("./penstock.js").then(({ Session, Fold }) => {
  const seen = [], verdicts = {}, states = {};
  const session = new Session(id, {
    url, over, snapshot: false,
    silence: over === "sse" ? 1500 : 7000, // chromium itself holds sockets back for seconds after some have failed
    onEvent(event, cursor, verdict) {
      verdicts[verdict] = (verdicts[verdict] ?? 0) + 1;
      if (verdict === "applied") seen.push(event.offset);
    },
    onConnection({ state }) { states[state] = (states[state] ?? 0) + 1; },
  });
  let told = 0;
  session.subscribe(() => { told += 1; });
  window.followed = { session, seen, verdicts, states, told: () => told };
  session.follow();
})"""

REACHED = "(cursor) => followed.session.getSnapshot().cursor === cursor"

TOLD = """() => {
  const { session, seen, verdicts, states, told } = followed;
  const { ends, presence, connection, generation, ...rest } = session.getSnapshot();
  session.close();
  return JSON.stringify({
    state: generation ? { ...rest, generation } : rest, seen, verdicts, states, told: told(),
    attempts: connection.attempts,
  });
}"""


#
@pytest.mark.long
@OVER
def test_ten_thousand_events_through_a_bad_network(
    browser: Browser,
    start_server: Callable[..., ServerProcess],
    complaints: list[str],
    over: str,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    if over == "websocket":  # where a page of the log is one frame, of which some must come through
        monkeypatch.setattr(stream_proxy, "_LONGEST", 800_000)
    port = free_port()
    server = start_server("--port", str(port), "--allow-origin", f"http://127.0.0.1:{port}")
    session_id = f"bad-{over}"
    call(server.url, "PUT", f"/v1/sessions/{session_id}", {})
    context = browser.new_context(bypass_csp=True)  # the server's own pages speak to nobody but it
    page = context.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    # The page itself comes from the server; what the client asks for goes through the bad network, to another origin.
    page.goto(f"{server.url}/icon.svg")
    with in_thread(StreamProxy(random.Random(7), port_of(server.url)).running) as proxy:
        page.evaluate(FOLLOW, [session_id, proxy.url, over])
        produce(server.url, session_id, EVENTS)
        snapshot = call(server.url, "GET", f"/v1/sessions/{session_id}")
        page.wait_for_function(REACHED, arg=snapshot["cursor"], timeout=90_000)
        told: dict[str, Any] = json.loads(page.evaluate(TOLD))
        record_property("attempts", told["attempts"])
        record_property("fates", dict(proxy.counts))
        attempts, connections = told["attempts"], proxy.connections
    context.close()
    tail = int(snapshot["cursor"].rpartition("-")[2])
    assert tail > EVENTS
    assert told["state"] == snapshot
    assert told["seen"] == list(range(1, tail + 1))  # none twice, none missed, in order
    assert set(told["verdicts"]) <= {"applied", "duplicate"}, told["verdicts"]
    # No loop: as many attempts as the network broke, and not every one of them is told to nobody.
    assert attempts <= connections + 1
    assert 3 <= attempts <= 300
    assert told["states"]["waiting"] == attempts - 1
    assert told["told"] < tail  # once for all that came together
    assert complaints == []
    complaints.clear()


# A server whose answers are written here; `asked` is what it was asked. A stream stays open unless it is `over`.
SCRIPTED = """
  const { Session, Problem } = await import("./penstock.js");
  const stamp = (offset, type, data, more = {}) => ({ type, session_id: "s", offset, time: "", data, ...more });
  const sse = (offset, event) => `id: e-${String(offset).padStart(16, "0")}\\ndata: ${JSON.stringify(event)}\\n\\n`;
  const told = (name, data) => `event: ${name}\\ndata: ${JSON.stringify(data)}\\n\\n`;
  const cursor = (offset) => `e-${String(offset).padStart(16, "0")}`;
  const opened = (offset) => `id: ${cursor(offset)}\\n\\n`;
  const live = (offset) => told("caught-up", { cursor: cursor(offset) });
  const snapshot = (offset, title) => told("snapshot", {
    session_id: "s", cursor: cursor(offset), messages: [], queue: { paused: false, items: [] }, approvals: [],
    metadata: { title }, more: false,
  });
  const problem = (status, code, retryable = false, headers = {}) =>
    new Response(JSON.stringify({ code, status, retryable, title: code }), { status, headers });
  const json = (body, status = 200) => new Response(JSON.stringify(body), { status });
  let under_way = 0, most = 0;
  const stream = (signal, { over = false, parts }) => new Response(new ReadableStream({
    start(controller) {
      under_way += 1;
      most = Math.max(most, under_way);
      for (const part of parts) controller.enqueue(new TextEncoder().encode(part));
      const end = (close) => () => { if (close) close(); under_way -= close ? 1 : 0; };
      if (over) end(() => controller.close())();
      else signal.addEventListener("abort", end(() => controller.error(signal.reason)), { once: true });
    },
  }), { headers: { "Content-Type": "text/event-stream" } });
  const asked = [];
  const server = (...answers) => async (url, { method = "GET", headers = {}, body, signal }) => {
    const { pathname, search } = new URL(url);
    const path = pathname.replace("/v1/sessions/s", "") + search.replace(/[?&]heartbeat=[0-9]+/, "");
    asked.push({ method, path, headers, at: Date.now(), body: body && JSON.parse(body) });
    const answer = answers.length > 1 ? answers.shift() : answers[0];
    if (answer === "broken") throw new TypeError("the network is gone");
    if (answer === "silent") {
      return new Promise((_, fail) => signal.addEventListener("abort", () => fail(signal.reason)));
    }
    if (answer instanceof Response) return answer.clone();
    return answer.parts ? stream(signal, answer) : json(answer);
  };
  const controls = [];
  const hooks = { onControl: (name, data) => controls.push(name) };
  const session = (fetch, options = {}) => new Session("s", { fetch, ...hooks, ...options });
  const until = (one, reached) => new Promise((done) => {
    const look = () => reached(one.getSnapshot()) && done();
    one.subscribe(look);
    look();
  });
"""


def scripted(page: Page, body: str) -> Any:
    return page.evaluate(f"async () => {{ {SCRIPTED} {body} }}".replace("\\\\n", "\\n"))


# R-72 R-124
def test_a_frame_that_cannot_be_read_is_told_and_the_state_asked_for_anew(blank: Page) -> None:
    body = """
      const one = session(server(
        { parts: [opened(0), sse(1, stamp(1, "session.created", { metadata: {} })), "id: e-2\\ndata: {oops\\n\\n",
          sse(3, stamp(3, "session.updated", { metadata: { title: "never" } }))] },
        { parts: [opened(3), snapshot(3, "right"), live(3)] },
      ), { snapshot: false });
      const titles = [];
      one.subscribe(() => titles.push(one.getSnapshot().metadata.title));
      one.follow();
      await until(one, ({ connection }) => connection.state === "live");
      one.close();
      return { controls, asked: asked.map(({ path }) => path), title: one.getSnapshot().metadata.title, titles, most };
    """
    told = scripted(blank, body)
    assert told["controls"] == ["bad-frame", "snapshot", "caught-up"]
    assert told["asked"] == ["/events", "/events?snapshot=true"]
    assert (told["title"], told["most"]) == ("right", 1)
    assert "never" not in told["titles"]


#
def test_a_state_that_does_not_fit_is_told_and_asked_for_again(blank: Page) -> None:
    body = """
      const another = snapshot(3, "wrong").replace('"session_id":"s"', '"session_id":"t"');
      const one = session(server(
        { parts: [opened(3), another] },
        { parts: [opened(3), snapshot(3, "wrong").replace('"messages":[]', '"messages":{}')] },
        { parts: [opened(3), snapshot(3, "right"), live(3)] },
      ));
      one.follow();
      await until(one, ({ connection }) => connection.state === "live");
      one.close();
      return { controls, title: one.getSnapshot().metadata.title, most };
    """
    told = scripted(blank, body)
    assert told["controls"] == [*["snapshot", "bad-frame"] * 2, "snapshot", "caught-up"]
    assert (told["title"], told["most"]) == ("right", 1)


# A page of one older message, in the scripts.
OLDER = """
      const part = snapshot(3, "t").replace('"more":false', '"more":true,"next":"m"').replace('"messages":[]',
        '"messages":[{"message_id":"m","role":"user","status":"complete","blocks":[]}]');
      const older = (offset = 3, message_id = "l") => ({ session_id: "s", cursor: cursor(offset), approvals: [],
        queue: { paused: false, items: [] }, metadata: {}, more: false,
        messages: [{ message_id, role: "user", status: "complete", blocks: [] }] });
      const ids = () => one.getSnapshot().messages.map(({ message_id }) => message_id);
"""


#
def test_older_messages_that_cannot_be_read_are_told_and_asked_for_again(blank: Page) -> None:
    body = """
      const one = session(server({ parts: [opened(3), part, live(3)] }, problem(403, "FORBIDDEN"), older()),
        { limit: 7 });
      one.follow();
      await until(one, ({ connection }) => connection.state === "live");
      const before = [asked.length, ids(), one.getSnapshot().more];
      const { code } = await one.older({ limit: 5 }).catch((error) => error);
      const { connection, more } = one.getSnapshot();
      const [first, second] = await Promise.all([one.older(), one.older()]);
      const none = await one.older();
      one.close();
      return { before, code, state: connection.state, more, first, second, none, ids: ids(),
        after: one.getSnapshot().more, asked: asked.map(({ path }) => path) };
    """
    assert scripted(blank, OLDER + body) == {
        "before": [1, ["m"], True],
        "code": "FORBIDDEN",
        "state": "live",
        "more": True,
        "first": False,
        "second": False,
        "none": False,
        "ids": ["l", "m"],
        "after": False,
        "asked": ["/events?snapshot=true&limit=7", "?limit=5&before=m", "?limit=1000&before=m"],
    }


def test_a_message_that_was_retracted_while_its_page_was_on_the_way_stays_away(blank: Page) -> None:
    body = """
      const gone = sse(4, stamp(4, "message.retracted", {}, { message_id: "k" }));
      const one = session(server({ parts: [opened(3), part, gone, live(4)] }, older(3, "k"), older(4)));
      one.follow();
      await until(one, ({ connection }) => connection.state === "live");
      await one.older();
      one.close();
      return { ids: ids(), asked: asked.length };
    """
    assert scripted(blank, OLDER + body) == {"ids": ["l", "m"], "asked": 3}


#
def test_a_page_before_a_message_that_is_gone_makes_the_state_begin_anew(blank: Page) -> None:
    body = """
      const one = session(server({ parts: [opened(3), part, live(3)] }, problem(404, "MESSAGE_NOT_FOUND"),
        { parts: [opened(9), snapshot(9, "anew"), live(9)] }));
      one.follow();
      await until(one, ({ connection }) => connection.state === "live");
      const more = await one.older();
      await until(one, ({ metadata }) => metadata.title === "anew");
      one.close();
      return { more, after: one.getSnapshot().more, asked: asked.map(({ path }) => path) };
    """
    assert scripted(blank, OLDER + body) == {
        "more": True,
        "after": False,
        "asked": ["/events?snapshot=true", "?limit=1000&before=m", "/events?snapshot=true"],
    }


#
# half a frame is none
@pytest.mark.parametrize(
    ("last", "heard"),
    [
        ("told('end', { reason: 'deleted' })", {"state": "ended", "asked": 1, "controls": ["end"]}),
        ("told('end', { reason: 'deleted' }).slice(0, -1)", {"state": "idle", "asked": 2, "controls": ["caught-up"]}),
        ("'id: e-2\\ndata: {oops\\n\\n'", {"state": "idle", "asked": 2, "controls": ["bad-frame", "caught-up"]}),
    ],
)
def test_the_last_frame_before_the_end_of_a_stream_counts(blank: Page, last: str, heard: dict[str, Any]) -> None:
    body = """
      const one = session(server(
        { parts: [opened(0), sse(1, stamp(1, "session.created", { metadata: {} })), %s], over: true },
        { parts: [opened(1), live(1)] },
      ), { snapshot: false });
      const end = one.follow();
      await until(one, ({ connection }) => ["live", "ended"].includes(connection.state));
      one.close();
      return { state: (await end).state, asked: asked.length, controls };
    """
    assert scripted(blank, body % last) == heard


# a window of its own for a conversation, the same one in the background, and another one beside them
@OVER
def test_nothing_of_another_conversation_enters_a_store(blank: Page, site: ServerProcess, over: str) -> None:
    names = [f"mix-{over}-{letter}" for letter in "ab"]
    for name in names:
        call(site.url, "PUT", f"/v1/sessions/{name}", {"metadata": {"own": name}})
    body = """async ([names, url, over]) => {
      const { Session } = await import("./penstock.js");
      window.views = [names[0], names[0], names[1]].map((id) => {
        const seen = [];
        const onEvent = (event, cursor, verdict) => seen.push([event.session_id, verdict]);
        const session = new Session(id, { url, over, onEvent });
        session.follow();
        return { session, seen };
      });
      const live = ({ session }) => new Promise((done) => {
        const look = () => session.getSnapshot().connection.state === "live" && done();
        session.subscribe(look);
        look();
      });
      await Promise.all(views.map(live));
    }"""
    blank.evaluate(body, [names, site.url, over])
    generations = {name: str(uuid4()) for name in names}
    for number in range(30):
        for name in names:
            chunk = {"generation_id": generations[name], "job_id": f"job-{name}", "data": {"text": f"{name}:{number} "}}
            call(site.url, "POST", f"/v1/sessions/{name}/chunks", chunk)
    for name in names:
        call(site.url, "POST", f"/v1/sessions/{name}/generations/{generations[name]}/finish", {})
    blank.wait_for_function(
        "() => views.every(({ session }) => session.getSnapshot().messages[0]?.status === 'complete')"
    )
    told = blank.evaluate("""() => views.map(({ session, seen }) => {
      session.close();
      const { messages, metadata } = session.getSnapshot();
      const each = (list) => [...new Set(list)];
      return {
        own: metadata.own, text: messages.map(({ blocks }) => blocks[0].text).join("|"),
        jobs: messages.map(({ job_id }) => job_id), sessions: each(seen.map(([id]) => id)),
        verdicts: each(seen.map(([, verdict]) => verdict)),
      };
    })""")
    for name, view in zip([names[0], names[0], names[1]], told, strict=True):
        said = "".join(f"{name}:{number} " for number in range(30))
        expected = {"own": name, "text": said, "jobs": [f"job-{name}"], "sessions": [name], "verdicts": ["applied"]}
        assert view == expected


#
def test_an_event_without_its_stamp_touches_nothing(blank: Page) -> None:
    body = """
      const verdicts = [];
      const one = session(server(
        { parts: [opened(0), sse(1, stamp(1, "session.created", { metadata: {} })),
          sse(2, stamp(2, "session.updated", { metadata: { title: "another's" } }, { session_id: "t" })),
          sse(2, { ...stamp(2, "session.updated", { metadata: { title: "nobody's" } }), session_id: undefined })] },
        { parts: [opened(2), snapshot(2, "right"), live(2)] },
      ), { snapshot: false, onEvent: (event, at, verdict) => verdicts.push(verdict) });
      one.follow();
      await until(one, ({ connection }) => connection.state === "live");
      one.close();
      return { verdicts, title: one.getSnapshot().metadata.title };
    """
    assert scripted(blank, body) == {"verdicts": ["applied", "foreign", "invalid"], "title": "right"}


# R-16 R-43
@pytest.mark.parametrize("hook", ["onEvent", "onControl", "onConnection"])
def test_behind_a_close_nobody_is_called(blank: Page, hook: str) -> None:
    """Also not for what came in the same read: the frames behind the one in which it was closed are nobody's."""
    body = """
      const called = [];
      let closed = false;
      const calls = Object.fromEntries(["onEvent", "onControl", "onConnection"].map((name) => [name, (...told) => {
        if (closed) called.push([name, told[0]?.state]);
        if (name === "%s" && one && !closed) { closed = true; one.close(); }
      }]));
      const events = [2, 3, 4].map((at) => sse(at, stamp(at, "session.updated", { metadata: { title: `t${at}` } })));
      const one = session(server({ parts: [opened(1) + snapshot(1, "t") + live(1) + events.join("")] }), calls);
      const end = await one.follow();
      await new Promise((done) => setTimeout(done, 100));
      return { called: called.filter(([, state]) => state !== "idle"), state: end.state, under_way };
    """
    assert scripted(blank, body % hook) == {"called": [], "state": "idle", "under_way": 0}


#
@OVER
def test_what_ends_a_stream_is_in_hand_before_its_first_byte(blank: Page, over: str) -> None:
    body = """
      class Dumb {
        readyState = 0;
        constructor() { under_way += 1; }
        send() {}
        close() { under_way -= 1; }
      }
      const one = session(async (url, { signal }) => new Promise((_, broken) => {
        under_way += 1;
        signal.addEventListener("abort", () => { under_way -= 1; broken(signal.reason); });
      }), { over: "%s", WebSocket: Dumb });
      const leave = new AbortController();
      const end = one.follow({ signal: leave.signal });
      await new Promise((done) => setTimeout(done, 50));
      const before = under_way;
      leave.abort();
      const late = new Promise((done) => setTimeout(() => done({ state: "still there" }), 3000));
      return { before, state: (await Promise.race([end, late])).state, under_way };
    """
    assert scripted(blank, body % over) == {"before": 1, "state": "idle", "under_way": 0}


# R-43 R-48 R-126
def test_following_is_one_connection_and_ends_with_its_signal(blank: Page) -> None:
    body = """
      const known = sse(1, stamp(1, "session.created", { metadata: {} }));
      const one = session(server({ parts: [opened(1), snapshot(1, "t"), live(1), known, known] }));
      const heard = [];
      one.subscribe(() => heard.push(one.getSnapshot()));
      const leave = new AbortController();
      const ends = [one.follow({ signal: leave.signal }), one.follow()];
      await until(one, ({ connection }) => connection.state === "live");
      const before = one.getSnapshot();
      await new Promise((done) => setTimeout(done, 100));
      const same = before === one.getSnapshot();
      const left = Date.now();
      leave.abort();
      const [first, second] = await Promise.all(ends);
      const kept = one.getSnapshot().messages === before.messages && one.getSnapshot().queue === before.queue;
      const again = one.follow();
      one.close();
      const following = one.follow();
      await until(one, ({ connection }) => connection.state === "live");
      one.close();
      return { same, kept, first: first.state, second: second.state, again: (await again).state,
        last: (await following).state, took: Date.now() - left, most,
        news: heard.every((now, i) => now !== heard[i - 1]), under_way, frozen: Object.isFrozen(before) };
    """
    told = scripted(blank, body)
    assert (told["most"], told["under_way"]) == (1, 0)
    assert told["took"] < 10_000  # at once, and not when the line has been silent for too long
    assert told["same"]
    assert told["kept"]
    assert told["news"]  # who listens is called for what is new
    assert told["frozen"]
    assert {told[name] for name in ("first", "second", "again", "last")} == {"idle"}


#
@OVER
def test_a_line_is_given_back_whoever_left_it(blank: Page, over: str) -> None:
    """Also where the session's end came on it, and the server leaves it open."""
    body = """
      let open = 0;
      class Scripted {
        OPEN = 1;
        readyState = 1;
        constructor() {
          open += 1;
          setTimeout(() => this.onopen?.());
        }
        send(text) {
          const { op, id } = JSON.parse(text);
          if (op !== "subscribe") return;
          const said = [{ op: "reply", id, result: { session_id: "s", cursor: cursor(0) } },
            { op: "caught-up", session_id: "s", cursor: cursor(0) }];
          if (ends) said.push({ op: "end", session_id: "s", reason: "deleted" });
          for (const frame of said) setTimeout(() => this.onmessage?.({ data: JSON.stringify(frame) }));
        }
        close() { open -= 1; }
      }
      const left = [];
      let ends = false;
      for (ends of [false, true]) {
        const parts = [opened(0), live(0), ...(ends ? [told("end", { reason: "deleted" })] : [])];
        const one = session(server({ parts }), { over: "%s", WebSocket: Scripted, snapshot: false });
        const following = one.follow();
        await until(one, ({ connection: { state } }) => ["live", "ended"].includes(state));
        if (!ends) one.close();
        left.push([(await following).state, under_way + open]);
      }
      return left;
    """
    assert scripted(blank, body % over) == [["idle", 0], ["ended", 0]]


#
def test_a_refused_token_is_asked_for_once_more(blank: Page) -> None:
    body = """
      const calls = [];
      const token = ({ refused }) => { calls.push(refused); return refused ? "new" : "old"; };
      const one = session(server(problem(401, "UNAUTHENTICATED"), { parts: [opened(1), snapshot(1, "t"), live(1)] }),
        { token });
      one.follow();
      await until(one, ({ connection }) => connection.state === "live");
      one.close();
      const shown = asked.map(({ headers }) => headers.Authorization);
      const two = session(server(problem(401, "UNAUTHENTICATED")), { token });
      const end = await two.follow();
      const error = await two.stop().catch((error) => error);
      return { calls: calls.length, shown, state: end.state, code: end.problem.code, attempts: end.attempts,
        raised: error.code };
    """
    told = scripted(blank, body)
    assert told["shown"] == ["Bearer old", "Bearer new"]
    assert (told["state"], told["code"], told["attempts"]) == ("refused", "UNAUTHENTICATED", 2)
    assert told["raised"] == "UNAUTHENTICATED"
    assert told["calls"] == 6


def test_of_many_lines_with_one_refused_token_one_has_another_asked_for(blank: Page) -> None:
    body = """
      const { Client } = await import("./penstock.js");
      const calls = [], waiting = [];
      let good = "old";
      const token = async ({ refused }) => {
        calls.push(refused);
        if (!refused) return good;
        await new Promise((go) => setTimeout(go, 50));  // as one does that asks a server, or a person
        return good += "er";
      };
      const fetch = async (url, { headers }) => {
        if (headers.Authorization !== "Bearer older") {
          await new Promise((go) => {
            if (waiting.push(go) === 4) waiting.splice(0, 2).forEach((go) => go());  // all of them have gone out
          });
          return problem(401, "UNAUTHENTICATED");
        }
        waiting.forEach((go) => go());  // the others hear of it when there is a token that is good
        return json({ sessions: [], producers: [] });
      };
      const client = new Client({ token, fetch });
      const [one, other] = [client.session("s"), client.session("t")];
      await Promise.all([client.sessions(), client.producers(), one.stop(), other.stop()]);
      return calls;
    """
    assert scripted(blank, body).count(True) == 1


def test_a_client_keeps_its_server_though_the_pages_address_changes(blank: Page) -> None:
    body = """
      const { Client } = await import("./penstock.js");
      const client = new Client({ token: "mine", fetch: server({}) });
      history.pushState(null, "", "/rooms/7/");
      await client.session("s").create();
      await client.sessions();
      return asked.map(({ path, headers }) => [path, headers.Authorization]);
    """
    assert scripted(blank, body) == [["", "Bearer mine"], ["/v1/sessions", "Bearer mine"]]


def test_the_server_says_how_long_to_wait_and_silence_ends_a_line(blank: Page) -> None:
    body = """
      const one = session(server(
        problem(503, "OVERLOADED", true, { "Retry-After": "1" }),
        { over: true, parts: [opened(1), snapshot(1, "t"), live(1), "retry: 700\\n" + told("drain", { reason: "r" })] },
        { parts: [opened(1)] },
        { parts: [opened(1), live(1)] },
      ), { silence: 300 });
      const waits = [];
      one.subscribe(() => {
        const { connection: { state, problem } } = one.getSnapshot();
        if (state === "waiting") waits.push(problem?.code ?? null);
      });
      one.follow();
      await until(one, ({ connection }) => connection.state === "live" && connection.attempts === 4);
      one.close();
      return { waits, times: asked.map(({ at }, i) => at - asked[Math.max(0, i - 1)].at) };
    """
    told = scripted(blank, body)
    assert told["waits"] == ["OVERLOADED", None, "UNREACHABLE"]
    _, first, second, third = told["times"]
    assert first >= 990
    assert second >= 690
    assert third >= 290


def test_a_refusal_on_a_websocket_says_how_long_to_wait(blank: Page) -> None:
    body = """
      const times = [];
      class Scripted {
        static OPEN = 1;
        readyState = 1;
        OPEN = 1;
        constructor() {
          times.push(Date.now());
          setTimeout(() => this.onopen?.());
        }
        send(text) {
          const { op, id, session_id } = JSON.parse(text);
          if (op !== "subscribe") return;
          const error = { code: "RATE_LIMITED", status: 429, retryable: true, title: "slow", retry_after: 1 };
          const answers = times.length < 3
            ? [{ op: "error", id, error }]
            : [{ op: "reply", id, result: { session_id, cursor: cursor(0) } },
               { op: "caught-up", session_id, cursor: cursor(0) }];
          for (const answer of answers) setTimeout(() => this.onmessage?.({ data: JSON.stringify(answer) }));
        }
        close() {}
      }
      const one = new Session("s", { over: "websocket", WebSocket: Scripted, snapshot: false });
      const waits = [];
      one.subscribe(() => {
        const { connection: { state, problem } } = one.getSnapshot();
        if (state === "waiting") waits.push([problem.code, problem.retryAfter]);
      });
      one.follow();
      await until(one, ({ connection }) => connection.state === "live");
      one.close();
      const of = (retry_after) => new Problem({ code: "X", retry_after }).retryAfter;
      return { waits, times: times.map((at, i) => at - times[Math.max(0, i - 1)]),
        odd: [undefined, null, "7", -1, NaN, [], 1e9, 7].map(of) };
    """
    told = scripted(blank, body)
    assert told["waits"] == [["RATE_LIMITED", 1000]] * 2
    assert all(pause >= 990 for pause in told["times"][1:])
    assert told["odd"] == [0, 0, 0, 0, 0, 0, 300_000, 7000]


def test_a_server_that_never_brings_us_on_is_not_asked_in_a_loop(blank: Page) -> None:
    body = """
      Math.random = () => 1; // the longest pauses: 250, 500, 1000 milliseconds, …
      const one = session(server({ over: true, parts: [opened(0), "data: {\\n\\n"] }));
      one.follow();
      await new Promise((done) => setTimeout(done, 2500));
      one.close();
      return one.getSnapshot().connection.attempts;
    """
    assert 2 <= scripted(blank, body) <= 4


def test_a_quiet_socket_is_not_given_up(blank: Page) -> None:
    body = """
      const one = new Session(crypto.randomUUID(), { over: "websocket", silence: 450 });
      await one.create();
      one.follow();
      await until(one, ({ connection }) => connection.state === "live");
      await new Promise((done) => setTimeout(done, 2000));
      const { state, attempts } = one.getSnapshot().connection;
      one.close();
      return [state, attempts];
    """
    assert scripted(blank, body) == ["live", 1]


@pytest.mark.long
def test_a_file_that_stops_coming_is_asked_for_again(blank: Page) -> None:
    body = """async () => {
      const { Client } = await import("./penstock.js");
      let asked = 0;
      const fetch = async (url, { signal }) => {
        const dies = (asked += 1) === 1;
        const start = (pieces) => {
          pieces.enqueue(Uint8Array.of(1, 2));
          if (dies) return signal.addEventListener("abort", () => pieces.error(signal.reason));
          pieces.enqueue(Uint8Array.of(3));
          pieces.close();
        };
        return new Response(new ReadableStream({ start }), { headers: { "Content-Type": "image/png" } });
      };
      const begun = Date.now();
      const file = await new Client({ fetch }).session("s").readFile("f");
      return { bytes: [...new Uint8Array(await file.arrayBuffer())], type: file.type, asked, took: Date.now() - begun };
    }"""
    told = blank.evaluate(body)
    assert told.pop("took") < 10_000
    assert told == {"bytes": [1, 2, 3], "type": "image/png", "asked": 2}


#
def test_stop_gives_up_a_start_that_waits_to_be_sent_again(blank: Page) -> None:
    body = """
      Math.random = () => 1; // the longest pauses: the stop comes within the third
      const one = session(server("broken", "broken", "broken", { state: "nothing_active" }, { state: "pending" }));
      const error = one.start({ text: "x" }).catch((error) => error);
      while (asked.length < 3) await new Promise((done) => setTimeout(done, 5));
      const stopped = await one.stop();
      const name = (await error).name;
      await new Promise((done) => setTimeout(done, 1500));
      return { name, state: stopped.state, asked };
    """
    told = scripted(blank, body)
    assert (told["name"], told["state"]) == ("AbortError", "pending")
    starts, stops = told["asked"][:3], told["asked"][3:]
    assert [request["path"] for request in starts] == ["/generations"] * 3
    same = {json.dumps([request["body"], request["headers"]]) for request in starts}
    assert len(same) == 1  # under its key
    assert starts[0]["headers"]["Idempotency-Key"]
    assert [request["path"] for request in stops] == ["/stop", "/stop"]  # and no start comes after
    assert stops[1]["body"] == {"generation_id": starts[0]["body"]["generation_id"]}


#
def test_a_stop_that_is_asked_for_again_names_what_it_is_to_stop(blank: Page) -> None:
    body = """
      const generation = { generation_id: "g", turn: 1, state: "live" };
      const state = { session_id: "s", cursor: cursor(3), messages: [], generation,
        queue: { paused: false, items: [] }, approvals: [], metadata: {}, more: false };
      const parts = [opened(3), told("snapshot", state), live(3)];
      const one = session(server({ parts }, "broken", { state: "stopped" }));
      one.follow();
      await until(one, ({ connection }) => connection.state === "live");
      const stopped = await one.stop();
      one.close();
      return [stopped.state, ...asked.filter(({ path }) => path === "/stop").map(({ body }) => body)];
    """
    assert scripted(blank, body) == ["stopped", *[{"generation_id": "g"}] * 2]


# A session whose stream is written to by `tell`, and whose other requests get no answer; `id` is that of the start.
QUIET = """
      let id, tell;
      const quiet = async (url, { body, signal, method = "GET" }) => {
        const lost = new Promise((_, fail) => signal.addEventListener("abort", () => fail(signal.reason)));
        if (method === "POST") {
          asked.push({ at: Date.now(), body: JSON.parse(body) });
          id ??= JSON.parse(body).generation_id;
          return lost;
        }
        const start = (controller) => {
          tell = (text) => controller.enqueue(new TextEncoder().encode(text));
          lost.catch((reason) => controller.error(reason));
          tell(opened(0) + sse(1, stamp(1, "session.created", { metadata: {} })) + live(1));
        };
        return new Response(new ReadableStream({ start }), { headers: { "Content-Type": "text/event-stream" } });
      };
      const one = session(quiet, { snapshot: false });
      one.follow();
      await until(one, ({ connection }) => connection.state === "live");
"""


#
@pytest.mark.long
def test_a_start_without_an_answer_is_sent_again_after_some_seconds_and_is_the_same(blank: Page) -> None:
    body = """
      const one = session(server("silent", { session_id: "s", generation_id: "g", cursor: cursor(2), turn: 1 }));
      const started = await one.start({ text: "once" });
      const same = new Set(asked.map(({ body, headers }) => JSON.stringify([body, headers])));
      const [first, second] = asked;
      return { turn: started.turn, same: same.size, asked: asked.length, pause: second.at - first.at,
        key: first.headers["Idempotency-Key"] === first.body.generation_id };
    """
    told = scripted(blank, body)
    assert (told["turn"], told["same"], told["asked"], told["key"]) == (1, 1, 2, True)
    assert 5_000 <= told["pause"] <= 8_500  # it waits for the browser's connections to be tried


#
def test_a_start_under_a_key_of_the_callers_is_the_same_whoever_repeats_it(blank: Page) -> None:
    body = """
      for (const page of [1, 2]) { // as behind a reload
        const one = session(server({ session_id: "s", generation_id: "g", cursor: cursor(2), turn: 1 }));
        await one.start({ text: "once" }, { key: "order-7" });
      }
      return asked.map(({ body, headers }) => [body, headers["Idempotency-Key"]]);
    """
    assert scripted(blank, body) == [[{"text": "once"}, "order-7"]] * 2


#
def test_the_stream_tells_what_became_of_a_start_whose_answer_is_lost(blank: Page) -> None:
    body = """
      const begun = Date.now();
      const starting = one.start({ text: "once" });
      while (id === undefined) await new Promise((done) => setTimeout(done, 5));
      tell(sse(2, stamp(2, "generation.started", { producer: "p", policy: "supersede" },
        { generation_id: id, turn: 1 })));
      const started = await starting;
      one.close();
      return { ...started, generation_id: started.generation_id === id, took: Date.now() - begun, asked: asked.length };
    """
    told = scripted(blank, QUIET + body)
    took = told.pop("took")
    assert told == {"session_id": "s", "generation_id": True, "cursor": "e-0000000000000002", "turn": 1, "asked": 1}
    assert 1_900 <= took <= 5_000  # its own answer would say more, and has a moment to come


def test_a_refusal_says_whether_it_may_have_been_carried_out(blank: Page) -> None:
    body = """
      const said = ({ code, uncertain }) => [code, uncertain];
      const start = (...answers) => session(server(...answers)).start({}).catch(said);
      const reset = (answer) => session(server(answer)).reset().catch(said); // is sent once
      return [
        await start(problem(409, "GENERATION_ACTIVE")),
        await start("broken", problem(409, "GENERATION_ACTIVE")), // judged under the key: it had not been
        await start("broken", problem(401, "UNAUTHENTICATED")), // not judged
        await reset("broken"),
        await reset(new Response("", { status: 502 })),
        await reset(problem(503, "OVERLOADED", true)),
      ];
    """
    assert scripted(blank, body) == [
        ["GENERATION_ACTIVE", False],
        ["GENERATION_ACTIVE", False],
        ["UNAUTHENTICATED", True],
        ["UNREACHABLE", True],
        ["BAD_ANSWER", True],
        ["OVERLOADED", False],
    ]


def test_who_waits_to_connect_again_goes_when_the_page_is_back_but_not_before_the_server_allows(blank: Page) -> None:
    body = """
      Math.random = () => 1; // the longest pauses
      const waits = async (...answers) => {
        const one = session(server(...answers, { parts: [opened(0), live(0)] }), { snapshot: false });
        const begun = Date.now();
        one.follow();
        await until(one, ({ connection: { state, attempts } }) => state === "waiting" && attempts === answers.length);
        dispatchEvent(new Event("pageshow"));
        await until(one, ({ connection }) => connection.state === "live");
        one.close();
        return Date.now() - begun;
      };
      const broken = await waits("broken", "broken", "broken"); // 250 and 500 ms, and it would be a second
      asked.length = 0;
      const refused = await waits(problem(503, "OVERLOADED", true, { "Retry-After": "1" }));
      return { broken, refused };
    """
    told = scripted(blank, body)
    assert told["broken"] < 1_500
    assert told["refused"] >= 990


#
def test_what_may_be_repeated_is_repeated_and_the_rest_is_not(blank: Page) -> None:
    body = """
      const one = session(server("broken", new Response("<html>", { status: 502 }), { cursor: "c" }));
      const posted = await one.post({ text: "x" });
      const ids = new Set(asked.map(({ body }) => body.message_id));
      const codes = [];
      for (const answer of ["broken", problem(409, "GENERATION_ACTIVE"), new Response("no", { status: 404 })]) {
        codes.push((await session(server(answer)).reset().catch((error) => error)).code);
      }
      const leave = new AbortController();
      const left = session(server("broken")).start({}, { signal: leave.signal }).catch((error) => error.name);
      leave.abort();
      const name = await left;
      const after = asked.length;
      await new Promise((done) => setTimeout(done, 600));
      return { posted, ids: ids.size, codes, name, still: asked.length === after };
    """
    assert scripted(blank, body) == {
        "posted": {"cursor": "c"},
        "ids": 1,
        "codes": ["UNREACHABLE", "GENERATION_ACTIVE", "BAD_ANSWER"],
        "name": "AbortError",
        "still": True,
    }


#
@OVER
def test_with_a_token_approvals_are_answered_and_a_session_is_followed(
    browser: Browser, start_server: Callable[..., ServerProcess], tmp_path: Path, over: str
) -> None:
    key = tmp_path / "key"
    key.write_bytes(SECRET)
    server = start_server("--jwt-key", str(key))
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{server.url}/icon.svg")
    body = """async ([over, good, bad]) => {
      const { Client, newId } = await import("./penstock.js");
      const asked = [];
      const token = ({ refused }) => { asked.push(refused); return refused ? good : bad; };
      const session = new Client({ token }).session("s", { over });
      await session.create();
      session.follow();
      const reached = (test) => new Promise((done) => {
        const look = () => test(session.getSnapshot()) && done();
        session.subscribe(look);
        look();
      });
      await reached(({ connection }) => connection.state === "live");
      const generation_id = newId();
      await session.start({ producer: "remote", generation_id });
      const headers = { Authorization: `Bearer ${good}`, "Content-Type": "application/json" };
      const chunk = { generation_id, type: "approval.requested", data: { name: "rm", approval_id: "a1" } };
      await fetch("v1/sessions/s/chunks", { method: "POST", headers, body: JSON.stringify(chunk) });
      await reached(({ approvals }) => approvals.length === 1);
      await session.approve("a1");
      await reached(({ approvals }) => approvals.length === 0);
      await session.stop();
      await reached(({ generation, ends }) => generation === null && ends[generation_id]?.outcome === "stopped");
      session.close();
      const sessions = await new Client({ token: good }).sessions();
      return { refused: asked.includes(true), listed: sessions.sessions.length,
        attempts: session.getSnapshot().connection.attempts };
    }"""
    told = page.evaluate(body, [over, token(), token(key=b"another key, as long as it has to be, or longer")])
    context.close()
    assert told == {"refused": True, "listed": 1, "attempts": 2}


@OVER
def test_a_page_goes_back_to_an_earlier_version(blank: Page, site: ServerProcess, over: str) -> None:
    body = """async ([url, over]) => {
      const { Client } = await import("./penstock.js");
      const client = new Client({ url });
      const session = client.session(`versions-${over}`, { over });
      await session.create();
      session.follow();
      const reached = (test) => new Promise((done) => {
        const look = () => test(session.getSnapshot()) && done();
        session.subscribe(look);
        look();
      });
      const said = async (body) => {
        const { generation_id: id } = await session.start({ producer: "echo", input: { delay: 0 }, ...body });
        await reached(({ ends }) => ends[id] !== undefined);
        return session.getSnapshot().messages;
      };
      const [question, answer] = await said({ text: "why" });
      const shown = (messages) => messages.map(
        ({ blocks, version }) => [blocks[0].text, version?.index ?? null, version?.count ?? null]);
      const anew = shown(await said({ replaces: answer.message_id }));
      const edited = shown(await said({ text: "how", replaces: question.message_id }));
      const versions = await session.versions(question.message_id);
      const page = await session.versions(question.message_id, { after: 1, limit: 1 });
      const restored = await session.restore(question.message_id);
      await reached(({ cursor }) => cursor === restored.cursor);
      const { connection, ends, presence, generation, ...now } = session.getSnapshot();
      session.close();
      return { anew, edited, versions: shown(versions.versions), page: shown(page.versions), more: versions.more,
        restored: restored.message_ids, now, server: await session.fetchSnapshot(), back: shown(now.messages),
        producers: (await client.producers()).producers.map(({ name }) => name) };
    }"""
    told = blank.evaluate(body, [site.url, over])
    assert told["anew"] == [["why", None, None], ["why", 2, 2]]
    assert told["edited"] == [["how", 2, 2], ["how", None, None]]
    assert told["versions"] == [["why", 1, 2], ["how", 2, 2]]
    assert (told["page"], told["more"]) == ([["how", 2, 2]], False)
    assert told["back"] == [["why", 1, 2], ["why", 2, 2]]
    assert told["restored"] == [message["message_id"] for message in told["now"]["messages"]]
    assert told["now"] == told["server"]
    assert "echo" in told["producers"]


@OVER
def test_older_messages_come_in_pages_when_they_are_asked_for(blank: Page, site: ServerProcess, over: str) -> None:
    """One that is open stands in front of them, and where it belongs once those around it are there."""
    path = f"/v1/sessions/pages-{over}"
    call(site.url, "PUT", path, {})
    for number in range(8):
        call(site.url, "POST", f"{path}/messages", {"text": f"{number}:" + "x" * 200_000})
    open_ = {"generation_id": str(uuid4()), "message_id": str(uuid4()), "data": {"text": "begun"}}
    call(site.url, "POST", f"{path}/chunks", open_)
    for number in range(8, 12):
        call(site.url, "POST", f"{path}/messages", {"text": f"{number}:" + "x" * 200_000})
    body = """async ([id, url, over]) => {
      const { Session } = await import("./penstock.js");
      const session = new Session(id, { url, over, limit: 2 });
      const begins = ({ blocks }) => blocks[0].text.slice(0, 13).replace(/x+$/, "");
      const shown = () => session.getSnapshot().messages.map(begins);
      window.paged = { session, shown };
      session.follow();
      await new Promise((done) => {
        const look = () => session.getSnapshot().connection.state === "live" && done();
        session.subscribe(look);
        look();
      });
      const states = [shown()];
      for (let more = session.getSnapshot().more; more; ) {
        more = await session.older({ limit: 3 });
        states.push(shown());
      }
      return states;
    }"""
    states = blank.evaluate(body, [f"pages-{over}", site.url, over])
    assert states[:2] == [["begun", "10:", "11:"], ["begun", "8:", "9:", "10:", "11:"]]
    assert [len(each) for each in states] == sorted({len(each) for each in states}), "each page brings something"
    call(site.url, "POST", f"{path}/chunks", {**open_, "data": {"text": " and on"}})
    call(site.url, "POST", f"{path}/generations/{open_['generation_id']}/finish", {})
    blank.wait_for_function("() => paged.session.getSnapshot().generation === null")
    told = blank.evaluate("""() => {
      paged.session.close();
      return { text: paged.shown(), more: paged.session.getSnapshot().more };
    }""")
    expected = [f"{number}:" for number in range(8)] + ["begun and on"] + [f"{number}:" for number in range(8, 12)]
    assert (told["text"], told["more"]) == (expected, False)
