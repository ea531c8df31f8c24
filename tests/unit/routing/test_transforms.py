"""Transforms by field names: what fits is made, what need not fit is refused with its path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pydantic
import pytest
from msgspec import Meta, Struct

from postline import ContractError
from postline.routing import by_field_names


class Address(Struct):
    street: str
    country: str


class Country(Struct):
    country: str


class Order(Struct):
    id: str
    total: int
    address: Address
    backup: Address | None = None
    note: str | None = None
    items: list[Address] = []


ORDER = Order("1", 5, Address("High St", "de"), note="x")


class Flat(Struct):
    id: Annotated[str, Meta(min_length=1)]
    total: float
    note: Any = None
    extra: int = 7


@dataclass
class Nested:
    address: Country
    backup: Country | None
    items: list[Address]


class Model(pydantic.BaseModel):
    order_id: str = pydantic.Field(default="", alias="orderId")
    id: str
    total: int


def test_fields_of_the_same_name_are_given_and_others_have_their_default():
    assert by_field_names(Order, Flat)(ORDER) == Flat("1", 5, "x", 7)


def test_nested_classes_are_made_alike():
    make = by_field_names(Order, Nested)
    assert make(ORDER) == Nested(Country("de"), None, [])
    again = Order("1", 5, Address("", "de"), backup=Address("", "at"))
    assert make(again).backup == Country("at")


def test_pydantic_models_are_made_and_taken():
    class Aliased(pydantic.BaseModel):
        total: int = pydantic.Field(alias="sum")

    assert by_field_names(Order, Model)(ORDER) == Model(id="1", total=5)
    assert by_field_names(Model, Aliased)(Model(id="1", total=5)).total == 5
    assert by_field_names(Aliased, Aliased)(Aliased(sum=3)).total == 3


class Wrong(Struct):
    id: int
    note: str
    missing: str
    items: list[Country]
    address: Nested


def test_all_that_need_not_fit_is_named_with_its_path():
    with pytest.raises(ContractError) as caught:
        by_field_names(Order, Wrong)
    said = str(caught.value)
    for each in (
        "id: it is str there and int here",
        "note: it is str | None there and str here",
        "missing: Order has no such field",
        "items: it is list",
        "address.address: Address has no such field",
        "Give a function",
    ):
        assert each in said, said


class Tree(Struct):
    child: Tree | None = None


class Copy(Struct):
    child: Copy | None = None


def test_a_class_that_contains_itself_needs_a_function():
    with pytest.raises(ContractError, match="contains itself"):
        by_field_names(Tree, Copy)
