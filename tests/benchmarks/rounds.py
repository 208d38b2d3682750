"""A run: bench after bench, in each of them round after round, in each of these system after system in turn.

So what slows the machine down for a while is in the figures of all systems of a round. A system that cannot be had
is skipped with its reason; a measurement that fails leaves a note in place of a figure. A run that was broken off
goes on with the rounds that it has not: one that was not whole is made again.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.bench import Bench, Context, Incomplete
from tests.benchmarks.children import ChildFailed
from tests.benchmarks.measures.b1_writing import b1
from tests.benchmarks.measures.b2_fan_out import b2
from tests.benchmarks.measures.b3_paced import b3
from tests.benchmarks.measures.b4_latency import b4
from tests.benchmarks.measures.b5_replay import b5
from tests.benchmarks.measures.b6_takeover import b6
from tests.benchmarks.measures.b7_memory import b7
from tests.benchmarks.measures.b8_chunks import b8
from tests.benchmarks.measures.b9_growth import b9
from tests.benchmarks.measures.b10_holding import b10
from tests.benchmarks.measures.b11_list import b11
from tests.benchmarks.measures.b12_nodes import b12
from tests.benchmarks.peers.install import Peers, Unavailable
from tests.benchmarks.samples import Run
from tests.benchmarks.sizes import Sizes
from tests.benchmarks.systems.base import Late

__all__ = ["benches", "measure"]


def benches(peers: Peers) -> list[Bench]:
    numbered = [b1(peers), b2(peers), b3(peers), b4(peers), b5(peers), b6(), b7(peers), b8(peers), b9(), b10()]
    return [*numbered, b11(peers), b12()]


def measure(
    chosen: Sequence[Bench],
    run: Run,
    *,
    sizes: Sizes,
    peers: Peers,
    place: Path | None = None,
    systems: Iterable[str] | None = None,
    tell: Callable[[str], object] = lambda _: None,
    save: Callable[[], object] = lambda: None,
) -> None:
    """Add what is found to ``run``, but for rounds that it has. ``save`` is called behind each round.

    ``systems`` are those to measure, by default all; ``place`` a folder to work in.
    """
    wanted = None if systems is None else set(systems)
    with _folder(place) as root:
        keeping = root / "kept"
        keeping.mkdir()
        context = Context(root, keeping, sizes, peers, run)
        for bench in chosen:
            names = [name for name in bench.systems if wanted is None or name in wanted]
            for round_ in range(sizes.rounds):
                took = run.took.setdefault(bench.name, {})
                if round_ in took:
                    continue
                begun = time.monotonic()
                turn = round_ % max(1, len(names))
                for system in names[turn:] + names[:turn]:
                    if system not in run.skipped:
                        tell(f"{bench.name} round {round_ + 1} of {sizes.rounds}: {system}")
                        _measure(bench, system, round_, context)
                took[round_] = time.monotonic() - begun
                save()


def _measure(bench: Bench, system: str, round_: int, context: Context) -> None:
    """One measurement, in a folder of its own."""
    run = context.run
    with _folder(context.folder) as folder:
        try:
            run.add(bench.name, system, round_, bench.systems[system](context.within(folder)))
        except Unavailable as reason:
            run.skipped[system] = str(reason)
        except (Late, Incomplete, ChildFailed, OSError) as failed:
            run.notes.append(f"{bench.name} round {round_ + 1}: {system}: {failed}")


@contextmanager
def _folder(within: Path | None) -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="penstock-bench-", dir=within))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
