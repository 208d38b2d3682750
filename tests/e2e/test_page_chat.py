"""The page as a chat: one conversation, its address, what was written and not sent, what it is called, and the list."""

from __future__ import annotations

import re
from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest

from tests.e2e.conftest import ServerProcess
from tests.e2e.panels import PATIENCE, answers, body, give, live, panel, say, session_ids

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Browser, Locator, Page, expect

pytestmark = pytest.mark.browser


# What a browser says by itself of a conversation that is left before it was there.
LEFT = re.compile("WebSocket is closed before the connection is established")


@pytest.fixture
def chat(browser: Browser, site: ServerProcess, complaints: list[str]) -> Iterator[Page]:
    """The page as somebody opens it for the first time. That the console stays silent is part of every test."""
    context = browser.new_context(viewport={"width": 1360, "height": 860})
    context.set_default_timeout(PATIENCE)
    opened = context.new_page()
    opened.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto(f"{site.url}/")
    expect(panel(opened, "a").locator(".field")).to_be_focused()
    yield opened
    context.close()
    assert [complaint for complaint in complaints if not LEFT.search(complaint)] == []


def field(page: Page) -> Locator:
    return panel(page, "a").locator(".field")


def listed(page: Page, title: str) -> Locator:
    return page.locator(".conversations li", has=page.get_by_text(title, exact=True))


def opened(page: Page, title: str) -> None:
    listed(page, title).locator(".open").click()
    expect(panel(page, "a").locator("h2")).to_have_text(title)


def made(site: ServerProcess, text: str) -> str:
    session_id = str(uuid4())
    httpx.put(f"{site.url}/v1/sessions/{session_id}").raise_for_status()
    post(site, session_id, text)
    return session_id


def post(site: ServerProcess, session_id: str, text: str) -> None:
    httpx.post(f"{site.url}/v1/sessions/{session_id}/messages", json={"text": text}).raise_for_status()


def exists(site: ServerProcess, session_id: str) -> bool:
    return httpx.get(f"{site.url}/v1/sessions/{session_id}").status_code == 200


def test_there_is_one_conversation_and_it_is_made_by_what_is_sent_first(chat: Page, site: ServerProcess) -> None:
    a = panel(chat, "a")
    expect(chat.locator(".panel")).to_have_count(1)
    expect(a.locator("h2")).to_have_text("New conversation")
    expect(a.locator(".inspector .log")).to_be_hidden()
    session_id = session_ids(chat)["a"]
    chat.reload()
    expect(a.locator("h2")).to_have_text("New conversation")
    assert session_ids(chat) == {"a": session_id}
    assert not exists(site, session_id)
    say(a, "only now", "fast")
    expect(answers(a, "complete")).to_have_count(1)
    live(a)
    assert exists(site, session_id)
    expect(a.locator("h2")).to_have_text("only now")


def test_back_and_forward_lead_through_the_conversations(chat: Page) -> None:
    a = panel(chat, "a")
    addresses = []
    for text in ("first stop", "second stop"):
        say(a, text, "fast")
        expect(body(answers(a, "complete"))).to_have_text(text)
        addresses.append(chat.url)
        chat.get_by_role("button", name="New conversation", exact=True).click()
        expect(answers(a)).to_have_count(0)
    opened(chat, "first stop")
    assert chat.url == addresses[0]
    chat.go_back()
    expect(a.locator("h2")).to_have_text("New conversation")
    chat.go_back()
    expect(body(answers(a))).to_have_text("second stop")
    assert chat.url == addresses[1]
    chat.go_back()
    expect(body(answers(a))).to_have_text("first stop")
    chat.go_forward()
    expect(body(answers(a))).to_have_text("second stop")
    chat.get_by_role("button", name="Another pane").click()
    expect(panel(chat, "b")).to_be_visible()
    chat.go_back()
    expect(chat.locator(".panel")).to_have_count(1)
    expect(body(answers(a))).to_have_text("second stop")


def test_what_is_written_and_not_sent_is_kept_for_its_conversation(chat: Page, site: ServerProcess) -> None:
    for title in ("draft one", "draft two"):
        made(site, title)
    opened(chat, "draft one")
    field(chat).fill("only for one")
    opened(chat, "draft two")
    expect(field(chat)).to_have_value("")
    field(chat).fill("for two")
    chat.reload()
    expect(field(chat)).to_have_value("for two")
    opened(chat, "draft one")
    expect(field(chat)).to_have_value("only for one")
    field(chat).press("Enter")
    expect(field(chat)).to_have_value("")
    chat.go_back()
    expect(field(chat)).to_have_value("for two")
    chat.go_forward()
    expect(panel(chat, "a").locator("h2")).to_have_text("draft one")
    expect(field(chat)).to_have_value("")


