"""penstock.js is what its types say: checked by the TypeScript compiler, as an editor does it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.e2e.node import TYPESCRIPT, install

WEB = Path(__file__).parents[2] / "adapters" / "web"
MODULES = ("asking.js", "fold.js", "lines.js", "shapes.js")

# `penstock.js` is put aside under another name: beside its declaration the compiler would not look at it.
AGREE = """
import * as declared from "./penstock.js";
import * as real from "./real.js";
export const kept: typeof declared = real;
export const whole: Exclude<keyof typeof real, keyof typeof declared> extends never ? true : never = true;
"""

# As in a React application.
USE = """
import { Client, type Message, type Snapshot } from "./penstock.js";
declare function useSyncExternalStore<T>(subscribe: (changed: () => void) => () => void, getSnapshot: () => T): T;
const client = new Client({ token: async ({ refused }) => (refused ? "new" : "old") });
const session = client.session("s", { over: "websocket" });
const snapshot: Snapshot = useSyncExternalStore(session.subscribe, session.getSnapshot);
const last: Message | undefined = snapshot.messages.at(-1);
export const text: string = last?.blocks.map((block) => block.text ?? "").join("") ?? "";
// @ts-expect-error nothing of a snapshot can be changed
snapshot.messages.push(last!);
// @ts-expect-error there is no such policy
void session.start({ text: "x", policy: "whatever" });
"""


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("typescript"), TYPESCRIPT) / ".bin" / "tsc"


def check(compiler: Path, folder: Path, **files: str) -> str:
    """What the compiler complains of."""
    for name in MODULES:
        (folder / name).write_text((WEB / name).read_text())
    (folder / "penstock.d.ts").write_text((WEB / "penstock.d.ts").read_text())
    (folder / "real.js").write_text((WEB / "penstock.js").read_text())
    for name, text in files.items():
        (folder / f"{name}.ts").write_text(text)
    options = {
        "allowJs": True,
        "checkJs": True,
        "strict": True,
        "noUnusedLocals": True,
        "noImplicitReturns": True,
        "noEmit": True,
        "target": "es2022",
        "module": "es2022",
        "moduleResolution": "bundler",
        "lib": ["es2022", "dom", "dom.iterable", "dom.asynciterable"],
        "types": [],
    }
    config = {"compilerOptions": options, "files": ["real.js", *MODULES, *(f"{name}.ts" for name in files)]}
    (folder / "tsconfig.json").write_text(json.dumps(config))
    command = [str(compiler), "-p", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout


# R-19 R-109
def test_the_modules_are_what_their_types_say(compiler: Path, tmp_path: Path) -> None:
    assert check(compiler, tmp_path, agree=AGREE, use=USE) == ""


def test_a_fault_in_types_is_seen(compiler: Path, tmp_path: Path) -> None:
    assert "TS2322" in check(compiler, tmp_path, wrong=AGREE.replace("typeof declared = real", "number = real"))
