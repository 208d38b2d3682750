"""What a person is shown before they agree to something, and the command that they are told of."""

from __future__ import annotations

import shlex

import pytest
from click.testing import CliRunner

from penstock.adapters.cli import main
from penstock.adapters.cli.approve import approve
from penstock.adapters.cli.asking import demand, how_to_answer
from penstock.adapters.cli.client import DEFAULT_URL
from penstock.engine import JSON


@pytest.mark.parametrize(
    ("name", "arguments", "shown"),
    [
        ("rm", {"path": "/tmp/ä b"}, 'rm {"path": "/tmp/ä b"}'),
        (None, None, "a tool call"),
        ("rm", {}, "rm {}"),
        ("rm", "as it came", 'rm "as it came"'),
        ("ls\n[y/n] y", None, "ls\\u000a[y/n] y"),
        ("ls\x1b[2K\rsafe", None, "ls\\u001b[2K\\u000dsafe"),
        ("rm", {"path": "\u202egpj.exe"}, 'rm {"path": "\\u202egpj.exe"}'),
        ("rm", {"path": "a\u200bb\u2028c\x9bd"}, 'rm {"path": "a\\u200bb\\u2028c\\u009bd"}'),
        ("rm", {"path": "\U000e0041"}, 'rm {"path": "\\U000e0041"}'),
        ("rm", {"text": "x" * 500}, f'rm {{"text": "{"x" * 500}"}}'),
    ],
)
def test_all_of_it_is_shown_and_as_what_it_is(name: str | None, arguments: JSON, shown: str) -> None:
    assert demand(name, arguments) == shown


@pytest.mark.parametrize("approval_id", ["0198c0de", "a b; rm -rf", "--no", "$(id)"])
def test_the_command_that_is_told_answers_just_this_one(approval_id: str) -> None:
    for url in (DEFAULT_URL, "https://elsewhere"):
        told = how_to_answer("chat", approval_id, url).partition(": ")[2].removesuffix(" (or --no)")
        command, *arguments = shlex.split(told)
        assert command == "penstock"
        context = approve.make_context("approve", arguments[1:])
        assert context.params["approval_id"] == approval_id
        assert (context.params["session"], context.params["approved"]) == ("chat", True)
        assert context.params["url"] == url


@pytest.mark.parametrize("command", ["approve", "stop"])
def test_help_has_examples(command: str) -> None:
    assert "Examples:" in CliRunner().invoke(main, [command, "--help"]).output
