"""Example values are values of their class, the same ones each time."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given, settings
from msgspec import Meta, Struct

from postline.contracts.examples import examples_of
from postline.contracts.reflection import schema_of
from postline.errors import ContractError
from tests.unit.contracts.protobuf_samples import Order
from tests.unit.contracts.test_avro_codec import structs


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


@pytest.mark.parametrize("cls", [Limited, Tree, Order], ids=lambda cls: cls.__name__)
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


def test_what_has_no_example_is_refused_with_its_path() -> None:
    odd = msgspec.defstruct("Odd", [("code", Annotated[str, Meta(pattern="^q{17}$")])])
    with pytest.raises(ContractError, match="no example of code"):
        examples_of(schema_of(odd))
    with pytest.raises(ContractError, match="without end"):
        examples_of(schema_of(Endless))


@settings(max_examples=60, deadline=None)
@given(structs())
def test_examples_of_random_classes_are_values_of_them(pair: tuple[Any, Any]) -> None:
    for example in examples_of(schema_of(pair[0]), 4):
        msgspec.json.decode(msgspec.json.encode(example), type=pair[0])
