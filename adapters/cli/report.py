"""What `inspect` has found, as text and as JSON."""

from __future__ import annotations

import json
from typing import Final, Protocol, final

import click

from penstock.engine import FileState
from penstock.engine.testing import StoredSession

from .render import clean

__all__ = ["JsonReport", "Report", "TextReport", "amount"]

# The last claims of a session, in a table.
_CLAIMS: Final = 3

_ROW: Final = "{:<36}  {:>10}  {:>10}  {:>11}  {:<24}  {}"


class Report(Protocol):
    """Takes the findings as they come. ``wrong`` counts what is not as it must be."""

    wrong: int

    def file(self, state: FileState, findings: list[str] | None) -> None:
        """The file as a whole; ``findings`` are SQLite's, None when it was not asked."""

    def store(self, name: str) -> None:
        """In place of `file`: a store of others, of which nothing is said as a whole."""

    def session(self, found: StoredSession) -> None: ...

    def end(self) -> None:
        """Everything has been looked at."""


def amount(size: float) -> str:
    """Bytes for a person."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


@final
class TextReport:
    """A table, line by line."""

    def __init__(self) -> None:
        self.wrong = 0
        self._live_is = "left open"  # without a process that runs it, the next start of a server ends it
        self._sessions = 0
        self._events = 0
        self._live = 0
        self._lost = 0

    def file(self, state: FileState, findings: list[str] | None) -> None:
        if state.served:
            self._live_is = "live"
        process = "another process" if state.process is None else f"process {state.process}"
        served = f"; open in {process}" if state.served else ""
        wal = f", {amount(state.wal)} of write-ahead log" if state.wal else ""
        ended = f", {state.ended} deleted sessions still to be purged" if state.ended else ""
        click.echo(f"{state.path}: {amount(state.size)}, {amount(state.free)} of it free{wal}{ended}{served}")
        for finding in findings or ():
            self._finding(f"the file: {finding}")
        if findings is not None and not findings:
            click.echo("The file is sound.")
        self._head()

    def store(self, name: str) -> None:
        self._live_is = "open"  # somewhere, or left so
        click.echo(name)
        self._head()

    def _head(self) -> None:
        click.echo()
        click.echo(click.style(_ROW.format("session", "events", "size", "generations", "last event", ""), bold=True))

    def session(self, found: StoredSession) -> None:
        lost = found.outcomes.get("lost", 0)
        self._sessions += 1
        self._events += found.events
        self._live += found.live is not None
        self._lost += lost
        notes = ["cannot be read: a server sets it aside"] if found.corrupt else []
        if found.live is not None:
            notes.append(f"{self._live_is}: {found.live}")
        if lost:
            notes.append(f"{lost} lost")
        if found.claims:
            last = ", ".join(f"{claim.owner or 'nobody'} from {claim.tail}" for claim in found.claims[-_CLAIMS:])
            notes.append(f"claimed by {last}" if len(found.claims) <= _CLAIMS else f"claimed by …, {last}")
        if found.events < found.tail:
            notes.append(f"{found.tail - found.events} events compacted")
        click.echo(
            _ROW.format(
                clean(found.session_id),
                found.events,
                amount(found.size),
                found.generations,
                clean(found.last_time or ""),
                ", ".join(clean(note) for note in notes),
            ).rstrip()
        )
        for violation in found.violations:
            self._finding(f"  {violation}")

    def end(self) -> None:
        click.echo()
        click.echo(
            f"{self._sessions} sessions, {self._events} events; "
            f"generations: {self._live} {self._live_is}, {self._lost} lost"
        )
        if self.wrong:
            click.echo(click.style(f"{self.wrong} findings", fg="red", bold=True))
        else:
            click.echo("Nothing is wrong.")

    def _finding(self, text: str) -> None:
        self.wrong += 1
        click.echo(click.style(clean(text), fg="red"))


@final
class JsonReport:
    """One object, printed at the end."""

    def __init__(self) -> None:
        self.wrong = 0
        self._file: dict[str, object] = {}
        self._sessions: list[dict[str, object]] = []

    def file(self, state: FileState, findings: list[str] | None) -> None:
        self._file = {
            "path": state.path,
            "size": state.size,
            "free": state.free,
            "wal": state.wal,
            "ended": state.ended,
            "served": state.served,
            "process": state.process,
            "findings": findings,
        }
        self.wrong += len(findings or ())

    def store(self, name: str) -> None:
        self._file = {"path": name}

    def session(self, found: StoredSession) -> None:
        self.wrong += len(found.violations)
        self._sessions.append(
            {
                "session_id": found.session_id,
                "epoch": found.epoch,
                "tail": found.tail,
                "events": found.events,
                "size": found.size,
                "generations": found.generations,
                "live": found.live,
                "outcomes": dict(found.outcomes),
                "first_time": found.first_time,
                "last_time": found.last_time,
                "claims": [{"owner": claim.owner, "tail": claim.tail} for claim in found.claims],
                "corrupt": found.corrupt,
                "violations": [
                    {"rule": violation.rule, "offset": violation.offset, "text": violation.text}
                    for violation in found.violations
                ],
            }
        )

    def end(self) -> None:
        click.echo(json.dumps({"database": self._file, "sessions": self._sessions, "wrong": self.wrong}, indent=2))
