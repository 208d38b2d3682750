"""The command ``penstock``: serve an engine, follow a session, send to one, look after a database.

Owns the options and the exit codes. The server is `penstock.adapters.server.accept`'s; what a session looks like in a
terminal is `render`'s; `client` speaks to a server and comes back when a connection breaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Final, final

try:
    import click
except ModuleNotFoundError as error:
    raise SystemExit("penstock: its commands take the extra 'server': pip install '.[server]'") from error

__all__ = ["main"]

# Where each command stands. It is loaded when it is asked for: a server needs no client, and a client no server.
_MODULES: Final[Mapping[str, str]] = {
    "approve": "approve",
    "backup": "backup",
    "bench": "bench",
    "compact": "compact",
    "inspect": "inspect",
    "log": "log",
    "nodes": "nodes",
    "restore": "backup",
    "send": "send",
    "serve": "serve",
    "stop": "stop",
    "tail": "tail",
    "token": "token",
}


@final
class _Commands(click.Group):
    def list_commands(self, _: click.Context) -> list[str]:
        return list(_MODULES)

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        if name not in _MODULES:
            return None
        command = getattr(import_module(f".{_MODULES[name]}", __package__), name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="penstock", message="penstock %(version)s")
def main() -> None:
    """An engine for live answers.

    \b
    Examples:
      penstock serve                              serve sessions on http://127.0.0.1:8420
      penstock send chat "tell me a story"        start an answer and watch it come
      penstock tail chat                          watch a session, here or in another terminal
      penstock approve chat                       say yes or no to what an answer asks for
      penstock stop chat                          end the answer that runs
      penstock token ann --session 'ann-*' ...    make a token, where a server asks for them
      penstock inspect penstock.db                what is stored, and whether it is sound
      penstock backup penstock.db copy.db         a copy of it, also while it is served
      penstock log copy penstock.db redis://…     all of it in another store
      penstock bench                              how fast this machine is
    """
