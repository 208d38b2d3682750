"""Whose trouble it is: what a task raised is its own, unless it was cancelled from outside or the process is to end.

Owns that line, and how an engine starts its tasks: behind a supervisor, so that none takes the others with it. A task's
own trouble is whatever it raised, also what is no `Exception`: another library's `CancelledError`, a panic of an
extension module, a `trio.Cancelled` of a scope that is gone, groups of them.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, TypeAlias, TypeVar, final

import trio
from attrs import frozen

__all__ = ["EXITS", "Exit", "Raised", "Supervisor", "both", "find_exit", "own_failure", "protected", "split", "without"]

logger = logging.getLogger("penstock.engine")

C = TypeVar("C")

# What ends the process: it is nobody's own trouble, and must come out as it is.
Exit: TypeAlias = KeyboardInterrupt | SystemExit
EXITS: Final = (KeyboardInterrupt, SystemExit)


@final
@frozen(kw_only=True)
class Raised:
    """The parts of what a task raised: its own, and what it only passed on."""

    own: BaseException | None
    exit: Exit | None
    cancelled: trio.Cancelled | None


def split(error: BaseException) -> Raised:
    """Take apart what was raised; to be called where it is caught, outside of the scope whose trouble is meant.

    A `trio.Cancelled` is from outside only while the scopes around here are cancelled; else its scope is gone.
    """
    cancelled_here = trio.current_effective_deadline() == -math.inf
    own: list[BaseException] = []
    exit_: Exit | None = None
    cancelled: trio.Cancelled | None = None
    for leaf in _leaves(error):
        if isinstance(leaf, EXITS):
            exit_ = exit_ or leaf
        elif isinstance(leaf, trio.Cancelled) and cancelled_here:
            cancelled = cancelled or leaf
        else:
            own.append(leaf)
    whole = exit_ is None and cancelled is None
    return Raised(own=error if whole else _joined(error, own), exit=exit_, cancelled=cancelled)


def own_failure(error: BaseException) -> BaseException:
    """``error``, if it is the task's own. Raises what is not; what was its own beside that is logged."""
    raised = split(error)
    passed_on = raised.exit or raised.cancelled
    if passed_on is None:
        return error
    if raised.own is not None:
        logger.error("beside %r", passed_on, exc_info=raised.own)
    raise passed_on


def find_exit(error: BaseException) -> Exit | None:
    """The first that ends the process, in a group or alone."""
    return next((leaf for leaf in _leaves(error) if isinstance(leaf, EXITS)), None)


def without(error: BaseException, kinds: tuple[type[BaseException], ...]) -> BaseException | None:
    """What is left of it besides these kinds."""
    kept = [leaf for leaf in _leaves(error) if not isinstance(leaf, kinds)]
    return error if len(kept) == sum(1 for _ in _leaves(error)) else _joined(error, kept)


def both(raised: BaseException | None, closing: BaseException | None) -> BaseException | None:
    """What comes out of the block: one error as it is, two in a group, as out of a nursery."""
    while isinstance(closing, BaseExceptionGroup) and len(closing.exceptions) == 1:
        closing = closing.exceptions[0]
    if raised is None or closing is None:
        return closing if raised is None else raised
    if isinstance(raised, trio.Cancelled) and isinstance(closing, trio.Cancelled):
        return raised
    return BaseExceptionGroup(
        "an engine's block was left by one error, and its closing raised another", [raised, closing]
    )


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """What is in it that is no group, however deep."""
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, BaseExceptionGroup):
            waiting[:0] = one.exceptions
        else:
            yield one


def _joined(group: BaseException, leaves: Sequence[BaseException]) -> BaseException | None:
    """Some leaves of a group. A plain group of them: a class of the producer's own may not let itself be made."""
    if not leaves:
        return None
    return BaseExceptionGroup(str(getattr(group, "message", group)), leaves)


def protected(cls: type[C]) -> type[C]:
    """Have no Ctrl-C strike inside a method of this class: it comes out of the main task's next wait instead.

    For what applications and producers come into the engine by; their own code can be interrupted anywhere.
    """
    for member in vars(cls).values():
        function = member.fget if isinstance(member, property) else member
        if inspect.isfunction(function):
            trio.lowlevel.enable_ki_protection(inspect.unwrap(function))
    return cls


@final
class Supervisor:
    """Starts the tasks of one engine. ``on_exit`` is told when one of them raises what ends the process."""

    def __init__(self, on_exit: Callable[[Exit], None]) -> None:
        self._on_exit: Final = on_exit

    def start(self, nursery: trio.Nursery, work: Callable[[], Awaitable[object]], name: str) -> None:
        """Run ``work`` in a task of its own. What it raises is logged; only a cancellation from outside passes."""
        nursery.start_soon(self._run, work, name, name=name)

    # A Ctrl-C does not strike in the engine's own code: it comes out of the main task's next wait.
    @trio.lowlevel.enable_ki_protection
    async def _run(self, work: Callable[[], Awaitable[object]], name: str) -> None:
        try:
            await work()
        except BaseException as error:  # noqa: BLE001  all of it is told, and what is from outside is raised again
            self.settle(error, name)

    def call(self, work: Callable[[], object], name: str) -> None:
        """The same for what does not wait."""
        try:
            work()
        except BaseException as error:  # noqa: BLE001  as above
            self.settle(error, name)

    def settle(self, error: BaseException, name: str) -> None:
        """What ``name`` raised is told to whom it concerns. Raises `trio.Cancelled`, if it is from outside."""
        raised = split(error)
        if raised.own is not None:
            logger.error("%s failed", name, exc_info=raised.own)
        if raised.exit is not None:
            self._on_exit(raised.exit)
        if raised.cancelled is not None:
            raise raised.cancelled
