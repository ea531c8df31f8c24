"""Avro's documents: a schema in Avro's words, and `.avsc` files of anybody, whose bytes are then read as they lie."""

from __future__ import annotations

import enum
import io
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import fastavro
import msgspec
import pytest
from avro.schema import make_avsc_object
from hypothesis import given, settings
from hypothesis import strategies as st

from postline.contracts.avro import MODEL, document, parse
from postline.contracts.avro_codec import codec, decoder
from postline.contracts.reflection import schema_of
from postline.contracts.schema import (
    Enumeration,
    Field,
    ListOf,
    MapOf,
    Record,
    Reference,
    Scalar,
    Schema,
    Type,
    UnionOf,
)
from postline.errors import ContractError, DecodeError, EncodeError

SharedData = Callable[[str], Path]
NULL, TEXT = Scalar(kind="null"), Scalar(kind="text")


def record(*types: Any, name: str = "Root") -> dict[str, Any]:
    """An Avro record with fields f0, f1, … of the types."""
    return {"type": "record", "name": name, "fields": [{"name": f"f{n}", "type": each} for n, each in enumerate(types)]}


def logical(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": name, **more}


def fixed(name: str, size: int, **more: Any) -> dict[str, Any]:
    return {"type": "fixed", "name": name, "size": size, **more}


def type_in(content: Any) -> Type:
    """What a field of that Avro type is in the model."""
    found = parse(record(content)).definitions["Root"]
    assert isinstance(found, Record)
    return found.fields[0].type


def written(content: Any, value: Any) -> bytes:
    file = io.BytesIO()
    fastavro.schemaless_writer(file, fastavro.parse_schema(content), value)
    return file.getvalue()


def reader_of(content: Any) -> Callable[[bytes], Any]:
    schema = parse(content)
    return decoder(Any, "value", schema, schema)


# -- any .avsc ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("null", NULL),
        ({"type": "boolean"}, Scalar(kind="boolean")),
        ("int", Scalar(kind="integer", bits=32)),
        ("long", Scalar(kind="integer", bits=64)),
        ("float", Scalar(kind="number", bits=32)),
        ("double", Scalar(kind="number", bits=64)),
        ({"type": "string", "avro.java.string": "String"}, TEXT),
        (logical("int", "date"), Scalar(kind="date")),
        (logical("int", "time-millis"), Scalar(kind="time", wire="time-millis")),
        (logical("long", "time-micros"), Scalar(kind="time")),
        (logical("long", "timestamp-millis"), Scalar(kind="datetime", wire="timestamp-millis")),
        (logical("long", "timestamp-micros"), Scalar(kind="datetime")),
        (logical("long", "local-timestamp-micros"), Scalar(kind="datetime", wire="local-timestamp-micros")),
        (logical("long", "timestamp-nanos"), Scalar(kind="integer", bits=64)),
        (logical("string", "date"), TEXT),
        (logical("string", "uuid"), Scalar(kind="uuid")),
        (fixed("Id", 16, logicalType="uuid"), Scalar(kind="uuid", size=16)),
        (fixed("Hash", 4), Scalar(kind="bytes", size=4)),
        (fixed("Span", 12, logicalType="duration"), Scalar(kind="bytes", size=12, wire="duration")),
        (logical("bytes", "decimal", precision=9, scale=2), Scalar(kind="decimal", precision=9, scale=2)),
        (fixed("D", 4, logicalType="decimal", precision=9), Scalar(kind="decimal", precision=9, size=4)),
        ({"type": "array", "items": ["null", "string"]}, ListOf(items=UnionOf(options=(NULL, TEXT)))),
        ({"type": "map", "values": "string"}, MapOf(keys=TEXT, values=TEXT)),
        (["null", "Root"], UnionOf(options=(NULL, Reference(name="Root")))),
        (["string"], UnionOf(options=(TEXT,))),
    ],
    ids=str,
)
def test_each_type_of_avro_has_its_type_in_the_model(content: Any, expected: Type) -> None:
    assert type_in(content) == expected


