"""Getting the peers, each by its ordinary client into a folder of ours: nothing is installed into the system.

What cannot be had is skipped with a reason. Pins are major versions, so that a table is of what it says it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, final

from attrs import frozen

__all__ = ["Peers", "Unavailable"]

_PYTHON: Final = (
    "sse-starlette>=3,<4",
    "starlette>=1,<2",
    "uvicorn[standard]>=0.40,<1",  # with uvloop and httptools: the fast one
    "redis>=7,<9",
)
_NODE: Final = ("@durable-streams/server@0.3",)
_DEBIAN: Final = ("redis-server", "redis-tools", "liblzf1", "libjemalloc2", "libatomic1")

_PATIENCE: Final = 300.0


class Unavailable(Exception):
    """A peer cannot run here; the text says why."""


@final
@frozen
class Peers:
    """A folder of peers; each is fetched when it is first asked for."""

    folder: Path

    def python(self) -> str:
        """An interpreter that has the Python peers. Raises `Unavailable`."""
        place = self.folder / "python"
        interpreter = place / "bin" / "python"
        if not self._done(place):
            _run([sys.executable, "-m", "venv", "--clear", str(place)], "no virtual environment can be made")
            command = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *_PYTHON]
            _run(command, "pip cannot install the Python peers")
            self._finish(place)
        return str(interpreter)

    def node_packages(self) -> Path:
        """A folder with Durable Streams' server in its node_modules. Raises `Unavailable`."""
        place = self.folder / "node"
        for command in ("node", "npm"):
            if shutil.which(command) is None:
                raise Unavailable(f"{command} is not installed")
        if not self._done(place):
            place.mkdir(parents=True, exist_ok=True)
            (place / "package.json").write_text('{"private": true}\n')
            command_ = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(place), *_NODE]
            _run(command_, "npm cannot install @durable-streams/server")
            self._finish(place)
        return place

    def redis(self) -> tuple[str, Mapping[str, str]]:
        """A Redis server and the environment it needs: the system's, or Debian's packages unpacked."""
        found = shutil.which("redis-server")
        if found is not None:
            return found, {}
        place = self.folder / "redis"
        if not self._done(place):
            for command in ("apt-get", "dpkg"):
                if shutil.which(command) is None:
                    raise Unavailable("redis-server is not installed")
            place.mkdir(parents=True, exist_ok=True)
            _run(["apt-get", "download", *_DEBIAN], "apt-get cannot download redis-server", cwd=place)
            for package in sorted(place.glob("*.deb")):
                _run(["dpkg", "-x", str(package), str(place)], f"{package.name} cannot be unpacked")
            self._finish(place)
        libraries = os.pathsep.join(str(path) for path in (place / "usr" / "lib").glob("*-linux-gnu*"))
        return str(place / "usr" / "bin" / "redis-server"), {"LD_LIBRARY_PATH": libraries}

    def versions(self) -> dict[str, str]:
        """Of what has been fetched so far."""
        found: dict[str, str] = {}
        if self._done(self.folder / "python"):
            code = (
                "from importlib.metadata import version\n"
                "for name in ('sse-starlette', 'starlette', 'uvicorn', 'uvloop', 'httptools', 'redis'):\n"
                "    print(name, version(name))"
            )
            for line in _output([str(self.folder / "python" / "bin" / "python"), "-c", code]):
                name, _, version = line.partition(" ")
                found["redis-py" if name == "redis" else name] = version
        package = self.folder / "node" / "node_modules" / "@durable-streams" / "server" / "package.json"
        if package.exists():
            found["@durable-streams/server"] = _output(
                ["node", "-p", f"JSON.parse(require('fs').readFileSync({str(package)!r})).version"]
            )[0]
            found["node"] = _output(["node", "--version"])[0]
        if self._done(self.folder / "redis") or shutil.which("redis-server"):
            binary, environment = self.redis()
            found["redis-server"] = _output([binary, "--version"], environment)[0].split("v=")[1].split()[0]
        return found

    @staticmethod
    def _done(place: Path) -> bool:
        return (place / ".complete").exists()

    @staticmethod
    def _finish(place: Path) -> None:
        (place / ".complete").touch()


def _run(command: Sequence[str], failed: str, cwd: Path | None = None) -> None:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{failed}: {error}") from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no word").splitlines()[-1]
        raise Unavailable(f"{failed}: {last:.200}")


def _output(command: Sequence[str], environment: Mapping[str, str] | None = None) -> list[str]:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=True,
            env={**os.environ, **(environment or {})},
        )
    except (OSError, subprocess.SubprocessError):
        return ["unknown v=unknown"]
    return done.stdout.strip().splitlines() or ["unknown v=unknown"]
