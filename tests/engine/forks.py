"""Child processes by a bare fork, for what only a process of its own can show: another user, a sudden death."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable


def forked(work: Callable[[], None]) -> int:
    """The process id of a child that does ``work`` and ends, with 0 when nothing was raised."""
    with warnings.catch_warnings():
        # From 3.12 on: a fork of a process with threads. What is done here needs none of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def wait_for(child: int) -> int:
    """The exit code of a child; negative when it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
