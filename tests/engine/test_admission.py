from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.rules.admission import (
    Accepted,
    HoleInSequence,
    ProducerMark,
    ProducerVerdict,
    Repeated,
    StaleProducerEpoch,
    TokenVerdict,
    admit_producer,
    admit_token,
)


@pytest.mark.parametrize(
    ("current", "offered", "verdict"),
    [(3, 2, TokenVerdict.STALE), (3, 3, TokenVerdict.ACCEPT), (3, 4, TokenVerdict.ACCEPT), (0, 0, TokenVerdict.ACCEPT)],
)
def test_only_a_token_that_was_overtaken_is_stale(current: int, offered: int, verdict: TokenVerdict) -> None:
    assert admit_token(current, offered) is verdict


LAST = ProducerMark(2, 5)


@pytest.mark.parametrize(
    ("last", "offered", "verdict"),
    [
        (None, ProducerMark(7, 0), Accepted(ProducerMark(7, 0))),
        (None, ProducerMark(7, 1), HoleInSequence(0)),
        (LAST, ProducerMark(2, 6), Accepted(ProducerMark(2, 6))),
        (LAST, ProducerMark(2, 5), Repeated()),
        (LAST, ProducerMark(2, 0), Repeated()),
        (LAST, ProducerMark(2, 7), HoleInSequence(6)),
        (LAST, ProducerMark(1, 6), StaleProducerEpoch(2)),
        (LAST, ProducerMark(1, 0), StaleProducerEpoch(2)),
        (LAST, ProducerMark(3, 0), Accepted(ProducerMark(3, 0))),
        (LAST, ProducerMark(3, 6), HoleInSequence(0)),
    ],
)
def test_a_producer_is_judged_by_what_is_stored_of_it(
    last: ProducerMark | None, offered: ProducerMark, verdict: ProducerVerdict
) -> None:
    assert admit_producer(last, offered) == verdict


@given(st.lists(st.builds(ProducerMark, st.integers(0, 3), st.integers(0, 4))))
def test_every_number_is_accepted_once_and_in_order(offers: list[ProducerMark]) -> None:
    last, accepted = None, []
    for offered in offers:
        match admit_producer(last, offered):
            case Accepted(mark):
                last = mark
                accepted.append(mark)
            case Repeated():
                assert offered in accepted
            case HoleInSequence() | StaleProducerEpoch():
                assert offered not in accepted or last is not None
    assert len(set(accepted)) == len(accepted)
    assert sorted(accepted, key=lambda mark: (mark.epoch, mark.seq)) == accepted
    assert all(mark.seq == 0 or ProducerMark(mark.epoch, mark.seq - 1) in accepted for mark in accepted)


@pytest.mark.parametrize("numbers", [(-1, 0), (0, -1)])
def test_numbers_below_0_are_no_marks(numbers: tuple[int, int]) -> None:
    with pytest.raises(ValueError):
        ProducerMark(*numbers)
