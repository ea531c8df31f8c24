"""Avro's own documents are judged as Avro's own checker judges them, and what its readers can't read is refused."""

from __future__ import annotations

import itertools
from typing import Any

import avro.schema
import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker

from postline.contracts.avro_rules import document_breaks

TYPES: dict[str, Any] = {
    **{each: each for each in ("string", "bytes", "int", "long", "float", "double", "null", "boolean")},
    "date": {"type": "int", "logicalType": "date"},
    "millis": {"type": "long", "logicalType": "timestamp-millis"},
    "micros": {"type": "long", "logicalType": "timestamp-micros"},
    "time": {"type": "int", "logicalType": "time-millis"},
    "uuid": {"type": "string", "logicalType": "uuid"},
    "decimal": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
    "enum": {"type": "enum", "name": "E", "symbols": ["x", "y"]},
    "more": {"type": "enum", "name": "E", "symbols": ["x", "y", "z"]},
    "forgiving": {"type": "enum", "name": "E", "symbols": ["x"], "default": "x"},
    "other enum": {"type": "enum", "name": "F", "symbols": ["x", "y"]},
    "fixed": {"type": "fixed", "name": "F", "size": 4},
    "other fixed": {"type": "fixed", "name": "G", "size": 4},
    "longer": {"type": "fixed", "name": "F", "size": 5},
    "optional": ["null", "string"],
    "union": ["int", "string"],
    "array": {"type": "array", "items": "int"},
    "map": {"type": "map", "values": "int"},
    "record": {"type": "record", "name": "B", "fields": [{"name": "b", "type": "int"}]},
    "other record": {"type": "record", "name": "C", "fields": [{"name": "b", "type": "int"}]},
    "with default": {"type": "record", "name": "B", "fields": [{"name": "c", "type": "int", "default": 1}]},
}


def of(kind: Any) -> dict[str, Any]:
    return {"type": "record", "name": "A", "namespace": "x", "fields": [{"name": "a", "type": kind}]}


@pytest.mark.parametrize("name", TYPES)
def test_verdicts_are_those_of_avros_own_checker(name: str) -> None:
    for other, kind in TYPES.items():
        reader, writer = of(TYPES[name]), of(kind)
        judged = ReaderWriterCompatibilityChecker().get_compatibility(
            avro.schema.make_avsc_object(reader), avro.schema.make_avsc_object(writer)
        )
        found = list(document_breaks(reader, writer))
        assert (not found) is (judged.compatibility.name == "compatible"), (name, other, found)
        assert all(each.path.startswith("a") and each.for_readers().remedy for each in found)


def test_a_record_in_itself_is_compared_once_around() -> None:
    def tree(kind: str) -> dict[str, Any]:
        fields = [{"name": "next", "type": ["null", "Tree"], "default": None}, {"name": "x", "type": kind}]
        return {"type": "record", "name": "Tree", "fields": fields}

    assert [each.path for each in document_breaks(tree("string"), tree("int"))] == ["x"]
    assert list(document_breaks(tree("long"), tree("int"))) == []


def test_aliases_stand_for_former_names() -> None:
    reader = {**of("int"), "name": "New", "aliases": ["A"]}
    reader["fields"] = [{"name": "b", "type": "int", "aliases": ["a"]}]
    assert list(document_breaks(reader, of("int"))) == []
    del reader["aliases"]
    assert [each.rule for each in document_breaks(reader, of("int"))] == ["name"]


def test_chains_of_records_in_each_other_twice_are_compared_in_no_time() -> None:
    def chain(kind: Any) -> Any:
        for number in range(40):
            again = kind if isinstance(kind, str) else kind["name"]
            fields = [{"name": "a", "type": kind}, {"name": "b", "type": again}]
            kind = {"type": "record", "name": f"R{number}", "fields": fields}
        return kind

    assert len(list(itertools.islice(document_breaks(chain("string"), chain("int")), 100))) == 41
