"""What tests do on the playground page: speak to a panel, and look at what it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

__all__ = ["PATIENCE", "answers", "body", "live", "offsets", "panel", "say", "session_ids", "words"]

PATIENCE = 20_000  # milliseconds


def panel(page: Page, key: str) -> Locator:
    return page.locator(f"[data-panel={key}]")


def live(conversation: Locator) -> None:
    conversation.locator(".pill[data-state=live]").wait_for()


def say(conversation: Locator, text: str, pace: str | None = None) -> None:
    if pace is not None:
        conversation.locator(".pace select").select_option(label=pace)
    field = conversation.locator(".composer textarea")
    field.fill(text)
    field.press("Enter")


def answers(conversation: Locator, status: str | None = None) -> Locator:
    state = "" if status is None else f"[data-status={status}]"
    return conversation.locator(f".message[data-role=assistant]{state}")


def body(message: Locator) -> Locator:
    return message.locator(".body")


def offsets(conversation: Locator) -> list[int]:
    cells = conversation.locator("tbody tr:not([data-family=control]) td:first-child").all_inner_texts()
    return [int(cell) for cell in cells if cell]  # those without one tell of who is here


def words(prefix: str, count: int) -> str:
    return " ".join(f"{prefix}{number}" for number in range(count))


def session_ids(page: Page) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(urlsplit(page.url).fragment).items()}
