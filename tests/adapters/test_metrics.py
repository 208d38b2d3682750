"""``/metrics``: what Prometheus reads is what happened."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeAlias

import httpx
import pytest
import trio
import trio.testing
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock

from penstock.adapters.http import create_app
from penstock.adapters.watching.metrics import Metrics
from penstock.adapters.watching.traffic import Traffic
from penstock.engine import CaughtUp, Config, LocalBus, MemoryLog, open_engine
from penstock.engine.testing import StubbornProducer
from tests.adapters.serving import PATIENCE, Penstock, penstock
from tests.engine.faulty import Fail, FaultyLog
from tests.engine.producers import Steered, failing, saying

Samples: TypeAlias = dict[tuple[str, str], float]


def read(text: str) -> Samples:
    """Samples by name without the prefix, and the value of the one label, if there is one."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            (label,) = tuple(sample.labels.values()) or ("",)
            found[sample.name.removeprefix("penstock_"), label] = sample.value
    return found


async def scraped(server: Penstock) -> Samples:
    async with server.client() as client:
        answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return read(answer.text)


def shown(metrics: Metrics) -> Samples:
    return read(metrics.render()[0].decode())


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked()


#
async def test_what_becomes_of_generations_is_counted(autojump_clock: MockClock) -> None:
    metrics = Metrics(Traffic())
    async with open_engine(MemoryLog(), config=Config(cleanup_timeout=2), observer=metrics) as engine:
        metrics.watch(engine.statistics)
        session = await engine.create_session("s")
        await session.start(saying("text", pause=3))
        await trio.sleep(4)
        await session.start(failing(ValueError("inside")))
        await settled()
        steered, stubborn = Steered(), StubbornProducer(60)
        await session.start(steered)
        await steered.started.wait()
        await session.start(stubborn)
        await stubborn.started.wait()
        assert shown(metrics)["cleanup_overruns_total", ""] == 0
        await session.stop()
        now = shown(metrics)
        assert now["stragglers", ""] == 1
        assert now["live_generations", ""] == 0
        await stubborn.over.wait()
    now = shown(metrics)
    assert now["generations_started_total", ""] == 4
    outcomes = {label: value for (name, label), value in now.items() if name == "generations_total"}
    assert outcomes == {"completed": 1, "failed": 1, "superseded": 1, "stopped": 1}
    done = {label: value for (name, label), value in now.items() if name == "producers_done_total"}
    assert done == {"returned": 1, "raised": 1, "cancelled": 2}
    assert now["cleanup_overruns_total", ""] == 1
    assert (now["cleanup_seconds_count", ""], now["cleanup_seconds_bucket", "0.001"]) == (2, 1)
    assert now["cleanup_seconds_sum", ""] == pytest.approx(2)
    assert now["generation_duration_seconds_count", ""] == 4
    assert now["generation_duration_seconds_sum", ""] == pytest.approx(3 + 2)
    assert now["generation_duration_seconds_bucket", "1.0"] == 2
    assert now["stragglers", ""] == 0


async def test_what_is_stored_is_counted(autojump_clock: MockClock) -> None:
    log, metrics = MemoryLog(), Metrics(Traffic())
    async with open_engine(log, observer=metrics) as engine:
        metrics.watch(engine.statistics)
        session = await engine.create_session("s")
        await session.start(saying(*["piece"] * 40))
        await settled()
        now = shown(metrics)
        cursor = await session.cursor()
        stored = await log.read("s", cursor.epoch, after=1, limit=1000, max_bytes=10**9)  # but session.created
        assert now["log_events_total", ""] == len(stored) + 1
        assert now["commit_events_sum", ""] == len(stored)
        assert now["commit_events_count", ""] == now["commit_seconds_count", ""] == now["commit_events_bucket", "+Inf"]
        assert now["stored_bytes_total", ""] == sum(len(entry.body) for entry in stored)
        assert now["pending_events", ""] == 0
        assert now["sessions", ""] == 1


async def test_storage_trouble_is_counted(autojump_clock: MockClock) -> None:
    broken, metrics, steered = [False], Metrics(Traffic()), Steered()
    log = FaultyLog(MemoryLog(), lambda *_: Fail() if broken[0] else None)
    async with open_engine(log, observer=metrics) as engine:
        metrics.watch(engine.statistics)
        session = await engine.create_session("s")
        await session.start(steered)
        await steered.started.wait()
        broken[0] = True
        steered.finish.set()
        await trio.sleep(1)
        now = shown(metrics)
        assert now["degraded_sessions", ""] == 1
        assert now["refused_writes_total", ""] >= 1
        assert now["log_failed_writes_total", ""] >= 1
        broken[0] = False
        await trio.sleep(10)
        now = shown(metrics)
        assert now["degraded_sessions", ""] == 0
        assert now["generations_total", "failed"] == 1


