"""Tools that a model may call: what the model is told of one, and what a call comes to.

Owns one call: found, asked for where people must agree, run, and its outcome as the model and the readers get it. The
loop around it is `assistant`'s.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, final

from attrs import field, frozen

from penstock.engine import JSON, Generation, InvalidBody, JSONObject, PenstockError, check_json, encode_json

from ..halves import mended
from .answering import Asked
from .model import Offer

__all__ = ["Outcome", "Tool", "ToolError", "offers", "run_call", "toolbox"]

_log = logging.getLogger("penstock.models")

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what every provider takes

_ANYTHING: Final[JSONObject] = {"type": "object", "properties": {}}


@final
class ToolError(Exception):
    """Raise it in a tool: its text is the call's result, for the model and for the readers.

    The text of any other exception stays in the server's log.
    """


def _check_name(_: object, __: object, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"a tool's name is 1 to 64 of A-Z a-z 0-9 _ -, not {name!r}")


@final
@frozen(kw_only=True)
class Tool:
    """Something that a model may ask to have done.

    ``run`` gets the arguments, a JSON object, which are not checked against ``parameters`` (a JSON schema), and
    returns any JSON. Nothing runs without a person's yes unless ``approval`` is False, or is a function of the
    arguments that returns False.
    """

    name: str = field(validator=_check_name)
    description: str
    run: Callable[[JSONObject], Awaitable[JSON]]
    parameters: JSONObject = _ANYTHING
    approval: bool | Callable[[JSONObject], bool] = True

    def needs_approval(self, arguments: JSONObject) -> bool:
        return self.approval(arguments) if callable(self.approval) else self.approval


@final
@frozen(kw_only=True)
class Outcome:
    """What a call came to; ``value`` is never None."""

    value: JSON
    is_error: bool = False


def toolbox(tools: Iterable[Tool]) -> dict[str, Tool]:
    """The tools by name. Raises `ValueError` for a name that is there twice."""
    made: dict[str, Tool] = {}
    for tool in tools:
        if tool.name in made:
            raise ValueError(f"two tools are named {tool.name!r}; give each a name of its own")
        made[tool.name] = tool
    return made


def offers(tools: Mapping[str, Tool]) -> tuple[Offer, ...]:
    return tuple(
        Offer(name=tool.name, description=tool.description, parameters=tool.parameters) for tool in tools.values()
    )


async def run_call(generation: Generation, tools: Mapping[str, Tool], call: Asked) -> Outcome:
    """Carry out one call, if it may be. What goes wrong is an outcome, too: the model can make something of it.

    Raises only what ends the generation.
    """
    tool = tools.get(call.name)
    if tool is None:
        return _error(f"There is no tool {call.name!r}.")
    if call.arguments is None:
        return _error("The arguments are not a JSON object; the tool was not run.")
    arguments, note = call.arguments, ""
    if tool.needs_approval(arguments):
        approval = await generation.approve(tool.name, tool_call_id=call.call_id, arguments=arguments)
        if not approval.approved:
            return _error(_refusal(approval.reason))
        if not isinstance(approval.arguments, Mapping):
            return _error("Approved, but with arguments that are not a JSON object; the tool was not run.")
        if approval.arguments != arguments:
            arguments = approval.arguments
            # Else the model, which sees its own arguments only, takes the result for theirs.
            note = f"Run with arguments that the user changed to {encode_json(arguments).decode()}. "
    return await _run(generation, tool, arguments, note)


async def _run(generation: Generation, tool: Tool, arguments: JSONObject, note: str) -> Outcome:
    try:
        value = check_json(await tool.run(arguments), "a tool's result")
    except ToolError as error:
        return _error(f"{note}{error}")
    except PenstockError as error:
        if not isinstance(error, InvalidBody):
            raise  # the fence, or the disk: nothing that a model could mend
        _log.exception("session %s: the tool %s gave a result that is no JSON", generation.session_id, tool.name)
        return _error(f"{note}The tool failed.")
    except Exception:  # noqa: BLE001  a tool may fail in any way
        _log.exception("session %s: the tool %s failed", generation.session_id, tool.name)
        return _error(f"{note}The tool failed.")
    if note:
        return Outcome(value={"note": note.strip(), "result": value})
    return Outcome(value="Done." if value is None else value)


def _refusal(reason: str | None) -> str:
    if reason == "expired":
        return "Not approved: nobody answered in time. The tool was not run."
    return f"The user refused this call. The tool was not run.{f' Reason: {reason}' if reason else ''}"


def _error(text: str) -> Outcome:
    return Outcome(value=mended(text), is_error=True)
