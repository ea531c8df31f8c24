"""Values as Protobuf messages and back, in one version and between two."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postline.contracts.protobuf import document, parse
from postline.contracts.protobuf_codec import codec, decoder
from postline.contracts.protobuf_text import parse_text, write_text
from postline.contracts.reflection import schema_of
from postline.contracts.schema import (
    TEXT,
    Enumeration,
    Field,
    Reference,
    Scalar,
    Schema,
    UnionOf,
)
from postline.errors import DecodeError, EncodeError
from tests.unit.contracts.classes_drawn import structs
from tests.unit.contracts.protobuf_samples import (
    AT,
    FOREIGN,
    INTEGER,
    MINIMAL,
    NULL,
    SAMPLE,
    Card,
    Cash,
    Kind,
    Lenient,
    Line,
    Order,
    State,
    bare,
    compiled,
    imported,
    record,
    wired,
)


@pytest.mark.parametrize("value", [SAMPLE, MINIMAL])
def test_values_come_back_as_they_were(value: Order) -> None:
    encode, decode = codec(Order, "shop.Order", schema_of(Order, name="shop.Order"))
    assert decode(encode(value)) == value


def test_bytes_are_those_that_protobufs_own_classes_write() -> None:
    encode, decode = codec(Line, "Line", schema_of(Line))
    assert encode(Line("ab", 300)) == b"\x0a\x02ab\x10\xac\x02"
    assert decode(b"\x0a\x02ab\x10\xac\x02\x7a\x01x") == Line("ab", 300)
    assert encode(Line("", 0)) == b"\x10\x00"


def test_dataclasses_and_pydantic_models_are_written_and_read() -> None:
    pydantic: Any = pytest.importorskip("pydantic")

    @dataclass
    class Data:
        at: datetime
        tags: list[str] = field(default_factory=list)

    class Model(pydantic.BaseModel):  # type: ignore[misc]
        identity: UUID = pydantic.Field(alias="id")
        proof: bytes
        at: datetime
        state: State
        site: pydantic.HttpUrl | None = None
        price: Decimal = Decimal("0.10")
        size: int = pydantic.Field(default=1, le=10)

    model = Model(id=UUID(int=1), proof=b"\xff", at=AT, state=State.NEW, site="http://example.org/")
    schema = record(
        Field(name="id", type=Scalar(kind="uuid")),
        Field(name="proof", type=Scalar(kind="bytes")),
        Field(name="at", type=Scalar(kind="datetime")),
        Field(name="state", type=Reference(name="State")),
        Field(name="site", type=UnionOf(options=(TEXT, NULL)), required=False, default=None),
        Field(name="price", type=Scalar(kind="decimal"), required=False, default="0.10"),
        Field(name="size", type=INTEGER, required=False, default=1),
        State=Enumeration(name="State", symbols=("new", "in-transit")),
    )
    encode, decode = codec(Model, "Model", schema)
    assert decode(encode(model)) == model
    model.size = 11
    with pytest.raises(EncodeError, match="size"):
        encode(model)
    encode, decode = codec(Data, "Data", schema_of(Data))
    assert decode(encode(Data(AT, ["a"]))) == Data(AT, ["a"])


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"customer": 5}, "customer"),
        ({"customer": "\ud800"}, "customer"),
        ({"at": AT.replace(tzinfo=None)}, "at"),
        ({"term": timedelta.max}, "term"),
        ({"total": 1.5}, "total"),
        ({"lines": [Line("a"), Line("b", 2**63)]}, "lines[1].quantity"),
        ({"lines": [Line("a", parents=[Line("b", -(2**63) - 1)])]}, "lines[0].parents[0].quantity"),
        ({"lines": "text"}, "lines"),
        ({"flags": {2**70}}, "flags[0]"),
        ({"by_level": {1: 7}}, "by_level"),
        ({"anything": {"a": [2**60]}}, "anything"),
        ({"anything": math.nan}, "anything"),
        ({"anything": object()}, ""),
        ({"loose": {"a": {1: 2}}}, "loose"),
        ({"paid": Line("a")}, "paid"),
        ({"matrix": [[1.0], ["x"]]}, "matrix[1]"),
        ({"day": AT}, "day"),
    ],
)
def test_a_value_that_its_contract_refuses_is_not_written_and_the_field_is_named(
    change: dict[str, Any], path: str
) -> None:
    encode, _ = codec(Order, "shop.Order", schema_of(Order, name="shop.Order"))
    with pytest.raises(EncodeError) as caught:
        encode(msgspec.structs.replace(SAMPLE, **change))
    assert f"can't be written: {path}" in caught.value.message


def test_a_number_too_large_for_its_float_is_refused() -> None:
    class Rate(msgspec.Struct):
        value: float

    encode, decode = codec(Rate, "Rate", wired(Scalar(kind="number", bits=32), name="value"))
    assert decode(encode(Rate(0.5))) == Rate(0.5)
    assert math.isnan(decode(encode(Rate(math.nan))).value)
    with pytest.raises(EncodeError, match=r"value: 1e\+39 is too large for 32 bits"):
        encode(Rate(1e39))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is missing|Invalid UUID"),
        (b"\x0a", "id: it ends within a length"),
        (b"\x0a\x24abc", "id: it should have 36 bytes, and 3 are left"),
        (b"\x12\x01\xff", "customer: its text is no UTF-8"),
        (b"\x32\x04\x0a\x02\xff\xff", "lines.sku: its text is no UTF-8"),
        (b"\x32\x03\x0a\x05a", "lines.sku: it should have 5 bytes, and 1 are left"),
        (b"\xff" * 12, "the number of a field has no end"),
        (b"\x00\x01", "field 0: no field begins with 0"),
        (b"\x0f", "customer|id: no field begins with 15"),
        (b'{"id": 1}', "can't be read as shop.Order"),
    ],
)
def test_bytes_that_are_no_message_are_refused_and_the_place_is_named(data: bytes, said: str) -> None:
    _, decode = codec(Order, "shop.Order", schema_of(Order, name="shop.Order"))
    with pytest.raises(DecodeError, match=said):
        decode(data)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        read = DECODE_LINE(data)
    except DecodeError:
        return
    assert isinstance(read, Line)


ENCODE_LINE, DECODE_LINE = codec(Line, "Line", schema_of(Line))


@given(st.integers(0, 40), st.sampled_from([b"\x00", b"\x7f", b"\x80", b"\xff"]))
def test_a_damaged_byte_is_read_as_another_value_or_refused(at: int, byte: bytes) -> None:
    data = ENCODE_LINE(Line("a" * 10, 70_000, [Line("b" * 10, 5), Line("c" * 5)]))
    try:
        read = DECODE_LINE(data[:at] + byte + data[at + 1 :])
    except DecodeError:
        return
    assert isinstance(read, Line)


def test_records_that_lie_deeper_than_protobuf_reads_are_not_written() -> None:
    line = Line("a")
    for _ in range(150):
        line = Line("a", parents=[line])
    with pytest.raises(EncodeError):
        ENCODE_LINE(line)


def test_an_unknown_symbol_is_the_readers_default_or_refused() -> None:
    class Strict(msgspec.Struct):
        state: State

    _, decode = codec(Strict, "Strict", schema_of(Strict))
    with pytest.raises(DecodeError, match="state"):
        decode(b"\x08\x07")
    _, decode = codec(Lenient, "Lenient", schema_of(Lenient))
    assert decode(b"\x08\x07") == Lenient(Kind.UNKNOWN)


# Versions


class Was(msgspec.Struct):
    """The older version."""

    name: str
    amount: int
    gone: str
    card: Card | Cash
    note: str | None = None
    inner: list[Line] = []


class Piece(msgspec.Struct):
    quantity: float
    code: str
    color: str = "red"


class Now(msgspec.Struct):
    """The newer one: fields are moved, renamed, promoted, dropped and added."""

    added: int = 5
    total: float = 0
    inner: list[Piece] = []
    name: bytes = b""
    card: Cash | Card | None = None
    note: str | None = "none"


def test_another_versions_bytes_are_read_by_names_and_aliases_whatever_the_numbers() -> None:
    writer = schema_of(Was, name="shop.Thing")
    reader = Schema.decode(
        schema_of(Now, name="shop.Thing")
        .encode()
        .replace(b'"name":"total",', b'"name":"total","aliases":["amount"],')
        .replace(b'"name":"code",', b'"name":"code","aliases":["sku"],')
    )
    encode, _ = codec(Was, "shop.Thing", writer)
    read = decoder(Now, "shop.Thing", reader, writer)
    value = Was("Ada", 7, "x", Card("1234"), None, [Line("a", 2)])
    assert read(encode(value)) == Now(5, 7.0, [Piece(2.0, "a")], b"Ada", Card("1234"), None)


def test_a_view_of_a_foreign_schema_takes_the_fields_that_it_names() -> None:
    class View(msgspec.Struct):
        id: str
        limit: int = 3
        payment: str | None = None
        iban: str | None = None
        extra: dict[str, Any] | None = None
        nickname: str | None = None
        signed: int = 0
        sized: int = 0

    library = pytest.importorskip("google.protobuf.descriptor_pool")
    factory = importlib.import_module("google.protobuf.message_factory")
    pool = library.DescriptorPool()
    file = parse_text(FOREIGN, imported)
    for path in file.dependency:
        pool.Add(imported(path))
    pool.Add(file)
    account = factory.GetMessageClass(pool.FindMessageTypeByName("bank.Account"))
    read = decoder(View, "bank.Account", schema_of(View), parse(FOREIGN))
    data = account(
        id="7", iban="DE", large=2**64 - 1, extra={"a": [1, None]}, nickname={"value": "x"}, signed=-5, sized=7
    ).SerializeToString()
    expected = View("7", 3, None, "DE", {"a": [1, None]}, "x", -5, 7)
    assert read(data) == expected
    encode, _ = codec(View, "bank.Account", parse(FOREIGN))
    again = account.FromString(encode(expected))
    assert (again.nickname.value, again.signed, again.sized, again.iban) == ("x", -5, 7, "DE")
    assert read(account(limit=9).SerializeToString()) == View("", 9)


def test_a_record_with_two_members_of_a_oneof_is_not_written() -> None:
    class Paid(msgspec.Struct):
        iban: str | None = None
        card: str | None = None

    text = 'syntax = "proto3"; message Paid { oneof payment { string iban = 1; string card = 2; } }'
    encode, decode = codec(Paid, "Paid", parse(text))
    assert decode(encode(Paid(card="1"))) == Paid(card="1")
    with pytest.raises(EncodeError, match="iban and card exclude each other"):
        encode(Paid("DE", "1"))


# Properties


@settings(max_examples=120, deadline=None)
@given(structs())
def test_random_values_of_random_classes_come_back_as_they_were(pair: tuple[Any, Any]) -> None:
    cls, value = pair
    schema = schema_of(cls)
    encode, decode = codec(cls, "Random", schema)
    assert decode(encode(value)) == value
    # Another version: the same fields, numbered the other way round.
    assert schema.record is not None
    turned = msgspec.structs.replace(schema.record, fields=schema.record.fields[::-1])
    other = msgspec.structs.replace(schema, definitions={**schema.definitions, turned.name: turned})
    plain = msgspec.to_builtins(value)
    again = codec(cls, "Random", other)[0](value)
    assert msgspec.to_builtins(decoder(cls, "Random", schema, other)(again)) == plain


@settings(max_examples=60, deadline=None)
@given(structs())
def test_random_schemas_are_read_back_from_their_documents(pair: tuple[Any, Any]) -> None:
    schema = schema_of(pair[0])
    text = document(schema)
    assert parse(text) == schema
    assert (
        bare(parse_text(text, imported)).SerializeToString()
        == bare(parse_text(write_text(parse_text(text, imported)), imported)).SerializeToString()
    )


@settings(max_examples=15, deadline=None)
@given(structs())
def test_random_documents_compile(tmp_path_factory: pytest.TempPathFactory, pair: tuple[Any, Any]) -> None:
    text = document(schema_of(pair[0]), package="some.place")
    assert compiled(text, tmp_path_factory.mktemp("proto")) == bare(parse_text(text, imported))
