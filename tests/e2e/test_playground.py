"""The playground in a real browser, against a real server."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.e2e.conftest import ServerProcess
from tests.e2e.panels import (
    PACES,
    PATIENCE,
    answers,
    body,
    give,
    inspect,
    live,
    offsets,
    panel,
    say,
    session_ids,
    words,
)

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Browser, Locator, Page, expect

pytestmark = pytest.mark.browser


# R-6 R-7 R-8 R-125 R-138
def test_two_conversations_stream_at_once_without_mixing(page: Page) -> None:
    a, b = panel(page, "a"), panel(page, "b")
    say(a, words("left", 40))
    say(b, words("right", 40))
    expect(body(answers(a, "open"))).to_contain_text("left3")
    expect(body(answers(b, "open"))).to_contain_text("right3")
    expect(body(answers(a, "complete"))).to_have_text(words("left", 40), timeout=PATIENCE)
    expect(body(answers(b, "complete"))).to_have_text(words("right", 40), timeout=PATIENCE)
    for conversation in (a, b):
        expect(answers(conversation)).to_have_count(1)
        assert offsets(conversation) == list(range(1, len(offsets(conversation)) + 1))
        expect(conversation.locator(".counts")).not_to_contain_text(re.compile("foreign|repeated|gaps"))


#
# the page says that something is under way as soon as it is sent, and stops saying it with the answer's end.
@pytest.mark.parametrize("end", ["complete", "stopped"])
def test_work_is_shown_from_the_sending_to_the_first_word(page: Page, site: ServerProcess, end: str) -> None:
    a = panel(page, "a")
    session = f"{site.url}/v1/sessions/{session_ids(page)['a']}"
    working = a.locator(".working")
    expect(working).to_be_hidden()
    generation = str(uuid4())
    httpx.post(f"{session}/generations", json={"producer": "remote", "generation_id": generation, "text": "well?"})
    expect(working).to_be_visible()
    expect(answers(a)).to_have_count(0)
    status = {"generation_id": generation, "type": "generation.status", "data": {"status": "thinking"}}
    httpx.post(f"{session}/chunks", json=status).raise_for_status()
    expect(working).to_contain_text("thinking")
    expect(answers(a)).to_have_count(0)  # a status is no message
    if end == "complete":
        chunk = {"generation_id": generation, "data": {"text": "so"}}
        httpx.post(f"{session}/chunks", json=chunk).raise_for_status()
        expect(answers(a, "open")).to_have_count(1)
        expect(working).to_be_hidden()
        httpx.post(f"{session}/generations/{generation}/finish", json={}).raise_for_status()
        expect(answers(a, "complete")).to_have_count(1)
    else:
        httpx.post(f"{session}/stop", json={}).raise_for_status()
    expect(working).to_be_hidden()
    assert httpx.get(f"{session}/generations/{generation}").json()["state"] == "finished"


# R-74 R-132: two sends in one tick, in a conversation that does not exist yet.
def test_two_quick_sends_in_a_fresh_conversation_are_two_bubbles_each(page: Page) -> None:
    page.get_by_role("button", name="New conversation", exact=True).click()
    a = panel(page, "a")
    give(a, PACES["fast"])
    inspect(a)
    a.locator(".composer textarea").evaluate("""(field) => {
      for (const text of ["first words", "second words"]) {
        field.value = text;
        field.dispatchEvent(new Event("input", { bubbles: true }));
        field.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true, cancelable: true }));
      }
    }""")
    users = a.locator(".message[data-role=user]")
    expect(users).to_have_count(2)
    expect(body(answers(a, "complete").last)).to_have_text("second words")
    live(a)
    assert users.locator(".body").all_inner_texts() == ["first words", "second words"]
    starts = a.locator("tbody tr", has=page.get_by_text("generation.started", exact=True))
    expect(starts).to_have_count(2)
    page.reload()
    live(a)
    expect(body(answers(a, "complete").last)).to_have_text("second words")
    assert users.locator(".body").all_inner_texts() == ["first words", "second words"]


# what was read as it came looks like what is loaded, message by message, also what is several pages back.
@pytest.mark.long
def test_a_long_history_is_rendered_as_it_was_live(page: Page, site: ServerProcess) -> None:
    session = f"{site.url}/v1/sessions/long"
    httpx.put(session).raise_for_status()
    page.goto(f"{site.url}/#a=long")
    a = panel(page, "a")
    live(a)
    generation = str(uuid4())
    for piece, seen in (("# He", "He"), ("ad\n\n- *a", "*a"), ("*\n- `b", "`b"), ("`\n\n> *c", "*c"), ("*\nd", "d")):
        chunk = {"generation_id": generation, "data": {"text": piece}}
        httpx.post(f"{session}/chunks", json=chunk).raise_for_status()
        expect(body(answers(a))).to_contain_text(seen)  # drawn before the next one comes
    for batch in range(4):
        chunks = []
        for number in range(batch * 80, batch * 80 + 80):
            message = {"generation_id": generation, "message_id": str(uuid4())}
            chunks += [
                {**message, "type": "message.opened", "role": "assistant"},
                {**message, "data": {"text": f"# {number}\n\n- *a{number}*\n- `b`\n\n{'water ' * 400}"}},
                {**message, "type": "message.closed", "data": {}},
            ]
        httpx.post(f"{session}/chunks/batch", json={"chunks": chunks}).raise_for_status()
    httpx.post(f"{session}/generations/{generation}/finish", json={}).raise_for_status()
    expect(answers(a, "complete")).to_have_count(321)
    texts = "(all) => all.map((each) => each.querySelector('.body').innerHTML)"
    before = answers(a).evaluate_all(texts)
    pages: list[str] = []
    page.on("request", lambda request: pages.append(request.url) if "before=" in request.url else None)
    page.reload()
    live(a)
    older = a.get_by_role("button", name="Older messages")
    while (shown := answers(a, "complete").count()) < 321:
        older.click()
        expect(answers(a, "complete").nth(shown)).to_be_attached()
    expect(older).to_be_hidden()
    assert answers(a).evaluate_all(texts) == before
    assert pages, "one page of the state has not all of it"


#
def test_every_event_is_listed_with_its_stamp(page: Page) -> None:
    a = panel(page, "a")
    inspect(a)
    say(a, "one two")
    expect(answers(a, "complete")).to_have_count(1)
    deltas = a.locator("tbody tr", has=page.get_by_text("block.delta", exact=True))
    expect(deltas).to_have_count(2)
    offset, kind, generation, turn, job, message, index, seq, lag, data = deltas.nth(1).locator("td").all_inner_texts()
    assert int(offset) > 1
    assert kind == "block.delta"
    assert re.fullmatch("[0-9a-f]{6}", generation)
    assert re.fullmatch("[0-9a-f]{6}", message)
    assert (turn, job, index, seq) == ("1", "a-1", "0", "2")
    assert 0 <= int(lag) < PATIENCE
    assert data == '{"text":" two"}'
    deltas.nth(1).click()
    assert '"message_id": ' in a.locator(".whole").inner_text()


#
def test_stop_ends_the_answer_and_keeps_what_was_said(page: Page) -> None:
    a = panel(page, "a")
    say(a, words("w", 200))
    expect(body(answers(a, "open"))).to_contain_text("w4")
    a.locator(".stop").click()
    stopped = answers(a, "cancelled")
    expect(stopped).to_have_count(1)
    expect(stopped.locator(".foot")).to_have_text(re.compile("stopped"))
    expect(a.locator(".stop")).to_be_disabled()
    assert words("w", 200).startswith(body(stopped).inner_text().rstrip())


def test_escape_that_closes_what_the_producer_is_given_stops_nothing(page: Page) -> None:
    a = panel(page, "a")
    say(a, words("w", 100), "slow")
    expect(answers(a, "open")).to_have_count(1)
    given = a.locator(".given textarea")
    a.get_by_role("button", name="Input for who answers").press("Enter")
    expect(given).to_be_focused()
    page.keyboard.press("Escape")
    expect(given).to_be_hidden()
    expect(a.get_by_role("button", name="Input for who answers")).to_be_focused()
    expect(body(answers(a, "open"))).to_contain_text("w3")
    page.keyboard.press("Escape")
    expect(answers(a, "cancelled")).to_have_count(1)


def test_escape_stops(page: Page) -> None:
    a = panel(page, "a")
    say(a, words("w", 200))
    expect(body(answers(a, "open"))).to_contain_text("w2")
    a.locator(".field").press("Escape")
    expect(answers(a, "cancelled")).to_have_count(1)


#
def test_sending_again_supersedes(page: Page) -> None:
    a = panel(page, "a")
    say(a, words("old", 200))
    expect(body(answers(a, "open"))).to_contain_text("old2")
    say(a, "new one")
    expect(answers(a, "cancelled").locator(".foot")).to_have_text(re.compile("superseded"))
    expect(body(answers(a, "complete"))).to_have_text("new one")
    expect(answers(a)).to_have_count(2)


#
def test_dropped_connection_resumes_with_no_doubled_word(page: Page) -> None:
    a = panel(page, "a")
    inspect(a)
    text = words("w", 60)
    say(a, text)
    for seen in ("w3", "w40"):
        expect(body(answers(a))).to_contain_text(seen)
        a.locator(".drop").click()
        a.locator(".pill[data-state=waiting]").wait_for()
        live(a)
    expect(body(answers(a, "complete"))).to_have_text(text)
    assert offsets(a) == list(range(1, len(offsets(a)) + 1))
    expect(a.locator(".counts")).not_to_contain_text(re.compile("repeated|gaps"))


#
def test_reload_mid_answer_keeps_identity(page: Page) -> None:
    a = panel(page, "a")
    text = words("w", 60)
    say(a, text)
    expect(body(answers(a, "open"))).to_contain_text("w3")
    ids, message_id = session_ids(page), answers(a).get_attribute("data-id")
    page.reload()
    live(a)
    assert session_ids(page) == ids
    expect(answers(a)).to_have_attribute("data-id", message_id or "")
    expect(body(answers(a, "complete"))).to_have_text(text)
    expect(answers(a)).to_have_count(1)
    expect(a.locator(".message[data-role=user]")).to_have_count(1)


def test_white_space_and_every_script_survive(page: Page) -> None:
    a = panel(page, "a")
    text = "  Größe\n\n\t水門から水車まで一滴も失われない\u2028🚰 <b>&amp;</b>"
    say(a, text, "fast")
    expect(answers(a, "complete")).to_have_count(1)
    assert body(a.locator(".message[data-role=user]")).evaluate("element => element.textContent") == text
    answers(a).hover()
    answers(a).get_by_role("button", name="Show as written").click()
    assert answers(a).locator(".source").evaluate("element => element.textContent") == text


def test_what_is_sent_stays_in_its_conversation_though_another_is_opened_at_once(
    page: Page, site: ServerProcess
) -> None:
    a = panel(page, "a")
    left = session_ids(page)["a"]
    a.evaluate(
        """(pane, text) => {
      const field = pane.querySelector(".composer textarea");
      field.value = text;
      field.dispatchEvent(new Event("input", { bubbles: true }));
      field.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true, cancelable: true }));
      pane.querySelector(".fresh").click();
    }""",
        words("w", 40),
    )
    expect(a.locator(".message")).to_have_count(0)
    say(a, "of its own", "fast")
    expect(body(answers(a, "complete"))).to_have_text("of its own")
    opened = session_ids(page)["a"]
    assert opened != left
    page.goto(f"{site.url}/#a={left}")
    expect(body(answers(a, "complete"))).to_have_text(words("w", 40), timeout=PATIENCE)
    for session, text in ((left, words("w", 40)), (opened, "of its own")):
        told = httpx.get(f"{site.url}/v1/sessions/{session}").json()["messages"]
        assert [(message["role"], message["blocks"][0]["text"].strip()) for message in told] == [
            ("user", text),
            ("assistant", text),
        ]


@pytest.mark.long
def test_what_is_too_long_to_be_sent_stays_in_the_field_and_the_reason_is_told(
    page: Page, complaints: list[str]
) -> None:
    a = panel(page, "a")
    long = "x" * 1_100_000
    field = a.locator(".composer textarea")
    field.fill(long)
    field.press("Enter")
    expect(a.locator(".notice")).to_contain_text("Not sent: a body is at most 1048576 bytes")
    assert field.input_value() == long
    assert [complaint for complaint in complaints if "413" not in complaint] == []
    complaints.clear()
    say(a, "shorter", "fast")
    expect(body(answers(a, "complete"))).to_have_text("shorter")


@pytest.mark.long
def test_who_reads_further_up_stays_there_while_an_answer_grows(page: Page) -> None:
    a = panel(page, "a")
    say(a, "\n\n".join(words(f"line{number}-", 5) for number in range(40)), "fast")
    expect(answers(a, "complete")).to_have_count(1, timeout=PATIENCE)
    say(a, "\n\n".join(words(f"row{number}-", 3) for number in range(60)), "slow")
    expect(body(answers(a).last)).to_contain_text("row1-")
    transcript = a.locator(".transcript")
    from_end = "(each) => each.scrollHeight - each.scrollTop - each.clientHeight"
    grown = """(each) => {
      const height = each.scrollHeight;
      return new Promise((done) => {
        const look = () => each.scrollHeight > height + 100 ? done() : requestAnimationFrame(look);
        look();
      });
    }"""
    assert transcript.evaluate(from_end) < 2
    transcript.evaluate("(each) => { each.scrollTop = 40; }")
    down = a.locator(".down")
    expect(down).to_be_visible()
    transcript.evaluate(grown)
    assert transcript.evaluate("(each) => each.scrollTop") == 40
    down.click()
    transcript.evaluate(grown)
    assert transcript.evaluate(from_end) < 2
    a.locator(".stop").click()


def test_new_begins_another_session(page: Page) -> None:
    a = panel(page, "a")
    say(a, "first", "fast")
    expect(answers(a, "complete")).to_have_count(1)
    before = session_ids(page)
    a.locator(".fresh").click()
    expect(answers(a)).to_have_count(0)
    say(a, "second", "fast")
    live(a)
    after = session_ids(page)
    assert after["a"] != before["a"]
    assert after["b"] == before["b"]


#
def test_what_could_not_be_sent_is_not_lost(page: Page, site: ServerProcess, complaints: list[str]) -> None:
    a = panel(page, "a")
    page.request.delete(f"{site.url}/v1/sessions/{session_ids(page)['a']}")
    a.locator(".pill[data-state=ended]").wait_for()
    say(a, "into the void")
    expect(a.locator(".notice")).to_contain_text("Not sent")
    expect(a.locator(".field")).to_have_value("into the void")
    assert [complaint for complaint in complaints if "410" not in complaint] == []
    complaints.clear()


#
def test_older_messages_that_cannot_be_loaded_are_told(page: Page, site: ServerProcess, complaints: list[str]) -> None:
    session = f"{site.url}/v1/sessions/cut"
    httpx.put(session).raise_for_status()
    for number in range(4):
        httpx.post(f"{session}/messages", json={"text": f"{number}" + " water" * 40_000}).raise_for_status()
    away = re.compile("before=")
    page.route(away, lambda route: route.fulfill(status=403, json={"code": "FORBIDDEN", "detail": "not for you"}))
    page.goto(f"{site.url}/#a=cut")
    a = panel(page, "a")
    live(a)
    page.reload()  # it is known now, and begins with its state
    live(a)
    notice = a.locator(".notice")
    said = a.locator(".message[data-role=user]")
    assert said.count() < 4
    a.get_by_role("button", name="Older messages").click()
    expect(notice).to_contain_text("Older messages are missing: not for you")
    page.unroute(away)
    notice.get_by_role("button", name="Try again").click()
    expect(said).to_have_count(4)
    expect(notice).to_be_hidden()
    assert [complaint for complaint in complaints if "403" not in complaint] == []
    complaints.clear()


@pytest.mark.long
def test_older_messages_come_above_what_is_being_read(page: Page, site: ServerProcess) -> None:
    session = f"{site.url}/v1/sessions/above"
    httpx.put(session).raise_for_status()
    for number in range(70):
        httpx.post(f"{session}/messages", json={"text": f"message {number}"}).raise_for_status()
    page.goto(f"{site.url}/#a=above")
    a = panel(page, "a")
    live(a)
    page.reload()  # it begins with its state, which is not all of it
    live(a)
    said = a.locator(".message[data-role=user]")
    expect(said).to_have_count(60)
    a.locator(".transcript").evaluate("(each) => { each.scrollTop = 0; }")
    read = a.get_by_text("message 10", exact=True)
    before = read.bounding_box()
    older = a.get_by_role("button", name="Older messages")
    older.click()
    expect(said).to_have_count(70)
    expect(older).to_be_hidden()
    after = read.bounding_box()
    assert before is not None
    assert after is not None
    assert abs(after["y"] - before["y"]) < 3


#
def test_the_pages_fold_is_the_servers_snapshot(page: Page) -> None:
    a = panel(page, "a")
    say(a, words("old", 200))
    expect(body(answers(a, "open"))).to_contain_text("old2")
    say(a, "and then\nanother")
    expect(answers(a, "complete")).to_have_count(1)
    say(a, words("live", 200))
    choose(a, "queue")
    say(a, "one that waits")
    expect(waiting(a)).to_have_count(1)
    a.locator(".stop").click()
    expect(a.locator(".next")).to_be_visible()
    folded, snapshot = page.evaluate(FOLD, session_ids(page)["a"])
    assert folded == snapshot


# Read the whole log from its start through the page's own reader, and lay its fold beside the server's.
FOLD = """async (id) => {
  const { Session } = await import("./penstock.js");
  const session = new Session(id, { snapshot: false });
  session.subscribe(() => session.getSnapshot().connection.state === "live" && session.close());
  await session.follow();
  const { connection, ends, presence, generation, ...rest } = session.getSnapshot();
  return [generation ? { ...rest, generation } : rest, await session.fetchSnapshot()];
}"""


def waiting(conversation: Locator) -> Locator:
    return conversation.locator(".waiting li")


def choose(conversation: Locator, policy: str) -> None:
    conversation.locator(".policy select").select_option(policy)


#
def test_what_waits_is_shown_and_starts_in_its_turn(page: Page) -> None:
    a = panel(page, "a")
    choose(a, "queue")
    say(a, words("first", 25))
    expect(body(answers(a, "open"))).to_contain_text("first1")
    for number, text in enumerate(("second", "third", "fourth"), 1):
        say(a, text)
        expect(waiting(a)).to_have_count(number)
    expect(waiting(a).nth(1)).to_contain_text("third")
    waiting(a).nth(1).locator(".out").click()
    expect(waiting(a)).to_have_count(2)
    expect(answers(a, "complete")).to_have_count(3, timeout=PATIENCE)
    expect(a.locator(".waiting")).to_be_hidden()
    assert answers(a).locator(".body").all_inner_texts() == [words("first", 25), "second", "fourth"]


#
def test_stop_holds_the_queue_and_next_goes_on(page: Page) -> None:
    a = panel(page, "a")
    choose(a, "queue")
    say(a, words("first", 200))
    expect(body(answers(a, "open"))).to_contain_text("first1")
    say(a, "second")
    expect(waiting(a)).to_have_count(1)
    expect(a.locator(".next")).to_be_hidden()
    a.locator(".stop").click()
    expect(answers(a, "cancelled")).to_have_count(1)
    expect(a.locator(".waiting")).to_have_attribute("data-paused", "true")
    page.reload()
    live(a)
    expect(waiting(a)).to_have_text(re.compile("second"))
    a.locator(".next").click()
    expect(body(answers(a, "complete"))).to_have_text("second")
    expect(a.locator(".waiting")).to_be_hidden()


def test_an_answer_is_regenerated_in_its_place(page: Page) -> None:
    a = panel(page, "a")
    again = a.locator(".again")
    say(a, "say it", "fast")
    expect(answers(a, "complete")).to_have_count(1)
    first = answers(a).get_attribute("data-id")
    again.click()
    expect(a.locator(f"[data-id='{first}']")).to_have_count(0)
    expect(answers(a, "complete")).to_have_count(1)
    expect(body(answers(a))).to_have_text("say it")
    expect(a.locator(".message[data-role=user]")).to_have_count(1)
    expect(again).to_have_count(1)
    say(a, words("w", 200), "slow")
    expect(answers(a, "open")).to_have_count(1)
    expect(again).to_have_count(0)


@pytest.mark.long
def test_screenshot(page: Page, tmp_path: Path) -> None:
    a, b = panel(page, "a"), panel(page, "b")
    say(a, "The penstock carries the water from the dam to the wheel, and not a drop of it is lost on the way down.")
    say(b, "Slow is smooth, and smooth is fast enough to be read.", "slow")
    expect(body(answers(a, "open"))).to_contain_text("wheel")
    folder = Path(os.environ.get("PENSTOCK_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    page.emulate_media(color_scheme="light")
    page.screenshot(path=folder / "playground-light.png")
    page.emulate_media(color_scheme="dark")
    page.screenshot(path=folder / "playground-dark.png")
    assert (folder / "playground-dark.png").stat().st_size > 10_000
    for conversation in (a, b):
        expect(answers(conversation, "complete")).to_have_count(1, timeout=PATIENCE)
    choose(a, "queue")
    say(a, words("drop", 200), "slow")
    expect(answers(a, "open")).to_have_count(1)
    texts = ("And then, where does the water go?", "How much of it is there? " * 9, "Who opened the gate?")
    for number, text in enumerate(texts, 1):
        say(a, text)
        expect(waiting(a)).to_have_count(number)
    page.screenshot(path=folder / "waiting-dark.png")
    a.locator(".stop").click()
    expect(a.locator(".next")).to_be_visible()
    page.emulate_media(color_scheme="light")
    page.screenshot(path=folder / "paused-light.png")
    page.set_viewport_size({"width": 420, "height": 860})
    page.screenshot(path=folder / "paused-narrow.png")


GATES = """It is closed. These are the gates now:

