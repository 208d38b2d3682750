"""A short run of the soak: the long one is `python -m tests.e2e.soak`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.long
def test_what_was_acknowledged_outlives_every_kill() -> None:  # R-69 R-134
    command = [sys.executable, "-m", "tests.e2e.soak", "--minutes", "0.2", "--life", "4", "--seed", "20261129"]
    command += ["--growth", "inf"]  # lives of seconds end while the server still warms up
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=110, cwd=Path(__file__).parents[2], check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    told = {name: int(number) for number, name in re.findall(r"(\d+) (lives|posts|pieces|events)", run.stdout)}
    assert told["lives"] >= 3
    assert min(told["posts"], told["pieces"], told["events"]) > 10, told
