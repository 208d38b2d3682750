"""Whether a write may land: the compare in compare-and-append, the same for every log.

Owns the order of the checks and the refusals. Where a session stands, each log knows by itself.
"""

from __future__ import annotations

from typing import NamedTuple, final

from ..errors import IdInUse, PenstockError, StaleEpoch, StaleToken, WentBack
from ..rules.admission import TokenVerdict, admit_token
from .port import MOST, Append, Claim, Compact, Delete, Head, Keep, Move, Release, life_of

__all__ = ["Standing", "admit", "admit_compact", "life_over", "went_back"]


@final
class Standing(NamedTuple):
    """Where the newest life of a session stands; `Head` without the name."""

    epoch: str
    tail: int
    token: int
    deleted: bool = False
    owner: str = ""
    doubted: bool = False


def admit(standing: Standing | None, write: Move) -> Standing | PenstockError:
    """Where the session stands once ``write`` has landed, or why it must not land.

    The epoch is judged first, then the token, then the doubt, then the tail: a writer of a former life learns that the
    life is over, one that was overtaken learns that, and only the rightful one hears about its tail.
    """
    if not isinstance(write, Keep) and write.token >= MOST:
        return StaleToken("there are no such tokens", session_id=write.session_id)
    if isinstance(write, Append) and write.create:
        return _create(standing, write)
    if standing is None:
        return StaleEpoch("no such session: create it first", session_id=write.session_id)
    if isinstance(write, Delete) and write.forced:
        return Standing(write.epoch, 0, write.token, True)
    if standing.deleted or (not isinstance(write, Release) and standing.epoch != write.epoch):
        return life_over(write.session_id)
    if isinstance(write, Keep):
        return standing
    if isinstance(write, Claim):
        if write.seen != standing.token:
            return _overtaken(standing, write)
        if write.anew is None:
            return standing._replace(token=write.token, owner=write.owner)
        return standing._replace(epoch=write.anew, token=write.token, owner=write.owner, doubted=False)
    if admit_token(standing.token, write.token) is TokenVerdict.STALE:
        return _overtaken(standing, write)
    if isinstance(write, Release):
        if write.owner != standing.owner:
            return _overtaken(standing, write)
        return standing._replace(token=write.token, owner="")
    if not isinstance(write, Append):
        return Standing(standing.epoch, standing.tail, write.token, True)
    if standing.doubted:
        return WentBack("the store went back: the session needs a new epoch first", session_id=write.session_id)
    if write.expected_tail != standing.tail:
        return _wrong_tail(write, standing.tail)
    return Standing(standing.epoch, standing.tail + len(write.events), write.token, False, standing.owner)


def life_over(session_id: str) -> StaleEpoch:
    """What is asked of a life that has ended, or that never was."""
    return StaleEpoch("this life of the session is over", session_id=session_id)


def went_back(standing: Standing | Head, missed: Head) -> bool:
    """Whether a session that stands here cannot have stood at ``missed`` before, unless the store went back."""
    if standing.deleted or life_of(standing.epoch) != life_of(missed.epoch):
        return False
    return standing.token < missed.token or (standing.epoch == missed.epoch and standing.tail < missed.tail)


def admit_compact(standing: Standing | None, write: Compact) -> StaleEpoch | None:
    """Why ``write`` must not land, or None. Epoch and doubt count alone: it moves nothing that a writer stands on."""
    if standing is None:
        return StaleEpoch("no such session: create it first", session_id=write.session_id)
    if standing.deleted or standing.epoch != write.epoch:
        return life_over(write.session_id)
    if standing.doubted:  # what it was made of may be gone
        return StaleEpoch("the store went back: the session needs a new epoch first", session_id=write.session_id)
    return None


def _create(standing: Standing | None, write: Append) -> Standing | PenstockError:
    if standing is not None:
        if not standing.deleted:
            return IdInUse("a living session has this id", session_id=write.session_id)
        if standing.epoch == write.epoch:
            return StaleEpoch("a new life needs a new epoch", session_id=write.session_id)
        # The fence holds over lives: who was overtaken in the former one cannot begin the next.
        if admit_token(standing.token, write.token) is TokenVerdict.STALE:
            return _overtaken(standing, write)
    if write.expected_tail != 0:
        return _wrong_tail(write, 0)
    return Standing(write.epoch, len(write.events), write.token, False, write.owner)


def _overtaken(standing: Standing, write: Move) -> StaleToken:
    return StaleToken("the right to append has passed on", owner=standing.owner, session_id=write.session_id)


def _wrong_tail(write: Append, tail: int) -> StaleEpoch:
    return StaleEpoch(f"the log ends at {tail}, not at {write.expected_tail}", session_id=write.session_id)
