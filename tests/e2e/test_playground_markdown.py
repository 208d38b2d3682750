"""How the playground shows text: Markdown without a way to markup, drawn piece by piece as it comes."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from uuid import uuid4

import httpx
import pytest

from tests.e2e.conftest import ServerProcess
from tests.e2e.panels import answers, body, panel, say
from tests.extent import examples

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.long]

# What a text looks like, when it comes at once and when it comes in these pieces.
DRAW = """async (pieces) => {
  const { Prose } = await import("./prose.js");
  const draw = (texts) => {
    const element = document.createElement("div");
    const prose = new Prose(element);
    let text = "";
    for (const piece of texts) prose.update((text += piece));
    element.normalize();
    return element.innerHTML;
  };
  return [draw([pieces.join("")]), draw(pieces)];
}"""


def html(page: Page, text: str) -> str:
    whole, _ = page.evaluate(DRAW, [text])
    assert isinstance(whole, str)
    return whole


INLINE = [
    ("a *b* **c `d*` e** ~~f~~", "a <em>b</em> <strong>c <code>d*</code> e</strong> <del>f</del>"),
    ("2 * 3 snake_case_x", "2 * 3 snake_case_x"),
    ("***both*** \\*not\\*", "<em><strong>both</strong></em> *not*"),
    ("**a **b** c** *d **e** f*", "<strong>a <strong>b</strong> c</strong> <em>d <strong>e</strong> f</em>"),
    ("**注意。**请看**“引用”**的", "<strong>注意。</strong>请看<strong>“引用”</strong>的"),
    ("&lt;b&gt; &#42;x&#x2a; &nope;", "&lt;b&gt; *x* &amp;nope;"),
    ("one\ntwo", "one<br>two"),
    ("an *open end", "an *open end"),
]


def test_inline_text_is_formed(page: Page) -> None:
    assert {text: html(page, text) for text, _ in INLINE} == {text: f"<p>{drawn}</p>" for text, drawn in INLINE}


def test_blocks_are_formed(page: Page) -> None:
    text = (
        "# T\npara\n- a\n  - b\n\n  c\n- d\n\n3. x\n\n> q\n\n|a|b|\n|-|-:|\n|1|*2*|\n\n---\n~~~py\n<i>\n\n# x\n~~~\nend"
    )
    drawn = html(page, text)
    for part in (
        '<h3 data-level="1">T</h3><p>para</p>',
        "<ul><li><p>a</p><ul><li><p>b</p></li></ul><p>c</p></li><li><p>d</p></li></ul>",
        '<ol start="3"><li><p>x</p></li></ol><blockquote><p>q</p></blockquote>',
        '<td data-align="right"><em>2</em></td>',
        "<code>&lt;i&gt;\n\n# x</code></pre></figure><p>end</p>",
    ):
        assert part in drawn
    for end in ("\r\n", "\r"):
        assert html(page, text.replace("\n", end)) == drawn


@pytest.mark.parametrize(
    "item",
    ["a\n  ```\n  b\n  ```", "# a", "- # a", "a\n  ***", "~~~\n  b", "- ~~~", "  ", "- ", "- a\n    ```\n    ```"],
)
def test_only_a_paragraph_goes_on_with_a_line_that_is_not_indented(page: Page, item: str) -> None:
    assert html(page, f"- {item}\nend").endswith("</ul><p>end</p>")
    assert html(page, "- a\nend\n- - b\nend").count("<br>end</p></li>") == 2


def test_no_white_space_but_that_of_markdown_forms_anything(page: Page) -> None:
    assert html(page, "# a\u2028b") == '<h3 data-level="1">a\u2028b</h3>'
    assert html(page, "\u3000a\n \u3000b") == "<p>\u3000a<br>\u3000b</p>"
    assert html(page, "- a\n\u3000b") == "<ul><li><p>a<br>\u3000b</p></li></ul>"


HOSTILE = [
    "<script>window.hit = 1</script>",
    "<img src=x onerror='window.hit = 1'>",
    "<svg/onload=window.hit=1>",
    "[x](javascript:window.hit=1)",
    "[x](  JaVaScRiPt:window.hit=1)",
    "[x](java\tscript:window.hit=1)",
    "[x](&#106;avascript:window.hit=1)",
    "[x](data:text/html,<script>window.hit=1</script>)",
    "[x](vbscript:x)",
    "[x](//elsewhere.example/x)",
    "[x](/v1/sessions)",
    '[x](https://ok.example/" onmouseover="window.hit=1)',
    "![x](javascript:window.hit=1)",
    "![pixel](https://elsewhere.example/pixel.png)",
    "<javascript:window.hit=1>",
    "`<script>window.hit = 1</script>`",
    "```<script>\n<script>window.hit = 1</script>\n```",
    '```" onclick="window.hit=1\nx\n```',
    "| <script>window.hit=1</script> |\n|-|\n| <img src=x onerror=window.hit=1> |",
]


def test_no_text_becomes_markup_and_nothing_is_loaded(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    a = panel(page, "a")
    say(a, "\n\n".join(HOSTILE), "fast")
    expect(answers(a, "complete")).to_have_count(1)
    answer = body(answers(a))
    assert answer.locator("script, img, iframe, object, embed, style, form, input").count() == 0
    found = answer.evaluate("""(element) => [...element.querySelectorAll("*")].flatMap((each) =>
        [...each.attributes].filter(({ name, value }) => name.startsWith("on") || /script:|data:/i.test(value))
          .map(({ name, value }) => `${name}=${value}`))""")
    assert found == []
    links = answer.locator("a").evaluate_all("links => links.map((link) => [link.protocol, link.rel, link.target])")
    assert links == [["https:", "noopener noreferrer nofollow", "_blank"]] * len(links)
    assert answer.locator("a", has_text="pixel").get_attribute("href") == "https://elsewhere.example/pixel.png"
    assert page.evaluate("window.hit") is None
    host = page.url.split("/#")[0]
    assert [url for url in asked if not url.startswith((host, host.replace("http", "ws")))] == []


def test_code_that_hides_characters_says_so(page: Page) -> None:
    """What is copied from it is another thing than what is read."""
    a = panel(page, "a")
    say(a, "```py\nuser = 'admin\u202e # \u2066'\n```\n\n```py\n# \u05e9\u05dc\u05d5\u05dd\u200d\n\tx = 1\n```", "fast")
    expect(answers(a, "complete")).to_have_count(1)
    warnings = answers(a).locator(".code .deceives")
    expect(warnings).to_have_text(["hidden characters"])
    expect(answers(a).locator(".code").first.locator(".deceives")).to_be_visible()


SCRAPS = [
    "word ", "two words\n", "\n", "\n\n", "*", "**", "***", "_", "`", "``", "```\n", "```py\n", "~~", "[", "](",
    "](https://a.b/c)", ")", "!", "<", ">", "> ", "- ", "  - ", "1. ", "# ", "| a | b |\n", "|--|:-:|\n", "---\n",
    "https://x.y/z_(a)", "\\", " ", "é水🚰", "    ", "<https://q.r>", "__", "\\\n", "&amp;", "&#4", "](/x)", "](<a b>",
    '"t"', "![", "-\n", "1.\n", "2) ", "\t", "~", "a", "。", "# \n",
    "\r\n", "\r", "\u2028", "\u3000",
]  # fmt: skip


#
def test_in_pieces_it_looks_as_at_once(page: Page) -> None:
    chance = random.Random(5)
    cases = []
    for _ in range(400):
        text = "".join(chance.choices(SCRAPS, k=chance.randint(1, 40)))
        cuts = sorted({chance.randint(0, len(text)) for _ in range(12)} | {0, len(text)})
        cases.append([text[start:end] for start, end in pairwise(cuts)])
    drawn = page.evaluate(f"async (cases) => Promise.all(cases.map({DRAW}))", cases)
    for case, (whole, pieces) in zip(cases, drawn, strict=True):
        assert pieces == whole, case


# Pieces of one character, around the place up to where a mark looks for its end.
def test_marks_that_are_far_from_each_other_look_in_pieces_as_at_once(page: Page) -> None:
    for begin, end in (("*", "*"), ("**", "**"), ("`", "`"), ("```", "```"), ("[", "](mailto:a)")):
        cases = [[begin + "x " * (length // 2) + "x" * (length % 2 + 1), *end, *" y z"] for length in range(980, 1010)]
        drawn = page.evaluate(f"async (cases) => Promise.all(cases.map({DRAW}))", cases)
        assert len({whole.count("<") for whole, _ in drawn}) == 2, begin  # some find each other, some do not
        for case, (whole, pieces) in zip(cases, drawn, strict=True):
            assert pieces == whole, case


UNSEEN = "\u202e\u2066\u200b\u200d\ufeff\u00ad\u2028\u3164\U000e0041"


def test_what_people_say_yes_to_hides_nothing(page: Page, site: ServerProcess) -> None:
    generation, session = str(uuid4()), f"{site.url}/v1/sessions/hidden"
    httpx.put(session).raise_for_status()
    call = {"tool_call_id": "c", "name": f"rm{UNSEEN}"}
    chunks: list[dict[str, object]] = [
        {"type": "block.opened", "kind": "tool_call", "data": call},
        {"type": "block.closed", "data": {"arguments": {"path": f"{UNSEEN}gpj.exe"}}},
        {"type": "approval.requested", "data": {**call, "approval_id": "a", "arguments": {"path": UNSEEN}}},
    ]
    batch = {"chunks": [{"generation_id": generation, **chunk} for chunk in chunks]}
    httpx.post(f"{session}/chunks/batch", json=batch).raise_for_status()
    page.goto(f"{site.url}/#a=hidden")
    a = panel(page, "a")
    card = a.locator(".approval")
    fold = a.locator(".fold[data-kind=tool_call]")
    fold.locator("summary").click()
    for shown in (card.inner_text(), card.get_attribute("aria-label"), fold.inner_text()):
        assert shown is not None
        assert not set(UNSEEN) & set(shown)
        assert "rm\\u202e\\u2066\\u200b" in shown
    field = card.get_by_label("Arguments").input_value()
    assert not set(UNSEEN) & set(field)
    assert json.loads(field) == {"path": UNSEEN}
    httpx.post(f"{session}/generations/{generation}/finish", json={}).raise_for_status()


# Texts of one pattern, of one size each: how long they take to draw, and as long a text of words beside each of them.
COST = """async (texts) => {
  const { Prose } = await import("./prose.js");
  const draw = (text) => {
    const element = document.createElement("div");
    const begun = performance.now();
    new Prose(element).update(text);
    return performance.now() - begun;
  };
  const words = "some words here ".repeat(texts[0].length / 16);
  draw(words);
  return texts.map((text) => [draw(text), Math.min(draw(words), draw(words), draw(words))]);
}"""

# Runs of one mark with something before and behind: what a pattern that goes back over its characters is slow with.
BEFORE = ["", "```", "# ", "- ", "> ", "|a|b|\n|-|-|\n", "*a ", "\n\n", "1. x\n", "[a](", "http://x"]
WITHIN = [
    *SCRAPS,
    "*a ",
    "[a](",
    "`a``b ",
    " #",
    "\t",
    "|",
    "|a",
    "|\n",
    "-",
    "- ",
    "~",
    "=",
    "\n- \n\n",
    ".",
    "(",
    "<a ",
    '" ',
]
BEHIND = ["", "`", "x", "\n", "|", "\n|-|\n"]


@pytest.mark.further
def test_every_text_is_drawn_in_time_in_proportion_to_its_length(page: Page) -> None:
    chance = random.Random(11)
    texts = []
    for within in WITHIN + ["".join(chance.choices(WITHIN, k=chance.randint(2, 3))) for _ in range(examples(60))]:
        run = (within * (20_000 // len(within) + 1))[:20_000]
        texts.append(chance.choice(BEFORE) + run + chance.choice(BEHIND))
    texts += ["|a" * 450 + "\n" + "|-" * 450 + "\n" + "|\n" * 9000, "```" + " " * 40_000 + "`", "- " * 20_000 + "x"]
    texts += [
        "|a" * 90 + "\n" + "|-" * 90 + "\n" + "|\n" * 9000,
        "# a" + " " * 40_000 + "x",
        "|-" + " " * 40_000 + "x\n",
    ]
    for _ in range(3):  # on a busy machine, where the browser may be left waiting, not every time is its own
        costs = zip(texts, page.evaluate(COST, texts), strict=True) if texts else ()
        # Elements cost more than letters do; a pattern that goes back over them takes thousands of times as long.
        texts = [text for text, (taken, beside) in costs if taken >= 400 * max(beside, 1.0)]
    assert [(text[:20], text[-20:]) for text in texts] == []


# One long paragraph, a list, a block of code, and emphasis that never ends: what could be read again and again.
GROW = """async ([piece, count]) => {
  const { Prose } = await import("./prose.js");
  const element = document.createElement("div");
  document.body.append(element);
  const prose = new Prose(element);
  const begun = performance.now();
  let text = "";
  for (let number = 0; number < count; number += 1) prose.update((text += piece.replace("#", number)));
  const taken = performance.now() - begun;
  const told = element.textContent;
  element.remove();
  return [taken, told.length];
}"""


@pytest.mark.parametrize(
    "piece",
    [
        "word# ",
        *(
            pytest.param(piece, marks=pytest.mark.long)
            for piece in ("**bold#** ", "*w# ", "- item #\n", "line # `x`\n\n")
        ),
    ],
)
def test_ten_thousand_pieces_are_drawn_in_time(page: Page, piece: str) -> None:
    taken, length = page.evaluate(GROW, [piece, 10_000])
    assert length > 40_000
    assert taken < 60_000  # milliseconds on a busy machine; frame by frame it is a part of that
