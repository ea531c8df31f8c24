"""Real histories of contracts: every pair of versions judged, and records of each read as every other that can."""

from __future__ import annotations

import io
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastavro
import fastavro.utils
import msgspec
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.schema import make_avsc_object

from postline.contracts.avro import document as avro_document
from postline.contracts.avro import parse as parse_avro
from postline.contracts.avro_codec import decoder
from postline.contracts.compatibility import breaks
from postline.contracts.jsonschema import parse
from postline.contracts.schema import Schema
from postline.errors import ContractError

SharedData = Callable[[str], Path]


def avro_histories(folder: Path) -> Iterator[list[Any]]:
    """The documents of each type, in the order of their ids."""
    for directory in sorted({path.parent for path in folder.rglob("*.avsc")}):
        yield [msgspec.json.decode(path.read_bytes()) for path in sorted(directory.glob("*.avsc"))]


def test_verdicts_over_avro_histories_are_those_of_avros_own_checker(shared_data: SharedData) -> None:
    judged = 0
    for history in avro_histories(shared_data("schema_evo_wikimedia")):
        for reader, writer in itertools.product(history, repeat=2):
            found = breaks(parse_avro(reader), parse_avro(writer), whole=True)
            checker = ReaderWriterCompatibilityChecker()
            told = checker.get_compatibility(reader=make_avsc_object(reader), writer=make_avsc_object(writer))
            assert (found == []) is (told.compatibility is SchemaCompatibilityType.compatible), found
            judged += 1
    assert judged > 5


def known_of(expected: Any, found: Any) -> Any:
    """What is expected, without fields that the reader alone has: its class fills those."""
    if isinstance(found, dict) and isinstance(expected, dict):
        return {name: known_of(each, found[name]) for name, each in expected.items() if name in found}
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        return [known_of(each, other) for each, other in zip(expected, found, strict=True)]
    return expected


def test_records_of_every_avro_version_are_read_as_every_version_that_can(shared_data: SharedData) -> None:
    read = 0
    for history in avro_histories(shared_data("schema_evo_wikimedia")):
        for reader, writer in itertools.product(history, repeat=2):
            ours, theirs = parse_avro(reader), parse_avro(writer)
            if breaks(ours, theirs, whole=True):
                continue
            decode = decoder(Any, "value", ours, theirs)
            for value in fastavro.utils.generate_many(writer, 20):
                file = io.BytesIO()
                fastavro.schemaless_writer(file, fastavro.parse_schema(writer), value)
                file.seek(0)
                expected = fastavro.schemaless_reader(file, writer, reader)
                found = decode(file.getvalue())
                assert known_of(expected, found) == found
                read += 1
    assert read > 100


def test_documents_of_avro_histories_are_read_back(shared_data: SharedData) -> None:
    for history in avro_histories(shared_data("schema_evo_wikimedia")):
        for each in history:
            schema = parse_avro(each)
            assert parse_avro(msgspec.json.decode(msgspec.json.encode(avro_document(schema)))) == schema


def json_histories(*folders: Path) -> dict[Path, list[Schema]]:
    """The versions of each type that say types at all, in their order."""
    found: dict[Path, list[Schema]] = defaultdict(list)
    refused = []
    for path in sorted(path for folder in folders for path in folder.rglob("*") if path.is_file()):
        if path.suffix not in {".json", ""} and not path.name[0].isdigit():
            continue
        try:
            content = msgspec.json.decode(path.read_bytes())
        except msgspec.DecodeError:
            continue
        if isinstance(content, dict) and "properties" in content:
            try:
                found[path.parent].append(parse(content))
            except ContractError as error:
                refused.append(error.message)
    assert all("refers to another document" in each for each in refused)
    assert len(refused) < 3
    return found


def test_json_histories_are_read_and_every_pair_is_judged(shared_data: SharedData) -> None:
    folders = shared_data("schema_evo_iglu") / "schemas", shared_data("schema_evo_wikimedia") / "jsonschema"
    histories = json_histories(*folders)
    pairs = compatible = 0
    for versions in histories.values():
        for reader, writer in itertools.product(versions, repeat=2):
            found = breaks(reader, writer)
            assert reader != writer or found == []
            assert all(each.said and each.remedy for each in found)
            pairs, compatible = pairs + 1, compatible + (not found)
    assert sum(map(len, histories.values())) > 500
    assert 0 < compatible < pairs
