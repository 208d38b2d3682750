"""A Redis of one's own: on a free port, in a folder of its own, as durable as it can be."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Final, final

import pytest

__all__ = ["RedisCluster", "RedisServer", "binary"]

_prefixes: Final = itertools.count()

# From the start of the process until it answers: seconds. It takes some ten milliseconds.
_START: Final = 20.0


def binary() -> str:
    """The path of redis-server. Skips the test where there is none, or no client for it."""
    pytest.importorskip("coredis", reason="the extra penstock[redis] is not installed")
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("redis-server is not installed")
    return found


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


# A replica gets what there is at once, not when others may have come, too.
_QUICK: Final = {"repl-diskless-sync-delay": "0"}


@final
class RedisServer:
    """``options`` are those of redis.conf, by their names."""

    def __init__(self, folder: Path, **options: str) -> None:
        self.folder = folder
        self.port = _free_port()
        self._options = {"appendonly": "yes", "appendfsync": "always", "save": "", **_QUICK, **options}
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, *, prefix: str | None = None, shards: int = 64, port: int | None = None) -> str:
        """With a prefix that nothing is stored under yet, unless one is named."""
        chosen = f"t{next(_prefixes)}" if prefix is None else prefix
        return f"redis://127.0.0.1:{port or self.port}/0?prefix={chosen}&shards={shards}"

    def start(self) -> None:
        settings = [word for name, value in self._options.items() for word in (f"--{name}", *(value.split() or [""]))]
        address = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        with (self.folder / "redis.log").open("ab") as told:
            self._process = subprocess.Popen(
                [binary(), *address, *settings], stdin=subprocess.DEVNULL, stdout=told, stderr=told
            )
        deadline = time.monotonic() + _START
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "redis.log").read_text()
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def ask(self, *words: str) -> str:
        """What redis-cli is told."""
        done = subprocess.run(
            ["redis-cli", "-p", str(self.port), *words],
            capture_output=True,
            text=True,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        return done.stdout

    def follow(self, primary: RedisServer) -> None:
        """Be its replica, and wait until it has all that the primary has."""
        self.ask("replicaof", "127.0.0.1", str(primary.port))
        deadline = time.monotonic() + _START
        while self.ask("role").splitlines()[3:4] != ["connected"]:
            assert time.monotonic() < deadline, "the replica does not come"
            time.sleep(0.01)
        self.caught_up(primary)

    def info(self, section: str) -> dict[str, str]:
        """What it tells of itself, such as its ``memory``."""
        return dict(line.split(":", 1) for line in self.ask("info", section).splitlines() if ":" in line)

    def _offset(self) -> int:
        return int(self.info("replication")["master_repl_offset"])

    def caught_up(self, primary: RedisServer) -> None:
        """Wait until it has all that the primary has."""
        deadline = time.monotonic() + _START
        while self._offset() < primary._offset():
            assert time.monotonic() < deadline, "the replica does not come"
            time.sleep(0.01)

    def promote(self) -> None:
        """Be the primary of what it has: cut off from where that came from."""
        self.ask("replicaof", "no", "one")

    def kill(self) -> None:
        """As kill -9."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, number)


@final
class RedisCluster:
    """Three primaries, which share the slots."""

    def __init__(self, folder: Path) -> None:
        self.nodes: list[RedisServer] = []
        for number in range(3):
            own = folder / str(number)
            own.mkdir()
            self.nodes.append(RedisServer(own, **{"cluster-enabled": "yes", "cluster-port": str(_free_port())}))

    def url(self, *, shards: int = 16) -> str:
        return "redis+cluster" + self.nodes[0].url(shards=shards).removeprefix("redis")

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        places = [f"127.0.0.1:{node.port}" for node in self.nodes]
        self._ask("--cluster", "create", *places, "--cluster-yes")
        deadline = time.monotonic() + _START
        for node in self.nodes:
            while "cluster_state:ok" not in self._ask("-p", str(node.port), "cluster", "info"):
                assert time.monotonic() < deadline, "the cluster does not come together"
                time.sleep(0.05)

    def _ask(self, *words: str) -> str:
        done = subprocess.run(
            ["redis-cli", *words], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
        )
        return done.stdout

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()
