"""A short run of the campaign, of restarts in turn: the others are `python -m tests.e2e.campaign`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.node import node
from tests.engine.redis_server import binary

pytestmark = pytest.mark.long


def campaign(*arguments: str, seconds: float) -> dict[str, int]:
    """What was done, by its name. Fails where anything that was promised is not so."""
    binary()
    node()
    command = [sys.executable, "-m", "tests.e2e.campaign", "--minutes", str(seconds / 60), "--growth", "inf"]
    run = subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        timeout=seconds + 240,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    last = [line for line in run.stdout.splitlines() if line.startswith(("minute", "done"))][-2:]
    return {name: int(number) for name, number in re.findall(r"'([^']+)': (\d+)", "".join(last))}


# R-48 R-69 R-74
@pytest.mark.timeout(360)
def test_clients_notice_nothing_of_a_rolling_restart() -> None:
    done = campaign("--seed", "20261202", "--faults", "rolling", seconds=60)
    assert min(done["conversations"], done["acknowledged"], done["restart"]) >= 5, done