async def test_readers_are_counted(autojump_clock: MockClock) -> None:
    metrics = Metrics(Traffic())
    async with open_engine(MemoryLog(), config=Config(subscriber_buffer=2), observer=metrics) as engine:
        metrics.watch(engine.statistics)
        session = await engine.create_session("s")
        async with session.subscribe("0123456789abcdef-0000000000000003") as slow:
            while not isinstance(await slow.receive(), CaughtUp):
                pass
            for number in range(5):
                await session.post(f"message {number}")
            while slow.cursor != await session.cursor():
                await slow.receive()
            now = shown(metrics)
            assert now["subscribers", ""] == 1
            assert now["gaps_total", "unknown_epoch"] == 1
            assert now["fallbacks_total", ""] == 1


def test_a_histogram_counts_what_lies_on_a_bound_below_it() -> None:
    from penstock.adapters.watching.metrics import _Histogram

    made = _Histogram((1, 2))
    for value in (0.5, 1, 1.5, 2, 9):
        made.add(value)
    family = made.family("penstock_x", "told")
    buckets = {sample.labels["le"]: sample.value for sample in family.samples if sample.name.endswith("_bucket")}
    assert buckets == {"1.0": 2, "2.0": 4, "+Inf": 5}


async def test_the_edge_is_counted() -> None:
    async with penstock(producers={"steered": Steered()}) as server:
        before = await scraped(server)
        async with server.client() as client:
            await client.put("/v1/sessions/s")
            await client.get("/v1/sessions/none")
            await client.get("/v1/sessions/s/events?live=false")
            async with server.lines("/v1/sessions/s/events") as lines, server.socket() as socket:
                await lines.next()
                await socket.ask(op="nonsense", id=1)
                during = await scraped(server)
        rise = {key: during[key] - before.get(key, 0) for key in during}
        assert rise["connections", ""] == 3  # the client's, the stream's and the socket's; each scrape has its own
        assert (during["websockets", ""], during["streams", ""], during["subscribers", ""]) == (1, 1, 1)
        assert rise["streams_broken_off_total", ""] == 0, "one has come to its end"
        assert rise["errors_total", "SESSION_NOT_FOUND"] == 1
        assert rise["errors_total", "INVALID_BODY"] == 1, "over WebSocket, too"
        assert (rise["http_answers_total", "201"], rise["http_answers_total", "404"]) == (1, 1)
        with trio.fail_after(PATIENCE):
            while (after := await scraped(server))["streams", ""] or after["websockets", ""]:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert after["streams_broken_off_total", ""] == during["streams_broken_off_total", ""] + 1


async def test_the_form_is_the_one_that_is_asked_for() -> None:
    async with penstock() as server, server.client() as client:
        accept = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;q=0.5"
        answer = await client.get("/metrics", headers={"Accept": accept})
        assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert answer.text.endswith("# EOF\n")
        assert answer.headers["cache-control"] == "no-store"


async def test_where_nothing_is_measured_there_are_no_metrics() -> None:
    async with open_engine(":memory:") as engine:
        app = create_app(engine)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1") as client:  # type: ignore[arg-type]
            answer = await client.get("/metrics")
    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")


async def test_nothing_that_a_client_chooses_is_a_label(autojump_clock: MockClock) -> None:
    metrics = Metrics(Traffic())
    async with open_engine(MemoryLog(), producers={"mine": saying("x")}, observer=metrics) as engine:
        metrics.watch(engine.statistics)
        session = await engine.create_session("a-session")
        started = await session.start("mine", job_id="a-job")
        await session.stop(reason="a-reason")
        text = metrics.render()[0].decode()
    assert not [given for given in ("a-session", "mine", "a-job", "a-reason", started.generation_id) if given in text]


async def test_the_readme_has_every_metric_and_no_other(tmp_path: Path) -> None:
    metrics = Metrics(Traffic())
    families: list[Metric] = []
    async with open_engine(tmp_path / "chat.db") as alone, open_engine(MemoryLog(), owner="a", bus=LocalBus()) as node:
        for engine in (alone, node):
            metrics.watch(engine.statistics)
            families += metrics.collect()
    made = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    readme = Path(__file__).parent.parent.parent / "adapters" / "README.md"
    assert set(re.findall(r"`(penstock_[a-z_]+)", readme.read_text())) == made
