"""What goes to a provider, and by which way: address, key, headers, proxy, certificates; and errors as they come."""

from __future__ import annotations

import json
import os
import ssl
from pathlib import Path

import pytest
import trio

from penstock.adapters.models import Model, ModelError, open_model
from penstock.adapters.models import provider as sent
from penstock.adapters.models.dialect import ANTHROPIC, OPENAI
from tests.adapters.certificates import make_certificate
from tests.adapters.providers import WIRES, Answer, Provider, Wire, chat, claude, provider, sse, whole
from tests.adapters.talking import PATIENCE, model_of, talking

every_wire = pytest.mark.parametrize("wire", WIRES, ids=[wire.kind for wire in WIRES])

PREFIX = {"openai": "OPENAI", "openai-responses": "OPENAI", "anthropic": "ANTHROPIC"}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.startswith(("ANTHROPIC_", "OPENAI_"))]:
        monkeypatch.delenv(name)


async def answered(model: Model) -> None:
    async with talking(model) as talk:
        assert (await talk.say("x")).outcome == "completed"


@every_wire
async def test_the_variables_of_the_providers_own_sdk_say_where_and_who(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with provider(whole(wire, "x")) as server:
        monkeypatch.setenv(f"{PREFIX[wire.kind]}_BASE_URL", f"{server.url}{wire.base}/")
        monkeypatch.setenv(f"{PREFIX[wire.kind]}_API_KEY", "from-env\n")
        monkeypatch.setenv("OPENAI_ORG_ID", "org-1\n")
        monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
        await answered(open_model(f"{wire.kind}:small"))
        (seen,) = server.seen
        assert seen.path == wire.path
        assert seen.headers["authorization"] == "Bearer from-env"
        if wire is claude:
            assert seen.headers["anthropic-version"] == "2026-10-21"
            assert "openai-organization" not in seen.headers
        else:
            assert (seen.headers["openai-organization"], seen.headers["openai-project"]) == ("org-1", "proj-1")
            assert "anthropic-version" not in seen.headers


@every_wire
async def test_what_is_given_counts_for_more_than_the_environment(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX[wire.kind]}_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv(f"{PREFIX[wire.kind]}_API_KEY", "from-env")
    async with provider(whole(wire, "x")) as server:
        await answered(model_of(wire, server))
        assert server.seen[0].headers["authorization"] == "Bearer key"


@every_wire
async def test_headers_of_ones_own_count_for_more_than_ours(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    told = "authorization: Basic eDp5\nX-Team : water : 7\nno header"
    monkeypatch.setenv(f"{PREFIX[wire.kind]}_CUSTOM_HEADERS", told)
    async with provider(whole(wire, "x")) as server:
        await answered(model_of(wire, server))
        assert server.seen[0].headers["authorization"] == "Basic eDp5"
        assert server.seen[0].headers["x-team"] == "water : 7"


def test_a_variable_that_is_empty_is_none() -> None:
    unset = {"OPENAI_BASE_URL": "", "OPENAI_API_KEY": "", "OPENAI_ORG_ID": "", "ANTHROPIC_API_KEY": ""}
    assert OPENAI.base_url(unset) == "https://api.openai.com/v1"
    assert ANTHROPIC.base_url(unset) == "https://api.anthropic.com"
    assert OPENAI.key(unset) is None
    assert OPENAI.headers(unset) == {}
    assert ANTHROPIC.key(unset | {"ANTHROPIC_AUTH_TOKEN": "t"}) == "t"
    assert ANTHROPIC.key({"ANTHROPIC_AUTH_TOKEN": "t", "ANTHROPIC_API_KEY": "k"}) == "k"


@every_wire
async def test_a_function_is_asked_for_the_key_before_each_request(wire: Wire) -> None:
    made = iter(["first", "second", "third"])

    async def token() -> str:
        return next(made)

    async with provider(Answer(status=503), whole(wire, "x"), whole(wire, "y")) as server:
        model = open_model(f"{wire.kind}:small", base_url=server.url + wire.base, api_key=token)
        async with talking(model) as talk:
            for _ in range(2):
                assert (await talk.say("x")).outcome == "completed"
        seen = [each.headers["authorization"] for each in server.seen]
        assert seen == ["Bearer first", "Bearer second", "Bearer third"]


@every_wire
async def test_on_this_machine_no_key_is_needed_and_none_is_sent(wire: Wire) -> None:
    async with provider(whole(wire, "x")) as server:
        await answered(open_model(f"{wire.kind}:small", base_url=server.url + wire.base))
        assert "authorization" not in server.seen[0].headers


async def test_a_key_that_cannot_be_had_now_is_asked_for_again() -> None:
    tokens: list[str | OSError] = ["late", OSError("no route to the tokens")]

    async def token() -> str:
        found = tokens.pop()
        if isinstance(found, OSError):
            raise found
        return found

    async with provider(whole(chat, "x")) as server:
        await answered(open_model("openai:small", base_url=f"{server.url}/v1", api_key=token))
        assert server.seen[0].headers["authorization"] == "Bearer late"


async def test_a_password_in_the_base_url_signs_in_and_stands_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with provider(Answer(status=503), whole(chat, "x")) as server:
        url = server.url.replace("//", "//me:secret@")
        await answered(open_model("openai:small", base_url=f"{url}/v1", api_key="key"))
        assert server.seen[1].headers["authorization"] == "Basic bWU6c2VjcmV0"
    assert "secret" not in caplog.text


@pytest.mark.parametrize("key", ["se\ncret", "se\rcret", "se\0cret", "s\u00e9cret", " \n"])
async def test_a_key_that_no_header_takes_is_asked_with_never_and_stands_in_no_log(
    key: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def token() -> str:
        return key

    async with provider() as server:
        for given in (key, token):
            async with talking(open_model("openai:small", base_url=server.url, api_key=given)) as talk:
                assert (await talk.say("x")).code == "MODEL_AUTH"
        assert not server.connections
    assert "cret" not in caplog.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENAI_CUSTOM_HEADERS", "X-A: se\rcret"),
        ("OPENAI_CUSTOM_HEADERS", "X-A: s\u00e9cret"),
        ("OPENAI_CUSTOM_HEADERS", "X A: secret"),
        ("OPENAI_CUSTOM_HEADERS", ": secret"),
        ("OPENAI_ORG_ID", "se\ncret"),
    ],
)
def test_a_header_that_cannot_be_sent_is_told_when_the_model_is_opened(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ModelError, match=name) as caught:
        open_model("openai:small", api_key="key")
    assert "cret" not in str(caught.value)


@every_wire
async def test_a_proxy_of_the_environment_is_taken(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    async with provider(whole(wire, "x"), whole(wire, "y")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        await answered(open_model(f"{wire.kind}:small", base_url=f"http://models.test{wire.base}", api_key="key"))
        assert proxy.seen[0].path == f"http://models.test{wire.path}"
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        await answered(model_of(wire, proxy))
        assert proxy.seen[1].path == wire.path


async def test_a_redirect_is_followed_with_the_whole_request_and_without_the_key() -> None:
    async with provider(whole(chat, "x")) as server:
        elsewhere = Answer(status=307, headers={"location": f"{server.url}/elsewhere"})
        async with provider(elsewhere) as first:
            await answered(model_of(chat, first))
            assert server.seen[0].path == "/elsewhere"
            assert server.seen[0].body == first.seen[0].body
            assert "authorization" not in server.seen[0].headers


async def test_a_certificate_of_ones_own_is_trusted_and_a_strangers_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made, strangers = make_certificate(tmp_path / "made"), make_certificate(tmp_path / "strangers")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.certfile, made.keyfile)
    server = Provider("", [whole(chat, "x")])

    async def serve(stream: trio.SocketStream) -> None:
        await server.serve(trio.SSLStream(stream, context, server_side=True))  # type: ignore[arg-type]

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        url = f"https://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1"
        for certificate, end in ((strangers, "MODEL_UNAVAILABLE"), (made, None)):
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate.certfile))
            async with talking(open_model("openai:small", base_url=url, api_key="key")) as talk:
                assert (await talk.say("x")).code == end
        assert len(server.seen) == 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("named", [False, True])
