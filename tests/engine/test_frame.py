"""The frame that the engine comes in: it stands on its own, under any name."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from penstock import engine

PACKAGE = Path(engine.__file__).parent

PROBE = """
import sys
import carried_along
foreign = sorted(name for name in sys.modules if name.partition(".")[0] in ("penstock", "engine", "quart", "hypercorn"))
assert not foreign, foreign
assert carried_along.__all__
for name in carried_along.__all__:
    getattr(carried_along, name)
"""


def test_engine_works_under_a_name_of_the_hosts_own(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "carried_along", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_package_data_is_shipped() -> None:
    assert (PACKAGE / "py.typed").exists()
    assert (PACKAGE / "log" / "sqlite" / "schema.sql").exists()
