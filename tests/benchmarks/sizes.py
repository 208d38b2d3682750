"""How much is measured: the whole table, a quick look, or just enough to see that everything still runs."""

from __future__ import annotations

from typing import Final, final

from attrs import frozen

__all__ = ["FULL", "QUICK", "TINY", "Sizes"]


@final
@frozen(kw_only=True)
class Sizes:
    """Counts of events unless said otherwise; times in seconds. As they stand here, the whole table."""

    name: str = "full"
    rounds: int = 5
    text: int = 64  # characters of one event's text; the least that holds a stamp is 40
    # B1
    written: int = 400_000
    sessions: tuple[int, ...] = (1, 100, 1000)
    # B2
    burst: int = 20_000
    viewers: int = 100
    # B3
    window: float = 20.0
    step: int = 50  # sessions
    most: int = 3000  # sessions
    calm: int = 100  # sessions, of which every system holds many times as many
    # B4
    probes: int = 1000
    probe_rate: float = 50.0  # a second
    settling: float = 2.0  # load before the first probe
    # B5
    replayed: int = 100_000
    lengths: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    resumes: int = 50  # first bytes that are timed, at each length
    # B6
    takeovers: int = 200
    live: int = 1000  # sessions
    # B7
    idle: int = 10_000  # sessions
    evicted: int = 100_000  # sessions
    watching: int = 1000  # viewers
    # B8
    pushing: float = 4.0  # time for each cell
    connections: tuple[int, ...] = (1, 64)
    batches: tuple[int, ...] = (1, 50)
    # B9
    grown_viewers: tuple[int, ...] = (1, 10, 100, 1000)
    event_sizes: tuple[int, ...] = (64, 512, 4096, 32_768)
    pacing: float = 2.0  # time for the viewers' delays
    # B10
    large: int = 100_000  # messages, or blocks of one
    # B11
    listed: tuple[int, ...] = (100_000, 1_000_000)  # sessions; all is measured with the first, pages with each
    page: int = 100  # sessions
    pages: int = 200  # that are timed, of each kind
    changes: int = 60  # to the list, of which as many hear as watch in B7
    looks: int = 10  # of a browser
    # B12
    shared: int = 100_000  # written to a log that engines share
    shared_sessions: tuple[int, ...] = (1, 100)
    shared_load: int = 20  # sessions at a pace, of which one node holds several times as many
    forwards: int = 300  # commands, each way
    kills: int = 3


FULL: Final = Sizes()

QUICK: Final = Sizes(
    name="quick",
    rounds=2,
    written=20_000,
    burst=4_000,
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
    grown_viewers=(1, 10, 100),
    event_sizes=(64, 512, 4096),
    large=10_000,
    listed=(10_000, 100_000),
    page=50,
    pages=50,
    changes=20,
    looks=5,
    shared=20_000,
    shared_load=10,
    forwards=100,
    kills=2,
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
    listed=(2_000, 3_000),
    page=5,
    pages=3,
    changes=4,
    looks=1,
    shared=200,
    shared_sessions=(1, 4),
    shared_load=2,
    forwards=2,
    kills=1,
)
