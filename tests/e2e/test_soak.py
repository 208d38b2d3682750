"""A short run of the soak: the long one is `python -m tests.e2e.soak`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.soak import Soak


# httpcore leaves its generators to the collector where a read is cancelled.
@pytest.mark.filterwarnings("ignore:Async generator 'httpcore:ResourceWarning")
@pytest.mark.slow
async def test_what_was_acknowledged_outlives_every_kill(tmp_path: Path) -> None:  # R-69 R-134
    soak = Soak(folder=tmp_path, seed=20261129, life=4.0, sessions=[f"soak-{number}" for number in range(8)])
    await soak.run(14.0)
    assert soak.lives >= 3  # the last to look with
    assert sum(map(len, soak.chunks.values())) > 100
    assert sum(map(len, soak.posts.values())) > 10
    assert sum(map(len, soak.seen.values())) > 100
    assert soak.faults == []
    assert "Traceback" not in (tmp_path / "server.log").read_text()
