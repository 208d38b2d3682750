"""What of all that waits is the next commit: bounded in events and bytes, small before large, nobody for ever."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.errors import PenstockError
from penstock.engine.log import rounds
from penstock.engine.log.port import Append, Move
from penstock.engine.log.rounds import Rounds, weight
from tests.engine.writes import append, delete

BYTES: Final = 100
EVENTS: Final = 8


@pytest.fixture(autouse=True, scope="module")
def small_rounds() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "_BYTES", BYTES)
        patch.setattr(rounds, "_EVENTS", EVENTS)
        yield


@frozen
class Waiting:
    """One write on its way; ``number`` counts those of all sessions."""

    number: int
    write: Move


def report(_error: PenstockError | None) -> None:
    raise AssertionError("nothing is carried out here")


def events_of(write: Move) -> int:
    return len(write.events) if isinstance(write, Append) else 1


sizes = st.one_of(st.integers(0, 5), st.integers(0, 3 * BYTES))
writes = st.one_of(
    st.builds(
        lambda name, events, record: append(*map(bytes, events), to=name, records={"r": bytes(record)}),
        st.sampled_from("abcdef"),
        st.lists(sizes, max_size=4),
        sizes,
    ),
    st.builds(delete, st.sampled_from("abcdef")),
)
# Some come, one round is taken, others come …
comings = st.lists(st.lists(writes, max_size=8), max_size=12)


@given(comings)
def test_every_write_goes_once_in_its_sessions_order_and_no_round_is_larger_than_it_may_be(
    comings: list[list[Move]],
) -> None:
    waiting = Rounds()
    came: list[Move] = []
    gone: list[Move] = []

    def take() -> None:
        chosen = [write for write, _ in waiting.next()]
        assert chosen
        assert sum(map(weight, chosen)) <= BYTES or len(chosen) == 1
        assert sum(map(events_of, chosen[:-1])) < EVENTS + 4
        gone.extend(chosen)

    for more in comings:
        for write in more:
            waiting.add((write, report))
        came += more
        if len(waiting.waiting):
            take()
    while len(waiting.waiting):
        take()
    assert len(gone) == len(came)
    for name in "abcdef":
        of_session = [write for write in gone if write.session_id == name]
        assert list(map(id, of_session)) == [id(write) for write in came if write.session_id == name]


heavy = st.builds(
    lambda name, size: append(bytes(size), to=name), st.sampled_from("abcdef"), st.integers(BYTES // 4, 4 * BYTES)
)


@given(st.lists(st.lists(heavy, max_size=8), max_size=12), st.lists(heavy, min_size=1, max_size=3))
def test_a_small_write_waits_for_one_large_one_at_most(comings: list[list[Move]], later: list[Move]) -> None:
    """Whatever waits, and whatever comes behind it: at most one round comes before."""
    waiting = Rounds()
    for more in comings:
        for write in more:
            waiting.add((write, report))
        if len(waiting.waiting):
            waiting.next()
    small = append(b"x", to="small")
    waiting.add((small, report))
    before = 0
    while small not in [write for write, _ in waiting.next()]:
        before += 1
        assert before <= 1
        for write in later:
            waiting.add((write, report))


@given(comings)
def test_what_came_first_is_passed_over_once_at_most(comings: list[list[Move]]) -> None:
    waiting = Rounds()
    order: list[Move] = []
    passed_over: Move | None = None
    for more in comings:
        for write in more:
            waiting.add((write, report))
            order.append(write)
        if not len(waiting.waiting):
            continue
        first = order[0]
        chosen = {id(write) for write, _ in waiting.next()}
        order = [write for write in order if id(write) not in chosen]
        if id(first) in chosen:
            passed_over = None
        else:
            assert passed_over is not first
            passed_over = first


def test_one_that_is_larger_than_a_round_goes_alone_and_behind_those_that_are_small() -> None:
    waiting = Rounds()
    for name in "LM":
        waiting.add((append(bytes(4 * BYTES), to=name), report))
    for name in "abc":
        waiting.add((append(b"x", to=name), report))
    assert [[write.session_id for write, _ in waiting.next()] for _ in range(3)] == [["a", "b", "c"], ["L"], ["M"]]
    assert not len(waiting.waiting)