def test_drafts_are_few_and_short(chat: Page) -> None:
    kept = chat.evaluate("""async () => {
      const { draft } = await import("./kept.js");
      for (let number = 0; number < 50; number += 1) draft(`d${number}`, `${number} ${"x".repeat(100_000)}`);
      draft("d49", "");
      return [sessionStorage.getItem("penstock.drafts").length, draft("d0"), draft("d48").slice(0, 4), draft("d49")];
    }""")
    assert kept[0] < 500_000
    assert kept[1:] == ["", "48 x", ""]


def test_what_could_not_be_sent_comes_back_where_it_was_written(chat: Page, site: ServerProcess) -> None:
    for title in ("sent from here", "looked at meanwhile"):
        made(site, title)
    chat.evaluate("""() => {
      const real = fetch;
      window.fetch = (url, options) => String(url).endsWith("/generations")
        ? new Promise((resolve) => {
            window.refuse = () => resolve(new Response('{"code": "QUEUE_FULL"}', { status: 409 }));
          })
        : real(url, options);
    }""")
    opened(chat, "sent from here")
    for text in ("too much", "and more"):
        say(panel(chat, "a"), text)
        expect(field(chat)).to_have_value("")
    chat.wait_for_function("() => window.refuse")
    opened(chat, "looked at meanwhile")
    chat.evaluate("() => window.refuse()")
    expect(panel(chat, "a").locator(".notice")).to_contain_text("Not sent")
    expect(field(chat)).to_have_value("")
    chat.go_back()
    expect(field(chat)).to_have_value("too much\nand more")


def test_what_is_sent_in_a_row_goes_where_it_was_written(chat: Page, site: ServerProcess) -> None:
    elsewhere = made(site, "opened meanwhile")
    expect(listed(chat, "opened meanwhile")).to_have_count(1)
    address = chat.url
    field(chat).evaluate("""(field) => {
      for (const text of ["one", "two", "three"]) {
        field.value = text;
        field.form.requestSubmit();
      }
      document.querySelector(".conversations .open").click();
    }""")
    expect(panel(chat, "a").locator("h2")).to_have_text("opened meanwhile")
    chat.goto(address)
    a = panel(chat, "a")
    expect(body(answers(a, "complete").last)).to_have_text("three")
    assert a.locator(".message[data-role=user] .body").all_inner_texts() == ["one", "two", "three"]
    messages = httpx.get(f"{site.url}/v1/sessions/{elsewhere}").json()["messages"]
    assert [message["blocks"][0]["text"] for message in messages] == ["opened meanwhile"]


def test_the_list_is_live_and_what_happened_last_comes_first(chat: Page, site: ServerProcess) -> None:
    rows = chat.locator(".conversations li .name")
    older, newer = made(site, "the older"), made(site, "the newer")
    expect(rows.nth(1)).to_have_text("the older")
    expect(rows.nth(0)).to_have_text("the newer")
    post(site, older, "again")
    expect(rows.nth(0)).to_have_text("the older")
    row = listed(chat, "the newer")
    generation = str(uuid4())
    httpx.post(f"{site.url}/v1/sessions/{newer}/generations", json={"producer": "remote", "generation_id": generation})
    expect(row).to_have_attribute("data-live", "true")
    expect(row.locator(".state")).to_have_text("answers")
    ask = {"generation_id": generation, "type": "approval.requested", "data": {"approval_id": "x", "name": "rm"}}
    httpx.post(f"{site.url}/v1/sessions/{newer}/chunks", json=ask).raise_for_status()
    expect(row.locator(".state")).to_have_text("needs a yes")
    httpx.post(f"{site.url}/v1/sessions/{newer}/stop", json={}).raise_for_status()
    expect(row).to_have_attribute("data-live", "false")
    httpx.patch(f"{site.url}/v1/sessions/{newer}", json={"metadata": {"title": "renamed"}}).raise_for_status()
    expect(rows.nth(0)).to_have_text("renamed")
    httpx.delete(f"{site.url}/v1/sessions/{newer}").raise_for_status()
    expect(listed(chat, "renamed")).to_have_count(0)


def test_a_conversation_that_somebody_else_makes_appears_at_its_address(chat: Page, site: ServerProcess) -> None:
    session_id = session_ids(chat)["a"]
    httpx.put(f"{site.url}/v1/sessions/{session_id}").raise_for_status()
    post(site, session_id, "from elsewhere")
    live(panel(chat, "a"))
    expect(panel(chat, "a").locator(".message[data-role=user] .body")).to_have_text("from elsewhere")


FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467"


@pytest.mark.parametrize("last", ["\U0001f30d", FAMILY, "e\u0301"])
def test_a_title_is_cut_between_characters(chat: Page, site: ServerProcess, last: str) -> None:
    a = panel(chat, "a")
    begin = f"{uuid4()} ".ljust(59, "x")
    say(a, f"{begin}{last} and more", "fast")
    title = f"{begin}{last}\u2026"
    expect(a.locator("h2")).to_have_text(title)
    expect(listed(chat, title)).to_have_count(1)
    stored = httpx.get(f"{site.url}/v1/sessions/{session_ids(chat)['a']}").json()
    assert stored["metadata"] == {"title": title}


