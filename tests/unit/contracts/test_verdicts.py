"""What the checker lets pass is read, and with the same value in every format."""

from __future__ import annotations

import dataclasses
import enum
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, NamedTuple
from uuid import UUID

import pydantic
import pytest
from msgspec import UNSET, Meta, Struct, UnsetType, defstruct
from pydantic.alias_generators import to_camel

from postline.contracts.compatibility import breaks
from postline.contracts.formats import FormatName, format_named
from postline.contracts.marks import was
from postline.contracts.reading import Reading
from postline.errors import EncodeError

FORMATS: tuple[FormatName, ...] = ("json", "avro", "protobuf")


def verdict(new: Any, old: Any, format: FormatName) -> list[tuple[str, str]]:
    """What the format's readers of the new class can't read of the old one."""
    readings = [Reading(each, "shop.Order", format_named(format)) for each in (new, old)]
    found = breaks(readings[0].schema, readings[1].schema, whole=readings[0].format.whole)
    return [(each.path, each.rule) for each in found]


def read(new: Any, old: Any, value: Any, format: FormatName) -> Any:
    """A value of the old class as a reader of the new one has it."""
    assert verdict(new, old, format) == []
    readings = [Reading(each, "shop.Order", format_named(format)) for each in (new, old)]
    return readings[0].decoder(readings[1].schema)(readings[1].codec.encode(value))


class X(Struct, tag="X"):
    a: int = 0


class Y(Struct, tag="Y"):
    a: int = 0


class TwoOld(Struct):
    u: Y
    v: Y


class TwoNew(Struct):
    u: X | Y
    v: X


class Plain(pydantic.BaseModel):
    a: int = 0


class Needy(pydantic.BaseModel):
    a: int = 0
    need: str


class TwoPlain(pydantic.BaseModel):
    u: Plain
    v: Plain


class TwoNeedy(pydantic.BaseModel):
    u: Needy | Plain
    v: Needy


@pytest.mark.parametrize("format", FORMATS)
def test_what_an_option_that_failed_took_for_granted_is_not_believed_elsewhere(format: FormatName) -> None:
    assert verdict(TwoNew, TwoOld, format) == [("v", "tag")]
    assert verdict(TwoNeedy, TwoPlain, format) == [("v.need", "field-without-default")]


class Deep(Struct):
    inner: Deep | None = None
    leaf: X | None = None


class DeepOther(Struct, tag="deep"):
    inner: DeepOther | None = None
    leaf: Y | None = None


class DeepSame(Struct, tag="deep"):
    inner: DeepSame | None = None
    leaf: X | None = None


@pytest.mark.parametrize("format", FORMATS)
def test_a_record_that_contains_itself_breaks_where_its_inside_does(format: FormatName) -> None:
    assert verdict(Deep, DeepSame, format) == []
    assert ("leaf", "tag") in verdict(DeepSame, DeepOther, format)


# -- by position ------------------------------------------------------------------------------


class LatLon(Struct, array_like=True):
    lat: float
    lon: float


class LonLat(Struct, array_like=True):
    lon: float
    lat: float


class Three(Struct, array_like=True):
    a: int
    b: int = 2
    c: int = 3


class TwoOfThree(Struct, array_like=True):
    a: int
    c: int = 3


class Longer(Struct, array_like=True):
    first: Annotated[int, was("a")]
    b: int = 2
    c: int = 3
    d: int = 4


class Place(NamedTuple):
    lat: float
    lon: float


class Ecalp(NamedTuple):
    lon: float
    lat: float


class AtPlace(Struct):
    at: Place


class AtEcalp(Struct):
    at: Ecalp


@pytest.mark.parametrize("format", FORMATS)
def test_fields_that_are_written_by_position_keep_it(format: FormatName) -> None:
    assert verdict(LonLat, LatLon, format) == [("lon", "place"), ("lat", "place")]
    assert verdict(TwoOfThree, Three, format) == [("c", "place")]
    assert verdict(AtEcalp, AtPlace, format) == [("at.lon", "place"), ("at.lat", "place")]
    assert read(Longer, Three, Three(1, 20, 30), format) == Longer(1, 20, 30, 4)


# -- by name ----------------------------------------------------------------------------------


