"""A session's messages as the turns that a model is shown. Pure: the same messages give the same turns.

What providers insist on holds for every transcript, whatever happened in the session:

- user and assistant take turns; the first and the last word is not the assistant's
- every tool call has a result, right behind the answer that made it; there is no result without a call, and none but
  from a message of role `tool`: of the generation that made the call, or of none, as those that were posted or forked
- ids and names of calls fit all providers, and no id names two calls

An answer that was cut short is shown with what it had, and a note in the user's next turn says what it is: in the
user's, because a model imitates what it finds in its own.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias, final

from attrs import define, field, frozen

from penstock.engine import JSON, BlockView, InvalidBody, JSONObject, MessageView, check_json, decode_json, encode_json

from .pieces import CARRIED

__all__ = [
    "AnswerTurn",
    "Attached",
    "Call",
    "Result",
    "ResultsTurn",
    "Said",
    "SystemTurn",
    "Thought",
    "Turn",
    "UserTurn",
    "parse_arguments",
    "transcript",
]

# By the reason that the message's end gives, else by its status.
_NOTES: Final[Mapping[str, str]] = {
    "superseded": "[The answer above was interrupted by the user and is incomplete.]",
    "stopped": "[The answer above was stopped by the user and is incomplete.]",
    "cancelled": "[The answer above was cut short and is incomplete.]",
    "failed": "[The answer above broke off because of an error and is incomplete.]",
}
_CUT_OFF: Final = "[The answer above was cut off at its token limit and is incomplete.]"
_NOTES_ON_COMPLETE: Final[Mapping[str, str]] = {
    "length": _CUT_OFF,
    "refusal": "[The answer above ended in a refusal.]",
    "content_filter": "[The answer above was cut off by a content filter and is incomplete.]",
}
_BEGINNING: Final = "[The conversation begins with the message below.]"
_GO_ON: Final = "[Go on.]"
_GO_ON_THERE: Final = "[Go on exactly where it ended, without repeating anything.]"
_NO_RESULT: Final = "No result: the call did not come to its end."

_CALL_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,40}")  # 40 is the least that a provider takes (chat completions)
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST_NAME: Final = 64


@final
@frozen
class Said:
    """Text of an answer."""

    text: str


@final
@frozen
class Thought:
    """Reasoning that the provider wants back together with the calls that it led to; ``value`` is the provider's."""

    text: str
    value: JSONObject


@final
@frozen
class Call:
    """A tool call. Arguments that are no JSON object stand under ``INVALID_JSON``."""

    call_id: str
    name: str
    arguments: JSONObject


@final
@frozen
class Result:
    call_id: str
    text: str
    is_error: bool = False

    @property
    def marked_text(self) -> str:
        """The text, for providers that have no field for an error."""
        return f"Error: {self.text}" if self.is_error else self.text


@final
@frozen(kw_only=True)
class Attached:
    """A picture (``image``) or a file that the user attached; ``content`` is there once it was read."""

    kind: str
    media_type: str | None = None
    filename: str | None = None
    file_id: str | None = None
    url: str | None = None
    content: bytes | None = None

    @property
    def name(self) -> str:
        return self.filename or self.url or f"of type {self.media_type or 'unknown'}"

    @property
    def base64(self) -> str:
        return b64encode(self.content or b"").decode()

    @property
    def address(self) -> str:
        """Where it stands: its own address, or one that is all of it."""
        return self.url or f"data:{self.media_type};base64,{self.base64}"


@final
@frozen
class UserTurn:
    text: str
    attached: tuple[Attached, ...] = ()


@final
@frozen
class SystemTurn:
    text: str


@final
@frozen
class AnswerTurn:
    parts: tuple[Said | Thought | Call, ...]


@final
@frozen
class ResultsTurn:
    """The results of the calls of the answer before it, in the order of the calls."""

    results: tuple[Result, ...]


Turn: TypeAlias = UserTurn | SystemTurn | AnswerTurn | ResultsTurn


def transcript(messages: Sequence[MessageView], generation_id: str | None = None) -> tuple[Turn, ...]:
    """The turns; none if nobody but the assistant ever said something.

    Messages that are still open are left out, and so is reasoning, but for what the tool loop of this generation
    needs.
    """
    turns = _Turns(generation_id)
    for message in messages:
        if message.status != "open":
            turns.add(message)
    return turns.finish()


def parse_arguments(text: str) -> JSONObject | None:
    """The arguments of a call; none at all is an empty object. None: they are no JSON object that can be stored."""
    if not text.strip():
        return {}
    try:
        value = check_json(decode_json(text.encode()), "arguments")
    except (InvalidBody, UnicodeEncodeError):
        return None
    return value if isinstance(value, dict) else None


@define
class _Answer:
    """An answer, with the results of its calls as they turn up."""

    parts: list[Said | Thought | Call] = field(factory=list)
    results: dict[str, Result] = field(factory=dict)

    @property
    def calls(self) -> list[Call]:
        return [part for part in self.parts if isinstance(part, Call)]

    def turns(self) -> Iterator[Turn]:
        yield AnswerTurn(tuple(self.parts))
        if self.calls:
            missing = {call.call_id: Result(call.call_id, _NO_RESULT, is_error=True) for call in self.calls}
            yield ResultsTurn(tuple((missing | self.results).values()))


@final
@frozen
class _Waiting:
    """A call without a result: the answer that it stands in, the id that the provider is shown, and who made it."""

    answer: _Answer
    call_id: str
    generation_id: str | None


