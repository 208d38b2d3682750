"""What tests do on the playground page: speak to a panel, and look at what it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

__all__ = ["PATIENCE", "answers", "body", "give", "inspect", "live", "offsets", "panel", "say", "session_ids", "words"]

PATIENCE = 20_000  # milliseconds

# What echo is given, by a word for it.
PACES = {"slow": '{"delay": 0.3}', "fast": '{"delay": 0.02}', "fast, 20 times": '{"delay": 0.02, "repeat": 20}'}


def panel(page: Page, key: str) -> Locator:
    return page.locator(f"[data-panel={key}]")


def live(conversation: Locator) -> None:
    conversation.locator(".pill[data-state=live]").wait_for()


def say(conversation: Locator, text: str, pace: str | None = None) -> None:
    if pace is not None:
        give(conversation, PACES[pace])
    field = conversation.locator(".composer textarea")
    field.fill(text)
    field.press("Enter")


def give(conversation: Locator, text: str) -> None:
    """What the producer is given from now on, as JSON."""
    conversation.get_by_role("button", name="Input for who answers").click()
    field = conversation.get_by_label("Input, as JSON")
    field.fill(text)
    field.press("Escape")


def inspect(conversation: Locator) -> None:
    """Have its events shown."""
    inspector = conversation.locator(".inspector")
    if inspector.get_attribute("open") is None:
        inspector.locator("summary").click()


def answers(conversation: Locator, status: str | None = None) -> Locator:
    state = "" if status is None else f"[data-status={status}]"
    return conversation.locator(f".message[data-role=assistant]{state}")


def body(message: Locator) -> Locator:
    return message.locator(".body")


# Of the rows only those are there that can be seen: go through all of them, from the first event on.
ROWS = """async (log) => {
  const drawn = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  const first = () => log.querySelector("tbody tr:not(.space):not([data-family=control]) td")?.textContent;
  for (let tries = 0; tries < 200 && first() !== "1"; tries += 1) {
    log.scrollTop = 0;
    log.dispatchEvent(new Event("scroll"));
    await drawn();
  }
  const found = new Set();
  for (let top = 0; ; top += log.clientHeight / 2) {
    log.scrollTop = top;
    await drawn();
    const rows = log.querySelectorAll("tbody tr:not(.space):not([data-family=control])");
    for (const row of rows) found.add(row.cells[0].textContent);
    if (top + log.clientHeight >= log.scrollHeight) return [...found];
  }
}"""


def offsets(conversation: Locator) -> list[int]:
    inspect(conversation)
    cells: list[str] = conversation.locator(".log").evaluate(ROWS)
    return [int(cell) for cell in cells if cell]  # those without one tell of who is here


def words(prefix: str, count: int) -> str:
    return " ".join(f"{prefix}{number}" for number in range(count))


def session_ids(page: Page) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(urlsplit(page.url).fragment).items()}
