"""Values as Avro: they come back as they were, between versions too; what does not fit is refused with its place."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import fastavro
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postline.contracts.avro import document, parse
from postline.contracts.avro_codec import codec, decoder
from postline.contracts.compatibility import breaks
from postline.contracts.marks import was
from postline.contracts.reflection import schema_of
from postline.errors import ContractError, DecodeError, EncodeError
from tests.unit.contracts.classes_drawn import structs
from tests.unit.contracts.protobuf_samples import (
    AT,
    MINIMAL,
    SAMPLE,
    Card,
    Cash,
    Kind,
    Lenient,
    Line,
    Order,
    State,
)


@pytest.mark.parametrize("value", [SAMPLE, MINIMAL], ids=["full", "minimal"])
def test_values_come_back_as_they_were(value: Order) -> None:
    encode, decode = codec(Order, "Order", schema_of(Order))
    assert decode(encode(value)) == value


def test_records_in_unions_are_told_apart_in_a_namespace_too() -> None:
    schema = schema_of(Order, name="shop.orders.Order")
    encode, decode = codec(Order, "Order", schema)
    assert decode(encode(SAMPLE)) == SAMPLE
    assert decoder(Order, "Order", schema_of(Order), schema)(encode(SAMPLE)) == SAMPLE
    made = document(schema)
    assert (made["namespace"], made["name"]) == ("shop.orders", "Order")
    assert parse(msgspec.json.decode(msgspec.json.encode(made))) == schema


def test_bytes_are_those_that_avros_own_library_reads_and_writes() -> None:
    schema = schema_of(Line)
    encode, decode = codec(Line, "Line", schema)
    plain = {"sku": "ab", "quantity": 300, "parents": []}
    written = io.BytesIO()
    fastavro.schemaless_writer(written, fastavro.parse_schema(document(schema)), plain)
    assert encode(Line("ab", 300)) == written.getvalue()
    assert decode(written.getvalue()) == Line("ab", 300)


def test_dataclasses_and_pydantic_models_are_written_and_read() -> None:
    pydantic: Any = pytest.importorskip("pydantic")

    @dataclass
    class Data:
        at: datetime
        tags: list[str] = field(default_factory=list)

    class Model(pydantic.BaseModel):  # type: ignore[misc]
        identity: UUID = pydantic.Field(alias="id")
        proof: bytes
        state: State
        price: Decimal = Decimal("0.10")
        size: int = pydantic.Field(default=1, le=10)

    model = Model(id=UUID(int=1), proof=b"\xff", state=State.NEW)
    encode, decode = codec(Model, "Model", schema_of(Model))
    assert decode(encode(model)) == model
    model.size = 11
    with pytest.raises(EncodeError, match="size"):
        encode(model)
    encode, decode = codec(Data, "Data", schema_of(Data))
    assert decode(encode(Data(AT, ["a"]))) == Data(AT, ["a"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"customer": 5}, r"\$\.customer"),
        ({"customer": "\ud800"}, "surrogates"),
        ({"at": AT.replace(tzinfo=None)}, "at: .*no time zone"),
        ({"clock": time(1, tzinfo=UTC)}, "clock: .*no place"),
        ({"total": 1.5}, r"\$\.total"),
        ({"total": Decimal("NaN")}, "total: NaN is no finite number"),
        ({"lines": [Line("a"), Line("b", 2**63)]}, r"lines\[1\]\.quantity: .*is not from"),
        ({"lines": [Line("a", parents=[Line("b", -(2**63) - 1)])]}, r"lines\[0\]\.parents\[0\]\.quantity"),
        ({"lines": "text"}, r"\$\.lines"),
        ({"flags": {2**70}}, r"flags"),
        ({"anything": object()}, "object"),
        ({"paid": Line("a")}, r"\$\.paid"),
        ({"matrix": [[1.0], ["x"]]}, r"\$\.matrix\[1\]"),
    ],
)
def test_a_value_that_its_contract_refuses_is_not_written_and_the_field_is_named(
    change: dict[str, Any], said: str
) -> None:
    encode, _ = codec(Order, "Order", schema_of(Order))
    with pytest.raises(EncodeError, match=f"(?s)A Order can't be written: .*{said}"):
        encode(msgspec.structs.replace(SAMPLE, **change))


def test_what_is_left_out_is_written_by_its_default() -> None:
    class Sparse(msgspec.Struct, omit_defaults=True):
        id: str
        day: date = date(2026, 1, 2)
        price: Decimal = Decimal("1.50")
        tags: list[str] = []
        note: str | None = None
        line: Line | None = None

    encode, decode = codec(Sparse, "Sparse", schema_of(Sparse))
    assert decode(encode(Sparse("1"))) == Sparse("1")


@pytest.mark.parametrize("data", [b"", b"\x02", b"\xff" * 12, b"\x80" * 40, b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f"])
def test_bytes_that_are_no_value_are_refused(data: bytes) -> None:
    _, decode = codec(Line, "Line", schema_of(Line))
    with pytest.raises(DecodeError, match="Bytes can't be read as Line"):
        decode(data)


def test_bytes_that_are_left_over_are_refused() -> None:
    encode, decode = codec(Line, "Line", schema_of(Line))
    with pytest.raises(DecodeError, match="left over"):
        decode(encode(Line("a")) + b"\x00")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    encode, decode = codec(Line, "Line", schema_of(Line))
    try:
        found = decode(data)
    except DecodeError:
        return
    assert decode(encode(found)) == found


def test_limits_are_checked_when_values_are_written_and_read() -> None:
    class Limited(msgspec.Struct):
        size: Annotated[int, msgspec.Meta(ge=1)]

    encode, decode = codec(Limited, "Limited", schema_of(Limited))
    with pytest.raises(EncodeError, match=r"size"):
        encode(Limited(0))
    with pytest.raises(DecodeError, match=r"size"):
        decode(b"\x00")


# -- versions -----------------------------------------------------------------------------------------


class Before(msgspec.Struct):
    id: str
    amount: int
    gone: str
    state: Kind
    at: date
    paid: Card | Cash | None = None


class After(msgspec.Struct):
    paid: Card | Cash | None
    at: str
    total: Annotated[float, was("amount")]
    id: str
    state: Kind
    added: list[int] = []


def test_another_versions_bytes_are_read_by_names_aliases_promotions_and_defaults() -> None:
    reader, writer = schema_of(After), schema_of(Before)
    assert breaks(reader, writer, whole=True) == []
    encode, _ = codec(Before, "Order", writer)
    read = decoder(After, "Order", reader, writer)
    old = Before("1", 7, "x", Kind.KNOWN, date(2026, 1, 2), Card("4"))
    assert read(encode(old)) == After(Card("4"), "2026-01-02", 7.0, "1", Kind.KNOWN)


def test_an_unknown_symbol_is_the_readers_default() -> None:
    class Wider(msgspec.Struct):
        state: State

    encode, _ = codec(Wider, "Wider", schema_of(Wider))
    read = decoder(Lenient, "Lenient", schema_of(Lenient), schema_of(Wider))
    assert read(encode(Wider(State.NEW))) == Lenient(Kind.UNKNOWN)


def test_a_view_takes_the_fields_that_it_names() -> None:
    class View(msgspec.Struct):
        customer: str
        lines: list[Line]

    encode, _ = codec(Order, "Order", schema_of(Order))
    read = decoder(View, "Order", schema_of(View), schema_of(Order))
    assert read(encode(SAMPLE)) == View("Ada", SAMPLE.lines)


@pytest.mark.parametrize("value", [[Decimal(0), None], {"a": Decimal("1.50")}, None])
def test_alternatives_hold_optional_values_of_logical_types(value: Any) -> None:
    nested = msgspec.defstruct("Nested", [("x", list[Decimal | None] | dict[str, Decimal | None] | None)])
    encode, decode = codec(nested, "Nested", schema_of(nested))
    assert decode(encode(nested(value))) == nested(value)


def test_a_union_whose_alternatives_are_one_type_in_avro_is_refused_with_its_path() -> None:
    inner = msgspec.defstruct("Inner", [("when", datetime | int)])
    outer = msgspec.defstruct("Outer", [("inner", inner)])
    with pytest.raises(ContractError, match=r"inner\.when can't be said in Avro: two of its alternatives are long"):
        codec(outer, "Outer", schema_of(outer))


# -- properties ---------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(structs())
def test_random_values_of_random_classes_come_back_as_they_were(pair: tuple[Any, Any]) -> None:
    cls, value = pair
    schema = schema_of(cls)
    encode, decode = codec(cls, "Random", schema)
    assert decode(encode(value)) == value
    assert schema.record is not None
    turned = msgspec.structs.replace(schema.record, fields=schema.record.fields[::-1])
    other = msgspec.structs.replace(schema, definitions={**schema.definitions, turned.name: turned})
    again = codec(cls, "Random", other)[0](value)
    assert decoder(cls, "Random", schema, other)(again) == value


@settings(max_examples=100, deadline=None)
@given(structs())
def test_random_schemas_are_read_back_from_their_documents_which_avro_accepts(pair: tuple[Any, Any]) -> None:
    schema = schema_of(pair[0])
    made = document(schema)
    assert parse(msgspec.json.decode(msgspec.json.encode(made))) == schema
    fastavro.parse_schema(made)
    others = {key: value for key, value in made.items() if key != "x-postline"}
    assert parse(others).record is not None


def test_not_a_number_is_kept_where_it_belongs() -> None:
    class Measured(msgspec.Struct):
        value: float

    encode, decode = codec(Measured, "Measured", schema_of(Measured))
    assert math.isnan(decode(encode(Measured(math.nan))).value)
