"""Every error the engine raises on purpose: one root, split by whose fault it is.

Owns the machine codes. What an HTTP status or a close code is, only the edge knows. Decide by class or by
``code``, never by the text: the text is for a person and says what to do next.
"""

from __future__ import annotations

from typing import ClassVar, final

__all__ = [
    "ApprovalNotFound",
    "CallerError",
    "CapacityError",
    "CorruptDatabase",
    "CorruptSession",
    "DatabaseError",
    "DatabaseInUse",
    "Draining",
    "FileNotFound",
    "FileTooLarge",
    "FinishFailed",
    "GapError",
    "GenerationActive",
    "GenerationMismatch",
    "GenerationNotFound",
    "IdInUse",
    "IdempotencyConflict",
    "InvalidBody",
    "InvalidCursor",
    "InvalidId",
    "MessageNotFound",
    "Moved",
    "NewerSchema",
    "Overloaded",
    "PenstockError",
    "ProducerError",
    "ProducerNotFound",
    "QueueFull",
    "RemoteError",
    "SequenceGap",
    "SessionDeleted",
    "SessionNotFound",
    "StaleEpoch",
    "StaleError",
    "StaleGeneration",
    "StaleProducer",
    "StaleToken",
    "StorageError",
    "StoreAway",
    "TimedOut",
    "TooManyStragglers",
    "UnwritableDatabase",
    "WentBack",
    "WriteFailed",
]


class PenstockError(Exception):
    """The root. ``code`` is stable, ``retryable`` says whether the same call may succeed later.

    The ids name what the error is about, as far as it was known where it was raised.
    """

    code: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        detail: str,
        *,
        session_id: str | None = None,
        generation_id: str | None = None,
        message_id: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.session_id = session_id
        self.generation_id = generation_id
        self.message_id = message_id


class CallerError(PenstockError):
    """The request is at fault; the same request will fail again."""


@final
class InvalidBody(CallerError):
    """A value has the wrong shape, or an event stands where the order of events does not allow it."""

    code = "INVALID_BODY"


@final
class InvalidCursor(CallerError):
    """The text is not a cursor."""

    code = "INVALID_CURSOR"


@final
class InvalidId(CallerError):
    """An id breaks its grammar."""

    code = "INVALID_ID"


@final
class SessionNotFound(CallerError):
    """No session has this id; create it first."""

    code = "SESSION_NOT_FOUND"


@final
class SessionDeleted(CallerError):
    """The session was deleted; creating it begins a new life."""

    code = "SESSION_DELETED"


@final
class GenerationNotFound(CallerError):
    """The session never saw this generation."""

    code = "GENERATION_NOT_FOUND"


@final
class MessageNotFound(CallerError):
    """The session holds no message with this id."""

    code = "MESSAGE_NOT_FOUND"


@final
class ProducerNotFound(CallerError):
    """No producer is registered under this name."""

    code = "PRODUCER_NOT_FOUND"


@final
class ApprovalNotFound(CallerError):
    """No such approval is open: it was resolved before, or never asked for."""

    code = "APPROVAL_NOT_FOUND"


@final
class FileNotFound(CallerError):
    """The session keeps no file with this id."""

    code = "NOT_FOUND"


@final
class FileTooLarge(CallerError):
    """The file, or all the files of its session, would have more bytes than may be."""

    code = "BODY_TOO_LARGE"


@final
class GenerationActive(CallerError):
    """The policy is ``reject`` and a generation is live."""

    code = "GENERATION_ACTIVE"


@final
class IdInUse(CallerError):
    """The proposed id already names something else in this session."""

    code = "ID_IN_USE"


@final
class IdempotencyConflict(CallerError):
    """The idempotency key was used before, for another request."""

    code = "IDEMPOTENCY_CONFLICT"


class StaleError(PenstockError):
    """The caller acts on a state that has passed."""


@final
class StaleGeneration(StaleError):
    """The generation is fenced or has ended; nothing more can be written under it."""

    code = "STALE_GENERATION"


@final
class GenerationMismatch(StaleError):
    """Another generation is live, or the message belongs to another one."""

    code = "GENERATION_MISMATCH"


@final
class StaleProducer(StaleError):
    """A newer run of this producer has written since; ``epoch`` is its."""

    code = "STALE_PRODUCER"

    def __init__(self, detail: str, *, epoch: int, session_id: str | None = None) -> None:
        super().__init__(detail, session_id=session_id)
        self.epoch = epoch


@final
class SequenceGap(StaleError):
    """A number was skipped; ``expected`` is the one that must come next."""

    code = "SEQUENCE_GAP"

    def __init__(self, detail: str, *, expected: int, session_id: str | None = None) -> None:
        super().__init__(detail, session_id=session_id)
        self.expected = expected


@final
class StaleToken(StaleError):
    """The append token was overtaken: somebody else has the right to append to this session.

    ``owner`` names who, as far as the log knows: empty for nobody.
    """

    code = "STALE_GENERATION"

    def __init__(self, detail: str, *, owner: str = "", session_id: str | None = None) -> None:
        super().__init__(detail, session_id=session_id)
        self.owner = owner


