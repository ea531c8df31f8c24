"""Who can read whom: each rule with the change that keeps it, the one that breaks it, and the remedy."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from postline.contracts.compatibility import Level, breaks, breaks_others, judge, report
from postline.contracts.marks import was
from postline.contracts.reflection import schema_of
from postline.contracts.schema import ListOf, Scalar, Schema, TupleOf
from postline.errors import ContractError


def one(hint: Any, **options: Any) -> Schema:
    """The schema of a record with one field of this type."""
    return schema_of(msgspec.defstruct("Order", [("value", hint)], **options))


def fields(*named: Any, **options: Any) -> Schema:
    """The schema of a record with these fields."""
    return schema_of(msgspec.defstruct("Order", list(named), **options))


def rules(reader: Schema, writer: Schema, *, whole: bool = False) -> list[tuple[str, str]]:
    found = [(each.path, each.rule) for each in breaks(reader, writer, whole=whole)]
    # Every rule has a remedy for the other side, too.
    assert [(each.path, each.rule) for each in breaks_others(reader, writer, whole=whole) if each.remedy] == found
    return found


class Few(enum.Enum):
    A = "a"


class Many(enum.Enum):
    A = "a"
    B = "b"


class Forgiving(enum.Enum):
    A = "a"

    @classmethod
    def _missing_(cls, value: object) -> Forgiving:
        return cls.A


class Card(Struct, tag="card"):
    number: str


class Cash(Struct, tag="cash"):
    pass


class Plastic(Struct, tag="plastic"):
    __was__ = ("card",)
    number: str


class Item(Struct):
    sku: int
    price: decimal.Decimal


class OldItem(Struct):
    sku: str


class Tree(Struct):
    children: list[Tree]
    label: str


class TreeWithNote(Struct):
    children: list[TreeWithNote]
    label: str
    note: str = ""


class TreeWithNumber(Struct):
    children: list[TreeWithNumber]
    label: int


READABLE = [
    (float, int),
    (decimal.Decimal, int),
    (decimal.Decimal, float),
    (str, decimal.Decimal),
    (str, datetime.datetime),
    (str, uuid.UUID),
    (str, bytes),
    (str, Many),
    (Any, list[int]),
    (int | None, int),
    (int | str, int),
    (Many, Few),
    (Forgiving, Many),
    (list[float], list[int]),
    (dict[str, float], dict[str, int]),
    (tuple[float, str], tuple[int, str]),
    (list[int], set[int]),
    (Card | Cash, Card),
    (Plastic | Cash, Card | Cash),
    (Annotated[int, Meta(ge=0)], Annotated[int, Meta(ge=1)]),
    (Annotated[int, Meta(ge=0)], Annotated[int, Meta(gt=0)]),
    (Annotated[int, Meta(gt=0)], Annotated[int, Meta(ge=1)]),
    (Annotated[int, Meta(le=9)], Annotated[int, Meta(lt=9)]),
    (Annotated[int, Meta(multiple_of=2)], Annotated[int, Meta(multiple_of=4)]),
    (Annotated[str, Meta(max_length=9)], Annotated[str, Meta(max_length=8)]),
    (str, Annotated[str, Meta(pattern="^a")]),
]
UNREADABLE = [
    (int, float, "type"),
    (int, str, "type"),
    (int, int | None, "type"),
    (bytes, str, "type"),
    (datetime.datetime, str, "type"),
    (uuid.UUID, str, "type"),
    (bool, int, "type"),
    (list[int], int, "type"),
    (tuple[int, int], tuple[int, int, int], "type"),
    (Few, Many, "unknown-symbol"),
    (Few, str, "type"),
    (Card | Cash, Plastic | Cash, "tag"),
    (set[int], list[int], "set"),
    (Annotated[int, Meta(ge=1)], int, "limit"),
    (Annotated[int, Meta(ge=1)], Annotated[int, Meta(ge=0)], "limit"),
    (Annotated[int, Meta(gt=0)], Annotated[int, Meta(ge=0)], "limit"),
    (Annotated[int, Meta(multiple_of=4)], Annotated[int, Meta(multiple_of=2)], "limit"),
    (Annotated[str, Meta(pattern="^a")], Annotated[str, Meta(pattern="^b")], "limit"),
    (Annotated[str, Meta(max_length=8)], Annotated[str, Meta(max_length=9)], "limit"),
]


@pytest.mark.parametrize(("reader", "writer"), READABLE, ids=str)
def test_a_reader_takes_what_is_narrower_or_promoted(reader: Any, writer: Any) -> None:
    assert rules(one(reader), one(writer)) == []


@pytest.mark.parametrize(("reader", "writer", "rule"), UNREADABLE, ids=str)
def test_a_reader_refuses_what_is_wider_or_other(reader: Any, writer: Any, rule: str) -> None:
    assert rules(one(reader), one(writer)) == [("value", rule)]


def test_unknown_fields_are_skipped_unless_the_reader_is_closed() -> None:
    wide, narrow = fields(("id", str), ("note", str)), fields(("id", str))
    assert rules(narrow, wide) == []
    assert rules(fields(("id", str), forbid_unknown_fields=True), wide) == [("note", "closed")]


def test_a_field_without_default_breaks_old_data() -> None:
    old = fields(("id", str))
    assert rules(fields(("id", str), ("total", int)), old) == [("total", "field-without-default")]
    assert rules(fields(("id", str), ("total", int, 0)), old) == []


def test_a_field_that_may_be_absent_breaks_a_reader_that_requires_it_unless_values_are_written_whole() -> None:
    reader, writer = fields(("total", int)), fields(("total", int, 0))
    assert rules(reader, writer) == [("total", "field-may-be-absent")]
    assert rules(reader, writer, whole=True) == []


def test_a_renamed_field_is_found_by_its_alias() -> None:
    old = fields(("amount", int))
    assert rules(fields(("total", Annotated[int, was("amount")])), old) == []
    assert rules(fields(("total", int)), old) == [("total", "field-without-default")]
    assert rules(old, fields(("total", Annotated[int, was("amount")]))) == [("amount", "field-without-default")]


def test_a_field_of_another_type_under_its_old_name_breaks() -> None:
    reader = fields(("total", Annotated[int, was("amount")]))
    assert rules(reader, fields(("amount", str))) == [("total", "type")]


def test_positions_count_where_values_are_lists() -> None:
    old = fields(("a", int), ("b", str), array_like=True)
    renamed = fields(("x", Annotated[int, was("a")]), ("b", str), array_like=True)
    assert rules(renamed, old) == []
    assert rules(fields(("x", int), ("b", str), array_like=True), old) == [("x", "place")]
    assert rules(fields(("b", str), ("a", int), array_like=True), old) == [("b", "place"), ("a", "place")]
    three = fields(("a", int), ("b", int, 2), ("c", int, 3), array_like=True)
    assert rules(fields(("a", int), ("c", int, 3), array_like=True), three) == [("c", "place")]
    longer = [("a", int), ("b", str), ("c", int)]
    assert rules(fields(*longer, array_like=True), old) == [("c", "field-without-default")]
    closed = fields(("a", int), array_like=True, forbid_unknown_fields=True)
    assert rules(closed, old) == [("", "closed")]
    assert rules(fields(("a", int)), old) == [("", "layout")]


def test_recursive_types_are_compared_once_around() -> None:
    assert rules(schema_of(TreeWithNote), schema_of(Tree)) == []
    assert rules(schema_of(Tree), schema_of(TreeWithNote)) == []
    assert rules(schema_of(TreeWithNumber, name="Tree"), schema_of(Tree)) == [("label", "type")]


def test_every_break_is_found_with_its_path_and_a_remedy() -> None:
    found = breaks(fields(("items", list[Item]), ("id", int)), fields(("items", list[OldItem]), ("id", str)))
    assert sorted(each.path for each in found) == ["id", "items[].price", "items[].sku"]
    assert all(each.said and each.remedy for each in found)


def test_types_that_nest_too_deeply_are_refused() -> None:
    deep: Any = Scalar(kind="integer")
    for _ in range(250):
        deep = ListOf(items=deep)
    with pytest.raises(ContractError, match="deeper than 200"):
        breaks(Schema(root=deep), Schema(root=TupleOf(items=(deep,)).items[0], definitions={"x": _record()}))


def _record() -> Any:
    return fields(("id", str)).definitions["Order"]


# -- levels -------------------------------------------------------------------------------------------

V1, V2, V3 = fields(("id", str)), fields(("id", str), ("total", int)), fields(("id", str), ("total", int), ("n", int))


@pytest.mark.parametrize(
    ("level", "found"),
    [
        (Level.NONE, []),
        (Level.BACKWARD, [(2, "backward")]),
        (Level.BACKWARD_TRANSITIVE, [(1, "backward"), (2, "backward")]),
        (Level.FORWARD, []),
        (Level.FORWARD_TRANSITIVE, []),
        (Level.FULL, [(2, "backward")]),
        (Level.FULL_TRANSITIVE, [(1, "backward"), (2, "backward")]),
    ],
)
def test_a_level_says_whom_a_required_addition_breaks(level: Level, found: list[tuple[int, str]]) -> None:
    assert [(each.version, each.direction) for each in judge(V3, {1: V1, 2: V2}, level)] == found


@pytest.mark.parametrize(
    ("level", "found"),
    [
        (Level.BACKWARD_TRANSITIVE, []),
        (Level.FORWARD, [(2, "forward")]),
        (Level.FORWARD_TRANSITIVE, [(2, "forward"), (3, "forward")]),
        (Level.FULL, [(3, "forward")]),
    ],
)
def test_a_level_says_whom_a_removal_breaks(level: Level, found: list[tuple[int, str]]) -> None:
    versions = {2: V2, 3: V3} if level.transitive else {2: V2}
    versions = {2: V2, 3: V3} if level is Level.FULL else versions
    assert [(each.version, each.direction) for each in judge(V1, versions, level)] == found


def test_the_report_names_path_whom_it_breaks_and_remedy() -> None:
    said = report(judge(V3, {2: V2}, Level.FULL), "shop.Order on shop.orders")
    assert "shop.Order on shop.orders breaks records of version 2" in said
    assert "n: the reader wants it" in said
    assert "default" in said


# -- remedies -----------------------------------------------------------------------------------------


def remedies(new: Schema, old: Schema, direction: str) -> list[str]:
    """What to do about what a new version breaks in one direction."""
    found = [each for each in judge(new, {1: old}, Level.FULL) if each.direction == direction]
    return [each.remedy for finding in found for each in finding.breaks]


@pytest.mark.parametrize(
    ("new", "old", "backward", "forward"),
    [
        (V2, V1, ['Give total a default, or `Annotated[…, was("old")]`'], []),
        (V1, V2, [], ["Write total until nobody reads it, beside what takes its place"]),
        (fields(("id", int)), V1, ["Keep the type and add a field"], ["Keep id of its type, and write the new one"]),
        (fields(("id", str, "")), V1, [], ["Keep id without a default until those who read have one"]),
        (V1, fields(("id", str, "")), ["Give id a default, or write an upcast"], []),
        (fields(("s", Many)), fields(("s", Few)), [], ["Declare and write it only once those who read know it"]),
        (fields(("s", Few)), fields(("s", Many)), ["Give the enumeration a default"], []),
    ],
)
def test_remedies_are_for_who_makes_the_change(
    new: Schema, old: Schema, backward: list[str], forward: list[str]
) -> None:
    for direction, wanted in (("backward", backward), ("forward", forward)):
        told = remedies(new, old, direction)
        assert len(told) == len(wanted)
        assert all(each.startswith(start) for each, start in zip(told, wanted, strict=True)), told


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from([int, str, float]), st.booleans()), max_size=4))
def test_every_schema_reads_itself(drawn: list[tuple[str, Any, bool]]) -> None:
    named = {name: (name, kind, kind()) if optional else (name, kind) for name, kind, optional in drawn}
    ordered = sorted(named.values(), key=len)
    assert breaks(fields(*ordered), fields(*ordered)) == []
    assert rules(fields(*ordered), fields(*reversed(ordered), kw_only=True), whole=True) == []


class X(Struct, tag="X"):
    a: int = 0


class Y(Struct, tag="Y"):
    a: int = 0


class Loop(Struct):
    """Contains itself by way of a union, of which one branch fails."""

    next: Loop | None = None
    of: X | None = None


class OtherLoop(Struct):
    next: OtherLoop | None = None
    of: Y | None = None


def test_a_branch_that_fails_leaves_nothing_behind() -> None:
    old = fields(("u", Y), ("v", Y))
    assert rules(fields(("u", X | Y), ("v", X)), old) == [("v", "tag")]
    # What failed once is said again wherever it is met, a sentence a place.
    assert rules(fields(("u", X), ("v", X)), old) == [("u", "tag"), ("v", "tag")]
    assert rules(schema_of(Loop, name="L"), schema_of(OtherLoop, name="L")) == [("of", "tag")]


def test_what_was_readable_by_a_pair_that_is_not_is_compared_again() -> None:
    class Inner(Struct):
        back: Outer | None = None

    class Outer(Struct):
        inner: Inner
        need: int

    class OldInner(Struct):
        back: OldOuter | None = None

    class OldOuter(Struct):
        inner: OldInner

    space = {"Inner": Inner, "Outer": Outer, "OldInner": OldInner, "OldOuter": OldOuter}
    for cls in space.values():
        cls.__annotations__ = {name: eval(hint, globals(), space) for name, hint in cls.__annotations__.items()}
    # The outer pair fails, so that the inner one, readable while it was assumed, is not.
    assert rules(fields(("u", Outer | int), ("v", Inner)), fields(("u", int), ("v", OldInner))) == [
        ("v.back.need", "field-without-default")
    ]


def test_chains_of_records_in_each_other_twice_are_compared_in_no_time() -> None:
    new: Any = int
    old: Any = str
    for number in range(40):
        new = msgspec.defstruct(f"R{number}", [("a", new), ("b", new)])
        old = msgspec.defstruct(f"R{number}", [("a", old), ("b", old)])
    found = rules(schema_of(new), schema_of(old))
    assert len(found) == 41


SHORT = Annotated[str, Meta(min_length=2)]


@pytest.mark.parametrize(
    ("new", "old", "rule"),
    [
        (SHORT, Many, "limit"),
        (Annotated[str, Meta(max_length=4)], Annotated[bytes, Meta(max_length=4)], "limit"),
        (Annotated[str, Meta(pattern="^a")], uuid.UUID, "limit"),
        (Annotated[str, Meta(max_length=1)], Many, None),
        (dict[float, int], dict[int, int], "merged"),
        (set[float], set[int], "merged"),
        (list[float], set[int], None),
        (dict[Forgiving, int], dict[Many, int], "merged"),
        (dict[Forgiving, int], dict[Few, int], None),
    ],
)
def test_what_would_be_refused_or_become_one_breaks(new: Any, old: Any, rule: str | None) -> None:
    assert [each for _, each in rules(one(new), one(old))] == ([] if rule is None else [rule])


def test_a_name_that_a_field_has_is_no_former_one_of_another() -> None:
    old = fields(("a", int))
    moved = fields(("c", Annotated[int, was("a")]), ("a", int, 99))
    assert rules(moved, old) == [("c", "field-without-default")]
    assert rules(fields(("c", Annotated[int, was("a", "b")]), ("a", int, 99)), fields(("a", int), ("b", int))) == []


def test_an_optional_text_that_gets_a_limit_is_told_of_it() -> None:
    found = breaks(one(SHORT | None), one(str | None))
    assert [(each.path, each.said) for each in found] == [
        ("value", "the reader's limit min_length is 2, the writer has no such limit")
    ]


@pytest.mark.parametrize(
    ("one_rule", "other", "both"),
    [
        ("FULL", "NONE", "FULL"),
        ("NONE", "NONE", "NONE"),
        ("BACKWARD", "FORWARD_TRANSITIVE", "FULL_TRANSITIVE"),
        ("BACKWARD_TRANSITIVE", "BACKWARD", "BACKWARD_TRANSITIVE"),
    ],
)
def test_two_rules_together_ask_for_all_that_either_does(one_rule: str, other: str, both: str) -> None:
    assert Level(one_rule).together_with(Level(other)) is Level(other).together_with(Level(one_rule)) is Level(both)
