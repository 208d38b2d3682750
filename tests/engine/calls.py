"""Every public method that takes something, and how it is called rightly: for tests that then give it something wrong.

`METHODS` is found by looking, so that a new method, or a new argument of one, that `CALLS` does not have is told.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, final

import trio
from attrs import define, field, frozen

from penstock.engine import (
    ApprovalRequested,
    Block,
    Chunk,
    Cursor,
    Engine,
    Generation,
    Input,
    InvalidBody,
    InvalidId,
    Message,
    PenstockError,
    Pieces,
    Producer,
    ProducerStamp,
    Session,
    new_generation_id,
    new_message_id,
)

__all__ = ["CALLS", "EXCLUDED", "METHODS", "PRODUCERS", "Given", "Scene"]


def _found() -> dict[str, tuple[str, ...]]:
    """The methods with arguments, and these."""
    found: dict[str, tuple[str, ...]] = {}
    for owner in (Engine, Session, Generation, Message, Block):
        for name, method in inspect.getmembers(owner, inspect.isfunction):
            arguments = tuple(inspect.signature(method).parameters)[1:]
            if arguments and not name.startswith("_"):
                found[f"{owner.__name__}.{name}"] = arguments
    return found


METHODS: Final[Mapping[str, tuple[str, ...]]] = _found()

EXCLUDED: Final[Mapping[str, str]] = {
    "Engine.resident": "the session's own way to what is in memory, with an id that was checked",
    "Engine.carry_out": "for other engines: `test_forwarding` gives it what none of them asks",
    "Engine.drain": "ends the engine: it has a test of its own",
}


@final
@define
class Given:
    """One call under way: ``argument`` gets a value that may be wrong, all others are right.

    What the method refuses as such is refused before anything is written or cancelled.
    """

    method: str
    argument: str | None
    value: object
    refused: list[Exception] = field(factory=list)
    made: bool = False

    async def __call__(self, bound: Callable[..., Any], /, **right: object) -> Any:
        """Call it, and use what it gives as it is meant to be used. What it raises is noted, if it may be raised."""
        expected = METHODS[self.method]
        assert tuple(sorted(right)) == tuple(sorted(expected)), f"{self.method} has the arguments {expected}"
        given = right if self.argument is None else {**right, self.argument: self.value}
        self.made = True
        before = await self._stored(bound)
        try:
            return await _used(bound(**given))
        except PenstockError as error:
            self.refused.append(error)
            if isinstance(error, InvalidBody | InvalidId):
                assert await self._stored(bound) == before, "something was written all the same"
            return None

    @staticmethod
    async def _stored(bound: object) -> Cursor | None:
        """Where the session stands that the method is of."""
        session = getattr(bound, "__self__", None)
        return await session.cursor() if isinstance(session, Session) else None


async def _used(result: object) -> object:
    if isinstance(result, Message):
        async with result, result.text() as block:
            await block.write("x")
        return None
    if isinstance(result, AbstractAsyncContextManager):
        async with result as entered:
            return entered
    if isinstance(result, Awaitable):
        return await result
    return result


@final
@frozen
class Scene:
    """A session that has been used: a message was posted, one was answered, and what the call needs is there."""

    engine: Engine
    session: Session
    message_id: str
    generation_id: str

    async def inside(self, work: Callable[[Generation], Awaitable[None]]) -> None:
        """Do it as a producer, and wait until that has ended, or waits for somebody."""
        begun = trio.Event()

        async def producer(generation: Generation) -> None:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._release, begun)
                    await work(generation)
                    nursery.cancel_scope.cancel()
            finally:
                begun.set()

        await self.session.start(producer)
        await begun.wait()

    @staticmethod
    async def _release(begun: trio.Event) -> None:
        await trio.sleep(0.3)  # an approval waits until it is stopped
        begun.set()


_Call = Callable[[Scene, Given], Awaitable[None]]


async def _create(scene: Scene, given: Given) -> None:
    await given(scene.engine.create_session, session_id=None, metadata={"a": 1})


async def _session(scene: Scene, given: Given) -> None:
    await given(scene.engine.session, session_id=scene.session.session_id)


async def _sessions(scene: Scene, given: Given) -> None:
    await given(scene.engine.sessions, after="", limit=3, order="id", updated=None, prefix="", most_bytes=1000)


async def _sessions_by_activity(scene: Scene, given: Given) -> None:
    updated = "2026-01-01T00:00:00.000Z"
    await given(
        scene.engine.sessions, after="x", limit=3, order="updated", updated=updated, prefix="s", most_bytes=1000
    )


async def _watch(scene: Scene, given: Given) -> None:
    await given(scene.engine.watch, after=None, wants=None)


async def _take_over(scene: Scene, given: Given) -> None:
    await given(scene.engine.take_over, owner="another")


async def _find_node(scene: Scene, given: Given) -> None:
    await given(scene.engine.find_node, name="another")


async def _redeem(scene: Scene, given: Given) -> None:
    await given(scene.engine.redeem, ticket_id="ticket", ttl=60)


async def _delete_session(scene: Scene, given: Given) -> None:
    other = await scene.engine.create_session()
    await given(scene.engine.delete_session, session_id=other.session_id)


async def _file(scene: Scene) -> str:
    return (await scene.session.keep_file(b"x", media_type="text/plain")).file.file_id


async def _question(scene: Scene) -> dict[str, Any]:
    file: dict[str, Any] = {"kind": "file", "file_id": await _file(scene)}
    return {"blocks": [{"kind": "text", "text": "x"}, file], "message_id": new_message_id(), "metadata": {"a": 1}}


async def _start(scene: Scene, given: Given) -> None:
    # Of a text and a message a start has one.
    brings = "message" if given.argument in ("message", None) else "text"
    await given(
        scene.session.start,
        producer="say",
        text="x" if brings == "text" else None,
        message=await _question(scene) if brings == "message" else None,
        input={"a": 1},
        policy="supersede",
        job_id="job",
        generation_id=new_generation_id(),
        metadata={"a": 1},
        replaces=scene.message_id,
        on_last_disconnect=60.0,
        idle_limit=60.0,
        continues=None,  # a message is continued without text, and with nothing replaced: `_continue`
        idempotency_key="key",
        principal="somebody",
        author="ann",
    )


async def _continue(scene: Scene, given: Given) -> None:
    await given(
        scene.session.start,
        producer="say",
        text=None,
        message=None,
        input={"a": 1},
        policy="supersede",
        job_id="job",
        generation_id=new_generation_id(),
        metadata={"a": 1},
        replaces=None,
        on_last_disconnect=60.0,
        idle_limit=60.0,
        continues=scene.message_id,
        idempotency_key="key",
        principal="somebody",
        author="ann",
    )


async def _queue_and_start(scene: Scene, given: Given) -> None:
    """The same, behind one that is live: what waits is stored in another form."""
    await scene.session.start("wait")
    await _start(scene, given)


async def _stop(scene: Scene, given: Given) -> None:
    live = await scene.session.start("wait")
    await scene.session.start("say", policy="queue")
    await given(scene.session.stop, generation_id=live.generation_id, reason="enough", queue="pause", author="ann")


async def _dequeue(scene: Scene, given: Given) -> None:
    await scene.session.start("wait")
    queued = await scene.session.start("say", policy="queue")
    await given(scene.session.dequeue, generation_id=queued.generation_id)


async def _post(scene: Scene, given: Given) -> None:
    right = {"role": "user", "message_id": new_message_id(), "metadata": {"a": 1}, "author": "ann"}
    if given.argument == "blocks" or given.argument is None:
        await given(scene.session.post, text=None, blocks=[{"kind": "text", "text": "x"}], **right)
    else:
        await given(scene.session.post, text="x", blocks=None, **right)


async def _retract(scene: Scene, given: Given) -> None:
    await given(scene.session.retract, message_id=scene.message_id, and_after=False)


async def _replaced(scene: Scene) -> str:
    """The id of a version that another one stands in place of."""
    await scene.session.start("say", text="anew", replaces=scene.message_id)
    await trio.sleep(0.3)
    return scene.message_id


async def _versions(scene: Scene, given: Given) -> None:
    await given(scene.session.versions, message_id=await _replaced(scene), after=0, limit=2)


async def _restore(scene: Scene, given: Given) -> None:
    message_id = await _replaced(scene)
    await given(scene.session.restore, message_id=message_id, idempotency_key="key", principal="somebody")


async def _update(scene: Scene, given: Given) -> None:
    await given(scene.session.update, patch={"a": {"b": None}})


async def _reset(scene: Scene, given: Given) -> None:
    await given(scene.session.reset, reason="anew")


async def _fork(scene: Scene, given: Given) -> None:
    await given(scene.session.fork, session_id=None, at=scene.message_id, metadata={"a": 1})


async def _subscribe(scene: Scene, given: Given) -> None:
    await given(scene.session.subscribe, after="now", live=True, snapshot=True, limit=1)


async def _snapshot(scene: Scene, given: Given) -> None:
    await given(scene.session.snapshot, limit=1, before=scene.message_id)


async def _snapshot_page(scene: Scene, given: Given) -> None:
    await given(scene.session.snapshot_page, limit=1, before=scene.message_id)


async def _generation(scene: Scene, given: Given) -> None:
    await given(scene.session.generation, generation_id=scene.generation_id)


async def _wait_fenced(scene: Scene, given: Given) -> None:
    await given(scene.session.wait_fenced, generation_id=scene.generation_id)


async def _keep_file(scene: Scene, given: Given) -> None:
    await given(scene.session.keep_file, content=b"x", media_type="text/plain", filename="a.txt", size=1)


async def _look_at_file(scene: Scene, given: Given) -> None:
    await given(scene.session.file, file_id=await _file(scene))


async def _read_file(scene: Scene, given: Given) -> None:
    await given(scene.session.read_file, file_id=await _file(scene), start=0, limit=1)


async def _own_file(scene: Scene, given: Given) -> None:
    file_id = await _file(scene)
    await scene.inside(lambda generation: given(generation.read_file, file_id=file_id, limit=1))


async def _steer(scene: Scene, given: Given) -> None:
    live = await scene.session.start("wait")
    right = {"kind": "steer", "content": {"text": "x"}, "input_id": "i", "by": "somebody"}
    await given(scene.session.input, generation_id=live.generation_id, **right)


async def _answer(scene: Scene, given: Given) -> None:
    live = await scene.session.start("ask")
    async with scene.session.subscribe(live.cursor) as events:
        asked = (await anext(aiter(events))).data
    assert isinstance(asked, ApprovalRequested)
    content = {"approval_id": asked.approval_id, "approved": True, "reason": "fine", "arguments": {"a": 2}}
    right = {"kind": "approval", "content": content, "input_id": "i", "by": "somebody"}
    await given(scene.session.input, generation_id=live.generation_id, **right)


async def _chunks(scene: Scene, given: Given) -> None:
    chunk = Chunk(generation_id=new_generation_id(), data={"text": "x"})
    await given(scene.session.chunks, chunks=[chunk], stamp=ProducerStamp("p", 0, 0), lease=None)


async def _pieces(scene: Scene, given: Given) -> None:
    pieces = Pieces(generation_id=new_generation_id(), message_id=new_message_id(), texts=("x", "y"))
    await given(scene.session.chunks, chunks=pieces, stamp=ProducerStamp("p", 0, 0), lease=None)


async def _keep(scene: Scene, given: Given) -> None:
    gid = new_generation_id()
    await scene.session.chunks([Chunk(generation_id=gid, data={"text": "x"})], lease=60.0)
    await given(scene.session.keep, generation_id=gid, lease=60.0, stamp=ProducerStamp("p", 0, 0))


async def _finish(scene: Scene, given: Given) -> None:
    gid = new_generation_id()
    await scene.session.chunks([Chunk(generation_id=gid, data={"text": "x"})])
    right = {"outcome": "failed", "code": "MINE", "message": "why", "usage": {"tokens": 1}}
    await given(scene.session.finish, generation_id=gid, stamp=ProducerStamp("p", 0, 0), **right)


async def _put_presence(scene: Scene, given: Given) -> None:
    await given(scene.session.put_presence, actor_id="a", device_id="d", name="Ada", status="typing")


async def _drop_presence(scene: Scene, given: Given) -> None:
    await scene.session.put_presence("a", "d")
    await given(scene.session.drop_presence, actor_id="a", device_id="d")


async def _message(scene: Scene, given: Given) -> None:
    async def work(generation: Generation) -> None:
        right = {"role": "assistant", "message_id": new_message_id(), "metadata": {"a": 1}}
        await given(generation.message, parent_message_id=scene.message_id, **right)

    await scene.inside(work)


async def _status(scene: Scene, given: Given) -> None:
    await scene.inside(lambda generation: given(generation.status, status="thinking", detail={"a": 1}))


async def _own_snapshot(scene: Scene, given: Given) -> None:
    await scene.inside(lambda generation: given(generation.snapshot, limit=1, before=scene.message_id))


async def _app(scene: Scene, given: Given) -> None:
    await scene.inside(lambda generation: given(generation.app, type_="app.note", value={"a": 1}))


async def _report_usage(scene: Scene, given: Given) -> None:
    await scene.inside(lambda generation: given(generation.report_usage, usage={"tokens": 1}))


async def _approve(scene: Scene, given: Given) -> None:
    right = {"name": "rm", "tool_call_id": "c", "arguments": {"a": 1}, "expires_in": 60.0}
    await scene.inside(lambda generation: given(generation.approve, **right))


async def _hand_off(scene: Scene, given: Given) -> None:
    async def work(generation: Generation) -> None:
        async with generation.message() as message:
            await given(generation.hand_off, producer="say", input={"a": 1}, into=message)

    await scene.inside(work)


async def _apply(scene: Scene, given: Given) -> None:
    async def work(generation: Generation) -> None:
        await scene.session.input(generation.generation_id, "steer", {"text": "x"})
        taken: Input = await generation.receive_input()
        await given(generation.apply, input=taken)

    await scene.inside(work)


async def _message_finish(scene: Scene, given: Given) -> None:
    async def work(generation: Generation) -> None:
        async with generation.message() as message:
            await given(message.finish, reason="stop", usage={"tokens": 1})

    await scene.inside(work)


async def _tool_call(scene: Scene, given: Given) -> None:
    async def work(generation: Generation) -> None:
        async with generation.message() as message:
            await given(message.tool_call, tool_call_id="c", name="look")

    await scene.inside(work)


async def _tool_result(scene: Scene, given: Given) -> None:
    async def work(generation: Generation) -> None:
        async with generation.message(role="tool") as message:
            await given(message.tool_result, tool_call_id="c", name="look")

    await scene.inside(work)


async def _data(scene: Scene, given: Given) -> None:
    async def work(generation: Generation) -> None:
        async with generation.message() as message:
            await given(message.data, name="chart")

    await scene.inside(work)


async def _image(scene: Scene, given: Given) -> None:
    async def work(generation: Generation) -> None:
        async with generation.message() as message:
            file_id = None if given.argument == "url" else "f"
            url = "https://example.org/" if given.argument == "url" else None
            await given(message.image, file_id=file_id, url=url, media_type="image/png", filename="a.png")

    await scene.inside(work)


async def _named_file(scene: Scene, given: Given) -> None:
    async def work(generation: Generation) -> None:
        async with generation.message() as message:
            file_id = "f" if given.argument == "file_id" else None
            url = None if given.argument == "file_id" else "https://example.org/"
            await given(message.file, file_id=file_id, url=url, media_type="text/plain", filename="a.txt")

    await scene.inside(work)


async def _source(scene: Scene, given: Given) -> None:
    async def work(generation: Generation) -> None:
        async with generation.message() as message:
            file_id = "f" if given.argument == "file_id" else None
            url = None if given.argument == "file_id" else "https://example.org/"
            await given(message.source, url=url, file_id=file_id, title="A")

    await scene.inside(work)


async def _write(scene: Scene, given: Given) -> None:
    async def work(generation: Generation) -> None:
        async with generation.message() as message, message.text() as block:
            await given(block.write, text="x")
            await block.write("y")

    await scene.inside(work)


async def _put(scene: Scene, given: Given) -> None:
    async def work(generation: Generation) -> None:
        async with generation.message() as message, message.data() as block:
            await given(block.put, value={"a": 1})
            await block.put(2)

    await scene.inside(work)


async def _block_finish(scene: Scene, given: Given) -> None:
    async def work(generation: Generation) -> None:
        async with generation.message(role="tool") as message, message.tool_result("c") as block:
            await block.write("x")
            await given(block.finish, text="x", arguments={"a": 1}, value={"a": 1}, is_error=False)

    await scene.inside(work)


# Of a method that does more than one thing, each thing.
CALLS: Final[Mapping[str, tuple[_Call, ...]]] = {
    "Engine.create_session": (_create,),
    "Engine.session": (_session,),
    "Engine.sessions": (_sessions, _sessions_by_activity),
    "Engine.watch": (_watch,),
    "Engine.delete_session": (_delete_session,),
    "Engine.take_over": (_take_over,),
    "Engine.find_node": (_find_node,),
    "Engine.redeem": (_redeem,),
    "Session.start": (_start, _queue_and_start, _continue),
    "Session.stop": (_stop,),
    "Session.dequeue": (_dequeue,),
    "Session.post": (_post,),
    "Session.retract": (_retract,),
    "Session.versions": (_versions,),
    "Session.restore": (_restore,),
    "Session.update": (_update,),
    "Session.reset": (_reset,),
    "Session.fork": (_fork,),
    "Session.subscribe": (_subscribe,),
    "Session.snapshot": (_snapshot,),
    "Session.snapshot_page": (_snapshot_page,),
    "Session.generation": (_generation,),
    "Session.wait_fenced": (_wait_fenced,),
    "Session.keep_file": (_keep_file,),
    "Session.file": (_look_at_file,),
    "Session.read_file": (_read_file,),
    "Session.input": (_steer, _answer),
    "Session.chunks": (_chunks, _pieces),
    "Session.keep": (_keep,),
    "Session.finish": (_finish,),
    "Session.put_presence": (_put_presence,),
    "Session.drop_presence": (_drop_presence,),
    "Generation.message": (_message,),
    "Generation.status": (_status,),
    "Generation.snapshot": (_own_snapshot,),
    "Generation.read_file": (_own_file,),
    "Generation.app": (_app,),
    "Generation.report_usage": (_report_usage,),
    "Generation.approve": (_approve,),
    "Generation.hand_off": (_hand_off,),
    "Generation.apply": (_apply,),
    "Message.finish": (_message_finish,),
    "Message.tool_call": (_tool_call,),
    "Message.tool_result": (_tool_result,),
    "Message.data": (_data,),
    "Message.image": (_image,),
    "Message.file": (_named_file,),
    "Message.source": (_source,),
    "Block.write": (_write,),
    "Block.put": (_put,),
    "Block.finish": (_block_finish,),
}


async def _ask(generation: Generation) -> None:
    await generation.approve("rm", arguments={"a": 1})


async def _say(generation: Generation) -> None:
    async with generation.message() as message, message.text() as block:
        await block.write("said")


async def _wait(generation: Generation) -> None:
    await trio.sleep_forever()


PRODUCERS: Final[Mapping[str, Producer]] = {"say": _say, "wait": _wait, "ask": _ask}
