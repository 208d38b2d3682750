"""Small real disks that fill up and turn read-only: a mounted tmpfs each, so root is needed."""

from __future__ import annotations

import contextlib
import errno
import io
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import final

import pytest

_BLOCK = 4096


@final
class Disk:
    """A mounted disk of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self, *, leave: int = 0) -> None:
        """Take all the room there is but ``leave`` bytes."""
        with self._ballast.open("ab", buffering=0) as ballast:
            while _takes(ballast, bytes(_BLOCK)):
                pass
            ballast.truncate(max(0, ballast.tell() - leave))

    def free(self) -> None:
        self._ballast.unlink()

    def make_read_only(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(self.path)], check=True)


def _takes(file: io.FileIO, block: bytes) -> bool:
    try:
        return file.write(block) == len(block)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False


@contextlib.contextmanager
def mounted(path: Path, size: str) -> Iterator[Disk]:
    """A disk of ``size`` at ``path``; skips the test where mounting is not permitted."""
    path.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"mounting a small disk is not permitted here: {error}")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
