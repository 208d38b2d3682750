"""Inputs that are mostly right and always somewhere wrong: a request that is wrong everywhere is refused at once.

Drawn from a plain random generator: a seed names the whole run, and a hundred thousand inputs take seconds.
"""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias, TypeVar, final

from attrs import frozen

__all__ = ["SID", "Dice", "Sent"]

SID: Final = "s"

_GIDS: Final = tuple(f"0198c0de-0000-7000-8000-00000000000{n}" for n in range(3))
_MIDS: Final = tuple(f"0198c0de-0000-7000-8000-0000000000a{n}" for n in range(3))
_POLICIES: Final = ("supersede", "rollback", "queue", "latest", "reject", "join")
_KINDS: Final = ("text", "reasoning", "tool_call", "tool_result", "data", "image", "file", "source")
_TYPES: Final = (
    "message.opened",
    "message.closed",
    "block.opened",
    "block.delta",
    "block.closed",
    "generation.status",
    "approval.requested",
    "input.applied",
    "app.note",
    "generation.started",
    "session.reset",
    "nonsense",
)

# Letters that break things: controls, quotes, a byte order mark, halves of pairs, what is long in UTF-8.
_ODD: Final = "\0\n\r\t\"'\\/:{}[]%&?#\x7f\x85\u2028\ufeff\ud800\udfff\U0001f600é"

T = TypeVar("T")
_Draw: TypeAlias = Callable[[], object]


