"""What tests run under node, where there is one: packages from npm, each at one version."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

__all__ = ["AXE", "COMMONMARK", "EVENTSOURCE", "PYRIGHT", "TYPESCRIPT", "install", "node"]

AXE: Final = "axe-core@4.14.1"  # what of a page is hard to use for whom; by rules of WCAG and beyond
COMMONMARK: Final = "commonmark-spec@0.31.2"  # the specification with its examples; its text is CC-BY-SA
EVENTSOURCE: Final = "eventsource@3.0.7"  # the last line that runs on the node of Debian 12
PYRIGHT: Final = "pyright@1.1.414"
TYPESCRIPT: Final = "typescript@7.0.2"


def node() -> str:
    """The program; without one the test is skipped."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("no node is installed: apt-get install nodejs npm")
    return found


def install(folder: Path, package: str) -> Path:
    """``node_modules`` in the folder, with the package; where npm or its registry cannot be had the test is skipped."""
    node()
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm is installed: apt-get install nodejs npm")
    folder.mkdir(parents=True, exist_ok=True)
    quiet = ["--no-audit", "--no-fund", "--no-save", "--ignore-scripts"]
    command = [npm, "install", *quiet, "--prefix", str(folder), package]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm does not come by {package} in time")
    if done.returncode != 0:
        pytest.skip(f"npm cannot install {package}: {done.stderr[-200:]}")
    return folder / "node_modules"
