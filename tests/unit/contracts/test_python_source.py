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
from postline.contracts.schema import (
    TEXT,
    Enumeration,
    Field,
    Limits,
    ListOf,
    Record,
    Reference,
    Scalar,
    Schema,
    TupleOf,
    UnionOf,
)
from postline.errors import ContractError
from tests.unit.contracts.classes_drawn import structs
from tests.unit.contracts.protobuf_samples import Order
from tests.unit.contracts.schemas_drawn import any_schemas, sayable_schemas

INTEGER = Scalar(kind="integer")
PAIR = TupleOf(items=(INTEGER, INTEGER))
PATTERN = Scalar(kind="text", limits=Limits(pattern="^a"))

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


def of_fields(*fields: Field, **definitions: Any) -> Schema:
    """A schema of one record."""
    return Schema(root=Reference(name="One"), definitions={"One": Record(name="One", fields=fields), **definitions})


def test_an_equal_class_that_leads_to_another_one_is_not_shared() -> None:
    def schema(kind: Any) -> Schema:
        inner = msgspec.defstruct("Inner", [("value", kind)])
        return schema_of(msgspec.defstruct("Outer", [("middle", msgspec.defstruct("Middle", [("inner", inner)]))]))

    module = imported(source_of({"a.One": schema(int), "a.Two": schema(str)}, topic="a"))
    assert module.topic.reading_of("a.One").decode(b'{"middle":{"inner":{"value":1}}}').middle.inner.value == 1
    assert module.topic.reading_of("a.Two").decode(b'{"middle":{"inner":{"value":"x"}}}').middle.inner.value == "x"


def test_a_field_that_may_be_absent_is_none_then_and_is_not_written() -> None:
    made = class_of(of_fields(Field(name="a", type=TEXT), Field(name="b", type=TEXT, required=False)))
    value = msgspec.json.decode(b'{"a":"x"}', type=made)
    assert value.b is None
    assert msgspec.json.encode(value) == b'{"a":"x"}'


@pytest.mark.parametrize(
    ("field", "said"),
    [
        (Field(name="a", type=INTEGER, required=False, default="x"), '# Without its default "x", which is not of its'),
        (Field(name="a", type=Reference(name="One"), required=False, default={}), "which would contain itself"),
        (Field(name="a", type=Scalar(kind="text", limits=Limits(pattern=r"\p{L}"))), r'# Without pattern="\\p{L}".'),
        (Field(name="a", type=Scalar(kind="date", limits=Limits(ge=1))), "# Without ge=1."),
        (Field(name="a", type=Scalar(kind="number", limits=Limits(multiple_of=0.01))), "# Without multiple_of=0.01."),
        (Field(name="a", type=Reference(name="Mixed")), '# One of [1, "x"].'),
        (Field(name="a", type=UnionOf(options=(TEXT, Scalar(kind="date")))), "# Any of str, datetime.date, which"),
        (Field(name="a", type=UnionOf(options=(PAIR, PATTERN))), "# Without limits that msgspec can't have in this"),
        (Field(name="a", type=UnionOf(options=(ListOf(items=TEXT), PATTERN))), "# Without limits that msgspec can't"),
    ],
    ids=lambda part: "" if isinstance(part, Field) else part,
)
def test_what_a_class_can_not_say_is_said_above_the_field(field: Field, said: str) -> None:
    schema = of_fields(field, Mixed=Enumeration(name="Mixed", symbols=(1, "x")))
    assert said in source_of({"shop.One": schema}, topic="shop.ones")
    (attribute,) = class_of(schema).__struct_fields__
    assert attribute == "a"


def test_whole_numbers_have_whole_limits() -> None:
    limits = Limits(ge=0.5, lt=9.5)
    made = schema_of(class_of(of_fields(Field(name="a", type=Scalar(kind="integer", limits=limits))))).record
    assert made is not None
    assert made.fields[0].type == Scalar(kind="integer", limits=Limits(ge=1, lt=10))


def test_a_name_that_msgspec_does_not_take_is_refused() -> None:
    with pytest.raises(ContractError, match="A class can't have a field that is called 'a\"b'"):
        source_of({"shop.One": of_fields(Field(name='a"b', type=TEXT))}, topic="shop.ones")


def test_a_root_that_is_no_record_is_refused() -> None:
    with pytest.raises(ContractError, match=r"The root of shop\.One is no record"):
        source_of({"shop.One": Schema(root=TEXT)}, topic="shop.ones")


def test_names_from_outside_end_no_text() -> None:
    schema = of_fields(Field(name="a", type=Reference(name="E")), E=Enumeration(name="E", symbols=('"""\n\\', "'\"")))
    text = source_of({"shop.One": schema}, topic="shop.ones", origin='a"""\nimport os\\')
    assert [each.value for each in imported(text).E] == ['"""\n\\', "'\""]


def test_very_many_alternatives_are_anything() -> None:
    records = {f"R{n}": Record(name=f"R{n}", tag_field="kind", tag=n) for n in range(2000)}
    options = UnionOf(options=tuple(Reference(name=name) for name in records))
    made = class_of(of_fields(Field(name="a", type=options), **records))
    assert msgspec.json.decode(b'{"a":{"kind":1}}', type=made).a == {"kind": 1}


def test_alternatives_that_cannot_be_told_apart_are_anything() -> None:
    options = UnionOf(options=(TEXT, Scalar(kind="date")))
    record = Record(name="One", fields=(Field(name="value", type=options),))
    made = class_of(Schema(root=Reference(name="One"), definitions={"One": record}))
    assert msgspec.json.decode(b'{"value":[1]}', type=made).value == [1]


@settings(max_examples=60, deadline=None)
@given(sayable_schemas())
def test_schemas_that_classes_can_say_come_back_whole(schema: Schema) -> None:
    assert schema_of(class_of(schema), name="Record0") == schema


@settings(max_examples=80, deadline=None)
@given(any_schemas())
def test_every_schema_becomes_classes_that_can_be_used(schema: Schema) -> None:
    made = class_of(schema)
    assert schema.record is not None
    assert made.__struct_encode_fields__ == tuple(field.name for field in schema.record.fields)
    said = schema_of(made, name="Record0").record
    assert said is not None
    assert [field.required for field in said.fields] == [field.required for field in schema.record.fields]


@settings(max_examples=60, deadline=None)
@given(structs())
def test_random_schemas_come_back_from_their_classes(pair: tuple[Any, Any]) -> None:
    schema = schema_of(pair[0])
    assert schema_of(class_of(schema), name="Random") == schema
