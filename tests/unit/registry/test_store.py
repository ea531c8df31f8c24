"""The registry in the log: the same ids for everybody, versions in order, and no breaking version by haste."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from postline.clock import SystemClock
from postline.contracts import Schemas, Topic
from postline.contracts.compatibility import Level
from postline.contracts.formats import format_named
from postline.contracts.frame import number_of_guid
from postline.contracts.reading import Reading
from postline.contracts.reflection import schema_of
from postline.errors import LogUnavailable
from postline.log.port import Append
from postline.log.sqlite import SqliteLog
from postline.message import Envelope
from postline.registry import Document, IncompatibleSchema, LogRegistry, enroll, schemas_topic, standing_of
from postline.registry.model import Reference, guid_of

TOPIC = "postline.schemas"
_ids = itertools.count()

#: What other programs may have written into the registry's topic.
FOREIGN = (b"{", b"[]", b'{"kind":"new"}', None, b'{"kind":"schema","subject":"\xff"}', b'{"z":' + b"[" * 100_000)


def document(*fields: Any, format: Any = "json") -> Document:
    """The document of a record with these fields."""
    made = format_named(format)
    return Document(made.schema_type, made.document(schema_of(msgspec.defstruct("Order", [("id", str), *fields]))))


V1, V2, BREAKING = document(), document(("total", int, 0)), document(("currency", str))


@pytest.fixture
async def log() -> AsyncIterator[SqliteLog]:
    made = SqliteLog(None, clock=SystemClock())
    await made.start()
    await made.create_topic(schemas_topic(TOPIC))
    yield made
    await made.close()


def registry_on(log: Any) -> LogRegistry:
    return LogRegistry(log, TOPIC, lambda: f"id-{next(_ids)}")


async def test_two_that_read_the_same_log_come_to_the_same_ids_and_versions(log: SqliteLog) -> None:
    one, other = registry_on(log), registry_on(log)
    first = await one.register("orders", V1)
    second = await other.register("orders", V2)
    assert first != second
    assert [(each.number, each.id) for each in await one.versions("orders")] == [(1, first), (2, second)]
    assert await one.versions("orders") == await other.versions("orders")
    assert await one.subjects() == ["orders"]
    assert set(await registry_on(log).schemas([first, second, 999])) == {first, second}


async def test_a_document_that_is_there_is_registered_once_and_has_one_id_under_all_subjects(log: SqliteLog) -> None:
    registry = registry_on(log)
    first = await registry.register("orders", V1)
    assert await registry.register("orders", V1) == first
    assert await registry.register("returns", V1) == first
    assert len(await registry.versions("orders")) == 1


async def test_a_schema_is_found_by_its_guid_in_every_process_also_after_it_was_deleted(log: SqliteLog) -> None:
    one, other = registry_on(log), registry_on(log)
    by_guid, unknown = (number_of_guid(guid_of(each)) for each in (V1, V2))
    assert await other.schemas([by_guid]) == {}
    schema_id = await one.register("orders", V1)
    found = await other.schemas([schema_id, by_guid, unknown])
    assert found == {schema_id: found[schema_id], by_guid: found[schema_id]}
    await one.delete((await one.versions("orders"))[0])
    assert await registry_on(log).with_guid(guid_of(V1)) == (schema_id, V1)
    assert await other.with_guid(guid_of(V2)) is None


async def test_those_who_register_the_same_at_once_get_one_version(log: SqliteLog) -> None:
    found = await asyncio.gather(*(registry_on(log).register("orders", V1) for _ in range(5)))
    assert len(set(found)) == 1
    assert len(await registry_on(log).versions("orders")) == 1


async def test_what_breaks_the_rule_is_refused_and_not_kept(log: SqliteLog) -> None:
    registry = registry_on(log)
    await registry.register("orders", V1)
    with pytest.raises(IncompatibleSchema, match="currency") as told:
        await registry.register("orders", BREAKING)
    assert [each.version for each in told.value.findings] == [1]
    assert len(await registry.versions("orders")) == 1


async def test_of_two_that_fit_what_was_there_but_not_each_other_the_later_loses(log: SqliteLog) -> None:
    one, other = registry_on(log), registry_on(log)
    text, number = document(("n", str, "")), document(("n", int, 0))
    await one.register("orders", V1)
    await other.refresh()
    ended = await asyncio.gather(one.register("orders", text), other.register("orders", number), return_exceptions=True)
    assert sorted(type(each).__name__ for each in ended) == ["IncompatibleSchema", "int"]
    everybody = [await each.versions("orders") for each in (one, other, registry_on(log))]
    assert everybody[0] == everybody[1] == everybody[2]
    assert len(everybody[0]) == 2


async def test_an_agreed_break_is_let_pass(log: SqliteLog) -> None:
    registry = registry_on(log)
    first = await registry.register("orders", V1)
    await registry.set_level("orders", Level.BACKWARD_TRANSITIVE)
    second = await registry.register("orders", BREAKING, agreed=frozenset({first}))
    assert [each.id for each in await registry_on(log).versions("orders")] == [first, second]


async def test_a_subject_has_its_own_rule_or_the_registrys(log: SqliteLog) -> None:
    registry = registry_on(log)
    assert await registry.level("orders") is Level.FULL_TRANSITIVE
    await registry.set_level("", Level.BACKWARD)
    assert await registry.level("orders") is Level.BACKWARD
    await registry.set_level("orders", Level.NONE)
    assert await registry_on(log).level("orders") is Level.NONE
    await registry.register("orders", V1)
    assert await registry.register("orders", BREAKING)


async def test_documents_of_another_format_are_kept_apart(log: SqliteLog) -> None:
    registry = registry_on(log)
    first = await registry.register("orders", V1)
    second = await registry.register("proto", document(format="protobuf"))
    found = await registry.schemas([first, second])
    assert found[first].record is not None
    assert found[second].record is not None


@pytest.mark.parametrize(("level", "broken"), [("FULL", ["backward", "forward"]), ("FORWARD", ["forward"])])
async def test_another_format_breaks_who_reads_the_former_one(log: SqliteLog, level: str, broken: list[str]) -> None:
    registry = registry_on(log)
    await registry.set_level("orders", Level(level))
    await registry.register("orders", document(format="avro"))
    with pytest.raises(IncompatibleSchema, match="the message: the reader reads") as refused:
        await registry.register("orders", V1)
    assert [each.direction for each in refused.value.findings] == broken
    await registry.set_level("orders", Level.NONE)
    await registry.register("orders", V1)
    await registry.set_level("orders", Level.BACKWARD)
    await registry.register("orders", V2)  # only the last version counts, which is of the same format
    with pytest.raises(IncompatibleSchema):
        await registry.register("orders", document(("currency", str), format="avro"))


@pytest.mark.parametrize(("rule", "refused"), [("FULL_TRANSITIVE", True), ("BACKWARD", True), ("NONE", False)])
async def test_a_topics_format_stays_unless_there_is_no_rule(log: SqliteLog, rule: Any, refused: bool) -> None:
    def reading(format: Any) -> Any:
        topic = Topic("shop.o", owner="shop", key="k", schemas=Schemas(format=format, evolution=rule))
        topic.event("shop.O")(msgspec.defstruct("O", [("k", str)]))
        return topic.reading_of("shop.O")

    registry = registry_on(log)
    first = await enroll(registry, "shop.o", reading("json"), rule)
    if refused:
        with pytest.raises(IncompatibleSchema, match="the reader reads avro, the writer writes json"):
            await enroll(registry, "shop.o", reading("avro"), rule)
    else:
        assert await enroll(registry, "shop.o", reading("avro"), rule) > first


async def test_records_of_other_programs_in_its_topic_are_passed_over(log: SqliteLog) -> None:
    await log.append([Append(TOPIC, 0, b"x", value, Envelope(id="x")) for value in FOREIGN])
    registry = registry_on(log)
    assert await registry.register("orders", V1)


async def test_what_was_read_stays_known_when_the_log_is_away(log: SqliteLog) -> None:
    registry = registry_on(log)
    first = await registry.register("orders", V1)
    await log.close()
    assert set(await registry.schemas([first])) == {first}
    with pytest.raises(LogUnavailable):
        await registry.schemas([first + 100])


async def test_a_log_without_the_topic_knows_nothing() -> None:
    log = SqliteLog(None, clock=SystemClock())
    await log.start()
    try:
        assert await registry_on(log).versions("orders") == []
        assert await registry_on(log).schemas([1]) == {}
    finally:
        await log.close()


def foreign(name: str) -> Document:
    """A JSON Schema that refers to what is not known here."""
    content = {"type": "object", "properties": {name: {"$ref": "https://elsewhere/x.json"}}}
    return Document("JSON", msgspec.json.encode(content).decode())


async def test_documents_that_cannot_be_read_are_kept_in_versions_and_have_no_meaning(log: SqliteLog) -> None:
    registry = registry_on(log)
    ids = [await registry.register("orders", each) for each in (foreign("a"), V1, foreign("b"))]
    assert [each.id for each in await registry_on(log).versions("orders")] == ids
    assert set(await registry.schemas(ids)) == {ids[1]}
    assert await registry.document(ids[2]) == foreign("b")


async def test_those_who_register_what_cannot_be_read_at_once_all_do(log: SqliteLog) -> None:
    documents = [foreign(name) for name in "abcde"]
    found = await asyncio.gather(*(registry_on(log).register("orders", each) for each in documents))
    assert len(set(found)) == len(await registry_on(log).versions("orders")) == len(documents)


async def test_by_a_rule_that_is_not_transitive_only_the_newest_version_counts_read_or_not(log: SqliteLog) -> None:
    registry = registry_on(log)
    await registry.set_level("orders", Level.FULL)
    for each in (V1, foreign("a"), BREAKING):
        await registry.register("orders", each)
    assert len(await registry.versions("orders")) == 3


async def test_a_rule_of_a_newer_version_of_this_program_is_passed_over(log: SqliteLog) -> None:
    value = b'{"kind":"level","subject":"orders","level":"SIDEWAYS"}'
    await log.append([Append(TOPIC, 0, b"x", value, Envelope(id="x"))])
    assert await registry_on(log).level("orders") is Level.FULL_TRANSITIVE


class Compacted:
    """A log after compaction: of each key there is the newest record."""

    def __init__(self, log: SqliteLog) -> None:
        self._log = log

    async def read(self, topic: str, partition: int, offset: int) -> list[Any]:
        records = await self._log.read(topic, partition, 0)
        newest = {record[2]: record for record in records}
        return [record for record in records if newest[record[2]] is record and record[0] >= offset]


async def test_rules_and_deletions_that_followed_leave_ids_and_versions_after_compaction(log: SqliteLog) -> None:
    one, other = registry_on(log), registry_on(log)
    await one.set_level("orders", Level.NONE)
    await one.register("orders", V1)
    await other.refresh()
    await asyncio.gather(one.register("orders", V2), other.register("orders", BREAKING))
    await one.delete((await one.versions("orders"))[0])
    await one.register("orders", V1)
    await one.delete((await one.versions("orders", deleted=True))[0], permanent=True)
    await one.set_level("orders", Level.FULL_TRANSITIVE)
    there = await one.versions("orders")
    assert [each.number for each in there] == [2, 3, 4]
    assert await registry_on(Compacted(log)).versions("orders") == there


async def test_a_document_is_judged_with_those_that_it_refers_to(log: SqliteLog) -> None:
    registry = registry_on(log)
    await registry.register("line", Document("PROTOBUF", 'syntax = "proto3"; message Line { string sku = 1; }'))
    text = 'syntax = "proto3"; import "line.proto"; message Order { Line line = 1; }'
    references = (Reference("line.proto", "line", 1),)
    number = await registry.register("orders", Document("PROTOBUF", text, references))
    assert (await registry.schemas([number]))[number].definitions.keys() == {"Order", "Line"}
    with pytest.raises(IncompatibleSchema, match="line"):
        await registry.register("orders", Document("PROTOBUF", text.replace("Line line", "int32 line"), references))


async def test_an_app_registers_beside_what_another_program_left_unreadable(log: SqliteLog) -> None:
    registry = registry_on(log)
    await registry.set_level("shop.orders-shop.Order", Level.NONE)
    exotic = '{"type":"object","properties":{"x":{"$ref":"https://elsewhere/x.json"}}}'
    await registry.register("shop.orders-shop.Order", Document("JSON", exotic))
    order = msgspec.defstruct("Order", [("id", str)])
    number = await enroll(registry, "shop.orders", Reading(order, "shop.Order"), "FULL_TRANSITIVE")
    assert [each.id for each in await registry.versions("shop.orders-shop.Order")][1:] == [number]


async def test_where_a_version_stands_is_told_without_registering_it(log: SqliteLog) -> None:
    registry = registry_on(log)
    await registry.register("line", Document("JSON", '{"type":"object","properties":{"sku":{"type":"string"}}}'))
    text = (
        '{"title":"Order","type":"object","properties":{"id":{"type":"string"},"line":{"$ref":"line.json"}},'
        '"required":["id"]}'
    )
    await registry.register("shop.orders-shop.Order", Document("JSON", text, (Reference("line.json", "line", 1),)))
    order = msgspec.defstruct("Order", [("id", str), ("line", int)])
    before = len(await log.read(TOPIC, 0, 0))
    standing = await standing_of(registry, "shop.orders", Reading(order, "shop.Order"), "BACKWARD")
    # Also of a version that refers to others it is known what they say together.
    assert {why.path for each in standing.findings for why in each.breaks} == {"line"}
    assert (standing.id, [each.number for each in standing.there]) == (None, [1])
    assert len(await log.read(TOPIC, 0, 0)) == before


async def test_versions_under_all_former_names_are_judged_also_beside_own_ones(log: SqliteLog) -> None:
    registry = registry_on(log)
    first = msgspec.defstruct("A", [("k", str), ("a", int)])
    between = msgspec.defstruct("B", [("k", str)])
    await enroll(registry, "shop.o", Reading(first, "A"), "BACKWARD_TRANSITIVE")
    await enroll(registry, "shop.o", Reading(between, "B", aliases=["A"]), "BACKWARD_TRANSITIVE")
    other = msgspec.defstruct("B", [("k", str), ("a", str, "")])
    for name, aliases in (("B", ["A"]), ("C", ["B", "A"])):
        with pytest.raises(IncompatibleSchema, match="records of version 1 of A, which stay in the log:\n  a: "):
            await enroll(registry, "shop.o", Reading(other, name, aliases=aliases), "BACKWARD_TRANSITIVE")
    # By a rule for the last version alone, and by an upcast, it may be.
    await enroll(registry, "shop.o", Reading(other, "C", aliases=["B", "A"]), "BACKWARD")


async def test_avro_of_others_is_judged_by_avros_rules(log: SqliteLog) -> None:
    registry = registry_on(log)

    def document(kind: Any) -> Document:
        content = {"type": "record", "name": "A", "fields": [{"name": "a", "type": kind}]}
        return Document("AVRO", msgspec.json.encode(content).decode())

    await registry.set_level("a", Level.BACKWARD)
    await registry.register("a", document({"type": "int", "logicalType": "date"}))
    with pytest.raises(IncompatibleSchema, match="the reader wants string, the writer writes int"):
        await registry.register("a", document("string"))
    assert await registry.register("a", document("double"))
