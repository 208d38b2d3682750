"""A real server for end-to-end tests, `penstock serve` as a process of its own, and a browser to look at it with."""

from __future__ import annotations

import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode
from uuid import uuid4

import httpx
import pytest
from click.testing import CliRunner, Result

from penstock.adapters.cli import main
from tests.checkout import environment
from tests.e2e.panels import PATIENCE, live, panel

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# How long a start may take on a busy machine with two cores.
START = 30.0

# The server's own limit for a drain, and a little.
STOP = 12.0


# The command, as this environment has it.
PENSTOCK = (sys.executable, "-m", "penstock.adapters.cli")


def command(*arguments: str) -> Result:
    """`penstock` in this process, for what is over before it has begun: refusals, help."""
    done = CliRunner().invoke(main, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


class ServerProcess:
    """`penstock serve` on a free port. What it logs is in `log`."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        db: str = "test.db",
        url: str | None = None,
        cwd: Path | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """With a ``url`` of a log, which it is told as a secret, there is no database. ``variables`` are of its
        environment, beside ours."""
        self.db = folder / db
        self.log = folder / "server.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*PENSTOCK, "serve", *(["--db", str(self.db)] if url is None else []), "--port", "0", *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=cwd or folder,
                env=environment(**({} if url is None else {"PENSTOCK_LOG": url}), **(variables or {})),
            )
        self.said = ""  # on its standard output
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.url = self.next_url()

    def _read(self) -> None:
        """In a thread, so that waits have a limit and the pipe never fills."""
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            for line in stdout:
                self._lines.put(line)
        self._lines.put(None)

    def next_url(self) -> str:
        """The next URL as printed: there is one for each address."""
        try:
            line = self._lines.get(timeout=START)
        except queue.Empty:
            line = None
        self.said += line or ""
        found = re.search(r"https?://\S+?(?=/?\s)", line or "")
        if found is None:
            self.kill()
            pytest.fail(f"the server did not start: {line!r}\n{self.log.read_text()}")
        return found[0]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = STOP) -> int:
        return self.process.wait(timeout)

    def kill(self) -> None:
        """End it as a crash does; nothing is waited for inside."""
        self.process.kill()
        self.process.wait(STOP)

    def stop(self) -> int:
        """SIGTERM, and the exit code. A server that does not end in time is killed and the test fails."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"the server did not end within {STOP} s of SIGTERM\n{self.log.read_text()}")


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Start servers with the arguments given; those still running at the end are killed."""
    started: list[ServerProcess] = []

    def start(*arguments: str, db: str = "test.db", url: str | None = None, cwd: Path | None = None) -> ServerProcess:
        server = ServerProcess(tmp_path, *arguments, db=db, url=url, cwd=cwd)
        started.append(server)
        return server

    yield start
    for server in started:
        if server.process.poll() is None:
            server.kill()


@pytest.fixture
def server(start_server: Callable[..., ServerProcess]) -> Iterator[ServerProcess]:
    """One server; that it ends in an orderly way, with exit code 0, is part of every test that uses it."""
    running = start_server()
    yield running
    assert running.stop() == 0, running.log.read_text()
    assert "Traceback" not in running.log.read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless chromium; without one the test is skipped."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium is installed: apt-get install chromium")
    sync_api.expect.set_options(timeout=PATIENCE)
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=arguments)
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
    """The page with two conversations, open and live. That the console stays silent is part of every test."""
    context = browser.new_context(viewport={"width": 1360, "height": 860})
    context.set_default_timeout(PATIENCE)
    opened = context.new_page()
    opened.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    ids = {key: str(uuid4()) for key in "ab"}
    for session_id in ids.values():
        httpx.put(f"{site.url}/v1/sessions/{session_id}").raise_for_status()
    opened.goto(f"{site.url}/#{urlencode(ids)}")
    for key in "ab":
        live(panel(opened, key))
    yield opened
    context.close()
    assert complaints == []


@pytest.fixture
def blank(browser: Browser, site: ServerProcess, complaints: list[str]) -> Iterator[Page]:
    """A page of the server's that opens no session of its own. Nothing may be uncaught."""
    context = browser.new_context()
    opened = context.new_page()
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto(f"{site.url}/icon.svg")
    yield opened
    context.close()
    assert complaints == []
