"""B11: the list of very many sessions: its pages, its stream to many watchers, and how soon a browser has its page."""

from __future__ import annotations

import http.client
import itertools
import re
import secrets
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, final

import msgspec
from attrs import asdict

from penstock.adapters.access.tokens import Signer, make_token
from penstock.engine import JSONObject
from tests.benchmarks import holds, listed
from tests.benchmarks.bench import Bench, Context, Incomplete, Measuring
from tests.benchmarks.children import work
from tests.benchmarks.measures.browser import looks
from tests.benchmarks.measures.reading import MILLI, complete, processor_seconds
from tests.benchmarks.payload import stamped
from tests.benchmarks.peers.install import Peers
from tests.benchmarks.samples import Delays
from tests.benchmarks.systems.base import Server, Source, connected, exchange, get
from tests.benchmarks.systems.peers import uvicorn
from tests.benchmarks.systems.penstock import Penstock, open_penstock
from tests.benchmarks.viewers import Viewer, watch

__all__ = ["b11"]

_PATIENCE: Final = 60.0

# Changes a second: what one costs, for a thousand watchers, is over before the next is asked for.
_RATE: Final = 5.0

# Behind the last change, for what it still costs.
_SETTLE: Final = 0.5

# Of the text that a change bears, and of one that makes an event of sse-starlette's as long as the list's.
_STAMP: Final = 40
_AS_LONG: Final = 150

# Later than any server that is started here is ended, in nanoseconds.
_NEVER: Final = 10**13

_CAUGHT_UP: Final = b"event: caught-up\n"


@final
class _Served:
    """A server over a log of so many sessions, which asks for tokens."""

    def __init__(self, penstock: Penstock, signer: Signer, sessions: int, held: Path) -> None:
        self.penstock: Final = penstock
        self.address: Final = penstock.address
        self.sessions: Final = sessions
        self._signer = signer
        self._held = held
        self._changes = itertools.count()

    def token(self, subject: str, pattern: str = "*") -> str:
        return _token(self._signer, subject, pattern)

    def note_holds(self) -> None:
        """From here on, note how long the loop is held."""
        self.penstock.ask("PUT", "/v1/sessions/holds")
        given: JSONObject = {"producer": "holds", "input": {"path": str(self._held)}}
        self.penstock.ask("POST", "/v1/sessions/holds/generations", given)

    def held(self) -> float:
        """The longest hold since, in seconds; none is noted any more, for that costs the server some time, too."""
        time.sleep(2 * holds.TOLD)
        self.penstock.ask("POST", "/v1/sessions/holds/stop")
        return float(self._held.read_text())

    def change(self) -> None:
        """Make a session, or give one a title, or start a generation, in turns; each of another session."""
        number = next(self._changes)
        session_id, stamp = listed.session_id(self.sessions - 1 - number), stamped(time.monotonic_ns(), _STAMP)
        match number % 3:
            case 0:
                made: JSONObject = {"metadata": {"title": "The upper lake", "note": stamp}}
                self.penstock.ask("PUT", f"/v1/sessions/made-{secrets.token_hex(8)}", made)
            case 1:
                changed: JSONObject = {"metadata": {"title": "The lower lake", "note": stamp}}
                self.penstock.ask("PATCH", f"/v1/sessions/{session_id}", changed)
            case _:
                given: JSONObject = {"count": 1, "size": _STAMP, "begin": time.monotonic_ns() + _NEVER}
                start: JSONObject = {"producer": "source", "text": stamp, "input": given}
                self.penstock.ask("POST", f"/v1/sessions/{session_id}/generations", start)


def _token(signer: Signer, subject: str, pattern: str = "*") -> str:
    return make_token(signer, subject=subject, scopes=("read", "write"), sessions=(pattern,), ttl=24 * 3600)


@contextmanager
def _served(context: Context, sessions: int) -> Iterator[_Served]:
    secret = secrets.token_hex(32)
    signer = Signer(algorithm="HS256", key=secret.encode(), public=secret.encode())
    key, held = context.folder / "key", context.folder / f"held-{sessions}"
    key.touch(0o600)
    key.write_text(secret)
    db = _filled(context, sessions)
    options = ["--jwt-key", str(key), "--rate", "1000000", "--idle-limit", "none"]
    options += ["--producer", "holds=tests.benchmarks.holds:holds"]
    with open_penstock(db.parent, db=db.name, options=options, token=_token(signer, "writer")) as penstock:
        yield _Served(penstock, signer, sessions, held)


