"""Imported modules write and read exactly their file's bytes: as Protobuf's compiler and Avro's library have them."""

from __future__ import annotations

import datetime
import importlib
import io
import math
import sys
import types
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postline.contracts import ForeignTopic, Schemas, Sensitive, Topic, number, was
from postline.contracts.avro import parse as parse_avro
from postline.contracts.avro_writing import NATIVE
from postline.contracts.compatibility import Level, judge
from postline.contracts.protobuf import messages
from postline.contracts.python_source import source_of
from postline.contracts.schema import Record, Schema
from postline.errors import ContractError, EncodeError
from tests.unit.contracts.protobuf_samples import compiled

fastavro: Any = pytest.importorskip("fastavro")

PROTO = """
syntax = "proto3";
package acme;
import "google/protobuf/timestamp.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/wrappers.proto";
message Everything {
%s
  message Inner { sint64 x = 3; Inner more = 9; }
  enum Kind { UNKNOWN = 0; SMALL = 7; NEGATIVE = -3; }
  Inner inner = 200;
  repeated Inner inners = 201;
  map<string, Inner> by_name = 202;
  Kind kind = 203;
  repeated Kind kinds = 204;
  google.protobuf.Timestamp at = 205;
  google.protobuf.Duration took = 206;
  google.protobuf.Int32Value wrapped = 207;
  google.protobuf.StringValue wrapped_text = 208;
  oneof choice { sint32 one = 210; fixed64 two = 211; string three = 212; Inner four = 213; }
}
"""
INTEGERS = {
    **{f"{kind}32": (-(2**31), 2**31 - 1) for kind in ("int", "sint", "sfixed")},
    **{f"{kind}64": (-(2**63), 2**63 - 1) for kind in ("int", "sint", "sfixed")},
    **{f"{kind}32": (0, 2**32 - 1) for kind in ("uint", "fixed")},
    **{f"{kind}64": (0, 2**64 - 1) for kind in ("uint", "fixed")},
}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    **{kind: st.integers(*bounds) | st.sampled_from(bounds) for kind, bounds in INTEGERS.items()},
    "double": st.floats(allow_nan=False),
    "float": st.floats(width=32, allow_nan=False),
    "bool": st.booleans(),
    "string": st.text(st.characters(codec="utf-8"), max_size=5),
    "bytes": st.binary(max_size=5),
}
KEYS = [kind for kind in VALUES if kind not in {"double", "float", "bytes"}]
NAIVE = st.datetimes(*(datetime.datetime.fromisoformat(each) for each in ("0001-01-02", "9999-12-30")))
MOMENTS = NAIVE.map(lambda moment: moment.replace(tzinfo=datetime.UTC))


def proto_text() -> str:
    lines = []
    for at, kind in enumerate(VALUES):
        lines += [f"{kind} {kind}_one = {at + 1};", f"optional {kind} {kind}_maybe = {at + 20};"]
        lines += [f"repeated {kind} {kind}_many = {at + 40};", f"map<string, {kind}> {kind}_by = {at + 60};"]
        lines += [f"map<{kind}, int32> by_{kind} = {at + 80};"] if kind in KEYS else []
    return PROTO % "\n".join(f"  {line}" for line in lines)


@pytest.fixture(autouse=True)
def made_modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("given_"):
            del sys.modules[name]


def imported(types_: dict[str, Schema], format_name: str, owner: str = "") -> Any:
    """The module that `contracts import` writes."""
    module = types.ModuleType(f"given_{len(sys.modules)}")
    sys.modules[module.__name__] = module
    text = source_of(types_, topic="acme.things", owner=owner, format_name=format_name)
    exec(compile(text, module.__name__, "exec"), vars(module))
    return module