def test_the_systems_certificates_are_trusted_unless_others_are_named(
    named: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    if named:
        monkeypatch.setenv("SSL_CERT_FILE", str(make_certificate(tmp_path).certfile))
    loaded: list[ssl.SSLContext] = []
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda context, *_: loaded.append(context))
    open_model("openai:small", api_key="key")
    assert bool(loaded) is not named


@every_wire
@pytest.mark.parametrize("body", [b"", b"<html>gone</html>", b"\xff\xfe", b"[]", b'{"error": "no"}', b"null"])
async def test_an_error_in_no_shape_is_told_by_its_status(wire: Wire, body: bytes) -> None:
    pieces = [body] if body else []
    async with provider(Answer(status=404, pieces=pieces)) as server, talking(model_of(wire, server)) as talk:
        assert (await talk.say("x")).code == "MODEL_NOT_FOUND"
        assert len(server.seen) == 1


@every_wire
async def test_an_error_whose_body_breaks_off_is_told_by_its_status(wire: Wire) -> None:
    cut = Answer(status=401, pieces=[b'{"err'], end="cut")
    async with provider(cut) as server, talking(model_of(wire, server)) as talk:
        assert (await talk.say("x")).code == "MODEL_AUTH"
        assert len(server.seen) == 1


async def test_an_error_that_does_not_end_is_told_by_its_status() -> None:
    endless = Answer(status=404, pieces=[b"x" * 65536] * 100, end="hang")
    async with provider(endless) as server, talking(model_of(chat, server)) as talk:
        assert (await talk.say("x")).code == "MODEL_NOT_FOUND"
        with trio.fail_after(PATIENCE):
            await server.seen[0].left.wait()


