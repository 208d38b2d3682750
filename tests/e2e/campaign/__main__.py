"""``python -m tests.e2e.campaign``: see the package."""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
from pathlib import Path

import trio

from tests import checkout

from . import __doc__ as about
from .run import Campaign, Plan


def main() -> int:
    """The exit code: 0 where all that was promised is so."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.e2e.campaign", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--nodes", type=int, default=3, choices=range(1, 10))
    parser.add_argument("--conversations", type=int, default=4, help="that go on at a time")
    parser.add_argument("--lease-ttl", type=float, default=3.0, help="seconds")
    parser.add_argument("--growth", type=float, default=1.25, help="of memory, from the third minute to the last")
    parser.add_argument("--faults", default="all", choices=["all", "none", "rolling"], help="rolling: restarts in turn")
    parser.add_argument("--keep", type=Path, help="a folder that takes the store and all logs, and is left")
    given = parser.parse_args()

    def say(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    say(f"seed {given.seed}")
    with tempfile.TemporaryDirectory(prefix="penstock-campaign-") as made:
        folder = Path(made) if given.keep is None else given.keep
        folder.mkdir(exist_ok=True)
        plan = Plan(
            folder=folder,
            seed=given.seed,
            minutes=given.minutes,
            nodes=given.nodes,
            conversations=given.conversations,
            ttl=given.lease_ttl,
            growth=given.growth,
            faults=given.faults,
        )
        campaign = Campaign(plan, say)
        trio.run(campaign.run)
    for line in campaign.verdict():
        say(line)
    return 1 if campaign.faults else 0


if __name__ == "__main__":
    checkout.pass_on()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was started is ended
    code = main()
    sys.stdout.flush()
    os._exit(code)  # readers of a server's output may still wait in threads
