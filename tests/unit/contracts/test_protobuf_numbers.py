"""Numbers of fields and symbols, and what another number breaks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postline.contracts.protobuf import numbered, wire_breaks
from postline.contracts.schema import (
    TEXT,
    Enumeration,
    Field,
    ListOf,
    Reference,
    Scalar,
    Schema,
    UnionOf,
)
from postline.errors import ContractError
from tests.unit.contracts.protobuf_samples import (
    INTEGER,
    NULL,
    NUMBER,
    NUMBER_MAX,
    fields_of,
    record,
    wired,
)


def numbers_of(schema: Schema) -> dict[str, int]:
    """The root's fields' numbers."""
    return {name: each.number for name, each in fields_of(schema).items()}


def named(*names: str, **was: str) -> Schema:
    """A record of text fields; keywords say what a field was named before."""
    return record(*(Field(name=each, type=TEXT, aliases=(was[each],) if each in was else ()) for each in names))


def test_fields_are_numbered_in_their_order_at_first() -> None:
    assert numbers_of(numbered(named("a", "b"))) == {"a": 1, "b": 2}
    assert numbers_of(numbered(named("a", "b"), None)) == {"a": 1, "b": 2}


def test_fields_keep_their_numbers_when_they_are_moved_renamed_and_joined_by_others() -> None:
    assert numbers_of(numbered(named("c", "new", "b", new="a"), named("a", "b"))) == {"c": 3, "new": 1, "b": 2}


def test_the_number_of_a_field_that_is_gone_is_not_taken_again_until_it_comes_back() -> None:
    versions = (named("a", "b"), named("a"))
    assert numbers_of(numbered(named("a", "c"), *versions)) == {"a": 1, "c": 3}
    assert numbers_of(numbered(named("a", "c", "b"), *versions)) == {"a": 1, "c": 3, "b": 2}


def test_numbers_that_protobuf_keeps_for_itself_are_passed_over_and_there_is_a_last_one() -> None:
    before = record(Field(name="a", type=TEXT, number=18_999))
    assert numbers_of(numbered(named("a", "b"), before)) == {"a": 18_999, "b": 20_000}
    with pytest.raises(ContractError, match="can't have the number"):
        numbered(named("a", "b"), record(Field(name="a", type=TEXT, number=NUMBER_MAX)))


@given(st.lists(st.lists(st.sampled_from("abcdef"), unique=True), min_size=1, max_size=5))
def test_a_number_means_one_field_through_all_versions(history: list[list[str]]) -> None:
    versions: list[Schema] = []
    known: dict[str, int] = {}
    for names in history:
        versions.append(numbered(named(*names), *versions))
        for name, number in numbers_of(versions[-1]).items():
            assert known.setdefault(name, number) == number
    assert len(set(known.values())) == len(known)


@pytest.mark.parametrize(
    ("reader", "writer"),
    [
        (wired(Scalar(kind="integer", bits=32)), wired(Scalar(kind="integer", bits=64))),
        (wired(Scalar(kind="boolean")), wired(INTEGER)),
        (wired(TEXT), wired(Scalar(kind="uuid"))),
        (wired(UnionOf(options=(TEXT, NULL))), wired(TEXT)),
        (wired(TEXT, name="b"), wired(TEXT, name="a")),
        (wired(TEXT, name="b", number=2), wired(INTEGER, name="a", number=1)),
    ],
)
def test_changes_that_the_wire_does_not_see_break_nothing(reader: Schema, writer: Schema) -> None:
    assert wire_breaks(reader, writer) == wire_breaks(writer, reader) == []


@pytest.mark.parametrize(
    ("reader", "writer", "expected"),
    [
        (wired(TEXT), wired(INTEGER), ("a", "was integer (varint) and is text (string).")),
        (wired(TEXT, number=2), wired(TEXT), ("a", "its number was 1 and is 2.")),
        (wired(TEXT, name="b"), wired(INTEGER), ("b", "takes the number 1, which a had, as another kind.")),
        (
            wired(NUMBER),
            wired(Scalar(kind="number", bits=32)),
            ("a", "was number of 32 bits (float) and is number (double)."),
        ),
        (wired(ListOf(items=TEXT)), wired(ListOf(items=NUMBER)), ("a[]", "was number (double) and is text (string).")),
        (
            wired(UnionOf(options=(ListOf(items=TEXT), NULL))),
            wired(ListOf(items=TEXT)),
            ("a", "was list of text (repeated) and is list of text or null (optional repeated)."),
        ),
        (
            wired(UnionOf(options=(INTEGER, TEXT))),
            wired(UnionOf(options=(TEXT, INTEGER))),
            ("a", "its alternative 1 was text and is integer."),
        ),
        (
            wired(UnionOf(options=(TEXT, INTEGER))),
            wired(TEXT),
            ("a", "was text (string) and is text or integer (oneof)."),
        ),
        (
            wired(Reference(name="E"), E=Enumeration(name="E", symbols=("x", "y"))),
            wired(Reference(name="E"), E=Enumeration(name="E", symbols=("y", "x"))),
            ("a", "the number of its symbol 'y' was 1 and is 2."),
        ),
        (
            wired(Reference(name="E"), E=Enumeration(name="E", symbols=("z",))),
            wired(Reference(name="E"), E=Enumeration(name="E", symbols=("x",))),
            ("a", "its number 1 was 'x' and is 'z'."),
        ),
    ],
)
def test_what_programs_that_know_numbers_alone_misread_is_named(
    reader: Schema, writer: Schema, expected: tuple[str, str]
) -> None:
    assert expected in wire_breaks(reader, writer)


def test_two_fields_that_change_numbers_are_both_named() -> None:
    one = record(Field(name="a", type=TEXT, number=1), Field(name="b", type=TEXT, number=2))
    other = record(Field(name="a", type=TEXT, number=2), Field(name="b", type=TEXT, number=1))
    assert {path for path, _ in wire_breaks(one, other)} == {"a", "b"}


def test_records_that_contain_themselves_are_compared_to_the_end() -> None:
    schema = wired(ListOf(items=Reference(name="shop.Order")))
    assert wire_breaks(schema, schema) == []
