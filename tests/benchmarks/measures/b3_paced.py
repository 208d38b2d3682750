"""B3: the largest number of sessions, each with its own pace and viewer, whose events all come in time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.bench import Bench, Context, Measuring
from tests.benchmarks.children import ChildFailed
from tests.benchmarks.measures.reading import MILLI, calm, paced
from tests.benchmarks.peers.install import Peers
from tests.benchmarks.samples import Cell
from tests.benchmarks.systems.base import Late, Open
from tests.benchmarks.systems.peers import uvicorn
from tests.benchmarks.systems.penstock import open_penstock
from tests.benchmarks.viewers import Viewed

__all__ = ["RATE", "b3", "largest"]

RATE = 30.0  # events a second and session
_IN_TIME = 0.25  # seconds, for 99 of 100

# Where the search begins in the first round, in steps.
_GUESS = 8

# How many times the usual a system may take to start so many sources; then it does not hold them.
_PATIENCE = (1.0, 3.0)


def largest(holds: Callable[[int], bool], guess: int, most: int) -> int:
    """The largest number that holds, from 0 to ``most``, if those that hold are all below those that do not."""
    low, high = 0, most + 1  # low holds, high does not
    reach, number = 1, max(1, min(guess, most))
    while high - low > 1:
        if holds(number):
            low = number
        else:
            high = number
        if low == 0:
            number = max(1, high - reach)
        elif high == most + 1:
            number = min(most, low + reach)
        else:
            number = (low + high) // 2
        reach *= 2
    return low


def _search(system: str, opened: Open) -> Measuring:
    def measure(context: Context) -> dict[str, float]:
        sizes = context.sizes
        held: dict[int, Viewed] = {}

        def holds(steps: int) -> bool:
            for patience in _PATIENCE:
                try:
                    viewed = window(steps * sizes.step, patience)
                except Late:
                    continue
                except ChildFailed as failed:
                    context.run.notes.append(f"B3: {system} does not hold {steps * sizes.step}: {failed}")
                    return False
                if viewed.received == viewed.expected and not viewed.extra and viewed.delays.p99 <= _IN_TIME:
                    held[steps] = viewed
                    return True
                return False
            return False

        def window(sessions: int, patience: float) -> Viewed:
            """From a fresh start."""
            with tempfile.TemporaryDirectory(dir=context.folder) as fresh, opened(Path(fresh)) as server:
                names = [f"paced-{number}" for number in range(sessions)]
                count = round(RATE * sizes.window)
                return paced(context.within(Path(fresh)), server, names, rate=RATE, count=count, patience=patience)

        before = context.run.spread(Cell("B3", system, "sessions"))
        guess = _GUESS if before is None else round(before.median / sizes.step)
        most = largest(holds, guess, sizes.most // sizes.step)
        found = {"sessions": float(most * sizes.step)}
        if most in held:
            found["p99_ms"] = held[most].delays.p99 * MILLI
            found["source_late_p99_ms"] = held[most].lateness.p99 * MILLI
            found["client_cores"] = held[most].cpu
        with tempfile.TemporaryDirectory(dir=context.folder) as fresh, opened(Path(fresh)) as server:
            names = [f"calm-{number}" for number in range(sizes.calm)]
            return found | calm(context, server, names, rate=RATE, count=round(RATE * sizes.window))

    return measure


def b3(peers: Peers) -> Bench:
    opened: dict[str, Open] = {
        "penstock": open_penstock,
        "sse-starlette": uvicorn(peers, "sse-starlette"),
    }
    title = f"Sessions of {RATE:.0f} events a second held, 99 of 100 events within {_IN_TIME * MILLI:.0f} ms"
    return Bench("B3", title, {system: _search(system, open_) for system, open_ in opened.items()})
