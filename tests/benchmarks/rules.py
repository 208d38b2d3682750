"""What passes, fixed before the first run: floors, which a trial has reached, and aims.

A rule holds of the median over the rounds. One that cannot be judged, because a peer is missing, is told as such.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, TypeAlias, final

from attrs import frozen

from tests.benchmarks.samples import Cell, Run, Spread

__all__ = ["RULES", "Kind", "Rule", "Verdict", "judge", "judge_each"]

Measure: TypeAlias = Callable[[Run], Spread | None]

_KIB: Final = 1024.0


Kind: TypeAlias = Literal["floor", "aim"]


@final
@frozen
class Rule:
    """``measure`` of a run must be at least, or at most, ``limit``."""

    bench: str
    kind: Kind
    text: str
    measure: Measure
    bound: Literal[">=", "<="]
    limit: float


@final
@frozen
class Verdict:
    """None: there was nothing to judge by."""

    rule: Rule
    found: Spread | None

    @property
    def held(self) -> bool | None:
        if self.found is None:
            return None
        compare = operator.ge if self.rule.bound == ">=" else operator.le
        return bool(compare(self.found.median, self.rule.limit))


def judge(run: Run, rules: tuple[Rule, ...] | None = None) -> list[Verdict]:
    """Each rule of the benches that were run."""
    benches = {cell.bench for cell in run.samples}
    return [Verdict(rule, rule.measure(run)) for rule in (RULES if rules is None else rules) if rule.bench in benches]


def judge_each(runs: Sequence[Run]) -> list[tuple[Rule, list[Verdict | None]]]:
    """Each rule with what each run says of it, None where the run is without its bench; without those of no run."""
    judged = [{verdict.rule: verdict for verdict in judge(run)} for run in runs]
    each = ((rule, [verdicts.get(rule) for verdicts in judged]) for rule in RULES)
    return [(rule, found) for rule, found in each if any(found)]


def _of(bench: str, metric: str, system: str = "penstock") -> Measure:
    return lambda run: run.spread(Cell(bench, system, metric))


def _over(bench: str, metric: str, system: str, other: str | None = None) -> Measure:
    """penstock's, as a multiple of another system's."""
    return lambda run: run.ratio(Cell(bench, "penstock", metric), Cell(bench, system, other or metric))


def _grown(bench: str, metric: str, other: str) -> Measure:
    """One figure of penstock's as a multiple of another of its own."""
    return lambda run: run.ratio(Cell(bench, "penstock", metric), Cell(bench, "penstock", other))


def _beyond(bench: str, metric: str, *bounds: tuple[str, str]) -> Measure:
    """How much penstock's is above the sum of others, round by round."""

    def measure(run: Run) -> Spread | None:
        own = run.samples.get(Cell(bench, "penstock", metric), {})
        others = [run.samples.get(Cell(bench, system, other), {}) for system, other in bounds]
        rounds = [r for r in own if all(r in other for other in others)]
        return Spread.of([own[r] - sum(other[r] for other in others) for r in rounds]) if rounds else None

    return measure


_DS: Final = "durable-streams-files"
_SSE: Final = "sse-starlette"


def _limits(floor: float | None, aim: float | None) -> Iterator[tuple[Kind, float]]:
    if floor is not None:
        yield "floor", floor
    if aim is not None:
        yield "aim", aim


def _b1() -> list[Rule]:
    rules = []
    for sessions in (1, 100, 1000):
        metric, text = f"events_per_s[{sessions}]", f"{sessions} sessions: durable events/s"
        raw = _over("B1", metric, "raw-sqlite")
        rules += [
            Rule("B1", "floor", f"{text}, of raw SQLite", raw, ">=", 0.5),
            Rule("B1", "aim", f"{text}, of raw SQLite", raw, ">=", 0.8),
            Rule("B1", "aim", f"{text}, of Durable Streams on files", _over("B1", metric, _DS), ">=", 50),
        ]
    return rules


