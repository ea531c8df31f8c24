"""Values, as JSON has them, fit a type exactly if a reader of the type takes them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postline.contracts.examples import examples_of
from postline.contracts.fitting import fits, is_endless
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
)
from tests.unit.contracts.protobuf_samples import Order

CARD = {"kind": "card"}
INTEGER = Scalar(kind="integer")
DEFINITIONS: dict[str, Any] = {
    "Level": Enumeration(name="Level", symbols=(1, 2)),
    "Point": Record(
        name="Point",
        positional=True,
        fields=(Field(name="x", type=INTEGER), Field(name="y", type=TEXT, required=False)),
    ),
    "Card": Record(
        name="Card", tag_field="kind", tag="card", closed=True, fields=(Field(name="n", type=INTEGER, required=False),)
    ),
}


@pytest.mark.parametrize(
    ("part", "fitting", "other"),
    [
        (INTEGER, [0, -(2**80)], [True, 1.5, "1", None]),
        (Scalar(kind="number"), [0, 1.5], [False, "1"]),
        (Scalar(kind="boolean"), [True], [0, None]),
        (Scalar(kind="null"), [None], [0, False]),
        (Scalar(kind="decimal"), ["1.50", 1, 1.5], ["x", "NaN", True]),
        (Scalar(kind="date"), ["2026-01-02"], ["2026-01-32", 1]),
        (Scalar(kind="uuid"), ["00000000-0000-0000-0000-000000000001"], ["x"]),
        (Scalar(kind="bytes", limits=Limits(max_length=2)), ["", "YWI="], ["YWJj", "?"]),
        (Scalar(kind="text", limits=Limits(pattern="^a", max_length=2)), ["a", "ab"], ["b", "abc"]),
        (Scalar(kind="text", limits=Limits(pattern=r"\p{L}")), ["1"], [1]),
        (Scalar(kind="integer", limits=Limits(ge=1, lt=9, multiple_of=2)), [2, 8], [0, 3, 10]),
        (Scalar(kind="number", limits=Limits(gt=1, le=9, multiple_of=0.01)), [8.99, 1.1, 9], [1, 1.005]),
        (ListOf(items=INTEGER, limits=Limits(min_length=1)), [[1]], [[], ["a"], 1]),
        (TupleOf(items=(INTEGER, TEXT)), [[1, "a"]], [[1], [1, 2], [1, "a", 1]]),
        (MapOf(keys=INTEGER, values=TEXT), [{}, {"1": "a"}], [{"a": "a"}, {"1": 1}, []]),
        (Reference(name="Level"), [1, 2], [3, True, "1", []]),
        (Reference(name="Point"), [[1], [1, "a"]], [[], ["a"], [1, "a", 1], {"x": 1}]),
        (Reference(name="Card"), [CARD, {**CARD, "n": 1}], [{}, {**CARD, "m": 1}, {**CARD, "n": "1"}]),
    ],
    ids=repr,
)  # fmt: skip
def test_values_fit_by_type_and_limits(part: Type, fitting: list[Any], other: list[Any]) -> None:
    schema = Schema(root=part, definitions=DEFINITIONS)
    assert [each for each in fitting if not fits(schema, part, each)] == []
    assert [each for each in other if fits(schema, part, each)] == []


def test_examples_fit_and_are_read_by_the_class() -> None:
    schema = schema_of(Order)
    for each in examples_of(schema, 10):
        assert fits(schema, schema.root, each)
        msgspec.json.decode(json.dumps(each), type=Order)


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(st.none() | st.integers(0, 3), lambda inner: st.lists(inner) | st.dictionaries(st.just("next"), inner))
)
def test_a_record_of_itself_fits_as_its_class_reads(value: Any) -> None:
    class Node(msgspec.Struct):
        next: Node | list[int] | None = None

    globals()["Node"] = Node
    schema = schema_of(Node)
    try:
        msgspec.json.decode(json.dumps(value), type=Node)
    except msgspec.ValidationError:
        assert not fits(schema, schema.root, value)
    else:
        assert fits(schema, schema.root, value)


def test_a_value_that_nests_too_deeply_does_not_fit() -> None:
    value: Any = []
    for _ in range(2000):
        value = [value]
    anything = Scalar(kind="any")
    assert not fits(Schema(root=anything), anything, value)


def test_a_default_that_contains_itself_is_endless_and_one_that_ends_is_not() -> None:
    def schema(default: Any) -> Schema:
        field = Field(name="next", type=ListOf(items=Reference(name="Node")), required=False, default=default)
        return Schema(root=Reference(name="Node"), definitions={"Node": Record(name="Node", fields=(field,))})

    assert is_endless(schema([{}]), Reference(name="Node"), {})
    assert not is_endless(schema([{"next": []}]), Reference(name="Node"), {})


@pytest.mark.parametrize(
    ("pattern", "is_refused"),
    [
        ("^a+$", True),
        (r"^[A-Z]{2}([0-9]{4}){2}$", True),
        ("^.*a.*b.*c$", True),
        ("^(a+)+$", False),
        ("^(a|a)*b", False),
        ("^(a{1,2}){30}b", False),
        ("^(a?){30}b", False),
        ("^.*a.*a.*a.*a.*b", False),
        ("a*a*a*b", False),
    ],
)
def test_a_pattern_that_may_take_a_search_long_refuses_nothing(pattern: str, is_refused: bool) -> None:
    part = Scalar(kind="text", limits=Limits(pattern=pattern))
    assert fits(Schema(root=part), part, "a" * 200 + "!") is not is_refused
