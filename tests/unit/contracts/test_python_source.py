"""Python that is made for a schema can be imported, and its classes say what the schema says."""

from __future__ import annotations

import enum
import itertools
import sys
import types
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given, settings

from postline.contracts import ForeignTopic, Topic
from postline.contracts.marks import Sensitive, number, was
from postline.contracts.python_source import source_of
from postline.contracts.reflection import schema_of
from postline.contracts.schema import TEXT, Field, Record, Reference, Scalar, Schema, UnionOf
from tests.unit.contracts.protobuf_samples import Order
from tests.unit.contracts.test_avro_codec import structs

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("made_"):
            del sys.modules[name]


def imported(text: str) -> Any:
    """The module that a text is."""
    module = types.ModuleType(f"made_{next(_numbers)}")
    sys.modules[module.__name__] = module
    exec(compile(text, module.__name__, "exec"), vars(module))
    return module


def class_of(schema: Schema, **options: Any) -> Any:
    """The class that is made for a schema's root."""
    module = imported(source_of({"shop.One": schema}, topic="shop.ones", **options))
    (cls,) = module.topic.classes
    return cls


class Colour(enum.Enum):
    RED = "red"
    DARK_BLUE = "dark blue"

    @classmethod
    def _missing_(cls, value: object) -> Colour:
        return cls.RED


class Card(msgspec.Struct, tag="card"):
    number: Sensitive[str]


class Cash(msgspec.Struct, tag="cash"):
    __was__ = ("coins",)


class Row(msgspec.Struct, array_like=True, frozen=True):
    x: int
    y: str | None = None


class Tree(msgspec.Struct, rename="kebab", forbid_unknown_fields=True):
    first_child: Tree | None = None
    colour: Colour = Colour.RED
    paid: Card | Cash | None = None
    row: Row | None = None
    amount: Annotated[Decimal, was("sum", "total"), number(9)] = Decimal("1.50")
    day: date = date(2026, 1, 2)
    size: Annotated[int, msgspec.Meta(ge=1, lt=10)] = 1
    tags: list[str] = []
    labels: dict[str, int] = msgspec.field(default_factory=lambda: {"a": 1})
    names: set[str] = set()
    email: Sensitive[str] = "x"
    datetime: str = ""
    Card: int = 0


@pytest.mark.parametrize("cls", [Tree, Order, Row], ids=lambda cls: cls.__name__)
def test_classes_say_what_the_schema_says(cls: Any) -> None:
    schema = schema_of(cls)
    made = class_of(schema)
    assert schema_of(made, name=cls.__name__) == schema


def test_values_are_read_as_by_the_class_that_the_schema_is_of() -> None:
    made = class_of(schema_of(Tree))
    data = msgspec.json.encode(Tree(Tree(), Colour.DARK_BLUE, Card("1"), Row(1, "b"), tags=["x"]))
    assert msgspec.json.encode(msgspec.json.decode(data, type=made)) == data


def test_two_types_share_what_is_the_same_and_keep_apart_what_is_not() -> None:
    def schema(kind: Any) -> Schema:
        inner = msgspec.defstruct("Inner", [("value", kind)])
        return schema_of(msgspec.defstruct("Outer", [("inner", inner)]))

    text = source_of({"a.One": schema(int), "a.Two": schema(str), "a.Three": schema(int)}, topic="a")
    module = imported(text)
    assert text.count("class Inner") == 2
    assert len(module.topic.classes) == 3
    assert module.topic.reading_of("a.Two").decode(b'{"inner":{"value":"x"}}').inner.value == "x"


def test_a_topic_is_foreign_unless_it_has_an_owner() -> None:
    schema = {"shop.Row": schema_of(Row)}
    assert isinstance(imported(source_of(schema, topic="shop.rows")).topic, ForeignTopic)
    own = imported(source_of(schema, topic="shop.rows", owner="shop", format_name="avro")).topic
    assert isinstance(own, Topic)
    assert (own.owner, own.format.name, list(own.contracts)) == ("shop", "avro", ["shop.Row"])


@pytest.mark.parametrize(
    ("name", "attribute"),
    [
        ("class", "class_"),
        ("1st", "n1st"),
        ("a-b", "a_b"),
        ("__x", "x"),
        ("int", "int_"),
        ("", "value"),
        ("é", "value"),
    ],
)
def test_names_that_python_does_not_allow_stay_on_the_wire(name: str, attribute: str) -> None:
    record = Record(name="One", fields=(Field(name=name, type=TEXT),))
    made = class_of(Schema(root=Reference(name="One"), definitions={"One": record}))
    assert made.__struct_fields__ == (attribute,)
    assert made.__struct_encode_fields__ == (name,)


def test_alternatives_that_cannot_be_told_apart_are_anything() -> None:
    options = UnionOf(options=(TEXT, Scalar(kind="date")))
    record = Record(name="One", fields=(Field(name="value", type=options),))
    made = class_of(Schema(root=Reference(name="One"), definitions={"One": record}))
    assert msgspec.json.decode(b'{"value":[1]}', type=made).value == [1]


@settings(max_examples=60, deadline=None)
@given(structs())
def test_random_schemas_come_back_from_their_classes(pair: tuple[Any, Any]) -> None:
    schema = schema_of(pair[0])
    assert schema_of(class_of(schema), name="Random") == schema