@final
@frozen
class Sent:
    """One request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@final
class Dice:
    """Draws inputs. One in ten draws of a value is of anything at all."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    # --- values

    def one_of(self, choices: Sequence[T]) -> T:
        return self._random.choice(choices)

    def rarely(self, times: int = 10) -> bool:
        return self._random.randrange(times) == 0

    def word(self) -> str:
        letters = string.ascii_letters + string.digits + " -_." + (_ODD if self.rarely(4) else "")
        length = self._random.choice((0, 1, 3, 3, 8, 300 if self.rarely() else 5))
        return "".join(self._random.choices(letters, k=length))

    def number(self) -> int | float:
        return self._random.choice((0, 1, -1, 2, 7, 2**31, 2**53, 2**63, -(10**30), 0.5, 1e308, 1.0))

    def anything(self, depth: int = 3) -> object:
        match self._random.randrange(7 if depth else 5):
            case 0:
                return None
            case 1:
                return self._random.random() < 0.5
            case 2:
                return self.number()
            case 3 | 4:
                return self.word()
            case 5:
                return [self.anything(depth - 1) for _ in range(self._random.randrange(4))]
            case _:
                return {self.word(): self.anything(depth - 1) for _ in range(self._random.randrange(4))}

    def often(self, right: object) -> object:
        return self.anything() if self.rarely() else right

    def some(self, **fields: _Draw) -> dict[str, object]:
        """An object with about half of these fields, and now and then one that is unknown."""
        made = {name: self.often(draw()) for name, draw in fields.items() if self._random.random() < 0.5}
        if self.rarely(20):
            made[self.word()] = self.anything()
        return made

    def gid(self) -> str:
        return self.one_of(_GIDS)

    def mid(self) -> str:
        return self.one_of(_MIDS)

    # --- bodies

    def data(self) -> object:
        match self._random.randrange(10):
            case 0 | 1 | 2 | 3:
                return {"text": self.often(self.word())}
            case 4:
                return {"arguments": self.often(self.word())}
            case 5:
                return {"value": self.anything()}
            case 6 if self.rarely(2):
                return self.naming()
            case 6:
                return self.some(kind=lambda: self.one_of(_KINDS), tool_call_id=self.word, name=self.word)
            case 7:
                return self.some(name=self.word, approval_id=self.word, arguments=self.anything, expires_at=self.word)
            case 8:
                return self.some(status=self.word, role=lambda: "assistant", input_id=self.word, is_error=lambda: True)
            case _:
                return {}

    def naming(self) -> object:
        """What a block of kind image, file or source says."""
        at = self.one_of(({"url": "https://example.org/a"}, {"file_id": "f"}, {"url": self.word()}, {}))
        said = self.some(media_type=lambda: "image/png", filename=self.word, title=self.word)
        return {"kind": self.one_of(_KINDS[-3:]), **at, **(said if self.rarely(3) else {})}

    def blocks(self) -> object:
        texts = {"kind": "text", "text": self.word()}
        return self.often([self.often(self.naming() if self.rarely(3) else texts) for _ in range(2)])

    def chunk(self) -> object:
        made = {"generation_id": self.often(self.gid()), "data": self.often(self.data())}
        made |= self.some(
            message_id=self.mid,
            block_index=lambda: self._random.randrange(3),
            seq=lambda: self._random.randrange(5),
            type=lambda: self.one_of(_TYPES),
        )
        if self.rarely(4):
            made |= self.some(role=lambda: "assistant", kind=lambda: self.one_of(_KINDS), job_id=lambda: "job")
        return self.often(made)

    def batch(self) -> object:
        return self.often({"chunks": self.often([self.chunk() for _ in range(self._random.randrange(5))])})

    def finish(self) -> object:
        outcome = self.one_of(("completed", "failed"))
        return self.often(self.some(outcome=lambda: outcome, code=self.word, message=self.word, usage=self.anything))

    def start(self) -> object:
        made = {"producer": self.often(self.one_of(("tale", "remote", "remote")))}
        made |= self.some(
            text=self.word,
            policy=lambda: self.one_of(_POLICIES),
            generation_id=self.gid,
            input=self.anything,
            on_last_disconnect=lambda: self._random.randrange(5),
            idle_limit=lambda: self.one_of((None, 60, 3600.5)),
            metadata=lambda: {self.word(): self.anything()},
        )
        if self.rarely(4):
            made.pop("text", None)
            made |= self.some(message=lambda: self.some(blocks=self.blocks, message_id=self.mid, metadata=dict))
        if self.rarely(4):
            made |= self.some(replaces=self.mid)
        if self.rarely(4):
            made |= self.some(continues=self.mid)
        return self.often(made)

    def post(self) -> object:
        role = self.one_of(("user", "user", "tool", "system"))
        made = self.some(role=lambda: role, message_id=self.mid, metadata=dict)
        text = {"text": self.often(self.word())}
        return self.often({**made, **(text if not self.rarely(4) else {"blocks": self.blocks()})})

    def input(self) -> object:
        kind = self.one_of(("approval", "steer", "steer"))
        return self.often(
            {"kind": self.often(kind), **self.some(approval_id=self.word, approved=lambda: True, input_id=self.word)}
        )

    def stop(self) -> object:
        queue = self.one_of(("pause", "continue", "clear"))
        return self.often(self.some(generation_id=self.gid, reason=self.word, queue=lambda: queue))

    def presence(self) -> object:
        return self.often(self.some(name=self.word, status=self.word))

    def cursor(self) -> str:
        match self._random.randrange(4):
            case 0:
                return self.one_of(("", "now", "-", "now-1", "0" * 300, "x-0000000000000001", "é"))
            case 1:
                return self.word()
            case _:
                epoch = "".join(self._random.choices("0123456789abcdef", k=self._random.randrange(1, 20)))
                return f"{epoch}-{self._random.choice((0, 1, 5, 10**15, 10**17)):016d}"

    # --- what travels

    def header(self) -> str:
        return "".join(self._random.choices(string.printable[:95], k=self._random.randrange(20))).strip()

    def headers(self) -> dict[str, str]:
        """What a client may send beside; nothing that h11 itself refuses to send."""
        right: dict[str, _Draw] = {
            "Producer-Id": lambda: "p",
            "Producer-Epoch": lambda: self.one_of("0011"),
            "Producer-Seq": lambda: self.one_of("0123"),
            "Idempotency-Key": lambda: self.one_of("ab"),
            "Last-Event-ID": self.cursor,
            "Authorization": lambda: f"Bearer {self.header()}",
            "Accept": lambda: self.one_of(("application/x-ndjson", "text/event-stream", "*/*")),
        }
        made: dict[str, str] = {}
        if self._random.random() < 0.4:
            names = list(right)[:3] if self._random.random() < 0.7 else list(right)
            made = {name: str(right[name]()) for name in names if not self.rarely()}
        for name in ("Content-Type", "X-Request-Id", "X-Forwarded-For", "Accept", "Producer-Seq", "Authorization"):
            if self.rarely(30):
                made[name] = self.header()
        return {name: value.strip() for name, value in made.items() if value.isascii() and value.isprintable()}

    def request(self) -> Sent:
        base, gid = f"/v1/sessions/{SID}", self.gid()
        routes: list[tuple[str, str, _Draw]] = [
            ("POST", f"{base}/chunks", self.chunk),
            ("POST", f"{base}/chunks", self.chunk),
            ("POST", f"{base}/chunks/batch", self.batch),
            ("POST", f"{base}/chunks/batch", self.batch),
            ("POST", f"{base}/generations/{gid}/finish", self.finish),
            ("POST", f"{base}/generations", self.start),
            ("POST", f"{base}/generations/{gid}/inputs", self.input),
            ("POST", f"{base}/messages", self.post),
            ("POST", f"{base}/stop", self.stop),
            ("POST", f"{base}/files", self.anything),
            ("PUT", f"{base}/presence/a/b", self.presence),
            ("GET", f"{base}/events?live=false&after=", self.cursor),
            ("GET", f"{base}/generations/{gid}", self.anything),
            ("GET", f"{base}/files/f", self.anything),
        ]
        method, path, draw = self.one_of(routes)
        if method == "GET":
            if path.endswith("="):
                path += "".join(f"%{byte:02x}" for byte in self.cursor().encode("utf-8", "surrogatepass"))
            return Sent(method, path, self.headers(), b"")
        return Sent(method, path, self.headers(), self.garbled(json.dumps(draw()).encode()))

    def garbled(self, body: bytes) -> bytes:
        """Mostly the body itself; else with bytes taken out and put in."""
        if not self.rarely(20):
            return body
        cut = self._random.randrange(len(body) + 1)
        return body[:cut] + self._random.randbytes(self._random.randrange(8)) + body[cut + self._random.randrange(4) :]

    def frame(self) -> object:
        """A WebSocket frame without its id and session."""
        commands: list[tuple[str, _Draw]] = [
            ("chunks", lambda: {"chunks": [self.chunk()]}),
            ("chunks", self.batch),
            ("finish", self.finish),
            ("start", self.start),
            ("post", self.post),
            ("stop", self.stop),
            ("input", self.input),
            ("presence", self.presence),
            ("subscribe", lambda: self.some(after=self.cursor, snapshot=lambda: True)),
            ("unsubscribe", dict[str, object]),
            ("auth", lambda: {"token": self.often(self.word())}),
            ("ping", dict[str, object]),
        ]
        op, draw = self.one_of(commands)
        body = draw()
        if not isinstance(body, dict):
            return body
        ids = {"generation_id": self.gid()} if op in ("finish", "input") and not self.rarely() else {}
        stamp = self.some(producer_id=lambda: "p", producer_epoch=lambda: 0, producer_seq=lambda: 0)
        return {"op": self.often(op), **ids, **(stamp if op == "chunks" and self.rarely(3) else {}), **body}