@pytest.fixture(scope="module")
def protobuf(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any]:
    """The compiler's class of the file, and what the owner's and a reader's module do with values."""
    file = compiled(proto_text(), tmp_path_factory.mktemp("proto"))
    descriptor_pool: Any = importlib.import_module("google.protobuf.descriptor_pool")
    message_factory: Any = importlib.import_module("google.protobuf.message_factory")
    pool = descriptor_pool.DescriptorPool()
    for name in ("timestamp", "duration", "wrappers"):
        pool.AddSerializedFile(importlib.import_module(f"google.protobuf.{name}_pb2").DESCRIPTOR.serialized_pb)
    file.name = "everything.proto"
    pool.AddSerializedFile(file.SerializeToString())
    cls = message_factory.GetMessageClass(pool.FindMessageTypeByName("acme.Everything"))
    schemas = messages(proto_text())
    own, view = imported(schemas, "protobuf", "acme"), imported(schemas, "protobuf")
    return cls, own.topic.contracts["acme.Everything"], view.topic.reading_of("acme.Everything")


@st.composite
def everything(draw: st.DrawFn) -> dict[str, Any]:
    """Keyword arguments of the compiler's class."""
    inner = st.fixed_dictionaries({"x": VALUES["sint64"]}, optional={"more": st.just({"x": -1})})
    kinds = st.sampled_from([0, 7, -3])
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for kind, values in VALUES.items():
        fields |= {f"{kind}_one": values, f"{kind}_maybe": values, f"{kind}_many": st.lists(values, max_size=2)}
        fields[f"{kind}_by"] = st.dictionaries(VALUES["string"], values, max_size=2)
        if kind in KEYS:
            fields[f"by_{kind}"] = st.dictionaries(values, VALUES["int32"], max_size=2)
    fields |= {
        "inner": inner,
        "inners": st.lists(inner, max_size=2),
        "kind": kinds,
        "kinds": st.lists(kinds, max_size=2),
    }
    fields |= {"by_name": st.dictionaries(VALUES["string"], inner, max_size=2)}
    fields |= {"at": MOMENTS, "took": st.timedeltas(datetime.timedelta(-(10**6)), datetime.timedelta(10**6))}
    fields |= {"wrapped": VALUES["int32"].map(lambda value: {"value": value})}
    fields |= {"wrapped_text": VALUES["string"].map(lambda value: {"value": value})}
    some = draw(st.sets(st.sampled_from(sorted(fields)), max_size=12))
    found = {name: draw(fields[name]) for name in sorted(some)}
    choices = {"one": VALUES["sint32"], "two": VALUES["fixed64"], "three": VALUES["string"], "four": inner}
    if name := draw(st.none() | st.sampled_from(sorted(choices))):
        found[name] = draw(choices[name])
    return found


def same(message: Any, value: Any) -> None:
    """A value has in its fields what the compiler's class has in them."""
    for kind in VALUES:
        assert getattr(value, f"{kind}_one") == getattr(message, f"{kind}_one")
        maybe = f"{kind}_maybe"
        assert getattr(value, maybe) == (getattr(message, maybe) if message.HasField(maybe) else None)
        assert getattr(value, f"{kind}_many") == list(getattr(message, f"{kind}_many"))
        assert getattr(value, f"{kind}_by") == dict(getattr(message, f"{kind}_by"))
        if kind in KEYS:
            assert getattr(value, f"by_{kind}") == dict(getattr(message, f"by_{kind}"))
    assert [each.x for each in value.inners] == [each.x for each in message.inners]
    assert {name: each.x for name, each in value.by_name.items()} == {n: each.x for n, each in message.by_name.items()}
    names = {0: "UNKNOWN", 7: "SMALL", -3: "NEGATIVE"}
    assert [each.value for each in (value.kind, *value.kinds)] == [
        names[each] for each in (message.kind, *message.kinds)
    ]
    assert value.wrapped == (message.wrapped.value if message.HasField("wrapped") else None)
    for name in ("one", "two", "three"):
        assert getattr(value, name) == (getattr(message, name) if message.WhichOneof("choice") == name else None)
    if message.HasField("at"):
        assert value.at == message.at.ToDatetime(datetime.UTC)
    if message.HasField("took"):
        assert value.took == message.took.ToTimedelta()