def _b2() -> list[Rule]:
    rules = []
    for form in ("sse", "websocket"):
        metric = f"{form}.deliveries_per_s"
        over = _over("B2", metric, _SSE, "sse.deliveries_per_s")
        rules += [
            Rule("B2", "floor", f"{form}: deliveries/s, of sse-starlette", over, ">=", 10),
            Rule("B2", "aim", f"{form}: deliveries/s, of sse-starlette", over, ">=", 25),
            Rule(
                "B2",
                "aim",
                f"{form}: deliveries/s, of raw trio",
                _over("B2", metric, "raw-trio", "sse.deliveries_per_s"),
                ">=",
                0.5,
            ),
        ]
    return rules


_B3: Final = (
    Rule("B3", "floor", "paced sessions held, of sse-starlette", _over("B3", "sessions", _SSE), ">=", 0.45),
    Rule("B3", "aim", "paced sessions held, of sse-starlette", _over("B3", "sessions", _SSE), ">=", 1.0),
    Rule("B3", "aim", "paced sessions held", _of("B3", "sessions"), ">=", 1000),
)

_B4: Final = (
    Rule("B4", "floor", "idle p99, of sse-starlette", _over("B4", "idle.p99_ms", _SSE), "<=", 10),
    Rule("B4", "floor", "idle p99, of Durable Streams on files", _over("B4", "idle.p99_ms", _DS), "<=", 1),
    Rule(
        "B4",
        "floor",
        "idle p99 of chunks over HTTP, of Durable Streams on files",
        _over("B4", "chunks.p99_ms", _DS, "idle.p99_ms"),
        "<=",
        1,
    ),
    Rule("B4", "floor", "half load p99, of sse-starlette", _over("B4", "half.p99_ms", _SSE), "<=", 10),
    *(
        Rule(
            "B4",
            "aim",
            f"idle {part}, ms above raw trio and one fdatasync",
            _beyond("B4", f"idle.{part}_ms", ("raw-trio", f"idle.{part}_ms"), ("disk", f"fdatasync.{part}_ms")),
            "<=",
            0.5,
        )
        for part in ("p50", "p99")
    ),
)

_B5: Final = (
    *(
        Rule(
            "B5", kind, f"replay over SSE, of {_DS}", _over("B5", "sse.events_per_s", _DS, "best.events_per_s"), ">=", n
        )
        for kind, n in _limits(1.5, 3.0)
    ),
    Rule(
        "B5",
        "floor",
        "first byte of a resume: longest log, of shortest",
        _grown("B5", "first_byte_longest_ms", "first_byte_shortest_ms"),
        "<=",
        1.5,
    ),
)

_B6: Final = tuple(
    Rule(
        "B6",
        kind,
        "new one's start seen, p99: under load, of idle",
        _grown("B6", "live.p99_ms", "idle.p99_ms"),
        "<=",
        n,
    )
    for kind, n in _limits(20, 5)
)

_B7: Final = tuple(
    Rule("B7", kind, f"bytes of {text}", _of("B7", metric), "<=", kib * _KIB)
    for text, metric, floor, aim in (
        ("a live session that is silent", "live_bytes", 16.0, 10.0),  # with a task and a nursery of its own
        ("a session that has left memory", "evicted_bytes", 0.1, None),
        ("a viewer", "viewer_bytes", 40.0, 15.0),
    )
    for kind, kib in _limits(floor, aim)
)

_B8: Final = tuple(
    Rule("B8", kind, f"{text}, of Durable Streams on files", _over("B8", metric, _DS), ">=", limit)
    for metric, text in (
        (f"events_per_s[batch {b}, {c} connections]", f"chunks/s in batches of {b}, {c} connections")
        for b in (1, 50)
        for c in (1, 64)
    )
    for kind, limit in _limits(1, 5)
)

# Powers of the steepest step: 1 is linear; a tenth, a quarter more for ten times as many, is left to chance.
_B9: Final = tuple(
    Rule("B9", "floor", f"cost grows with {what} at most to the power of", _of("B9", f"{what}.power"), "<=", 1.1)
    for what in ("sessions", "viewers", "log length", "event size")
)