async def test_an_error_that_stops_coming_is_told_by_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sent, "_ERROR_LIMIT", 0.05)
    silent = Answer(status=404, pieces=[b'{"err'], end="hang")
    async with provider(silent) as server, talking(model_of(chat, server)) as talk:
        assert (await talk.say("x")).code == "MODEL_NOT_FOUND"
        with trio.fail_after(PATIENCE):
            await server.seen[0].left.wait()


# The library leaves the inner ones of its generators to the collector; that the connection is closed is ours.
@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
async def test_an_error_that_cannot_be_decoded_leaves_no_connection_open() -> None:
    mangled = Answer(status=404, headers={"content-encoding": "gzip"}, pieces=[b"no gzip"], end="hang")
    async with provider(mangled) as server, talking(model_of(chat, server)) as talk:
        assert (await talk.say("x")).code == "MODEL_NOT_FOUND"
        with trio.fail_after(PATIENCE):
            await server.seen[0].left.wait()


async def test_an_error_that_is_a_text_in_the_stream_is_an_error() -> None:
    broken = Answer(pieces=[*chat.say("The first word")[:2], sse({"error": "the model was unloaded"})])
    async with provider(broken) as server, talking(model_of(chat, server)) as talk:
        assert (await talk.say("x")).code == "MODEL_UNAVAILABLE"


@every_wire
async def test_nothing_is_asked_for_that_a_word_would_wait_for(wire: Wire) -> None:
    async with provider(whole(wire, "x")) as server:
        await answered(model_of(wire, server))
        assert server.seen[0].headers["accept-encoding"] == "identity"


@every_wire
async def test_a_request_says_its_length_and_what_it_is(wire: Wire) -> None:
    async with provider(whole(wire, "x")) as server:
        await answered(model_of(wire, server, {"note": "水"}))
        seen = server.seen[0]
        assert seen.headers["content-type"] == "application/json"
        assert seen.headers["user-agent"] == "penstock"
        assert int(seen.headers["content-length"]) == len(
            json.dumps(seen.body, separators=(",", ":"), ensure_ascii=False).encode()
        )


@every_wire
async def test_a_line_without_end_is_not_kept_for_ever(wire: Wire) -> None:
    endless = Answer(pieces=[b"x" * 1024 * 1024] * 17, end="hang")
    async with provider(endless) as server, talking(model_of(wire, server)) as talk:
        assert (await talk.say("x")).code == "MODEL_GARBLED"
