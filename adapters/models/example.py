"""An example: a model that looks after the gates of a small power station, and may move one only if somebody says yes.

    PENSTOCK_MODEL=openai:gpt-5-mini penstock serve --producer keeper=penstock.adapters.models.example:keeper

The station exists in this process's memory only.
"""

from __future__ import annotations

import os
from typing import Final

from penstock.engine import JSON, JSONObject

from .assistant import Assistant
from .opening import ModelError, open_model
from .tools import Tool, ToolError

__all__ = ["STATION", "TOOLS", "keeper"]

# How far each gate is open, in percent.
STATION: Final[dict[str, int]] = {"intake": 80, "penstock": 60, "spillway": 0}

_SYSTEM: Final = "You look after the gates of a small hydroelectric station. Use the tools; never guess a position."


async def _read(_: JSONObject) -> JSON:
    return dict(STATION)


async def _move(arguments: JSONObject) -> JSON:
    gate, percent = arguments.get("gate"), arguments.get("percent")
    if not isinstance(gate, str) or gate not in STATION:
        raise ToolError(f"There is no such gate; there are {', '.join(STATION)}.")
    if type(percent) is not int or not 0 <= percent <= 100:
        raise ToolError("'percent' is a whole number from 0 to 100.")
    STATION[gate] = percent
    return {"gate": gate, "percent": percent}


TOOLS: Final = (
    Tool(name="read_gates", description="Tell how far each gate is open, in percent.", run=_read, approval=False),
    Tool(
        name="move_gate",
        description="Open or close one gate. People are asked first.",
        parameters={
            "type": "object",
            "properties": {
                "gate": {"type": "string", "enum": list(STATION)},
                "percent": {"type": "integer", "minimum": 0, "maximum": 100},
            },
            "required": ["gate", "percent"],
        },
        run=_move,
    ),
)


def _keeper() -> Assistant:
    spec = os.environ.get("PENSTOCK_MODEL")
    if spec is None:
        raise ModelError("set PENSTOCK_MODEL to openai:NAME, openai-responses:NAME or anthropic:NAME")
    model = open_model(spec, base_url=os.environ.get("PENSTOCK_MODEL_BASE_URL"))
    return Assistant(model, system=_SYSTEM, tools=TOOLS)


keeper: Final = _keeper()
