"""JSON Schemas of others become the type model; what says no type is refused with a JSON pointer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postline.contracts.jsonschema import document, parse
from postline.contracts.jsonschema_parsing import read_foreign
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
    assert schema == Schema(
        root=Reference(name="Node"),
        definitions={
            "Node": Record(name="Node", fields=(Field(name="next", type=Reference(name="Node"), required=False),))
        },
    )


@pytest.mark.parametrize(
    ("reference", "definition"),
    [
        ("#/$defs/a", {}),
        ("#here", {"$anchor": "here"}),
        ("#here", {"$id": "#here"}),
        ("https://example.com/a", {"$id": "https://example.com/a#"}),
        ("https://example.com/a#", {"id": "https://example.com/a"}),
        ("#/%24defs/a", {}),
    ],
)
def test_references_name_parts_by_pointer_anchor_or_id(reference: str, definition: dict[str, Any]) -> None:
    part, _ = one({"$ref": reference}, **{"$defs": {"a": {"type": "integer", **definition}}})
    assert part == INTEGER


def test_a_record_may_contain_itself_through_all_of_and_null() -> None:
    node: Any = {
        "allOf": [{"properties": {"id": {"type": "string"}}}, {"properties": {"next": {"$ref": "#/$defs/node"}}}]
    }
    _, schema = one({"$ref": "#/$defs/node"}, **{"$defs": {"node": node}})
    found = schema.definitions["Node"]
    assert isinstance(found, Record)
    assert {field.name: field.type for field in found.fields} == {"next": Reference(name="Node"), "id": TEXT}
    node = {"type": ["object", "null"], "properties": {"next": {"$ref": "#/$defs/node"}}}
    part, schema = one({"$ref": "#/$defs/node"}, **{"$defs": {"node": node}})
    assert part == UnionOf(options=(Reference(name="Node"), NULL))
    found = schema.definitions["Node"]
    assert isinstance(found, Record)
    assert found.fields[0].type == part


def test_a_list_that_contains_itself_is_read_as_anything_there() -> None:
    anything = {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"$ref": "#/$defs/anything"}}]}
    document = {"properties": {"value": {"$ref": "#/$defs/anything"}}, "$defs": {"anything": anything}}
    schema, notes = read_foreign(document)
    assert schema.record is not None
    assert schema.record.fields[0].type == UnionOf(options=(INTEGER, ListOf(items=ANY)))
    assert notes == ("#/$defs/anything/anyOf/1/items: a list or map that contains itself is read as anything there",)


CARD = {"type": "object", "properties": {"kind": {"const": "card"}, "number": {"type": "string"}}}
CASH = {"type": "object", "properties": {"kind": {"enum": ["cash"]}, "sum": {"type": "integer"}}, "required": ["kind"]}


@pytest.mark.parametrize("word", ["oneOf", "anyOf"])
def test_objects_with_constants_of_their_own_are_told_apart_by_them(word: str) -> None:
    part, schema = one({word: [CARD, {"$ref": "#/$defs/cash"}, {"type": "null"}]}, **{"$defs": {"cash": CASH}})
    assert part == UnionOf(options=(Reference(name="Card"), Reference(name="Cash"), NULL))
    assert schema.definitions["Card"] == Record(
        name="Card", tag_field="kind", tag="card", fields=(Field(name="number", type=TEXT, required=False),)
    )
    assert schema.definitions["Cash"] == Record(
        name="Cash", tag_field="kind", tag="cash", fields=(Field(name="sum", type=INTEGER, required=False),)
    )


def test_a_discriminator_names_the_property_that_tells_alternatives_apart() -> None:
    both = {"version": {"const": 1}, "kind": {"const": "a"}}, {"version": {"const": 2}, "kind": {"const": "b"}}
    alternatives = [{"type": "object", "properties": each} for each in both]
    part, schema = one({"oneOf": alternatives, "discriminator": {"propertyName": "kind"}})
    assert isinstance(part, UnionOf)
    tags = [schema.resolve(each) for each in part.options]
    assert [(each.tag_field, each.tag) for each in tags if isinstance(each, Record)] == [("kind", "a"), ("kind", "b")]


def test_objects_without_constants_of_their_own_have_no_tags() -> None:
    part, schema = one({"oneOf": [CARD, {"type": "object", "properties": {"kind": {"type": "string"}}}]})
    assert isinstance(part, UnionOf)
    assert [getattr(schema.resolve(each), "tag_field", None) for each in part.options] == ["", ""]


def test_a_type_said_once_holds_for_all_alternatives() -> None:
    part, _ = one({"type": "integer", "oneOf": [{"minimum": 3}, {"maximum": 1}]})
    limits = Limits(ge=3), Limits(le=1)
    assert part == UnionOf(options=tuple(Scalar(kind="integer", limits=each) for each in limits))


def test_a_default_of_another_type_is_left_out() -> None:
    properties = {"a": {"type": "integer", "default": ""}, "b": {"type": "integer", "default": 1}}
    schema, notes = read_foreign({"properties": properties})
    assert schema.record is not None
    assert [field.default for field in schema.record.fields] == [msgspec.UNSET, 1]
    assert notes == ("Value.a: its default '' is not of its type",)


def test_what_is_left_out_is_noted_with_its_place() -> None:
    part = {"properties": {"a": {"not": {"type": "string"}}}, "if": {}, "oneOf": [{}], "patternProperties": {"b": {}}}
    _, notes = read_foreign({"properties": {"a/b": part}})
    assert set(notes) == {
        "#/properties/a~1b: if is not checked",
        "#/properties/a~1b: oneOf beside properties is not read",
        "#/properties/a~1b: types of further properties are not read",
        "#/properties/a~1b/properties/a: not is not checked",
    }


def test_equal_enumerations_of_one_name_are_one() -> None:
    status = {"enum": ["a", "b"]}
    inner = {"type": "object", "properties": {"status": status}}
    schema = parse(
        {"title": "Root", "properties": {"status": status, "inner": inner, "other": {"title": "Status", **CARD}}}
    )
    assert sorted(schema.definitions) == ["Inner", "Kind", "Root", "Status", "Status2"]


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
        ({"allOf": [{"$ref": "#/$defs/loop"}]}, "refers to itself and never says a type"),
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


def nested(wrap: Callable[[Any], Any]) -> Any:
    part: Any = {"type": "string"}
    for _ in range(150):
        part = wrap(part)
    return {"properties": {"value": part}}


def doubled(wrap: Callable[[Any], Any]) -> Any:
    """Forty definitions, each of which names the next one twice."""
    definitions = {f"d{n}": wrap({"$ref": f"#/$defs/d{n + 1}"}) for n in range(40)}
    return {"properties": {"value": {"$ref": "#/$defs/d0"}}, "$defs": {**definitions, "d40": {"type": "string"}}}


@pytest.mark.parametrize(
    "document",
    [
        nested(lambda part: {"type": "array", "items": part}),
        nested(lambda part: {"properties": {"a": part}}),
        nested(lambda part: {"anyOf": [part, {"type": "null"}]}),
        nested(lambda part: {"allOf": [part, {"minLength": 1}]}),
        nested(lambda part: {"additionalProperties": part}),
        doubled(lambda part: {"prefixItems": [part, part], "minItems": 2, "maxItems": 2}),
        doubled(lambda part: {"oneOf": [part, {"type": "array", "items": part}]}),
        doubled(lambda part: {"oneOf": [{"properties": {"k": {"const": n}, "v": part}} for n in (1, 2)]}),
    ],
    ids=["lists", "objects", "alternatives", "joined", "maps", "tuples", "alternatives twice", "tagged twice"],
)
def test_a_bomb_of_types_is_refused(document: Any) -> None:
    with pytest.raises(ContractError, match=r"nests types deeper than 100|stands for more than 200,000 types"):
        parse(document)


_WORDS = (
    "$ref", "type", "properties", "items", "required", "enum", "const", "oneOf", "allOf", "default", "title", "minimum"
)  # fmt: skip
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["#", "#/properties/a", "#a", "object", "array", "x/y"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*_WORDS, "a", "$id"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(_JSON)
def test_whatever_is_no_schema_is_refused_and_nothing_else_happens(document: Any) -> None:
    with contextlib.suppress(ContractError):
        schema = parse(document)
        assert Schema.decode(schema.encode()) == schema
        assert all(isinstance(field.name, str) for _, field in schema.paths())


def test_a_document_of_ours_without_its_model_is_read_like_anybodys() -> None:
    made = document(schema_of(Order))
    del made["x-postline"]
    schema = parse(msgspec.json.decode(msgspec.json.encode(made)))
    assert schema.record is not None
    assert [field.name for field in schema.record.fields] == [*Order.__struct_encode_fields__]
