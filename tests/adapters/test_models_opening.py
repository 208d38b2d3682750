"""Which model a command line names, and that every mistake says what to do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from penstock.adapters.cli import main
from penstock.adapters.cli.producers import LoadError, load_producer
from penstock.adapters.models import CODES, ModelError, open_assistant, open_model
from penstock.adapters.models.chat import CHAT
from penstock.adapters.models.opening import parse_options, parse_spec
from penstock.adapters.models.responses import RESPONSES
from tests.adapters.providers import WIRES, Wire

ROOT = Path(__file__).parents[2]

every_wire = pytest.mark.parametrize("wire", WIRES, ids=[wire.kind for wire in WIRES])


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.startswith(("ANTHROPIC_", "OPENAI_", "PENSTOCK_MODEL"))]:
        monkeypatch.delenv(name)


def test_a_name_may_hold_colons() -> None:
    assert parse_spec("openai:llama3.2:8b") == (CHAT, "llama3.2:8b")
    assert parse_spec("openai-responses:x")[0] is RESPONSES


@pytest.mark.parametrize("text", ["", "openai", "openai:", "openai: ", "gpt-5", "google:gemini"])
def test_what_is_no_model_is_told_what_is_one(text: str) -> None:
    with pytest.raises(ModelError) as caught:
        parse_spec(text)
    assert "anthropic:NAME" in str(caught.value)


@every_wire
def test_without_a_key_it_is_said_which_one_to_set(wire: Wire) -> None:
    with pytest.raises(ModelError) as caught:
        open_model(f"{wire.kind}:small")
    assert "_API_KEY" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["http://localhost:11434/v1", "http://127.0.0.1/v1", "http://127.9.9.9", "http://[::1]:1", "http://m.localhost"],
)
def test_a_server_on_this_machine_needs_no_key(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_model("openai:small", base_url=url).name == "small"
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    assert open_model("openai:small").name == "small"


@pytest.mark.parametrize("url", ["http://10.0.0.1", "https://localhost.example", "http://localhost@models.example"])
def test_a_server_elsewhere_needs_one(url: str) -> None:
    with pytest.raises(ModelError, match="OPENAI_API_KEY"):
        open_model("openai:small", base_url=url)


@every_wire
def test_the_key_is_taken_from_the_environment(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY" if wire.kind == "anthropic" else "OPENAI_API_KEY", "key")
    assert open_model(f"{wire.kind}:small").name == "small"


@every_wire
def test_without_the_extra_it_is_said_how_to_install_it(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    monkeypatch.delitem(sys.modules, "penstock.adapters.models.provider", raising=False)
    with pytest.raises(ModelError) as caught:
        open_model(f"{wire.kind}:small", api_key="key")
    assert "pip install 'penstock[models]'" in str(caught.value)


def test_a_way_to_sign_in_that_is_not_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_PROFILE", "nowhere")
    with pytest.raises(ModelError) as caught:
        open_model("anthropic:small")
    assert "ANTHROPIC_PROFILE" in str(caught.value)
    assert "nowhere" not in str(caught.value), "what a variable holds may be a secret"
    assert "ANTHROPIC_API_KEY" in str(caught.value)


def test_the_extra_is_not_needed_as_long_as_no_model_is_opened() -> None:
    without = "import sys; sys.modules['httpx'] = None"
    command = f"{without}; from penstock.adapters.models import Assistant, Tool, open_model; print(Assistant.__name__)"
    told = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr
    assert "Assistant" in told.stdout


@pytest.mark.parametrize("url", ["localhost:11434", "", "http://x:port"])
def test_a_base_url_is_one(url: str) -> None:
    with pytest.raises(ModelError):
        open_model("openai:small", base_url=url, api_key="key")


@every_wire
def test_the_base_url_of_the_environment_is_one(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL" if wire.kind == "anthropic" else "OPENAI_BASE_URL", "localhost:11434")
    with pytest.raises(ModelError) as caught:
        open_model(f"{wire.kind}:small", api_key="key")
    assert "http://" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTPS_PROXY", "carrier-pigeon://loft"),
        ("HTTPS_PROXY", "socks5://127.0.0.1:1"),
        ("NO_PROXY", "localhost,fd00::/8"),
        ("SSL_CERT_FILE", __file__),
    ],
)
def test_what_the_environment_gives_and_cannot_be_used_is_told(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv(name, value)
    with pytest.raises(ModelError) as caught:
        open_model("openai:small", api_key="key")
    assert "cannot be used" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"a": "\udcff"}'])
def test_options_are_a_json_object(text: str) -> None:
    with pytest.raises(ModelError):
        parse_options(text)
    assert parse_options('{"temperature": 0.2}') == {"temperature": 0.2}


@pytest.mark.parametrize(
    ("arguments", "environment", "hint"),
    [
        (["--model", "gpt-5"], {}, "openai:NAME"),
        (["--model", "openai:x"], {}, "OPENAI_API_KEY"),
        (["--model", "anthropic:x"], {}, "ANTHROPIC_API_KEY"),
        ([], {"PENSTOCK_MODEL": "anthropic:x"}, "ANTHROPIC_API_KEY"),
        (["--model", "openai:x", "--model-options", "{"], {"OPENAI_API_KEY": "k"}, "not JSON"),
        (["--model", "openai:x", "--base-url", "x"], {"OPENAI_API_KEY": "k"}, "http://"),
        (["--system", "Be brief."], {}, "belong to a --model"),
        (["--context-tokens", "4096"], {}, "belong to a --model"),
        (["--model", "openai:x", "--context-tokens", "0"], {"OPENAI_API_KEY": "k"}, "--context-tokens"),
        (
            ["--model", "openai:x", "--producer", "model=penstock.adapters.echo:echo"],
            {"OPENAI_API_KEY": "k"},
            "another name",
        ),
    ],
)
def test_serve_says_what_is_wrong_with_a_model(arguments: list[str], environment: dict[str, str], hint: str) -> None:
    told = CliRunner().invoke(main, ["serve", "--db", ":memory:", *arguments], env=environment)
    assert told.exit_code != 0
    assert hint in told.output
    assert "Traceback" not in told.output


def test_the_readmes_example_is_a_producer_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    readme = (ROOT / "adapters" / "models" / "README.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {}
    exec(example, names)
    assert callable(names["agent"])
    for code in CODES:
        assert f"`{code}`" in readme


def test_an_assistant_is_a_producer_that_can_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "penstock.adapters.models.example", raising=False)
    with pytest.raises(LoadError) as caught:
        load_producer("keeper=penstock.adapters.models.example:keeper")
    assert "PENSTOCK_MODEL" in str(caught.value)
    monkeypatch.setenv("PENSTOCK_MODEL", "openai:small")
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    name, producer = load_producer("keeper=penstock.adapters.models.example:keeper")
    assert name == "keeper"
    assert callable(producer)
    assert callable(open_assistant("openai:small", system="Be brief.", options="{}"))
