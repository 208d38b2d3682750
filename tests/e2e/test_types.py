"""penstock.js is what its types say: checked by the TypeScript compiler, as an editor does it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.e2e.declarations import DECLARATIONS, WEB, compiler_in, complaints, declarations

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
    return compiler_in(tmp_path_factory.mktemp("typescript"))


def check(compiler: Path, folder: Path, **files: str) -> str:
    """What the compiler complains of, in the modules, their types and these files beside them."""
    web = shutil.copytree(WEB, folder / "web")
    (web / "penstock.js").rename(web / "real.js")
    for name, text in files.items():
        (web / f"{name}.ts").write_text(text)
    return complaints(compiler, web, ["real.js", *(f"{name}.ts" for name in files)], noEmit=True)


# R-19 R-109
def test_the_modules_are_what_their_types_say(compiler: Path, tmp_path: Path) -> None:
    assert check(compiler, tmp_path, agree=AGREE, use=USE) == ""


def test_a_fault_in_types_is_seen(compiler: Path, tmp_path: Path) -> None:
    assert "TS2322" in check(compiler, tmp_path, wrong=AGREE.replace("typeof declared = real", "number = real"))


def test_the_types_are_as_the_code_has_them(compiler: Path, tmp_path: Path) -> None:
    stored = (WEB / DECLARATIONS).read_text(encoding="utf-8")
    assert declarations(compiler, tmp_path) == stored, "to bring it up to date: python -m tests.e2e.declarations"


def test_a_signature_is_changed_in_the_code_alone(compiler: Path, tmp_path: Path) -> None:
    web = shutil.copytree(WEB, tmp_path / "web")
    code = (web / "penstock.js").read_text(encoding="utf-8")
    (web / "penstock.js").write_text(code.replace("  close() {", "  close(later = 0) {"), encoding="utf-8")
    told = (WEB / DECLARATIONS).read_text(encoding="utf-8").replace(" close(): void;", " close(later?: number): void;")
    assert declarations(compiler, tmp_path, web) == told


def test_what_the_compiler_complains_of_is_not_declared(compiler: Path, tmp_path: Path) -> None:
    web = shutil.copytree(WEB, tmp_path / "web")
    types = (web / "types.d.ts").read_text(encoding="utf-8")
    (web / "types.d.ts").write_text(types.replace("interface Abortable", "interface Endable"), encoding="utf-8")
    with pytest.raises(TypeError, match="Abortable"):
        declarations(compiler, tmp_path, web)


def test_an_application_needs_one_file_of_types(compiler: Path, tmp_path: Path) -> None:
    shutil.copy(WEB / DECLARATIONS, tmp_path)
    (tmp_path / "use.ts").write_text(USE)
    assert complaints(compiler, tmp_path, ["use.ts"], allowJs=False, checkJs=False, noEmit=True) == ""
