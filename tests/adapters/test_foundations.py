"""What the adapters take of the libraries that they stand on: public names, and of hypercorn's insides only this.

A library may move what it does not document in any version. So all of it is in one module, is named here, and bounds
the version from both sides; everything else is imported from where its own documentation says.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

import pytest
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.worker_context import WorkerContext
from packaging.requirements import Requirement

from penstock import adapters, engine
from penstock.adapters.server import connection

ROOT: Final = Path(__file__).parents[2]

# The modules of each that its reference documents. Trio's are `trio` and `trio.*` without an underscore.
DOCUMENTED: Final[Mapping[str, frozenset[str]]] = {
    "h11": frozenset({"h11"}),
    "httpx": frozenset({"httpx"}),
    "hypercorn": frozenset({"hypercorn.config", "hypercorn.typing"}),
    "quart": frozenset({"quart", "quart.wrappers.response"}),
    "quart_trio": frozenset({"quart_trio"}),
    "trio": frozenset({"trio", "trio.abc", "trio.lowlevel", "trio.socket", "trio.testing", "trio.to_thread"}),
    "trio_websocket": frozenset({"trio_websocket"}),
    "werkzeug": frozenset({"werkzeug.exceptions"}),
    "wsproto": frozenset({"wsproto.utilities"}),
}

# What `connection` imports besides.
INSIDE: Final[Mapping[str, frozenset[str]]] = {
    "hypercorn.events": frozenset({"Closed", "Event", "RawData", "Updated"}),
    "hypercorn.protocol.events": frozenset({"Event", "Response", "StreamClosed"}),
    "hypercorn.protocol.h11": frozenset({"H11Protocol"}),
    "hypercorn.trio.worker_context": frozenset({"WorkerContext"}),
    "hypercorn.utils": frozenset({"parse_socket_addr"}),
}

# What it overrides or calls of `H11Protocol`, with the parameters that it counts on.
METHODS: Final[Mapping[str, tuple[str, ...]]] = {
    "__init__": (
        "self",
        "app",
        "config",
        "context",
        "task_group",
        "connection_state",
        "ssl",
        "client",
        "server",
        "send",
    ),
    "handle": ("self", "event"),
    "stream_send": ("self", "event"),
    "_check_protocol": ("self", "event"),
    "_create_stream": ("self", "request"),
    "_send_error_response": ("self", "status_code"),
    "_send_h11_event": ("self", "event"),
}
OVERRIDDEN: Final = frozenset({"_check_protocol", "_create_stream", "_send_error_response", "_send_h11_event"})
ATTRIBUTES: Final = frozenset({"client", "config", "connection", "context", "send", "ssl"})

# Of the extra `server`: whose insides are used, and who takes names away before 1.0, as Quart 0.23 did.
BOUNDED: Final = ("hypercorn", "quart", "quart-trio")

# They do something when they are imported.
NO_MODULES: Final = frozenset({"penstock.adapters.cli.__main__", "penstock.adapters.models.example"})


def sources() -> Iterator[tuple[str, ast.Module]]:
    for package in ("adapters", "engine"):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The module, and the name out of it or ``""``, of each absolute import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module is not None
            yield from ((node.module, alias.name) for alias in node.names)


def test_only_one_module_imports_what_a_library_does_not_document() -> None:
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for path, tree in sources():
        for module, name in imported(tree):
            library = module.partition(".")[0]
            if library in DOCUMENTED and (module not in DOCUMENTED[library] or name.startswith("_")):
                found[path][module].add(name)
    assert found == {"adapters/server/connection.py": INSIDE}


def test_no_private_attribute_of_a_library_is_used() -> None:
    """Each private name that is used is one that our own code gives."""
    given = {"_asdict", "_make", "_replace"}  # a named tuple's, which are public
    used: dict[str, set[str]] = defaultdict(set)
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                given.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                given.add(node.id)
            elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__"):
                own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
                if own and isinstance(node.ctx, ast.Store):
                    given.add(node.attr)
                used[node.attr].add(path)
    assert {name: paths for name, paths in used.items() if name not in given} == {}


def our_classes() -> Iterator[type]:
    for package in (adapters, engine):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name in NO_MODULES:
                continue
            module = importlib.import_module(found.name)
            for value in vars(module).values():
                if isinstance(value, type) and value.__module__ == module.__name__:
                    yield value


def test_only_one_module_overrides_a_private_method_of_a_library() -> None:
    overridden: dict[str, set[str]] = {}
    for cls in our_classes():
        foreign = [base for base in cls.__mro__[1:] if base.__module__.partition(".")[0] in DOCUMENTED]
        theirs = {name for base in foreign for name in vars(base) if name.startswith("_") and not name.endswith("__")}
        if names := theirs & vars(cls).keys() - {"_abc_impl"}:
            overridden[f"{cls.__module__}.{cls.__qualname__}"] = names
    assert overridden == {"penstock.adapters.server.connection._Protocol": OVERRIDDEN}


def test_what_is_used_of_hypercorn_is_there() -> None:
    for name, parameters in METHODS.items():
        assert tuple(inspect.signature(getattr(H11Protocol, name)).parameters) == parameters
    made = inspect.getsource(H11Protocol.__init__)
    assert all(f"self.{name}" in made for name in ATTRIBUTES)
    shared = WorkerContext(None)
    assert not shared.terminated.is_set()
    assert inspect.iscoroutinefunction(shared.terminated.set)
    assert issubclass(connection._Protocol, H11Protocol)


@pytest.mark.parametrize("name", BOUNDED)
def test_its_version_is_bounded_from_both_sides(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {each.name: each.specifier for each in map(Requirement, project["optional-dependencies"]["server"])}
    assert {each.operator for each in asked[name]} == {">=", "<"}
    assert asked[name].contains(metadata.version(name))


_SERVERS = ("quart", "hypercorn", "jwt", "cryptography")
_CLIENTS = ("httpx", "trio_websocket")


@pytest.mark.parametrize(
    ("commands", "others"),
    [
        (("tail", "send", "stop", "approve"), _SERVERS),
        (("serve", "token"), ("httpx", "cryptography")),
        (("inspect", "compact", "backup", "restore"), (*_SERVERS, *_CLIENTS, "trio.testing")),
    ],
    ids=["clients", "servers", "neither"],
)
def test_a_command_is_loaded_without_what_only_others_need(commands: tuple[str, ...], others: tuple[str, ...]) -> None:
    for command in commands:
        probe = (
            "import sys, click; from penstock.adapters.cli import main; "
            f"assert main.get_command(click.Context(main), {command!r}); "
            f"print(*sorted(set({others!r}) & sys.modules.keys()))"
        )
        done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "", command


def test_the_command_says_which_extra_it_takes() -> None:
    probe = "import sys; sys.modules['click'] = None; from penstock.adapters.cli import main"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "penstock: its commands take the extra 'server': pip install '.[server]'\n"
