"""How large the code is, in figures that can be compared: of this checkout, or of another one.

    python -m tests.size
    ../before/.venv/bin/python tests/size.py ../before

Whatever is counted is counted from the sources, and "on the way" from a run: the functions of the engine that are
called while one piece of text goes from ``Block.write`` to its reader, in memory.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

__all__ = ["main"]

# Past this many lines a module may hold a second idea.
_LONG: Final = 350


def modules(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*.py")) if "__pycache__" not in path.parts)


def lines(folder: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in modules(folder))


def arrows(folder: Path) -> set[tuple[str, str]]:
    """Which package or module at the top of the folder imports from which, by relative imports."""
    found: set[tuple[str, str]] = set()
    for path in modules(folder):
        inside = path.relative_to(folder).with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                package = inside[: len(inside) - node.level]
                named = (*package, *(node.module or "").split("."))
                targets = [named] if node.module else [(*package, alias.name) for alias in node.names]
                found |= {(inside[0], target[0]) for target in targets if target and target[0]}
    there = {path.name.removesuffix(".py") for path in folder.iterdir()}  # other targets are names, not modules
    return {(above, below) for above, below in found if above != below and {above, below} <= there - {"__init__"}}


def protocols(folder: Path) -> list[str]:
    return [
        node.name
        for path in modules(folder)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        and any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases)
    ]


def comments(folder: Path) -> tuple[int, int]:
    """Lines that are comments, and lines of docstrings."""
    hashes = strings = 0
    for path in modules(folder):
        text = path.read_text()
        hashes += sum(
            token.type == tokenize.COMMENT and "noqa" not in token.string and "type:" not in token.string
            for token in tokenize.generate_tokens(io.StringIO(text).readline)
        )
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
                first = node.body[0]
                if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                    strings += (first.end_lineno or first.lineno) - first.lineno + 1
    return hashes, strings


def on_the_way(folder: Path) -> tuple[int, int, int]:
    """How many functions one piece of text goes through, their lines, and how many modules they stand in."""
    sys.path[:0] = [str(folder.parent / ".dev"), str(folder.parent)]
    import trio
    import trio.testing

    try:
        from penstock import engine
    except ImportError:
        import engine  # type: ignore[no-redef]
    called: set[CodeType] = set()

    def look(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and str(Path(frame.f_code.co_filename).resolve()).startswith(f"{folder}/"):
            called.add(frame.f_code)

    async def run() -> None:
        written = trio.Event()

        async def producer(generation: engine.Generation) -> None:
            async with generation.message() as message, message.text() as block:
                await block.write("the first makes the way")
                await written.wait()
                sys.setprofile(look)
                await block.write("the second goes it")
                await trio.sleep_forever()

        async with engine.open_engine(engine.MemoryLog()) as opened:
            session = await opened.create_session("s")
            async with session.subscribe() as events:
                await session.start(producer)
                async for event in events:
                    if event.type == "block.delta" and not written.is_set():
                        written.set()
                    elif event.type == "block.delta":
                        sys.setprofile(None)
                        break

    trio.run(run)
    functions = [code for code in called if not code.co_name.startswith("<")]
    spans = [max(line for *_, line in code.co_lines() if line) - code.co_firstlineno + 1 for code in functions]
    return len(functions), sum(spans), len({code.co_filename for code in functions})


def main() -> None:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1]).resolve()
    engine = root / "engine"
    top = [path for path in engine.iterdir() if path.suffix == ".py" or list(path.glob("*.py"))]
    found = {
        "lines of engine, adapters, tests": " / ".join(
            str(lines(root / name)) for name in ("engine", "adapters", "tests")
        ),
        "packages and modules at the top of engine": len(top) - 1,
        "arrows between them": len(arrows(engine)),
        "modules of engine, longer than 350 lines": f"{len(list(modules(engine)))}, "
        f"{sum(len(path.read_text().splitlines()) > _LONG for path in modules(engine))}",
        "Protocols in engine": ", ".join(sorted(protocols(engine))) or "none",
        "lines of comments, of docstrings in engine": "{}, {}".format(*comments(engine)),
        "one delta on its way: functions, lines, modules": "{}, {}, {}".format(*on_the_way(engine)),
    }
    for name, value in found.items():
        sys.stdout.write(f"{name:<50} {value}\n")


if __name__ == "__main__":
    main()
