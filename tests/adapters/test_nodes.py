"""Nodes that ask each other over HTTP: who may, what is good for once, and what becomes of what gets no answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, final

import httpx
import pytest
import trio
import trio.testing

from penstock.adapters.nodes import BadSecret, ClusterSecret, HttpPeers, load_secret, serve_nodes
from penstock.adapters.nodes.answering import DIGEST, MOST_BYTES, NONCE, NUMBER, SENDER, SIGNATURE
from penstock.adapters.nodes.signing import Numbers, Signed, digest_of
from penstock.adapters.server.tls import Certificate
from penstock.engine import (
    Engine,
    Generation,
    LocalBus,
    MemoryLog,
    Moved,
    PenstockError,
    Producer,
    Session,
    Started,
    TimedOut,
    Unanswered,
    open_engine,
    request_id,
)
from tests.adapters.certificates import make_certificate
from tests.engine.producers import Steered, saying

GENERATION: Final = "0198c0de-7a11-7abc-8def-012345670003"
SECRET: Final = ClusterSecret(b"s" * 32)


@final
class Cluster:
    """Nodes over one log, each with a listener of its own."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.urls: Final[dict[str, str]] = {}
        self.engines: Final[dict[str, Engine]] = {}
        self.peers: Final[dict[str, HttpPeers]] = {}
        self._nursery = nursery
        self._scopes: Final[dict[str, trio.CancelScope]] = {}

    async def listen(self, name: str, secret: ClusterSecret = SECRET, port: int = 0) -> None:
        (listener,) = await trio.open_tcp_listeners(port, host="127.0.0.1")
        self.urls[name] = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        self._scopes[name] = trio.CancelScope()
        await self._nursery.start(self._serve, name, secret, listener)

    async def _serve(
        self, name: str, secret: ClusterSecret, listener: trio.SocketListener, *, task_status: trio.TaskStatus[None]
    ) -> None:
        with self._scopes[name]:
            await serve_nodes(self.engines[name], secret, [listener], shutdown=trio.Event(), task_status=task_status)

    async def leave(self, name: str) -> None:
        """Nothing of that node answers any more."""
        self._scopes[name].cancel()
        await trio.testing.wait_all_tasks_blocked(0.01)


@asynccontextmanager
async def cluster(*names: str, producers: dict[str, Producer] | None = None) -> AsyncIterator[Cluster]:
    log, bus = MemoryLog(), LocalBus()
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        made = Cluster(nursery)
        for name in names:
            peers = made.peers[name] = await stack.enter_async_context(HttpPeers(SECRET, made.urls.get, within=5.0))
            made.engines[name] = await stack.enter_async_context(
                open_engine(log, owner=name, bus=bus, peers=peers, producers=producers)
            )
            await made.listen(name)
        yield made
        nursery.cancel_scope.cancel()


@pytest.fixture
async def both() -> AsyncIterator[Cluster]:
    """Of which ``a`` has a generation live in the session ``s``."""
    async with cluster("a", "b", producers={"hold": Steered(), "say": saying("said")}) as made:
        await (await made.engines["a"].create_session("s")).start("hold", generation_id=GENERATION)
        yield made


@pytest.fixture
async def there(both: Cluster) -> Session:
    return await both.engines["b"].session("s")


async def test_what_is_asked_of_another_node_is_done_there(both: Cluster, there: Session) -> None:
    posted = await there.post("x", author="ann")
    assert posted.cursor == await (await both.engines["a"].session("s")).cursor()
    with pytest.raises(PenstockError) as caught:
        await there.retract("0198c0de-7a11-7abc-8def-012345670001")
    assert caught.value.code == "MESSAGE_NOT_FOUND"
    kept = await there.keep_file(b"\xff" * 3_000_000, media_type="application/x")
    assert kept.file.size == 3_000_000
    assert (await there.stop()).state == "stopped"


async def test_the_first_that_is_asked_may_be_a_large_file(both: Cluster, there: Session) -> None:
    content = bytes(range(256)) * 60_000
    kept = await there.keep_file(content, media_type="application/x")
    assert await there.read_file(kept.file.file_id) == content


