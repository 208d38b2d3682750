"""Chat completions: the dialect of OpenAI that most other servers speak, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, final

from attrs import define

from penstock.engine import JSON, JSONObject, encode_json

from .dialect import DRAWN, OPENAI, PDF, Dialect
from .failures import of_error
from .model import Offer, Request
from .pieces import CallArguments, CallOpened, Finished, Piece, Spent, Words
from .transcript import AnswerTurn, Attached, Call, ResultsTurn, Said, SystemTurn, Turn, UserTurn, parse_arguments
from .usage import tokens
from .wire import DONE, number, objects, parse, part, text

__all__ = ["CHAT", "ChatMeaning", "messages"]

# By what other servers say in place of OpenAI's words.
_REASONS: Final[Mapping[str, str]] = {
    "function_call": "tool_calls",
    "max_tokens": "length",
    "model_length": "length",
}


def _body(name: str, request: Request) -> JSONObject:
    made: dict[str, JSON] = {
        "model": name,
        "messages": messages(request.turns, request.system),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.tools:
        made["tools"] = [_tool(tool) for tool in request.tools]
    return made


def messages(turns: Sequence[Turn], system: str | None) -> list[JSONObject]:
    """The turns as this dialect has them."""
    made: list[JSONObject] = []
    if system:
        made.append({"role": "system", "content": system})
    for turn in turns:
        match turn:
            case SystemTurn(text):
                made.append({"role": "system", "content": text})
            case UserTurn(text, attached):
                made.append({"role": "user", "content": _content(text, attached)})
            case AnswerTurn(parts):
                text = "\n\n".join(part.text for part in parts if isinstance(part, Said))
                calls = [_call(part) for part in parts if isinstance(part, Call)]
                made.append({"role": "assistant", "content": text or None, **({"tool_calls": calls} if calls else {})})
            case ResultsTurn(results):
                made += [
                    {"role": "tool", "tool_call_id": result.call_id, "content": result.marked_text}
                    for result in results
                ]
    return made


def _content(text: str, attached: Sequence[Attached]) -> JSON:
    if not attached:
        return text
    return [*map(_attached, attached), *([{"type": "text", "text": text}] if text else ())]


def _attached(attached: Attached) -> JSONObject:
    if attached.kind == "image":
        return {"type": "image_url", "image_url": {"url": attached.address}}
    return {"type": "file", "file": {"filename": attached.filename or "file.pdf", "file_data": attached.address}}


def _shows(attached: Attached) -> bool:
    if attached.kind == "image":
        return attached.url is not None or attached.media_type in DRAWN
    return attached.file_id is not None and attached.media_type == PDF


def _call(call: Call) -> JSONObject:
    arguments = encode_json(call.arguments).decode()
    return {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _tool(tool: Offer) -> JSONObject:
    described: JSONObject = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": described}


@final
@define(eq=False)
class _Open:
    """A call that the model makes; the newest of its number. Itself the key of its pieces."""

    call_id: str
    name: str
    arguments: str = ""  # kept where there is no id

    def is_followed_by(self, call_id: str, name: str) -> bool:
        """Whether what comes under the same number begins another call: some servers give all of them one number.

        Then ids tell them apart, and where there are none, a name does that is another one or comes behind whole
        arguments.
        """
        if not name or call_id:
            return bool(name) and call_id != self.call_id
        return name != self.name or (self.arguments != "" and parse_arguments(self.arguments) is not None)


@final
class ChatMeaning:
    """Reads the chunks of one answer."""

    def __init__(self) -> None:
        self.over = self.last = False  # what it cost comes behind the answer's end, or does not come
        self._refused = False
        self._calls: dict[int, _Open] = {}

    def read(self, data: str, /) -> Sequence[Piece]:
        if data == DONE:
            self.last = self.over
            return ()
        chunk = parse(data)
        if chunk.get("error"):
            raise of_error(chunk)
        pieces: list[Piece] = []
        for choice in objects(chunk, "choices"):
            self._read_delta(part(choice, "delta"), pieces)
            reason = text(choice, "finish_reason")
            if reason:
                self.over = True
                pieces.append(Finished(self._reason(reason)))
        usage = part(chunk, "usage")
        if usage:
            pieces.append(Spent(_usage(usage)))
        return pieces

    def _read_delta(self, delta: JSONObject, pieces: list[Piece]) -> None:
        # OpenAI shows no reasoning here; others do, under the one name or the other.
        thought = text(delta, "reasoning_content") or text(delta, "reasoning")
        if thought:
            pieces.append(Words("reasoning", "reasoning", thought))
        said = text(delta, "content")
        if said:
            pieces.append(Words("text", "text", said))
        refusal = text(delta, "refusal")
        if refusal:
            self._refused = True
            pieces.append(Words("text", "refusal", refusal))
        for call in objects(delta, "tool_calls"):
            self._read_call(call, pieces)

    def _read_call(self, call: JSONObject, pieces: list[Piece]) -> None:
        index, call_id, function = number(call, "index"), text(call, "id"), part(call, "function")
        name, arguments = text(function, "name"), text(function, "arguments")
        known = self._calls.get(index)
        if known is None or known.is_followed_by(call_id, name):
            self._calls[index] = known = _Open(call_id, name)
            pieces.append(CallOpened(known, call_id, name))
        if arguments:
            pieces.append(CallArguments(known, arguments))
            if not known.call_id:
                known.arguments += arguments

    def _reason(self, told: str) -> str:
        if self._refused:
            return "refusal"
        return _REASONS.get(told, told)


def _usage(usage: JSONObject) -> JSONObject:
    return tokens(
        input_tokens=number(usage, "prompt_tokens"),
        output_tokens=number(usage, "completion_tokens"),
        cached_tokens=number(part(usage, "prompt_tokens_details"), "cached_tokens"),
        reasoning_tokens=number(part(usage, "completion_tokens_details"), "reasoning_tokens"),
    )


CHAT: Final = Dialect(provider=OPENAI, path="chat/completions", body=_body, meaning=ChatMeaning, shows=_shows)
