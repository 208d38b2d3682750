"""Background tasks beside a body, whose own errors come out as they were and not in a group."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

__all__ = ["open_tasks"]


@asynccontextmanager
async def open_tasks() -> AsyncIterator[trio.Nursery]:
    """A nursery whose tasks are cancelled when the block is left.

    An error of the block is raised behind the nursery, so that it is not wrapped in an `ExceptionGroup`; only an
    error of a task is, and tasks here raise none.
    """
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except BaseException as error:  # noqa: BLE001  # raised again two lines below, Cancelled too
            failure = error
        nursery.cancel_scope.cancel(reason="penstock: what they ran beside is over")
    if failure is not None:
        raise failure
