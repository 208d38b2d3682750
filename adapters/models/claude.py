"""Messages: Anthropic's dialect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, final

from penstock.engine import JSON, JSONObject, encode_json

from .dialect import ANTHROPIC, DRAWN, PDF, Dialect
from .failures import of_error
from .model import Offer, Request
from .pieces import CallArguments, CallOpened, Carried, Closed, Finished, Piece, Spent, Words
from .transcript import AnswerTurn, Attached, Call, Result, ResultsTurn, Said, SystemTurn, Thought, Turn, UserTurn
from .usage import tokens
from .wire import number, parse, part, text

__all__ = ["CLAUDE", "ClaudeMeaning", "messages"]

_DIALECT: Final = "anthropic"

# The provider wants a limit in every request. This one fits every model that is on offer; `options` may raise it.
_MAX_TOKENS: Final = 8192

# Bytes: 5 MiB of base64, which is what the provider counts.
_LARGEST_IMAGE: Final = 5 * 1024 * 1024 * 3 // 4

_REASONS: Final[Mapping[str, str]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
}

_CACHED: Final = ("cache_creation_input_tokens", "cache_read_input_tokens")
_COUNTS: Final = ("input_tokens", "output_tokens", *_CACHED)


def _body(name: str, request: Request) -> JSONObject:
    made: dict[str, JSON] = {
        "model": name,
        "max_tokens": _MAX_TOKENS,
        "messages": messages(request.turns),
        "stream": True,
    }
    system = [request.system or "", *(turn.text for turn in request.turns if isinstance(turn, SystemTurn))]
    if told := "\n\n".join(system).strip():
        made["system"] = told
    # A transcript with calls is refused where no tools are named, and its tools may be another producer's.
    past = sorted(_called(request.turns) - {tool.name for tool in request.tools})
    if request.tools or past:
        made["tools"] = [*(_tool(tool) for tool in request.tools), *(_past_tool(name) for name in past)]
    if past and not request.tools:
        made["tool_choice"] = {"type": "none"}
    return made


def messages(turns: Sequence[Turn]) -> list[JSONObject]:
    """The turns as this dialect has them, without the system's: results are the user's, before what the user says."""
    made: list[tuple[str, list[JSONObject]]] = []
    for turn in turns:
        role = "assistant" if isinstance(turn, AnswerTurn) else "user"
        blocks = _blocks(turn)
        if made and made[-1][0] == role:
            made[-1][1].extend(blocks)
        elif blocks:
            made.append((role, blocks))
    return [{"role": role, "content": blocks} for role, blocks in made]


def _blocks(turn: Turn) -> list[JSONObject]:
    match turn:
        case SystemTurn():
            return []
        case UserTurn(text, attached):
            return [*map(_attached, attached), *([_text(text)] if text else ())]
        case AnswerTurn(parts):
            return [block for part in parts if (block := _block(part)) is not None]
        case ResultsTurn(results):
            return [_result(result) for result in results]


def _result(result: Result) -> JSONObject:
    made: dict[str, JSON] = {"type": "tool_result", "tool_use_id": result.call_id, "content": result.text}
    if result.is_error:
        made["is_error"] = True
    return made


def _attached(attached: Attached) -> JSONObject:
    source: JSONObject
    if attached.url is not None:
        source = {"type": "url", "url": attached.url}
    else:
        source = {"type": "base64", "media_type": attached.media_type, "data": attached.base64}
    if attached.kind == "image":
        return {"type": "image", "source": source}
    return {"type": "document", "source": source, **({"title": attached.filename} if attached.filename else {})}


def _shows(attached: Attached) -> bool:
    if attached.kind == "image":
        fits = attached.content is None or len(attached.content) <= _LARGEST_IMAGE
        return fits and (attached.url is not None or attached.media_type in DRAWN)
    return attached.media_type == PDF


def _text(said: str) -> JSONObject:
    return {"type": "text", "text": said}


def _block(part: Said | Thought | Call) -> JSONObject | None:
    match part:
        case Said(text):
            return _text(text)
        case Call(call_id, name, arguments):
            return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}
        case Thought(text, value):
            if value.get("dialect") != _DIALECT:
                return None
            if "redacted" in value:
                return {"type": "redacted_thinking", "data": value["redacted"]}
            return {"type": "thinking", "thinking": text, "signature": value.get("signature", "")}


def _called(turns: Sequence[Turn]) -> set[str]:
    return {
        part.name for turn in turns if isinstance(turn, AnswerTurn) for part in turn.parts if isinstance(part, Call)
    }


def _tool(tool: Offer) -> JSONObject:
    return {"name": tool.name, "description": tool.description, "input_schema": tool.parameters}


def _past_tool(name: str) -> JSONObject:
    schema: JSONObject = {"type": "object"}
    return {"name": name, "description": "No longer available. Do not call it.", "input_schema": schema}


@final
class ClaudeMeaning:
    """Reads the events of one answer; what it does not know, it passes over."""

    def __init__(self) -> None:
        self.over = self.last = False
        self._usage: dict[str, int] = {}
        self._thought = 0  # of the tokens of the output
        self._signatures: dict[int, str] = {}
        self._passed_over: set[int] = set()  # blocks that are no calls of ours
        self._inputs: dict[int, JSONObject] = {}  # a call's arguments, where they came whole
        self._reason = ""

    def read(self, data: str, /) -> Sequence[Piece]:
        event = parse(data)
        index = number(event, "index")
        match event.get("type"):
            case "content_block_delta":
                return self._read_delta(index, part(event, "delta"))
            case "content_block_start":
                return self._open(index, part(event, "content_block"))
            case "content_block_stop":
                return self._close(index)
            case "message_start":
                # What it says of the output is no count yet, but a 1 that stands there until the end.
                told = part(part(event, "message"), "usage")
                return (self._spend({name: count for name, count in told.items() if name != "output_tokens"}),)
            case "message_delta":
                reason = text(part(event, "delta"), "stop_reason")
                self._reason = _REASONS.get(reason, reason) or self._reason
                return (self._spend(part(event, "usage")),)
            case "message_stop" if self._reason:
                self.over = self.last = True
                return (Finished(self._reason),)
            case "error":
                raise of_error(event)
            case _:
                return ()

    def _read_delta(self, index: int, delta: JSONObject) -> Sequence[Piece]:
        match delta.get("type"):
            case "text_delta":
                return (Words("text", index, text(delta, "text")),)
            case "thinking_delta":
                return (Words("reasoning", index, text(delta, "thinking")),)
            case "input_json_delta" if index not in self._passed_over:
                self._inputs.pop(index, None)
                return (CallArguments(index, text(delta, "partial_json")),)
            case "signature_delta":
                self._signatures[index] = self._signatures.get(index, "") + text(delta, "signature")
                return ()
            case _:
                return ()

    def _open(self, index: int, block: JSONObject) -> Sequence[Piece]:
        kind = block.get("type")
        if kind == "tool_use":
            if given := part(block, "input"):
                self._inputs[index] = given
            return (CallOpened(index, text(block, "id"), text(block, "name")),)
        self._passed_over.add(index)
        if kind == "text":
            return (Words("text", index, text(block, "text")),)
        if kind == "redacted_thinking":
            return (Carried({"dialect": _DIALECT, "redacted": text(block, "data")}),)
        return ()

    def _close(self, index: int) -> Sequence[Piece]:
        pieces: list[Piece] = []
        if index in self._inputs:
            pieces.append(CallArguments(index, encode_json(self._inputs.pop(index)).decode()))
        pieces.append(Closed(index))
        signature = self._signatures.pop(index, None)
        if signature:
            pieces.append(Carried({"dialect": _DIALECT, "signature": signature}))
        return pieces

    def _spend(self, usage: JSONObject) -> Spent:
        """The provider tells totals, and counts apart what it wrote to its cache and read from it."""
        self._usage |= {name: number(usage, name) for name in _COUNTS if usage.get(name) is not None}
        self._thought = number(part(usage, "output_tokens_details"), "thinking_tokens") or self._thought
        written, cached = (self._usage.get(name, 0) for name in _CACHED)
        return Spent(
            tokens(
                input_tokens=self._usage.get("input_tokens", 0) + written + cached,
                output_tokens=self._usage.get("output_tokens"),
                cached_tokens=cached,
                reasoning_tokens=self._thought,
            )
        )


CLAUDE: Final = Dialect(provider=ANTHROPIC, path="v1/messages", body=_body, meaning=ClaudeMeaning, shows=_shows)
