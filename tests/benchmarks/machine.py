"""Where and when a run was made, and of which versions."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from penstock.engine import JSON, JSONObject
from tests.benchmarks.children import ROOT
from tests.benchmarks.peers.install import Peers
from tests.benchmarks.sizes import Sizes

__all__ = ["describe"]

_PACKAGES = ("penstock", "trio", "hypercorn", "quart", "quart-trio", "trio-websocket", "msgspec", "attrs", "cattrs")


def describe(sizes: Sizes, peers: Peers, place: Path) -> JSONObject:
    """``place`` is where the databases are: its disk is what durability costs."""
    versions: dict[str, JSON] = {"python": sys.version.split()[0], "sqlite": sqlite3.sqlite_version}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "unknown"
    load = list(os.getloadavg())
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "sizes": sizes.name,
        "rounds": sizes.rounds,
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "file_system": _file_system(place),
        "system": f"{platform.system()} {platform.release()}",
        "load_before": [round(part, 2) for part in load],
        "commit": _commit(),
        "versions": {**versions, **peers.versions()},
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(place: Path) -> str:
    """The type of the file system that has the folder; on `tmpfs` nothing is durable."""
    best, found = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split()
        inside = place == Path(point) or Path(point) in place.parents
        if inside and len(point) >= len(best):
            best, found = point, kind
    return found


def _commit() -> str:
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return told.stdout.strip()
