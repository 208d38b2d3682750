"""What `penstock serve` makes of its options about producers and their limits."""

from __future__ import annotations

import math

import pytest
from click.testing import CliRunner

from penstock.adapters.cli import main, process
from penstock.adapters.cli.process import Options

STORY = "story=penstock.adapters.echo:echo"


def told(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Options:
    """What the options make; raises AssertionError with what is said when they are refused."""
    found: list[Options] = []
    monkeypatch.setattr(process, "run", found.append)
    result = CliRunner().invoke(main, ["serve", "--db", ":memory:", "--producer", STORY, *arguments])
    assert result.exit_code == 0, result.output
    return found[0]


@pytest.mark.parametrize(
    ("arguments", "limit", "limits"),
    [
        ((), 120, {}),
        (("--idle-limit", "600"), 600, {}),
        (("--idle-limit", "none"), math.inf, {}),
        (("--idle-limit", "story=none", "--idle-limit", "echo=2.5"), 120, {"story": math.inf, "echo": 2.5}),
        (("--idle-limit", "remote=30", "--idle-limit", "5"), 5, {"remote": 30}),
    ],
)
def test_silence_is_limited_for_all_or_for_one_producer(
    arguments: tuple[str, ...], limit: float, limits: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = told(monkeypatch, *arguments)
    assert (options.idle_limit, options.idle_limits) == (limit, limits)


@pytest.mark.parametrize("said", ["0", "-1", "nan", "soon", "", "story=", "story=0", "tale=5"])
def test_a_limit_that_is_none_is_refused_by_name(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="--idle-limit"):
        told(monkeypatch, "--idle-limit", said)
