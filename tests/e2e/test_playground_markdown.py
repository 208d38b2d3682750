"""How the playground shows text: Markdown without a way to markup, drawn piece by piece as it comes."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from tests.e2e.panels import answers, body, panel, say

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser

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


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("a *b* **c `d*` e** ~~f~~", "a <em>b</em> <strong>c <code>d*</code> e</strong> <del>f</del>"),
        ("2 * 3 snake_case_x", "2 * 3 snake_case_x"),
        ("***both*** \\*not\\*", "<strong><em>both</em></strong> *not*"),
        ("one\ntwo", "one<br>two"),
        ("an *open end", "an *open end"),
    ],
)
def test_inline_text_is_formed(page: Page, text: str, drawn: str) -> None:
    assert html(page, text) == f"<p>{drawn}</p>"


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


SCRAPS = [
    "word ", "two words\n", "\n", "\n\n", "*", "**", "***", "_", "`", "``", "```\n", "```py\n", "~~", "[", "](",
    "](https://a.b/c)", ")", "!", "<", ">", "> ", "- ", "  - ", "1. ", "# ", "| a | b |\n", "|--|:-:|\n", "---\n",
    "https://x.y/z_(a)", "\\", " ", "é水🚰", "    ", "<https://q.r>",
]  # fmt: skip


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


@pytest.mark.parametrize("piece", ["word# ", "**bold#** ", "*w# ", "- item #\n", "line # `x`\n\n"])
def test_ten_thousand_pieces_are_drawn_in_time(page: Page, piece: str) -> None:
    taken, length = page.evaluate(GROW, [piece, 10_000])
    assert length > 40_000
    assert taken < 20_000  # milliseconds on a busy machine; frame by frame it is a part of that