@settings(max_examples=150, deadline=None)
@given(everything())
def test_protobuf_is_the_compilers_byte_for_byte(protobuf: tuple[Any, Any, Any], fields: dict[str, Any]) -> None:
    cls, contract, reading = protobuf
    message = cls(**fields)
    data = message.SerializeToString(deterministic=True)
    for decode in (contract.decode, reading.decode):
        same(message, decode(data))
    own = contract.encode(contract.decode(data))
    assert own == data
    assert cls.FromString(own) == message


@pytest.mark.parametrize(
    "fields",
    [
        *({f"{kind}_one": high + 1} for kind, (_, high) in INTEGERS.items()),
        *({f"{kind}_many": [0, low - 1]} for kind, (low, _) in INTEGERS.items()),
        {"float_one": 1e300},
        {"float_by": {"k": 1e300}},
    ],
    ids=str,
)
def test_what_protobuf_has_no_room_for_is_refused_at_its_path(
    protobuf: tuple[Any, Any, Any], fields: dict[str, Any]
) -> None:
    contract = protobuf[1]
    (name,) = fields
    with pytest.raises(EncodeError) as refused:
        contract.encode(contract.cls(**fields))
    assert name in refused.value.message


def test_at_most_one_member_of_a_oneof_is_written(protobuf: tuple[Any, Any, Any]) -> None:
    contract = protobuf[1]
    with pytest.raises(EncodeError, match="one and two exclude each other"):
        contract.encode(contract.cls(one=1, two=2))


AVSC: Any = {
    "type": "record",
    "name": "Everything",
    "namespace": "acme",
    "fields": [
        {"name": "small", "type": "int"},
        {"name": "large", "type": "long"},
        {"name": "float", "type": "float"},
        {"name": "double", "type": "double"},
        {"name": "flag", "type": "boolean"},
        {"name": "text", "type": "string"},
        {"name": "data", "type": "bytes"},
        {"name": "hash", "type": {"type": "fixed", "name": "MD5", "size": 16}},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}},
        {
            "name": "weight",
            "type": {"type": "fixed", "name": "W", "size": 8, "logicalType": "decimal", "precision": 12, "scale": 3},
        },
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "clock", "type": {"type": "int", "logicalType": "time-millis"}},
        {"name": "clock_us", "type": {"type": "long", "logicalType": "time-micros"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "at_us", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "here", "type": {"type": "long", "logicalType": "local-timestamp-millis"}},
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "id16", "type": {"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}},
        {"name": "status", "type": {"type": "enum", "name": "Status", "symbols": ["NEW", "class"]}},
        {"name": "maybe", "type": ["string", "null"]},
        {"name": "either", "type": ["float", "double", "null"], "default": 0.0},
        {"name": "moment", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}], "default": None},
        {"name": "hashes", "type": {"type": "array", "items": "MD5"}},
        {"name": "by", "type": {"type": "map", "values": "int"}},
        {"name": "inner", "type": ["null", "Everything"], "default": None},
    ],
}


def millis(value: Any) -> Any:
    return value.replace(microsecond=value.microsecond // 1000 * 1000)


def decimals(digits: int, scale: int) -> st.SearchStrategy[Decimal]:
    most = 10**digits - 1
    return st.integers(-most, most).map(lambda unscaled: Decimal(unscaled).scaleb(-scale))


AVRO_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "small": VALUES["int32"],
    "large": VALUES["int64"],
    "float": VALUES["float"],
    "double": VALUES["double"],
    "flag": st.booleans(),
    "text": VALUES["string"],
    "data": VALUES["bytes"],
    "hash": st.binary(min_size=16, max_size=16),
    "price": decimals(10, 2),
    "weight": decimals(12, 3),
    "day": st.dates(),
    "clock": st.times().map(millis),
    "clock_us": st.times(),
    "at": MOMENTS.map(millis),
    "at_us": MOMENTS,
    "here": NAIVE.map(millis),
    "id": st.uuids(),
    "id16": st.uuids(),
    "status": st.sampled_from(["NEW", "class"]),
    "maybe": st.none() | VALUES["string"],
    "either": st.none() | VALUES["double"],
    "moment": st.none() | MOMENTS.map(millis),
    "hashes": st.lists(st.binary(min_size=16, max_size=16), max_size=2),
    "by": st.dictionaries(VALUES["string"], VALUES["int32"], max_size=2),
}


