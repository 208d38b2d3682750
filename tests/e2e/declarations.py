"""Writes ``penstock.d.ts``, the types of penstock.js. Needs node and npm.

    python -m tests.e2e.declarations

Nothing in it is written twice. Events, states and options are types of ``types.d.ts``, written by hand; classes and
functions, with their comments, are declared by the TypeScript compiler from the JavaScript. The compiler makes one file
of each module, and they are joined here: an application copies one file of types, as it always did, and does not see
what the modules have for each other only (``@internal``).
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.node import TYPESCRIPT, install

__all__ = ["DECLARATIONS", "WEB", "compiler_in", "complaints", "declarations"]

WEB: Final = Path(__file__).resolve().parents[2] / "adapters" / "web"
DECLARATIONS: Final = "penstock.d.ts"

_HEAD: Final = (
    "/* The types of penstock.js. Written by `python -m tests.e2e.declarations`, from the JavaScript and types.d.ts. */"
)

# A class or function, with its comment. Imports, and aliases of types in types.d.ts, mean nothing in one file.
_DECLARED: Final = re.compile(r"^(?:/\*\*.*\*/\n|/\*\*\n(?: \*.*\n)+)?export declare .*\n(?:[ }].*\n)*", re.MULTILINE)

# With this in a class only its own objects are of its type: an application's tests could put nothing in their place.
_PRIVATE: Final = "    #private;\n"


def compiler_in(folder: Path) -> Path:
    """The TypeScript compiler, installed into the folder; where it cannot be had, that is a skipped test."""
    return install(folder, TYPESCRIPT) / ".bin" / "tsc"


def complaints(compiler: Path, folder: Path, files: list[str], **options: object) -> str:
    """What the compiler says of the files; nothing if all is well. Its configuration is written into the folder."""
    strictly = {
        "allowJs": True,
        "checkJs": True,
        "strict": True,
        "noUnusedLocals": True,
        "noImplicitReturns": True,
        "target": "es2022",
        "module": "es2022",
        "moduleResolution": "bundler",
        "lib": ["es2022", "dom", "dom.iterable", "dom.asynciterable"],
        "types": [],
    }
    config = {"compilerOptions": strictly | options, "files": files}
    (folder / "tsconfig.json").write_text(json.dumps(config))
    command = [str(compiler), "-p", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout


def declarations(compiler: Path, folder: Path, web: Path = WEB) -> str:
    """The text of the file, by what the files in ``web`` say; the compiler's own files come into the other folder.

    Raises:
        TypeError: the compiler complains of the JavaScript or its types; the message is what it says
    """
    emitted = {"declaration": True, "emitDeclarationOnly": True, "stripInternal": True}
    places = {"rootDir": str(web), "outDir": str(folder / "declared")}
    said = complaints(compiler, folder, [str(web / "penstock.js")], **emitted, **places)
    if said:
        raise TypeError(said)
    types = (web / "types.d.ts").read_text(encoding="utf-8")
    _, _, types = types.partition("\n\n")  # without its head, which is for those who change it
    modules = [each.read_text(encoding="utf-8") for each in sorted((folder / "declared").iterdir())]
    declared = [each.replace(_PRIVATE, "") for module in modules for each in _DECLARED.findall(module)]
    return "\n".join([_HEAD + "\n", types, *declared])


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="penstock-types-") as folder:
        try:
            compiler = compiler_in(Path(folder) / "typescript")
        except pytest.skip.Exception as missing:
            raise SystemExit(str(missing)) from None
        (WEB / DECLARATIONS).write_text(declarations(compiler, Path(folder)), encoding="utf-8")


if __name__ == "__main__":
    main()
