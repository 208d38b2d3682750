"""The page's fold and its frame parser, in a real browser: they keep the rules that the engine's own fold keeps."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import JSON, Event, SessionState, Snapshot, encode_json, to_json
from engine.reducer import Applied, Duplicate
from tests.engine.strategies import SESSION, compact, logs

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Page

pytestmark = pytest.mark.browser


APPLY = """async ([id, events]) => {
  const { Fold } = await import("./penstock.js");
  const fold = new Fold(id);
  const verdicts = events.map((event) => fold.apply(event, `e-${String(event.offset ?? 0).padStart(16, "0")}`));
  return { verdicts, texts: fold.messages.map((message) => message.blocks.map((block) => block.text ?? "").join("|")) };
}"""


def stamped(offset: int | None, kind: str, data: dict[str, Any], **stamp: Any) -> dict[str, Any]:
    event = {"type": kind, "session_id": "s", "time": "", "data": data, **stamp}
    return event if offset is None else {"offset": offset, **event}


BLOCK = {"message_id": "m", "block_index": 0}
LOG = [
    stamped(1, "session.created", {"metadata": {}}),
    stamped(2, "message.opened", {"role": "assistant"}, message_id="m"),
    stamped(3, "block.opened", {"kind": "text"}, **BLOCK, seq=0),
    stamped(4, "block.delta", {"text": "a"}, **BLOCK, seq=1),
    stamped(5, "block.delta", {"text": "b"}, **BLOCK, seq=2),
]


#
def test_the_fold_takes_each_event_once(page: Page) -> None:
    result = page.evaluate(APPLY, ["s", [*LOG, *LOG, LOG[3], {**LOG[4], "offset": 6}]])
    assert result == {"verdicts": ["applied"] * 5 + ["duplicate"] * 7, "texts": ["ab"]}


#
def test_the_fold_ignores_other_sessions_and_ephemeral_events(page: Page) -> None:
    foreign = {**stamped(6, "block.delta", {"text": "x"}, **BLOCK, seq=3), "session_id": "t"}
    presence = stamped(None, "presence.changed", {"actor_id": "x", "device_id": "y"})
    unknown = stamped(6, "something.newer", {"more": 1})
    result = page.evaluate(APPLY, ["s", [*LOG, foreign, presence, unknown]])
    assert result["verdicts"][5:] == ["foreign", "ephemeral", "applied"]
    assert result["texts"] == ["ab"]


#
def test_the_fold_invents_no_message_and_papers_over_no_gap(page: Page) -> None:
    lost_message = stamped(6, "block.delta", {"text": "x"}, message_id="n", block_index=0, seq=1)
    lost_delta = stamped(7, "block.delta", {"text": "x"}, **BLOCK, seq=4)
    result = page.evaluate(APPLY, ["s", [*LOG, lost_message, lost_delta]])
    assert result == {"verdicts": ["applied"] * 5 + ["gap"] * 2, "texts": ["ab"]}


EPOCH = "e"

# What is done to a fold: an event is given to it, or it is made anew from its own snapshot.
Step: TypeAlias = Event | None

FOLLOW = """async ([id, steps]) => {
  const { Fold } = await import("./fold.js");
  const told = JSON.parse(steps);
  const shown = ({ sessionId, cursor, messages, queue, approvals, metadata, more, generation }) => ({
    session_id: sessionId, cursor, messages, queue, approvals, metadata, more, ...(generation && { generation }),
  });
  let fold = new Fold(id);
  fold.reset("e");
  return JSON.stringify(told.map((step) => {
    if (step !== null) return fold.apply(step, `e-${String(step.offset).padStart(16, "0")}`);
    const snapshot = structuredClone(shown(fold));
    fold = new Fold(id);
    fold.load(snapshot);
    return snapshot;
  }));
}"""


def followed(steps: list[Step]) -> list[JSON]:
    """What the engine's own fold says to each step."""
    state = SessionState(SESSION, EPOCH)
    said: list[JSON] = []
    for step in steps:
        if step is None:
            snapshot = state.snapshot()
            state = SessionState.from_snapshot(Snapshot.from_json(snapshot.to_json()))
            said.append(snapshot.to_json())
        else:
            folded = state.apply(step)
            kind = "applied" if isinstance(folded, Applied) else "duplicate"
            said.append(kind if isinstance(folded, Applied | Duplicate) else "gap")
    return said


def read(text: str | bytes) -> object:
    """JSON with all its numbers as a page has them."""
    return json.loads(text, parse_int=float)


@st.composite
def journeys(draw: st.DrawFn) -> list[Step]:
    """A log, compacted or not, as a reader may meet it: cut off, repeated, with holes, and taken up from a snapshot."""
    events = draw(logs())
    ids = sorted({event.message_id for event in events if event.message_id is not None})
    events = compact(events, set(draw(st.lists(st.sampled_from(ids), unique=True)) if ids else []))
    steps: list[Step] = []
    for event in events:
        what = draw(st.sampled_from(["take"] * 30 + ["lose", "twice", "again", "snapshot"]))
        if what != "lose":
            steps.append(event)
        if what == "twice":
            steps.append(event)
        elif what == "again":
            steps += events[draw(st.integers(0, len(events) - 1)) :][:3]
        elif what == "snapshot":
            steps.append(None)
    return [*steps, None]


#
@pytest.mark.slow
def test_the_pages_fold_says_what_the_engines_says(page: Page) -> None:
    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(journeys())
    def check(steps: list[Step]) -> None:
        told = encode_json([None if step is None else to_json(step) for step in steps]).decode()
        assert read(page.evaluate(FOLLOW, [SESSION, told])) == read(encode_json(followed(steps)))

    check()


#
def test_the_frame_parser_keeps_cut_characters_and_cut_frames_whole(page: Page) -> None:
    frames = page.evaluate(
        """async () => {
          const { FrameParser } = await import("./penstock.js");
          const text = 'retry: 250\\nid: e-1\\n\\nid: e-2\\ndata: {"t":"水🚰"}\\n\\n: ping\\n\\nevent: end\\n'
            + 'data: {}\\n\\ndata: cut';
          const parser = new FrameParser();
          return [...new TextEncoder().encode(text)].flatMap((byte) => parser.push(Uint8Array.of(byte)));
        }"""
    )
    assert frames == [
        {"retry": 250, "id": "e-1"},
        {"id": "e-2", "data": '{"t":"水🚰"}'},
        {"event": "end", "data": "{}"},
    ]
