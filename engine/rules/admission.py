"""Who may write, decided from numbers alone: the append token of a session, and a remote producer's sequence.

Owns the decisions. Where the numbers are kept and what a refusal looks like outside is the caller's.
"""

from __future__ import annotations

import enum
from typing import TypeAlias, final

from attrs import field, frozen
from attrs.validators import ge

__all__ = [
    "Accepted",
    "HoleInSequence",
    "ProducerMark",
    "ProducerVerdict",
    "Repeated",
    "StaleProducerEpoch",
    "TokenVerdict",
    "admit_producer",
    "admit_token",
]


class TokenVerdict(enum.Enum):
    ACCEPT = "accept"
    STALE = "stale"


def admit_token(current: int, offered: int) -> TokenVerdict:
    """An append needs the current token or a higher one, which then becomes current."""
    return TokenVerdict.STALE if offered < current else TokenVerdict.ACCEPT


@final
@frozen
class ProducerMark:
    """The last request that a producer got stored: its epoch, and its seq in there. Both from 0."""

    epoch: int = field(validator=ge(0))
    seq: int = field(validator=ge(0))


@final
@frozen
class Accepted:
    """The request is next. ``mark`` is to be stored with its data, and only then."""

    mark: ProducerMark


@final
@frozen
class Repeated:
    """The request was stored before: answer it as a success and write nothing."""


@final
@frozen
class StaleProducerEpoch:
    """A newer run of this producer, ``current``, has written since."""

    current: int


@final
@frozen
class HoleInSequence:
    """Requests are missing; ``expected`` is the one that must come next."""

    expected: int


ProducerVerdict: TypeAlias = Accepted | Repeated | StaleProducerEpoch | HoleInSequence


def admit_producer(last: ProducerMark | None, offered: ProducerMark) -> ProducerVerdict:
    """Judge a request by what is stored of its producer (None: nothing yet). A refused request consumes no number.

    Every epoch begins with seq 0.
    """
    if last is not None and offered.epoch < last.epoch:
        return StaleProducerEpoch(last.epoch)
    expected = last.seq + 1 if last is not None and offered.epoch == last.epoch else 0
    if offered.seq < expected:
        return Repeated()
    if offered.seq > expected:
        return HoleInSequence(expected)
    return Accepted(offered)
