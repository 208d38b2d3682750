"""The short way of a delta and the long one: the same bytes in the journal, the same structure, the same refusals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final
from unittest.mock import patch

import trio
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine import BlockClosed, BlockDelta, BlockOpened, Config, MemoryLog, MessageClosed, MessageOpened
from penstock.engine.errors import PenstockError
from penstock.engine.events import Data, GenerationFinished
from penstock.engine.generation.stamper import PieceStamper, stamp
from penstock.engine.log.port import Head
from penstock.engine.rules.lifecycle import Draft, OpenGeneration
from penstock.engine.stream.budget import Budget
from penstock.engine.stream.hub import Hub
from penstock.engine.stream.journal import Journal

GENERATION: Final = "00000000-0000-7000-8000-00000000000a"
MESSAGES: Final = tuple(f"00000000-0000-7000-8000-0000000000b{number}" for number in range(2))
TIME: Final = "2025-03-01T10:00:00.000Z"


@frozen
class Step:
    """An event with its place, or pieces of text for the block there."""

    message: int
    index: int
    said: Data | tuple[str, ...]


texts = st.text(max_size=6) | st.sampled_from(['"', "\\", "\n", "\ud800", "\u2028"])
places = st.tuples(st.integers(0, 1), st.integers(0, 2))
events = st.sampled_from(
    [
        MessageOpened(role="assistant"),
        BlockOpened(kind="text"),
        BlockOpened(kind="tool_call", tool_call_id="call", name="tool"),
        BlockClosed(),
        MessageClosed(status="complete"),
        GenerationFinished(outcome="completed"),
    ]
)
steps = st.builds(
    lambda place, said: Step(place[0], place[1], said),
    places,
    st.lists(texts, min_size=1, max_size=4).map(tuple) | events,
)
openings: Final = [Step(0, 0, MessageOpened(role="assistant")), Step(0, 0, BlockOpened(kind="text"))]


class Way:
    """One journal and one structure; ``put`` writes pieces into a block."""

    def __init__(self, put: Callable[[Journal, OpenGeneration, str, int, Sequence[str]], None]) -> None:
        config = Config()
        head = Head(session_id="s", epoch="e1", tail=0, token=1)
        hub = Hub(config.subscriber_buffer)
        budget = Budget(config.total_pending, 2 * config.checkpoint_every, config.total_pending_bytes)
        self.log = MemoryLog()
        self.journal = Journal(
            self.log, head, hub=hub, budget=budget, config=config, on_refused=lambda _: None, on_listed=lambda _: None
        )
        self.journal._held = 1  # nothing leaves it
        self.structure = OpenGeneration(GENERATION, 1, "job")
        self._put = put

    def take(self, step: Step) -> type[PenstockError] | None:
        """What it is refused with."""
        message_id = MESSAGES[step.message]
        try:
            if isinstance(step.said, tuple):
                self._put(self.journal, self.structure, message_id, step.index, step.said)
            else:
                block = type(step.said) in (BlockOpened, BlockClosed)
                named = None if isinstance(step.said, GenerationFinished) else message_id
                draft = Draft(step.said, named, step.index if block else None)
                stamp(self.journal, [(self.structure, draft)])
        except PenstockError as error:
            return type(error)
        return None

    @property
    def outcome(self) -> tuple[list[bytes], object]:
        shapes = {
            message_id: (shape.open, [(block.kind, block.open, block.seq) for block in shape.blocks])
            for message_id, shape in self.structure.messages.items()
        }
        return self.journal._bodies, (shapes, self.structure.state)


def one_by_one(journal: Journal, structure: OpenGeneration, message_id: str, index: int, pieces: Sequence[str]) -> None:
    with structure.trial():
        drafts = [(structure, Draft(BlockDelta(text=piece), message_id, index)) for piece in pieces]
        stamp(journal, drafts)


def all_at_once(
    journal: Journal, structure: OpenGeneration, message_id: str, index: int, pieces: Sequence[str]
) -> None:
    PieceStamper(journal, structure, message_id, index, "text").stamp_all(pieces)


def a_single_one(
    journal: Journal, structure: OpenGeneration, message_id: str, index: int, pieces: Sequence[str]
) -> None:
    stamper = PieceStamper(journal, structure, message_id, index, "text")
    for piece in pieces:
        stamper.stamp(piece)


def compare(taken: list[Step], short: Callable[..., None]) -> None:
    async def run() -> None:
        with (
            patch("penstock.engine.generation.stamper.now", lambda: TIME),
            patch("penstock.engine.generation.stamper.encoded_now", lambda: TIME.encode()),
        ):
            ways = [Way(one_by_one), Way(short)]
            for step in [*openings, *taken]:
                assert ways[0].take(step) == ways[1].take(step)
                assert ways[0].outcome == ways[1].outcome

    trio.run(run)


@given(st.lists(steps, max_size=12))
def test_pieces_in_one_part_are_the_deltas_they_stand_for(taken: list[Step]) -> None:
    compare(taken, all_at_once)


@given(st.lists(steps, max_size=12))
def test_a_piece_is_the_delta_it_stands_for(taken: list[Step]) -> None:
    single = [Step(s.message, s.index, s.said[:1]) if isinstance(s.said, tuple) else s for s in taken]
    compare(single, a_single_one)
