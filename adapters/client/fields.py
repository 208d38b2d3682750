"""A success answer's fields, read strictly: what is not there, or is something else, is told by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from penstock.engine import JSON, Cursor, InvalidBody, InvalidCursor, JSONObject, decode_json

from .refusals import BadAnswer

__all__ = ["Fields"]


@final
class Fields:
    """One object. Every method raises `BadAnswer`."""

    def __init__(self, value: JSON) -> None:
        if not isinstance(value, Mapping):
            raise BadAnswer("the answer is no object")
        self.value: JSONObject = value

    @classmethod
    def of(cls, body: bytes) -> Fields:
        try:
            return cls(decode_json(body))
        except InvalidBody as error:
            raise BadAnswer(f"the answer cannot be read: {error.detail}") from error

    def __contains__(self, name: str) -> bool:
        return name in self.value

    def text(self, name: str) -> str:
        found = self.value.get(name)
        if not isinstance(found, str):
            raise BadAnswer(f"the answer has no {name}")
        return found

    def text_if_any(self, name: str) -> str | None:
        return self.text(name) if name in self.value else None

    def number(self, name: str) -> int:
        found = self.value.get(name)
        if type(found) is not int:
            raise BadAnswer(f"the answer has no {name}")
        return found

    def seconds(self, name: str) -> float:
        found = self.value.get(name)
        if type(found) is not int and type(found) is not float:
            raise BadAnswer(f"the answer has no {name}")
        return float(found)

    def flag(self, name: str) -> bool:
        return self.value.get(name) is True

    def cursor(self, name: str = "cursor") -> Cursor:
        try:
            return Cursor.parse(self.text(name))
        except InvalidCursor as error:
            raise BadAnswer(f"the answer's {name} is none") from error

    def object(self, name: str) -> Fields:
        return Fields(self.value.get(name))

    def metadata(self) -> JSONObject:
        return self.object("metadata").value

    def list(self, name: str) -> list[Fields]:
        found = self.value.get(name)
        if not isinstance(found, list):
            raise BadAnswer(f"the answer has no {name}")
        return [Fields(item) for item in found]
