"""JSON Schemas of others become the type model; what says no type is refused with a JSON pointer."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from postline.contracts.jsonschema import document, parse
from postline.contracts.reflection import schema_of
from postline.contracts.schema import (
    TEXT,
    Enumeration,
    Field,
    Limits,
    ListOf,
    MapOf,
    Record,
    Reference,
    Scalar,
    Schema,
    TupleOf,
    Type,
    UnionOf,
)
from postline.errors import ContractError
from tests.unit.contracts.protobuf_samples import Order

INTEGER, ANY, NULL = Scalar(kind="integer"), Scalar(kind="any"), Scalar(kind="null")


def one(part: Any, **more: Any) -> tuple[Type, Schema]:
    """The type of a property, and the schema that it is in."""
    schema = parse({"type": "object", "properties": {"value": part}, **more})
    assert schema.record is not None
    return schema.record.fields[0].type, schema


@pytest.mark.parametrize(
    ("part", "wanted"),
    [
        ({"type": "string"}, TEXT),
        ({"type": "integer"}, INTEGER),
        ({"type": "boolean"}, Scalar(kind="boolean")),
        ({}, ANY),
        (True, ANY),
        ({"type": ["integer", "null"]}, UnionOf(options=(INTEGER, NULL))),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, UnionOf(options=(INTEGER, NULL))),
        ({"oneOf": [{"type": "integer"}]}, INTEGER),
        ({"type": "string", "format": "date-time"}, Scalar(kind="datetime")),
        ({"type": "string", "format": "uuid"}, Scalar(kind="uuid")),
        ({"type": "string", "format": "email"}, TEXT),
        ({"type": "string", "contentEncoding": "base64"}, Scalar(kind="bytes")),
        (
            {"type": "string", "maxLength": 3, "pattern": "^a"},
            Scalar(kind="text", limits=Limits(max_length=3, pattern="^a")),
        ),
        ({"maxLength": 3}, Scalar(kind="text", limits=Limits(max_length=3))),
        ({"type": "integer", "minimum": 1, "exclusiveMaximum": 9}, Scalar(kind="integer", limits=Limits(ge=1, lt=9))),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, Scalar(kind="integer", limits=Limits(gt=1))),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": False}, Scalar(kind="integer", limits=Limits(ge=1))),
        ({"type": "array", "items": {"type": "integer"}}, ListOf(items=INTEGER)),
        ({"items": {"type": "integer"}, "uniqueItems": True}, ListOf(items=INTEGER, unique=True)),
        (
            {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2, "maxItems": 2},
            TupleOf(items=(INTEGER, TEXT)),
        ),
        ({"type": "array", "items": [{"type": "integer"}]}, ListOf(items=ANY)),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, MapOf(keys=TEXT, values=INTEGER)),
        (
            {"type": "object", "patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": False},
            MapOf(keys=TEXT, values=INTEGER),
        ),
        ({"type": "object"}, MapOf(keys=TEXT, values=ANY)),
        ({"enum": [1.5, True]}, UnionOf(options=(Scalar(kind="number"), Scalar(kind="boolean")))),
    ],
    ids=str,
)
def test_each_keyword_says_its_type(part: Any, wanted: Type) -> None:
    assert one(part)[0] == wanted


def test_enums_and_constants_are_enumerations() -> None:
    part, schema = one({"enum": ["a", "b", None]})
    assert part == UnionOf(options=(Reference(name="Value2"), NULL))
    assert schema.definitions["Value2"] == Enumeration(name="Value2", symbols=("a", "b"))
    part, schema = one({"const": 7})
    assert schema.resolve(part) == Enumeration(name="Value2", symbols=(7,))


def test_objects_are_records_with_required_fields_defaults_and_strictness() -> None:
    schema = parse(
        {
            "title": "an order",
            "required": ["id", "extra"],
            "properties": {
                "id": {"type": "string"},
                "n": {"type": "integer", "default": 3},
                "secret": {"x-sensitive": True},
            },
            "additionalProperties": False,
        }
    )
    assert schema.record == Record(
        name="AnOrder",
        closed=True,
        fields=(
            Field(name="id", type=TEXT),
            Field(name="n", type=INTEGER, required=False, default=3),
            Field(name="secret", type=ANY, required=False, sensitive=True),
            Field(name="extra", type=ANY),
        ),
    )


def test_references_are_followed_also_to_what_contains_itself() -> None:
    tree = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#/definitions/tree"}}}}
    part, schema = one({"$ref": "#/definitions/tree"}, definitions={"tree": tree})
    assert part == Reference(name="Tree")
    found = schema.definitions["Tree"]
    assert isinstance(found, Record)
    assert found.fields[0].type == ListOf(items=Reference(name="Tree"))
    part, _ = one({"$ref": "#/$defs/a~1b"}, **{"$defs": {"a/b": {"type": "integer"}}})
    assert part == INTEGER


def test_a_document_may_refer_to_its_root() -> None:
    schema = parse({"title": "Node", "type": "object", "properties": {"next": {"$ref": "#"}}})
    names = {field.type for each in schema.definitions.values() if isinstance(each, Record) for field in each.fields}
    assert all(isinstance(each, Reference) for each in names)


def test_all_of_joins_properties_and_requirements() -> None:
    base = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}
    schema = parse(
        {"allOf": [{"$ref": "#/$defs/base"}, {"properties": {"n": {"type": "integer"}}}], "$defs": {"base": base}}
    )
    assert schema.record is not None
    assert {field.name: field.required for field in schema.record.fields} == {"id": True, "n": False}


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (7, "#/properties/value: 7 is no schema"),
        ({"type": "text"}, "there is no type 'text'"),
        ({"$ref": "other.json#/x"}, "refers to another document"),
        ({"$ref": "#/nowhere/0"}, "#/nowhere/0 is not there"),
        ({"$ref": "#/$defs/loop"}, "refers to itself and never says a type"),
        ({"allOf": [{"$ref": "#/$defs/loop"}]}, "never say a type"),
        ({"enum": []}, "no list of values"),
        ({"anyOf": []}, "no list of alternatives"),
        ({"type": "object", "properties": [1]}, "its properties are no object"),
        ({"type": "string", "maxLength": "3"}, "maxLength is '3'"),
    ],
)
def test_what_says_no_type_is_refused_with_its_place(part: Any, said: str) -> None:
    with pytest.raises(ContractError) as told:
        one(part, **{"$defs": {"loop": {"$ref": "#/$defs/loop"}}})
    assert said in told.value.message


def test_a_bomb_of_nested_types_is_refused() -> None:
    part: Any = {"type": "string"}
    for _ in range(150):
        part = {"type": "array", "items": part}
    with pytest.raises(ContractError, match="nests types deeper than 100"):
        one(part)


def test_a_document_of_ours_without_its_model_is_read_like_anybodys() -> None:
    made = document(schema_of(Order))
    del made["x-postline"]
    schema = parse(msgspec.json.decode(msgspec.json.encode(made)))
    assert schema.record is not None
    assert [field.name for field in schema.record.fields] == [*Order.__struct_encode_fields__]
