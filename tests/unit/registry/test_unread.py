"""What a subscription can't read of another's topic: the newest version is refused, older ones are warned of."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Collection, Mapping
from typing import Annotated, Any

import pytest
from msgspec import Struct

from postline import ForeignTopic
from postline.contracts.marks import was
from postline.contracts.reflection import schema_of
from postline.contracts.schema import Schema
from postline.errors import LogUnavailable
from postline.registry import (
    Document,
    ForeignReading,
    IncompatibleSchema,
    Unread,
    Version,
    Written,
    require_readable,
    unread_of,
)


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


def test_a_view_in_another_format_than_its_owner_writes_can_read_nothing() -> None:
    of = reading(First, "billing")
    found = unread_of(of, [Written("shop.Order", 1, schema_of(First), "avro"), Written("shop.Order", 2, None, "avro")])
    assert found is not None
    assert [(each.rule, each.said) for each in found.breaks] == [
        ("format", "it is written as avro, the reader reads json")
    ]
    assert 'format="avro"' in found.breaks[0].remedy
    assert [each.number for each in found.older] == [1]
    assert unread_of(of, [Written("shop.Order", 1, schema_of(First), "json")]) is None


# -- what is registered -------------------------------------------------------------------------------


class Registered:
    """A registry that has these versions, by subject; or that is down."""

    def __init__(self, versions: dict[str, list[Any]] | None) -> None:
        self._versions = versions
        self._schemas: dict[int, Schema] = {}

    async def versions(self, subject: str) -> list[Version]:
        if self._versions is None:
            raise LogUnavailable("The registry does not answer.")
        found = []
        for number, kind in enumerate(self._versions.get(subject, []), 1):
            schema_id = len(self._schemas) + 1
            self._schemas[schema_id] = schema_of(kind)
            found.append(Version(subject, number, schema_id, Document("JSON", "")))
        return found

    async def schemas(self, ids: Collection[int]) -> Mapping[int, Schema]:
        return {each: self._schemas[each] for each in ids}


def reading(kind: Any, subscription: str) -> ForeignReading:
    topic = ForeignTopic("shop.orders")
    topic.reads("shop.Order", aliases=["shop.Placed"])(kind)
    return ForeignReading(subscription, "shop.orders", topic.reading_of("shop.Order"))


async def require(versions: dict[str, list[Any]] | None, *readings: ForeignReading) -> None:
    registry: Any = Registered(versions)
    await require_readable(registry, readings)


async def test_all_readers_that_can_read_nothing_are_named_at_once() -> None:
    with pytest.raises(IncompatibleSchema) as told:
        await require({"shop.orders-shop.Order": [First]}, reading(Second, "billing"), reading(Second, "stats"))
    assert [each.broken for each in told.value.findings] == ["subscription billing", "subscription stats"]
    assert told.value.message.count("total: the reader wants it") == 2


async def test_versions_under_a_former_name_count_as_older_ones(caplog: pytest.LogCaptureFixture) -> None:
    await require({"shop.orders-shop.Placed": [First], "shop.orders-shop.Order": [Second]}, reading(Second, "billing"))
    (warned,) = caplog.messages
    assert "subscription billing can't read version 1 of shop.Placed on shop.orders" in warned
    with pytest.raises(IncompatibleSchema, match=r"shop\.Placed on shop\.orders, version 1"):
        await require({"shop.orders-shop.Placed": [First]}, reading(Second, "billing"))


async def test_a_start_judges_a_view_by_the_format_too() -> None:
    topic = ForeignTopic("shop.orders", format="avro")
    topic.reads("shop.Order")(First)
    view = ForeignReading("billing", "shop.orders", topic.reading_of("shop.Order"))
    with pytest.raises(IncompatibleSchema, match="it is written as json, the reader reads avro"):
        await require({"shop.orders-shop.Order": [First]}, view)


async def test_nothing_registered_refuses_nobody_and_a_registry_that_is_down_is_told() -> None:
    await require({}, reading(Second, "billing"))
    with pytest.raises(LogUnavailable):
        await require(None, reading(Second, "billing"))


def test_the_refusal_is_copied_and_pickled_with_what_it_found() -> None:
    unread = read(First, Second)
    assert unread is not None
    refused = IncompatibleSchema("It can't be read.", [unread.finding], remedy="Mend the view.")
    for again in (pickle.loads(pickle.dumps(refused)), copy.copy(refused)):
        assert (again.message, again.remedy, again.findings) == (refused.message, refused.remedy, refused.findings)
