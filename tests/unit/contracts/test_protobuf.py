"""Protobuf's documents as schemas and back."""

from __future__ import annotations

import base64
import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from postline.contracts.protobuf import document, messages, parse
from postline.contracts.protobuf_layout import Layout
from postline.contracts.protobuf_text import parse_text, write_text
from postline.contracts.reflection import schema_of
from postline.contracts.schema import (
    TEXT,
    Enumeration,
    Field,
    Limits,
    ListOf,
    MapOf,
    Reference,
    Scalar,
    Schema,
    TupleOf,
    Type,
    UnionOf,
)
from postline.errors import ContractError, SettingsError
from tests.unit.contracts.protobuf_samples import (
    FOREIGN,
    INTEGER,
    NULL,
    NUMBER,
    Order,
    bare,
    compiled,
    every_message,
    fields_of,
    imported,
    record,
)

# What the model makes of it


def test_messages_become_records_with_their_numbers_kinds_and_absences() -> None:
    fields = fields_of(parse(FOREIGN))
    assert [each.number for each in fields.values()] == [1, 7, 2, 3, 4, 5, 6, *range(8, 23)]
    inner = Reference(name="bank.Kind.Inner")

    def optional(part: Type) -> tuple[Type, bool, Any]:
        return UnionOf(options=(part, NULL)), False, None

    expected: dict[str, tuple[Type, bool, Any]] = {
        "id": (TEXT, False, ""),
        "limit": optional(Scalar(kind="integer", bits=32)),
        "small": (Scalar(kind="integer", bits=32, limits=Limits(ge=0, le=2**32 - 1)), False, 0),
        "large": (Scalar(kind="integer", bits=64, limits=Limits(ge=0, le=2**64 - 1)), False, 0),
        "rate": (Scalar(kind="number", bits=32), False, 0.0),
        "exact": (Scalar(kind="number", bits=64), False, 0.0),
        "open": (Scalar(kind="boolean"), False, False),
        "proof": (Scalar(kind="bytes"), False, ""),
        "kind": optional(Reference(name="bank.Kind")),
        "own": optional(inner),
        "children": (ListOf(items=Reference(name="bank.Account")), False, []),
        "parts": (MapOf(keys=Scalar(kind="integer", bits=64), values=inner), False, {}),
        "iban": optional(TEXT),
        "card": optional(inner),
        "signed": (Scalar(kind="integer", bits=64, wire="sint64"), False, 0),
        "sized": (Scalar(kind="integer", bits=32, wire="fixed32", limits=Limits(ge=0, le=2**32 - 1)), False, 0),
        "at": optional(Scalar(kind="datetime")),
        "term": optional(Scalar(kind="duration")),
        "extra": optional(MapOf(keys=TEXT, values=Scalar(kind="any"))),
        "value": optional(Scalar(kind="any")),
        "list": optional(ListOf(items=Scalar(kind="any"))),
        "nickname": optional(Scalar(kind="text", wire="StringValue")),
    }
    assert {name: (each.type, each.required, each.default) for name, each in fields.items()} == expected


def test_the_first_symbol_of_an_enumeration_stands_for_the_unknown() -> None:
    schema = parse(FOREIGN, message="bank.Kind.Inner")
    color = Enumeration(name="bank.Kind.Color", symbols=("UNKNOWN", "RED"), default="UNKNOWN")
    assert schema.definitions["bank.Kind.Color"] == color
    assert fields_of(schema)["color"].default == "UNKNOWN"


def test_symbols_keep_numbers_that_do_not_count() -> None:
    text = 'syntax = "proto3"; message M { E a = 1; } enum E { A = 0; B = 5; C = -1; }'
    schema = parse(text)
    assert schema.definitions["E"] == Enumeration(name="E", symbols=("A", "B", "C"), default="A", numbers=(0, 5, -1))
    assert parse(without_comment(document(schema))).record == schema.record
    assert "B = 5;" in document(schema)


