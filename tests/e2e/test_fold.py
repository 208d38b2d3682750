"""The page's fold and its frame parser, in a real browser: they keep the rules that the engine's own fold keeps."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.engine import JSON, SessionState, Snapshot, encode_json, from_json, to_json
from penstock.engine.reducer.generations import SILENT_KEPT
from tests.engine.strategies import SESSION, compact, logs
from tests.extent import examples
from tests.vectors.make import EPOCH, FOLDER, Wire, judge

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import ConsoleMessage, Page

pytestmark = pytest.mark.browser


@pytest.fixture(autouse=True)
def silent(blank: Page, complaints: list[str]) -> None:
    """The console is, in every test, but for the icon that a browser asks any server for."""

    def hear(message: ConsoleMessage) -> None:
        if not message.location["url"].endswith("/favicon.ico"):
            complaints.append(f"{message.type}: {message.text}")

    blank.on("console", hear)


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


# R-16 R-51 R-54 R-109
def test_the_fold_takes_each_event_once(blank: Page) -> None:
    result = blank.evaluate(APPLY, ["s", [*LOG, *LOG, LOG[3], {**LOG[4], "offset": 6}]])
    assert result == {"verdicts": ["applied"] * 5 + ["duplicate"] * 7, "texts": ["ab"]}


# R-15 R-55 R-109 R-154
def test_the_fold_ignores_other_sessions_and_ephemeral_events(blank: Page) -> None:
    foreign = {**stamped(6, "block.delta", {"text": "x"}, **BLOCK, seq=3), "session_id": "t"}
    presence = stamped(None, "presence.changed", {"actor_id": "x", "device_id": "y"})
    unknown = stamped(6, "something.newer", {"more": 1})
    result = blank.evaluate(APPLY, ["s", [*LOG, foreign, presence, unknown]])
    assert result["verdicts"][5:] == ["foreign", "ephemeral", "applied"]
    assert result["texts"] == ["ab"]


# R-52 R-53 R-109
def test_the_fold_invents_no_message_and_papers_over_no_gap(blank: Page) -> None:
    lost_message = stamped(6, "block.delta", {"text": "x"}, message_id="n", block_index=0, seq=1)
    lost_delta = stamped(7, "block.delta", {"text": "x"}, **BLOCK, seq=4)
    result = blank.evaluate(APPLY, ["s", [*LOG, lost_message, lost_delta]])
    assert result == {"verdicts": ["applied"] * 5 + ["gap"] * 2, "texts": ["ab"]}


PRESENCE = """async ([id, events, listed]) => {
  const { Fold } = await import("./fold.js");
  const fold = new Fold(id);
  fold.reset("e");
  fold.loadPresence(listed);
  const state = () => JSON.stringify({ ...fold.view(), presence: null });
  const before = state();
  const verdicts = events.map((event) => fold.apply(event, undefined));
  const untouched = state() === before;
  const here = fold.presence;
  fold.load({
    session_id: id, cursor: "e-0000000000000005", messages: [], queue: { paused: false, items: [] },
    approvals: [], metadata: {}, more: false,
  });
  const afterSnapshot = fold.presence.length;
  fold.reset("f");
  return { verdicts, untouched, here, afterSnapshot, afterNewLife: fold.presence.length };
}"""


# R-119
def test_the_fold_keeps_who_is_here_apart_from_the_state(blank: Page) -> None:
    def changed(device: str, **said: str) -> dict[str, Any]:
        return stamped(None, "presence.changed", {"actor_id": "ann", "device_id": device, **said})

    listed = [{"actor_id": "ann", "device_id": "phone"}, {"actor_id": "ann", "device_id": "desk"}]
    events = [
        changed("phone", name="Ann", status="typing"),
        changed("car"),
        changed("desk", status="gone"),
        changed("nowhere", status="gone"),
        changed("phone", name="Ann"),
        stamped(None, "presence.newer", {"actor_id": "bob", "device_id": "desk"}),
    ]
    result = blank.evaluate(PRESENCE, ["s", events, listed])
    assert result == {
        "verdicts": ["ephemeral"] * 6,
        "untouched": True,
        "here": [{"actor_id": "ann", "device_id": "phone", "name": "Ann"}, {"actor_id": "ann", "device_id": "car"}],
        "afterSnapshot": 2,
        "afterNewLife": 0,
    }


FOLLOWED = """async () => {
  const { Session } = await import("./penstock.js");
  const lists = [];
  let check = () => {};
  const session = new Session(crypto.randomUUID(), {
    onControl: (name, data) => {
      if (name === "presence") lists.push(data.presence.length);
      queueMicrotask(() => check());
    },
  });
  session.subscribe(() => check());
  const now = () => session.getSnapshot();
  const until = (reached) => new Promise((done) => { check = () => reached() && done(); check(); });
  await session.create();
  session.follow();
  await until(() => lists.length === 1);
  const { cursor } = now();
  await session.putPresence("ann", "phone", { name: "Ann" });
  await until(() => now().presence.length === 1);
  await session.putPresence("ann", "desk");
  await session.putPresence("bob", "desk");
  await until(() => now().presence.length === 3);
  await session.dropPresence("ann", "desk");
  await until(() => now().presence.length === 2);
  await session.dropPresence("ann");
  await until(() => now().presence.length === 1);
  const same = now().cursor === cursor;
  session.drop();
  await until(() => lists.length === 2 && now().connection.state === "live");
  const here = now().presence;
  session.close();
  return { same, lists, here };
}"""


# R-65, R-119
def test_a_followed_session_knows_who_is_here_and_resumes_all_the_same(blank: Page) -> None:
    here = [{"actor_id": "bob", "device_id": "desk"}]
    assert blank.evaluate(FOLLOWED) == {"same": True, "lists": [0, 1], "here": here}


GENERATIONS = """async ([id, events, older]) => {
  const { Fold, makeCursor } = await import("./fold.js");
  const fold = new Fold(id);
  for (const event of events) fold.apply(event, makeCursor("e", event.offset));
  const ids = () => fold.generations.map((generation) => generation.generation_id);
  const newest = ids();
  const { ends, presence, generation, ...snapshot } = JSON.parse(JSON.stringify(fold.view()));
  const again = new Fold(id);
  const loaded = again.load({ ...snapshot, messages: [], more: true, next: "m" });
  const end = again.ends[newest.at(-1)];
  const taken = again.prepend(older);
  return { newest, loaded, end, taken, told: again.generations.map((each) => each.generation_id), ends: again.ends };
}"""


def test_the_fold_keeps_the_newest_that_wrote_nothing_and_takes_the_ends_from_pages(page: Page) -> None:
    said = {"role": "user", "status": "complete", "blocks": []}
    events = [stamped(1, "session.created", {"metadata": {}}), stamped(2, "message.snapshot", said, message_id="m")]
    for turn in range(1, SILENT_KEPT + 4):
        of = {"generation_id": f"g{turn}", "turn": turn}
        failed = {"outcome": "failed", "code": "MODEL_AUTH", "message": "no"}
        events.append(stamped(2 * turn + 1, "generation.started", {"producer": "p", "policy": "supersede"}, **of))
        events.append(stamped(2 * turn + 2, "generation.finished", failed, **of))
    last = len(events)
    kept = [f"g{turn}" for turn in range(4, SILENT_KEPT + 4)]
    old = {"generation_id": "f", "state": "finished", "turn": 9, "outcome": "superseded"}
    later = {"generation_id": "l", "state": "live", "started": {"cursor": f"e-{last + 1:016}", "time": ""}}
    older = {
        "session_id": "s",
        "cursor": f"e-{last + 1:016}",
        "messages": [
            {"message_id": "m0", "role": "assistant", "status": "cancelled", "blocks": [], "generation_id": "f"}
        ],
        "generations": [old, later],
        "queue": {"paused": False, "items": []},
        "approvals": [],
        "metadata": {},
        "more": False,
    }
    told = page.evaluate(GENERATIONS, ["s", events, older])
    assert told["newest"] == kept
    assert (told["loaded"], told["taken"]) == ("applied", "applied")
    assert told["end"] == {"outcome": "failed", "code": "MODEL_AUTH", "message": "no"}
    assert told["told"] == ["f", *kept], "what began behind the state comes with its events"
    assert told["ends"]["f"] == {"outcome": "superseded"}


UNSEEN = """async ([id, events]) => {
  const { Fold, makeCursor } = await import("./fold.js");
  const fold = new Fold(id);
  for (const event of events) fold.apply(event, makeCursor("e", event.offset));
  return fold.generations.map((generation) => generation.generation_id);
}"""


def test_which_are_kept_that_wrote_nothing_does_not_hang_on_when_it_is_asked(page: Page) -> None:
    """Some behind one message, more than are kept behind the next, which is then retracted."""
    said = {"role": "user", "status": "complete", "blocks": []}
    events: list[Wire] = [stamped(1, "session.created", {"metadata": {}})]
    for turn in range(1, SILENT_KEPT + 4):
        if turn in (1, 6):
            events.append(stamped(len(events) + 1, "message.snapshot", said, message_id=f"m{turn}"))
        of = {"generation_id": f"g{turn}", "turn": turn}
        events.append(stamped(len(events) + 1, "generation.started", {"producer": "p", "policy": "supersede"}, **of))
        events.append(stamped(len(events) + 1, "generation.finished", {"outcome": "failed"}, **of))
    events.append(stamped(len(events) + 1, "message.retracted", {}, message_id="m6"))
    state = SessionState("s", "e")
    for event in events:
        state.apply(from_json(event))
    kept = [each.generation_id for each in state.snapshot().generations]
    assert kept == ["g4", "g5", f"g{SILENT_KEPT + 3}"]
    assert page.evaluate(UNSEEN, ["s", events]) == kept


# What is done to a fold: an event is given to it, or it is made anew from its own snapshot.
Step: TypeAlias = Wire | None

# What the fold says to each step, with the state where that has changed; and whatever is no whole, unchangeable state.
FOLLOW = """async ([id, told]) => {
  const { Fold, makeCursor } = await import("./penstock.js");
  let fold = new Fold(id);
  fold.reset("e");
  const shown = () => {
    const { ends, presence, generation, ...rest } = fold.view();
    return generation ? { ...rest, generation } : rest;
  };
  const text = () => JSON.stringify(shown());
  const faults = [];
  const frozen = (value) => value === null || typeof value !== "object"
    || (Object.isFrozen(value) && Object.values(value).every(frozen));
  let known = { text: "{}", parts: {}, messages: [] };
  const said = JSON.parse(told).map((step, number) => {
    let verdict = "loaded";
    if (step === null) {
      const snapshot = JSON.parse(text());
      fold = new Fold(id);
      fold.load(snapshot);
    } else verdict = fold.apply(step, step.offset === undefined ? null : makeCursor("e", step.offset));
    const parts = shown();
    const now = { text: JSON.stringify(parts), parts, messages: parts.messages };
    const before = known;
    known = now;
    if (step !== null) {
      // What has not changed is the same object; what was given out has not changed.
      if (JSON.stringify(before.parts) !== before.text) faults.push([number, "an old state has changed"]);
      for (const [name, value] of Object.entries(parts)) {
        const same = value === before.parts[name];
        const equal = JSON.stringify(value) === JSON.stringify(before.parts[name]);
        if (equal && !same && number) faults.push([number, name]);
      }
      for (const message of now.messages) {
        const old = before.messages.find((one) => one.message_id === message.message_id);
        if (old && old !== message && JSON.stringify(old) === JSON.stringify(message)) faults.push([number, "message"]);
      }
      if (fold.view() !== fold.view()) faults.push([number, "view"]);
    }
    return now.text === before.text ? [verdict] : [verdict, parts];
  });
  if (!frozen(fold.view())) faults.push("not frozen");
  return JSON.stringify({ said, faults });
}"""


def followed(session_id: str, steps: list[Step]) -> list[JSON]:
    """What the engine's own fold says to each step."""
    state = SessionState(session_id, EPOCH)
    said: list[JSON] = []
    known = None
    for step in steps:
        if step is None:
            state = SessionState.from_snapshot(Snapshot.from_json(state.snapshot().to_json()))
            verdict = "loaded"
        else:
            verdict = judge(state, step)
        now = encode_json(state.snapshot().to_json())
        said.append([verdict] if now == known else [verdict, json.loads(now)])
        known = now
    return said


