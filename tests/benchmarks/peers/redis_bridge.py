"""Redis Streams with the least that makes event streams of them: Starlette on uvicorn, XADD and XREAD.

Started in the peers' own environment with the port of a Redis server; prints its own port. ``POST /go`` lets it write
(at once: pipelines of 128; at a pace: one XADD each), ``POST /write`` does so and answers with the time it took.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time

import redis.asyncio
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from tests.benchmarks.payload import body, frame, stamped

PIPELINE = 128
PAGE = 500

client = redis.asyncio.Redis(host="127.0.0.1", port=int(sys.argv[1]), max_connections=4096, protocol=2)


async def write(plan):
    """Into all streams in turn, as fast as it goes; the seconds until all is acknowledged."""
    names, begun = plan["streams"], time.perf_counter()
    begin = plan["begin"] or time.monotonic_ns()
    for start in range(0, plan["count"] * len(names), PIPELINE):
        async with client.pipeline(transaction=False) as pipe:
            for place in range(start, min(start + PIPELINE, plan["count"] * len(names))):
                name, number = names[place % len(names)], place // len(names) + 1
                pipe.xadd(name, {"d": body(name, number, stamped(begin, plan["size"]))})
            await pipe.execute()
    return time.perf_counter() - begun


async def write_paced(name, plan, phase):
    for number in range(plan["count"]):
        due = plan["begin"] + int((number + phase) * 1e9 / plan["rate"])
        left = due - time.monotonic_ns()
        if left > 0:
            await asyncio.sleep(left / 1e9)
        await client.xadd(name, {"d": body(name, number + 1, stamped(due, plan["size"]))})


tasks = set()


async def go(request):
    plan = await request.json()
    names = plan["streams"]
    if plan["rate"]:
        started = [write_paced(name, plan, place / len(names)) for place, name in enumerate(names)]
    else:
        started = [write(plan)]
    for coroutine in started:
        task = asyncio.create_task(coroutine)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    return JSONResponse({})


async def write_now(request):
    return JSONResponse({"seconds": await write(await request.json())})


async def events(request):
    name = request.path_params["name"]

    async def frames():
        yield b": begun\n\n"
        last, number = "0-0", 0
        while True:
            for _, entries in await client.xread({name: last}, count=PAGE, block=5000):
                joined = []
                for entry, fields in entries:
                    last, number = entry, number + 1
                    joined.append(frame(number, fields[b"d"].decode()))
                yield b"".join(joined)

    return StreamingResponse(frames(), media_type="text/event-stream")


def main():
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(4096)
    print(json.dumps({"port": listening.getsockname()[1]}), flush=True)  # noqa: T201  the pipe to the harness
    routes = [
        Route("/events/{name}", events),
        Route("/go", go, methods=["POST"]),
        Route("/write", write_now, methods=["POST"]),
    ]
    config = uvicorn.Config(
        Starlette(routes=routes), log_level="warning", access_log=False, timeout_graceful_shutdown=1
    )
    uvicorn.Server(config).run(sockets=[listening])


main()