def test_members_of_a_oneof_know_of_each_other() -> None:
    assert {name for name, each in fields_of(parse(FOREIGN)).items() if each.oneof == "payment"} == {"iban", "card"}


def test_each_message_at_the_top_of_a_file_is_a_schema_of_its_own() -> None:
    schemas = messages(FOREIGN)
    assert list(schemas) == ["bank.Account", "bank.Kind"]
    assert set(schemas["bank.Kind"].definitions) == {"bank.Kind"}


def test_a_descriptor_is_read_as_the_text_is_raw_and_as_confluents_serializer_registers_it() -> None:
    data = parse_text(FOREIGN, imported).SerializeToString()
    assert parse(data) == parse(base64.b64encode(data).decode()) == parse(FOREIGN) == parse(FOREIGN.encode())


def test_what_confluents_serializer_registers_can_be_parsed() -> None:
    protobuf = pytest.importorskip("confluent_kafka.schema_registry.protobuf")
    timestamp = importlib.import_module("google.protobuf.timestamp_pb2").DESCRIPTOR
    fields = fields_of(parse(protobuf._schema_to_str(timestamp)))
    assert [(each.name, each.number) for each in fields.values()] == [("seconds", 1), ("nanos", 2)]


@pytest.mark.parametrize("source", [b"\x0a\xff\xff", "AAAA", "abc", b"\x62\x08editions"])
def test_a_descriptor_that_is_none_is_refused(source: str | bytes) -> None:
    with pytest.raises(ContractError):
        parse(source)


def test_imports_are_read_from_what_is_given_with_the_source() -> None:
    main = 'syntax = "proto3"; import "a.proto"; message M { other.Part part = 1; }'
    part = 'syntax = "proto3"; package other; import "b.proto"; message Part { string name = 1; }'
    schema = parse(main, imports={"a.proto": part, "b.proto": b'syntax = "proto3";'})
    assert set(schema.definitions) == {"M", "other.Part"}
    with pytest.raises(ContractError, match="imports itself"):
        parse(main, imports={"a.proto": part, "b.proto": 'import "a.proto";'})


def test_required_fields_of_proto2_are_readable_in_foreign_schemas() -> None:
    text = """message Old {
      required string id = 1; optional int32 n = 2 [default = 5]; optional bytes b = 3 [default = "a\\000"];
    }"""
    fields = fields_of(parse(text, foreign=True))
    assert fields["id"].required
    assert (fields["n"].default, fields["b"].default) == (5, "YQA=")


# Documents


def without_comment(text: str) -> str:
    """A document as somebody else would have written it."""
    return text.partition("\n")[2]


def test_a_document_is_read_back_as_the_schema_that_it_was() -> None:
    schema = Schema.decode(schema_of(Order, name="shop.OrderPlaced").encode())
    assert parse(document(schema)) == schema
    assert parse(document(schema, package="other.place")) == schema


def test_a_document_that_somebody_changed_is_read_for_what_it_says_now() -> None:
    text = document(record(Field(name="id", type=TEXT))).replace("string id = 1;", "string id = 1; string more = 2;")
    assert list(fields_of(parse(text))) == ["id", "more"]


def test_a_document_compiles_and_means_what_it_was_written_from(tmp_path: Path) -> None:
    schema = schema_of(Order, name="shop.OrderPlaced")
    text = document(schema)
    layout = Layout(schema)
    theirs = compiled(text, tmp_path)
    assert {each.name: list(each.field) for each in every_message(theirs)} == {
        each.name: list(each.field) for each in every_message(bare(layout.file))
    }
    assert theirs.message_type[0].name == "OrderPlaced"
    assert layout.indexes == (0,)


