"""``NAME=module:function`` to a producer, with an error for each way in which that can fail."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from penstock.engine import Producer

__all__ = ["LoadError", "load_producer", "load_producers"]

_SPEC: Final = re.compile(
    r"(?P<name>[A-Za-z0-9._-]{1,64})=(?P<module>\w+(?:\.\w+)*):(?P<function>\w+(?:\.\w+)*)", re.ASCII
)


class LoadError(Exception):
    """A producer cannot be loaded; the text says which and why."""


def load_producers(specs: Iterable[str]) -> dict[str, Producer]:
    """Load each, by name, in the order given. Raises `LoadError`."""
    loaded: dict[str, Producer] = {}
    for spec in specs:
        name, producer = load_producer(spec)
        if name in loaded:
            raise LoadError(f"two producers are named {name!r}; give each a name of its own")
        loaded[name] = producer
    return loaded


def load_producer(spec: str) -> tuple[str, Producer]:
    """The name and the function; the current folder is searched first. Raises `LoadError`."""
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise LoadError(f"{spec!r} is not NAME=module:function, as in story=my_app.producers:story")
    module_name, function_name = match["module"], match["function"]
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise LoadError(f"{module_name!r} imports {error.name!r}, which is not installed") from error
        raise LoadError(
            f"there is no module {module_name!r}; it is looked for in {here} and among the installed packages"
        ) from error
    except Exception as error:
        where = traceback.format_exception(error)[-1].strip()
        raise LoadError(f"importing {module_name!r} failed: {where}") from error
    for part in function_name.split("."):
        if not hasattr(found, part):
            raise LoadError(f"{module_name!r} has no {function_name!r}")
        found = getattr(found, part)
    if not callable(found):
        raise LoadError(f"{module_name}:{function_name} is {type(found).__name__}, not a function")
    if not (inspect.iscoroutinefunction(found) or inspect.isasyncgenfunction(found)):
        call = getattr(found, "__call__", None)  # noqa: B004  an object whose __call__ is async is a producer too
        if not (inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call)):
            raise LoadError(f"{module_name}:{function_name} is not async; a producer is an async function")
    producer: Producer = found
    return match["name"], producer
