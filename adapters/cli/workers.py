"""``penstock serve --workers N``: several processes behind the same addresses, and the one that looks after them.

The parent takes the addresses, starts each worker as ``penstock serve`` with the same arguments, and hands it over a
socket what makes it a worker: its number, the addresses, the secret that they know each other by. The worker says over
the same socket when it serves. Whichever end of it dies, the other one sees it closed: no worker outlives its parent.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Final, NoReturn, Self, final

import trio
from attrs import evolve, field, frozen

from ..nodes import ClusterSecret
from ..watching.spool import Spool
from .listening import Bound, ListenError
from .peering import Peering

__all__ = ["Team", "Worker", "run_workers"]

_log = logging.getLogger("penstock.workers")

# Where a worker finds the socket to its parent: the number of a descriptor.
_VARIABLE: Final = "PENSTOCK_WORKER_SOCKET"

_SERVING: Final = b"+"

_MESSAGE_BYTES: Final = 4096
_MOST_SOCKETS: Final = 64

# Seconds until a worker that ended is started again: twice as many each time, until one has served for so long.
_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_STEADY: Final = 60.0

# Seconds for what was said to be read, at the end.
_LAST_MOMENT: Final = 0.25


@final
@frozen(kw_only=True)
class Worker:
    """What a process is told by its parent."""

    number: int  # from 1
    node: str
    bound: Bound
    secret: bytes = field(repr=False)  # empty: it is in a file
    line: socket.socket

    @classmethod
    def told(cls) -> Self | None:
        """What this process is; None if it is nobody's worker. To be called once."""
        number = os.environ.pop(_VARIABLE, None)  # not for the processes that a producer starts
        if number is None:
            return None
        line = socket.socket(fileno=int(number))
        line.set_inheritable(False)
        message, descriptors, _flags, _address = socket.recv_fds(line, _MESSAGE_BYTES, _MOST_SOCKETS)
        if not message:
            raise SystemExit(1)  # the parent is gone already
        said = json.loads(message)
        sockets = [socket.socket(fileno=each) for each in descriptors]
        for each in sockets:
            each.set_inheritable(False)
            each.setblocking(False)
        return cls(
            number=said["number"],
            node=said["node"],
            bound=Bound(sockets),
            secret=bytes.fromhex(said["secret"]),
            line=line,
        )

    def mark(self, record: logging.LogRecord) -> bool:
        """A filter of log lines: each says whose it is."""
        record.worker = self.number
        return True

    def peering(self, told: Peering | None) -> Peering:
        """Where this worker answers the others: where it was told, each one port further, or else on this machine."""
        if told is not None:
            return evolve(told, port=told.port + self.number - 1 if told.port else 0)
        return Peering(host="127.0.0.1", port=0, url="", secret=ClusterSecret(self.secret))

    def serves(self) -> None:
        """Say so. The parent may be gone, which `orphaned` sees."""
        try:
            self.line.sendall(_SERVING)
        except OSError:
            _log.debug("the parent is gone")

    async def orphaned(self) -> None:
        """Return when the parent is gone."""
        self.line.setblocking(False)
        with trio.socket.from_stdlib_socket(self.line) as line:
            try:
                while await line.recv(1):
                    pass
            except OSError as error:
                _log.debug("the line to the parent broke: %s", error)


@final
@frozen(kw_only=True)
class Team:
    """The workers to be. Each gets ``shared``, and of ``own``, where there are any, the one with its number."""

    count: int
    name: str  # of all of them as nodes, before the number
    log_name: str
    scheme: str
    shared: Bound
    own: Sequence[Bound]
    secret: bytes = field(repr=False)  # empty: it is in a file

    @classmethod
    def gather(
        cls,
        count: int,
        *,
        hosts: Sequence[str],
        port: int,
        first_own: int | None,
        name: str,
        log_name: str,
        scheme: str,
        secret: bytes,
    ) -> Self:
        """Take the addresses: ``port`` at the ``hosts``, and of this machine ``first_own`` and those behind it.

        Raises `ListenError`.
        """
        bounds = [Bound.to(hosts, port)]
        try:
            for number in range(count if first_own is not None else 0):
                bounds.append(Bound.to(("127.0.0.1",), (first_own or 0) + number))  # noqa: PERF401  closed if one fails
        except ListenError:
            for each in bounds:
                each.close()
            raise
        return cls(
            count=count, name=name, log_name=log_name, scheme=scheme, shared=bounds[0], own=bounds[1:], secret=secret
        )

    def close(self) -> None:
        for each in (self.shared, *self.own):
            each.close()