def _filled(context: Context, sessions: int) -> Path:
    """A log of so many sessions; made once in a run."""
    path = context.keeping / f"listed-{sessions}.db"
    if not path.exists():
        work("listing", "fill", context.folder, db=str(path), sessions=sessions)
    return path


# --- pages


def _pages(context: Context, served: _Served) -> dict[str, float]:
    """How long a page takes, the first one and one from the middle, by what its reader may read."""
    limit, found = context.sizes.page, dict[str, float]()
    middle = served.sessions // 2
    served.note_holds()
    for whose, pattern in listed.PATTERNS.items():
        token = served.token(whose, pattern)
        with closing(connected(served.address)) as connection:
            for name, behind in (("first", ""), ("deep", f"&after={listed.place(middle)}")):
                pages = [_page(connection, token, limit, behind) for _ in range(context.sizes.pages)]
                ids = pages[0][1]
                if len(ids) != limit or (behind and ids != listed.page(whose, middle, limit)):
                    raise Incomplete(f"the {name} page of {whose} has {len(ids)} sessions, or others than it should")
                delays = Delays.of([taken for taken, _ in pages])
                found |= {f"{name}.{whose}.p50_ms": delays.p50 * MILLI, f"{name}.{whose}.p99_ms": delays.p99 * MILLI}
    return {**found, "held_ms": served.held() * MILLI}


def _page(
    connection: http.client.HTTPConnection, token: str, limit: int, behind: str = ""
) -> tuple[int, Sequence[str]]:
    """The nanoseconds until a page was there, and the ids of its sessions."""
    begun = time.monotonic_ns()
    connection.request(
        "GET", f"/v1/sessions?order=updated&limit={limit}{behind}", headers={"Authorization": f"Bearer {token}"}
    )
    answer = connection.getresponse()
    body = answer.read()
    taken = time.monotonic_ns() - begun
    if answer.status != 200:
        raise Incomplete(f"a page was answered with {answer.status}: {body[:300]!r}")
    return taken, [session["session_id"] for session in msgspec.json.decode(body)["sessions"]]


def _raw_pages(context: Context) -> dict[str, float]:
    found: dict[str, float] = {}
    sizes = context.sizes
    for sessions in sizes.listed:
        db = str(_filled(context, sessions))
        taken = work("listing", "pages", context.folder, db=db, sessions=sessions, limit=sizes.page, times=sizes.pages)
        found |= {f"pages[{sessions}].{name}_ms": seconds * MILLI for name, seconds in taken.items()}
    return found


# --- the stream


def _pace(count: int, change: Callable[[], object]) -> None:
    begun = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, begun + number / _RATE - time.monotonic()))
        change()


def _stream(
    context: Context, server: Server, viewers: Sequence[Viewer], change: Callable[[], object]
) -> dict[str, float]:
    """From asking for a change to its event at each of the viewers, and what such an event costs the server."""
    count = context.sizes.changes
    used: list[float] = []

    def go() -> None:
        used.append(processor_seconds(server))
        _pace(count, change)
        time.sleep(_SETTLE)
        used.append(processor_seconds(server))
        change()  # the one that they still wait for: they leave behind it, which is not what is measured

    viewed = complete(watch(context.folder, server.address, viewers, seconds=_PATIENCE, stamps=True, on_ready=go))
    return {
        "stream.p50_ms": viewed.delays.p50 * MILLI,
        "stream.p99_ms": viewed.delays.p99 * MILLI,
        "stream.cpu_us_per_event": (used[1] - used[0]) / (count * len(viewers)) * 1e6,
        "stream.client_cores": viewed.cpu,
    }


def _watchers(context: Context, served: _Served, changes: int) -> list[Viewer]:
    """Each with a token of their own. They come back to where the list stands: its page has stamps from before."""
    with closing(connected(served.address)) as connection:
        headers = {"Authorization": f"Bearer {served.token('looker')}"}
        connection.request("GET", "/v1/events?live=false&limit=1", headers=headers)
        found = re.search(_CAUGHT_UP + rb"id: (\S+)", connection.getresponse().read())
    if found is None:
        raise Incomplete("the list's stream was not caught up")
    path = f"/v1/events?after={found[1].decode()}"
    requests = (get(path, served.token(f"watcher {number}")) for number in range(context.sizes.watching))
    return [Viewer(sends=(request,), expected=changes, ready=_CAUGHT_UP) for request in requests]


