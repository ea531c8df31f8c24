"""What a subscription can't read of another's topic: the newest version is refused, older ones are warned of."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Struct

from postline import ForeignTopic
from postline.contracts.marks import was
from postline.contracts.reflection import schema_of
from postline.registry import ForeignReading, Unread, Written, unread_of


class First(Struct):
    id: str
    amount: int


class Second(Struct):
    id: str
    total: int


class Reader(Struct):
    id: str
    total: Annotated[int, was("amount")]


def read(kind: Any, *written: Any, upcast_from: Any = None) -> Unread | None:
    """What a view can't read of these versions."""
    topic = ForeignTopic("shop.orders")
    topic.reads("shop.Order", aliases=["shop.Placed"])(kind)
    if upcast_from is not None:
        topic.upcast(upcast_from, kind)(lambda old: old)
    versions = [
        Written("shop.Order", number, None if each is None else schema_of(each))
        for number, each in enumerate(written, 1)
    ]
    return unread_of(ForeignReading("billing", "shop.orders", topic.reading_of("shop.Order")), versions)


def test_what_rules_or_an_upcast_read_is_readable() -> None:
    assert read(Reader, First, Second) is None
    assert read(Second, First, Second, upcast_from=First) is None
    assert read(Second) is None


def test_the_newest_version_says_why_it_cannot_be_read() -> None:
    found = read(First, Second, First, Second)
    assert found is not None
    assert [each.path for each in found.breaks] == ["amount"]
    assert (found.newest.number, [each.number for each in found.older]) == (3, [1])
    assert (found.finding.version, found.finding.direction) == (3, "backward")


def test_versions_before_the_newest_are_named_alone() -> None:
    found = read(Second, First, First, Second)
    assert found is not None
    assert (found.breaks, [each.number for each in found.older]) == ([], [1, 2])
    assert "can't read versions 1 of shop.Order, 2 of shop.Order on shop.orders" in found.warning


def test_a_version_that_nobody_can_judge_is_not_judged() -> None:
    assert read(Second, None) is None
    found = read(Second, First, None)
    assert found is not None
    assert (found.breaks, [each.number for each in found.older]) == ([], [1])