def run_workers(team: Team) -> int:
    """Have them serve until a signal says otherwise; the exit code. Takes ownership of the sockets."""
    said = Spool(sys.stdout.fileno())  # nobody waits for who reads it
    try:
        return trio.run(_Parent(team, said).run)
    finally:
        team.close()
        said.flush(_LAST_MOMENT)


@final
class _Parent:
    def __init__(self, team: Team, said: Spool) -> None:
        self._team = team
        self._said = said
        self._children: dict[int, trio.Process] = {}
        self._serving: set[int] = set()
        self._ending = trio.Event()
        self._up = False  # all have served once
        self._code = 0

    async def run(self) -> int:
        async with trio.open_nursery() as nursery:
            await nursery.start(self._watch_signals)
            async with trio.open_nursery() as workers:
                # The first one alone: what is wrong with what was asked for is said once.
                for number in range(1, self._team.count + 1):
                    if not self._ending.is_set():
                        await workers.start(self._look_after, number)
                if not self._ending.is_set():
                    self._up = True
                    self._say()
            nursery.cancel_scope.cancel(reason="all workers have ended")
        return self._code

    def _say(self) -> None:
        team = self._team
        for url in team.shared.urls(team.scheme):
            names = f"{team.name}-1 to {team.name}-{team.count}"
            self._said.put(f"penstock serves {team.log_name} on {url} as {names} (Ctrl-C ends it)\n")

    async def _look_after(self, number: int, *, task_status: trio.TaskStatus[None]) -> None:
        """Start it, and start it again, until all are to end. It has started when it serves, or never will."""
        pause = _PAUSE
        started = False
        while not self._ending.is_set():
            began = trio.current_time()
            served = False
            try:
                process, line = await self._start(number)
            except OSError as error:
                _log.error("worker %d cannot be started: %s", number, error)
                code = 1
            else:
                with line:
                    served = await _hears(line)
                    if served:
                        self._serving.add(number)
                        if not started:
                            started = True
                            task_status.started()
                        await _hears(line)
                code = await process.wait()
                self._serving.discard(number)
                del self._children[number]
            if self._ending.is_set():
                if code not in (0, -signal.SIGTERM):  # the signal came before it was watched for
                    self._code = self._code or (code if code > 0 else 128 - code)
                break
            if not started or not (served or self._up):
                if code <= 0:  # else it has said why
                    _log.error("worker %d ended before it served: %s", number, _how(code))
                self._code = code if code > 0 else 1
                self._end()
                break
            if trio.current_time() - began > _STEADY:
                pause = _PAUSE
            _log.error("worker %d ended: %s; it is started again in %g s", number, _how(code), pause)
            with trio.move_on_after(pause):
                await self._ending.wait()
            pause = min(2 * pause, _LONGEST_PAUSE)
        if not started:
            task_status.started()

    async def _start(self, number: int) -> tuple[trio.Process, trio.socket.SocketType]:
        team = self._team
        ours, theirs = socket.socketpair()
        with theirs:
            process = await trio.lowlevel.open_process(
                [sys.executable, *sys.orig_argv[1:]],
                env={**os.environ, _VARIABLE: str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
                process_group=0,  # the Ctrl-C of a terminal is for the parent, which passes it on once
            )
        self._children[number] = process
        bounds = [team.shared, *team.own[number - 1 : number]]
        told = {"number": number, "node": f"{team.name}-{number}", "secret": team.secret.hex()}
        try:
            socket.send_fds(ours, [json.dumps(told).encode()], [each for bound in bounds for each in bound.filenos()])
        except OSError as error:
            _log.debug("worker %d is gone already: %s", number, error)
        ours.setblocking(False)
        if self._ending.is_set():  # a signal came while it was made
            process.terminate()
        return process, trio.socket.from_stdlib_socket(ours)

    async def _watch_signals(self, *, task_status: trio.TaskStatus[None]) -> None:
        ends = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
        with trio.open_signal_receiver(*ends, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    for each in self._serving:  # who only starts reads the files anyhow
                        self._children[each].send_signal(signal.SIGHUP)
                elif self._ending.is_set():
                    _log.warning("a second signal, %s: leaving at once", signal.Signals(number).name)
                    self._leave(128 + number)
                else:
                    name = signal.Signals(number).name
                    _log.info("%s: ending answers and streams of all workers; once more to leave at once", name)
                    self._end()

    def _end(self) -> None:
        self._ending.set()
        self._team.close()  # who comes now is refused, and waits for nobody
        for process in self._children.values():
            process.terminate()

    def _leave(self, code: int) -> NoReturn:
        for process in self._children.values():
            process.kill()
        logging.shutdown()
        sys.stdout.flush()
        os._exit(code)


async def _hears(line: trio.socket.SocketType) -> bool:
    """Whether the worker says something; False when it has ended."""
    try:
        return bool(await line.recv(1))
    except OSError:
        return False


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
