"""A person at a terminal: `penstock` on a pseudo-terminal, whose screen is read and whose keys are pressed."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from tests.checkout import environment
from tests.e2e.conftest import PENSTOCK

__all__ = ["PATIENCE", "Terminal", "penstock", "terminal"]

PATIENCE = 20.0
_STYLES = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    """What stands on the screen so far is `screen`, without colours, typed keys included."""

    def __init__(self, process: trio.Process, stream: trio.lowlevel.FdStream) -> None:
        self.process = process
        self.screen = ""
        self._stream = stream
        self._seen = 0

    async def until(self, text: str) -> str:
        """Wait for ``text`` behind what was waited for before; what came up to its end."""
        while text not in self.screen[self._seen :]:
            assert await self._read(), f"{text!r} never came; on the screen: {self.screen!r}"
        begin, self._seen = self._seen, self.screen.index(text, self._seen) + len(text)
        return self.screen[begin : self._seen]

    async def type(self, keys: str) -> None:
        await self._stream.send_all(keys.encode())

    async def end(self) -> int:
        """Its exit code, when it has ended."""
        while await self._read():
            pass
        return await self.process.wait()

    async def _read(self) -> bool:
        try:
            piece = await self._stream.receive_some()
        except trio.BrokenResourceError:  # nobody has the terminal open any more
            return False
        self.screen = _STYLES.sub("", self.screen + piece.decode()).replace("\r\n", "\n")
        return bool(piece)


@asynccontextmanager
async def terminal(*arguments: str, **more: str) -> AsyncIterator[Terminal]:
    """`penstock` with these arguments at a terminal of its own; killed when the block is left, if it still runs."""
    ours, theirs = pty.openpty()
    async with trio.lowlevel.FdStream(ours) as stream:
        try:
            process = await trio.lowlevel.open_process(
                [*PENSTOCK, *arguments],
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                env=environment(NO_PROXY="*", **more),
            )
        finally:
            os.close(theirs)
        try:
            with trio.fail_after(PATIENCE):
                yield Terminal(process, stream)
        finally:
            if process.returncode is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def penstock(*arguments: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    """One command without a terminal, run to its end."""
    with trio.fail_after(PATIENCE):
        return await trio.run_process(
            [*PENSTOCK, *arguments],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environment(NO_PROXY="*", **more),
        )
