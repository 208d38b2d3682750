from __future__ import annotations

import pytest

from penstock.engine.rules.policy import Decision, Enqueue, Join, Policy, Refuse, Situation, Start, Supersede, decide

BUSY = Situation(live="g1")
WAITING = Situation(live="g1", queued=("g2", "g3"))
FULL = Situation(live="g1", queued=("g2", "g3"), queue_limit=2)


@pytest.mark.parametrize(
    ("policy", "now", "decision"),
    [
        (Policy.SUPERSEDE, BUSY, Supersede("g1", retract=False)),
        (Policy.SUPERSEDE, WAITING, Supersede("g1", retract=False)),
        (Policy.ROLLBACK, BUSY, Supersede("g1", retract=True)),
        (Policy.QUEUE, BUSY, Enqueue(1)),
        (Policy.QUEUE, WAITING, Enqueue(3)),
        (Policy.QUEUE, FULL, Refuse("QUEUE_FULL")),
        (Policy.QUEUE, Situation(live="g1", queueable=False), Refuse("INVALID_BODY")),
        (Policy.LATEST, BUSY, Enqueue(1)),
        (Policy.LATEST, WAITING, Enqueue(1, ("g2", "g3"))),
        (Policy.LATEST, FULL, Enqueue(1, ("g2", "g3"))),
        (Policy.LATEST, Situation(live="g1", queueable=False), Refuse("INVALID_BODY")),
        (Policy.REJECT, BUSY, Refuse("GENERATION_ACTIVE")),
        (Policy.JOIN, BUSY, Join("g1")),
        (Policy.JOIN, Situation(live="g1", brings_content=True), Refuse("INVALID_BODY")),
    ],
)
def test_what_a_start_does_to_a_busy_session(policy: Policy, now: Situation, decision: Decision) -> None:
    assert decide(policy, now) == decision


@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("now", [Situation(), Situation(brings_content=True, queueable=False)])
def test_every_policy_starts_where_nothing_is_live_and_nothing_waits(policy: Policy, now: Situation) -> None:
    assert decide(policy, now) == Start()


def test_a_queue_that_is_paused_keeps_its_order() -> None:
    paused = Situation(queued=("g2",))
    assert decide(Policy.QUEUE, paused) == Enqueue(2)
    assert decide(Policy.LATEST, paused) == Enqueue(1, ("g2",))


@pytest.mark.parametrize("policy", [Policy.SUPERSEDE, Policy.ROLLBACK, Policy.REJECT, Policy.JOIN])
def test_other_starts_pass_a_paused_queue_by(policy: Policy) -> None:
    assert decide(policy, Situation(queued=("g2",))) == Start()


@pytest.mark.parametrize("name", ["", "SUPERSEDE", "replace", "default"])
def test_an_unknown_policy_is_no_policy(name: str) -> None:
    with pytest.raises(ValueError):
        Policy(name)
