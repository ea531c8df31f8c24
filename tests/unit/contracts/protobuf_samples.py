"""Protobuf for tests: its own compiler, and messages of every type that contracts have."""

from __future__ import annotations

import enum
import importlib
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import msgspec
import pytest

from postline.contracts.schema import (
    Field,
    Record,
    Reference,
    Scalar,
    Schema,
    Type,
)

descriptor_pb2: Any = pytest.importorskip("google.protobuf.descriptor_pb2")

INTEGER, NUMBER, NULL = Scalar(kind="integer"), Scalar(kind="number"), Scalar(kind="null")
NUMBER_MAX = (1 << 29) - 1


def compiled(text: str, folder: Path) -> Any:
    """What Protobuf's compiler makes of a file, without what it only repeats."""
    protoc = pytest.importorskip("grpc_tools.protoc")
    source, target = folder / "contract.proto", folder / "contract.bin"
    source.write_text(text, encoding="utf-8")
    included = [str(Path(protoc.__file__).parent / "_proto"), *(f"{each}" for each in sys.path if each)]
    arguments = ["protoc", f"-I{folder}", *(f"-I{each}" for each in included), f"-o{target}", str(source)]
    assert protoc.main(arguments) == 0, text
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes()).file
    return bare(file)


def bare(file: Any) -> Any:
    """A descriptor without options, reserved names, services, and JSON names that follow from the names."""
    found = descriptor_pb2.FileDescriptorProto()
    found.CopyFrom(file)
    for name in ("options", "service", "extension", "source_code_info", "public_dependency", "weak_dependency", "name"):
        found.ClearField(name)
    for message in every_message(found):
        is_entry = message.options.map_entry
        for name in ("options", "reserved_range", "reserved_name", "extension_range", "extension"):
            message.ClearField(name)
        message.options.map_entry = is_entry
        for each in message.field:
            each.ClearField("options")
            each.ClearField("json_name")
        for each in message.oneof_decl:
            each.ClearField("options")
        for each in message.enum_type:
            bare_enum(each)
    for each in found.enum_type:
        bare_enum(each)
    return found


def bare_enum(found: Any) -> None:
    """Clear what of an enumeration is no symbol."""
    for name in ("options", "reserved_range", "reserved_name", "visibility"):
        if name in found.DESCRIPTOR.fields_by_name:
            found.ClearField(name)
    for value in found.value:
        value.ClearField("options")


def every_message(file: Any) -> Iterator[Any]:
    """All messages of a file, those inside others too."""
    waiting = list(file.message_type)
    while waiting:
        message = waiting.pop()
        yield message
        waiting.extend(message.nested_type)


def imported(path: str) -> Any:
    """The library's own descriptor of a file that comes with it."""
    module = importlib.import_module(path.removesuffix(".proto").replace("/", ".") + "_pb2")
    found = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(found)
    return found


def record(*fields: Field, name: str = "shop.Order", **definitions: Any) -> Schema:
    """A schema of one record, and what it refers to."""
    return Schema(root=Reference(name=name), definitions={name: Record(name=name, fields=fields), **definitions})


class State(enum.Enum):
    NEW = "new"
    IN_TRANSIT = "in-transit"


class Level(enum.IntEnum):
    LOW = -1
    HIGH = 5


class Kind(enum.Enum):
    UNKNOWN = "unknown"
    KNOWN = "known"

    @classmethod
    def _missing_(cls, value: object) -> Kind:
        return cls.UNKNOWN


class Lenient(msgspec.Struct):
    state: Kind


class Line(msgspec.Struct):
    sku: str
    quantity: int = 1
    parents: list[Line] = []


class Card(msgspec.Struct, tag="card"):
    number: str


class Cash(msgspec.Struct, tag="cash"):
    amount: Decimal


class Point(msgspec.Struct, array_like=True):
    x: float
    y: float = 0.5
    label: str | None = None


class Order(msgspec.Struct, kw_only=True):
    id: UUID
    customer: str
    at: datetime
    state: State
    total: Decimal
    lines: list[Line]
    paid: Card | Cash | None
    level: Level = Level.HIGH
    day: date | None = None
    clock: time = time(1, 2)
    term: timedelta = timedelta(0)
    proof: bytes = b""
    flags: set[int] = set()
    matrix: list[list[float]] = []
    pair: tuple[int, str | None] = (1, None)
    notes: list[str] | None = None
    gaps: list[int | None] = []
    by_day: dict[date, list[str]] = {}
    by_level: dict[int, Level] = {}
    point: Point | None = None
    mixed: int | str | None = 7
    anything: Any = None
    loose: dict[str, Any] | None = None
    word: Literal["a", "b"] = "b"
    quoted_name: str = msgspec.field(name="quoted-name", default="")


AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
SAMPLE = Order(
    id=UUID(int=5),
    customer="Ada",
    at=AT,
    state=State.IN_TRANSIT,
    total=Decimal("12.50"),
    lines=[Line("a"), Line("b", 0, [Line("c")])],
    paid=Cash(Decimal("1.00")),
    level=Level.LOW,
    day=date(2026, 1, 2),
    clock=time(23, 59, 59, 1),
    term=timedelta(days=-1, microseconds=1),
    proof=b"\x00\xff",
    flags={1, 2},
    matrix=[[1.5, 2.0], []],
    pair=(2, "x"),
    notes=[],
    gaps=[1, None, 0],
    by_day={date(2026, 1, 2): ["x"], date(2026, 1, 3): []},
    by_level={-1: Level.LOW},
    point=Point(1.0, 2.0, "here"),
    mixed="text",
    anything={"a": [1, 2.5, None, True, "x", {}]},
    loose={"k": []},
    word="a",
    quoted_name="q",
)
MINIMAL = Order(
    id=UUID(int=0),
    customer="",
    at=datetime(1970, 1, 1, tzinfo=UTC),
    state=State.NEW,
    total=Decimal(0),
    lines=[],
    paid=None,
)


FOREIGN = """syntax = "proto3";
package bank;
import "google/protobuf/timestamp.proto"; import "google/protobuf/duration.proto";
import "google/protobuf/struct.proto"; import "google/protobuf/wrappers.proto";
message Account {
  string id = 1;
  optional int32 limit = 7;
  uint32 small = 2; uint64 large = 3; float rate = 4; double exact = 5; bool open = 6; bytes proof = 8;
  Kind kind = 9; Kind.Inner own = 10;
  repeated Account children = 11; map<int64, Kind.Inner> parts = 12;
  oneof payment { string iban = 13; Kind.Inner card = 14; }
  google.protobuf.Timestamp at = 15; google.protobuf.Duration term = 16;
  google.protobuf.Struct extra = 17; google.protobuf.Value value = 18; google.protobuf.ListValue list = 19;
  google.protobuf.StringValue nickname = 20; sint64 signed = 21; fixed32 sized = 22;
}
message Kind { enum Color { UNKNOWN = 0; RED = 1; } message Inner { Color color = 1; } string name = 1; }
"""


def fields_of(schema: Schema) -> dict[str, Field]:
    """The root's fields by name."""
    assert schema.record is not None
    return {each.name: each for each in schema.record.fields}


def wired(part: Type, *, name: str = "a", number: int = 1, **definitions: Any) -> Schema:
    """A record of one numbered field."""
    return record(Field(name=name, type=part, number=number), **definitions)