def _broadcast(peers: Peers) -> Measuring:
    """The same by sse-starlette: an event that is told to each of its viewers."""

    def measure(context: Context) -> dict[str, float]:
        with uvicorn(peers, "sse-starlette")(context.folder) as server, closing(connected(server.address)) as asking:

            def change() -> None:
                source = Source(count=1, size=_AS_LONG, begin=time.monotonic_ns())
                exchange(asking, "POST", "/go", {"streams": ["list"], **asdict(source)})

            viewers = server.viewers(["list"], context.sizes.watching, context.sizes.changes + 1, shared=True)
            return _stream(context, server, viewers, change)

    return measure


# --- what is opened beside it


def _beside(context: Context, served: _Served) -> dict[str, float]:
    """How long it takes to open the page, while the list changes, and what holds the loop meanwhile."""
    opened: list[int] = []
    held: list[float] = []
    token = served.token("opener")

    def go() -> None:
        served.note_holds()
        with ThreadPoolExecutor(1) as pool, closing(connected(served.address)) as connection:
            changing = pool.submit(_pace, context.sizes.changes, served.change)
            while not changing.done():
                opened.append(_open(served.address, token, listed.session_id(served.sessions // 2 - len(opened))))
                _page(connection, token, context.sizes.page)
            changing.result()
        held.append(served.held())
        served.change()

    viewers = _watchers(context, served, context.sizes.changes + 1)
    complete(watch(context.folder, served.address, viewers, seconds=_PATIENCE, stamps=True, on_ready=go))
    delays = Delays.of(opened)
    return {
        "opened.p50_ms": delays.p50 * MILLI,
        "opened.p99_ms": delays.p99 * MILLI,
        "opened.held_ms": held[0] * MILLI,
    }


def _open(address: tuple[str, int], token: str, session_id: str) -> int:
    """The nanoseconds until a browser has what it shows: the page, then the list and a session beside each other."""
    begun = time.monotonic_ns()
    with socket.create_connection(address, timeout=_PATIENCE) as page:
        page.sendall(get("/"))
        _until(page, b"</html>")
        with socket.create_connection(address, timeout=_PATIENCE) as session:
            page.sendall(get("/v1/events", token))
            session.sendall(get(f"/v1/sessions/{session_id}/events?snapshot=true", token))
            for stream in (page, session):
                _until(stream, _CAUGHT_UP)
    return time.monotonic_ns() - begun


def _until(stream: socket.socket, mark: bytes) -> None:
    data = b""
    while mark not in data:
        piece = stream.recv(65536)
        data += piece
        if not piece or not data.startswith(b"HTTP/1.1 200"):
            raise Incomplete(f"there was no {mark!r} in {data[:300]!r}")


def _chromium(context: Context) -> dict[str, float]:
    """The same as a person sees it, by a browser that was never there, beside the watchers."""
    found: list[tuple[float, float]] = []
    with _served(context, context.sizes.listed[0]) as served:

        def go() -> None:
            url = f"http://{served.address[0]}:{served.address[1]}/"
            found.extend(looks(url, served.token("looker"), context.sizes.looks))
            served.change()

        viewers = _watchers(context, served, 1)
        complete(watch(context.folder, served.address, viewers, seconds=_PATIENCE, stamps=True, on_ready=go))
    painted, shown = zip(*found, strict=True)
    return {
        "opened.painted_p50_ms": statistics.median(painted),
        "opened.painted_most_ms": max(painted),
        "opened.listed_p50_ms": statistics.median(shown),
        "opened.listed_most_ms": max(shown),
    }


def _penstock(context: Context) -> dict[str, float]:
    found: dict[str, float] = {}
    for number, sessions in enumerate(context.sizes.listed):
        with _served(context, sessions) as served:
            found |= {f"pages[{sessions}].{name}": value for name, value in _pages(context, served).items()}
            if not number:
                viewers = _watchers(context, served, context.sizes.changes + 1)
                found |= _stream(context, served.penstock, viewers, served.change)
                found |= _beside(context, served)
    return found


def b11(peers: Peers) -> Bench:
    systems: dict[str, Measuring] = {
        "penstock": _penstock,
        "raw-sqlite": _raw_pages,
        "sse-starlette": _broadcast(peers),
        "chromium": _chromium,
    }
    return Bench("B11", "The list of very many sessions: pages, its stream, and what is opened beside it", systems)