@final
class Moved(StaleError):
    """Another engine of this log has the session, or has taken it over: ask that one, or try again.

    ``owner`` is its name. Nothing was written of what was asked for.
    """

    code = "SESSION_MOVED"
    retryable = True

    def __init__(self, detail: str, *, owner: str = "", session_id: str | None = None) -> None:
        super().__init__(detail, session_id=session_id)
        self.owner = owner


@final
class WentBack(StaleError):
    """The store has lost what it had acknowledged, so nothing is appended to this session until it has a new epoch.

    Nothing was written of what was asked for. Events of it may be gone that readers have seen.
    """

    code = "SESSION_MOVED"
    retryable = True


@final
class StaleEpoch(StaleError):
    """This life of the session's log is over, or the tail is not where the writer believed it."""

    code = "STALE_GENERATION"


@final
class GapError(StaleError):
    """What the cursor asked for cannot be given; iteration goes on after ``resumed_at`` (a cursor's text)."""

    code = "INVALID_CURSOR"

    def __init__(self, detail: str, *, asked: str, resumed_at: str, session_id: str | None = None) -> None:
        super().__init__(detail, session_id=session_id)
        self.asked = asked
        self.resumed_at = resumed_at


class CapacityError(PenstockError):
    """A bound was reached; the same request may succeed later. ``retry_after`` is in seconds."""

    retryable = True
    retry_after: float = 1.0


@final
class QueueFull(CapacityError):
    """As many generations or inputs wait as may."""

    code = "QUEUE_FULL"


@final
class TooManyStragglers(CapacityError):
    """Too many clean-ups of this session overran and are still running."""

    code = "TOO_MANY_STRAGGLERS"


@final
class Draining(CapacityError):
    """The engine is shutting down."""

    code = "DRAINING"


@final
class Overloaded(CapacityError):
    """Too many steps wait on this session, or too many sessions are open."""

    code = "OVERLOADED"


@final
class TimedOut(CapacityError):
    """A wait reached its deadline; what was waited for may still happen."""

    code = "TIMEOUT"


class StorageError(PenstockError):
    """The log could not do its part."""


@final
class StoreAway(StorageError):
    """The store that the log lies in has not answered for longer than its patience. Nothing was read."""

    code = "STORE_AWAY"
    retryable = True


@final
class WriteFailed(StorageError):
    """Nothing of this was stored. ``whole`` tells that nothing at all can be stored now, for any session."""

    code = "WRITE_FAILED"
    retryable = True

    def __init__(self, detail: str, *, whole: bool = False, session_id: str | None = None) -> None:
        super().__init__(detail, session_id=session_id)
        self.whole = whole


@final
class FinishFailed(StorageError):
    """Something that the generation wrote, or its end, could not be stored: what readers see is not all of it."""

    code = "FINISH_FAILED"
    retryable = True


@final
class CorruptSession(StorageError):
    """What is stored of this one session cannot be read: it is set aside, and the others go on.

    Deleting it works, and then creating it begins a new life. ``penstock inspect`` tells what is wrong.
    """

    code = "CORRUPT_SESSION"


class DatabaseError(StorageError):
    """The log cannot be opened; the text names the file or the store, and what to do."""


@final
class NewerSchema(DatabaseError):
    """A newer penstock wrote this database, or store."""


@final
class CorruptDatabase(DatabaseError):
    """The file is no database of penstock's, or is damaged."""


@final
class DatabaseInUse(DatabaseError):
    """Another process has this database open."""


@final
class UnwritableDatabase(DatabaseError):
    """The file, its folder or its disk does not take writes; or the store does not, or may lose some."""


class RemoteError(PenstockError):
    """The other side of a connection, or a producer, is at fault."""


@final
class ProducerError(RemoteError):
    """Raise it in a producer to end the generation as ``failed`` with a code and a text that readers may see.

    Any other exception ends it with ``PRODUCER_FAILED`` and a text that says nothing of the inside. Both are text that
    can be stored: making one of anything else, or of half a surrogate pair, raises `InvalidBody`. ``again`` tells
    readers whether the same may go well when it is started again; None says nothing of that.
    """

    code = "PRODUCER_FAILED"
    again: bool | None = None

    def __init__(self, detail: str, *, reason: str = "PRODUCER_FAILED", again: bool | None = None) -> None:
        super().__init__(_storable(detail, "detail"))
        self.reason = _storable(reason, "reason")
        if again is not None and type(again) is not bool:
            raise InvalidBody(f"again of a ProducerError is a bool, not {type(again).__name__}")
        self.again = again


def _storable(text: object, what: str) -> str:
    if not isinstance(text, str):
        raise InvalidBody(f"{what} of a ProducerError is text, not {type(text).__name__}: give str() of it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidBody(f"{what} of a ProducerError holds half of a surrogate pair, which cannot be stored") from None
    return str.__str__(text)  # a subclass is stored as what it says
