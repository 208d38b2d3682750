"""What is said of whoever has a database open: no more than is known."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from penstock.engine.errors import DatabaseInUse
from penstock.engine.log.sqlite import lockfile
from penstock.engine.log.sqlite.lockfile import LockFile, holder
from tests.engine.forks import forked, wait_for

ME: Final = os.getpid()
HERE: Final = lockfile._realm()
BEGAN: Final = lockfile._began(ME)
PARENT: Final = os.getppid()


def gone() -> int:
    """The number of a process that is no more."""
    child = forked(lambda: None)
    wait_for(child)
    return child


def text(process: int, began: str = BEGAN, realm: str = HERE, host: str = "web-1") -> str:
    return f"{process}\n".ljust(20) + f"\n{began}\n{realm}\n{host}\n"


# What a lock file says while somebody holds it; what is told of that; what must not be.
SAYS: Final[dict[str, tuple[str, str, str]]] = {
    "this process": (text(ME), "already open in this process", "another process"),
    "another one, alive": (
        text(PARENT, lockfile._began(PARENT)),
        f"is open in process {PARENT}:",
        "another process",
    ),
    "one that is gone": (text(gone(), "12"), "is open in another process:", "names"),
    "one whose number is another's now": (text(PARENT, "12"), "is open in another process:", f"process {PARENT}"),
    "this number, of an earlier process": (text(ME, "12"), "is open in another process:", "this process"),
    "this number, in another container": (
        text(ME, BEGAN, "the same boot pid:[1]"),
        f"is open in another process (its lock file names process {ME} on web-1, as another",
        "this process",
    ),
    "number 1, in another container": (text(1, "3", "x"), "names process 1 on web-1, as", "open in process 1"),
    "an older version": (
        f"{ME}\n",
        f"is open in another process (its lock file names process {ME}, as another",
        "this process",
    ),
    "nothing": ("", "is open in another process:", "names"),
    "nonsense": ("Dear diary", "is open in another process:", "names"),
    "no number": ("0x12\n", "is open in another process:", "names"),
    "bytes": ("\udcff\udcfe" * 5000, "is open in another process:", "names"),
    "a number that is none": (text(0), "is open in another process:", "process 0"),
    "a huge number": (text(10**18), "is open in another process:", "names"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chat.db"


@pytest.fixture
def held(path: Path) -> Iterator[LockFile]:
    lock = LockFile.acquire(str(path))
    yield lock
    lock.release()


def write(path: Path, says: str) -> None:
    Path(f"{path}-lock").write_bytes(says.encode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("case", SAYS)
def test_of_whoever_holds_the_lock_no_more_is_told_than_is_known(path: Path, held: LockFile, case: str) -> None:
    says, told, untold = SAYS[case]
    write(path, says)
    with pytest.raises(DatabaseInUse) as refused:
        LockFile.acquire(str(path))
    assert told in refused.value.detail
    assert untold not in refused.value.detail
    assert str(path) in refused.value.detail


@pytest.mark.parametrize("case", SAYS)
def test_a_lock_file_that_nobody_holds_names_a_process_only_if_that_very_one_lives(path: Path, case: str) -> None:
    says, _, _ = SAYS[case]
    write(path, says)
    known = {"this process": ME, "another one, alive": PARENT}
    assert holder(str(path)) == known.get(case)
    lock = LockFile.acquire(str(path))  # and keeps nobody out
    lock.release()
    assert holder(str(path)) is None


def test_an_older_version_reads_the_process_in_it(path: Path, held: LockFile) -> None:
    content = Path(f"{path}-lock").read_bytes()
    assert int(content[:20]) == ME
    assert content[:20].decode().strip().isdigit()
    assert socket.gethostname() in content.decode()
    assert holder(str(path)) == ME
    assert holder(str(path.with_name("other.db"))) is None