async def test_many_ask_at_once(both: Cluster, there: Session) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(partial(there.post, f"{number}"))
    texts = {block.text for message in (await there.snapshot()).messages for block in message.blocks}
    assert texts >= {f"{number}" for number in range(200)}


async def test_a_request_keeps_its_id() -> None:
    seen: list[str | None] = []

    async def note(_: Generation) -> None:
        seen.append(request_id.get())

    async with cluster("a", "b", producers={"hold": Steered(), "note": note}) as made:
        await (await made.engines["a"].create_session("s")).start("hold")
        there = await made.engines["b"].session("s")
        token = request_id.set("from-afar")
        assert isinstance(await there.start("note"), Started)
        request_id.reset(token)
        await trio.testing.wait_all_tasks_blocked(0.01)
    assert seen == ["from-afar"]


async def test_a_caller_that_leaves_gives_its_connection_up(both: Cluster, there: Session) -> None:
    with trio.move_on_after(0.2):
        await there.wait_fenced(GENERATION)
    assert (await there.post("x")).created


# --- nodes that come and go


async def test_a_node_that_starts_again_is_asked_with_its_new_nonce(both: Cluster, there: Session) -> None:
    await there.post("before")
    port = int(both.urls["a"].rpartition(":")[2])
    await both.leave("a")
    await both.listen("a", port=port)
    assert (await there.post("behind")).created


