"""A server under mixed load, killed again and again: what it acknowledged is there, and it does not grow.

    python -m tests.e2e.soak --minutes 60 --life 300

Actors of all kinds use a real server: answers of the built-in producer that are superseded, queued and stopped,
producers in other processes that count their requests, values of a mebibyte, posts, readers that are fast, slow and
cut off. Whatever was answered with success is noted before the kill, and looked for at the end. What is read is held
against the log, too.

Without more, the same conversations go on to the end, and grow. With ``--conversation`` each ends after so many seconds
and another begins; those that have ended are still read now and then. It is a fault, too, when a life ends with more
memory than ``--growth`` times the first. What a life ends with is the median of its last minute, for from one moment to
the next it depends on how many of the large values are on their way; the memory at the very end is told beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

import httpx
import trio
from attrs import define, field

from penstock.engine import decode
from penstock.engine.testing import check_log
from tests.e2e.conftest import ServerProcess

__all__ = ["Soak", "main"]

# A request body is a mebibyte at most, with the frame around the value.
LARGE: Final = 1024 * 1024 - 4096

# What a server that is down, or going down, answers. Everything else of 500 and above is a fault.
_AWAY: Final = (503,)

# How many seconds at the end of a life its memory is looked at.
_LAST: Final = 60.0

# How often somebody reads a conversation that may have ended.
_ENDED: Final = 0.1

Actor = Callable[["Soak", random.Random], Awaitable[None]]


@define
class Soak:
    """One run: the server as it is now, and what was noted of it."""

    folder: Path
    seed: int
    life: float
    count: int  # of conversations that go on at a time
    conversation: float  # how long each does, in seconds; may be inf
    growth: float  # of the memory at the end of the first life, what that of a later one may be
    sessions: list[str] = field(factory=list)  # in order of their beginning
    server: ServerProcess | None = None
    lives: int = 0
    memory: list[int] = field(factory=list)  # KiB, in the last minute of each life
    at_end: list[int] = field(factory=list)  # KiB, at its last moment
    statuses: Counter[int] = field(factory=Counter)
    faults: list[str] = field(factory=list)
    posts: dict[str, dict[str, str]] = field(factory=dict)  # by session: message id to text
    chunks: dict[tuple[str, str], dict[int, str]] = field(factory=dict)  # by session and message: seq to digest
    seen: dict[str, dict[str, str]] = field(factory=dict)  # by session: cursor to digest
    over: bool = False

    # --- the conversations

    async def converse(self) -> None:
        """Begin new ones in place of the oldest."""
        while True:
            await trio.sleep(self.conversation / self.count)
            self.sessions.append(f"soak-{len(self.sessions)}")

    def one(self, chance: random.Random, *, ended: float = 0.0) -> str:
        """One that goes on, or with this probability one that may have ended."""
        return chance.choice(self.sessions if chance.random() < ended else self.sessions[-self.count :])

    # --- the server

    def start(self) -> None:
        self.server = ServerProcess(self.folder, "--log-level", "warning", "--drain-timeout", "5")
        self.lives += 1

    def kill(self) -> None:
        assert self.server is not None
        self.server.kill()

    async def request(
        self, client: httpx.AsyncClient, method: str, path: str, body: object = None, **headers: str
    ) -> httpx.Response | None:
        """None where there is no answer: the server is down, or was killed on the way."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            url = f"{self.server.url}{path}" if self.server is not None else path
            answer = await client.request(method, url, json=body, headers=named)
        except httpx.HTTPError:
            await trio.sleep(0.05)
            return None
        self.statuses[answer.status_code] += 1
        if answer.status_code >= 500 and answer.status_code not in _AWAY:
            self.faults.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
        return answer

    # --- the run

    async def live(self, seconds: float) -> None:
        """One life, and its memory towards the end."""
        assert self.server is not None
        end = trio.current_time() + seconds
        await trio.sleep_until(end - min(_LAST, seconds / 2))
        samples: list[int] = []
        while not samples or trio.current_time() < end:  # once at least, however busy the machine is
            await trio.sleep(1)
            samples.append(memory_of(self.server.process.pid))
        self.memory.append(round(statistics.median(samples)))
        self.at_end.append(samples[-1])

    async def run(self, seconds: float) -> None:
        """Load for so long, in lives; then an orderly end, and the look at what is there."""
        self.start()
        chance = random.Random(self.seed)
        async with trio.open_nursery() as nursery:
            self.sessions += [f"soak-{number}" for number in range(self.count)]
            nursery.start_soon(self.converse)
            for actor, count in ACTORS:
                for _ in range(count):
                    nursery.start_soon(self._play, actor, random.Random(chance.random()))
            end = trio.current_time() + seconds
            while trio.current_time() + self.life < end:
                await self.live(self.life)
                self.kill()
                self.start()
            await self.live(end - trio.current_time())
            self.over = True
            nursery.cancel_scope.cancel(reason="the time is over")
        assert self.server is not None
        if max(self.memory) > self.growth * self.memory[0]:
            self.faults.append(f"the memory grew to more than {self.growth} of the first life's")
        if self.server.stop() != 0:
            self.faults.append("the server did not end in order")
        self.start()
        try:
            await self.judge()
        finally:
            self.server.stop()

    async def _play(self, actor: Actor, chance: random.Random) -> None:
        while not self.over:
            await actor(self, chance)

    # --- what is there

    async def judge(self) -> None:
        """Everything that was acknowledged or seen is in the log, and each log keeps the rules."""
        async with httpx.AsyncClient(timeout=60) as client:
            for session in self.sessions:
                await self._judge_one(client, session)

    async def _judge_one(self, client: httpx.AsyncClient, session: str) -> None:
        assert self.server is not None
        url = f"{self.server.url}/v1/sessions/{session}/events?live=false"
        bodies: dict[int, bytes] = {}
        epoch = ""
        async with client.stream("GET", url, headers={"Accept": "application/x-ndjson"}) as stream:
            async for line in stream.aiter_lines():
                value = json.loads(line) if line.strip() else {}
                if value.get("control") == "open":
                    epoch = value["epoch"]
                elif "offset" in value:
                    bodies[value["offset"]] = line.encode()
        events = [decode(body) for body in bodies.values()]
        self.faults += [f"{session}: {found}" for found in check_log(events)]
        for cursor, seen in self.seen.get(session, {}).items():
            life, _, offset = cursor.partition("-")
            # What was compacted since is gone from the log, and stands in a snapshot.
            if life != epoch or (int(offset) in bodies and digest(bodies[int(offset)]) != seen):
                self.faults.append(f"{session}: {cursor} was seen and is another now")
        texts = {event.message_id: event for event in events if event.type == "message.snapshot"}
        for message, text in self.posts.get(session, {}).items():
            if message not in texts or text not in bodies[texts[message].offset or 0].decode():
                self.faults.append(f"{session}: the post {message} was acknowledged and is gone")
        stored = {(event.message_id, event.seq): event for event in events if event.block_index == 0}
        for (of, message), pieces in self.chunks.items():
            for seq, text in pieces.items() if of == session else ():
                event = stored.get((message, seq))
                whole = texts.get(message)
                held = event is not None and text in bodies[event.offset or 0].decode()
                if not held and not (whole is not None and text in bodies[whole.offset or 0].decode()):
                    self.faults.append(f"{session}: piece {seq} of {message} was acknowledged and is gone")

    def report(self) -> Iterator[str]:
        first, last = self.memory[0], max(self.memory)
        yield f"{self.lives} lives, memory in the last minute of each (MiB): {[each // 1024 for each in self.memory]}"
        yield f"at its very end (MiB): {[each // 1024 for each in self.at_end]}"
        yield f"the largest is {last / first:.3f} of the first"
        yield f"answers by status: {dict(sorted(self.statuses.items()))}"
        noted = (
            sum(map(len, self.posts.values())),
            sum(map(len, self.chunks.values())),
            sum(map(len, self.seen.values())),
        )
        yield "acknowledged: {} posts, {} pieces; seen: {} events".format(*noted)
        yield f"{len(self.faults)} faults"
        yield from self.faults[:50]