| gate | open |
|---|---|
| penstock | 60 % |
| spillway | 0 % |

With **rain** in the night, 10 % are enough:
"""

PROGRAM = """An async generator is enough:

```python
async def poet(generation):
    for word in WORDS:
        await trio.sleep(0.1)
        yield word
```

- each word is stored, then shown;
- a stop ends it *within its clean-up*.
"""


def answer(at: str, *chunks: dict[str, Any], done: bool = True, **start: Any) -> str:
    """Start an answer in the session at this address, and write it. The id of its message."""

    def post(path: str, body: dict[str, Any]) -> Any:
        return httpx.post(f"{at}/{path}", json=body, trust_env=False).raise_for_status().json()

    generation = str(uuid4())
    post("generations", {"producer": "remote", "generation_id": generation, **start})
    told = post("chunks/batch", {"chunks": [{"generation_id": generation, **chunk} for chunk in chunks]})
    if done:
        post(f"generations/{generation}/finish", {})
    return str(told["message_id"])


# The README's: PENSTOCK_SCREENSHOTS=tests/e2e pytest --long tests/e2e/test_playground.py -k picture
@pytest.mark.long
def test_the_picture_of_the_page(browser: Browser, site: ServerProcess, tmp_path: Path) -> None:
    titles = {
        "hum": "Turbine two hums",
        "rain": "Rain this week",
        "producer": "A first producer",
        "station": "The spillway",
    }
    hum, rain, producer, station = (f"{site.url}/v1/sessions/{session}" for session in titles)
    for session, title in titles.items():
        at = f"{site.url}/v1/sessions/{session}"
        httpx.put(at, json={"metadata": {"title": title}}, trust_env=False).raise_for_status()
    answer(hum, {"data": {"text": "Since Monday."}}, text="Since when?")
    answer(rain, {"data": {"text": "On Tuesday"}}, text="When does it rain?", done=False)
    first = answer(producer, {"data": {"text": "Ask me again."}}, text="How do I write a producer?")
    answer(producer, {"data": {"text": PROGRAM}}, replaces=first)
    answer(producer, {"data": {"text": "What was said so far"}}, text="And when I stop it?", done=False)
    arguments = {"gate": "spillway", "percent": 10}
    call = {"tool_call_id": "call-1", "name": "move_gate"}
    answer(
        station,
        {"data": {"text": GATES}},
        {"type": "block.opened", "block_index": 1, "kind": "tool_call", "data": call},
        {"type": "block.closed", "block_index": 1, "data": {"arguments": arguments}},
        {"type": "approval.requested", "data": {**call, "approval_id": "a-1", "arguments": arguments}},
        text="Is the spillway open?",
        done=False,
    )
    httpx.put(f"{station}/presence/ann/desk", json={"name": "Ann Lee"}, trust_env=False).raise_for_status()
    folder = Path(os.environ.get("PENSTOCK_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    with browser.new_context(viewport={"width": 1080, "height": 740}, color_scheme="light") as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(f"{site.url}/#a=station&b=producer")
        a, b = panel(page, "a"), panel(page, "b")
        expect(a.get_by_text("10 % are enough")).to_be_visible()
        expect(a.get_by_role("button", name="Approve")).to_be_visible()
        expect(a.locator(".present li")).to_have_count(2)
        expect(b.locator(".versions .place:visible")).to_have_text("2/2")
        expect(b.get_by_text("What was said so far")).to_be_visible()
        expect(page.get_by_text("Turbine two hums")).to_be_visible()
        picture = folder / "playground.png"
        page.screenshot(path=picture)
    assert 10_000 < picture.stat().st_size <= 120_000


def test_the_picture_that_the_readme_shows_is_small() -> None:
    picture = Path(__file__).with_name("playground.png")
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) <= 120_000
