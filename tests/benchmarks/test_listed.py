"""B11's sessions stand in the list where they are looked for, and what holds a loop is noted."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import trio

from penstock.adapters.requests.listing import Place, list_sessions
from penstock.engine import MemoryLog, open_engine
from tests.benchmarks import listed
from tests.benchmarks.holds import Holds, holds

_SESSIONS = 400


async def everything(_: str) -> bool:
    return True


@pytest.mark.parametrize("whose", listed.PATTERNS)
async def test_sessions_are_in_the_pages_that_are_expected(whose: str) -> None:
    log = MemoryLog()
    for number in range(_SESSIONS):
        await log.write(listed.append(number))
    async with open_engine(log) as engine:

        async def page(behind: int | None, limit: int) -> list[str]:
            after = None if behind is None else Place.parse(listed.place(behind), "updated")
            bodies, _ = await list_sessions(
                engine, [listed.PATTERNS[whose]], everything, order="updated", after=after, page_size=limit
            )
            return [msgspec.json.decode(body)["session_id"] for body in bodies]

        assert await page(None, 2) == listed.page(whose, _SESSIONS, 2)
        for behind, limit in ((_SESSIONS // 2, 2), (_SESSIONS // 2, 1000), (37, 10)):
            assert await page(behind, limit) == listed.page(whose, behind, limit)
    shares = {"all": 1, "tenth": 10, "hundredth": 100}
    assert len(listed.page(whose, _SESSIONS, _SESSIONS)) == _SESSIONS // shares[whose]


async def test_a_session_has_a_title_and_a_question() -> None:
    log = MemoryLog()
    await log.write(listed.append(7))
    async with open_engine(log) as engine:
        (told,) = await engine.sessions()
        assert (told.session_id, told.updated) == (listed.session_id(7), "2025-01-01T00:00:07.000Z")
        assert told.title == "The upper lake, part 7"
        assert told.last is not None
        snapshot = await (await engine.session(told.session_id)).snapshot()
        assert snapshot.messages[0].blocks[0].text == told.last.text


def hold() -> None:
    time.sleep(0.1)


async def test_what_holds_the_loop_is_noted() -> None:
    async def work() -> None:
        hold()

    noted = Holds()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(noted.run)
        assert await noted.during(work) > 0.09
        nursery.cancel_scope.cancel()


async def test_what_holds_a_server_is_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "held"
    async with open_engine(MemoryLog(), producers={"holds": holds}) as engine:
        session = await engine.create_session()
        await session.start("holds", input={"path": str(path)})
        await until(path.exists)
        hold()
        await until(lambda: float(path.read_text()) > 0.09)


async def until(come: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not come():  # noqa: ASYNC110  nobody tells of it
            await trio.sleep(0.01)
