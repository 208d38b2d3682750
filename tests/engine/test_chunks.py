"""What chunks are, and what they come to in a generation: without a session, a log or a loop."""

from __future__ import annotations

import copy
import sys
import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine import (
    ApprovalRequested,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    Chunk,
    GenerationId,
    GenerationMismatch,
    IdInUse,
    InputAccepted,
    InvalidBody,
    InvalidId,
    MessageClosed,
    MessageId,
    MessageOpened,
    PenstockError,
    Pieces,
    ProducerStamp,
    SequenceGap,
    new_generation_id,
)
from penstock.engine.rules.chunks import read_batch
from penstock.engine.rules.lifecycle import Draft, OpenGeneration
from penstock.engine.rules.placing import Owners, Placing
from tests.engine.remotes import body
from tests.extent import examples

# They stand in the names of tests, which each process must find the same.
GID = GenerationId("0192f0c0-0000-7000-8000-00000000000a")
MID = MessageId("0192f0c0-0000-7000-8000-00000000000b")
OTHER = MessageId("0192f0c0-0000-7000-8000-00000000000c")


def place(
    structure: OpenGeneration, chunks: Sequence[Chunk], owners: Owners | None = None
) -> tuple[list[Draft], Placing]:
    """Place the chunks as a session does; the structure has them if nothing is raised."""
    placing = Placing(structure, read_batch(chunks, expires_at=lambda: "2999-01-01T00:00:00.000Z"), owners or {})
    drafts: list[Draft] = []
    with placing.blaming():
        for draft in placing.drafts():
            structure.place(draft)
            structure.record(draft)
            drafts.append(draft)
    return drafts, placing


def live() -> OpenGeneration:
    return OpenGeneration(GID, 1)


def kinds(drafts: list[Draft]) -> list[str]:
    return [draft.data.type for draft in drafts]


#
def test_the_first_delta_opens_its_message_and_its_block() -> None:
    drafts, placing = place(live(), [body(GID, "a", message_id=MID.upper(), seq=1, role="system", kind="reasoning")])
    assert drafts == [
        Draft(MessageOpened(role="system"), MID),
        Draft(BlockOpened(kind="reasoning"), MID, 0),
        Draft(BlockDelta(text="a"), MID, 0),
    ]
    assert (placing.accepted, placing.duplicates, placing.message_id, placing.opened) == (1, 0, MID, [MID])


#
def test_the_end_of_a_message_closes_the_blocks_that_are_open() -> None:
    structure = live()
    end = body(GID, type="message.closed", message_id=MID)
    drafts, placing = place(
        structure,
        [
            body(GID, "a", message_id=MID),
            body(GID, type="block.closed", message_id=MID),
            body(GID, "b", message_id=MID, block_index=1),
            body(GID, "c", message_id=MID, block_index=2),
            end,
        ],
    )
    assert drafts[-3:] == [
        Draft(BlockClosed(), MID, 1),
        Draft(BlockClosed(), MID, 2),
        Draft(MessageClosed(status="complete"), MID),
    ]
    assert (placing.accepted, placing.duplicates) == (5, 0)
    assert place(structure, [end])[0] == []


#
def test_a_message_without_an_id_gets_one_and_the_only_open_one_is_meant_from_then_on() -> None:
    structure = live()
    drafts, placing = place(structure, [body(GID, "a"), body(GID, "b"), body(GID, type="message.opened")])
    assert kinds(drafts) == ["message.opened", "block.opened", "block.delta", "block.delta", "message.opened"]
    first, second = placing.opened
    assert {draft.message_id for draft in drafts[:4]} == {first}
    assert placing.message_id == second
    with pytest.raises(InvalidBody, match="more than one message is open"):
        place(structure, [body(GID, "c")])


def test_data_opens_a_data_block_and_a_tool_call_wants_its_opening() -> None:
    drafts, _ = place(live(), [body(GID, data={"value": {"n": 1}})])
    assert drafts[1] == Draft(BlockOpened(kind="data"), drafts[0].message_id, 0)
    for chunk in (
        body(GID, data={"arguments": "{"}),
        body(GID, "a", kind="tool_result"),
        body(GID, "a", kind="tool_call"),
        body(GID, "a", kind="video"),
    ):
        with pytest.raises(InvalidBody):
            place(live(), [chunk])
    drafts, _ = place(
        live(),
        [
            body(GID, type="block.opened", kind="tool_call", data={"tool_call_id": "c", "name": "look"}),
            body(GID, data={"arguments": "{}"}),
            body(GID, type="block.closed", data={"arguments": {}}),
        ],
    )
    assert kinds(drafts) == ["message.opened", "block.opened", "block.delta", "block.closed"]


