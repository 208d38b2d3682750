"""The command ``penstock``: serve an engine, follow a session, send to one, look after a database.

Owns the options and the exit codes. The server is `penstock.adapters.server.accept`'s; what a session looks like in a
terminal is `render`'s; `client` speaks to a server and comes back when a connection breaks.
"""

from __future__ import annotations

import click

from .approve import approve
from .backup import backup, restore
from .bench import bench
from .compact import compact
from .inspect import inspect
from .send import send
from .serve import serve
from .stop import stop
from .tail import tail
from .token import token

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
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
      penstock bench                              how fast this machine is
    """


main.add_command(serve)
main.add_command(tail)
main.add_command(send)
main.add_command(approve)
main.add_command(stop)
main.add_command(inspect)
main.add_command(compact)
main.add_command(backup)
main.add_command(restore)
main.add_command(bench)
main.add_command(token)
