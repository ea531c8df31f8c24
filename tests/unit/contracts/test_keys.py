"""Keys have one spelling, and a contract whose key can't be read is refused when it is declared."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postline.contracts import Topic
from postline.contracts.keys import canonical_key, compile_key, describe_key, reader_of
from postline.errors import ContractError, EncodeError

ID = UUID("abcdef00-0000-4000-8000-000000000001")


class Region(enum.StrEnum):
    NORTH = "north"


class OldRegion(str, enum.Enum):  # noqa: UP042 - people still write them, and str() of one differs
    NORTH = "north"


class Level(int, enum.Enum):
    HIGH = 3


class Place(msgspec.Struct):
    city: str = "Graz"
    zip: int | None = None


class Order(msgspec.Struct):
    customer: str = "c-1"
    number: int = 7
    id: UUID = ID
    total: Decimal = Decimal(1)
    paid: bool = False
    place: Place | None = None
    extra: Any = None
    tags: dict[str, str] = {}

    @property
    def label(self) -> str:
        return f"{self.customer}/{self.number}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Zürich", "Zürich".encode()),
        (0, b"0"),
        (-12, b"-12"),
        (ID, b"abcdef00-0000-4000-8000-000000000001"),
        (b"\x00\xff", b"\x00\xff"),
        (Region.NORTH, b"north"),
        (OldRegion.NORTH, b"north"),
        (Level.HIGH, b"3"),
    ],
)
def test_a_key_has_one_spelling(value: object, expected: bytes) -> None:
    assert canonical_key(value) == expected


@pytest.mark.parametrize("value", [None, True, 1.5, Decimal(1), ("a",), object(), "\ud800", "", b""])
def test_what_has_no_spelling_is_refused_as_a_key(value: object) -> None:
    with pytest.raises(EncodeError):
        canonical_key(value)


@given(st.integers(), st.integers())
def test_different_integers_are_different_keys(one: int, other: int) -> None:
    assert (canonical_key(one) == canonical_key(other)) == (one == other)


def _key_of(spec: str | Callable[[Any], Any], cls: type = Order) -> Callable[[Any], bytes]:
    return compile_key(spec, cls, "shop.orders", "shop.OrderPlaced")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("customer", b"c-1"),
        ("number", b"7"),
        ("place.city", b"Graz"),
        ("label", b"c-1/7"),
        ("extra", b"anything"),
        (lambda order: order.number + 1, b"8"),
    ],
)
def test_a_key_is_a_field_a_path_a_property_or_a_function(spec: Any, expected: bytes) -> None:
    assert _key_of(spec)(Order(place=Place(), extra="anything")) == expected


def test_a_uuid_given_as_text_is_the_same_key_in_any_case_of_letters() -> None:
    as_text: Any = str(ID).upper()
    assert _key_of("id")(Order(id=as_text)) == _key_of("id")(Order()) == str(ID).encode()


def _failing(order: Order) -> str:
    raise LookupError(order.customer)


@pytest.mark.parametrize(
    ("spec", "order"),
    [
        ("customer", Order(customer="")),
        ("extra", Order()),
        ("place.city", Order()),
        ("place.zip", Order(place=Place())),
        (_failing, Order()),
        ("id", Order(id="no uuid")),  # type: ignore[arg-type]
    ],
)
def test_a_missing_key_is_refused_naming_topic_type_and_key(spec: Any, order: Order) -> None:
    with pytest.raises(EncodeError) as caught:
        _key_of(spec)(order)
    text = str(caught.value)
    assert "'shop.orders'" in text
    assert "shop.OrderPlaced" in text
    assert describe_key(spec) in text
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("custommer", "no 'custommer'"),
        ("place.town", "no 'town'"),
        ("customer.id", "no 'id'"),
        ("tags.region", "no 'region'"),
        ("total", "Decimal"),
        ("paid", "bool"),
        ("place", "Place"),
        ("", "Name a field"),
        ("a b", "Name a field"),
        ("a..b", "Name a field"),
    ],
)
def test_a_key_that_a_class_can_not_have_is_refused_when_declared(spec: str, reason: str) -> None:
    topic = Topic("shop.orders", owner="shop", key=spec)
    with pytest.raises(ContractError, match=reason):
        topic.event("shop.OrderPlaced")(Order)
    assert not topic.contracts
    assert not topic.classes


def test_annotations_that_nobody_can_resolve_leave_the_key_to_the_message() -> None:
    @dataclass
    class Odd:
        customer: "Nowhere"  # type: ignore[name-defined]  # noqa: F821, UP037

    assert reader_of("customer", Odd)(Odd("c-9")) == "c-9"
