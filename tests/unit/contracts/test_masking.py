"""Sensitive fields are masked wherever they stand in a value, and nothing else is."""

from __future__ import annotations

import traceback
from typing import Annotated, Any

import msgspec
import pydantic
import pytest
from msgspec import Struct

from postline.contracts.formats import format_named
from postline.contracts.kinds import Kind
from postline.contracts.marks import Sensitive, was
from postline.contracts.masking import MASK, has_sensitive, masked
from postline.contracts.reading import Reading
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


SECRET = "S3CRET"
BIG = 41_110_000_000_000_000_000_000_000


class Item(Struct):
    card: Sensitive[int] = 0


class Paid(Struct):
    k: str
    card: Sensitive[int] = 0
    note: Sensitive[str] = ""
    lines: list[Item] = []


class ItemModel(pydantic.BaseModel):
    card: Sensitive[int] = 0


class PaidModel(pydantic.BaseModel):
    k: str
    card: Sensitive[int] = 0
    note: Annotated[Sensitive[str], pydantic.Field(max_length=3)] = ""
    lines: list[ItemModel] = []


def said_by(call: Any) -> str:
    """All that an error and the stack under it say."""
    with pytest.raises(Exception) as refused:  # noqa: PT011 - of any library
        call()
    # Without lines of this file, which have the value.
    return "".join(traceback.format_exception(refused.value, limit=0))


@pytest.mark.parametrize("name", ["json", "avro", "protobuf"])
@pytest.mark.parametrize(
    "fields",
    [{"card": BIG}, {"card": SECRET}, {"note": [SECRET]}, {"note": SECRET + "\ud800"}, {"lines": BIG}],
    ids=str,
)
@pytest.mark.parametrize("cls", [Paid, PaidModel])
def test_no_error_of_writing_tells_a_sensitive_value(name: str, fields: dict[str, Any], cls: Any) -> None:
    make = cls.model_construct if cls is PaidModel else cls
    encode = Reading(cls, "t.Paid", format_named(name)).codec.encode
    if "lines" in fields:
        item = ItemModel(card=BIG) if cls is PaidModel else Item(BIG)
        fields = {"lines": [item]}
    if name == "json" and BIG in (fields.get("card"), *(each.card for each in fields.get("lines", ()))):
        return  # JSON has room for it
    said = said_by(lambda: encode(make(k="a", **fields)))
    assert SECRET not in said
    assert str(BIG) not in said
    assert next(iter(fields)) in said


@pytest.mark.parametrize(
    "data",
    [b'{"k":"a","card":"S3CRET"}', b'{"k":"a","note":["S3CRET"]}', b'{"note":"S3CRET"}', b'{"k":"a","note":"S3CRET'],
)
@pytest.mark.parametrize("cls", [Paid, PaidModel])
def test_no_error_of_reading_tells_a_sensitive_value(data: bytes, cls: Any) -> None:
    assert SECRET not in said_by(lambda: Kind(cls).read(data))
    assert SECRET not in said_by(lambda: Kind(cls).decode(data))


def test_errors_tell_values_where_nothing_is_sensitive() -> None:
    class Plain(Struct):
        count: int

    encode = Reading(Plain, "t.Plain", format_named("avro")).codec.encode
    assert f"count: {BIG} is not from" in said_by(lambda: encode(Plain(BIG)))
