"""The playground in a real browser, against a real server."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.e2e.conftest import ServerProcess

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Browser, Locator, Page, expect  # noqa: E402

CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed: apt-get install chromium"),
]

PATIENCE = 20_000  # milliseconds


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all: every test opens sessions of its own. It ends while the browser still holds connections."""
    running = ServerProcess(tmp_path_factory.mktemp("site"))
    yield running
    assert running.stop() == 0, running.log.read_text()
    assert "Traceback" not in running.log.read_text()


@pytest.fixture
def complaints() -> list[str]:
    """What the page's console shows; a test takes out what it expects."""
    return []


@pytest.fixture
def page(browser: Browser, site: ServerProcess, complaints: list[str]) -> Iterator[Page]:
    """The page, open and live. That the console stays silent is part of every test."""
    context = browser.new_context(viewport={"width": 1360, "height": 860})
    context.set_default_timeout(PATIENCE)
    opened = context.new_page()
    opened.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto(f"{site.url}/")
    for key in "ab":
        live(panel(opened, key))
    yield opened
    context.close()
    assert complaints == []


def panel(page: Page, key: str) -> Locator:
    return page.locator(f"[data-panel={key}]")


def live(conversation: Locator) -> None:
    conversation.locator(".pill[data-state=live]").wait_for()


def say(conversation: Locator, text: str, pace: str | None = None) -> None:
    if pace is not None:
        conversation.locator("select").select_option(label=pace)
    conversation.locator("textarea").fill(text)
    conversation.locator("textarea").press("Enter")


def answers(conversation: Locator, status: str | None = None) -> Locator:
    state = "" if status is None else f"[data-status={status}]"
    return conversation.locator(f".message[data-role=assistant]{state}")


def body(message: Locator) -> Locator:
    return message.locator(".body")


def offsets(conversation: Locator) -> list[int]:
    cells = conversation.locator("tbody tr:not([data-family=control]) td:first-child").all_inner_texts()
    return [int(cell) for cell in cells]


def words(prefix: str, count: int) -> str:
    return " ".join(f"{prefix}{number}" for number in range(count))


def session_ids(page: Page) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(urlsplit(page.url).fragment).items()}


#
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
def test_every_event_is_listed_with_its_stamp(page: Page) -> None:
    a = panel(page, "a")
    say(a, "one two")
    expect(answers(a, "complete")).to_have_count(1)
    deltas = a.locator("tbody tr", has=page.get_by_text("block.delta", exact=True))
    expect(deltas).to_have_count(2)
    offset, kind, generation, turn, job, message, index, seq, data = deltas.nth(1).locator("td").all_inner_texts()
    assert int(offset) > 1
    assert kind == "block.delta"
    assert re.fullmatch("[0-9a-f]{6}", generation)
    assert re.fullmatch("[0-9a-f]{6}", message)
    assert (turn, job, index, seq) == ("1", "a-1", "0", "2")
    assert data == '{"text":" two"}'


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


def test_escape_stops(page: Page) -> None:
    a = panel(page, "a")
    say(a, words("w", 200))
    expect(body(answers(a, "open"))).to_contain_text("w2")
    a.locator("textarea").press("Escape")
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
    assert body(answers(a)).evaluate("element => element.textContent") == text


def test_new_begins_another_session(page: Page) -> None:
    a = panel(page, "a")
    say(a, "first", "fast")
    expect(answers(a, "complete")).to_have_count(1)
    before = session_ids(page)
    a.locator(".fresh").click()
    expect(answers(a)).to_have_count(0)
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
    expect(a.locator("textarea")).to_have_value("into the void")
    assert [complaint for complaint in complaints if "410" not in complaint] == []
    complaints.clear()


#
def test_the_pages_fold_is_the_servers_snapshot(page: Page) -> None:
    a = panel(page, "a")
    say(a, words("old", 200))
    expect(body(answers(a, "open"))).to_contain_text("old2")
    say(a, "and then\nanother")
    expect(answers(a, "complete")).to_have_count(1)
    folded, snapshot = page.evaluate(FOLD, session_ids(page)["a"])
    assert folded == snapshot


