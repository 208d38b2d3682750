"""How the playground reads Markdown, beside the examples of CommonMark's specification."""

from __future__ import annotations

import json
import re
import subprocess
from collections import defaultdict
from typing import TYPE_CHECKING, Final

import pytest

from tests.e2e.node import COMMONMARK, install, node

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

    from tests.e2e.conftest import ServerProcess

pytestmark = pytest.mark.browser

# Why an example is drawn in another way than the specification has it. By design:
HTML: Final = "HTML is text"
RELATIVE: Final = "an address that is not absolute is text: it would lead into the server of the page"
SCHEME: Final = "what is linked is http, https and mailto"
BARE: Final = "an address is a link where it stands bare, too"
BROWSER: Final = "an address is what the browser takes it for"
EMPTY: Final = "an image without a description is a link that says so"
# Not supported:
INDENTED: Final = "white space at the start of a line makes no code, and lists may stand behind any"
UNDERLINED: Final = "a line of marks below a paragraph makes no heading"
REFERENCES: Final = "what a link's name means stands further down: it would change what is drawn already"
LAZY: Final = "each line of a quote has its mark"
NAMES: Final = "characters whose names are rare"
LATER: Final = "an item that begins with two empty lines may still get its text"

# By section, the numbers of the examples that differ. What stands here and agrees fails the test, as what differs
# and does not stand here.
DIFFERS: Final[dict[str, dict[str, str]]] = {
    "Tabs": {INDENTED: "1-3 5-8"},
    "Backslash escapes": {INDENTED: "18", HTML: "21", REFERENCES: "23"},
    "Entity and numeric character references": {NAMES: "25 32 34", HTML: "31", REFERENCES: "33", INDENTED: "36"},
    "Precedence": {},
    "Thematic breaks": {INDENTED: "48", UNDERLINED: "59"},
    "ATX headings": {INDENTED: "69"},
    "Setext headings": {UNDERLINED: "80-84 86 89-91 95-96 102-103", INDENTED: "85 100", LAZY: "93"},
    "Indented code blocks": {INDENTED: "107 110-112 114-118"},
    "Fenced code blocks": {INDENTED: "134", UNDERLINED: "141"},
    "HTML blocks": {HTML: "148-191"},
    "Link reference definitions": {REFERENCES: "192-196 198 200-208 210-211 214-218"},
    "Paragraphs": {INDENTED: "225"},
    "Blank lines": {},
    "Block quotes": {INDENTED: "231 236 238 252", LAZY: "232-233 247 250-251"},
    "List items": {
        INDENTED: "253-254 257 264 270-274 278 286-290",
        LATER: "280",
        LAZY: "292-293",
        UNDERLINED: "300",
    },
    "Lists": {HTML: "308-309", INDENTED: "312-313", REFERENCES: "317"},
    "Inlines": {},
    "Code spans": {HTML: "344"},
    "Emphasis and strong emphasis": {HTML: "475-477"},
    "Links": {
        RELATIVE: "484-487 492 495-496 498-504 517 520 522",
        HTML: "491 494 524 536",
        REFERENCES: "527-535 537-545 549-550 553-571",
    },
    "Images": {REFERENCES: "573 576-577 582-589 591-593", RELATIVE: "578 580", EMPTY: "581"},
    "Autolinks": {SCHEME: "596 598-599 601", BARE: "602 608 611", BROWSER: "603"},
    "Raw HTML": {HTML: "613-617 623 625-631"},
    "Hard line breaks": {HTML: "642-643"},
    "Soft line breaks": {},
    "Textual content": {},
}


def numbers(ranges: str) -> set[int]:
    """Of "1-3 5": 1, 2, 3 and 5."""
    bounds = [[int(bound) for bound in each.split("-")] for each in ranges.split()]
    return {number for bound in bounds for number in range(bound[0], bound[-1] + 1)}


def prepared(text: str) -> str:
    """
    The specification shows tabs as arrows. Its addresses are mostly those of a path (`/url`), and the page does not
    link to such: they get a scheme, so that the rules for links are tried.
    """
    return re.sub(r'(["(:]\s*|\(<)/(?=\w)', r"\1mailto:", text.replace("→", "\t"))


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, tuple[str, str]]]:
    """By section and number: the Markdown, and the HTML that it stands for."""
    modules = install(tmp_path_factory.mktemp("commonmark"), COMMONMARK)
    command = [node(), "-p", "JSON.stringify(require('commonmark-spec').tests)"]
    told = subprocess.run(command, cwd=modules, capture_output=True, text=True, timeout=30, check=True).stdout
    sections: dict[str, dict[int, tuple[str, str]]] = defaultdict(dict)
    for each in json.loads(told):
        sections[each["section"]][each["number"]] = (prepared(each["markdown"]), prepared(each["html"]))
    return dict(sections)


@pytest.fixture(scope="module")
def opened(browser: Browser, site: ServerProcess) -> Iterator[Page]:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{site.url}/")
    yield page
    context.close()


