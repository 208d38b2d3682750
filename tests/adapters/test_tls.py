"""TLS under everything else: the same deadlines, the same closes, and HTTP/1.1 only."""

from __future__ import annotations

import logging
import socket
import ssl
import warnings
from pathlib import Path

import pytest
import trio
import trio_websocket
from quart import request
from quart_trio import QuartTrio

from penstock.adapters.server.accept import ServerConfig
from penstock.adapters.server.tls import TlsError, tls_context
from tests.adapters.certificates import Certificate, make_certificate
from tests.adapters.serving import PATIENCE, Served, problem, serving
from tests.adapters.test_server import World, echo_socket

GET = b"GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls(certificate: Certificate) -> ssl.SSLContext:
    return tls_context(str(certificate.certfile), str(certificate.keyfile))


async def connect(
    served: Served, context: ssl.SSLContext, stream: trio.SocketStream | None = None
) -> trio.SSLStream[trio.SocketStream]:
    encrypted = trio.SSLStream(stream or await served.connect(), context, server_hostname="127.0.0.1")
    with trio.fail_after(PATIENCE):
        await encrypted.do_handshake()
    return encrypted


async def read_all(stream: trio.SSLStream[trio.SocketStream]) -> bytes:
    """To the other side's TLS goodbye; without one this raises."""
    data = b""
    with trio.fail_after(PATIENCE):
        while piece := await stream.receive_some():
            data += piece
    return data


async def exchange(served: Served, context: ssl.SSLContext, raw: bytes) -> bytes:
    async with await connect(served, context) as stream:
        await stream.send_all(raw)
        return await read_all(stream)


async def test_requests_are_answered_and_the_connection_ends_with_a_goodbye(
    certificate: Certificate, tls: ssl.SSLContext
) -> None:
    async with serving(World().app(), echo_socket, config=ServerConfig(tls=tls)) as served:
        for _ in range(3):
            assert (await exchange(served, certificate.trusting(), GET)).endswith(b"hello")


async def test_the_application_knows_that_it_is_encrypted(certificate: Certificate, tls: ssl.SSLContext) -> None:
    app = QuartTrio("scheme", static_folder=None)

    @app.get("/hello")
    async def scheme() -> str:
        return request.scheme

    async with serving(app, echo_socket, config=ServerConfig(tls=tls)) as served:
        assert (await exchange(served, certificate.trusting(), GET)).endswith(b"https")
    async with serving(app, echo_socket) as served:
        assert (await served.get("/hello")).endswith(b"\r\nhttp")


@pytest.mark.parametrize(("offered", "chosen"), [(("h2", "http/1.1"), "http/1.1"), (("h2",), None), ((), None)])
async def test_http_2_is_not_offered(
    certificate: Certificate, tls: ssl.SSLContext, offered: tuple[str, ...], chosen: str | None
) -> None:
    async with (
        serving(World().app(), echo_socket, config=ServerConfig(tls=tls)) as served,
        await connect(served, certificate.trusting(*offered)) as stream,
    ):
        assert stream.selected_alpn_protocol() == chosen
        await stream.send_all(GET)
        assert (await read_all(stream)).endswith(b"hello")


async def test_old_versions_are_refused(certificate: Certificate, tls: ssl.SSLContext) -> None:
    old = certificate.trusting()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("DEFAULT@SECLEVEL=0")
    async with serving(World().app(), echo_socket, config=ServerConfig(tls=tls)) as served:
        async with await served.connect() as raw:
            with pytest.raises(trio.BrokenResourceError):
                await connect(served, old, raw)
        assert (await exchange(served, certificate.trusting(), GET)).endswith(b"hello")