# Read the whole log from its start through the page's own reader, and lay its fold beside the server's.
FOLD = """async (id) => {
  const { Session } = await import("./penstock.js");
  const fold = await new Promise((resolve) => {
    const session = new Session(id, { onConnection(state) {
      if (state === "live") { session.close(); resolve(session.fold); }
    } });
    session.follow();
  });
  const snapshot = await (await fetch(`v1/sessions/${id}`)).json();
  const { sessionId, cursor, messages, queue, approvals, metadata, more } = fold;
  return [{ session_id: sessionId, cursor, messages, queue, approvals, metadata, more }, snapshot];
}"""


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


APPLY = """async ([id, events]) => {
  const { Fold } = await import("./penstock.js");
  const fold = new Fold(id);
  const verdicts = events.map((event) => fold.apply(event, `e-${String(event.offset ?? 0).padStart(16, "0")}`));
  return { verdicts, texts: fold.messages.map((message) => message.blocks.map((block) => block.text ?? "").join("|")) };
}"""


def stamped(offset: int | None, kind: str, data: dict[str, Any], **stamp: Any) -> dict[str, Any]:
    event = {"type": kind, "session_id": "s", "time": "", "data": data, **stamp}
    return event if offset is None else {"offset": offset, **event}


BLOCK = {"message_id": "m", "block_index": 0}
LOG = [
    stamped(1, "session.created", {"metadata": {}}),
    stamped(2, "message.opened", {"role": "assistant"}, message_id="m"),
    stamped(3, "block.opened", {"kind": "text"}, **BLOCK, seq=0),
    stamped(4, "block.delta", {"text": "a"}, **BLOCK, seq=1),
    stamped(5, "block.delta", {"text": "b"}, **BLOCK, seq=2),
]


#
def test_the_fold_takes_each_event_once(page: Page) -> None:
    result = page.evaluate(APPLY, ["s", [*LOG, *LOG, LOG[3], {**LOG[4], "offset": 6}]])
    assert result == {"verdicts": ["applied"] * 5 + ["duplicate"] * 7, "texts": ["ab"]}


#
def test_the_fold_ignores_other_sessions_and_ephemeral_events(page: Page) -> None:
    foreign = {**stamped(6, "block.delta", {"text": "x"}, **BLOCK, seq=3), "session_id": "t"}
    presence = stamped(None, "presence.changed", {"actor_id": "x", "device_id": "y"})
    unknown = stamped(6, "something.newer", {"more": 1})
    result = page.evaluate(APPLY, ["s", [*LOG, foreign, presence, unknown]])
    assert result["verdicts"][5:] == ["foreign", "ephemeral", "applied"]
    assert result["texts"] == ["ab"]


#
def test_the_fold_invents_no_message_and_papers_over_no_gap(page: Page) -> None:
    lost_message = stamped(6, "block.delta", {"text": "x"}, message_id="n", block_index=0, seq=1)
    lost_delta = stamped(7, "block.delta", {"text": "x"}, **BLOCK, seq=4)
    result = page.evaluate(APPLY, ["s", [*LOG, lost_message, lost_delta]])
    assert result == {"verdicts": ["applied"] * 5 + ["gap"] * 2, "texts": ["ab"]}


#
def test_the_frame_parser_keeps_cut_characters_and_cut_frames_whole(page: Page) -> None:
    frames = page.evaluate(
        """async () => {
          const { FrameParser } = await import("./penstock.js");
          const text = 'retry: 250\\nid: e-1\\n\\nid: e-2\\ndata: {"t":"水🚰"}\\n\\n: ping\\n\\nevent: end\\n'
            + 'data: {}\\n\\ndata: cut';
          const parser = new FrameParser();
          return [...new TextEncoder().encode(text)].flatMap((byte) => parser.push(Uint8Array.of(byte)));
        }"""
    )
    assert frames == [
        {"retry": 250, "id": "e-1"},
        {"id": "e-2", "data": '{"t":"水🚰"}'},
        {"event": "end", "data": "{}"},
    ]