# What the page draws and what the specification says, both as HTML of one form. In it there is no difference between
# - headings of the page, which begin below its own, and those of the text
# - code with a button and a language above it, and a bare `pre`
# - a link with what makes it safe and its address as its title, and one with a title of its own
# - an image, and a link to it; inside a link, only its description
# - an end of a line in a paragraph and a break: the page keeps the lines of an answer
# - lists that are tight and those that are loose: text directly in an item is a paragraph
# - more or less white space at the ends of lines and between blocks
DRAW = r"""async (examples) => {
  const { Prose } = await import("./prose.js");
  const blocks = "p, h1, h2, h3, h4, h5, h6, ul, ol, li, blockquote, pre, hr, figure";
  const tag = (name, inside, attributes = "") => `<${name}${attributes}>${inside}</${name}>`;
  const escape = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");
  const trim = (text) => text.replace(/[ \t]*\n[ \t\n]*/g, "\n").replace(/^[ \t\n]+|[ \t\n]+$/g, "");
  const anchor = (address, inside) => {
    let href = address;
    try { href = decodeURI(new URL(address).href); } catch {}
    return tag("a", inside, ` href="${escape(href)}"`);
  };

  const inline = (node) => {
    if (node.nodeType === Node.TEXT_NODE) return escape(node.data);
    if (node.nodeType !== Node.ELEMENT_NODE) return `<!--${node.data}-->`;
    const inside = [...node.childNodes].map(inline).join("");
    switch (node.localName) {
      case "br": return "\n";
      case "svg": return "";
      case "a": return anchor(node.getAttribute("href") ?? "", inside);
      case "img": {
        const text = escape(node.getAttribute("alt") ?? "");
        return node.closest("a") ? text : anchor(node.getAttribute("src") ?? "", text);
      }
      default: return tag(node.localName, inside);
    }
  };
  const flow = (parent) => {
    let [told, line] = ["", ""];
    const end = () => {
      if (trim(line)) told += tag("p", trim(line));
      line = "";
    };
    for (const node of parent.childNodes) {
      if (node.nodeType !== Node.ELEMENT_NODE || !node.matches(blocks)) line += inline(node);
      else {
        end();
        told += block(node);
      }
    }
    end();
    return told;
  };
  const block = (node) => {
    const name = node.localName;
    const inside = () => trim([...node.childNodes].map(inline).join(""));
    const code = (language, text) => tag("pre", escape(text), language && ` language="${escape(language)}"`);
    switch (name) {
      case "p": return tag(name, inside());
      case "hr": return "<hr>";
      case "figure": {
        const text = node.querySelector("code").textContent;
        return code(node.querySelector("figcaption span").textContent, text && `${text}\n`);
      }
      case "pre": return code(node.firstChild.className?.replace(/^language-/, ""), node.textContent);
      case "ul": return tag(name, flow(node));
      case "ol": return tag(name, flow(node), ` start=${node.getAttribute("start") ?? 1}`);
      case "li": case "blockquote": return tag(name, flow(node));
      default: return tag(`h${node.dataset.level ?? name[1]}`, inside());
    }
  };

  return examples.map(([markdown, html]) => {
    const element = document.createElement("div");
    new Prose(element).update(markdown);
    return [flow(element), flow(new DOMParser().parseFromString(html, "text/html").body)];
  });
}"""

# Where a text that grows by single characters is first drawn in another way than at once: all up to there, or null.
GROW = """async (texts) => {
  const { Prose } = await import("./prose.js");
  return texts.map((text) => {
    const element = document.createElement("div");
    const prose = new Prose(element);
    for (let length = 1; length <= text.length; length += 1) {
      const whole = document.createElement("div");
      new Prose(whole).update(text.slice(0, length));
      prose.update(text.slice(0, length));
      if (element.innerHTML !== whole.innerHTML) return text.slice(0, length);
    }
    return null;
  });
}"""


def test_every_section_is_listed(examples: dict[str, dict[int, tuple[str, str]]]) -> None:
    assert list(DIFFERS) == list(examples)


@pytest.mark.parametrize("section", DIFFERS)
def test_examples_are_drawn_as_specified_but_for_those_listed(
    opened: Page, examples: dict[str, dict[int, tuple[str, str]]], section: str
) -> None:
    told = opened.evaluate(DRAW, list(examples[section].values()))
    drawn = dict(zip(examples[section], told, strict=True))
    listed = {number for ranges in DIFFERS[section].values() for number in numbers(ranges)}
    assert listed <= set(drawn)
    differing = {number for number, (ours, theirs) in drawn.items() if ours != theirs}
    assert {number: (examples[section][number][0], *drawn[number]) for number in differing ^ listed} == {}


#
@pytest.mark.parametrize("section", DIFFERS)
def test_examples_look_the_same_while_they_grow(
    opened: Page, examples: dict[str, dict[int, tuple[str, str]]], section: str
) -> None:
    told = opened.evaluate(GROW, [markdown for markdown, _ in examples[section].values()])
    assert [text for text in told if text is not None] == []
