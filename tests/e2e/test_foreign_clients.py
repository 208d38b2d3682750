"""Clients that others wrote read our streams: all of it, as the log has it, and on from where they were."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from httpx_sse import connect_sse
from websockets.sync.client import connect

from tests.e2e.node import EVENTSOURCE, install, node
from tests.e2e.streams import SseReader, call
from tests.engine.stores import free_port

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.e2e.conftest import ServerProcess

TEXT = "水門 から Größe 🚰 und\u2028weiter " * 12  # a separator of Unicode's is no line's end in a stream

Frames = list[tuple[str, Any]]


def begin(server: ServerProcess, session_id: str, delay: float = 0.01) -> None:
    """An answer that is still being written."""
    call(server.url, "PUT", f"/v1/sessions/{session_id}", {})
    body = {"text": TEXT, "producer": "echo", "input": {"delay": delay}}
    call(server.url, "POST", f"/v1/sessions/{session_id}/generations", body)


def events(session_id: str) -> str:
    return f"/v1/sessions/{session_id}/events"


def stored(server: ServerProcess, session_id: str) -> Frames:
    """The log, read by sockets alone."""
    reader = SseReader(server.url, f"{events(session_id)}?live=false")
    return [(cursor, json.loads(data)) for cursor, data in reader.frames()]


def over(event: dict[str, Any]) -> bool:
    return bool(event["type"] == "generation.finished")


#
def test_httpx_sse(server: ServerProcess) -> None:
    begin(server, "s")
    seen: Frames = []
    with httpx.Client(base_url=server.url, timeout=30) as client:
        while not (seen and over(seen[-1][1])):
            resume = {"Last-Event-ID": seen[-1][0]} if seen else {}
            with connect_sse(client, "GET", events("s"), headers=resume) as source:
                for event in source.iter_sse():
                    if event.event == "message" and event.data:
                        seen.append((event.id, event.json()))
                        if len(seen) % 9 == 0 or over(seen[-1][1]):
                            break  # leave, and come back
    assert seen == stored(server, "s")


#
def test_curl(server: ServerProcess) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("no curl is installed")
    begin(server, "s")
    lines: list[str] = []
    command = [curl, "-sN", f"{server.url}{events('s')}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as reading:
        assert reading.stdout is not None
        for line in reading.stdout:
            lines.append(line.removesuffix("\n"))
            if '"generation.finished"' in line:
                break
        reading.kill()
    told = [(line[4:], json.loads(data[6:])) for line, data in pairwise(lines) if data.startswith('data: {"type"')]
    whole = stored(server, "s")
    assert told == whole
    resume = [curl, "-sN", "-H", f"Last-Event-ID: {whole[4][0]}", f"{server.url}{events('s')}?live=false"]
    rest = subprocess.run(resume, capture_output=True, encoding="utf-8", timeout=30, check=True).stdout
    assert [line[6:] for line in rest.split("\n") if line.startswith('data: {"type"')] == [
        line[6:] for line in lines if line.startswith('data: {"type"')
    ][5:]


#
def test_websockets(server: ServerProcess) -> None:
    begin(server, "s")
    seen: Frames = []
    url = server.url.replace("http", "ws") + "/v1/ws"
    while not (seen and over(seen[-1][1])):
        place = {"after": seen[-1][0]} if seen else {}
        with connect(url, subprotocols=["penstock.v1"]) as socket:  # type: ignore[list-item]
            assert socket.subprotocol == "penstock.v1"
            socket.send(json.dumps({"op": "subscribe", "id": 1, "session_id": "s", **place}))
            for message in socket:
                frame = json.loads(message)
                if frame["op"] == "events":
                    epoch = frame["cursor"].partition("-")[0]
                    seen += [(f"{epoch}-{event['offset']:016}", event) for event in frame["events"]]
                    break  # leave, and come back
    assert seen == stored(server, "s")


LISTEN = """async (url) => {
  const seen = [];
  const source = new EventSource(url);
  let opened = 0;
  source.onopen = () => { opened += 1; };
  await new Promise((done) => {
    source.onmessage = ({ lastEventId, data }) => {
      seen.push([lastEventId, JSON.parse(data)]);
      window.seen = seen.length;
      if (data.includes('"last word"')) done();
    };
  });
  source.close();
  return [opened, seen];
}"""


def restart(server: ServerProcess, start_server: Callable[..., ServerProcess], port: int) -> None:
    """Kill the server in the middle and start it again; then say the last word."""
    server.kill()
    again = start_server("--port", str(port))
    call(again.url, "POST", "/v1/sessions/s/messages", {"text": "last word"})


#
@pytest.mark.long
@pytest.mark.browser
def test_a_browsers_event_source_comes_back_by_itself(
    browser: Browser, start_server: Callable[..., ServerProcess]
) -> None:
    port = free_port()
    server = start_server("--port", str(port))
    begin(server, "s", delay=0.05)
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{server.url}/icon.svg")
    page.evaluate(f"() => {{ window.done = ({LISTEN})('{events('s')}'); }}")
    page.wait_for_function("() => window.seen > 12")
    restart(server, start_server, port)
    opened, seen = page.evaluate("() => window.done")
    context.close()
    assert opened >= 2
    again = stored(server, "s")
    assert [(cursor, event) for cursor, event in seen] == again
    assert again[-2][1]["data"]["outcome"] == "lost"


UNDER_NODE = """
import { EventSource } from "eventsource";
const source = new EventSource(process.argv[2]);
let opened = 0;
source.onopen = () => { opened += 1; };
source.onmessage = ({ lastEventId, data }) => {
  console.log(JSON.stringify([lastEventId, JSON.parse(data), opened]));
  if (data.includes('"last word"')) source.close();
};
"""


#
@pytest.mark.long
def test_the_npm_package_comes_back_by_itself(tmp_path: Path, start_server: Callable[..., ServerProcess]) -> None:
    program, port = node(), free_port()
    install(tmp_path / "npm", EVENTSOURCE)
    script = tmp_path / "npm" / "read.mjs"
    script.write_text(UNDER_NODE)
    server = start_server("--port", str(port))
    begin(server, "s", delay=0.05)
    command = [program, str(script), server.url + events("s")]
    seen: list[list[Any]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as reading:
        limit = threading.Timer(60, reading.kill)
        limit.start()
        assert reading.stdout is not None
        for line in reading.stdout:
            seen.append(json.loads(line))
            if len(seen) == 12:
                restart(server, start_server, port)
        limit.cancel()
    assert seen[-1][2] >= 2
    assert [(cursor, event) for cursor, event, _ in seen] == stored(server, "s")
