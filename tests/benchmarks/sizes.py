"""How much is measured: the whole table, a quick look, or just enough to see that everything still runs."""

from __future__ import annotations

from typing import Final, final

from attrs import frozen

__all__ = ["FULL", "QUICK", "TINY", "Sizes"]


@final
@frozen(kw_only=True)
class Sizes:
    """Counts of events unless said otherwise; times in seconds."""

    name: str
    rounds: int
    text: int = 64  # characters of one event's text; the least that holds a stamp is 40
    # B1
    written: int
    sessions: tuple[int, ...]
    # B2
    burst: int
    viewers: int
    # B3
    window: float
    step: int  # sessions
    most: int  # sessions
    calm: int  # sessions, of which every system holds many times as many
    # B4
    probes: int
    probe_rate: float = 50.0  # a second
    settling: float = 2.0  # load before the first probe
    # B5
    replayed: int
    lengths: tuple[int, ...]
    resumes: int  # first bytes that are timed, at each length
    # B6
    takeovers: int
    live: int  # sessions
    # B7
    idle: int  # sessions
    evicted: int  # sessions
    watching: int  # viewers
    # B8
    pushing: float  # time for each cell
    connections: tuple[int, ...]
    batches: tuple[int, ...]
    # B9
    grown_viewers: tuple[int, ...]
    event_sizes: tuple[int, ...]
    pacing: float = 2.0  # time for the viewers' delays
    # B10
    large: int  # messages, or blocks of one


FULL: Final = Sizes(
    name="full",
    rounds=5,
    written=400_000,
    sessions=(1, 100, 1000),
    burst=20_000,
    viewers=100,
    window=20.0,
    step=50,
    calm=100,
    most=3000,
    probes=1000,
    replayed=100_000,
    lengths=(1_000, 10_000, 100_000, 1_000_000),
    resumes=50,
    takeovers=200,
    live=1000,
    idle=10_000,
    evicted=100_000,
    watching=1000,
    pushing=4.0,
    connections=(1, 64),
    batches=(1, 50),
    grown_viewers=(1, 10, 100, 1000),
    event_sizes=(64, 512, 4096, 32_768),
    large=100_000,
)

QUICK: Final = Sizes(
    name="quick",
    rounds=2,
    written=20_000,
    sessions=(1, 100, 1000),
    burst=4_000,
    viewers=100,
    window=5.0,
    step=100,
    calm=50,
    most=1500,
    probes=250,
    replayed=20_000,
    lengths=(1_000, 10_000, 100_000),
    resumes=20,
    takeovers=50,
    live=200,
    idle=2_000,
    evicted=10_000,
    watching=200,
    pushing=1.0,
    connections=(1, 64),
    batches=(1, 50),
    grown_viewers=(1, 10, 100),
    event_sizes=(64, 512, 4096),
    large=10_000,
)

TINY: Final = Sizes(
    name="tiny",
    rounds=1,
    written=200,
    sessions=(1, 10),
    burst=100,
    viewers=3,
    window=0.4,
    step=2,
    calm=2,
    most=4,
    probes=10,
    settling=0.1,
    replayed=300,
    lengths=(30, 300),
    resumes=2,
    takeovers=2,
    live=3,
    idle=20,
    evicted=40,
    watching=3,
    pushing=0.2,
    connections=(1, 2),
    batches=(1, 5),
    grown_viewers=(1, 3),
    event_sizes=(64, 256),
    pacing=0.2,
    large=300,
)