async def test_a_handshake_that_does_not_come_is_cut_and_harms_nobody(
    certificate: Certificate, tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    config = ServerConfig(tls=tls, head_timeout=0.3)
    async with serving(World().app(), echo_socket, config=config) as served, await served.connect() as silent:
        assert (await exchange(served, certificate.trusting(), GET)).endswith(b"hello")
        with trio.fail_after(PATIENCE), pytest.raises(trio.BrokenResourceError):
            assert await silent.receive_some() != b"", "reset, as there is nothing to say in the clear"
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("raw", [GET, b"\x16\x03\x01\xff\xff" + b"\x00" * 300, b"\x00"])
async def test_who_does_not_speak_tls_harms_nobody(
    certificate: Certificate, tls: ssl.SSLContext, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(World().app(), echo_socket, config=ServerConfig(tls=tls)) as served:
        async with await served.connect() as stream:
            await stream.send_all(raw)
        assert (await exchange(served, certificate.trusting(), GET)).endswith(b"hello")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_websocket_over_tls(certificate: Certificate, tls: ssl.SSLContext) -> None:
    async with serving(World().app(), echo_socket, config=ServerConfig(tls=tls)) as served:
        url = f"wss://127.0.0.1:{served.port}/v1/ws"
        with trio.fail_after(PATIENCE):
            async with trio_websocket.open_websocket_url(url, ssl_context=certificate.trusting()) as ws:
                for size in (1, 100_000):
                    await ws.send_message("x" * size)
                    assert await ws.get_message() == "/v1/ws " + "x" * size


#
async def test_a_stalled_reader_is_cut_and_does_not_hold_up_the_end(
    certificate: Certificate, tls: ssl.SSLContext
) -> None:
    world = World()
    config = ServerConfig(tls=tls, send_timeout=0.5)
    async with serving(world.app(), echo_socket, config=config) as served:
        sock = trio.socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await sock.connect(("127.0.0.1", served.port))
        raw = trio.SocketStream(sock)
        async with raw:
            stream = await connect(served, certificate.trusting(), raw)
            await stream.send_all(b"GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with trio.fail_after(PATIENCE):
                await world.flood.ended.wait()
        served.shutdown.set()
        with trio.fail_after(2.0):
            await served.finished.wait()


async def test_shutdown_with_a_client_that_never_reads_ends_in_time(
    certificate: Certificate, tls: ssl.SSLContext
) -> None:
    world = World()
    config = ServerConfig(tls=tls, send_timeout=600.0, drain_timeout=0.3)
    async with serving(world.app(), echo_socket, config=config) as served, await served.connect() as raw:
        stream = await connect(served, certificate.trusting(), raw)
        await stream.send_all(b"GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with trio.fail_after(PATIENCE):
            await world.flood.begun.wait()
        served.shutdown.set()
        with trio.fail_after(2.0):
            await served.finished.wait()
        assert world.flood.ended.is_set()


async def test_a_peer_that_leaves_without_a_goodbye_is_just_gone(
    certificate: Certificate, tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world = World()
    async with serving(world.app(), echo_socket, config=ServerConfig(tls=tls)) as served:
        async with await served.connect() as raw:
            stream = await connect(served, certificate.trusting(), raw)
            await stream.send_all(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with trio.fail_after(PATIENCE):
                await world.stream_open.wait()
        with trio.fail_after(PATIENCE):
            await world.stream_left.wait()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_connection_past_the_cap_is_refused_in_words(certificate: Certificate, tls: ssl.SSLContext) -> None:
    config = ServerConfig(tls=tls, max_connections=1)
    async with (
        serving(World().app(), echo_socket, config=config) as served,
        await connect(served, certificate.trusting()),
    ):
        status, made = problem(await exchange(served, certificate.trusting(), GET))
        assert (status, made["code"]) == (503, "OVERLOADED")


def test_files_that_cannot_be_used_are_named(tmp_path: Path, certificate: Certificate) -> None:
    cert, key = str(certificate.certfile), str(certificate.keyfile)
    other = make_certificate(tmp_path / "other")
    junk = tmp_path / "junk.pem"
    junk.write_text("no key")
    with pytest.raises(TlsError, match=r"missing\.pem cannot be read"):
        tls_context(str(tmp_path / "missing.pem"))
    with pytest.raises(TlsError, match=r"missing\.key cannot be read"):
        tls_context(cert, str(tmp_path / "missing.key"))
    with pytest.raises(TlsError, match="is not that of the certificate"):
        tls_context(cert, str(other.keyfile))
    with pytest.raises(TlsError, match="is encrypted"):
        tls_context(cert, str(certificate.encrypted_keyfile))
    for files in ((cert, None), (str(junk), key), (cert, str(junk))):
        with pytest.raises(TlsError, match="must hold a certificate and its private key"):
            tls_context(*files)
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.certfile.read_bytes() + certificate.keyfile.read_bytes())
    tls_context(str(both))
