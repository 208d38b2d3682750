"""What stands before every route: whose request this is, whether they may do this, and what it takes of theirs.

`allow` is asked before anything is done about a session, also about one that does not exist: who may not read a session
does not learn from the answer whether there is one. `Routes` asks it for the scope that a route is described with.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, cast

from hypercorn.typing import Scope as AsgiScope
from quart import current_app, g, request
from quart_trio import QuartTrio

from ..access import Identity, Principal, Scope
from ..problems import Unauthenticated
from ..server.limits import Limits, Place

__all__ = [
    "add_guard",
    "allow",
    "authenticate",
    "counted",
    "identity",
    "keeping",
    "limits",
    "may_list",
    "permitted",
    "places",
]

_NAME: Final = "penstock.identity"
_LIMITS: Final = "penstock.limits"
_PLACES: Final = "penstock.places"

# Where a ticket in the query stands for a token. EventSource can send no header.
_STREAM: Final = "events"


def add_guard(app: QuartTrio, asked: Identity, limits: Limits, public: Collection[str]) -> None:
    """Have every route of ``app`` ask ``asked`` who comes, and ``limits`` whether it is not too much.

    But for the endpoints that are ``public``, which tell nothing about a session.
    """
    app.extensions[_NAME] = asked
    app.extensions[_LIMITS] = limits

    @app.before_request
    async def authenticated() -> None:
        # Paths that lead nowhere, and what a resource knows, are the same for everybody.
        if request.url_rule is not None and request.method != "OPTIONS" and request.endpoint not in public:
            try:
                await _find_out(asked)
            except Unauthenticated:
                limits.admit_refused()
                raise


def identity() -> Identity:
    """Whom this application asks."""
    found = current_app.extensions[_NAME]
    assert isinstance(found, Identity)
    return found


def limits() -> Limits:
    """What counts this application's requests."""
    found = current_app.extensions[_LIMITS]
    assert isinstance(found, Limits)
    return found


def counted(principal: Principal) -> str | None:
    """Under whose name requests are counted; None where nobody has one: then it is the address."""
    return None if identity().open else principal.subject


async def _find_out(asked: Identity) -> None:
    """Whose request this is, counted as theirs.

    Raises `Unauthenticated`, `RateLimited`, and what `Identity.who` does.
    """
    principal = await asked.who(
        request.headers.getlist("Authorization"),
        ((name.lower(), value) for name, value in request.headers.items()),
        request.args.getlist("ticket") if request.endpoint == _STREAM else (),
        asked.tickets.for_stream,
    )
    if principal is None:
        raise Unauthenticated("nothing in the request says who asks", reason="missing")
    limits().admit(counted(principal))
    g.principal = principal


def authenticate() -> Principal:
    """Whose request this is, as was found out before its route was called."""
    known = g.principal
    assert isinstance(known, Principal)
    return known


async def allow(action: Scope, session_id: str | None = None) -> Principal:
    """Who asks, if they may do this to the session; with None: to the server as a whole.

    Raises `Unauthenticated` when their time is over, and `Forbidden` in the same words for a session that exists and
    one that does not.
    """
    principal = authenticate()
    await identity().check(principal, action, session_id)
    return principal


def may_list() -> Principal:
    """Who asks, as `Identity.check_list` has it: they are told of the sessions that are `permitted`."""
    return identity().check_list(authenticate())


async def permitted(action: Scope, session_id: str | None = None) -> bool:
    """Whether who asks may do this."""
    return await identity().permits(authenticate(), action, session_id)


def keeping(scope: AsgiScope, held: list[Place]) -> AsgiScope:
    """The scope of a request, with room for what it takes for the time of its answer.

    Who makes it gives that back at the request's end: the answer's body may never be begun, when its reader has left by
    then, or a hook has failed.
    """
    return cast("AsgiScope", {**scope, _PLACES: held})


def places(scope: AsgiScope) -> list[Place]:
    """What the request of this scope has taken; what is taken out of it, it does not give back."""
    return cast("dict[str, list[Place]]", scope)[_PLACES]
