"""Real models as producers: `open_model` names one, `Assistant` is the producer over it, `Tool` is what it may use.

    model = open_model("openai:gpt-5-mini")
    async with open_engine("chat.db", producers={"assistant": Assistant(model, system="Be brief.")}) as engine:
        ...

What sends the requests comes with the extra ``models`` and is loaded when a model is opened.
"""

from __future__ import annotations

from .assistant import Assistant
from .failures import CODES
from .model import Model
from .opening import ModelError, open_assistant, open_model
from .retries import Retries
from .tools import Tool, ToolError

__all__ = [
    "CODES",
    "Assistant",
    "Model",
    "ModelError",
    "Retries",
    "Tool",
    "ToolError",
    "open_assistant",
    "open_model",
]
