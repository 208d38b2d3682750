"""What an operator sees of ``penstock serve``: its metrics and its log, as another program reads them."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx

from tests.e2e.conftest import ServerProcess


#
def test_the_log_is_one_object_a_line_and_the_metrics_agree(start_server: Callable[..., ServerProcess]) -> None:
    server = start_server("--log-format", "json", "--log-level", "debug")
    with httpx.Client(base_url=server.url, timeout=20, trust_env=False) as client:
        client.put("/v1/sessions/s")
        body = {"text": "one two", "input": {"delay": 0.01}, "producer": "echo"}
        started = client.post("/v1/sessions/s/generations", json=body, headers={"X-Request-Id": "r-1"}).json()
        with client.stream("GET", "/v1/sessions/s/events", headers={"Accept": "application/x-ndjson"}) as stream:
            for line in stream.iter_lines():
                if line and json.loads(line).get("type") == "generation.finished":
                    break
        metrics = client.get("/metrics").text
    assert server.stop() == 0
    assert 'penstock_generations_total{outcome="completed"} 1.0' in metrics
    assert "process_resident_memory_bytes" in metrics
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    told = {line["event"]: line for line in lines if "event" in line}
    ids = ("s", started["generation_id"])
    for event in ("generation_started", "producer_returned", "generation_ended"):
        assert (told[event]["session_id"], told[event]["generation_id"]) == ids
    assert told["generation_ended"]["outcome"] == "completed"
    assert told["producer_returned"]["request_id"] == "r-1"