async def test_one_that_is_not_there_is_waited_for_and_then_named(
    both: Cluster, there: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    await both.leave("a")
    monkeypatch.setattr(there._registry.forwarding, "_within", 0.2)
    with pytest.raises(Moved) as caught:
        await there.stop()
    assert caught.value.owner == "a"


async def test_one_of_which_nobody_knows_where_it_is_is_named_at_once(both: Cluster, there: Session) -> None:
    del both.urls["a"]
    with pytest.raises(Moved) as caught:
        await there.stop()
    assert caught.value.owner == "a"


async def test_one_that_has_stopped_is_waited_for_until_it_is_held_to_be_gone(both: Cluster, there: Session) -> None:
    async with trio.open_nursery() as nursery:
        silent = await trio.open_tcp_listeners(0, host="127.0.0.1")
        both.urls["a"] = f"http://127.0.0.1:{silent[0].socket.getsockname()[1]}"

        async def go() -> None:
            async with await silent[0].accept() as stream:
                await stream.receive_some()
                del both.urls["a"]
                await stream.receive_some()

        nursery.start_soon(go)
        began = trio.current_time()
        with pytest.raises(TimedOut):
            await there.stop()
        assert trio.current_time() - began < 3
        await silent[0].aclose()


async def test_over_tls_a_certificate_that_is_not_trusted_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_certificate(tmp_path)
    tls = Certificate(str(made.certfile), str(made.keyfile))
    async with open_engine(MemoryLog(), owner="a") as engine, trio.open_nursery() as nursery:
        await (await engine.create_session("s")).post("x")
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        serving = partial(serve_nodes, engine, SECRET, listeners, shutdown=trio.Event(), tls=tls)
        await nursery.start(serving)
        async with HttpPeers(SECRET, lambda _: f"https://127.0.0.1:{port}") as stranger:
            with pytest.raises(Unanswered) as caught:
                await stranger.ask("a", "s", "queue_next", b"{}")
            assert not caught.value.asked
        monkeypatch.setenv("SSL_CERT_FILE", str(made.certfile))
        async with HttpPeers(SECRET, lambda _: f"https://127.0.0.1:{port}") as known:
            assert b"QueueNext" in await known.ask("a", "s", "queue_next", b"{}")
        nursery.cancel_scope.cancel()


# --- who may ask


def signed(nonce: str, body: bytes = b"", number: int = 1, command: str = "queue_next", **changed: object) -> Signed:
    said = {
        "method": "POST",
        "path": f"/node/v1/s/{command}",
        "nonce": nonce,
        "sender": "ab",
        "number": number,
        "request_id": "",
        "digest": digest_of(body),
    }
    return Signed(**{**said, **changed})  # type: ignore[arg-type]


def head(asked: Signed, secret: ClusterSecret = SECRET, **changed: str) -> dict[str, str]:
    names = {NONCE: asked.nonce, SENDER: asked.sender, NUMBER: str(asked.number), DIGEST: asked.digest}
    return {**names, SIGNATURE: secret.of_request(asked), **changed}


async def nonce_of(url: str) -> str:
    async with httpx.AsyncClient() as client:
        asked = signed("", sender="cd")
        refused = await client.post(url + asked.path, headers=head(asked))
    assert refused.status_code == 401
    nonce = refused.headers[NONCE]
    assert refused.headers[SIGNATURE] == SECRET.of_answer(SECRET.of_request(asked), 401, nonce, b"")
    return str(nonce)


async def test_a_request_is_good_for_once(both: Cluster) -> None:
    url = both.urls["a"]
    asked = signed(await nonce_of(url), b'{"patch":{"n":1}}', command="update")
    async with httpx.AsyncClient() as client:
        done = await client.post(url + asked.path, headers=head(asked), content=b'{"patch":{"n":1}}')
        assert done.status_code == 200
        again = await client.post(url + asked.path, headers=head(asked), content=b'{"patch":{"n":1}}')
        assert (again.status_code, again.content) == (401, b"")
        # Nor at another node, nor at this one when it has started again.
        other = await client.post(both.urls["b"] + asked.path, headers=head(asked), content=b'{"patch":{"n":1}}')
        assert (other.status_code, other.content) == (401, b"")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"secret": ClusterSecret(b"t" * 32)}, 401),
        ({"body": b'{"patch":{"n":2}}'}, 400),
        ({"path": "/node/v1/t/update"}, 401),
        ({"path": "/node/v1/s/reset"}, 401),
        ({"path": "/node/v1/s/update?x"}, 404),
        ({"path": "/node/v1/%73/update"}, 404),
        ({"path": "/v1/sessions/s"}, 404),
        ({"path": "/"}, 404),
        ({"method": "GET"}, 405),
        ({NUMBER: "2"}, 401),
        ({NUMBER: "0"}, 401),
        ({NUMBER: "9" * 400}, 401),
        ({NUMBER: "1e3"}, 401),
        ({SENDER: "ef"}, 401),
        ({SENDER: "x\ty"}, 401),
        ({DIGEST: digest_of(b"else")}, 401),
        ({DIGEST: ""}, 401),
        ({SIGNATURE: ""}, 401),
        ({SIGNATURE: "f" * 64}, 401),
        ({"X-Request-Id": "another"}, 401),
        ({"Transfer-Encoding": "chunked"}, 400),
    ],
    ids=str,
)
async def test_what_was_changed_on_its_way_is_refused(both: Cluster, change: dict[str, object], status: int) -> None:
    url = both.urls["a"]
    body = b'{"patch":{"n":1}}'
    asked = signed(await nonce_of(url), body, command="update")
    secret = change.pop("secret", SECRET)
    assert isinstance(secret, ClusterSecret)
    path, method = change.pop("path", asked.path), change.pop("method", "POST")
    sent = change.pop("body", body)
    assert isinstance(sent, bytes)
    said = {name: str(value) for name, value in change.items()}
    async with httpx.AsyncClient() as client:
        answer = await client.request(str(method), f"{url}{path}", headers=head(asked, secret, **said), content=sent)
    assert answer.status_code == status
    assert SIGNATURE not in answer.headers or answer.content == b""
    assert (await (await both.engines["a"].session("s")).snapshot()).metadata == {}


async def test_nothing_is_read_of_a_body_whose_sender_is_not_known_or_that_is_too_large(both: Cluster) -> None:
    url = both.urls["a"]
    nonce = await nonce_of(url)
    for secret, length, wanted in ((ClusterSecret(b"t" * 32), 10, 401), (SECRET, 10**12, 413)):
        lines = [f"POST {signed(nonce).path} HTTP/1.1", "Host: x", f"Content-Length: {length}"]
        lines += [f"{name}: {value}" for name, value in head(signed(nonce), secret).items()]
        stream = await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))
        await stream.send_all("\r\n".join(lines).encode() + b"\r\n\r\n")
        with trio.fail_after(5):
            assert f" {wanted} ".encode() in await stream.receive_some()
        await stream.aclose()
    assert MOST_BYTES < 10**12


