"""Example values are values of their class, the same ones each time."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta, Struct

from postline.contracts.examples import examples_of
from postline.contracts.protobuf import parse as parse_protobuf
from postline.contracts.reflection import schema_of
from postline.contracts.schema import Limits, Scalar, Schema
from postline.errors import ContractError
from tests.unit.contracts.classes_drawn import structs
from tests.unit.contracts.protobuf_samples import Order


class Limited(Struct):
    low: Annotated[int, Meta(ge=5)]
    high: Annotated[int, Meta(lt=-3)]
    between: Annotated[int, Meta(gt=2, le=9)]
    even: Annotated[int, Meta(multiple_of=7, ge=8, le=20)]
    share: Annotated[float, Meta(ge=0, le=1)]
    code: Annotated[str, Meta(pattern="^[A-Z]{3}$")]
    long: Annotated[str, Meta(min_length=40)]
    short: Annotated[str, Meta(max_length=1)]
    some: Annotated[list[int], Meta(min_length=2, max_length=4)]
    names: set[str] = set()
    pairs: Annotated[dict[str, int], Meta(min_length=2)] = msgspec.field(default_factory=lambda: {"a": 1, "b": 2})


class Tree(Struct):
    children: list[Tree]
    parent: Tree | None = None


class Endless(Struct):
    self: Endless


class Number(Struct, tag="number"):
    value: int


class Sum(Struct, tag="sum"):
    left: Sum | Number
    right: Number | Sum
    note: str | None = None


class Pair(Struct, array_like=True):
    first: str
    second: Sum
    third: int = 7


@pytest.mark.parametrize("cls", [Limited, Tree, Sum, Pair, Order], ids=lambda cls: cls.__name__)
def test_examples_are_values_of_the_class_within_its_limits(cls: Any) -> None:
    for example in examples_of(schema_of(cls), 5):
        msgspec.json.decode(msgspec.json.encode(example), type=cls)


def test_examples_are_the_same_each_time_and_differ_from_one_another() -> None:
    schema = schema_of(Order)
    found = examples_of(schema, 3)
    assert found == examples_of(schema, 3)
    assert found[0].keys() == {field.name for field in schema.record.fields}  # type: ignore[union-attr]
    assert found[1].keys() == {field.name for field in schema.record.fields if field.required}  # type: ignore[union-attr]
    assert found[2] != found[0]


def test_the_edges_of_limits_are_among_the_examples() -> None:
    found = examples_of(schema_of(Limited), 3)
    assert [each["between"] for each in found] == [4, 3, 9]
    assert [each["high"] for each in found[:2]] == [-5, -4]
    assert {each["even"] for each in found} == {14}
    assert [each["share"] for each in found] == [0.5, 0.0, 1.0]
    assert [len(each["some"]) for each in found] == [2, 2, 4]
    assert [len(each["long"]) for each in found][1] == 40


def test_patterns_that_common_texts_do_not_match_are_followed() -> None:
    for pattern in PATTERNS:
        texts = examples_of(text(pattern=pattern), 4)
        assert all(re.search(pattern, each) for each in texts), pattern


PATTERNS = [
    "^q{17}$",
    "^[A-Z]{2}[0-9]{2}(?:[ ]?[0-9A-Z]{4}){3,7}$",
    r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}Z$",
    r"^(?=.*\d)(?=.*[a-z])(?=.*[A-Z]).{8,}$",
    r"^ord_[0-9a-f]{24}\Z",
    "^(red|green|blue)+$",
    "^[^a-z]+?$",
    r"^(?P<year>\d+)\.(?:x|y*)\x41\u00e9$",
    "^[]x]+-[\\]^]$",
    "^a{2,4}b{,3}c{2,}d?$",
    r"(?i)\bsku\b",
    "^$",
    r"^\s\S\W\D$",
    "^x{y}$",
]


@pytest.mark.parametrize(
    "pattern", [r"^(a)\1$", "^(?!)$", "[", r"^\p{L}$", "^x{99999}$", "^(?:a{999}){999}$", "(" * 5000]
)
def test_a_pattern_that_no_text_could_be_made_for_is_refused(pattern: str) -> None:
    with pytest.raises(ContractError, match="no text that could be made keeps pattern"):
        examples_of(text(pattern=pattern))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_texts_keep_their_lengths_with_and_without_a_pattern(least: int, more: int) -> None:
    for pattern in (None, "^[a-f0-9]*$", "[.]"):
        most = max(least + more, 1)
        for each in examples_of(text(pattern=pattern, min_length=least, max_length=most), 6):
            assert least <= len(each) <= most


@st.composite
def limits_of_numbers(draw: st.DrawFn) -> tuple[Any, dict[str, Any]]:
    """A kind of number, and limits that msgspec takes for it."""
    kind = draw(st.sampled_from([int, float]))
    bound = st.integers(-50, 50) if kind is int else st.integers(-50, 50).map(lambda n: n / 8)
    said: dict[str, Any] = {draw(st.sampled_from(["ge", "gt"])): draw(bound)} if draw(st.booleans()) else {}
    said |= {draw(st.sampled_from(["le", "lt"])): draw(bound)} if draw(st.booleans()) else {}
    step = draw(st.sampled_from([None, 1, 7, *([0.25] if kind is float else [])]))
    return kind, said if step is None else {**said, "multiple_of": step}


@settings(max_examples=200, deadline=None)
@given(limits_of_numbers())
def test_numbers_keep_their_limits(drawn: tuple[Any, dict[str, Any]]) -> None:
    cls, said = drawn
    schema = Schema(root=Scalar(kind="integer" if cls is int else "number", limits=Limits(**said)))
    annotation: Any = Annotated[cls, Meta(**said)]
    low, high = said.get("ge", said.get("gt", -100)), said.get("le", said.get("lt", 100))
    if high - low > 7:  # as far as the largest step
        found = examples_of(schema, 6)
        assert len(found) == len({msgspec.convert(each, annotation) for each in found}) or "multiple_of" in said
        return
    try:
        found = examples_of(schema, 6)
    except ContractError:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert((low + high) / 2 if cls is float else (low + high) // 2, annotation)
        return
    for each in found:
        msgspec.convert(each, annotation)


def text(**limits: Any) -> Schema:
    return Schema(root=Scalar(kind="text", limits=Limits(**limits)))


def test_what_has_no_example_is_refused_with_its_path() -> None:
    few = msgspec.defstruct("Few", [("flags", Annotated[set[bool], Meta(min_length=3)])])
    with pytest.raises(ContractError, match="no example of flags: it takes 3 different ones"):
        examples_of(schema_of(few))
    none = msgspec.defstruct("Nothing", [("inner", list[Annotated[int, Meta(gt=2, lt=3)]])])
    with pytest.raises(ContractError, match=r"no example of inner\[\]: no number keeps gt 2, lt 3"):
        examples_of(schema_of(none))
    with pytest.raises(ContractError, match="without end"):
        examples_of(schema_of(Endless))


def test_a_bomb_of_nested_types_is_refused() -> None:
    inner: Any = int
    for depth in range(40):
        inner = msgspec.defstruct(f"Level{depth}", [("left", inner), ("right", inner)])
    with pytest.raises(ContractError, match="too large"):
        examples_of(schema_of(inner))


def test_what_may_be_left_out_of_a_large_type_is_left_out_where_it_gets_deep() -> None:
    inner: Any = int
    for depth in range(40):
        inner = msgspec.defstruct(f"Level{depth}", [("left", inner | None, None), ("right", inner | None, None)])
    for example in examples_of(schema_of(inner), 3):
        assert len(msgspec.json.encode(example)) < 20_000
        msgspec.convert(example, inner)


def test_of_fields_that_exclude_each_other_one_is_there() -> None:
    proto = 'syntax = "proto3"; message M { oneof way { string a = 1; int32 b = 2; } string c = 3; }'
    found = examples_of(parse_protobuf(proto), 4)
    assert [sorted(each.keys() & {"a", "b"}) for each in (found[0], found[2], found[3])] == [["a"], ["a"], ["b"]]


@settings(max_examples=60, deadline=None)
@given(structs())
def test_examples_of_random_classes_are_values_of_them(pair: tuple[Any, Any]) -> None:
    for example in examples_of(schema_of(pair[0]), 4):
        msgspec.json.decode(msgspec.json.encode(example), type=pair[0])