# What a person does not notice, and no timer of ours is shorter.
_HELD: Final = 20.0

_B10: Final = (
    *(
        Rule(
            "B10",
            "floor",
            f"ms that the loop is held while {text} are {deed}",
            _of("B10", f"{shape}.{deed}_ms"),
            "<=",
            _HELD,
        )
        for shape, text in (("messages", "100 000 messages"), ("blocks", "100 000 blocks of a message"))
        for deed in ("snapshotted", "forked", "replaced", "compacted")
    ),
    *(
        Rule("B10", kind, f"a neighbour's write to its commit, p99, ms, beside {text}", _of("B10", metric), "<=", limit)
        for metric, text, floor, aim in (
            ("neighbour.firehose.p99_ms", "a session that writes all the time", 20.0, 10.0),
            ("neighbour.values.p99_ms", "a session that writes values of 1 MiB", 50.0, 20.0),
        )
        for kind, limit in _limits(floor, aim)
    ),
)

_LISTED: Final = ((100_000, "100 000"), (1_000_000, "1 000 000"))

_B11: Final = (
    *(
        Rule(
            "B11",
            "floor",
            f"ms for the {place} page of {text} sessions, p99, of a reader of {whose}",
            _of("B11", f"pages[{sessions}].{place}.{name}.p99_ms"),
            "<=",
            50.0,
        )
        for sessions, text in _LISTED
        for name, whose in (("all", "all"), ("tenth", "a tenth"), ("hundredth", "a hundredth"))
        for place in ("first", "deep")
    ),
    Rule(
        "B11",
        "floor",
        "first page of 1 000 000 sessions, p50, of one of 100 000",
        _grown("B11", "pages[1000000].first.all.p50_ms", "pages[100000].first.all.p50_ms"),
        "<=",
        1.5,
    ),
    *(
        Rule("B11", kind, f"{text}, of sse-starlette", _over("B11", f"stream.{metric}", _SSE), "<=", n)
        for metric, text in (
            ("p99_ms", "a change to its event at each watcher, p99"),
            ("cpu_us_per_event", "processor time for such an event"),
        )
        for kind, n in _limits(2.0, 1.0)
    ),
    # By a tenth of a second a person says: at once.
    *(
        Rule("B11", kind, "ms to open the page while the list changes, p99", _of("B11", "opened.p99_ms"), "<=", n)
        for kind, n in _limits(200.0, 100.0)
    ),
    *(
        Rule("B11", "floor", f"ms that the loop is held {text}", _of("B11", f"{metric}.held_ms"), "<=", _HELD)
        for metric, text in (
            *((f"pages[{sessions}]", f"while pages of {told} sessions are read") for sessions, told in _LISTED),
            ("opened", "while the list changes, and the page is opened"),
        )
    ),
)

_B12: Final = tuple(
    Rule("B12", kind, f"redis: {text}", _of("B12", metric, "redis"), "<=" if at_most else ">=", limit)
    for text, metric, at_most, floor, aim in (
        ("written at one node to received at another, p50, ms", "other_node.p50_ms", True, 3.0, None),
        ("written at one node to received at another, p99, ms", "other_node.p99_ms", True, 15.0, None),
        ("seconds beyond the lease until a killed node's readers hear", "takeover.beyond_s", True, 1.0, None),
        ("what forwarding adds to a command, p50, ms", "forwarding.p50_ms", True, None, 2.0),
        ("bytes of an event that is young", "bytes_per_event.young", True, None, 300.0),
        ("two nodes of one, with a core each", "two_nodes.times", False, None, 1.7),
        ("the store's processor time, of a node's", "two_nodes.store_share", True, None, 0.4),
    )
    for kind, limit in _limits(floor, aim)
)

RULES: Final[tuple[Rule, ...]] = (*_b1(), *_b2(), *_B3, *_B4, *_B5, *_B6, *_B7, *_B8, *_B9, *_B10, *_B11, *_B12)
