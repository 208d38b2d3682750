"""Places of messages in columns: whatever is added and taken away, they are what a list of them would be."""

from __future__ import annotations

import tracemalloc
from functools import partial
from typing import Final

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine import new_message_id
from penstock.engine.reducer.content import Evicted
from penstock.engine.reducer.places import BLOCK, NO_PLACES, Places

OTHER: Final = new_message_id()


def place(number: int, message_id: str | None = None) -> Evicted:
    return Evicted(message_id=message_id or new_message_id(), first=number * 3 + 1, last=2**40 + number, weight=number)


def in_blocks(sizes: list[int]) -> tuple[Places, list[Evicted]]:
    places, listed = NO_PLACES, list[Evicted]()
    for size in sizes:
        block = [place(len(listed) + number) for number in range(size)]
        places = places.with_block(block)
        listed += block
    return places, listed


def assert_same(places: Places, listed: list[Evicted], start: int, end: int) -> None:
    assert len(places) == len(listed)
    assert list(places.between(start, end)) == listed[start:end]
    assert list(places.backwards(end)) == listed[:end][::-1]
    assert places.ids(start) == [one.message_id for one in listed[start:]]
    for number, one in enumerate(listed):
        assert places.get(one.message_id) == one
        assert places.index(one.message_id) == number
    assert places.get(OTHER) is None
    for unknown in (places.index, places.without, partial(places.with_last, last=1)):
        with pytest.raises(KeyError):
            unknown(OTHER)


@given(st.lists(st.integers(1, 5), max_size=6), st.data())
def test_places_are_what_a_list_of_them_is(sizes: list[int], data: st.DataObject) -> None:
    places, listed = in_blocks(sizes)
    kept = places
    start, end = data.draw(st.integers(0, 30)), data.draw(st.integers(0, 30))
    assert_same(places, listed, start, end)
    left = list(listed)
    for _ in range(data.draw(st.integers(0, len(listed)))):
        at = data.draw(st.integers(0, len(left) - 1))
        if data.draw(st.booleans()):
            left[at] = evolve(left[at], last=left[at].last + 7)
            places = places.with_last(left[at].message_id, left[at].last)
        else:
            gone = left.pop(at)
            places = places.without(gone.message_id)
            assert places.get(gone.message_id) is None
        assert_same(places, left, start, end)
    assert_same(kept, listed, start, end)


def test_every_place_of_many_whole_blocks_is_found() -> None:
    places, listed = in_blocks([BLOCK] * 20)
    assert_same(places, listed, BLOCK - 1, 3 * BLOCK + 1)
    assert not any(places.get(new_message_id()) for _ in range(2000))


def test_a_search_looks_into_few_blocks_that_do_not_have_it() -> None:
    """A filter that lets everything through finds the same, and only takes longer."""
    places, _ = in_blocks([BLOCK] * 50)
    looked = sum(block.bloom & mask == mask for mask in masks(200) for block in places._blocks)
    assert looked < 0.01 * 200 * 50


def masks(count: int) -> list[int]:
    return [Places().with_block([place(0)])._blocks[0].bloom for _ in range(count)]


def test_a_place_takes_less_than_80_bytes() -> None:
    count = 100 * BLOCK
    tracemalloc.start()
    try:
        places = NO_PLACES
        for _ in range(100):
            places = places.with_block([place(number) for number in range(BLOCK)])
        assert tracemalloc.get_traced_memory()[0] < 80 * count
    finally:
        tracemalloc.stop()