def digest(body: bytes) -> str:
    return hashlib.blake2b(body.strip(), digest_size=12).hexdigest()


def memory_of(pid: int) -> int:
    """Resident set, in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    raise AssertionError("no such process")


# --- actors, each one turn


async def talk(soak: Soak, chance: random.Random) -> None:
    """Answers of the built-in producer under every policy, stopped at any moment."""
    session = soak.one(chance)
    async with httpx.AsyncClient(timeout=30) as client:
        await soak.request(client, "PUT", f"/v1/sessions/{session}", {})
        for _ in range(chance.randint(1, 5)):
            policy = chance.choice(["supersede", "supersede", "rollback", "queue", "latest", "reject"])
            body = {"text": "wörd " * chance.randint(1, 60), "policy": policy, "producer": "echo"}
            body["input"] = {"delay": chance.choice([0, 0.001, 0.01])}  # type: ignore[assignment]
            await soak.request(
                client, "POST", f"/v1/sessions/{session}/generations", body, Idempotency_Key=str(uuid4())
            )
            await trio.sleep(chance.random() / 5)
            if chance.random() < 0.3:
                stop = {"queue": chance.choice(["pause", "continue", "clear"])}
                await soak.request(client, "POST", f"/v1/sessions/{session}/stop", stop)
                await soak.request(client, "POST", f"/v1/sessions/{session}/queue/next", {})


async def post(soak: Soak, chance: random.Random) -> None:
    session = soak.one(chance)
    async with httpx.AsyncClient(timeout=30) as client:
        for _ in range(5):
            message, text = str(uuid4()), f"said-{uuid4().hex}"
            body = {"message_id": message, "text": text}
            answer = await soak.request(client, "POST", f"/v1/sessions/{session}/messages", body)
            if answer is not None and answer.is_success:
                soak.posts.setdefault(session, {})[message] = text
            await trio.sleep(chance.random() / 5)


async def produce(soak: Soak, chance: random.Random, *, large: bool = False) -> None:
    """One generation of a producer elsewhere: each request counted, repeated until it is answered."""
    session = soak.one(chance)
    generation, message, producer = str(uuid4()), str(uuid4()), str(uuid4())
    seq = 0
    async with httpx.AsyncClient(timeout=30) as client:
        await soak.request(client, "PUT", f"/v1/sessions/{session}", {})
        for number in range(chance.randint(1, 3 if large else 30)):
            texts = [f"piece-{uuid4().hex} " for _ in range(1 if large else chance.randint(1, 10))]
            sent = [text + "x" * LARGE if large else text for text in texts]
            chunks = [
                {"generation_id": generation, "message_id": message, "seq": seq + 1 + place, "data": {"text": text}}
                for place, text in enumerate(sent)
            ]
            answer = None
            while answer is None or answer.status_code in (429, 503):
                stamp = {"Producer_Id": producer, "Producer_Epoch": "0", "Producer_Seq": str(number)}
                path = f"/v1/sessions/{session}/chunks/batch"
                answer = await soak.request(client, "POST", path, {"chunks": chunks}, **stamp)
            if not answer.is_success:
                return  # superseded, stopped, or another one is live
            noted = soak.chunks.setdefault((session, message), {})
            for place, text in enumerate(texts):
                noted[seq + 1 + place] = text.strip()
            seq += len(texts)
            await trio.sleep(chance.random() / (5 if large else 50))
        await soak.request(client, "POST", f"/v1/sessions/{session}/generations/{generation}/finish", {})


async def produce_large(soak: Soak, chance: random.Random) -> None:
    await produce(soak, chance, large=True)
    await trio.sleep(1)


async def read(soak: Soak, chance: random.Random, *, pause: float = 0.0) -> None:
    """Follow a session from where it was left, for a while; cut off in the middle of anything."""
    session = soak.one(chance, ended=_ENDED)
    seen = soak.seen.setdefault(session, {})
    headers = {"Accept": "text/event-stream"}
    if seen and chance.random() < 0.8:
        headers["Last-Event-ID"] = max(seen)
    with trio.move_on_after(chance.uniform(0.5, 8)), suppress(httpx.HTTPError):  # connections break
        async with httpx.AsyncClient(timeout=30) as client:
            url = f"{soak.server.url if soak.server else ''}/v1/sessions/{session}/events"
            async with client.stream("GET", url, headers=headers) as stream:
                soak.statuses[stream.status_code] += 1
                cursor = ""
                async for line in stream.aiter_lines():
                    if line.startswith("id: "):
                        cursor = line[4:]
                    elif line.startswith("data: {") and cursor and '"offset":' in line:
                        told = digest(line[6:].encode())
                        if seen.setdefault(cursor, told) != told:
                            soak.faults.append(f"{session}: {cursor} was told in two ways")
                    elif not line:
                        cursor = ""
                        if pause:
                            await trio.sleep(pause)
    await trio.sleep(0.1)


async def read_slowly(soak: Soak, chance: random.Random) -> None:
    await read(soak, chance, pause=0.05)


async def look(soak: Soak, chance: random.Random) -> None:
    """What monitors and pages ask."""
    session = soak.one(chance, ended=_ENDED)
    async with httpx.AsyncClient(timeout=30) as client:
        for path in ("/healthz", "/readyz", "/metrics", "/v1/sessions?limit=10", f"/v1/sessions/{session}?limit=20"):
            await soak.request(client, "GET", path)
    await trio.sleep(1)


ACTORS: Final[list[tuple[Actor, int]]] = [
    (talk, 4),
    (post, 2),
    (produce, 4),
    (produce_large, 1),
    (read, 4),
    (read_slowly, 3),
    (look, 1),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--life", type=float, default=300, help="seconds between two kills")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--sessions", type=int, default=24, help="conversations that go on at a time")
    parser.add_argument("--conversation", type=float, default=math.inf, help="seconds that each goes on for")
    parser.add_argument("--growth", type=float, default=1.1, help="of memory, from the first life to any other")
    given = parser.parse_args()
    out = sys.stdout
    out.write(f"seed {given.seed}\n")
    with tempfile.TemporaryDirectory(prefix="penstock-soak-") as folder:
        soak = Soak(
            folder=Path(folder),
            seed=given.seed,
            life=given.life,
            count=given.sessions,
            conversation=given.conversation,
            growth=given.growth,
        )
        trio.run(soak.run, given.minutes * 60)
        log = (Path(folder) / "server.log").read_text()
        if "Traceback" in log:
            soak.faults.append(log[log.index("Traceback") :][:3000])
    out.write("\n".join(soak.report()) + "\n")
    os._exit(1 if soak.faults else 0)  # readers of a server's output may still wait in threads


if __name__ == "__main__":
    main()