def test_what_was_written_is_a_duplicate_by_its_number_also_when_it_is_closed() -> None:
    structure = live()
    chunks = [
        body(GID, type="message.opened", message_id=MID, role="tool"),
        body(GID, type="block.opened", message_id=MID, seq=0, kind="text"),
        body(GID, "a", message_id=MID, seq=1),
        body(GID, "b", message_id=MID, seq=2),
        body(GID, type="block.closed", message_id=MID, seq=3),
        body(GID, type="message.closed", message_id=MID),
    ]
    drafts, placing = place(structure, chunks)
    assert (len(drafts), placing.accepted) == (6, 6)
    again, placing = place(structure, chunks)
    assert (again, placing.accepted, placing.duplicates, placing.message_id) == ([], 0, 6, MID)


def test_a_hole_tells_the_number_that_comes_next() -> None:
    structure = live()
    with pytest.raises(SequenceGap) as first:
        place(live(), [body(GID, "b", seq=2)])
    assert first.value.expected == 1
    place(structure, [body(GID, "a", message_id=MID, seq=1)])
    with pytest.raises(SequenceGap) as later:
        place(structure, [body(GID, "d", message_id=MID, seq=4)])
    assert later.value.expected == 2


# R-94 R-95
@pytest.mark.parametrize(
    "chunk",
    [
        body(GID, "a", seq=0),
        body(GID, "a", block_index=1),
        body(GID, type="block.closed"),
        body(GID, type="block.closed", seq=0),
        body(GID, type="message.closed"),
        body(GID, type="message.closed", message_id=MID),
        body(GID, type="block.opened", kind="text", seq=1),
        body(GID, type="block.opened"),
        body(GID, type="input.applied", data={"input_id": "never"}),
        body(GID, type="input.applied"),
        body(GID, type="generation.finished", data={"outcome": "completed"}),
        body(GID, type="generation.started", data={"producer": "p", "policy": "reject"}),
        body(GID, type="message.snapshot", message_id=MID),
        body(GID, type="unheard.of"),
        body(GID, type="app.note", seq=1),
        body(GID, type="generation.status", data={"status": "x"}, message_id=MID),
        body(GID, type="generation.status", data={"status": 1}),
        body(GID, type="generation.status", data={"status": None}),
        body(GID, "a", seq=-1),
        body(GID, "a", seq=True),
        body(GID, "a", block_index=-1),
        body(GID, "a", role="root"),
        body(GID, data={}),
        body(GID, data={"text": "a", "value": 1}),
        body(GID, data={"text": 1}),
        body(GID, data={"text": None}),
        body(GID, data={"value": float("nan")}),
        body(GID, data=[]),
        body(GID, type="message.opened", data={"role": "root"}),
        body(GID, type="message.opened", role="user", data={"role": "tool"}),
        body(GID, type="message.closed", data={"status": "fine"}),
        body(GID, type="approval.requested", data={"expires_at": "tomorrow"}),
        body(GID, type="approval.requested", data={"expires_at": "2026-01-01T00:00:00"}),
    ],
    ids=str,
)
def test_what_may_not_be_is_refused(chunk: Chunk) -> None:
    with pytest.raises(InvalidBody):
        place(live(), [chunk])


#
@pytest.mark.parametrize(
    "chunk",
    [
        body("x"),
        body(GID, "a", message_id="x"),
        body(GID, "a", job_id=""),
        body(GID, type="approval.requested", data={"approval_id": ""}),
        body(GID, type="message.opened", data={"parent_message_id": "x"}),
    ],
    ids=str,
)
def test_an_id_that_is_none_is_refused(chunk: Chunk) -> None:
    with pytest.raises(InvalidId):
        place(live(), [chunk])


