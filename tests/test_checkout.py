"""Which code the tests are about: that of the checkout that they stand in."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.checkout import ROOT

# As `--producer` takes them: a module, a colon, and a name in it.
NAMED = re.compile(r"(?<![\w./-])((?:penstock|engine|adapters)(?:\.\w+)+):([a-z_]\w*)")


@pytest.mark.parametrize("package", ["penstock.engine", "penstock.adapters", "tests.checkout"])
def test_a_child_process_finds_this_checkout_first(package: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", f"import {package} as found; print(found.__file__)"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert Path(told.strip()).resolve().is_relative_to(ROOT)


def test_what_is_named_for_the_command_line_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """In documents, docstrings and tests, wherever they show it."""
    found: set[tuple[str, str]] = set()
    for path in [*ROOT.rglob("*.md"), *ROOT.rglob("*.py")]:
        if not path.relative_to(ROOT).parts[0].startswith("."):
            found.update(NAMED.findall(path.read_text()))
    assert len(found) >= 2
    assert all(module.startswith("penstock.") for module, _ in found), "nothing else of it is installed"
    monkeypatch.setenv("PENSTOCK_MODEL", "openai:small")  # the example asks for it
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    for module, name in found:
        assert callable(getattr(import_module(module), name)), f"{module}:{name}"
