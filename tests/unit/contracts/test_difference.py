"""What changed between two versions, in words, whether it breaks anybody or not."""

from __future__ import annotations

import enum
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta, Struct

from postline.contracts.difference import differences
from postline.contracts.marks import Sensitive, was
from postline.contracts.reflection import schema_of


class Colour(enum.Enum):
    RED = "red"


class Colours(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Card(Struct, tag="card"):
    number: str


class Cash(Struct, tag="cash"):
    pass


def said(before: Any, after: Any, **options: Any) -> list[tuple[str, str]]:
    """The differences between records of these fields."""
    old = schema_of(msgspec.defstruct("Order", before))
    new = schema_of(msgspec.defstruct("Order", after, **options))
    return [(each.path, each.said) for each in differences(old, new)]


ID = ("id", str)


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        ([ID], [ID], []),
        ([ID], [ID, ("n", int)], [("n", "added: integer, required")]),
        ([ID], [ID, ("n", int, 3)], [("n", "added: integer, 3 by default")]),
        ([ID, ("n", int)], [ID], [("n", "removed (it was integer)")]),
        ([("n", int)], [("m", Annotated[int, was("n")])], [("m", "renamed from n")]),
        ([("n", int)], [("n", float)], [("n", "was integer, is number")]),
        ([("n", int)], [("n", int, 0)], [("n", "is 0 by default now")]),
        ([("n", int, 0)], [("n", int)], [("n", "is required now")]),
        ([("n", int, 0)], [("n", int, 1)], [("n", "its default was 0, is 1")]),
        ([("n", str)], [("n", Sensitive[str])], [("n", "is sensitive now")]),
        ([("n", int)], [("n", Annotated[int, Meta(ge=1)])], [("n", "its limit ge was none, is 1")]),
        ([("n", list[int])], [("n", list[float])], [("n[]", "was integer, is number")]),
        ([("n", int | None)], [("n", int | str | None)], [("n", "may be text now")]),
        ([("n", Card | Cash)], [("n", Card)], [("n", "was Card or Cash, is Card")]),
    ],
)
def test_each_change_is_named_with_its_path(before: Any, after: Any, wanted: list[tuple[str, str]]) -> None:
    assert said(before, after) == wanted


def test_symbols_and_strictness_are_told() -> None:
    assert [each for _, each in said([("c", Colour)], [("c", Colours)])] == ["knows 'blue' now"]
    assert said([ID], [ID], forbid_unknown_fields=True) == [("", "no longer takes fields that it doesn't declare")]