@define
class _Turns:
    _generation_id: str | None
    _turns: list[UserTurn | SystemTurn | _Answer] = field(factory=list, init=False)
    _note: str | None = field(default=None, init=False)
    _waiting: dict[str, _Waiting] = field(factory=dict, init=False)  # by the call's id in the session
    _call_ids: set[str] = field(factory=set, init=False)

    def add(self, message: MessageView) -> None:
        if message.role == "assistant":
            self._add_answer(message)
        elif message.role != "tool":
            text = "\n\n".join(filter(None, (_said(block) or _named(block) for block in message.blocks)))
            attached = tuple(filter(None, map(_attached, message.blocks)))
            if text and message.role in ("system", "developer"):
                self._turns.append(SystemTurn(text))
            elif text or attached:
                self._add_user(text, attached)
        else:
            self._add_results(message)

    def _add_results(self, message: MessageView) -> None:
        for block in message.blocks:
            if block.kind != "tool_result" or block.tool_call_id is None:
                continue
            waiting = self._waiting.get(block.tool_call_id)
            if waiting is None or message.generation_id not in (None, waiting.generation_id):
                continue
            del self._waiting[block.tool_call_id]
            call_id = waiting.call_id
            waiting.answer.results[call_id] = Result(call_id, _result_text(block), block.is_error is True)

    def _add_user(self, text: str, attached: tuple[Attached, ...] = ()) -> None:
        if self._note is not None:
            text, self._note = f"{self._note}\n\n{text}" if text else self._note, None
        if self._turns and isinstance(last := self._turns[-1], UserTurn):
            both = "\n\n".join(filter(None, (last.text, text)))
            self._turns[-1] = UserTurn(both, last.attached + attached)
        else:
            self._turns.append(UserTurn(text, attached))

    def _add_answer(self, message: MessageView) -> None:
        parts: list[Said | Thought | Call] = []
        calls: dict[str, str] = {}
        thought = ""
        for block in message.blocks:
            if said := _said(block):
                parts.append(Said(said))
            elif block.kind == "reasoning":
                thought = block.text or ""
            elif block.kind == "data" and block.name == CARRIED and isinstance(block.value, Mapping):
                if self._generation_id is not None and message.generation_id == self._generation_id:
                    parts.append(Thought(thought, block.value))
                thought = ""
            elif block.kind == "tool_call" and block.tool_call_id is not None:
                arguments = _arguments(block, whole=message.status == "complete")
                if arguments is not None:
                    call_id = calls[block.tool_call_id] = self._fresh_id(block.tool_call_id)
                    parts.append(Call(call_id, _name(block), arguments))
        if not any(isinstance(part, Said | Call) for part in parts):
            return
        if self._note is not None:
            self._add_user("")
        answer = self._turns[-1] if self._turns else None
        if not isinstance(answer, _Answer) or answer.calls:
            answer = _Answer()
            self._turns.append(answer)
        answer.parts += parts
        self._waiting.update({told: _Waiting(answer, shown, message.generation_id) for told, shown in calls.items()})
        notes = _NOTES_ON_COMPLETE if message.status == "complete" else _NOTES
        self._note = notes.get(message.finish_reason or "") or notes.get(message.status)

    def _fresh_id(self, proposed: str) -> str:
        call_id, number = proposed, len(self._call_ids)
        while not _CALL_ID.fullmatch(call_id) or call_id in self._call_ids:
            call_id, number = f"call_{number}", number + 1
        self._call_ids.add(call_id)
        return call_id

    def finish(self) -> tuple[Turn, ...]:
        if not any(isinstance(turn, UserTurn) for turn in self._turns):
            return ()
        if self._note is not None:
            self._add_user(_GO_ON_THERE if self._note == _CUT_OFF else "")
        made = [turn for each in self._turns for turn in (each.turns() if isinstance(each, _Answer) else (each,))]
        # Some providers are told what the system says elsewhere, and not between the others.
        spoken = [at for at, turn in enumerate(made) if not isinstance(turn, SystemTurn)]
        if isinstance(made[spoken[-1]], AnswerTurn):
            made.append(UserTurn(_GO_ON))
        if isinstance(made[spoken[0]], AnswerTurn):
            made.insert(spoken[0], UserTurn(_BEGINNING))
        return tuple(made)


def _arguments(block: BlockView, *, whole: bool) -> JSONObject | None:
    """The call's arguments; None for a call whose arguments were cut off: it was never made."""
    given: JSON = block.arguments
    parsed = given if not isinstance(given, str) else parse_arguments(given)
    if parsed is None and given is None:
        return {}
    if isinstance(parsed, Mapping):
        return parsed
    return {"INVALID_JSON": given} if whole else None


def _name(block: BlockView) -> str:
    return _NOT_IN_NAMES.sub("_", block.name or "")[:_LONGEST_NAME] or "tool"


def _said(block: BlockView) -> str:
    """The block's text without the space around it, on which some providers insist; empty if it has none."""
    return (block.text or "").strip() if block.kind == "text" else ""


def _attached(block: BlockView) -> Attached | None:
    """What the block attaches: a picture, a file, or a source that is one."""
    if block.kind not in ("image", "file") and not (block.kind == "source" and block.file_id):
        return None
    return Attached(
        kind="image" if block.kind == "image" else "file",
        media_type=block.media_type,
        filename=block.filename or block.title,
        file_id=block.file_id,
        url=block.url,
    )


def _named(block: BlockView) -> str:
    """What a source says that stands elsewhere; empty of any other block."""
    if block.kind != "source" or block.url is None:
        return ""
    return f"[Source: {block.title} {block.url}]" if block.title else f"[Source: {block.url}]"


def _result_text(block: BlockView) -> str:
    if block.text is not None:
        return block.text
    value: JSON = block.value
    if isinstance(value, str):
        return value
    return "" if value is None else encode_json(value).decode()