def test_an_id_is_shown_only_where_there_is_no_title(chat: Page, site: ServerProcess) -> None:
    session_id = made(site, "has a beginning")
    opened(chat, "has a beginning")
    assert session_id not in chat.locator("body").inner_text()
    empty = str(uuid4())
    httpx.put(f"{site.url}/v1/sessions/{empty}").raise_for_status()
    chat.goto(f"{site.url}/#a={empty}")
    expect(panel(chat, "a").locator("h2")).to_have_text(f"Untitled {empty[-4:]}")


RLO = "\u202e"


def test_no_name_can_look_like_another_one(chat: Page, site: ServerProcess) -> None:
    session_id = made(site, f"invoice{RLO}gpj.exe\u200b")
    name = "invoice\\u202egpj.exe\\u200b"
    opened(chat, name)
    expect(chat).to_have_title(re.compile(re.escape(name)))
    presence = f"{site.url}/v1/sessions/{session_id}/presence/eve/phone"
    httpx.put(presence, json={"name": f"An{RLO}n"}).raise_for_status()
    expect(panel(chat, "a").locator(".present li[data-actor=eve]")).to_have_attribute("aria-label", "An\\u202en")
    item = listed(chat, name)
    item.hover()
    item.get_by_role("button", name="Delete").click()
    expect(chat.locator("dialog[open] h2")).to_have_text(f"Delete “{name}”?")
    chat.locator("dialog[open]").get_by_role("button", name="Cancel").click()


def test_the_policies_are_plain_words_and_their_terms_are_in_a_tooltip(chat: Page) -> None:
    choice = panel(chat, "a").locator(".policy select")
    for option in choice.locator("option").all():
        term, word = option.get_attribute("value") or "", option.inner_text()
        assert term not in word
        assert (option.get_attribute("title") or "").startswith(f"{term}: ")
    choice.select_option("rollback")
    expect(choice).to_have_attribute("title", re.compile(r"\(rollback\)"))


def test_what_is_given_to_the_producer_is_json_or_is_not_sent(chat: Page) -> None:
    a = panel(chat, "a")
    give(a, '{"delay": 0.01')
    say(a, "not yet")
    expect(a.locator(".given .problem")).to_have_text("This is no JSON.")
    expect(a.locator(".given textarea")).to_be_focused()
    expect(field(chat)).to_have_value("not yet")
    chat.keyboard.press("Escape")
    expect(a.locator(".given textarea")).to_be_hidden()
    give(a, '{"delay": 0.01, "repeat": 2}')
    field(chat).press("Enter")
    expect(body(answers(a, "complete"))).to_have_text(re.compile(r"not yet\s*not yet"))


HEBREW = "\u05e9\u05dc\u05d5\u05dd, water"


def test_each_paragraph_runs_as_its_first_letters_do(chat: Page) -> None:
    a = panel(chat, "a")
    say(a, f"{HEBREW}\n\nand on\n\n```py\n# {HEBREW}\n```", "fast")
    expect(answers(a, "complete")).to_have_count(1)
    side = """(element) => {
      const range = document.createRange();
      range.selectNodeContents(element);
      const [text, box] = [range.getBoundingClientRect(), element.getBoundingClientRect()];
      return text.left - box.left > box.right - text.right ? "right" : "left";
    }"""
    paragraphs = answers(a).locator(".prose > p")
    assert paragraphs.nth(0).evaluate(side) == "right"
    assert paragraphs.nth(1).evaluate(side) == "left"
    assert answers(a).locator("pre").evaluate("(pre) => getComputedStyle(pre).direction") == "ltr"
    field(chat).fill(HEBREW)
    assert field(chat).evaluate("(element) => getComputedStyle(element).direction") == "rtl"


COLOURED = """() => Object.fromEntries([...CSS.highlights].map(([kind, ranges]) =>
  [kind, [...ranges].map((range) => range.startContainer.data.slice(range.startOffset, range.endOffset)).sort()]))"""


def test_code_has_colours_and_its_text_is_as_it_was(chat: Page) -> None:
    a = panel(chat, "a")
    code = 'for drop in "water":  # 12\n    turn(0x1F)\n'
    say(a, f"```py\n{code}```", "fast")
    expect(answers(a, "complete")).to_have_count(1)
    assert chat.evaluate(COLOURED) == {
        "code-word": ["for", "in"],
        "code-string": ['"water"'],
        "code-comment": ["# 12"],
        "code-number": ["0x1F"],
    }
    assert answers(a).locator("code").evaluate("(each) => each.innerHTML") == code.rstrip("\n")
