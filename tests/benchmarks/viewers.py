"""The load client that reads, as a process: `penstock.adapters.cli.bench.viewing` behind two pipes.

It takes its orders as JSON, says ``ready`` when every connection follows its stream, and then prints what came.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from penstock.adapters.cli.bench.viewing import Delays, Viewed, Viewer, view
from penstock.engine import JSONObject
from tests.benchmarks.children import Child, python

__all__ = ["watch"]

# For the process itself, before it connects and behind its last read.
_START = 30.0


def watch(
    folder: Path,
    address: tuple[str, int],
    viewers: Sequence[Viewer],
    *,
    seconds: float,
    stamps: bool,
    on_ready: Callable[[], object] = lambda: None,
) -> Viewed:
    """As `penstock.adapters.cli.bench.viewing.view`, in a process of its own."""
    spec = {
        "address": list(address),
        "seconds": seconds,
        "stamps": stamps,
        "viewers": [
            {
                "sends": [s.decode("latin-1") for s in v.sends],
                "expected": v.expected,
                "ready": v.ready.decode("latin-1"),
            }
            for v in viewers
        ],
    }
    with Child(python("tests.benchmarks.viewers"), folder, "viewers") as child:
        child.tell(json.dumps(spec))
        child.line(seconds + _START)
        on_ready()
        found = child.answer(seconds + _START)
    return _viewed(found)


def _viewed(found: JSONObject) -> Viewed:
    made: dict[str, object] = dict(found)
    for name in ("delays", "transits", "lateness"):
        made[name] = Delays(**made[name])  # type: ignore[arg-type]  # it is what `main` has printed
    return Viewed(**made)  # type: ignore[arg-type]  # as above


def main() -> None:
    gc.disable()  # a collection of all that was received stops it for 30 ms, which would be the server's delay
    spec = json.load(sys.stdin)
    viewers = [
        Viewer(
            sends=tuple(s.encode("latin-1") for s in v["sends"]),
            expected=v["expected"],
            ready=v["ready"].encode("latin-1"),
        )
        for v in spec["viewers"]
    ]
    viewed = view(
        (spec["address"][0], spec["address"][1]),
        viewers,
        seconds=spec["seconds"],
        stamps=spec["stamps"],
        on_ready=lambda: print("ready", flush=True),  # noqa: T201  the pipe to the harness
    )
    print(json.dumps(attrs.asdict(viewed)), flush=True)  # noqa: T201  as above


if __name__ == "__main__":
    main()
