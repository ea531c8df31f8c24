"""What classes say becomes the type model: types, limits, defaults, names and marks, or a refusal with the path."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import uuid
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar

import msgspec
import pydantic
import pytest
from msgspec import UNSET, Meta, Struct

from postline.contracts.marks import Sensitive, number, was
from postline.contracts.reflection import schema_of
from postline.contracts.schema import (
    TEXT,
    Enumeration,
    Field,
    Limits,
    ListOf,
    MapOf,
    Record,
    Reference,
    Scalar,
    Schema,
    TupleOf,
    Type,
    UnionOf,
)
from postline.errors import ContractError

NULL = Scalar(kind="null")
INTEGER = Scalar(kind="integer")
ValueT = TypeVar("ValueT")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Forgiving(enum.Enum):
    ODD = 0
    ONE = 1

    @classmethod
    def _missing_(cls, value: object) -> Forgiving:
        return cls.ODD


class Point(NamedTuple):
    x: int
    y: int = 0


class Extra(TypedDict, total=False):
    note: str


class Card(Struct, tag="card"):
    number: Sensitive[str]


class Cash(Struct, tag="cash"):
    pass


class Tree(Struct):
    children: list[Tree] = []


class Page(Struct, Generic[ValueT]):
    items: list[ValueT]


def record_of(cls: Any) -> Record:
    found = schema_of(cls).record
    assert found is not None
    return found


def type_in(hint: Any) -> tuple[Type, Schema]:
    schema = schema_of(msgspec.defstruct("One", [("value", hint)]))
    assert schema.record is not None
    return schema.record.fields[0].type, schema


@pytest.mark.parametrize(
    ("hint", "kind"),
    [
        (int, "integer"),
        (float, "number"),
        (bool, "boolean"),
        (str, "text"),
        (bytes, "bytes"),
        (None, "null"),
        (decimal.Decimal, "decimal"),
        (datetime.date, "date"),
        (datetime.time, "time"),
        (datetime.datetime, "datetime"),
        (datetime.timedelta, "duration"),
        (uuid.UUID, "uuid"),
        (Any, "any"),
        (msgspec.Raw, "any"),
    ],
)
def test_each_scalar_has_its_kind(hint: Any, kind: Any) -> None:
    assert type_in(hint)[0] == Scalar(kind=kind)


@pytest.mark.parametrize(
    ("hint", "wanted"),
    [
        (list[int], ListOf(items=INTEGER)),
        (tuple[int, ...], ListOf(items=INTEGER)),
        (set[str], ListOf(items=TEXT, unique=True)),
        (frozenset[str], ListOf(items=TEXT, unique=True)),
        (tuple[int, str], TupleOf(items=(INTEGER, TEXT))),
        (dict[str, int], MapOf(keys=TEXT, values=INTEGER)),
        (int | None, UnionOf(options=(INTEGER, NULL))),
        (Annotated[int, Meta(ge=1, lt=9)], Scalar(kind="integer", limits=Limits(ge=1, lt=9))),
        (
            Annotated[str, Meta(max_length=3, pattern="^a")],
            Scalar(kind="text", limits=Limits(max_length=3, pattern="^a")),
        ),
        (Annotated[list[int], Meta(min_length=1)], ListOf(items=INTEGER, limits=Limits(min_length=1))),
    ],
)
def test_containers_and_limits_are_kept(hint: Any, wanted: Type) -> None:
    assert type_in(hint)[0] == wanted


def test_enumerations_and_literals_name_their_symbols() -> None:
    part, schema = type_in(Colour)
    assert schema.resolve(part) == Enumeration(name="Colour", symbols=("red", "blue"))
    part, schema = type_in(Literal["a", "b"])
    assert schema.resolve(part) == Enumeration(name="Value", symbols=("a", "b"))


def test_what_an_enumeration_makes_of_the_unknown_is_its_default() -> None:
    part, schema = type_in(Forgiving)
    assert schema.resolve(part) == Enumeration(name="Forgiving", symbols=(0, 1), default=0)


def test_a_tagged_union_refers_to_its_records_with_their_tags() -> None:
    part, schema = type_in(Card | Cash)
    assert part == UnionOf(options=(Reference(name="Card"), Reference(name="Cash")))
    card = schema.definitions["Card"]
    assert isinstance(card, Record)
    assert (card.tag_field, card.tag) == ("type", "card")


def test_a_recursive_class_refers_to_itself() -> None:
    assert record_of(Tree).fields[0].type == ListOf(items=Reference(name="Tree"))


def test_two_classes_of_one_name_and_generic_classes_are_kept_apart() -> None:
    def point() -> Any:
        return msgspec.defstruct("Point", [("x", int)])

    both = msgspec.defstruct("Both", [("one", point()), ("other", msgspec.defstruct("Point", [("y", str)]))])
    assert sorted(schema_of(both).definitions) == ["Both", "Point", "Point2"]
    pages = msgspec.defstruct("Pages", [("numbers", Page[int]), ("texts", Page[str])])
    found = schema_of(pages).definitions
    assert len(found) == 3
    assert {each.fields[0].type for each in found.values() if isinstance(each, Record) and each.name != "Pages"} == {
        ListOf(items=INTEGER),
        ListOf(items=TEXT),
    }


class Marked(Struct, forbid_unknown_fields=True, rename="camel"):
    order_id: str
    total: Annotated[int, was("amount", "sum")] = 0
    email: Sensitive[str] = ""
    tags: list[str] = []
    at: datetime.datetime | None = None
    unique: uuid.UUID = msgspec.field(default_factory=uuid.uuid4)


def test_marks_names_and_defaults_are_said_of_fields() -> None:
    record = record_of(Marked)
    assert record.closed
    found = {field.name: field for field in record.fields}
    assert list(found) == ["orderId", "total", "email", "tags", "at", "unique"]
    assert found["orderId"] == Field(name="orderId", type=TEXT)
    assert (found["total"].aliases, found["total"].default) == (("amount", "sum"), 0)
    assert (found["email"].sensitive, found["total"].sensitive) == (True, False)
    assert (found["tags"].default, found["at"].default) == ([], None)
    assert (found["unique"].required, found["unique"].default) == (False, UNSET)


@dataclasses.dataclass
class Plain:
    number: int
    point: Point
    extra: Extra
    colour: Colour = Colour.RED


def test_dataclasses_named_tuples_and_typed_dicts_are_records() -> None:
    schema = schema_of(Plain)
    point, extra = schema.definitions["Point"], schema.definitions["Extra"]
    assert isinstance(point, Record)
    assert isinstance(extra, Record)
    assert (point.positional, [field.required for field in point.fields]) == (True, [True, False])
    assert [(field.name, field.required) for field in extra.fields] == [("note", False)]
    assert schema.record is not None
    assert schema.record.fields[-1].default == "red"


class Inner(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=5)


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    __was__ = ("OldModel",)

    id: Annotated[int, pydantic.Field(gt=0)]
    secret: pydantic.SecretStr
    inner: list[Inner]
    total: Annotated[decimal.Decimal, was("amount")] = decimal.Decimal(1)
    when: datetime.date | None = None
    shown: str = pydantic.Field("x", alias="shownAs", json_schema_extra={"sensitive": True})


def test_pydantic_models_say_the_same_as_structs() -> None:
    schema = schema_of(Model)
    record = schema.record
    assert record is not None
    found = {field.name: field for field in record.fields}
    assert (record.closed, record.aliases) == (True, ("OldModel",))
    assert found["id"].type == Scalar(kind="integer", limits=Limits(gt=0))
    assert (found["secret"].sensitive, found["shownAs"].sensitive) == (True, True)
    assert found["inner"].type == ListOf(items=Reference(name="Inner"))
    assert (found["total"].aliases, found["total"].default) == (("amount",), "1")
    assert found["when"].type == UnionOf(options=(Scalar(kind="date"), NULL))
    inner = schema.definitions["Inner"]
    assert isinstance(inner, Record)
    assert inner.fields[0].type == Scalar(kind="text", limits=Limits(max_length=5))


@dataclasses.dataclass
class Odd:
    value: complex


def test_what_contracts_cannot_say_is_refused_with_its_path() -> None:
    outer = msgspec.defstruct("Outer", [("rows", list[Odd])])
    with pytest.raises(ContractError, match=r"rows\[\]\.value"):
        schema_of(outer)


def test_a_schema_is_the_same_after_its_canonical_json_and_has_a_stable_fingerprint() -> None:
    schema = schema_of(Marked, name="shop.Marked")
    assert Schema.decode(schema.encode()) == schema
    assert schema.fingerprint == schema_of(Marked, name="shop.Marked").fingerprint
    assert schema.fingerprint != schema_of(Marked).fingerprint
    assert [path for path, _ in schema_of(Plain).paths()] == [
        *("number", "point", "point.x", "point.y", "extra", "extra.note", "colour"),
    ]


def test_several_marks_on_one_field_are_all_heard() -> None:
    marked = Annotated[Sensitive[str], was("a"), number(7), Meta(max_length=3)]
    (field,) = record_of(msgspec.defstruct("One", [("b", marked)])).fields
    assert (field.sensitive, field.aliases, field.number) == (True, ("a",), 7)
    assert field.type == Scalar(kind="text", limits=Limits(max_length=3))
    (field,) = record_of(pydantic.create_model("One", b=(marked, ...))).fields
    assert (field.sensitive, field.aliases, field.number) == (True, ("a",), 7)
