"""Commands of sessions that another engine of the log has: carried there, and what they come to carried back.

Owns who is asked, how often, and what may be asked twice. A session in which another engine holds something open is not
claimed (`Moved`); what is asked of it here is done there, and the caller cannot tell. How a command gets there is
`Peers`.

    done          the answer, or the error, as it came of it there
    not theirs    the session has gone on, or nothing is open in it any more: look again, a few times
    not asked     nothing of the question left: ask again, until that engine answers or its sessions are another's
    no answer     it may have been done: what has an id is asked for again, all else is `TimedOut`

What was carried here is not carried on: this engine does it, or says who has the session.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, cast, final

import trio

from ..errors import Draining, Moved, PenstockError, TimedOut
from ..facts import Forwarded, Observer
from .commands import Command
from .peers import Peers, Unanswered, read_answer

__all__ = ["Forwarding"]

T = TypeVar("T")

# How often something is tried in a session that other engines want to write in at the same time.
_TRIES: Final = 3

# Files that are carried at a time: each is in memory as a whole meanwhile.
_FILES: Final = 4

# Until an engine that could not be asked is asked again: first and longest pause, in seconds.
_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 0.5


@final
class Forwarding:
    """How commands of one engine are carried out. ``peers``: None where there are no others to ask."""

    def __init__(self, peers: Peers | None, owner: str, observer: Observer, within: float) -> None:
        """``owner`` is this engine's name; ``within`` so many seconds an engine is asked again."""
        self.peers: Final = peers
        self.files: Final = trio.CapacityLimiter(_FILES)
        self._owner: Final = owner
        self._observer: Final = observer
        self._within: Final = within

    async def carry_out(
        self, session_id: str, command: Command[T], here: Callable[[Command[T]], Awaitable[T]], *, forwarded: bool
    ) -> T:
        """Have ``here`` do it, or whom that names by raising `Moved`: nothing of it was written then.

        What was ``forwarded`` to this engine is done here or not at all.
        """
        doubt: Unanswered | None = None
        try:
            asked, body = command, b""
            moved, pause = 0, _PAUSE
            until = trio.current_time() + self._within
            while True:
                try:
                    answer = await here(asked)
                    return command.answered(answer) if body else answer
                except Moved as error:
                    moved += 1
                    owner, last = error.owner, moved >= _TRIES
                    if forwarded or self.peers is None or owner in ("", self._owner):
                        if last:
                            raise
                        continue
                if not body:
                    asked = command.identified()  # from here on also what is done here: it may have been done there
                    body = asked.to_bytes()
                try:
                    told = await self._ask(owner, session_id, command.name, body)
                    return command.answered(cast("T", told))
                except Moved:
                    if last:
                        raise
                    continue
                except Draining:
                    if trio.current_time() + pause > until:
                        raise
                except Unanswered as error:
                    doubt = error if error.asked else doubt
                    if trio.current_time() + pause > until or (doubt is not None and not asked.repeatable):
                        raise Moved(str(error), owner=owner, session_id=session_id) from error
                moved = 0
                await trio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
        except (Moved, Draining) as error:
            if doubt is None:
                raise
            raise TimedOut(f"it may have been done, and nobody knows: {doubt}", session_id=session_id) from error

    async def _ask(self, owner: str, session_id: str, name: str, body: bytes) -> object:
        """What comes of it there. Raises the other engine's error, and `Unanswered`."""
        assert self.peers is not None
        begun, outcome = trio.current_time(), "cancelled"
        try:
            answer = read_answer(await self.peers.ask(owner, session_id, name, body))
            outcome = "done"
            return answer
        except Unanswered as error:
            outcome = "unanswered" if error.asked else "unreachable"
            raise
        except PenstockError as error:
            outcome = error.code
            raise
        finally:
            self._observer.observe(Forwarded(name, outcome, trio.current_time() - begun))