class OnlyA(Struct):
    a: int


class AAndB(Struct):
    a: int
    b: int


class Reused(Struct):
    c: Annotated[int, was("a")]
    a: int = 99


class ReusedTwice(Struct):
    c: Annotated[int, was("a", "b")]
    a: int = 99


class Shared(Struct):
    c: Annotated[int, was("b", "a")]
    d: Annotated[int, was("a")]


@pytest.mark.parametrize("format", FORMATS)
def test_a_former_name_that_is_another_fields_now_is_that_fields(format: FormatName) -> None:
    assert verdict(Reused, OnlyA, format) == [("c", "field-without-default")]
    assert read(ReusedTwice, AAndB, AAndB(1, 2), format) == ReusedTwice(c=2, a=1)
    assert read(Shared, AAndB, AAndB(1, 2), format) == Shared(c=2, d=1)
    assert read(Shared, OnlyA, OnlyA(1), format) == Shared(c=1, d=1)


# -- defaults that are left out ---------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Brief(Struct, omit_defaults=True):
    id: str
    price: int = 5
    colour: Colour = Colour.RED
    raw: bytes | None = b"\xff"
    at: datetime = datetime(2020, 1, 2, tzinfo=UTC)
    sizes: tuple[int, ...] = (1, 2)


class BriefLater(Struct, omit_defaults=True):
    id: str
    cost: Annotated[int, was("price")] = 7
    colour: Colour = Colour.BLUE
    raw: bytes | None = None
    at: datetime = datetime(2021, 1, 2, tzinfo=UTC)
    sizes: tuple[int, ...] = ()


class BriefPrice(Struct, omit_defaults=True):
    id: str
    price: float = 7
    raw: bytes | None = None


@dataclasses.dataclass
class PriceData:
    id: str
    price: float = 7
    raw: bytes | None = None


@pytest.mark.parametrize("format", FORMATS)
def test_what_a_writer_left_out_is_the_writers_default(format: FormatName) -> None:
    for value in (Brief("a"), Brief("b", 7, Colour.BLUE, None, datetime(2021, 1, 2, tzinfo=UTC), ())):
        got = read(BriefLater, Brief, value, format)
        assert got == BriefLater(value.id, value.price, value.colour, value.raw, value.at, value.sizes)
    assert read(BriefPrice, Brief, Brief("a"), format) == BriefPrice("a", 5, b"\xff")
    assert read(PriceData, Brief, Brief("a"), format) == PriceData("a", 5, b"\xff")
    assert read(Brief, Brief, Brief("a"), format) == Brief("a")


def test_what_a_writer_left_out_is_the_writers_default_for_models() -> None:
    class Price(pydantic.BaseModel):
        id: str
        price: int = 7

    for format in FORMATS:
        assert read(Price, Brief, Brief("a"), format) == Price(id="a", price=5)


class Unsaid(Struct):
    count: int | UnsetType | None = UNSET


def test_protobuf_refuses_an_absence_that_it_would_read_as_none() -> None:
    codec = Reading(Unsaid, "shop.Order", format_named("protobuf")).codec
    assert codec.decode(codec.encode(Unsaid(None))) == Unsaid(None)
    with pytest.raises(EncodeError, match=r"count.*can't tell from None"):
        codec.encode(Unsaid())


# -- scalars that are read as others ----------------------------------------------------------


def held(hint: Any) -> Any:
    """A class with one field, of this type."""
    return defstruct("Order", [("value", hint)])


def turned(new: Any, old: Any, value: Any, format: FormatName) -> Any:
    """A value of one type as a reader of another has it."""
    return read(held(new), held(old), held(old)(value), format).value


@pytest.mark.parametrize("format", FORMATS)
def test_a_reader_of_text_that_limits_it_reads_no_symbols_beyond(format: FormatName) -> None:
    for limits in (Meta(min_length=4), Meta(max_length=3), Meta(pattern="^r")):
        assert verdict(held(Annotated[str, limits]), held(Colour), format) == [("value", "limit")]
    assert turned(Annotated[str, Meta(min_length=3)], Colour, Colour.RED, format) == "red"