@pytest.fixture(scope="module")
def avro() -> tuple[Any, Any]:
    schemas = {"acme.Everything": parse_avro(AVSC)}
    own, view = imported(schemas, "avro", "acme"), imported(schemas, "avro")
    return own.topic.contracts["acme.Everything"], view.topic.reading_of("acme.Everything")


def avro_bytes(record: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    fastavro.schemaless_writer(file, fastavro.parse_schema(AVSC), record)
    return file.getvalue()


def for_fastavro(record: dict[str, Any]) -> dict[str, Any]:
    """A number of either width goes to the wider one, as ours do."""
    either = record["either"]
    inner = record.get("inner")
    return {
        **record,
        "id16": record["id16"].bytes,
        "either": None if either is None else ("double", either),
        "inner": None if inner is None else for_fastavro(inner),
    }


@settings(max_examples=150, deadline=None)
@given(st.fixed_dictionaries(AVRO_VALUES), st.none() | st.fixed_dictionaries(AVRO_VALUES))
def test_avro_is_fastavros_byte_for_byte(
    avro: tuple[Any, Any], record: dict[str, Any], inner: dict[str, Any] | None
) -> None:
    contract, reading = avro
    whole = {**record, "inner": inner}
    data = avro_bytes(for_fastavro(whole))
    value = contract.decode(data)
    for found in (value, reading.decode(data)):
        for name, each in zip(found.__struct_encode_fields__, msgspec.structs.astuple(found), strict=True):
            if name != "inner":
                assert getattr(each, "value", each) == whole[name], name
    assert contract.encode(value) == data
    assert contract.encode(msgspec.convert(whole, contract.cls, builtin_types=NATIVE)) == data


PLAIN: dict[str, Any] = {
    **dict.fromkeys(("small", "large"), 0),
    **dict.fromkeys(("float", "double"), 0.0),
    "flag": True,
    "text": "",
    "data": b"",
    "hash": bytes(16),
    "price": Decimal("1.00"),
    "weight": Decimal("1.000"),
    "day": datetime.date(2026, 1, 1),
    "clock": datetime.time(1),
    "clock_us": datetime.time(1),
    "at": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    "at_us": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    "here": datetime.datetime.fromisoformat("2026-01-01"),
    "id": uuid.UUID(int=1),
    "id16": uuid.UUID(int=1),
    "maybe": None,
    "hashes": [],
    "by": {},
}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("small", 2**31, "small: 2147483648 is not from"),
        ("large", -(2**63) - 1, "large: -9223372036854775809 is not from"),
        ("float", 1e300, r"float: 1e\+300 is too large for 32 bits"),
        ("hash", bytes(15), "hash: it has 15 bytes, not 16"),
        ("price", Decimal("12.345"), "price: 12.345 has more than 10 digits, or more than 2 behind the point"),
        ("weight", Decimal("1E+9"), "weight: 1E"),
        ("at", datetime.datetime(2026, 1, 1, 0, 0, 0, 1, datetime.UTC), "at: .* has microseconds"),
        ("here", datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), "here: .* has a time zone"),
        ("hashes", [bytes(16), bytes(17)], r"hashes\[1\]: it has 17 bytes, not 16"),
        ("by", {"k": 2**31}, r"by\['k'\]: 2147483648 is not from"),
    ],
)
def test_what_avro_has_no_room_for_is_refused_at_its_path(
    avro: tuple[Any, Any], name: str, value: Any, said: str
) -> None:
    cls = avro[0].cls
    status = next(iter(sys.modules[cls.__module__].Status))
    names = dict(zip(cls.__struct_encode_fields__, cls.__struct_fields__, strict=True))
    values = {names[key]: each for key, each in {**PLAIN, name: value}.items()}
    with pytest.raises(EncodeError, match=said):
        avro[0].encode(cls(status=status, **values))


