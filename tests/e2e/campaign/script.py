"""The JavaScript client under node, in a process of its own."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, final

import trio

from tests.checkout import ROOT

__all__ = ["Script", "ScriptRefused"]

Heard = Callable[[dict[str, Any]], None]

# As long as the client itself repeats a command, and the longest attempt behind that.
_PATIENCE: Final = 60.0


@final
class ScriptRefused(Exception):
    """A command of the JavaScript client was refused; ``code`` says with what."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code: Final = code


@final
class Script:
    """Sessions of `penstock.js` at one server, driven by lines of JSON."""

    def __init__(self, process: trio.Process) -> None:
        self._process: Final = process
        self._heard: Final[dict[int, Heard]] = {}
        self._numbers: Final = itertools.count(1)
        self._sending: Final = trio.Lock()

    @classmethod
    async def open(cls, url: str, errors: Path, nursery: trio.Nursery) -> Script:
        """It is killed when the nursery is cancelled. What it complains of goes to the file ``errors``."""
        node = shutil.which("node")
        assert node is not None, "no node is installed: apt-get install nodejs"
        program = Path(__file__).with_name("client.mjs")
        with errors.open("ab") as told:
            process = await trio.lowlevel.open_process(
                [node, str(program), str(ROOT / "adapters" / "web" / "penstock.js"), url],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=told,
            )
        script = cls(process)
        nursery.start_soon(script._listen)
        return script

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        pending = b""
        try:
            while piece := await self._process.stdout.receive_some(65536):
                *lines, pending = (pending + piece).split(b"\n")
                for line in lines:
                    told = json.loads(line)
                    heard = self._heard.get(told["number"])
                    if heard is not None:
                        heard(told)
        finally:
            self._process.kill()
        raise AssertionError("the JavaScript client has ended")

    async def _say(self, task: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        async with self._sending:
            await self._process.stdin.send_all(json.dumps(task).encode() + b"\n")

    async def follow(self, session: str, heard: Heard) -> int:
        """Follow from the first event on; the number with which to `leave`."""
        number = next(self._numbers)
        self._heard[number] = heard
        await self._say({"do": "follow", "number": number, "session": session})
        return number

    async def leave(self, number: int) -> None:
        del self._heard[number]
        await self._say({"do": "leave", "number": number})

    async def ask(self, session: str, name: str, *given: object) -> dict[str, Any]:
        """Call a method of the session; its answer. Raises `ScriptRefused`."""
        number = next(self._numbers)
        come = trio.Event()
        answers: list[dict[str, Any]] = []

        def heard(told: dict[str, Any]) -> None:
            answers.append(told)
            come.set()

        self._heard[number] = heard
        try:
            await self._say({"do": "command", "number": number, "session": session, "name": name, "given": given})
            with trio.fail_after(_PATIENCE):
                await come.wait()
        except trio.TooSlowError:
            raise ScriptRefused("NO_ANSWER") from None
        finally:
            del self._heard[number]
        told = answers[0]
        if "refusal" in told:
            raise ScriptRefused(told["refusal"])
        answer: dict[str, Any] = told["answer"] or {}
        return answer
