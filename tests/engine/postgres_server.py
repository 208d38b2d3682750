"""A Postgres of one's own: on a free port, in a folder of its own, and else as it comes."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final, final

import pytest

from tests.engine.stores import free_port

__all__ = ["PASSWORD", "PostgresServer", "binaries"]

_schemas: Final = itertools.count()

# From the start of the process until it answers: seconds.
_START: Final = 30.0

# Stands in every URL, and must stand nowhere else.
PASSWORD: Final = "not-to-be-shown"


def binaries() -> Path:
    """The folder of initdb and postgres. Skips the test where there is none, or no client for it."""
    pytest.importorskip("psycopg", reason="the extra penstock[postgres] is not installed")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if found:
        return found[-1].parent
    on_path = shutil.which("postgres")
    if on_path is None:
        pytest.skip("postgres is not installed")
    return Path(on_path).parent


@final
class PostgresServer:
    """``options`` are those of postgresql.conf, by their names."""

    def __init__(self, **options: str) -> None:
        self._bin = binaries()
        self.port = free_port()
        self._options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "shared_buffers": "32MB",
            **options,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._uid, self._gid = _other_user()
        # Not in pytest's: those are this user's alone.
        self.folder = Path(tempfile.mkdtemp(prefix="penstock-postgres-"))
        self._give(self.folder)
        self._data = self.folder / "data"

    def url(self, *, schema: str | None = None, port: int | None = None, password: str = PASSWORD) -> str:
        """With a schema that is not there yet, unless one is named."""
        chosen = f"t{next(_schemas)}" if schema is None else schema
        return f"postgres://penstock:{password}@127.0.0.1:{port or self.port}/postgres?schema={chosen}"

    def make(self) -> None:
        """A cluster with one user, who has a password."""
        secret = self.folder / "secret"
        secret.write_text(PASSWORD)
        self._give(secret)
        words = ["--username=penstock", f"--pwfile={secret}", "--auth=scram-sha-256", "--encoding=UTF8", "--no-sync"]
        subprocess.run(
            [self._bin / "initdb", *words, "--locale=C", "-D", self._data],
            check=True,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            user=self._uid,
            group=self._gid,
        )

    def _give(self, path: Path) -> None:
        if self._uid is not None and self._gid is not None:
            os.chown(path, self._uid, self._gid)

    def start(self) -> None:
        if not self._data.exists():
            self.make()
        settings = [word for name, value in self._options.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "postgres.log").open("ab") as told:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, *settings],
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=told,
                cwd=self.folder,
                start_new_session=True,
                user=self._uid,
                group=self._gid,
            )
        deadline = time.monotonic() + _START
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "postgres.log").read_text()
            assert time.monotonic() < deadline, "postgres does not answer"
            time.sleep(0.02)

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url(schema="t").partition("?")[0]).close()
        except psycopg.OperationalError:
            return False
        return True

    def kill(self) -> None:
        """As kill -9, of all its processes at once."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def restart(self) -> None:
        """As an administrator does: those that are connected are thrown out."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()
        self.start()

    def copy(self) -> None:
        """Keep a copy of its folder, as a backup has it; it is stopped meanwhile."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()
        subprocess.run(["cp", "-a", self._data, self.folder / "copy"], check=True)
        self.start()

    def put_back(self) -> None:
        """What was copied, in place of what there is; not while it runs."""
        shutil.rmtree(self._data)
        subprocess.run(["cp", "-a", self.folder / "copy", self._data], check=True)

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def run(self, statement: str) -> object:
        """Carry it out, in a transaction of its own at most; the first value that it answers with, or None."""
        import psycopg

        with psycopg.connect(self.url(schema="t").partition("?")[0], autocommit=True) as connection:
            answer = connection.execute(statement.encode())
            row = answer.fetchone() if answer.description else None
        return row[0] if row else None

    @property
    def pids(self) -> list[int]:
        """The server and its children, each of which is a group of its own in one session; none when it has ended."""
        if self._process is None or self._process.poll() is not None:
            return []
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return [self._process.pid, *map(int, children)]

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def remove(self) -> None:
        self.go_on()
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def _other_user() -> tuple[int | None, int | None]:
    """Postgres refuses to run as root. None when this user will do."""
    if os.getuid() != 0:
        return None, None
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return user.pw_uid, user.pw_gid
    pytest.skip("there is no user but root, as whom postgres does not run")
