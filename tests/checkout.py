"""This checkout, for child processes: they run its code, whatever is installed where Python finds it first."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

__all__ = ["ROOT", "environment"]

ROOT: Final = Path(__file__).parents[1]


def environment(**more: str) -> dict[str, str]:
    """This process's, in which Python finds the packages here first, and takes a warning for an error."""
    return {**os.environ, "PYTHONPATH": str(ROOT / ".dev"), "PYTHONWARNINGS": "error", **more}