# What may become of an event between the log and a fold; what happens to nearly all of them is nothing.
FATES = ["take"] * 40 + ["lose", "twice", "again", "snapshot", "swap", "renumber", "foreign", "ephemeral", "break"]


@st.composite
def journeys(draw: st.DrawFn) -> list[Step]:
    """A log, compacted or not, as a reader may meet it: lost, repeated, taken up again from before and from a snapshot,
    in another order, with events of others between, and with some that lack a part."""
    events = draw(logs(epoch=EPOCH))
    ids = sorted({event.message_id for event in events if event.message_id is not None})
    chosen = set(draw(st.lists(st.sampled_from(ids), unique=True)) if ids else [])
    told: list[Wire] = [dict(to_json(event)) for event in compact(events, chosen)]
    steps: list[Step] = []
    held: list[Wire] = []
    for event in told:
        fate = draw(st.sampled_from(FATES))
        if fate == "swap":
            held.append(event)
            continue
        if fate != "lose":
            steps.append(event)
        if fate == "twice":
            steps.append(event)
        elif fate == "again":
            steps += told[draw(st.integers(0, len(told) - 1)) :][:3]
        elif fate == "snapshot":
            steps.append(None)
        elif fate == "renumber":
            old = told[draw(st.integers(0, len(told) - 1))]
            steps.append({**old, "offset": event["offset"]})
        elif fate == "foreign":
            steps.append({**told[-1], "session_id": "another"})
        elif fate == "ephemeral":
            who: Wire = {"actor_id": "ann", "device_id": "desk"}
            steps.append({"type": "presence.changed", "session_id": SESSION, "time": "", "data": who})
        elif fate == "break":
            part = draw(st.sampled_from(sorted(event)))
            steps[-1] = {name: value for name, value in event.items() if name != part}
            steps.append(event)
        steps += held
        held = []
    return [*steps, *held, None]


