"""`StubbornProducer`: a producer that does not let itself be cancelled, and writes when it must not."""

from __future__ import annotations

from typing import Final, final

import trio

from .. import Generation

__all__ = ["StubbornProducer"]


@final
class StubbornProducer:
    """Says something, waits until it is cancelled, shields itself for so many seconds, then tries to write.

    With more seconds than `Config.cleanup_timeout` its clean-up overruns: the engine goes on without it, fences it
    and counts it as a straggler. ``errors`` has what its late writes raised; ``started``, ``cancelled`` and ``over``
    are set when the first call gets there.

    Example::

        async def test_nothing_comes_behind_the_end(autojump_clock: MockClock) -> None:
            stubborn = StubbornProducer(60)
            async with open_test_engine() as test:
                session = await test.engine.create_session()
                await session.start(stubborn)
                await stubborn.started.wait()
                stopped = await session.stop()
                assert stopped.state == "stopping"
                await stubborn.over.wait()
                assert [type(error) for error in stubborn.errors] == [StaleGeneration]
                assert (await test.events(session))[-1].type == "generation.finished"
    """

    def __init__(self, seconds: float, *, text: str = "begun", late: str = "late") -> None:
        self.started: Final = trio.Event()
        self.cancelled: Final = trio.Event()
        self.over: Final = trio.Event()
        self.errors: list[Exception] = []
        self._seconds = seconds
        self._text = text
        self._late = late

    async def __call__(self, generation: Generation) -> None:
        try:
            async with generation.message() as message, message.text() as block:
                await block.write(self._text)
                self.started.set()
                try:
                    await trio.sleep_forever()
                finally:
                    self.cancelled.set()
                    with trio.move_on_after(self._seconds, shield=True):
                        await trio.sleep_forever()
                    try:
                        await block.write(self._late)
                    except Exception as error:  # noqa: BLE001  whatever it is, the test wants to see it
                        self.errors.append(error)
        finally:
            self.over.set()
