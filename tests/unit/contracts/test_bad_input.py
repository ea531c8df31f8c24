"""Values that no format may change in silence and bytes that no format may trust: each is refused, with its path."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal
from math import inf, nan
from typing import Any

import msgspec
import pydantic
import pytest
from msgspec import Struct

from postline import App, Topic
from postline.contracts import Schemas
from postline.contracts.cloudevents_http import read_events
from postline.contracts.formats import FormatName, format_named
from postline.contracts.frame import framed
from postline.contracts.kinds import Kind
from postline.contracts.reading import Reading
from postline.errors import ContractError, DecodeError, EncodeError
from postline.log.port import SCHEMA_ID_SHIFT, Append
from postline.message import Envelope
from postline.testing import TestApp

FORMATS: tuple[FormatName, ...] = ("json", "avro", "protobuf")


class Line(Struct):
    price: Decimal


class Invoice(Struct):
    lines: list[Line] = []
    count: int = 0
    rate: float = 0.0
    rate_or_none: float | None = None
    anything: Any = None
    notes: dict[str, str] = {}
    text: str = ""


def reading(format: FormatName, cls: Any = Invoice) -> Reading:
    return Reading(cls, "shop.Invoice", format_named(format))


class Keyed(Struct):
    notes: dict[str, int] = {}
    price: Decimal = Decimal(0)


class KeyedModel(pydantic.BaseModel):
    notes: dict[str, int] = {}
    price: Decimal = Decimal(0)


# -- at publish -----------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("wrong", [0.1, 0.5])
def test_a_float_where_a_decimal_belongs_is_refused_in_every_format(format: FormatName, wrong: float) -> None:
    with pytest.raises(EncodeError, match=r"lines\[1\](\.price)?.*"):
        reading(format).codec.encode(Invoice([Line(Decimal("0.1")), Line(wrong)]))  # type: ignore[arg-type]
    with pytest.raises(EncodeError, match="Expected `decimal`, got `float`"):
        reading(format).codec.encode(Invoice([Line(wrong)]))  # type: ignore[arg-type]


def test_a_decimal_keeps_every_digit_in_every_format() -> None:
    value = Invoice([Line(Decimal("0.1234567890123456789012345678901234567890"))])
    for format in FORMATS:
        each = reading(format)
        assert each.decode(each.codec.encode(value)) == value


@pytest.mark.parametrize("wrong", [nan, inf, -inf])
def test_not_a_number_is_refused_in_json_wherever_it_stands(wrong: float) -> None:
    for value, path in [
        (Invoice(rate=wrong), r"\$\.rate"),
        (Invoice(rate_or_none=wrong), r"\$\.rate_or_none"),
        (Invoice(anything={"a": [1, wrong]}), r"\$\.anything\['a'\]\[1\]"),
        (Invoice(anything={wrong}), r"\$\.anything"),
    ]:
        with pytest.raises(EncodeError, match=path):
            reading("json").codec.encode(value)


def test_not_a_number_within_anything_is_refused_in_every_format_and_kept_where_floats_are() -> None:
    for format in ("avro", "protobuf"):
        with pytest.raises(EncodeError, match="anything"):
            reading(format).codec.encode(Invoice(anything=[nan]))
        each = reading(format)
        back = each.decode(each.codec.encode(Invoice(rate=inf, rate_or_none=nan)))
        assert (back.rate, str(back.rate_or_none)) == (inf, "nan")


class Model(pydantic.BaseModel):
    rate: float | None = None
    anything: Any = None
    notes: dict[str, str] = {}


def test_models_are_refused_what_json_would_change_in_silence() -> None:
    for value, said in [
        (Model(rate=nan), r"nan can't stand in JSON - at `\$\.rate`"),
        (Model(anything=[inf]), r"inf can't stand in JSON - at `\$\.anything\[0\]`"),
        (Model(anything={1: "a", "1": "b"}), r"Two keys are the same text in JSON - at `\$\.anything`"),
        (Model.model_construct(notes={"\ud800": "a"}), "can't be written as UTF-8"),
    ]:
        with pytest.raises(EncodeError, match=said):
            reading("json", Model).codec.encode(value)


def test_what_is_no_loss_is_written() -> None:
    @dataclass
    class Normalised:
        tags: list[str]
        at: Any = None
        total: Decimal = Decimal(1)

        def __post_init__(self) -> None:
            self.tags = sorted(each.lower() for each in self.tags)

    each = reading("json", Normalised)
    value = Normalised(["B", "a"])
    value.tags = ["B", "a"]  # assigned past its own rule, which reading applies again
    value.at = {"total": (1, None, 2.5), "of": Line(Decimal(1))}
    assert each.decode(each.codec.encode(value)).tags == ["a", "b"]


@pytest.mark.parametrize("format", FORMATS)
def test_two_keys_of_one_text_are_refused_in_every_format(format: FormatName) -> None:
    for value in (Invoice(anything={1: "a", "1": "b"}), Invoice(notes={1: "a", "1": "b"})):  # type: ignore[dict-item]
        with pytest.raises(EncodeError, match=r"anything|notes"):
            reading(format).codec.encode(value)


def test_keys_of_several_types_and_one_text_are_refused_in_avro() -> None:
    class Counts(Struct):
        of: dict[int | str, int]

    with pytest.raises(EncodeError, match="of: two of its keys are the same text"):
        reading("avro", Counts).codec.encode(Counts({1: 1, "1": 2}))


@pytest.mark.parametrize("wrong", [2**63, -(2**63) - 1, 2**70])
def test_integers_beyond_64_bits_are_whole_in_json_and_refused_elsewhere(wrong: int) -> None:
    each = reading("json")
    assert each.decode(each.codec.encode(Invoice(count=wrong, anything=wrong))) == Invoice(count=wrong, anything=wrong)
    for format in ("avro", "protobuf"):
        with pytest.raises(EncodeError, match="count: "):
            reading(format).codec.encode(Invoice(count=wrong))


def test_integers_that_protobufs_anything_would_round_are_refused() -> None:
    with pytest.raises(EncodeError, match=r"anything: 9007199254740993 would not be exact"):
        reading("protobuf").codec.encode(Invoice(anything=2**53 + 1))


@pytest.mark.parametrize("format", FORMATS)
def test_text_that_is_no_utf8_is_refused_with_its_path(format: FormatName) -> None:
    for value, path in [
        (Invoice(text="a\ud800"), "text"),
        (Invoice(notes={"k": "\ud800"}), r"notes"),
        (Invoice(notes={"\ud800": "v"}), r"notes"),
        (Invoice(anything=[{"a": "\udcff"}]), r"anything"),
    ]:
        with pytest.raises(EncodeError, match=path):
            reading(format).codec.encode(value)


@pytest.mark.parametrize("format", FORMATS)
def test_a_value_that_nests_without_end_is_refused(format: FormatName) -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(EncodeError):
        reading(format).codec.encode(Invoice(anything=deep))


# -- at handling ----------------------------------------------------------------------------


class Node(Struct):
    v: Any = None
    count: int = 0
    text: str = ""
    inner: list[Line] = []
    next: Node | None = None


JSON_RECORDS = [
    (b'{"v":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    (b'{"unknown":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    (b'{"next":' * 50_000 + b"{}" + b"}" * 50_000, "nested too deeply"),
    (b'{"text":"a\xff"}', "its text is no UTF-8 - at `$.text`"),
    (b'{"v":{"a":[1,"\xc0\x80"]}}', "its text is no UTF-8 - at `$.v.a[1]`"),
    (b'{"v":{"\xff":1}}', "its text is no UTF-8 - at `$.v in the key"),
    (b'{"text":"\xff"', "its text is no UTF-8 - in what is no JSON either"),
    (b'{"count":NaN}', "byte 9"),
    (b'{"v":Infinity}', "byte 5"),
    (b'{"count":1.5}', "Expected `int`, got `float` - at `$.count`"),
    (b'{"count":' + b"9" * 5000 + b"}", "Integer value out of range - at `$.count`"),
    (b'{"v":1e999}', "Number out of range - at `$.v`"),
    (b'{"inner":[{"price":1},{"price":true}]}', "at `$.inner[1].price`"),
    (b"", "truncated"),
    ("{}".encode("utf-16"), "byte 0"),
]
#: v is text of JSON, count a long, text a string, inner a list, next a union.
AVRO_RECORDS = [
    (b"\x02{\x00\x00\x00\x00", "v"),
    (b"\x08null\x00\x04\xff\xff\x00\x00", "text: its 2 bytes are no UTF-8"),
    (b"\x08null" + b"\xff" * 11, "count: a number takes more than 10 bytes"),
    (b"\x08null\x00\x00\x02", "inner"),
    ((b"\x08null\x00\x00\x00\x02") * 20_000, "too deeply"),
    (b"\x08null\x00\x00\x00\x08", "next: it has no alternative 4"),
]
PROTOBUF_RECORDS = [
    (b"\x1a\x02\xff\xff", "text: its text is no UTF-8"),
    (b"\x10" + b"\xff" * 11, "count: a number has no end"),
    (b"\x1a\x7f", "text: it should have 127 bytes, and 0 are left"),
]


def nested_protobuf(depth: int) -> bytes:
    found = b""
    for _ in range(depth):
        size, length = len(found), b""
        while size > 0x7F:
            length, size = length + bytes((size & 0x7F | 0x80,)), size >> 7
        found = b"\x2a" + length + bytes((size,)) + found
    return found


@pytest.mark.parametrize(
    ("format", "records"),
    [
        ("json", JSON_RECORDS),
        ("avro", AVRO_RECORDS),
        ("protobuf", [*PROTOBUF_RECORDS, (nested_protobuf(2_000), "lie in each other more than 100 deep")]),
    ],
    ids=["json", "avro", "protobuf"],
)
async def test_a_record_that_breaks_is_a_dead_letter_that_says_where(
    format: FormatName, records: list[tuple[bytes, str]]
) -> None:
    topic = Topic("shop.nodes", owner="shop", key=None, partitions=1, schemas=Schemas(format=format))

    topic.event("shop.Node")(Node)
    app = App("shop", owns=[topic])
    handled: list[Node] = []
    subscription = app.subscribe("reading", topic, start="earliest")

    @subscription.on(Node)
    async def handle(node: Node) -> None:
        handled.append(node)

    async with TestApp(app) as t:
        good = reading(format, Node).codec.encode(Node(count=7))
        for number, value in enumerate([*(value for value, _ in records), good]):
            # The keys are no UTF-8: bytes like any other.
            await t.log.append([Append("shop.nodes", 0, b"\xff\xfe%d" % number, value, Envelope(type="shop.Node"))])
        await t.settle()
        letters = t.dead_letters(subscription)
    assert [each.count for each in handled] == [7]
    assert len(letters) == len(records)
    for letter, (value, said) in zip(letters, records, strict=True):
        assert said in letter.error, value[:40]


def test_what_pydantic_takes_for_numbers_and_json_does_not_have_is_refused() -> None:
    each = reading("json", Model)
    for data in (b'{"rate":NaN}', b'{"anything":[-Infinity]}'):
        with pytest.raises(msgspec.DecodeError):
            each.decode(data)
    assert each.decode(b'{"anything":"NaN, or Infinity"}').anything == "NaN, or Infinity"


def test_of_a_key_twice_in_a_value_the_last_counts() -> None:
    """A decision: see docs/decisions/0010-contracts.md."""
    for cls in (Invoice, Model):
        assert reading("json", cls).decode(b'{"anything":1,"anything":2}').anything == 2


@pytest.mark.parametrize("format", FORMATS)
async def test_a_damaged_frame_and_an_id_that_nobody_knows_are_dead_letters_with_their_reason(
    format: FormatName,
) -> None:
    topic = Topic("shop.nodes", owner="shop", key=None, partitions=1, schemas=Schemas(format=format))
    topic.event("shop.Node")(Node)
    app = App("shop", owns=[topic])
    subscription = app.subscribe("reading", topic, start="earliest")

    @subscription.on(Node)
    async def handle(node: Node) -> None:
        raise AssertionError(node)

    good = reading(format, Node).codec.encode(Node(count=7))
    indexes = (0,) if format == "protobuf" else None
    unknown = Append("shop.nodes", 0, b"2", good, Envelope(type="shop.Node"), 999_999 << SCHEMA_ID_SHIFT)
    async with TestApp(app) as t:
        await t.log.append([Append("shop.nodes", 0, b"1", framed(999_999, good, indexes), Envelope(type="shop.Node"))])
        await t.log.append([unknown])
        await t.settle()
        errors = [letter.error for letter in t.dead_letters(subscription)]
    assert len(errors) == 2
    for error in errors:
        assert "Schema id 999999 is not in the registry" in error
        assert error.endswith("Use the registry that its publisher uses; then redrive.")


# -- at declaring and importing -------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"required": 5}, "#: its required is no list of names"),
        ({"required": [5]}, "#: its required is no list of names"),
        ({"allOf": 5}, "#: its allOf is no list of schemas"),
        ({"properties": []}, "#: its properties are no object"),
        ({"properties": {"a": {"properties": 5}}}, "#/properties/a: its properties are no object"),
        ({"properties": {"a": {"additionalProperties": 5}}}, "#/properties/a: 5 is no schema for"),
        ({"$defs": []}, r"#: its \$defs are no object"),
        ({"type": []}, "#: it has a list of no types"),
        ({"properties": {"a": {"type": "number", "multipleOf": 0}}}, "#/properties/a: multipleOf is 0"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "refers to itself and never says a type"),
        ({"allOf": [{"$ref": "#"}]}, "# refers to itself and never says a type"),
    ],
)
def test_a_json_schema_that_says_nothing_is_refused_with_its_place(document: Any, said: str) -> None:
    with pytest.raises(ContractError, match=said):
        format_named("json").parse(json.dumps(document))


@pytest.mark.parametrize("document", ['{"type":"object","required":false}', '{"type":"object","properties":null}'])
def test_what_older_drafts_and_careless_writers_say_is_read(document: str) -> None:
    assert format_named("json").parse(document).record


@pytest.mark.parametrize("format", ["json", "avro"])
def test_a_schema_document_is_read_strictly(format: FormatName) -> None:
    for text, said in [
        ('{"type":"object","properties":{"a":{}},"properties":{"b":{}}}', "'properties' twice in one object"),
        ('{"type":"record","name":"R","fields":[{"name":"a","type":"int","type":"string"}]}', "'type' twice"),
        ("[" * 100_000, "nests too deeply"),
        ('{"items":' * 100_000, "nests too deeply"),
        ('{"type":"\ud800"}', "is no JSON"),
        ('{"default":NaN}', "is no JSON"),
        ("", "is no JSON"),
    ]:
        with pytest.raises(ContractError, match=said):
            format_named(format).parse(text)


def test_an_avro_schema_that_nests_too_deeply_or_without_end_is_refused() -> None:
    deep: Any = "int"
    for number in range(300):
        deep = {"type": "record", "name": f"R{number}", "fields": [{"name": "a", "type": deep}]}
    endless = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "R"}]}
    for document, said in [(deep, "nests types too deeply"), (endless, "would have no end")]:
        with pytest.raises(ContractError, match=said):
            format_named("avro").parse(json.dumps(document))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("int32 a = 1; int32 b = 1;", "two fields of A have 1"),
        ("int32 a = 1; int32 a = 2;", "two fields of A have a"),
        ("oneof b { int32 c = 1; } int32 d = 1;", "two fields of A have 1"),
        ("message B {" * 5_000 + "}" * 5_000, "nested deeper than 32"),
        ("optional group B = 1 { }", "groups are not read"),
    ],
)
def test_a_proto_that_is_wrong_is_refused(body: str, said: str) -> None:
    with pytest.raises(ContractError, match=said):
        format_named("protobuf").parse(f'syntax = "proto3"; message A {{ {body} }}')


def test_a_required_field_of_proto2_is_refused_in_a_contract_of_ones_own_and_read_in_a_foreign_one() -> None:
    from postline.contracts.protobuf import parse

    text = 'syntax = "proto2"; message A { required int32 a = 1; }'
    with pytest.raises(ContractError, match=r"A\.a is a required field of proto2"):
        parse(text)
    assert parse(text, foreign=True).record


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("cls", [Keyed, KeyedModel])
@pytest.mark.parametrize(
    "wrong", [{"notes": {1: 2}}, {"price": Decimal("NaN")}, {"price": Decimal("-Infinity")}], ids=str
)
def test_keys_of_another_type_and_decimals_without_end_are_refused(
    format: FormatName, cls: Any, wrong: dict[str, Any]
) -> None:
    make = cls.model_construct if cls is KeyedModel else cls
    with pytest.raises(EncodeError, match=r"Expected `str`|finite|valid string|str.*expected"):
        reading(format, cls).codec.encode(make(**wrong))
    fine = cls(notes={"NaN": 1}, price=Decimal("-1.50"))
    assert reading(format, cls).codec.decode(reading(format, cls).codec.encode(fine)) == fine


class Priced(Struct):
    price: Decimal = Decimal(0)
    others: list[Decimal] = []
    by_price: dict[Decimal, str] = {}
    some: set[Decimal] = set()
    text: str = ""


@dataclass
class PricedToo:
    price: Decimal = Decimal(0)
    others: list[Decimal] = field(default_factory=list)
    by_price: dict[Decimal, str] = field(default_factory=dict)
    some: set[Decimal] = field(default_factory=set)
    text: str = ""


class PricedModel(pydantic.BaseModel):
    price: Decimal = Decimal(0)
    others: list[Decimal] = []
    by_price: dict[Decimal, str] = {}
    some: set[Decimal] = set()
    text: str = ""


class PricedFreely(pydantic.BaseModel):
    price: Decimal = pydantic.Field(allow_inf_nan=True)


@pytest.mark.parametrize("said", ["NaN", "nan", "Infinity", "-inf", "\\u004eaN", "i\\u006ef"])
@pytest.mark.parametrize("cls", [Priced, PricedToo, PricedModel])
@pytest.mark.parametrize(
    "place", ['"price":"{}"', '"others":["1","{}"]', '"by_price":{{"{}":"x"}}', '"some":["{}"]'], ids=str
)
def test_text_that_decimals_take_for_no_number_is_refused_with_its_path(cls: Any, place: str, said: str) -> None:
    name = place.partition(":")[0].strip('"')
    with pytest.raises(DecodeError, match=rf"(?i)finite.*`\$\.{name}"):
        Kind(cls).read(f"{{{place.format(said)}}}".encode())


@pytest.mark.parametrize("said", ["sNaN", "-NAN123"])
@pytest.mark.parametrize("cls", [Priced, PricedToo, PricedModel])
@pytest.mark.parametrize("place", ['"price":"{}"', '"by_price":{{"{}":"x"}}', '"some":["{}"]'], ids=str)
def test_odd_ways_to_say_no_number_are_refused_too(cls: Any, place: str, said: str) -> None:
    with pytest.raises(DecodeError):
        Kind(cls).read(f"{{{place.format(said)}}}".encode())


@pytest.mark.parametrize("cls", [Priced, PricedToo, PricedModel])
def test_text_that_only_looks_like_no_number_is_read(cls: Any) -> None:
    found = Kind(cls).read(b'{"price":"1e3","text":"Nan\\u0041 of Infinity Inc.","by_price":{"2":"NaN"}}')
    assert (found.price, found.text, found.by_price) == (1000, "NanA of Infinity Inc.", {Decimal(2): "NaN"})


class Leaf(Struct, tag=True):
    price: Decimal


class Branch(Struct, tag=True):
    of: Leaf | Branch | None
    pairs: tuple[int, Decimal] = (0, Decimal(0))
    plain: tuple[Decimal, ...] = ()
    maybe: Decimal | None = None
    named: dict[str, frozenset[Decimal] | int] = {}


@pytest.mark.parametrize(
    ("place", "path"),
    [
        ('"of":{"type":"Branch","of":{"type":"Leaf","price":"inf"}}', "$.of.of.price"),
        ('"of":null,"pairs":[0,"inf"]', "$.pairs[1]"),
        ('"of":null,"plain":["1","inf"]', "$.plain[1]"),
        ('"of":null,"maybe":"inf"', "$.maybe"),
        ('"of":null,"named":{"a":3,"b":["1","inf"]}', "$.named['b']"),
    ],
    ids=str,
)
def test_no_number_is_refused_wherever_it_stands(place: str, path: str) -> None:
    with pytest.raises(DecodeError) as refused:
        Kind(Branch).read(f'{{"type":"Branch",{place}}}'.encode())
    assert refused.value.message.endswith(f"Infinity is no finite number - at `{path}`.")
    assert Kind(Branch).read(f'{{"type":"Branch",{place}}}'.replace("inf", "2").encode())


def test_a_contract_that_allows_for_it_reads_decimals_that_are_no_numbers() -> None:
    assert Kind(PricedFreely).read(b'{"price":"-Infinity"}').price == Decimal("-Infinity")


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (
            {"content-type": "application/cloudevents+json"},
            b'{"specversion":"1.0","id":"1","id":"2","source":"s","type":"t"}',
        ),
        (
            {"content-type": "application/cloudevents+json"},
            b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"k":"a","k":"b"}}',
        ),
        (
            {"content-type": "application/cloudevents-batch+json"},
            b'[{"specversion":"1.0","id":"1","source":"s","type":"t","type":"u"}]',
        ),
        ({"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "t"}, b'{"k":{"id":1,"id":2}}'),
    ],
    ids=["attribute", "data", "batch", "binary"],
)
def test_an_event_over_http_that_says_a_key_twice_is_refused(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(DecodeError, match=r"It has the key '.*' twice in one object"):
        read_events(headers, body)