@pytest.mark.parametrize("format", FORMATS)
def test_what_stands_as_text_for_another_kind_has_no_limits_of_text(format: FormatName) -> None:
    for old in (UUID, Decimal, bytes, Annotated[bytes, Meta(max_length=4)]):
        assert verdict(held(Annotated[str, Meta(max_length=4)]), held(old), format) == [("value", "limit")]
    assert turned(str, bytes, b"\xff", format) == "/w=="


@pytest.mark.parametrize("format", FORMATS)
def test_moments_and_spans_are_read_as_text(format: FormatName) -> None:
    assert turned(str, datetime, datetime(2020, 1, 2, tzinfo=UTC), format) == "2020-01-02T00:00:00Z"
    assert turned(str | None, datetime, datetime(2020, 1, 2, tzinfo=UTC), format) == "2020-01-02T00:00:00Z"
    assert turned(list[str], list[timedelta], [timedelta(days=1, microseconds=3)], format) == ["P1DT0.000003S"]


@pytest.mark.parametrize("format", ["avro", "protobuf"])
def test_a_number_without_end_is_a_decimal_without_end(format: FormatName) -> None:
    assert turned(Decimal, float, float("inf"), format) == Decimal("inf")


# -- keys -------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("key", [date(2020, 1, 2), UUID(int=2), Decimal("1.50"), Colour.BLUE], ids=str)
def test_keys_that_are_text_on_the_wire_are_read_as_text(key: Any, format: FormatName) -> None:
    text = str(key.value if isinstance(key, Colour) else key)
    keyed: Any = dict.__class_getitem__((type(key), int))
    assert turned(dict[str, int], keyed, {key: 1}, format) == {text: 1}
    assert turned(dict[str, int] | None, keyed | None, {key: 1}, format) == {text: 1}


class Known(enum.Enum):
    RED = "red"

    @classmethod
    def _missing_(cls, value: object) -> Known:
        return cls.RED


@pytest.mark.parametrize("format", FORMATS)
def test_two_keys_never_become_one(format: FormatName) -> None:
    Known.__name__ = Known.__qualname__ = "Colour"
    assert verdict(held(dict[Known, int]), held(dict[Colour, int]), format) == [("value[key]", "merged")]
    assert verdict(held(list[Known]), held(list[Colour]), format) == []


def test_keys_that_are_numbers_become_decimals_and_no_floats() -> None:
    for format in FORMATS[:2]:
        assert verdict(held(dict[float, int]), held(dict[int, int]), format) == [("value[key]", "merged")]
        assert turned(dict[Decimal, int], dict[int, int], {2**60: 1, 2**60 + 1: 2}, format) == {
            Decimal(2**60): 1,
            Decimal(2**60 + 1): 2,
        }
        assert turned(dict[Decimal, int], dict[float, int], {1.5: 1}, format) == {Decimal("1.5"): 1}


# -- names that a class writes in another style -----------------------------------------------


class Camel(Struct, rename="camel"):
    unit_price: int


class CamelLater(Struct, rename="camel"):
    net_price: Annotated[int, was("unit_price")] = 9


class CamelModel(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(alias_generator=to_camel, populate_by_name=True)
    net_price: Annotated[int, was("unit_price")] = 9


@pytest.mark.parametrize("format", FORMATS)
def test_a_former_name_may_be_said_as_python_has_it(format: FormatName) -> None:
    assert read(CamelLater, Camel, Camel(5), format) == CamelLater(5)
    assert read(CamelModel, Camel, Camel(5), format) == CamelModel(net_price=5)


# -- tags that go to another class ------------------------------------------------------------


class Card(Struct, tag="card"):
    n: int = 0


class Cash(Struct, tag="cash"):
    n: int = 0


class NewCard(Struct, tag="card"):
    n: int = 0


class Plastic(Struct, tag="plastic"):
    __was__ = ("card",)
    n: int = 0


@pytest.mark.parametrize("format", FORMATS)
def test_a_tag_is_that_of_whoever_has_it_now(format: FormatName) -> None:
    assert turned(NewCard | Plastic | Cash, Card | Cash, Card(5), format) == NewCard(5)
    assert turned(Plastic | Cash, Card | Cash, Card(5), format) == Plastic(5)
