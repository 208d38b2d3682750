"""This checkout, for child processes: they run its code, whatever is installed where Python finds it first."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

__all__ = ["ROOT", "environment", "pass_on"]

ROOT: Final = Path(__file__).resolve().parents[1]  # also where `.dev` leads here

# As for the tests themselves: see pyproject.toml.
_WARNINGS: Final = "error,ignore:Unclosed <MemoryObject:ResourceWarning"


def pass_on() -> None:
    """From here on every child process finds the packages of this checkout first."""
    os.environ["PYTHONPATH"] = str(ROOT / ".dev")


def environment(**more: str) -> dict[str, str]:
    """This process's environment, in which Python takes a warning for an error."""
    return {**os.environ, "PYTHONWARNINGS": _WARNINGS, **more}