async def test_hostile_bytes_neither_hang_nor_end_a_node(both: Cluster, there: Session) -> None:
    port = int(both.urls["a"].rpartition(":")[2])
    handshake = (
        b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    for said in (
        b"\x16\x03\x01",
        b"\r\n" * 1000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /node/v1/s/stop HTTP/1.1\r\n\r\n",
        handshake,
        b"A" * 100_000,
    ):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        with trio.fail_after(5):
            try:
                await stream.send_all(said)
                await stream.send_eof()
                while await stream.receive_some():
                    pass
            except trio.BrokenResourceError:
                pass
        await stream.aclose()
    assert (await there.post("still here")).created


# --- who may answer


async def answering(answer: Callable[[httpx.Request], httpx.Response], body: bytes = b"{}") -> bytes:
    peers = HttpPeers(SECRET, lambda _: "http://node", within=1.0, transport=httpx.MockTransport(answer))
    async with peers:
        return await peers.ask("a", "s", "stop", body)


@pytest.mark.parametrize("status", [200, 401, 500, 302])
async def test_what_does_not_sign_is_no_answer(status: int) -> None:
    with pytest.raises(Unanswered) as caught:
        await answering(lambda _: httpx.Response(status, content=b"{}", headers={NONCE: "ab", SIGNATURE: "0" * 64}))
    assert caught.value.asked


async def test_an_answer_to_another_request_is_none() -> None:
    kept: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        kept.append(request.headers[SIGNATURE])
        signature = SECRET.of_answer(kept[0], 200, "ab", b"{}")
        return httpx.Response(200, content=b"{}", headers={NONCE: "ab", SIGNATURE: signature})

    with pytest.raises(Unanswered):
        await answering(answer)
    assert len(kept) == 2


async def test_one_that_takes_no_signature_is_given_up() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers[NUMBER])
        signature = SECRET.of_answer(request.headers[SIGNATURE], 401, "ab", b"")
        return httpx.Response(401, headers={NONCE: "ab", SIGNATURE: signature})

    with pytest.raises(Unanswered) as caught:
        await answering(answer)
    assert not caught.value.asked
    assert len(set(asked)) == len(asked) == 4


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (httpx.ConnectError("refused"), False),
        (httpx.ConnectTimeout("slow"), False),
        (httpx.PoolTimeout("full"), False),
        (httpx.ReadError("cut"), True),
        (httpx.WriteError("cut"), True),
        (httpx.RemoteProtocolError("closed"), True),
        (httpx.ReadTimeout("slow"), True),
    ],
    ids=repr,
)
async def test_what_may_have_been_asked_is_told_from_what_was_not(error: httpx.HTTPError, asked: bool) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(Unanswered) as caught:
        await answering(answer)
    assert caught.value.asked is asked


# --- numbers and secrets


def test_numbers_are_taken_once_in_any_order() -> None:
    numbers = Numbers()
    order = [*range(1, 200, 2), *range(2, 200, 2)]
    assert all(numbers.take("a", number) for number in order)
    assert not any(numbers.take("a", number) for number in order)
    assert numbers.take("b", 1)


def test_numbers_that_are_long_past_are_refused_and_what_is_remembered_is_bounded() -> None:
    numbers = Numbers()
    for number in range(1, 20_000):
        assert numbers.take("a", number)
    assert not numbers.take("a", 1)
    assert numbers.take("a", 30_000)
    nonce = numbers.nonce
    for sender in range(5_000):
        numbers.take(f"{sender}", 1)
    assert len(numbers.senders) < 4097
    assert numbers.nonce != nonce


def test_a_secret_is_long_enough_and_a_file_that_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    with pytest.raises(BadSecret, match="cannot be read"):
        load_secret(file)
    file.write_bytes(b"short\n")
    with pytest.raises(BadSecret, match=r"secret: it has 5 bytes; .* 32 at least"):
        load_secret(file)
    file.write_bytes(b"s" * 32 + b"\n")
    assert load_secret(file).of_request(signed("ab")) == SECRET.of_request(signed("ab"))