def test_the_chunk_of_a_batch_that_is_at_fault_is_named() -> None:
    with pytest.raises(InvalidBody, match=r"^chunks\[1\]: the next block"):
        place(live(), [body(GID, "a", message_id=MID), body(GID, "b", message_id=MID, block_index=7)])
    with pytest.raises(InvalidBody, match=r"^chunks\[1\]: the message is not open"):
        place(live(), [body(GID, "a", message_id=MID), body(GID, type="message.closed", message_id=OTHER)])
    with pytest.raises(InvalidBody, match=r"^chunks\[1\]: all chunks of a batch are of one generation"):
        place(live(), [body(GID, "a"), body(new_generation_id(), "b")])
    with pytest.raises(InvalidBody, match="one job"):
        place(live(), [body(GID, "a", job_id="x"), body(GID, "b", job_id="y")])


def test_a_message_of_another_generation_or_a_posted_one_is_not_written_to() -> None:
    with pytest.raises(GenerationMismatch) as mismatch:
        place(live(), [body(GID, "a", message_id=MID)], {MID: new_generation_id()})
    assert mismatch.value.message_id == MID
    with pytest.raises(IdInUse):
        place(live(), [body(GID, type="message.opened", message_id=MID)], {MID: None})


#
@pytest.mark.parametrize(
    "chunk",
    [
        body(GID, "late", message_id=MID, seq=5),
        body(GID, "late", message_id=MID, seq=0),
        body(GID, "late", message_id=MID, block_index=2),
        body(GID, data={"arguments": "{"}, message_id=MID),
        body(GID, type="block.closed", message_id=MID),
        body(GID, type="message.opened", message_id=MID),
        body(GID, type="message.closed", message_id=MID),
    ],
    ids=lambda chunk: f"{chunk.type}-{chunk.seq}-{chunk.block_index}",
)
def test_whose_message_it_is_comes_before_what_is_missing_in_it(chunk: Chunk) -> None:
    with pytest.raises(GenerationMismatch):
        place(live(), [chunk], {MID: new_generation_id()})
    with pytest.raises(IdInUse):
        place(live(), [chunk], {MID: None})


def test_approvals_and_inputs_count_once() -> None:
    structure = live()
    structure.record(Draft(InputAccepted(input_id="i", kind="steer")))
    chunks = [
        body(GID, type="approval.requested", data={"approval_id": "a", "name": "rm"}),
        body(GID, type="approval.requested", data={"expires_at": "2999-01-01T01:00:00+01:00"}),
        body(GID, type="input.applied", data={"input_id": "i"}),
    ]
    drafts, placing = place(structure, chunks)
    asked = [draft.data for draft in drafts if isinstance(draft.data, ApprovalRequested)]
    assert [each.expires_at for each in asked] == ["2999-01-01T00:00:00.000Z"] * 2
    assert (placing.asked, placing.applied, placing.accepted) == (asked, 1, 3)
    _, placing = place(structure, [chunks[0], chunks[2]])
    assert (placing.asked, placing.applied, placing.duplicates) == ([], 0, 2)


class TakenBack(Exception):
    """What a trial ends with."""


def test_a_trial_that_raises_leaves_the_structure_as_it_was() -> None:
    structure = live()
    place(structure, [body(GID, "a", message_id=MID)])
    structure.record(Draft(ApprovalRequested(approval_id="a")))
    before = repr(structure)
    with suppress(TakenBack), structure.trial():
        place(
            structure,
            [
                body(GID, "b", message_id=MID),
                body(GID, type="block.closed", message_id=MID),
                body(
                    GID,
                    type="block.opened",
                    message_id=MID,
                    block_index=1,
                    kind="tool_call",
                    data={"tool_call_id": "c", "name": "n"},
                ),
                body(GID, type="block.closed", message_id=MID, block_index=1),
                body(GID, type="message.closed", message_id=MID),
                body(GID, "c", message_id=OTHER),
                body(GID, type="approval.requested", data={"approval_id": "b"}),
            ],
        )
        assert repr(structure) != before
        raise TakenBack
    assert repr(structure) == before


