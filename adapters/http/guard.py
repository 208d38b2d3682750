"""What stands before every route: whose request this is, whether they may do this, and what it takes of theirs.

`allow` is asked before anything is done about a session, also about one that does not exist: who may not read a session
does not learn from the answer whether there is one. `Routes` asks it for the scope that a route is described with.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, cast

from hypercorn.typing import Scope as AsgiScope
from quart import current_app, g, request
from quart_trio import QuartTrio

from ..access import Identity, Principal, Scope, read_bearer
from ..problems import Forbidden, Unauthenticated
from ..server.limits import Limits, Place

__all__ = [
    "add_guard",
    "allow",
    "authenticate",
    "bearer",
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
                authenticate()
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


def authenticate() -> Principal:
    """Whose request this is, counted as theirs. Raises `Unauthenticated` and `RateLimited`."""
    known = g.get("principal")
    if isinstance(known, Principal):
        return known
    asked = identity()
    tickets = request.args.getlist("ticket") if request.endpoint == _STREAM and not asked.open else []
    token = None if asked.open else bearer(request.headers.getlist("Authorization"))
    if tickets and (len(tickets) > 1 or token is not None):
        raise Unauthenticated("there is more than one token or ticket", reason="several")
    principal = asked.tickets.for_stream(tickets[0]) if tickets else asked.authenticate(token)
    limits().admit(counted(principal))
    g.principal = principal
    return principal


async def allow(action: Scope, session_id: str | None = None) -> Principal:
    """Who asks, if they may do this to the session; with None: to the server as a whole.

    Raises `Unauthenticated`, and `Forbidden` in the same words for a session that exists and one that does not.
    """
    principal = authenticate()
    await identity().check(principal, action, session_id)
    return principal


def may_list() -> Principal:
    """Who asks, if they may read sessions at all: they are told of those that are `permitted`.

    Raises `Unauthenticated`, `Forbidden`.
    """
    principal = authenticate()
    if principal.scopes.isdisjoint({"read", "admin"}):
        raise Forbidden("you may not read here: it takes a token with 'read'")
    return principal


async def permitted(action: Scope, session_id: str | None = None) -> bool:
    """Whether who asks may do this. Raises `Unauthenticated`."""
    return await identity().permits(authenticate(), action, session_id)


def bearer(headers: Sequence[str]) -> str | None:
    """The token in a request's headers ``Authorization``. Raises `Unauthenticated`."""
    if not headers:
        return None
    if len(headers) > 1:
        raise Unauthenticated("there is more than one token or ticket", reason="several")
    return read_bearer(headers[0])


def keeping(scope: AsgiScope, held: list[Place]) -> AsgiScope:
    """The scope of a request, with room for what it takes for the time of its answer.

    Who makes it gives that back at the request's end: the answer's body may never be begun, when its reader has left by
    then, or a hook has failed.
    """
    return cast("AsgiScope", {**scope, _PLACES: held})


def places(scope: AsgiScope) -> list[Place]:
    """What the request of this scope has taken; what is taken out of it, it does not give back."""
    return cast("dict[str, list[Place]]", scope)[_PLACES]
