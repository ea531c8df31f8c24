"""JSON Schemas of several files become one document; what is elsewhere stays a reference."""

from __future__ import annotations

from typing import Any

import pytest

from postline.contracts.jsonschema import parse
from postline.contracts.jsonschema_bundling import bundle
from postline.contracts.schema import TEXT, ListOf, Record, Reference
from postline.errors import ContractError

FILES: dict[str, Any] = {
    "common/user.schema.json": {
        "title": "User",
        "properties": {"name": {"$ref": "name.json"}, "friends": {"items": {"$ref": "#"}}},
    },
    "common/name.json": {"$ref": "#/$defs/inner", "$defs": {"inner": {"type": "string"}}},
    "other/user.json": {"$ref": "../common/name.json#/$defs/inner"},
}


def refers(reference: str) -> dict[str, Any]:
    return {"properties": {"value": {"$ref": reference}}}


def test_files_that_refer_to_each_other_and_to_themselves_become_one() -> None:
    schema = parse(bundle(refers("common/user.schema.json"), FILES.get))
    user = schema.definitions["User"]
    assert isinstance(user, Record)
    assert {field.name: field.type for field in user.fields} == {
        "name": TEXT,
        "friends": ListOf(items=Reference(name="User")),
    }


@pytest.mark.parametrize(
    "reference",
    ["common/name.json", "common/name.json#/$defs/inner", "./other/user.json", "other/../common/name.json#"],
)
def test_references_may_have_pointers_and_dots(reference: str) -> None:
    schema = parse(bundle(refers(reference), FILES.get))
    assert schema.record is not None
    assert schema.record.fields[0].type == TEXT


def test_files_of_one_name_are_kept_apart() -> None:
    properties = {"a": {"$ref": "common/user.schema.json"}, "b": {"$ref": "other/user.json"}}
    schema = parse(bundle({"properties": properties, "$defs": {"user": {"type": "integer"}}}, FILES.get))
    assert schema.record is not None
    assert [field.type for field in schema.record.fields] == [Reference(name="User"), TEXT]


def test_a_file_may_refer_to_the_one_that_refers_to_it() -> None:
    root = {"title": "Root", **refers("b.json")}
    schema = parse(bundle(root, {"b.json": {"$ref": "a.json"}}.get, path="a.json"))
    assert schema.record is not None
    assert schema.record.fields[0].type == Reference(name="Root")


@pytest.mark.parametrize("reference", ["https://example.com/a.json", "urn:a:b", "/etc/a.json", "missing.json"])
def test_what_is_elsewhere_is_not_looked_for(reference: str) -> None:
    asked: list[str] = []

    def read(path: str) -> None:
        asked.append(path)

    made = bundle(refers(reference), read)
    assert made == refers(reference)
    assert asked == [each for each in ["missing.json"] if each == reference]
    with pytest.raises(ContractError, match="refers to another document"):
        parse(made)


def test_endless_files_are_refused() -> None:
    with pytest.raises(ContractError, match="more than 1,000 documents"):
        bundle(refers("a.json"), lambda path: refers(f"a{path}"))


@pytest.mark.parametrize("document", [7, [], None, {"$defs": 7}])
def test_what_is_no_schema_is_left_to_the_parser(document: Any) -> None:
    assert bundle(document, FILES.get) == document
