"""What an application sees of an installed penstock: one name at the top, whatever else is installed; its types."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.node import PYRIGHT, install

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]  # it makes an environment first

ROOT: Final = Path(__file__).parents[2]

# Another project of this name is installed as `adapters`, which penstock called its own once.
NEIGHBOUR: Final = "adapters"

PROGRAM: Final = '''
"""A whole application, as a checker sees it."""

from collections.abc import AsyncIterator

import trio
from penstock.adapters.client import Client, connect
from penstock.adapters.http import create_app
from penstock.engine import (
    BlockDelta,
    Chunk,
    Engine,
    Generation,
    GenerationFinished,
    PenstockError,
    Queued,
    Session,
    Started,
    open_engine,
)
from penstock.engine.testing import open_test_engine


async def pieces(generation: Generation) -> AsyncIterator[str]:
    yield f"turn {generation.turn}"


async def worker(generation: Generation) -> None:
    async with generation.message(metadata={"model": "mine"}) as message, message.text() as block:
        await block.write("text")
    if (await generation.approve("rm", arguments={"path": "x"})).approved:
        await generation.hand_off(pieces)


async def ask(session: Session) -> str:
    started: Started = await session.start("worker", text="hello")
    waiting: Started | Queued = await session.start("worker", policy="queue")
    said = ""
    async with session.subscribe(started.cursor) as events:
        async for event in events:
            if isinstance(event.data, BlockDelta) and event.data.text is not None:
                said += event.data.text
            elif isinstance(event.data, GenerationFinished):
                break
    return said + waiting.generation_id


async def from_elsewhere(client: Client) -> None:
    session = await client.create_session("s")
    async with session.events(over="websocket") as events:
        async for event in events:
            print(event.offset, event.type)


async def main() -> None:
    async with open_engine("app.db", producers={"worker": worker, "pieces": pieces}) as engine:
        app = create_app(engine)
        await use(engine)
        print(app.name)
    async with connect("http://127.0.0.1:8420") as client:
        await from_elsewhere(client)
    async with open_test_engine() as test:
        await use(test.engine)


async def use(engine: Engine) -> None:
    session = await engine.create_session("s")
    try:
        print(await ask(session))
        await session.chunks([Chunk(generation_id="x", data={"text": "y"})])
    except PenstockError as error:
        print(error.code, error.session_id)


trio.run(main)
'''

# What must not pass: a checker that sees no types would let all of it through.
WRONG: Final = """
from penstock.engine import Session


async def wrong(session: Session) -> None:
    await session.start("p", policy="whatever")
    await session.post(5)
    print((await session.snapshot()).nothing)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has penstock's wheel, its neighbour and mypy."""
    folder = tmp_path_factory.mktemp("outside")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT))
    (wheel,) = folder.glob("penstock-*.whl")
    run(sys.executable, "-m", "venv", str(folder / "venv"))
    python = folder / "venv" / "bin" / "python"
    run(str(python), "-m", "pip", "install", "--quiet", "--no-deps", NEIGHBOUR)
    run(str(python), "-m", "pip", "install", "--quiet", f"{wheel}[server]", "mypy")
    (folder / "program.py").write_text(PROGRAM)
    (folder / "wrong.py").write_text(WRONG)
    return python


def run(*command: str, code: int = 0, cwd: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=cwd)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def lines_told(output: str) -> set[int]:
    """The lines of `WRONG` that a checker complains of."""
    return {int(number) for number in re.findall(r"wrong\.py:(\d+)", output)}


def folder_of(python: Path) -> Path:
    return python.parents[2]


def test_a_wheel_has_the_two_packages_and_nothing_else_at_its_top(python: Path) -> None:
    (wheel,) = folder_of(python).glob("penstock-*.whl")
    names = {tuple(Path(name).parts[:2]) for name in zipfile.ZipFile(wheel).namelist()}
    info = {name for name in names if name[0].endswith(".dist-info")}
    assert names - info == {("penstock", "engine"), ("penstock", "adapters")}


def test_neither_it_nor_its_neighbour_harms_the_other(python: Path) -> None:
    seen = run(
        str(python),
        "-I",
        "-c",
        "import importlib.metadata as m, importlib.util as u, penstock.engine, penstock.adapters.http\n"
        "print(u.find_spec('adapters').origin)\n"
        "for name in ('adapters', 'penstock'):\n"
        "    assert all(file.locate().exists() for file in m.files(name)), name\n"
        "print(set(map(str, m.files('adapters'))) & set(map(str, m.files('penstock'))))",
    ).split("\n")
    assert seen[0].endswith("site-packages/adapters/__init__.py")
    assert seen[1] == "set()"
    run(str(python), "-m", "pip", "uninstall", "--yes", "--quiet", NEIGHBOUR)
    run(str(python), "-I", "-c", "import penstock.engine, penstock.adapters.http")


def test_an_application_is_clean_under_mypys_strict_rules(python: Path) -> None:
    folder = folder_of(python)
    run(str(python), "-m", "mypy", "--strict", "program.py", cwd=folder)
    told = run(str(python), "-m", "mypy", "--strict", "wrong.py", cwd=folder, code=1)
    assert lines_told(told) == {6, 7, 8}


def test_an_application_is_clean_under_pyright(python: Path, tmp_path: Path) -> None:
    pyright = install(tmp_path, PYRIGHT) / ".bin" / "pyright"
    folder = folder_of(python)
    run(str(pyright), "--pythonpath", str(python), "program.py", cwd=folder)
    told = run(str(pyright), "--pythonpath", str(python), "wrong.py", cwd=folder, code=1)
    assert lines_told(told) == {6, 7, 8}
