"""Changes to a structure that can be taken back: what lets several be tried of which all count or none.

Owns how each kind of change is undone. What a trial costs is what is changed in it, not what the structure holds.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import TypeVar, final

__all__ = ["Changes"]

_K = TypeVar("_K")
_V = TypeVar("_V")


@final
class Changes:
    """Makes the changes to one structure; inside `trial` it knows how to take them back."""

    __slots__ = ("_undo",)

    def __init__(self) -> None:
        self._undo: list[Callable[[], object]] | None = None  # the first change first; None outside a trial

    def trial(self) -> AbstractContextManager[None]:
        """What is changed inside stays when the block ends, and leaves no trace when the block raises.

        Not to be nested, and not to be held across a wait.
        """
        return self

    def __enter__(self) -> None:
        assert self._undo is None
        self._undo = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        undo, self._undo = self._undo, None
        if error is not None and undo:
            for take_back in reversed(undo):
                take_back()

    def set(self, held_by: object, name: str, value: object) -> None:
        """Set an attribute."""
        if self._undo is not None:
            self._undo.append(partial(setattr, held_by, name, getattr(held_by, name)))
        setattr(held_by, name, value)

    def put(self, into: dict[_K, _V], key: _K, value: _V) -> None:
        """Set an item."""
        if self._undo is not None:
            self._undo.append(partial(into.__setitem__, key, into[key]) if key in into else partial(into.pop, key))
        into[key] = value

    def drop(self, out_of: dict[_K, _V], key: _K) -> None:
        """Remove an item. Taken back, it is the last: nothing may stand on the order of what is dropped from."""
        value = out_of.pop(key)
        if self._undo is not None:
            self._undo.append(partial(out_of.__setitem__, key, value))

    def append(self, to: list[_V], value: _V) -> None:
        to.append(value)
        if self._undo is not None:
            self._undo.append(to.pop)
