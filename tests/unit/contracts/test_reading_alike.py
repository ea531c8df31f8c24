"""What another version wrote is read alike in every format, whatever kind of class reads it."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pydantic
import pytest
from msgspec import Struct

from postline.contracts import was
from postline.contracts.compatibility import breaks
from postline.contracts.formats import FormatName, format_named
from postline.contracts.reading import Reading

FORMATS: tuple[FormatName, ...] = ("json", "avro", "protobuf")
every_format = pytest.mark.parametrize("name", FORMATS)


def read(name: FormatName, new: Any, value: Any) -> Any:
    """A value of an old class, read as a new one."""
    format_ = format_named(name)
    old, reading = Reading(type(value), "t.T", format_), Reading(new, "t.T", format_)
    assert breaks(reading.schema, old.schema, whole=format_.whole) == []
    return reading.decoder(old.schema)(old.codec.encode(value))


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


class Old(Struct, omit_defaults=True):
    id: str
    price: int = 5
    level: Level = Level.LOW
    data: bytes = b"\xff"
    day: date = date(2020, 1, 1)
    at: datetime = datetime(2020, 1, 1, tzinfo=UTC)
    took: timedelta = timedelta(1)
    tags: list[str] = msgspec.field(default_factory=lambda: ["a"])
    flag: bool = True


class New(Struct, omit_defaults=True):
    id: str
    price: int = 7
    level: Level = Level.HIGH
    data: bytes = b"\xfe"
    day: date = date(2021, 1, 1)
    at: datetime = datetime(2021, 1, 1, tzinfo=UTC)
    took: timedelta = timedelta(2)
    tags: list[str] = msgspec.field(default_factory=lambda: ["b"])
    flag: bool = False


@dataclasses.dataclass
class NewData:
    id: str
    price: int = 7
    flag: bool = False


class NewModel(pydantic.BaseModel):
    id: str
    price: int = 7
    flag: bool = False


class NewRenamed(Struct):
    id: str
    cost: Annotated[int, was("price")] = 7
    flag: bool = False


@every_format
def test_what_a_writer_left_out_is_its_default_not_the_readers(name: FormatName) -> None:
    found = read(name, New, Old("a"))
    assert msgspec.structs.asdict(found) == msgspec.structs.asdict(Old("a"))
    assert read(name, New, Old("a", price=7, tags=["b"])).price == 7
    # Lists are of each value anew.
    assert read(name, New, Old("a")).tags is not found.tags


@every_format
@pytest.mark.parametrize("cls", [NewData, NewModel, NewRenamed])
def test_any_kind_of_class_has_the_writers_default(name: FormatName, cls: Any) -> None:
    found = read(name, cls, Old("a"))
    assert (getattr(found, "price", None) or found.cost, found.flag) == (5, True)


class Both(Struct):
    a: int
    b: int


class Moved(Struct):
    c: Annotated[int, was("a", "b")]
    a: int = 99


class FirstOfTwo(Struct):
    c: Annotated[int, was("b", "a")]


@every_format
def test_former_names_mean_the_same_field(name: FormatName) -> None:
    assert read(name, Moved, Both(1, 2)) == Moved(c=2, a=1)
    assert read(name, FirstOfTwo, Both(1, 2)) == FirstOfTwo(2)


@every_format
@pytest.mark.parametrize(
    "value",
    [
        datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        timedelta(days=1, microseconds=3),
        b"\xff\xfe",
        Decimal("1.50"),
        UUID(int=1),
        date(2020, 1, 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_text_reads_what_json_has_as_text(name: FormatName, value: Any) -> None:
    old = msgspec.defstruct("Old", [("a", type(value))])
    new = msgspec.defstruct("New", [("a", str)])
    assert read(name, new, old(value)).a == msgspec.to_builtins(value)


@pytest.mark.parametrize("name", FORMATS[:2])
@pytest.mark.parametrize("key", [date(2020, 1, 2), Decimal("1.50"), b"\xff", UUID(int=1), Level.LOW], ids=str)
def test_keys_are_read_as_text(name: FormatName, key: Any) -> None:
    old = msgspec.defstruct("Old", [("a", dict[type(key), int])])  # type: ignore[misc]
    new = msgspec.defstruct("New", [("a", dict[str, int])])
    assert read(name, new, old({key: 1})).a == {msgspec.to_builtins(key): 1}


class A(Struct, tag="A"):
    x: int = 0


class B(Struct, tag="B"):
    x: int = 0


class A2(Struct, tag="A2"):
    __was__ = ("A",)
    x: int = 0


NA: Callable[..., Any] = msgspec.defstruct("NA", [("x", int, 0)], tag="A")
TAKEN_OVER = msgspec.defstruct("New", [("u", A2 | NA | B)])


@every_format
def test_a_tag_means_the_class_that_has_it_now(name: FormatName) -> None:
    old = msgspec.defstruct("Old", [("u", A | B)])
    assert read(name, TAKEN_OVER, old(A(1))).u == NA(1)