@pytest.mark.parametrize(
    ("kind", "other", "breaks"),
    [("int32", "int64", True), ("sint32", "sint32", False)],
)
def test_versions_of_a_file_are_judged_as_the_file_says(kind: str, other: str, breaks: bool) -> None:
    versions = [messages(f'syntax = "proto3"; message S {{ {each} a = 1; }}')["S"] for each in (kind, other)]
    old, new = (imported({"S": each}, "protobuf", "acme").topic.contracts["S"].reading.schema for each in versions)
    assert (old, new) == tuple(versions)
    assert bool(judge(new, {1: old}, Level.FULL, whole=True)) is breaks


SMALL = messages('syntax = "proto3"; message S { sint32 a = 1; string id = 4; }')["S"]
SMALL_TEXT = SMALL.encode().decode()


def test_marks_of_the_class_are_added_to_the_file() -> None:
    class S(msgspec.Struct):
        a: int = 0
        id: Annotated[Sensitive[str], was("key")] = ""

    topic = Topic("acme.f", owner="acme", schemas=Schemas(format="protobuf"))
    topic.event("S", schema=SMALL_TEXT)(S)
    (record,) = topic.reading_of("S").schema.definitions.values()
    (given_record,) = SMALL.definitions.values()
    assert isinstance(record, Record)
    assert isinstance(given_record, Record)
    a, id_ = record.fields
    assert (id_.sensitive, id_.aliases, a) == (True, ("key",), given_record.fields[0])


class Less(msgspec.Struct):
    a: int = 0


class More(msgspec.Struct):
    a: int = 0
    id: str = ""
    note: str = ""


class Renumbered(msgspec.Struct):
    a: int = 0
    id: Annotated[str, number(2)] = ""


class OtherKind(msgspec.Struct):
    a: str = ""
    id: str = ""


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        (Less, "id is a field that its schema= has, not its class"),
        (More, "note is a field that its class has, and its schema= has not"),
        (Renumbered, "id has the number 2 in its class, and 4 in its schema="),
        (OtherKind, "S can't be read as its schema= says: a: the reader wants text"),
    ],
)
def test_an_owner_whose_class_differs_from_its_file_is_refused(cls: Any, said: str) -> None:
    topic = Topic("acme.f", owner="acme", schemas=Schemas(format="protobuf"))
    with pytest.raises(ContractError, match=said):
        topic.event("S", schema=SMALL_TEXT)(cls)


def test_a_view_may_have_fewer_fields() -> None:
    topic = ForeignTopic("acme.f", format="protobuf")
    topic.reads("S", schema=SMALL_TEXT)(Less)
    assert topic.reading_of("S").decode(b"\x08\x09\x22\x01x") == Less(-5)


def test_a_view_that_its_file_does_not_serve_is_refused() -> None:
    class Wants(msgspec.Struct):
        b: int

    with pytest.raises(ContractError, match="b: the reader wants it, the writer does not write it"):
        ForeignTopic("acme.f", format="protobuf").reads("S", schema=SMALL_TEXT)(Wants)


def test_what_is_no_schema_is_refused() -> None:
    with pytest.raises(ContractError, match="The schema= of S can't be read"):
        ForeignTopic("acme.f", format="protobuf").reads("S", schema="{}x")(Less)


def test_a_view_reads_what_names_its_schema_by_that_one() -> None:
    topic = ForeignTopic("acme.f", format="protobuf")
    topic.reads("S", schema=SMALL_TEXT)(Less)
    other = messages('syntax = "proto3"; message S { fixed64 a = 1; }')["S"]
    reading = topic.reading_of("S")
    assert reading.decoder(other)(b"\x09\x07\0\0\0\0\0\0\0") == Less(7)
    assert reading.decoder(reading.schema)(b"\x08\x07") == Less(7)
    assert math.isclose(reading.decoder(SMALL)(b"\x08\x09").a, -5)
