"""What an engine and its edge do, as Prometheus reads it.

Owns the metrics' names, kinds and buckets. `Metrics` is told facts by the engine (``open_engine(observer=…)``) and
adds them up in plain numbers: an instrument of prometheus-client's takes a lock for each figure, and a commit brings
several. Families are made of them when somebody asks. Current figures are read then, too. No label names a session,
a person or anything else that a client can choose.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from penstock.engine import (
    CleanupEnded,
    Committed,
    EngineStatistics,
    Fact,
    FellBehind,
    Forwarded,
    GapMet,
    GenerationBegan,
    GenerationEnded,
    NodeTakenOver,
    ProducerDone,
    SessionClaimed,
    SteppedDown,
    WriteRefused,
)

from .traffic import Traffic, traffic

__all__ = ["Metrics"]

# From a commit on an idle machine (a millisecond) to a disk that hangs (the engine's limit is 10 s).
_COMMIT_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

# From one event to what a session may have under way.
_COMMIT_EVENTS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

# Up to the default limit of 2 s; what lies above it overran.
_CLEANUP_SECONDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)

# From an answer out of a cache to an agent's hour.
_GENERATION_SECONDS: Final = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)


@final
class _Histogram:
    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds: Final = bounds
        self._counts: Final = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def family(self, name: str, told: str) -> Metric:
        buckets, total = [], 0
        for bound, count in zip((*map(str, map(float, self._bounds)), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        return HistogramMetricFamily(name, told, buckets=buckets, sum_value=self._sum)


@final
class Metrics(Collector):
    """The metrics of one engine: hand it to `open_engine` as its observer, then `watch` the engine."""

    def __init__(self, traffic: Traffic = traffic) -> None:
        self._traffic = traffic
        self._statistics: Callable[[], EngineStatistics] | None = None
        self._began = 0
        self._ended: Counter[str] = Counter()
        self._producers: Counter[str] = Counter()
        self._gaps: Counter[str] = Counter()
        self._bytes = 0
        self._refused_writes = 0
        self._overruns = 0
        self._fallbacks = 0
        self._claims: Counter[str] = Counter()
        self._taken_over = 0
        self._stepped_down = 0
        self._forwarded: Counter[tuple[str, str]] = Counter()
        self._forward_seconds = _Histogram(_COMMIT_SECONDS)
        self._commit_seconds = _Histogram(_COMMIT_SECONDS)
        self._commit_events = _Histogram(_COMMIT_EVENTS)
        self._cleanup_seconds = _Histogram(_CLEANUP_SECONDS)
        self._generation_seconds = _Histogram(_GENERATION_SECONDS)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def watch(self, statistics: Callable[[], EngineStatistics]) -> None:
        """Show the engine's current figures from now on; pass `Engine.statistics`."""
        self._statistics = statistics

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The body, and its content type, in the form that the request's ``Accept`` asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    # --- what the engine tells

    def observe(self, fact: Fact, /) -> None:
        match fact:
            case Committed():  # first: it is most of all facts
                self._bytes += fact.size
                self._commit_seconds.add(fact.seconds)
                self._commit_events.add(fact.events)
            case GenerationBegan():
                self._began += 1
            case GenerationEnded():
                self._ended[fact.outcome] += 1
                if fact.seconds is not None:
                    self._generation_seconds.add(fact.seconds)
            case ProducerDone():
                self._producers[fact.how] += 1
            case CleanupEnded():
                self._overruns += fact.overran
                self._cleanup_seconds.add(fact.seconds)
            case FellBehind():
                self._fallbacks += 1
            case GapMet():
                self._gaps[fact.reason] += 1
            case WriteRefused():
                self._refused_writes += 1
            case Forwarded():
                self._forwarded[fact.command, fact.outcome] += 1
                self._forward_seconds.add(fact.seconds)
            case SessionClaimed():
                self._claims["gone" if fact.gone else "idle" if fact.former else "nobodys"] += 1
            case NodeTakenOver():
                self._taken_over += fact.sessions
            case SteppedDown():
                self._stepped_down += 1
            case _:
                pass

    # --- what Prometheus asks for

    def collect(self) -> Iterable[Metric]:
        """Every family, as it stands."""
        yield from self._told()
        yield from self._edge()
        if self._statistics is not None:
            yield from _figures(self._statistics())

    def _told(self) -> Iterable[Metric]:
        yield _counter("generations_started", "Generations whose start was stored.", self._began)
        yield _counters("generations", "Generations whose end was stored, by outcome.", "outcome", self._ended)
        yield self._generation_seconds.family(
            "penstock_generation_duration_seconds", "From a generation's stored start to its stored end."
        )
        yield _counters("producers_done", "Producers that are done, by how.", "how", self._producers)
        yield self._cleanup_seconds.family(
            "penstock_cleanup_seconds", "How long a cancelled producer was waited for, at most the limit."
        )
        yield _counter("cleanup_overruns", "Cancelled producers that were left behind: should stay 0.", self._overruns)
        yield self._commit_seconds.family(
            "penstock_commit_seconds", "From the hand-over of one session's events to the log, to their commit."
        )
        yield self._commit_events.family("penstock_commit_events", "Events of one session that were stored together.")
        yield _counter("stored_bytes", "Bytes of events that were stored.", self._bytes)
        yield _counter("refused_writes", "Writes that the log refused, each with a repair.", self._refused_writes)
        yield _counter("fallbacks", "Subscribers that fell behind and went on from the log.", self._fallbacks)
        yield _counters("gaps", "Cursors that could not be served, by reason.", "reason", self._gaps)

        yield from self._shared()

    def _shared(self) -> Iterable[Metric]:
        """Of engines that share a log."""
        yield _counters("claims", "Sessions that this node claimed, by whose they were.", "why", self._claims)
        yield _counter(
            "takeovers", "Sessions taken over in which a node that is gone had something open.", self._taken_over
        )
        yield _counter("stepped_down", "Sessions that another node has claimed.", self._stepped_down)
        forwarded = CounterMetricFamily(
            "penstock_forwarded", "Commands that another node was asked for.", labels=["command", "outcome"]
        )
        for (command, outcome), count in sorted(self._forwarded.items()):
            forwarded.add_metric([command, outcome], float(count))
        yield forwarded
        yield self._forward_seconds.family("penstock_forward_seconds", "How long another node took, the way included.")

    def _edge(self) -> Iterable[Metric]:
        edge = self._traffic
        yield _gauge("connections", "Open connections.", edge.connections)
        yield _gauge("websockets", "Open WebSockets.", edge.sockets)
        yield _gauge("streams", "Open event streams over SSE and NDJSON.", edge.streams)
        yield _counter("streams_broken_off", "Streams whose reader left before their end.", edge.broken_off)
        yield _counter("connections_refused", "Connections past the cap.", edge.refused)
        yield _counter("log_lines_lost", "Lines of the log that nobody read in time.", edge.log_lines_lost)
        statuses = {str(status): count for status, count in edge.answers.items()}
        yield _counters("http_answers", "Answers to HTTP requests, by status.", "status", statuses)
        yield _counters("errors", "Problems told over HTTP and WebSocket, by code.", "code", edge.problems)