# R-14 R-15 R-16 R-17 R-51 R-52 R-53 R-54 R-55 R-67 R-109 R-150
@pytest.mark.further
def test_the_pages_fold_says_what_the_engines_says(blank: Page) -> None:
    @settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(journeys())
    def check(steps: list[Step]) -> None:
        told = json.loads(blank.evaluate(FOLLOW, [SESSION, encode_json(steps).decode()]), parse_int=float)
        expected = json.loads(encode_json(followed(SESSION, steps)), parse_int=float)
        for step, said, right in zip(steps, told["said"], expected, strict=True):
            if said[0] == "invalid" and right[0] in ("gap", "duplicate"):
                said[0] = right[0]  # of two reasons not to take it the page names the other one
            assert said == right, step  # one by one: the first that differs is the one to look at
        assert told["faults"] == []

    check()


OF_G = {"generation_id": "g", "turn": 1}
OF_H = {"generation_id": "h", "turn": 2}
OPEN = [
    stamped(1, "session.created", {"metadata": {}}),
    stamped(2, "generation.started", {"producer": "p", "policy": "supersede"}, **OF_G),
    stamped(3, "message.opened", {"role": "assistant"}, message_id="m", **OF_G),
    stamped(4, "block.opened", {"kind": "text"}, **BLOCK, seq=0, **OF_G),
    stamped(5, "block.closed", {}, **BLOCK, seq=1, **OF_G),
]