REQUESTS: Final = {
    "a status": [body(GID, type="generation.status", data={"status": "x"})],
    "a piece of the last block": [body(GID, "x", message_id=MID, block_index=-1)],
    "a new block": [body(GID, "x", message_id=MID, block_index=-1, type="block.opened", data={"kind": "text"})],
    "the end of the message": [body(GID, type="message.closed", message_id=MID)],
    "a message of its own": [body(GID, "x", message_id=OTHER)],
    "something repeated": [body(GID, "x", message_id=MID, block_index=0, seq=1)],
    "something refused": [body(GID, "x", message_id=MID, block_index=10**6)],
}


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_request_costs_what_it_brings_however_much_is_open(request_: str) -> None:
    """Counted in calls: the same for a message of ten blocks, tool calls and messages before it, and of thousands."""

    def calls(count: int) -> int:
        structure = live()
        for number in range(count):
            tool = {"tool_call_id": f"c{number}", "name": "n"}
            place(
                structure,
                [body(GID, type="block.opened", message_id=MID, block_index=number, kind="tool_call", data=tool)],
            )
            place(structure, [body(GID, type="block.closed", message_id=MID, block_index=number)])
            other = str(uuid.UUID(int=number))
            place(structure, [body(GID, "x", message_id=other), body(GID, type="message.closed", message_id=other)])
        place(structure, [body(GID, "x", message_id=MID, block_index=count)])
        index = {"a piece of the last block": count, "a new block": count + 1}.get(request_)
        batch = REQUESTS[request_] if index is None else [evolve(REQUESTS[request_][0], block_index=index)]
        counted = 0

        def count_one(*_: object) -> None:
            nonlocal counted
            counted += 1

        sys.setprofile(count_one)
        try:
            with suppress(PenstockError), structure.trial():
                place(structure, batch)
        finally:
            sys.setprofile(None)
        return counted

    assert calls(3000) == calls(10)


@pytest.mark.parametrize("producer_id", ["", "a b", "é", "x" * 129, "\n"])
def test_a_producers_id_is_visible_ascii(producer_id: str) -> None:
    with pytest.raises(InvalidId):
        ProducerStamp(producer_id, 0, 0)


@pytest.mark.parametrize("number", [-1, True, 1.0, 2**53])
def test_a_producers_numbers_are_whole(number: int) -> None:
    with pytest.raises(InvalidBody):
        ProducerStamp("p", number, 0)
    with pytest.raises(InvalidBody):
        ProducerStamp("p", 0, number)


messages = st.sampled_from([None, MID, OTHER])
chunks = st.one_of(
    st.builds(
        body,
        st.just(GID),
        st.text(max_size=2),
        message_id=messages,
        block_index=st.none() | st.integers(0, 2),
        seq=st.none() | st.integers(0, 4),
        kind=st.sampled_from([None, "text", "reasoning"]),
    ),
    st.builds(
        body,
        st.just(GID),
        type=st.sampled_from(["block.opened", "block.closed", "message.opened", "message.closed", "app.x"]),
        data=st.sampled_from([{}, {"kind": "text"}, {"text": "all"}, {"role": "tool"}]),
        message_id=messages,
        seq=st.none() | st.integers(0, 4),
    ),
)


#
@given(st.lists(st.lists(chunks, min_size=1, max_size=4), max_size=8))
def test_whatever_comes_the_numbers_of_a_block_are_dense_and_a_refused_batch_leaves_no_trace(
    batches: list[list[Chunk]],
) -> None:
    structure = live()
    written: list[Draft] = []
    for batch in batches:
        before = copy.deepcopy(structure)
        try:
            with structure.trial():
                drafts, placing = place(structure, batch)
        except PenstockError:
            assert structure == before
            continue
        assert placing.accepted + placing.duplicates == len(batch)
        assert len(drafts) >= placing.accepted
        written += drafts
    seqs: dict[tuple[str | None, int | None], list[str]] = {}
    for draft in written:
        if isinstance(draft.data, BlockOpened | BlockDelta | BlockClosed):
            seqs.setdefault((draft.message_id, draft.block_index), []).append(draft.data.type)
    for (message_id, index), types in seqs.items():
        assert message_id is not None
        assert index is not None
        block = structure.messages[message_id].blocks[index]
        assert types[0] == "block.opened"
        assert types.count("block.opened") == 1
        assert block.seq == len(types) - 1
        assert block.open is ("block.closed" not in types)
    assert all(isinstance(draft.data, MessageClosed) or draft.data.type for draft in written)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=12), st.data())
