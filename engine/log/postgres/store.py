"""The connections to a Postgres: what it answers, with patience through its restarts.

Owns when a call is made again, and when the store counts as away. A call may be carried out twice: reads do no harm,
and rounds have numbers (`writing`). Calls block, so they run in threads; each is a transaction of its own.
"""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar, final

import psycopg
import trio
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.waiting import Ready

from ..absence import Absence
from .address import Address

__all__ = ["Link", "Store", "connect"]

logger = logging.getLogger("penstock.log")

_T = TypeVar("_T")

# Whose connection cannot even be made within this is away: seconds.
_CONNECT: Final = 2

# How many reads there are at a time.
_READERS: Final = 4

# For another node's lock a write waits no longer: seconds. It has one only while a round of its own is carried out.
_LOCK: Final = 2

# Of a store that is away, by the beginning of the SQLSTATE: it restarts, or has no connection left. Without any code it
# is the connection that failed.
_PASSING: Final = ("08", "57P", "53300")

# And what the server says while it is there.
_REFUSALS: Final = {
    "25006": "it takes no writes",
    "40P01": "somebody holds its locks",
    "55P03": "somebody holds its locks",
    "57014": "it is too slow",
    "53100": "its disk is full",
    "53200": "its memory is full",
    "58030": "it cannot use its disk",
}


class Link(psycopg.Connection[tuple[Any, ...]]):
    """A connection on which an answer that takes longer than ``within`` seconds is given up, and the connection too."""

    within = 5.0

    def wait(self, gen: Any, *_: Any, **__: Any) -> Any:
        deadline = time.monotonic() + self.within
        try:
            wanted = next(gen)
            poll = select.poll()
            poll.register(self.fileno())
            while True:
                # A `Wait` has the bits of a `Ready`: 1 to read, 2 to write.
                poll.modify(self.fileno(), (wanted & 1 and select.POLLIN) | (wanted & 2 and select.POLLOUT))
                ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
                if not ready:
                    raise psycopg.OperationalError(f"no answer for {self.within:g} s")
                seen = ready[0][1]
                can_write = seen & select.POLLOUT and 2
                can_read = seen & ~select.POLLOUT and 1  # or it has ended, which reading tells
                wanted = gen.send(Ready(can_read | can_write))
        except StopIteration as over:
            return over.value


def connect(address: Address, within: float) -> Link:
    """A new connection, set up. Blocks. Raises `psycopg.Error`."""
    given = {
        "connect_timeout": str(_CONNECT),
        "application_name": "penstock",
        # A dead peer is found by these; one that only hangs, by `Link.within`.
        "keepalives_idle": "5",
        "keepalives_interval": "2",
        "keepalives_count": "3",
        **address.settings,
    }
    link = Link.connect(make_conninfo("", **given), autocommit=True)
    link.within = within
    settings = {
        "search_path": address.schema,
        "client_encoding": "UTF8",
        "default_transaction_isolation": "read committed",
        "lock_timeout": f"{_LOCK}s",
        "statement_timeout": f"{within * 1000:.0f}ms",
        # All statements are made for the indexes, whatever is known of the tables.
        "enable_seqscan": "off",
        "enable_bitmapscan": "off",
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
        "jit": "off",
    }
    try:
        for name, value in settings.items():
            link.execute("SELECT set_config(%s, %s, false)", (name, value))
    except BaseException:
        link.close()
        raise
    return link


@final
class Store:
    """Makes calls. ``patience`` is how long the store may be away, or refuse a call, before that fails: seconds.

    ``on_back`` is called when it has been away and answers.
    """

    def __init__(self, address: Address, patience: float, within: float) -> None:
        self._address = address
        self._absence = Absence(patience)
        self._within = within
        self._idle: list[Link] = []
        self._reading = trio.CapacityLimiter(_READERS)
        self._writing = trio.CapacityLimiter(1)
        self._refused: str | None = None
        self.on_back: Callable[[], None] = lambda: None

    @property
    def trouble(self) -> str | None:
        """Why calls wait or fail at present, fit for anyone's eyes."""
        return self._absence.said or (self._refused and f"the store refuses what it is asked: {self._refused}")

    async def write(self, work: Callable[[Link], _T]) -> _T:
        """As `read`, for the one that writes. Not to be cancelled."""
        answer = await self._call(work, self._writing)
        self._refused = None
        return answer

    async def read(self, work: Callable[[Link], _T]) -> _T:
        """What ``work`` returns, in a thread, with a connection. It may be done again.

        Raises `StorageError` when the store is away or in trouble for longer than its patience; from then on a call is
        tried once. What the store says against the call itself comes out as it is, a `psycopg.Error`.
        """
        return await self._call(work, self._reading)

    async def _call(self, work: Callable[[Link], _T], limiter: trio.CapacityLimiter) -> _T:
        begun = trio.current_time()
        while True:
            try:
                answer = await trio.to_thread.run_sync(
                    self._with_link, work, limiter=limiter, abandon_on_cancel=limiter is self._reading
                )
            except psycopg.Error as error:
                self._failed(error)
                await self._absence.pause(begun, error, self.trouble or f"the store failed: {error}")
            else:
                self._answered()
                return answer

    def _with_link(self, work: Callable[[Link], _T]) -> _T:
        try:
            link = self._idle.pop()
        except IndexError:
            link = connect(self._address, self._within)
        try:
            return work(link)
        finally:
            if link.info.transaction_status == TransactionStatus.IDLE:
                self._idle.append(link)
            else:
                link.close()

    async def watch(self) -> None:
        """Ask the store whether it is there while nobody else asks it anything, for as long as it is open."""
        while True:
            await self._absence.pause_watch()
            try:
                await trio.to_thread.run_sync(self._with_link, _ping, limiter=self._reading, abandon_on_cancel=True)
            except psycopg.Error as error:
                self._gone(error)
            else:
                self._answered()

    async def aclose(self) -> None:
        """Close the connections, once nobody uses them."""
        for limiter in (self._reading, self._writing):
            askers = [object() for _ in range(int(limiter.total_tokens))]
            for asker in askers:
                await limiter.acquire_on_behalf_of(asker)
            for asker in askers:
                limiter.release_on_behalf_of(asker)
        self._drop()

    def _failed(self, error: psycopg.Error) -> None:
        """Raises what does not pass by itself."""
        code = error.sqlstate or ""
        lost = not code and isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
        if lost or code.startswith(_PASSING):
            self._gone(error)
        elif code in _REFUSALS:
            if self._refused is None:
                logger.warning("the store refuses what it is asked: %s", error)
            self._refused = _REFUSALS[code]
            self._drop()  # another may be the primary by now
        else:
            raise error

    def _gone(self, error: psycopg.Error) -> None:
        self._absence.begin(str(error))
        self._drop()  # those that are idle have gone with it

    def _drop(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _answered(self) -> None:
        if self._absence.end():
            self.on_back()


def _ping(link: Link) -> None:
    link.execute("SELECT")