def _figures(now: EngineStatistics) -> Iterable[Metric]:
    yield _gauge("sessions", "Sessions in memory.", now.sessions)
    yield _gauge("live_generations", "Live generations.", now.live_generations)
    yield _gauge("stragglers", "Producers that were cancelled, left behind, and still run.", now.stragglers)
    yield _gauge("subscribers", "Subscriptions to sessions.", now.subscribers)
    yield _gauge("present", "People's devices that are present.", now.present)
    yield _gauge("pending_events", "Events that are stamped and not stored yet.", now.pending_events)
    yield _gauge("pending_bytes", "The bytes of the events that are stamped and not stored yet.", now.pending_bytes)
    yield _gauge("degraded_sessions", "Sessions in memory that cannot be written.", now.degraded_sessions)
    yield _gauge("sessions_set_aside", "Sessions that cannot be read: should stay 0.", now.set_aside)
    yield _gauge("seats", "Sessions in memory that this node has, of those that share a log.", now.seats)
    yield _gauge("views", "Sessions that are read on this node, whoever has them.", now.views)
    if now.lease_age is not None:
        yield _gauge("lease_age_seconds", "Since the store last took this node's word.", now.lease_age)
    yield _gauge("draining", "1 while the engine shuts down.", now.draining)
    yield _counter("log_commits", "Commits of the log, each of one or more sessions.", now.log.commits)
    yield _counter("log_events", "Events that the log stored.", now.log.events)
    yield _counter("log_failed_writes", "Writes that the log could not store.", now.log.failed_writes)
    yield _counter(
        "store_went_back", "Times the store had lost what it had acknowledged: should stay 0.", now.log.went_back
    )
    yield _gauge("log_waiting_writes", "Writes that were handed to the log and not reported yet.", now.log.waiting)
    yield _counter("log_commit_seconds", "Time that the log spent in commits.", now.log.commit_seconds)
    yield _gauge("log_degraded", "1 while the log can store nothing.", now.log.trouble is not None)
    for name, told, value in (
        ("log_commit_age_seconds", "Since the log's last commit.", now.log.commit_age),
        ("log_database_bytes", "The database file.", now.log.size),
        ("log_wal_bytes", "The write-ahead log beside it.", now.log.wal),
        ("log_disk_free_bytes", "What its disk has left for this user.", now.log.free),
    ):
        if value is not None:
            yield _gauge(name, told, value)


def _gauge(name: str, told: str, value: float) -> Metric:
    return GaugeMetricFamily(f"penstock_{name}", told, value=float(value))


def _counter(name: str, told: str, value: float) -> Metric:
    return CounterMetricFamily(f"penstock_{name}", told, value=float(value))


def _counters(name: str, told: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"penstock_{name}", told, labels=[label])
    for of, value in sorted(values.items()):
        family.add_metric([of], float(value))
    return family
