"""What engines that share a log ask of each other, and what they answer: the port, and the bytes that go through it.

Owns what is told of a command, of its answer and of an error, so that the engine that asks has what it would have had
from itself.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, Final, cast, final

from .. import errors
from ..codec import converter, decode_json, encode_json, structure
from ..errors import InvalidBody, PenstockError
from ..events import JSON, Cursor, JSONObject
from ..results import ChunksAccepted, FileKept, Finished, Posted, Queued, QueueNext, Restored, Started, Stopped, Updated
from ..shapes import check_object
from .commands import (
    Command,
    DeleteSession,
    Dequeue,
    Give,
    KeepFile,
    Post,
    Reset,
    Restore,
    Resume,
    Retract,
    Start,
    Stop,
    Update,
)
from .producers import Producers
from .remote_commands import Chunks, Finish, Keep, WaitFenced

__all__ = ["COMMANDS", "Peers", "Unanswered", "read_answer", "read_command", "tell_answer", "tell_error"]


@final
class Unanswered(Exception):
    """No answer came. ``asked``: the engine may have got the question."""

    def __init__(self, detail: str, *, asked: bool) -> None:
        super().__init__(detail)
        self.asked = asked


class Peers(abc.ABC):
    """How an engine asks those it shares its log with. What is asked and answered is bytes, of the engines' own."""

    @abc.abstractmethod
    async def ask(self, owner: str, session_id: str, command: str, body: bytes) -> bytes:
        """What `Engine.carry_out` of the engine of that name gives for these three.

        Whatever comes back must be that engine's word. Bounded in time. Raises `Unanswered`, and `Moved` where it is
        known that this engine cannot be asked. Cancelling the caller loses the answer only.
        """


_ALL: Final[tuple[type[Command[Any]], ...]] = (
    Start,
    Stop,
    Resume,
    Dequeue,
    Post,
    Retract,
    Restore,
    Update,
    Reset,
    DeleteSession,
    Give,
    KeepFile,
    Chunks,
    Keep,
    Finish,
    WaitFenced,
)

COMMANDS: Final[Mapping[str, type[Command[Any]]]] = {each.name: each for each in _ALL}


def read_command(name: str, body: bytes, producers: Producers) -> Command[Any]:
    """The command that another engine made these bytes of. Raises `InvalidBody`, `ProducerNotFound`."""
    kind = COMMANDS.get(name)
    if kind is None:
        raise InvalidBody(f"this version knows no command {name!r:.80}")
    return kind.from_bytes(body, producers)


_ANSWERS: Final[Mapping[str, type]] = {
    kind.__name__: kind
    for kind in (
        ChunksAccepted,
        Cursor,
        FileKept,
        Finished,
        Posted,
        QueueNext,
        Queued,
        Restored,
        Started,
        Stopped,
        Updated,
        str,
    )
}

_ERROR: Final = "error"

_ERRORS: Final[Mapping[str, type[PenstockError]]] = {name: getattr(errors, name) for name in errors.__all__}


def tell_answer(answer: object) -> bytes:
    """What a command answered, for `read_answer` to read."""
    if answer is None:
        return encode_json({})
    if isinstance(answer, PenstockError):  # not raised: of `WaitFenced`
        return encode_json({"kind": _ERROR, "value": _error_to_json(answer)})
    return encode_json({"kind": type(answer).__name__, "value": cast("JSON", converter.unstructure(answer))})


def tell_error(error: BaseException) -> bytes:
    """The same for what a command raised."""
    return encode_json({"error": _error_to_json(error)})


def read_answer(body: bytes) -> object:
    """What the command came to. Raises the error that it came to, and `Unanswered` for what is no answer."""
    try:
        told = check_object(decode_json(body), "an answer")
        refusal = told.get("error")
        error = None if refusal is None else _error_from_json(refusal)
        answer: object = None
        if error is None and "kind" in told:
            kind, value = told["kind"], told["value"]
            answer = _error_from_json(value) if kind == _ERROR else structure(value, _ANSWERS[cast("str", kind)])
    except (InvalidBody, LookupError, TypeError) as unreadable:
        raise Unanswered(f"what came back is no answer: {unreadable}", asked=True) from unreadable
    if error is not None:
        raise error
    return answer


def _error_to_json(error: BaseException) -> JSONObject:
    """What is told of an error: its class, its text and what else it says. Of what is nobody's fault, only that."""
    if not isinstance(error, PenstockError):
        return {"class": "PenstockError", "detail": "the engine that has the session failed"}
    said = {name: value for name, value in vars(error).items() if isinstance(value, str | int | float | bool | None)}
    said["detail"] = error.detail.encode("utf-8", "backslashreplace").decode()
    name = type(error).__name__
    return {**cast("JSONObject", said), "class": name if _ERRORS.get(name) is type(error) else "PenstockError"}


def _error_from_json(value: object) -> PenstockError:
    """Raises `InvalidBody`, `LookupError`."""
    said = dict(check_object(value, "an error"))
    kind, detail = _ERRORS[cast("str", said.pop("class"))], said["detail"]
    if not isinstance(detail, str) or not issubclass(kind, PenstockError):
        raise InvalidBody("an error has a class and a detail")
    error = kind.__new__(kind)
    PenstockError.__init__(error, detail)
    vars(error).update(said)
    return error
