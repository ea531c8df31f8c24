"""Whom a change concerns: who reads a field under which name, and who can't read what is written now."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from msgspec import Struct

from postline import Schemas, Topic
from postline.contracts.marks import was
from postline.contracts.reflection import schema_of
from postline.contracts.schema import Schema
from postline.errors import ContractError
from postline.registry import Readers, View, broken_consumers, read_views, topic_and_type, write_views


class Line(Struct):
    sku: str


class NewLine(Struct):
    article: Annotated[str, was("sku")]


class First(Struct):
    id: str
    amount: int
    lines: list[Line] = []


class Second(Struct):
    id: str
    total: Annotated[int, was("amount")]
    items: Annotated[list[NewLine], was("lines")] = []


class Lean(Struct):
    id: str


def shop(kind: Any, name: str = "shop.Order", *, aliases: tuple[str, ...] = (), format: Any = "json") -> Topic:
    topic = Topic("shop.orders", owner="shop", key="id", schemas=Schemas(evolution="NONE", format=format))
    topic.event(name, aliases=aliases)(kind)
    return topic


def view(kind: Any, service: str = "billing", type: str = "shop.Order", upcasts: tuple[Schema, ...] = ()) -> View:
    return View(
        topic="shop.orders", type=type, service=service, subscription=service, reader=schema_of(kind), upcasts=upcasts
    )


def broken(topic: Topic, *views: View, gone: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """What breaks, by consumer: the paths."""
    return {each.consumer: [why.path for why in each.breaks] for each in broken_consumers(topic, views, gone)}


def test_a_consumer_breaks_on_what_it_needs_and_nobody_writes_any_more() -> None:
    assert broken(shop(Second), view(First), view(Lean, "packing")) == {"billing (billing)": ["amount"]}
    assert broken(shop(First), view(First), view(Second, "ahead")) == {}


def test_a_default_is_no_help_to_a_consumer_that_has_none() -> None:
    class Optional(Struct):
        id: str
        amount: int = 0

    assert broken(shop(Optional), view(First)) == {"billing (billing)": ["amount"]}
    # Avro writes every field, those with defaults, too.
    assert broken(shop(Optional, format="avro"), view(First)) == {}


def test_a_consumer_that_reads_by_an_upcast_does_not_break() -> None:
    class Newest(Struct):
        id: str
        euros: float

    assert broken(shop(First), view(Newest)) == {"billing (billing)": ["euros"]}
    assert broken(shop(First), view(Newest, upcasts=(schema_of(Lean),))) == {}
    assert broken(shop(Lean), view(Newest, upcasts=(schema_of(First),))) == {"billing (billing)": ["euros"]}


def test_a_renamed_type_breaks_those_that_handle_the_former_name_alone() -> None:
    renamed = shop(First, "shop.Placed", aliases=("shop.Order",))
    (found,) = broken_consumers(renamed, [view(Lean), view(Lean, "packing"), view(Lean, "packing", "shop.Placed")])
    assert (found.type, found.consumer) == ("shop.Placed", "billing (billing)")
    assert "written as shop.Placed now" in found.breaks[0].said


def test_a_removed_type_breaks_who_handles_it_but_one_that_never_was_breaks_nobody() -> None:
    others = [view(Lean, type="shop.Cancelled")]
    assert broken(shop(First), *others, gone=("shop.Cancelled",)) == {"billing (billing)": [""]}
    assert broken(shop(First), *others) == {}


def test_readers_of_a_field_are_found_under_its_former_name_however_deep() -> None:
    readers = Readers([view(First), view(Second, "ahead"), view(Lean, "packing")], schema_of(First), schema_of(Second))
    both = ("billing (billing)", "ahead (ahead)")
    assert {
        path: readers.of(path) for path in ("total", "amount", "items", "items[]", "items[].article")
    } == dict.fromkeys(("total", "amount", "items", "items[]", "items[].article"), both)
    assert readers.of("id") == readers.of("") == (*both, "packing (packing)")
    assert readers.of("currency") == ()


def test_a_field_that_is_taken_by_its_name_is_not_read_under_its_former_one() -> None:
    class Both(Struct):
        amount: int
        total: int

    class Reader(Struct):
        total: Annotated[int, was("amount")]

    assert view(Reader).fields_of(schema_of(Both)) == {"total"}


def test_views_come_back_from_their_file_and_others_are_refused_by_name() -> None:
    views = [view(First, upcasts=(schema_of(Lean),)), view(Second, "ahead")]
    assert read_views(write_views(views), "readers.json") == views
    with pytest.raises(ContractError, match=r"contracts/readers\.json does not say what consumers read"):
        read_views('{"format": 1}', "contracts/readers.json")


def test_a_subject_is_of_the_topic_with_the_longest_name_that_fits() -> None:
    topics = ["shop.orders", "shop.orders-eu"]
    assert topic_and_type("shop.orders-eu-shop.Order", topics) == ("shop.orders-eu", "shop.Order")
    assert topic_and_type("shop.orders-shop-Order", topics) == ("shop.orders", "shop-Order")
    assert topic_and_type("shop.bills-shop.Bill", topics) is None
