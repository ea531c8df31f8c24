"""Fields that reading would drop: found wherever they lie, in whichever option of a union, and no others."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import Struct
from pydantic import BaseModel, ConfigDict

from postline.contracts.kinds import Kind
from postline.contracts.reflection import schema_of
from postline.contracts.unknown import dropped_fields


class Card(Struct, tag="card"):
    number: str


class Cash(Struct, tag="cash"):
    cents: int


class Point(Struct, array_like=True):
    x: int
    y: int


class Order(Struct):
    id: str
    by: Card | Cash | None = None
    parts: list[dict[str, Point]] = []
    after: Order | None = None
    anything: Any = None
    or_text: Point | str = ""


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    id: str


class Closed(BaseModel):
    id: str


def dropped(cls: Any, value: Any) -> list[str]:
    kind = Kind(cls)
    read = kind.decode(msgspec.json.encode(value))
    return dropped_fields(schema_of(cls), value, lambda: msgspec.json.decode(kind.encode(read)))


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        ({"id": "1"}, []),
        ({"id": "1", "no": 1, "on": 2}, ["no", "on"]),
        ({"id": "1", "by": {"type": "cash", "cents": 1}}, []),
        ({"id": "1", "by": {"type": "cash", "cents": 1, "number": "2"}}, ["by.number"]),
        ({"id": "1", "parts": [{"a": [1, 2]}], "or_text": "x"}, []),
        ({"id": "1", "after": {"id": "2", "after": {"id": "3", "later": {}}}}, ["after.after.later"]),
        ({"id": "1", "anything": {"whatever": [1]}}, []),
    ],
)
def test_what_reading_would_drop_is_named_with_its_path(value: Any, paths: list[str]) -> None:
    assert dropped(Order, value) == paths


def test_a_model_that_keeps_what_it_does_not_know_drops_nothing() -> None:
    assert dropped(Open, {"id": "1", "more": 1}) == []
    assert dropped(Closed, {"id": "1", "more": 1}) == ["more"]
