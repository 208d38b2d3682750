"""What most Python services run: an event stream from Starlette on uvicorn, which stores nothing.

Started as ``python -m tests.benchmarks.peers.uvicorn_app sse-starlette`` (or ``starlette``) in the peers' own
environment; prints its port. ``POST /go`` says what is to be written into which streams: with a ``rate`` each stream is
one generator, the shortest way there is; without one a task puts each event into the queue of each viewer.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time

import uvicorn
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from tests.benchmarks.payload import body, frame, stamped

KIND = sys.argv[1]


class Stream:
    def __init__(self):
        self.going = asyncio.Event()
        self.plan = {}
        self.queues = set()


streams = {}


def stream(name):
    return streams.setdefault(name, Stream())


async def sleep_until(due):
    left = due - time.monotonic_ns()
    if left > 0:
        await asyncio.sleep(left / 1e9)


async def paced(name):
    """The events of a stream, made where they are sent."""
    of = stream(name)
    await of.going.wait()
    plan = of.plan
    for number in range(plan["count"]):
        due = plan["begin"] + int((number + plan["phase"]) * 1e9 / plan["rate"])
        await sleep_until(due)
        yield number + 1, body(name, number + 1, stamped(due, plan["size"]))


async def queued(name):
    """The events of a stream, as somebody else makes them."""
    of, queue = stream(name), asyncio.Queue()
    of.queues.add(queue)
    try:
        while True:
            yield await queue.get()
    finally:
        of.queues.discard(queue)


async def fan_out(name, plan):
    of, begin = stream(name), plan["begin"] or time.monotonic_ns()
    for number in range(plan["count"]):
        item = number + 1, body(name, number + 1, stamped(begin, plan["size"]))
        for queue in of.queues:
            queue.put_nowait(item)
        if number % 32 == 0:
            await asyncio.sleep(0)


tasks = set()


async def go(request):
    plan = await request.json()
    for name in plan["streams"]:
        if plan["rate"]:
            own = {**plan, "phase": plan["streams"].index(name) / len(plan["streams"])}
            stream(name).plan = own
            stream(name).going.set()
        else:
            task = asyncio.create_task(fan_out(name, plan))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    return JSONResponse({})


async def events(request):
    name = request.path_params["name"]
    source = queued(name) if request.query_params.get("shared") else paced(name)
    if KIND == "sse-starlette":
        return EventSourceResponse({"id": str(number), "data": data} async for number, data in source)
    return StreamingResponse((frame(number, data) async for number, data in source), media_type="text/event-stream")


def main():
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", 0))
    listening.listen(4096)
    print(json.dumps({"port": listening.getsockname()[1]}), flush=True)  # noqa: T201  the pipe to the harness
    app = Starlette(routes=[Route("/events/{name}", events), Route("/go", go, methods=["POST"])])
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listening])


main()
