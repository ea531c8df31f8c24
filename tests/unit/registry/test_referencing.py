"""Documents that refer to others mean what one document with all of it in would mean."""

from __future__ import annotations

import json
from typing import Any

import pytest

from postline.errors import ContractError
from postline.registry import Document, meaning_of
from postline.registry.model import Reference
from postline.registry.referencing import meaning_with, readable


def document(kind: Any, content: Any, *names: str) -> Document:
    text = content if isinstance(content, str) else json.dumps(content)
    return Document(kind, text, tuple(Reference(name, name, 1) for name in names))


def record(name: str, *fields: tuple[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": name, "type": kind} for name, kind in fields], **more}


LINE = record("Line", ("sku", "string"), namespace="shop")


@pytest.mark.parametrize(
    ("uses", "one"),
    [
        ("Line", LINE),
        ("shop.Line", LINE),
        ({"type": "array", "items": "Line"}, {"type": "array", "items": LINE}),
        ({"type": "map", "values": "shop.Line"}, {"type": "map", "values": LINE}),
        (["null", "Line"], ["null", LINE]),
        ({"type": "Line"}, LINE),
    ],
)
def test_avro_takes_the_type_in_where_its_name_stands_first(uses: Any, one: Any) -> None:
    split = document("AVRO", record("Order", ("a", uses), ("b", "Line"), namespace="shop"), "shop.Line")
    whole = document("AVRO", record("Order", ("a", one), ("b", "Line"), namespace="shop"))
    assert meaning_with(split, {"shop.Line": document("AVRO", LINE)}) == meaning_of(whole)


def test_avro_types_keep_their_own_namespace_and_refer_further() -> None:
    sku = document("AVRO", {"type": "enum", "name": "Sku", "symbols": ["A"]})
    line = document("AVRO", record("Line", ("sku", "Sku")), "Sku")
    order = document("AVRO", record("Order", ("line", "Line"), namespace="shop"), "Line")
    assert meaning_with(order, {"Line": line, "Sku": sku}).definitions.keys() == {"shop.Order", "Line", "Sku"}


def test_avro_that_refers_to_itself_by_way_of_a_reference_is_read() -> None:
    tree = document("AVRO", record("Tree", ("leaves", {"type": "array", "items": "Tree"})))
    wood = document("AVRO", record("Wood", ("tree", "Tree")), "Tree")
    assert meaning_with(wood, {"Tree": tree}).definitions.keys() == {"Wood", "Tree"}


def test_protobuf_is_read_with_what_it_imports() -> None:
    line = document("PROTOBUF", 'syntax = "proto3"; message Line { string sku = 1; }')
    text = 'syntax = "proto3"; import "line.proto"; message Order { repeated Line lines = 1; }'
    assert meaning_with(document("PROTOBUF", text, "line.proto"), {"line.proto": line}).definitions.keys() == {
        "Order",
        "Line",
    }


def test_json_schemas_are_read_with_those_that_they_refer_to() -> None:
    line = {"type": "object", "properties": {"sku": {"$ref": "#/$defs/Sku"}}, "$defs": {"Sku": {"type": "string"}}}
    order = {"title": "Order", "type": "object", "properties": {"line": {"$ref": "line.json"}}}
    split = document("JSON", order, "line.json")
    whole = {"type": "object", "properties": {"sku": {"type": "string"}}}
    plain = {**order, "properties": {"line": whole}}
    made = meaning_with(split, {"line.json": document("JSON", line)})
    assert _fields_of(made, "line") == _fields_of(meaning_of(document("JSON", plain)), "line")


def _fields_of(schema: Any, name: str) -> list[tuple[str, str]]:
    """Names and kinds of the fields of the record that a field of the root holds."""
    field = next(each for each in schema.record.fields if each.name == name)
    return [(each.name, each.type.kind) for each in schema.definitions[field.type.name].fields]


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("JSON", {"allOf": 5}),
        ("JSON", {"properties": {"a": {"$ref": "https://elsewhere/x.json"}}, "type": "object"}),
        ("JSON", "{"),
        ("AVRO", {"type": "record"}),
        ("PROTOBUF", "message {"),
    ],
)
@pytest.mark.parametrize("names", [(), ("other",)])
def test_what_nobody_can_read_has_no_meaning_and_stops_nobody(kind: Any, content: Any, names: tuple[str, ...]) -> None:
    others = {name: document(kind, {"$defs": 5} if kind == "JSON" else "{") for name in names}
    assert readable(document(kind, content, *names), others) is None


def test_definitions_that_are_no_object_are_refused() -> None:
    with pytest.raises(ContractError, match="defs"):
        meaning_with(document("JSON", {"$defs": 5}, "other"), {"other": document("JSON", {})})


@pytest.mark.parametrize("kind", ["AVRO", "PROTOBUF"])
def test_what_is_not_there_can_not_be_read(kind: Any) -> None:
    texts = {
        "AVRO": record("Order", ("line", "Line")),
        "PROTOBUF": 'syntax = "proto3"; import "Line"; message Order { Line line = 1; }',
    }
    with pytest.raises(ContractError):
        meaning_with(document(kind, texts[kind], "Line"), {})
    assert readable(document(kind, texts[kind], "Line"), {}) is None