def test_numbered_chunks_sent_in_any_overlapping_batches_come_to_what_was_meant(
    texts: list[str], data: st.DataObject
) -> None:
    structure = live()
    sent = [body(GID, text, message_id=MID, seq=number) for number, text in enumerate(texts, 1)]
    said: list[str] = []
    reached = 0
    while reached < len(sent):
        start = data.draw(st.integers(0, reached))
        end = data.draw(st.integers(reached + 1, len(sent)))
        drafts, placing = place(structure, sent[start:end])
        assert (placing.duplicates, placing.accepted) == (reached - start, end - reached)
        said += [str(draft.data.text) for draft in drafts if isinstance(draft.data, BlockDelta)]
        reached = end
    assert said == texts


_STRANGE: Sequence[dict[str, Any]] = (
    *({"data": data} for data in ({"text": 5}, {"text": None}, {}, {"text": "x", "more": 1}, {"value": 1}, ["text"])),
    *({"generation_id": gid} for gid in (GID.upper(), OTHER)),
    *({"message_id": mid} for mid in (None, MID.upper(), OTHER, "x")),
    *({"block_index": number} for number in (None, 0, False, 0.0, 1, True, -1, 2**53)),
    *({"seq": number} for number in (None, 0, False, 0.0, 1, True, 1.0, 2, -1, 2**53)),
    *({"job_id": job_id} for job_id in (None, "job", "")),
    {"role": "user"},
    {"role": "robot"},
    {"kind": "text"},
    *({"type": type_} for type_ in ("block.closed", "app.x", "no")),
)


@st.composite
def _batches(draw: st.DrawFn) -> list[Chunk]:
    """For the most part pieces of one block, numbered or not, with one thing or another wrong here and there."""
    first, index = draw(st.sampled_from([None, 0, 1])), draw(st.sampled_from([None, 0, 1]))
    job_id = draw(st.sampled_from([None, "job"]))
    chunks = [
        body(
            GID,
            text,
            message_id=MID,
            block_index=index,
            seq=None if first is None else first + place,
            job_id=job_id,
        )
        for place, text in enumerate(draw(st.lists(st.sampled_from("ab"), min_size=1, max_size=3)))
    ]
    for strange in draw(st.lists(st.sampled_from(_STRANGE), max_size=2)):
        place = draw(st.integers(0, len(chunks) - 1))
        chunks[place] = evolve(chunks[place], **strange)
    return chunks


def _outcome(chunks: Sequence[Chunk]) -> object:
    try:
        batch = read_batch(chunks, expires_at=lambda: None)
    except (PenstockError, TypeError) as error:
        return repr(error)
    return batch.generation_id, batch.job_id, batch.message_ids, batch.proposals


# Pieces are a shorter way to read some batches, no other way.
@settings(max_examples=examples(1000))
@given(_batches())
def test_pieces_are_what_is_read_chunk_by_chunk(chunks: list[Chunk]) -> None:
    read = _outcome(chunks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penstock.engine.rules.chunks.read_pieces", lambda *_: None)
        assert _outcome(chunks) == read


@settings(max_examples=examples(500))
@given(
    gid=st.sampled_from([GID, GID.upper(), "x"]),
    mid=st.sampled_from([MID, MID.upper(), "x", None]),
    texts=st.lists(st.sampled_from(["a", "", 5]), min_size=1, max_size=3),
    index=st.sampled_from([None, 0, 1, True, -1, 2**53]),
    seq=st.sampled_from([None, 0, 1, True, -1, 2**53 - 2, 2**53]),
    job_id=st.sampled_from([None, "job", ""]),
)
def test_pieces_are_read_as_the_chunks_that_they_hold(
    gid: str, mid: Any, texts: list[Any], index: int | None, seq: int | None, job_id: str | None
) -> None:
    pieces = Pieces(generation_id=gid, message_id=mid, texts=tuple(texts), block_index=index, seq=seq, job_id=job_id)
    read = _outcome(pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penstock.engine.rules.chunks.read_pieces", lambda *_: None)
        assert _outcome(list(pieces)) == read
