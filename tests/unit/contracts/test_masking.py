"""Sensitive fields are masked wherever they stand in a value, and nothing else is."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Struct

from postline.contracts.marks import Sensitive, was
from postline.contracts.masking import MASK, has_sensitive, masked
from postline.contracts.reflection import schema_of


class Person(Struct):
    name: str
    email: Sensitive[str] = ""
    phone: Sensitive[str | None] = None


class Card(Struct, tag="card"):
    number: Sensitive[str]


class Cash(Struct, tag="cash"):
    number: str


class Row(Struct, array_like=True):
    id: str
    secret: Sensitive[int]


class Order(Struct):
    customer: Person
    guests: list[Person] = []
    by_name: dict[str, Person] = {}
    pair: tuple[int, Person] | None = None
    paid: Card | Cash | None = None
    row: Row | None = None
    address: Annotated[Sensitive[str], was("street")] = ""
    parent: Order | None = None


SCHEMA = schema_of(Order)
ANN: dict[str, Any] = {"name": "ann", "email": "a@b"}
HIDDEN = {"name": "ann", "email": MASK}


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"customer": ANN}, {"customer": HIDDEN}),
        ({"guests": [ANN, ANN]}, {"guests": [HIDDEN, HIDDEN]}),
        ({"by_name": {"x": ANN}}, {"by_name": {"x": HIDDEN}}),
        ({"pair": [1, ANN]}, {"pair": [1, HIDDEN]}),
        ({"paid": {"type": "card", "number": "4"}}, {"paid": {"type": "card", "number": MASK}}),
        ({"paid": {"type": "cash", "number": "4"}}, {"paid": {"type": "cash", "number": "4"}}),
        ({"row": ["1", 7]}, {"row": ["1", MASK]}),
        ({"address": "x", "street": "y"}, {"address": MASK, "street": MASK}),
        ({"parent": {"customer": ANN}}, {"parent": {"customer": HIDDEN}}),
        ({"customer": {"phone": None, "email": 7}}, {"customer": {"phone": None, "email": MASK}}),
        ({"customer": "no person", "unknown": 1}, {"customer": "no person", "unknown": 1}),
        ([1], [1]),
    ],
)
def test_what_is_sensitive_is_masked_and_nothing_else(given: Any, shown: Any) -> None:
    assert masked(SCHEMA, given) == shown


def test_a_name_counts_before_another_fields_former_one() -> None:
    class Moved(Struct):
        number: Sensitive[str]
        card: Annotated[str, was("number")] = ""

    assert masked(schema_of(Moved), {"number": "4", "card": "x"}) == {"number": MASK, "card": "x"}


def test_a_value_of_an_unknown_tag_is_masked_by_the_names_of_all_options() -> None:
    assert masked(SCHEMA, {"paid": {"type": "new", "number": "4"}}) == {"paid": {"type": "new", "number": MASK}}


def test_a_contract_says_whether_it_has_anything_sensitive() -> None:
    assert has_sensitive(SCHEMA)
    assert not has_sensitive(schema_of(msgspec.defstruct("Plain", [("id", str)])))
