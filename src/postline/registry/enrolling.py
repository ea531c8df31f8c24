"""Registering contracts before their app publishes: checked against what is there, refused if one breaks somebody."""

from __future__ import annotations

from postline.contracts import Reading
from postline.contracts.checking import findings, read_by_upcast
from postline.contracts.compatibility import Level
from postline.contracts.topics import Evolution
from postline.registry.model import Document, IncompatibleSchema, Registry, Version
from postline.registry.referencing import readable

__all__ = ["enroll", "subject_of"]


def subject_of(topic: str, type_name: str) -> str:
    """The subject of a message type, by the topic's full name (Confluent's TopicRecordNameStrategy)."""
    return f"{topic}-{type_name}"


async def enroll(registry: Registry, topic: str, reading: Reading, evolution: Evolution) -> int:
    """The id of a type's present version, registered if it is new. Raises IncompatibleSchema; LogUnavailable."""
    subject = subject_of(topic, reading.name)
    document = Document(reading.format.schema_type, reading.format.document(reading.schema))
    there = await registry.versions(subject)
    before = there or await _under_former_names(registry, topic, reading)
    # What another program registered here and we can't read is judged by nobody.
    meanings = {each.number: meaning for each in before if (meaning := readable(each.document, {})) is not None}
    for each in there:
        # Also if another version of ours, or another program, has written it down in other words.
        if each.document == document or (
            each.document.schema_type == document.schema_type and meanings.get(each.number) == reading.schema
        ):
            return each.id
    if found := findings(reading, meanings, evolution):
        raise IncompatibleSchema(subject, found)
    if await registry.level(subject) is not (level := Level(evolution)):
        await registry.set_level(subject, level)
    agreed = frozenset(
        each.id for each in there if each.number in meanings and read_by_upcast(reading, meanings[each.number])
    )
    return await registry.register(subject, document, agreed=agreed)


async def _under_former_names(registry: Registry, topic: str, reading: Reading) -> list[Version]:
    for alias in reading.aliases:
        if found := await registry.versions(subject_of(topic, alias)):
            return found
    return []
