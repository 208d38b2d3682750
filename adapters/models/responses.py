"""Responses: OpenAI's newer dialect. Nothing is kept at the provider's: the session's transcript is the state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast, final

from penstock.engine import JSON, JSONObject, encode_json

from .dialect import DRAWN, OPENAI, PDF, Dialect
from .failures import of_error
from .model import Offer, Request
from .pieces import CallArguments, CallOpened, Carried, Closed, Finished, Piece, Spent, Words
from .transcript import AnswerTurn, Attached, Call, ResultsTurn, Said, SystemTurn, Thought, Turn, UserTurn
from .usage import tokens
from .wire import DONE, number, parse, part, text

__all__ = ["RESPONSES", "ResponsesMeaning", "items"]

_DIALECT: Final = "openai-responses"


def _body(name: str, request: Request) -> JSONObject:
    made: dict[str, JSON] = {"model": name, "input": items(request.turns), "store": False, "stream": True}
    if request.system:
        made["instructions"] = request.system
    if request.tools:
        made["tools"] = [_tool(tool) for tool in request.tools]
    return made


def items(turns: Sequence[Turn]) -> list[JSONObject]:
    """The turns as this dialect has them: calls, results and reasoning are items of their own."""
    made: list[JSONObject] = []
    for turn in turns:
        match turn:
            case SystemTurn(text):
                made.append({"role": "system", "content": text})
            case UserTurn(text, attached):
                made.append({"role": "user", "content": _content(text, attached)})
            case AnswerTurn(parts):
                made += [item for part in parts if (item := _item(part)) is not None]
            case ResultsTurn(results):
                made += [
                    {"type": "function_call_output", "call_id": result.call_id, "output": result.marked_text}
                    for result in results
                ]
    return made


def _content(text: str, attached: Sequence[Attached]) -> JSON:
    if not attached:
        return text
    return [*map(_attached, attached), *([{"type": "input_text", "text": text}] if text else ())]


def _attached(attached: Attached) -> JSONObject:
    if attached.kind == "image":
        return {"type": "input_image", "image_url": attached.address, "detail": "auto"}
    if attached.url is not None:
        return {"type": "input_file", "file_url": attached.url}
    return {"type": "input_file", "filename": attached.filename or "file.pdf", "file_data": attached.address}


def _shows(attached: Attached) -> bool:
    if attached.kind == "image":
        return attached.url is not None or attached.media_type in DRAWN
    return attached.url is not None or attached.media_type == PDF


def _item(part: Said | Thought | Call) -> JSONObject | None:
    match part:
        case Said(text):
            return {"role": "assistant", "content": text}
        case Call(call_id, name, arguments):
            return {
                "type": "function_call",
                "call_id": call_id,
                "name": name,
                "arguments": encode_json(arguments).decode(),
            }
        case Thought(_, value):
            return cast(JSONObject, value.get("item")) if value.get("dialect") == _DIALECT else None


def _tool(tool: Offer) -> JSONObject:
    # Strict schemas must name every property as required; ours need not.
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": False,
    }


@final
class ResponsesMeaning:
    """Reads the events of one answer; what it does not know, it passes over."""

    def __init__(self) -> None:
        self.over = self.last = False
        self._refused = False
        self._called = False
        self._with_arguments: set[int] = set()  # calls whose arguments came in pieces

    def read(self, data: str, /) -> Sequence[Piece]:
        if data == DONE:  # not OpenAI's, but other servers' habit
            return ()
        event = parse(data)
        index = number(event, "output_index")
        match event.get("type"):
            case "response.output_text.delta":
                return (Words("text", (index, number(event, "content_index")), text(event, "delta")),)
            case "response.function_call_arguments.delta":
                self._with_arguments.add(index)
                return (CallArguments(index, text(event, "delta")),)
            case "response.reasoning_summary_text.delta":
                return (Words("reasoning", (index, "s", number(event, "summary_index")), text(event, "delta")),)
            case "response.reasoning_text.delta":
                return (Words("reasoning", (index, "r", number(event, "content_index")), text(event, "delta")),)
            case "response.refusal.delta":
                self._refused = True
                return (Words("text", (index, number(event, "content_index")), text(event, "delta")),)
            case "response.output_item.added":
                return self._begin_item(index, part(event, "item"))
            case "response.output_item.done":
                return self._end_item(index, part(event, "item"))
            case "response.completed" | "response.incomplete":
                return self._end(part(event, "response"))
            case "response.failed":
                raise of_error(part(part(event, "response"), "error"))
            case "error":
                raise of_error(event)
            case _:
                return ()

    def _begin_item(self, index: int, item: JSONObject) -> Sequence[Piece]:
        if item.get("type") != "function_call":
            return ()
        self._called = True
        return (CallOpened(index, text(item, "call_id"), text(item, "name")),)

    def _end_item(self, index: int, item: JSONObject) -> Sequence[Piece]:
        if item.get("type") == "function_call":
            whole = () if index in self._with_arguments else (CallArguments(index, text(item, "arguments")),)
            return (*whole, Closed(index))
        if item.get("type") == "reasoning" and text(item, "encrypted_content"):
            sent = {name: value for name, value in item.items() if name != "status" and value is not None}
            return (Carried({"dialect": _DIALECT, "item": sent}),)
        return ()

    def _end(self, response: JSONObject) -> Sequence[Piece]:
        self.over = self.last = True
        finished = Finished(self._reason(part(response, "incomplete_details")))
        usage = part(response, "usage")
        if not usage:
            return (finished,)
        spent = tokens(
            input_tokens=number(usage, "input_tokens"),
            output_tokens=number(usage, "output_tokens"),
            cached_tokens=number(part(usage, "input_tokens_details"), "cached_tokens"),
            reasoning_tokens=number(part(usage, "output_tokens_details"), "reasoning_tokens"),
        )
        return Spent(spent), finished

    def _reason(self, incomplete: JSONObject) -> str:
        if self._refused:
            return "refusal"
        told = text(incomplete, "reason")
        if told:
            return "length" if told == "max_output_tokens" else told
        return "tool_calls" if self._called else "stop"


RESPONSES: Final = Dialect(provider=OPENAI, path="responses", body=_body, meaning=ResponsesMeaning, shows=_shows)
