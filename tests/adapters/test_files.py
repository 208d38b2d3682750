"""A session's files over HTTP: sent as they are, given back as what no browser runs."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import unquote

import httpx
import pytest
import trio

from penstock.adapters.client import connect
from penstock.engine import (
    Config,
    FileNotFound,
    FileTooLarge,
    Generation,
    InvalidBody,
    Keep,
    MemoryLog,
)
from penstock.engine.log import Write
from tests.adapters.serving import PATIENCE, penstock, problem, read_to_end
from tests.engine.faulty import FaultyLog
from tests.engine.producers import Steered

S: Final = "/v1/sessions/s"
PNG: Final = b"\x89PNG\r\n\x1a\n" + bytes(100)
MEBIBYTE: Final = 1024 * 1024


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


async def sent(client: httpx.AsyncClient, body: bytes, media_type: str, **query: str) -> dict[str, Any]:
    answer = await client.post(f"{S}/files", content=body, headers={"Content-Type": media_type}, params=query)
    assert answer.status_code in (200, 201), answer.text
    made: dict[str, Any] = answer.json()
    return made


async def test_a_file_is_sent_once_and_given_back_as_it_was() -> None:
    whole = content(3 * MEBIBYTE)  # more than any other body may have
    async with penstock() as world, world.client() as client:
        await client.put(S)
        headers = {"Content-Type": "Application/PDF; a=b"}
        path = f"{S}/files?filename=a%20%E6%B0%B4.pdf"
        first, again = [await client.post(path, content=whole, headers=headers) for _ in range(2)]
        assert (first.status_code, again.status_code) == (201, 200)
        made = first.json()
        assert again.json() == made
        assert (made["media_type"], made["size"], made["filename"]) == ("application/pdf", len(whole), "a 水.pdf")
        got = await client.get(f"{S}/files/{made['file_id']}")
        assert got.content == whole
        head = await client.head(f"{S}/files/{made['file_id']}")
        assert (head.headers["content-length"], head.content) == (str(len(whole)), b"")


@pytest.mark.parametrize(
    ("body", "media_type", "told"),
    [
        (PNG, "image/png", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg", "image/jpeg"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>", "image/svg+xml", None),
        (b"<html><script>1</script>", "text/html", None),
        (b"<html><script>1</script>", "application/xhtml+xml", None),
        (b"<html><script>1</script>", "text/plain", None),
        (b"alert(1)", "text/javascript", None),
        (b"%PDF-1.7", "application/pdf", None),
        (b"", "application/x-any", None),
    ],
)
async def test_no_file_is_anything_that_a_browser_runs(body: bytes, media_type: str, told: str | None) -> None:
    async with penstock() as world, world.client() as client:
        await client.put(S)
        made = await sent(client, body, media_type, filename="x.html")
        for method in ("GET", "HEAD"):
            got = await client.request(method, f"{S}/files/{made['file_id']}")
            assert got.headers["content-type"] == (told or "application/octet-stream")
            assert got.headers["x-content-type-options"] == "nosniff"
            assert got.headers["content-disposition"].startswith("attachment")
            assert got.headers["content-security-policy"] == "default-src 'none'; sandbox; frame-ancestors 'none'"
            assert got.headers["cross-origin-resource-policy"] == "same-origin"
            assert got.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("name", "kept", "plain"),
    [
        ("a.png", "a.png", "a.png"),
        ('水 und "Quote".png', '水 und "Quote".png', "_ und _Quote_.png"),
        ("../../x/\u202egpj.exe", "_gpj.exe", "_gpj.exe"),
        ("a\r\nSet-Cookie: b", "a__Set-Cookie: b", "a__Set-Cookie_ b"),
        ("..", None, None),
        ("", None, None),
    ],
)
async def test_a_name_is_told_without_what_deceives(name: str, kept: str | None, plain: str | None) -> None:
    async with penstock() as world, world.client() as client:
        await client.put(S)
        made = await sent(client, b"x", "text/plain", filename=name)
        assert made.get("filename") == kept
        told = (await client.get(f"{S}/files/{made['file_id']}")).headers["content-disposition"]
        if kept is None:
            assert told == "attachment"
            return
        type_, quoted, encoded = told.split("; ")
        assert (type_, quoted) == ("attachment", f'filename="{plain}"')
        assert unquote(encoded.removeprefix("filename*=UTF-8''")) == kept


async def test_what_is_no_file_is_refused_and_leaves_nothing() -> None:
    config = Config(file_bytes=MEBIBYTE, session_file_bytes=2 * MEBIBYTE)
    log = MemoryLog()

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield bytes(MEBIBYTE // 4)

    async with penstock(log, config=config) as world, world.client() as client:
        await client.put(S)
        path = f"{S}/files"
        cases: list[tuple[int, str, Any, dict[str, str]]] = [
            (400, "INVALID_BODY", b"<html>", {"Content-Type": "image/png"}),
            (400, "INVALID_BODY", b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}),
            (400, "INVALID_BODY", b"--x", {"Content-Type": "multipart/form-data; boundary=x"}),
            (400, "INVALID_BODY", b"x", {"Content-Type": "nonsense"}),
            (413, "BODY_TOO_LARGE", bytes(MEBIBYTE + 1), {}),
            (413, "BODY_TOO_LARGE", pieces(), {}),
        ]
        for status, code, body, headers in cases:
            answer = await client.post(path, content=body, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
        answer = await client.post(f"{path}?filename=a&filename=b", content=b"x")
        assert answer.json()["code"] == "INVALID_BODY"
        assert (await client.post("/v1/sessions/none/files", content=b"x")).json()["code"] == "SESSION_NOT_FOUND"
        for name in ("none", "a%2Fb", "%2e%2e"):
            assert (await client.get(f"{path}/{name}")).json()["code"] in ("NOT_FOUND", "INVALID_ID")
        epoch = (await (await world.engine.session("s")).cursor()).epoch
        assert await log.records("s", epoch, "part/") == await log.records("s", epoch, "uploading") == {}
        for number in range(2):
            await sent(client, content(MEBIBYTE - number), "text/plain")
        answer = await client.post(path, content=b"x")
        assert (answer.status_code, answer.json()["code"]) == (413, "BODY_TOO_LARGE")


async def test_a_line_that_breaks_leaves_nothing_and_hinders_nobody() -> None:
    begun, over = trio.Event(), trio.Event()

    def look(_: int, write: Write) -> None:
        if isinstance(write, Keep):
            if any(key.startswith("part/") and value for key, value in write.records.items()):
                begun.set()
            if write.records.get("uploading", b"") is None:
                over.set()

    log = FaultyLog(MemoryLog(), look)
    async with penstock(log) as world, world.client() as client:
        await client.put(S)
        head = f"POST {S}/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n".encode()
        with trio.fail_after(PATIENCE):
            async with await world.served.connect() as stream:
                await stream.send_all(head + bytes(600_000))
                await begun.wait()
            await over.wait()
        assert (await client.post(f"{S}/files", content=b"x")).status_code == 201
        epoch = (await (await world.engine.session("s")).cursor()).epoch
        assert len(await log.records("s", epoch, "part/")) == 1


async def test_a_refusal_is_told_also_to_one_that_has_not_sent_all() -> None:
    config = Config(file_bytes=MEBIBYTE)
    async with penstock(config=config) as world, world.client() as client:
        await client.put(S)
        head = f"POST {S}/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n".encode()
        async with await world.served.connect() as stream:
            await stream.send_all(head)
            status, told = problem(await read_to_end(stream))
            assert (status, told["code"]) == (413, "BODY_TOO_LARGE")


async def test_many_at_once_do_not_hold_up_an_answer() -> None:
    async with penstock(producers={"p": Steered()}) as world, world.client() as client:
        await client.put(S)

        async def send(number: int) -> None:
            await sent(client, content(2 * MEBIBYTE + number), "text/plain")

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(6):
                    nursery.start_soon(send, number)
                for _ in range(20):
                    await client.post(f"{S}/messages", json={"text": "hello"})


async def test_a_session_that_is_deleted_while_a_file_of_it_is_read_breaks_off_without_an_error_of_the_servers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = content(16 * MEBIBYTE)  # more than the sockets hold
    async with penstock() as world, world.client() as client:
        await client.put(S)
        file_id = (await sent(client, whole, "application/pdf"))["file_id"]
        async with world.lines(f"{S}/files/{file_id}") as answer:
            assert answer.headers["content-length"] == str(len(whole))
            assert (await client.delete(S)).status_code == 200
            with trio.fail_after(PATIENCE):
                assert len(await read_to_end(answer.stream)) < len(whole)
    assert [each.levelname for each in caplog.records if each.name == "penstock.server"] == ["WARNING"]


async def test_a_start_brings_a_message_over_http_and_over_a_socket() -> None:
    async with penstock(producers={"p": Steered()}) as world, world.client() as client, world.socket() as socket:
        await client.put(S)
        made = await sent(client, PNG, "image/png", filename="a.png")
        blocks = [{"kind": "text", "text": "What is it?"}, {"kind": "image", "file_id": made["file_id"]}]
        started = await client.post(f"{S}/generations", json={"producer": "p", "message": {"blocks": blocks}})
        assert started.status_code == 201
        told = await socket.ask(op="start", id=1, session_id="s", producer="p", message={"blocks": blocks})
        assert told["op"] == "reply"
        posted = await socket.ask(op="post", id=2, session_id="s", blocks=blocks)
        assert posted["op"] == "reply"
        messages = [each for each in (await client.get(S)).json()["messages"] if each["role"] == "user"]
        assert [message["blocks"][1]["filename"] for message in messages] == ["a.png"] * 3
        for wrong in (
            {"blocks": blocks, "role": "system"},
            {"text": "x"},
            {"blocks": "x"},
            {"blocks": [{"kind": "image"}]},
        ):
            refused = await client.post(f"{S}/generations", json={"producer": "p", "message": wrong})
            assert refused.json()["code"] == "INVALID_BODY"
            told = await socket.ask(op="start", id=3, session_id="s", producer="p", message=wrong)
            assert told["op"] == "error"


async def test_the_python_client_sends_and_reads_files() -> None:
    seen: list[bytes] = []

    async def look(generation: Generation) -> None:
        block = (await generation.snapshot()).messages[-1].blocks[0]
        seen.append(await generation.read_file(block.file_id or ""))
        with pytest.raises(FileNotFound):
            await generation.read_file("none")
        async with generation.message() as message:
            await message.source(file_id=block.file_id, title="A")

    async with penstock(config=Config(file_bytes=2 * MEBIBYTE)) as world, connect(world.url) as client:
        session = await client.create_session("s")
        whole = content(MEBIBYTE + 1)
        kept = await session.keep_file(whole, media_type="application/pdf", filename="a.pdf")
        again = await session.keep_file(whole, media_type="application/pdf", filename="a.pdf")
        assert (kept.created, again.created, again.file) == (True, False, kept.file)
        assert await session.read_file(kept.file.file_id) == whole
        with pytest.raises(FileTooLarge):
            await session.keep_file(bytes(2 * MEBIBYTE + 1), media_type="application/pdf")
        with pytest.raises(InvalidBody):
            await session.keep_file(b"x", media_type="image/png")
        with pytest.raises(FileNotFound):
            await session.read_file("none")
        message = {"blocks": [{"kind": "file", "file_id": kept.file.file_id}]}
        await session.run(look, message=message)
        assert seen == [whole]
        answer = (await session.snapshot()).messages[-1].blocks[0]
        assert (answer.kind, answer.file_id, answer.title) == ("source", kept.file.file_id, "A")