def test_names_are_resolved_in_their_namespaces() -> None:
    found = parse(
        {
            "type": "record",
            "name": "Order",
            "namespace": "shop",
            "aliases": ["Purchase", "old.Order"],
            "fields": [
                {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["NEW"], "default": "NEW"}},
                {"name": "other", "type": {"type": "record", "name": "wh.Box", "fields": [{"name": "s", "type": "S"}]}}
                | {"type": {"type": "enum", "name": "S", "namespace": "wh", "symbols": ["A"]}},
                {"name": "again", "type": "State", "aliases": ["before"]},
                {"name": "far", "type": "wh.S"},
                {"name": "parent", "type": ["null", "Order"], "default": None},
            ],
        }
    )
    assert found.root == Reference(name="shop.Order")
    order = found.record
    assert order is not None
    assert order.aliases == ("shop.Purchase", "old.Order")
    state, other, again, far, parent = order.fields
    assert state.type == again.type == Reference(name="shop.State")
    assert (again.aliases, far.type) == (("before",), Reference(name="wh.S"))
    assert other.type == far.type
    assert (parent.required, parent.default) == (False, None)
    assert found.definitions["shop.State"] == Enumeration(name="shop.State", symbols=("NEW",), default="NEW")


@pytest.mark.parametrize(
    ("content", "default", "expected"),
    [
        ("int", 5, 5),
        ("double", 5, 5),
        ("bytes", "\u00ff", "/w=="),
        (fixed("F", 2), "ab", "YWI="),
        (logical("int", "date"), 1, "1970-01-02"),
        (logical("int", "time-millis"), 1500, "00:00:01.500000"),
        (logical("long", "timestamp-micros"), -1, "1969-12-31T23:59:59.999999Z"),
        (logical("long", "local-timestamp-millis"), 0, "1970-01-01T00:00:00"),
        (logical("bytes", "decimal", precision=4, scale=2), "\u00ff", "-0.01"),
        (["null", "int"], None, None),
        (["double", "int"], 0, 0),
        ({"type": "array", "items": "bytes"}, ["a"], ["YQ=="]),
        ({"type": "map", "values": logical("int", "date")}, {"k": 0}, {"k": "1970-01-01"}),
        (record("bytes", name="Inner"), {"f0": "a"}, {"f0": "YQ=="}),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, "B", "B"),
    ],
    ids=str,
)
def test_defaults_are_read_as_json_has_them_and_written_back(content: Any, default: Any, expected: Any) -> None:
    made = {"type": "record", "name": "Root", "fields": [{"name": "f", "type": content, "default": default}]}
    schema = parse(made)
    assert schema.record is not None
    field = schema.record.fields[0]
    assert (field.required, field.default) == (False, expected)
    again = document(schema)["fields"][0]["default"]
    assert (type(again), again) == (type(default), default)


@pytest.mark.parametrize(
    ("content", "default", "data", "expected"),
    [
        (["string", "null"], None, b"\x00\x02a", "a"),
        (["double", "int"], 0, b"\x02\x08", 4),
        (["int", "double"], 0.5, b"\x00\x08", 4),
        (["string"], "x", b"\x00\x02a", "a"),
    ],
    ids=str,
)
def test_alternatives_keep_their_order_whatever_the_default_is_of(
    content: Any, default: Any, data: bytes, expected: Any
) -> None:
    made = {"type": "record", "name": "Root", "fields": [{"name": "f", "type": content, "default": default}]}
    assert reader_of(made)(data) == {"f": expected}


def nested(depth: int) -> Any:
    return "int" if not depth else {"type": "array", "items": nested(depth - 1)}


