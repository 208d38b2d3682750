"""What of a request's body reaches Quart: no more than it will take.

Up to 0.22 Quart counts a body's bytes as they come; from 0.23 on it keeps all that comes, read or not, and counts at
the body's end. Here the body ends with the piece that makes it too large, so that any Quart refuses it there and then.
What still comes is received and dropped, for a peer may send all of it before it reads the refusal.
"""

from __future__ import annotations

from hypercorn.typing import ASGIReceiveCallable, ASGIReceiveEvent

__all__ = ["bounded"]


def bounded(receive: ASGIReceiveCallable, most: int) -> ASGIReceiveCallable:
    """``receive``, with a body that ends once it has more than ``most`` bytes."""
    taken = 0

    async def receive_bounded() -> ASGIReceiveEvent:
        nonlocal taken
        while True:
            event = await receive()
            if event["type"] != "http.request":
                return event
            if taken > most:
                continue
            taken += len(event.get("body", b""))
            return {"type": "http.request", "body": event["body"], "more_body": False} if taken > most else event

    return receive_bounded
