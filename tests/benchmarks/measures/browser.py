"""How soon a browser shows the playground and its list of conversations: the system's chromium, without a screen."""

from __future__ import annotations

import shutil
from typing import Final

from tests.benchmarks.peers.install import Unavailable

__all__ = ["looks"]

_OPTIONS: Final = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")

# Milliseconds since it was asked for: when something was painted first, and when the list was there.
_SHOWN: Final = """() => new Promise((done) => {
  const look = () => {
    const [painted] = performance.getEntriesByName("first-contentful-paint");
    if (painted && document.querySelector("#conversations li")) done([painted.startTime, performance.now()]);
    else requestAnimationFrame(look);
  };
  look();
})"""


def looks(url: str, token: str, times: int) -> list[tuple[float, float]]:
    """Open the page so often, each time as a browser that was never there.

    Tells of each time the milliseconds until something was painted, and until the list was there. Raises
    `Unavailable`, and `OSError` when the page does not come that far.
    """
    try:
        from playwright.sync_api import Error, sync_playwright  # the other benches need none
    except ImportError:
        raise Unavailable("playwright is not installed") from None
    chromium = shutil.which("chromium")
    if chromium is None:
        raise Unavailable("chromium is not installed")
    found: list[tuple[float, float]] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(_OPTIONS))
        try:
            for _ in range(times):
                with browser.new_context() as visit:
                    visit.add_init_script(f"sessionStorage.setItem('penstock.token', '{token}')")
                    page = visit.new_page()
                    page.goto(url, wait_until="commit")
                    painted, listed = page.evaluate(_SHOWN)
                    found.append((painted, listed))
        except Error as error:
            raise OSError(f"the page was not shown: {error}") from error
        finally:
            browser.close()
    return found