def alternatives(*types: Any) -> Any:
    return record(list(types))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (5, "at its root: 5 is no type"),
        ([], "at its root: it is a union of nothing"),
        ("Missing", "there is no type 'Missing' before it"),
        ({"type": "array"}, r"\[\]: None is no type"),
        ({"type": "record", "name": "R"}, "record R has no fields"),
        ({"type": "record", "fields": []}, "a named type has no name"),
        (record(record("nope", name="Inner")), r"f0\.f0: there is no type 'nope'"),
        (record({"type": "map", "values": "nope"}), r"f0\[\]: there is no type"),
        (record(fixed("F", 1), fixed("F", 1)), "f1: F is defined twice"),
        (record("Root"), "values of Root would have no end"),
        (record(fixed("F", 0)), "f0: fixed F has the size 0"),
        (record(logical("bytes", "decimal", precision=2, scale=3)), "f0: a decimal of precision 2 and scale 3"),
        (record(fixed("D", 1, logicalType="decimal", precision=9)), "precision of 9"),
        (alternatives("int", ["string"]), "f0: it is a union within a union"),
        (alternatives("int", "int"), "f0 can't be said in Avro: two of its alternatives are int"),
        (alternatives(nested(1), nested(2)), "two of its alternatives are array"),
        ({"type": "enum", "name": "E", "symbols": ["A", "A"]}, "unique"),
        ({"type": "enum", "name": "E", "symbols": ["A"], "default": "B"}, "Default value for enum"),
        ({"type": "record", "name": "string", "fields": []}, "the name of one of Avro's own types"),
        ({**record("int"), "fields": [{"name": "a", "type": "int"}] * 2}, "has two fields a"),
        ({**record(), "aliases": [5]}, r"its aliases are \[5\]"),
        ({**record(), "namespace": 5}, "has the namespace 5"),
        ({**record("int"), "fields": [{"name": "a", "type": "int", "default": "x"}]}, "Default value <x>"),
        (nested(300), "nests types deeper than 200"),
        ({**record(), MODEL: 5}, f"{MODEL} can't be read"),
        ({**record(), MODEL: {"root": {"is": "reference", "name": "X"}}}, f"{MODEL} refers to 'X'"),
    ],
    ids=lambda each: str(each)[:60],
)
def test_what_is_no_schema_is_refused_with_its_path(content: Any, said: str) -> None:
    with pytest.raises(ContractError, match=said):
        parse(content)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 300)
    | st.sampled_from(["int", "record", "enum", "fixed", "array", "R", "decimal", "", "null"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "name", "fields", "symbols", "items", "values", "size", "default", "aliases", "logicalType"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(JSON, st.sampled_from(["type", "fields", "aliases", "name", "namespace", "symbols", "default", "size", MODEL]))
def test_any_json_is_a_schema_or_refused(found: Any, key: str) -> None:
    for content in (found, {**record("int"), key: found}, record({"type": "enum", "name": "E", key: found})):
        try:
            schema = parse(content)
        except ContractError:
            continue
        assert parse(document(schema)) == schema


# -- our own documents --------------------------------------------------------------------------------


class State(enum.Enum):
    NEW = "new-one"
    DONE = "done"


class Inner(msgspec.Struct):
    state: State = State.NEW
    note: str | None = None


class Defaults(msgspec.Struct, rename="kebab"):
    id: str
    price: Decimal = Decimal("1.50")
    day: date = date(2026, 1, 2)
    clock: time = time(1, 2, 3, 4)
    at: datetime = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    waits: timedelta = timedelta(days=-1, microseconds=5)
    uid: UUID = UUID(int=7)
    ratio: float = 2
    state_now: State = State.DONE
    maybe: int | None = None
    either: str | int | None = 5
    pair: tuple[int, str] = (1, "a")
    anything: Any = None
    either_inner: Inner | State | None = State.NEW


@pytest.mark.filterwarnings("ignore:Unknown .*, using")  # of logical types that it does not know
def test_defaults_are_told_to_readers_that_know_only_avro() -> None:
    schema = schema_of(Defaults)
    made = document(schema)
    data = written(record_of_id(), {"id": "1"})
    found = fastavro.schemaless_reader(io.BytesIO(data), record_of_id(), fastavro.parse_schema(made))
    again = io.BytesIO()
    fastavro.schemaless_writer(again, fastavro.parse_schema(made), found)
    assert codec(Defaults, "Defaults", schema)[1](again.getvalue()) == Defaults("1")
    assert "default" in made["fields"][1]
    make_avsc_object(made)


def record_of_id() -> dict[str, Any]:
    return {"type": "record", "name": "Defaults", "fields": [{"name": "id", "type": "string"}]}


def test_a_document_of_ours_that_was_changed_is_read_as_it_stands() -> None:
    made = document(schema_of(Inner))
    assert parse(made) == schema_of(Inner)
    made["fields"].pop()
    changed = parse(made)
    assert changed.record is not None
    assert [each.name for each in changed.record.fields] == ["state"]


def test_what_avro_has_no_type_for_is_marked_with_a_logical_type() -> None:
    class Special(msgspec.Struct):
        price: Decimal
        waits: timedelta
        anything: Any
        point: tuple[int, str]
        by_day: dict[date, int]
        labels: set[str]

    types = {each["name"]: each["type"] for each in document(schema_of(Special))["fields"]}
    assert types["price"] == logical("string", "decimal-text")
    assert types["waits"] == logical("long", "duration-micros")
    assert types["anything"] == logical("string", "json")
    assert [each["type"] for each in types["point"]["fields"]] == ["long", "string"]
    assert types["by_day"] == {"type": "map", "values": "long"}
    assert types["labels"] == {"type": "array", "items": "string"}


def test_names_that_avro_does_not_allow_are_the_nearest_that_it_does() -> None:
    schema = Schema(
        root=Reference(name="my-shop.1st"),
        definitions={
            "my-shop.1st": Record(
                name="my-shop.1st", fields=(Field(name="a-b", type=TEXT), Field(name="a_b", type=TEXT))
            )
        },
    )
    made = document(schema)
    assert (made["namespace"], made["name"]) == ("my_shop", "_1st")
    assert [each["name"] for each in made["fields"]] == ["a_b", "a_b_"]
    encode, decode = codec(Any, "value", schema)
    assert decode(encode({"a-b": "1", "a_b": "2"})) == {"a-b": "1", "a_b": "2"}


# -- bytes of anybody ---------------------------------------------------------------------------------


class Sample(NamedTuple):
    """An Avro type, and values of it as fastavro and we give them."""

    content: Any
    values: st.SearchStrategy[Any]


PLAIN = [
    Sample("null", st.none()),
    Sample("boolean", st.booleans()),
    Sample("int", st.integers(-(2**31), 2**31 - 1)),
    Sample("long", st.integers(-(2**63), 2**63 - 1)),
    Sample("double", st.floats(allow_nan=False)),
    Sample("float", st.floats(width=32, allow_nan=False)),
    Sample("string", st.text(st.characters(exclude_categories=["Cs"]), max_size=5)),
    Sample("bytes", st.binary(max_size=5)),
    Sample(logical("int", "date"), st.dates()),
    Sample(logical("long", "time-micros"), st.times()),
    Sample(logical("long", "timestamp-micros"), st.datetimes(timezones=st.just(UTC))),
    Sample(logical("long", "local-timestamp-micros"), st.datetimes()),
    Sample(logical("bytes", "decimal", precision=6, scale=2), st.decimals(-9999, 9999, places=2)),
    Sample(logical("string", "uuid"), st.uuids()),
]


class Drawn:
    """Random Avro types; what has a name is defined where it stands first, and may be referred to from then on."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw, self._named, self._count = draw, list[Sample](), 0

    def sample(self, depth: int) -> Sample:
        kinds = ["plain"] * 3 + ["named", "fixed", "enum"] + ["record", "array", "map", "union"] * (depth > 0)
        match self._draw(st.sampled_from(kinds)):
            case "named" if self._named:
                return self._draw(st.sampled_from(self._named))
            case "fixed":
                size = self._draw(st.integers(1, 4))
                return self._kept(lambda name: fixed(name, size), st.binary(min_size=size, max_size=size))
            case "enum":
                symbols = ["A", "B", "C"]
                return self._kept(
                    lambda name: {"type": "enum", "name": name, "symbols": symbols}, st.sampled_from(symbols)
                )
            case "record":
                return self._record(depth)
            case "array":
                items = self.sample(depth - 1)
                return Sample({"type": "array", "items": items.content}, st.lists(items.values, max_size=3))
            case "map":
                inner = self.sample(depth - 1)
                keys = st.text("abc", max_size=3)
                return Sample({"type": "map", "values": inner.content}, st.dictionaries(keys, inner.values, max_size=2))
            case "union":
                return self._union(depth)
        return self._draw(st.sampled_from(PLAIN))

    def _name(self) -> str:
        self._count += 1
        return f"T{self._count}"

    def _kept(self, make: Callable[[str], Any], values: st.SearchStrategy[Any]) -> Sample:
        name = self._name()
        self._named.append(Sample(name, values))
        return Sample(make(name), values)

    def _record(self, depth: int) -> Sample:
        name = self._name()
        several = [self.sample(depth - 1) for _ in range(self._draw(st.integers(0, 3)))]
        fields = {f"{name}_{n}": each for n, each in enumerate(several)}
        content = [{"name": key, "type": each.content} for key, each in fields.items()]
        values = st.fixed_dictionaries({key: each.values for key, each in fields.items()})
        self._named.append(Sample(name, values))
        return Sample({"type": "record", "name": name, "fields": content}, values)

    def _union(self, depth: int) -> Sample:
        # One of each that the values themselves tell apart.
        several = [PLAIN[0], self._draw(st.sampled_from([PLAIN[2], PLAIN[6], PLAIN[8], PLAIN[10], PLAIN[12]]))]
        if self._draw(st.booleans()):
            several.append(self._record(depth))
        several = self._draw(st.permutations(several))
        return Sample([each.content for each in several], st.one_of([each.values for each in several]))


@st.composite
def drawn_documents(draw: st.DrawFn) -> tuple[Any, Any]:
    """A document, and a value of it."""
    drawn = Drawn(draw)
    several = [drawn.sample(2) for _ in range(draw(st.integers(1, 3)))]
    return record(*(each.content for each in several)), {f"f{n}": draw(each.values) for n, each in enumerate(several)}


@settings(max_examples=80, deadline=None)
@given(drawn_documents())
def test_bytes_lie_as_the_document_says_whoever_wrote_it(pair: tuple[Any, Any]) -> None:
    content, value = pair
    schema = parse(content)
    encode, decode = codec(Any, "value", schema)
    data = written(content, value)
    assert decode(data) == value
    assert encode(value) == data
    assert parse(msgspec.json.decode(msgspec.json.encode(document(schema)))) == schema


@settings(max_examples=80, deadline=None)
@given(drawn_documents(), st.data())
def test_damaged_bytes_are_read_or_refused(pair: tuple[Any, Any], data: st.DataObject) -> None:
    content, value = pair
    good = written(content, value)
    at = data.draw(st.integers(0, len(good)))
    damaged = data.draw(
        st.sampled_from([good[:at], good[:at] + b"\xff" + good[at:], good[:at] + b"\x7f" + good[at + 1 :]])
    )
    try:
        found = reader_of(content)(damaged)
    except DecodeError:
        return
    assert found.keys() == value.keys()


NODE = record(["null", "Root"])
TREE = record({"type": "array", "items": "Root"})
EMPTY = record(name="Empty")


@pytest.mark.parametrize(
    ("content", "data", "said"),
    [
        (record("int"), b"", "f0: the bytes end there"),
        (record("int"), b"\x02\x00", "1 bytes are left over"),
        (record("int"), b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f", "f0: .* is not from -2147483648"),
        (record("string"), b"\x02\xff", "f0: its 1 bytes are no UTF-8"),
        (record("string"), b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7fab", "f0: it has [0-9]+ bytes, of which 2 are there"),
        (record("bytes"), b"\x03ab", "f0: it has -2 bytes"),
        (record(["null", "int"]), b"\x08", "f0: it has no alternative 4"),
        (record({"type": "enum", "name": "E", "symbols": ["A"]}), b"\x02", "f0: it has no symbol 1"),
        (
            record({"type": "map", "values": record("string", name="I")}),
            b"\x02\x02k\x02",
            r"f0\[0\]\.f0: it has 1 bytes",
        ),
        (record({"type": "array", "items": "double"}), b"\x04" + b"\x00" * 9, r"f0\[1\]: the bytes end there"),
        (record(logical("int", "date")), b"\xfe\xff\xff\xff\x0f", "f0: 2147483647 is not from"),
        (record(logical("long", "timestamp-micros")), b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f", "f0: .*is not from"),
        (record(logical("bytes", "decimal", precision=3)), b"\x04\x7f\xff", "f0: it has more digits"),
        (record(logical("string", "decimal-text")), b"\x06NaN", "f0: NaN is no finite number"),
        (record({"type": "array", "items": logical("string", "json")}), b"\x02\x02{\x00", r"f0\[0\]: it is no JSON"),
        (NODE, b"\x02" * 5_000, "nested too deeply"),
        (NODE, b"\x02" * 1_000_000, "nested too deeply"),
        (TREE, b"\x02" * 1_000_000, "nested too deeply"),
        (record({"type": "array", "items": "null"}), b"\xfe\xff\xff\xff\xff\xff\x7f\x00", "f0: .*more than 10,000"),
        (record({"type": "array", "items": EMPTY}), b"\xfd\xff\xff\xff\xff\xff\x7f\x00\x00", "f0: .*more than 10,000"),
        (
            record({"type": "array", "items": {"type": "array", "items": "null"}}),
            b"\x04" + b"\xe0\x5d\x00" * 2 + b"\x00",
            r"f0\[1\]: .*more than 10,000",
        ),
    ],
    ids=lambda each: str(each)[:50],
)
def test_bytes_that_lie_are_refused_with_their_path_and_end_nothing(content: Any, data: bytes, said: str) -> None:
    with pytest.raises(DecodeError, match=f"Bytes can't be read as value: {said}|{said}"):
        reader_of(content)(data)


def test_values_within_each_other_are_read_up_to_a_depth() -> None:
    value: Any = {"f0": None}
    for _ in range(100):
        value = {"f0": value}
    assert reader_of(NODE)(written(NODE, value)) == value


@pytest.mark.parametrize(
    ("content", "value", "said"),
    [
        (record("float"), 1e300, "f0: 1e.300 is too large for 32 bits"),
        (record("int"), 2**31, "f0: .*is not from"),
        (
            record(logical("long", "timestamp-millis")),
            datetime(2026, 1, 1, microsecond=1, tzinfo=UTC),
            "f0: .*no place",
        ),
        (record(logical("int", "time-millis")), time(microsecond=1), "f0: .*no place"),
        (record(logical("long", "local-timestamp-micros")), datetime(2026, 1, 1, tzinfo=UTC), "f0: .*has a time zone"),
        (record(logical("bytes", "decimal", precision=3, scale=1)), Decimal("0.01"), "f0: .*behind the point"),
        (record(fixed("F", 2)), b"abc", "f0: it has 3 bytes, not 2"),
        (
            record({"type": "map", "values": {"type": "array", "items": "string"}}),
            {"k": ["", "\ud800"]},
            r"f0\.k\[1\]: ",
        ),
        (record([fixed("A", 1), fixed("B", 2)]), b"abc", "f0: .*of none of its types"),
        (record({"type": "array", "items": "null"}), [None] * 10_001, "f0: .*more than 10,000"),
    ],
    ids=lambda each: str(each)[:50],
)
def test_values_that_a_document_has_no_place_for_are_not_written(content: Any, value: Any, said: str) -> None:
    encode, _ = codec(Any, "value", parse(content))
    with pytest.raises(EncodeError, match=said):
        encode({"f0": value})


@pytest.mark.parametrize(
    ("types", "value", "expected"),
    [
        (["int", "long"], 2**40, b"\x02"),
        ([fixed("A", 4), fixed("B", 2)], b"ab", b"\x02"),
        ([record("int", name="A"), {"type": "map", "values": "int"}], {"x": 1}, b"\x02"),
        ([record("int", name="A"), record("int", "string", name="B")], {"f0": 1, "f1": "a"}, b"\x02"),
        (["null", "double"], 3, b"\x02"),
    ],
    ids=str,
)
def test_a_value_is_written_as_the_alternative_that_takes_it_whole(types: Any, value: Any, expected: bytes) -> None:
    encode, decode = codec(Any, "value", parse(record(types)))
    assert encode({"f0": value})[:1] == expected
    assert decode(encode({"f0": value})) == {"f0": value}


# -- Avro's own samples -------------------------------------------------------------------------------


def samples_in(text: str) -> Iterator[Any]:
    """The schemas of Avro's shared schema tests: one a line, or a text between two marks."""
    for line, block in re.findall(r"^<<INPUT(?: +(\S[^\n]*)|\n(.*?)^INPUT)$", text, re.MULTILINE | re.DOTALL):
        yield msgspec.json.decode(line or block)


def test_avros_own_schemas_are_read(shared_data: SharedData) -> None:
    text = (shared_data("avro_interop") / "share/test/data/schema-tests.txt").read_text()
    samples = list(samples_in(text))
    assert len(samples) > 30
    for each in samples:
        if each:  # but for the union of nothing
            schema = parse(each)
            assert Schema.decode(schema.encode()) == schema


def test_records_in_avros_own_files_are_read(shared_data: SharedData) -> None:
    folder = shared_data("avro_interop") / "share/test/data"
    count = 0
    for path in [folder / "weather.avro", folder / "weather-deflate.avro", *folder.glob("schemas/*/data.avro")]:
        with path.open("rb") as file:
            records = fastavro.reader(file)
            schema = records.writer_schema
            read = reader_of(schema)
            for each in records:
                assert read(written(schema, each)) == each
                count += 1
    assert count > 10


def test_a_type_without_bytes_may_be_named_again() -> None:
    nothing = {"type": "record", "name": "Nothing", "fields": []}
    many = {"name": "many", "type": {"type": "array", "items": nothing}}
    schema = parse({"type": "record", "name": "Root", "fields": [many, {"name": "one", "type": "Nothing"}]})
    read = decoder(Any, "Root", schema, schema)
    assert read(b"\x04\0") == {"many": [{}, {}], "one": {}}


def test_defaults_of_defaults_are_bounded() -> None:
    kind: Any = {"type": "record", "name": "R0", "fields": [{"name": "x", "type": "int", "default": 0}]}
    for number in range(1, 40):
        twice = [{"name": "l", "type": kind, "default": {}}, {"name": "r", "type": f"R{number - 1}", "default": {}}]
        kind = {"type": "record", "name": f"R{number}", "fields": twice}
    with pytest.raises(ContractError, match=r"R\d+\.l: its default has no end, or makes thousands of records"):
        parse(kind)