def test_a_foreign_schema_is_written_as_it_was() -> None:
    schema = parse(FOREIGN)
    assert parse(without_comment(document(schema))) == schema


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (TEXT, "string value = 1;"),
        (INTEGER, "int64 value = 1;"),
        (Scalar(kind="integer", bits=32), "int32 value = 1;"),
        (Scalar(kind="number", bits=32), "float value = 1;"),
        (Scalar(kind="decimal"), "string value = 1;"),
        (Scalar(kind="datetime"), "google.protobuf.Timestamp value = 1;"),
        (UnionOf(options=(INTEGER, NULL)), "optional int64 value = 1;"),
        (ListOf(items=TEXT), "repeated string value = 1;"),
        (MapOf(keys=INTEGER, values=NUMBER), "map<int64, double> value = 1;"),
        (Reference(name="shop.Order"), "Order value = 1;"),
        (UnionOf(options=(ListOf(items=TEXT), NULL)), "message ValueValue {\n    repeated string value = 1;"),
        (TupleOf(items=(TEXT, INTEGER)), "string item_1 = 1;\n    int64 item_2 = 2;"),
        (UnionOf(options=(INTEGER, TEXT)), "oneof value {\n      int64 integer = 1;\n      string text = 2;"),
    ],
)
def test_each_type_has_its_words_in_protobuf(part: Type, said: str) -> None:
    assert said in document(record(Field(name="value", type=part)))


def test_a_field_with_a_default_other_than_zero_says_whether_it_is_there() -> None:
    text = document(
        record(
            Field(name="one", type=INTEGER, required=False, default=1),
            Field(name="zero", type=INTEGER, required=False, default=0),
        )
    )
    assert "  optional int64 one = 1;\n  int64 zero = 2;" in text


def test_names_that_shadow_others_are_written_in_full(tmp_path: Path) -> None:
    text = """syntax = "proto3"; package a.google; import "google/protobuf/timestamp.proto";
    message M { message M { string x = 1; } M inner = 1; .a.google.M outer = 2; .google.protobuf.Timestamp at = 3; }"""
    file = parse_text(text, imported)
    assert bare(parse_text(write_text(file), imported)) == compiled(write_text(file), tmp_path) == bare(file)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (Schema(root=TEXT), "this contract is none"),
        (record(Field(name="a", type=NULL)), "shop.Order.a is always null"),
        (record(Field(name="a", type=MapOf(keys=NUMBER, values=TEXT))), "shop.Order.a is a map whose keys"),
        (record(Field(name="a", type=TEXT, number=19_500)), "can't have the number 19500"),
        (record(Field(name="a", type=TEXT, number=1), Field(name="b", type=TEXT, number=1)), "which is that of a"),
        (
            record(Field(name="a", type=Reference(name="E")), E=Enumeration(name="E", symbols=("x", 1))),
            "neither all text nor all 32-bit numbers",
        ),
        (
            record(*(Field(name=name, type=MapOf(keys=TEXT, values=TEXT)) for name in ("a_b", "aB"))),
            "another map have names that Protobuf can't tell apart",
        ),
    ],
)
def test_what_protobuf_cant_say_is_refused_with_its_path(schema: Schema, said: str) -> None:
    with pytest.raises(ContractError, match=said):
        document(schema)


def test_a_bomb_of_nested_types_is_refused() -> None:
    part: Type = TEXT
    for _ in range(60):
        part = ListOf(items=part)
    with pytest.raises(ContractError, match="nested too deeply"):
        document(record(Field(name="a", type=part)))


def test_without_the_library_the_remedy_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    with pytest.raises(SettingsError, match=r"pip install 'postline\[protobuf\]'"):
        document(record())


def test_of_a_file_with_many_messages_that_lead_to_each_other_one_is_read() -> None:
    chain = "".join(f"message M{n} {{ M{max(n - 1, 0)} a = 1; M{n} b = 2; }}\n" for n in range(3000))
    assert list(parse(f'syntax = "proto3";\n{chain}').definitions) == ["M0"]
