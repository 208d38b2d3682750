"""Short ways to hand writes to a log and to look at what it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import trio

from penstock.engine.errors import PenstockError
from penstock.engine.log import Append, Claim, Compact, Delete, Entry, EventLog, Head, Keep, Release, Summary, Write


def append(
    *events: bytes,
    to: str = "s",
    epoch: str = "e1",
    tail: int = 0,
    token: int = 1,
    records: Mapping[str, bytes | None] | None = None,
    summary: Summary | None = None,
    create: bool = False,
    owner: str = "",
) -> Append:
    return Append(
        session_id=to,
        epoch=epoch,
        expected_tail=tail,
        token=token,
        events=events,
        records=records or {},
        summary=summary,
        create=create,
        owner=owner,
    )


def create(
    *events: bytes,
    of: str = "s",
    epoch: str = "e1",
    token: int = 1,
    records: Mapping[str, bytes | None] | None = None,
    rank: int | None = None,
    owner: str = "",
) -> Append:
    """``rank``: with a summary that says its name."""
    summary = None if rank is None else Summary(rank, of.encode())
    return append(*events, to=of, epoch=epoch, token=token, records=records, summary=summary, create=True, owner=owner)


def delete(of: str = "s", *, epoch: str = "e1", token: int = 1) -> Delete:
    return Delete(session_id=of, epoch=epoch, token=token)


def claim(of: str = "s", *, epoch: str = "e1", seen: int, owner: str, anew: str | None = None) -> Claim:
    return Claim(session_id=of, epoch=epoch, seen=seen, owner=owner, anew=anew)


def release(of: str = "s", *, owner: str, token: int) -> Release:
    return Release(session_id=of, owner=owner, token=token)


def compact(
    of: str = "s",
    *,
    epoch: str = "e1",
    replace: Mapping[int, bytes] | None = None,
    remove: Sequence[int] = (),
    records: Mapping[str, bytes | None] | None = None,
    forget: Mapping[str, bytes] | None = None,
) -> Compact:
    return Compact(
        session_id=of, epoch=epoch, replace=replace or {}, remove=remove, records=records or {}, forget=forget or {}
    )


def keep(of: str = "s", *, epoch: str = "e1", records: Mapping[str, bytes | None]) -> Keep:
    return Keep(session_id=of, epoch=epoch, records=records)


def head(
    of: str = "s",
    *,
    epoch: str = "e1",
    tail: int = 0,
    token: int = 1,
    deleted: bool = False,
    summary: Summary | None = None,
    owner: str = "",
    doubted: bool = False,
) -> Head:
    return Head(
        session_id=of,
        epoch=epoch,
        tail=tail,
        token=token,
        deleted=deleted,
        owner=owner,
        doubted=doubted,
        summary=summary,
    )


async def outcomes(log: EventLog, *writes: Write) -> list[PenstockError | None]:
    """Hand all over in one turn; what was reported for each, once all are."""
    reported: dict[int, PenstockError | None] = {}
    done = trio.Event()

    def report(place: int, error: PenstockError | None) -> None:
        assert place not in reported, "reported twice"
        reported[place] = error
        if len(reported) == len(writes):
            done.set()

    for place, write in enumerate(writes):
        log.submit(write, lambda error, place=place: report(place, error))  # type: ignore[misc]
    assert not reported, "reported inside submit"
    with trio.fail_after(60):
        await done.wait()
    return [reported[place] for place in range(len(writes))]


async def kinds(log: EventLog, *writes: Write) -> list[type[PenstockError] | None]:
    return [None if error is None else type(error) for error in await outcomes(log, *writes)]


async def store(log: EventLog, *writes: Write) -> None:
    """Hand all over in one turn; none may be refused."""
    assert await outcomes(log, *writes) == [None] * len(writes)


async def entries(log: EventLog, of: str = "s", epoch: str = "e1", page: int = 100) -> list[Entry]:
    """Everything that a life holds, read page by page."""
    found: list[Entry] = []
    while got := await log.read(of, epoch, after=found[-1].offset if found else 0, limit=page, max_bytes=1 << 20):
        found += got
    return found


async def bodies(log: EventLog, of: str = "s", epoch: str = "e1") -> list[bytes]:
    """As `entries`, without the offsets, which must be 1, 2, 3 …"""
    found = await entries(log, of, epoch)
    assert [entry.offset for entry in found] == list(range(1, len(found) + 1))
    return [entry.body for entry in found]
