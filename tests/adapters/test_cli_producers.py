from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.adapters.cli.producers import LoadError, load_producer, load_producers

MODULE = """
import functools

async def story(generation):
    pass

async def pieces(generation):
    yield "text"

def sync(generation):
    pass

class Model:
    async def __call__(self, generation):
        pass
    async def answer(self, generation):
        pass

model = Model()
bound = functools.partial(story)
number = 7
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "app_of_mine.py").write_text(MODULE)
    (tmp_path / "app_that_fails.py").write_text("1 / 0")
    (tmp_path / "app_that_needs.py").write_text("import no_such_thing_anywhere")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("app_"):
            del sys.modules[name]


@pytest.mark.parametrize("function", ["story", "pieces", "model", "model.answer", "bound"])
def test_every_face_of_a_producer_is_taken(function: str) -> None:
    name, producer = load_producer(f"mine=app_of_mine:{function}")
    assert name == "mine"
    assert callable(producer)


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("story", "NAME=module:function"),
        ("a b=app_of_mine:story", "NAME=module:function"),
        ("mine=app_of_mine", "NAME=module:function"),
        ("mine=app_nowhere:story", "no module 'app_nowhere'"),
        ("mine=app_nowhere.deep:story", "no module 'app_nowhere.deep'"),
        ("mine=app_that_needs:story", "imports 'no_such_thing_anywhere'"),
        ("mine=app_that_fails:story", "ZeroDivisionError"),
        ("mine=app_of_mine:stroy", "has no 'stroy'"),
        ("mine=app_of_mine:number", "is int, not a function"),
        ("mine=app_of_mine:sync", "not async"),
    ],
)
def test_every_mistake_is_named(spec: str, hint: str) -> None:
    with pytest.raises(LoadError) as caught:
        load_producer(spec)
    assert hint in str(caught.value)


def test_one_name_cannot_mean_two_producers() -> None:
    with pytest.raises(LoadError) as caught:
        load_producers(["mine=app_of_mine:story", "mine=app_of_mine:pieces"])
    assert "'mine'" in str(caught.value)