# Each of these would do for the message or the generation that is open, and is not about it.
STRANGE = [
    stamped(5, "block.delta", {"text": "x"}, message_id="n", block_index=0, seq=1, **OF_G),
    stamped(6, "block.opened", {"kind": "text"}, message_id="n", block_index=1, seq=0, **OF_G),
    stamped(6, "message.closed", {"status": "complete"}, message_id="n", **OF_G),
    stamped(5, "block.delta", {"text": "x"}, **BLOCK, seq=1, **OF_H),
    stamped(6, "message.closed", {"status": "complete"}, message_id="m", **OF_H),
    stamped(6, "generation.status", {"status": "thinking"}, **OF_H),
    stamped(6, "generation.finished", {"outcome": "completed"}, **OF_H),
    stamped(6, "generation.finished", {"outcome": "failed"}, **OF_G),  # its message is open
]


# R-149 R-150 R-152
def test_what_is_said_of_one_changes_nothing_of_another(blank: Page) -> None:
    for said in STRANGE:
        steps: list[Step] = [*(event for event in OPEN if event["offset"] < said["offset"]), said]
        told = json.loads(blank.evaluate(FOLLOW, ["s", json.dumps(steps)]))
        assert told["said"] == followed("s", steps), said
        assert told["said"][-1] == ["gap"], said


# R-14, R-16, R-17, R-51, R-52, R-53, R-54, R-55, R-58, R-67
def test_the_pages_fold_says_what_the_vectors_say(blank: Page) -> None:
    for path in sorted(FOLDER.glob("*.json")):
        vector = json.loads(path.read_text(encoding="utf-8"))
        events = [step["event"] for step in vector["steps"]]
        said = [[step["verdict"], *([step["state"]] if "state" in step else [])] for step in vector["steps"]]
        told = json.loads(blank.evaluate(FOLLOW, [vector["session_id"], json.dumps(events)]))
        assert told == {"said": said, "faults": []}, path.name


# R-123 R-124
def test_the_frame_parser_keeps_cut_characters_and_cut_frames_whole(blank: Page) -> None:
    frames = blank.evaluate(
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
