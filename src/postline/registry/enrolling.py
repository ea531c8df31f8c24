"""Registering contracts before their app publishes: checked against what is there, refused if one breaks somebody."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from postline.contracts import Reading
from postline.contracts.checking import findings, read_by_upcast
from postline.contracts.compatibility import Finding, Level, other_formats, report
from postline.contracts.formats import format_of_type
from postline.contracts.schema import Schema
from postline.contracts.topics import Evolution
from postline.registry.model import Document, IncompatibleSchema, Registry, Version

__all__ = ["Standing", "enroll", "standing_of", "subject_of", "topic_and_type"]


def subject_of(topic: str, type_name: str) -> str:
    """The subject of a message type, by the topic's full name (Confluent's TopicRecordNameStrategy)."""
    return f"{topic}-{type_name}"


def topic_and_type(subject: str, topics: Iterable[str]) -> tuple[str, str] | None:
    """Whose subject it is, by the full names of the topics that there are; None for one of no topic."""
    # Both names may have dashes: of the topics that fit, the longest is meant.
    topic = max((name for name in topics if subject.startswith(f"{name}-")), key=len, default=None)
    return None if topic is None else (topic, subject.removeprefix(f"{topic}-"))


class Standing(NamedTuple):
    """Where a type's present version stands beside those that are registered."""

    document: Document
    #: Under the type's own name.
    there: list[Version]
    #: What the versions before it say, by number; those of former names have 0 and numbers below. What another
    #: program registered and we can't read is left out, and judged by nobody.
    meanings: dict[int, Schema]
    #: Its id, if it is one of those that are there.
    id: int | None
    #: What it breaks of them by the topic's rule; nothing if it is one of them.
    findings: list[Finding]


async def standing_of(registry: Registry, topic: str, reading: Reading, evolution: Evolution) -> Standing:
    """Judge a type's present version as its app's start does; registers nothing. Raises LogUnavailable."""
    document = Document(reading.format.schema_type, reading.format.document(reading.schema))
    there = await registry.versions(subject_of(topic, reading.name))
    former = await _under_former_names(registry, topic, reading)
    known = await registry.schemas([each.id for each in there] + [each.id for _, each in former])
    numbered = dict(enumerate(former, 1 - len(former)))
    meanings = {number: known[each.id] for number, (_, each) in numbered.items() if each.id in known}
    meanings |= {each.number: known[each.id] for each in there if each.id in known}
    for each in there:
        # Also if another version of ours, or another program, has written it down in other words.
        if each.document == document or (
            each.document.schema_type == document.schema_type and meanings.get(each.number) == reading.schema
        ):
            return Standing(document, there, meanings, each.id, [])
    formats = {number: _format(each) for number, (_, each) in numbered.items()} | {
        each.number: _format(each) for each in there
    }
    alike = {number: each for number, each in meanings.items() if formats[number] == reading.format.name}
    broken = other_formats(reading.format.name, formats, Level(evolution)) + findings(reading, alike, evolution)
    found = [_named(each, numbered) for each in broken]
    return Standing(document, there, meanings, None, found)


def _format(version: Version) -> str:
    return format_of_type(version.document.schema_type).name


def _named(finding: Finding, former: Mapping[int, tuple[str, Version]]) -> Finding:
    """The finding, with the name and number that a version had under a former name."""
    if (found := former.get(finding.version)) is None:
        return finding
    name, version = found
    said = finding.broken.replace(f"version {finding.version}", f"version {version.number} of {name}")
    return msgspec.structs.replace(finding, broken=said)


async def enroll(registry: Registry, topic: str, reading: Reading, evolution: Evolution) -> int:
    """The id of a type's present version, registered if it is new. Raises IncompatibleSchema; LogUnavailable."""
    subject = subject_of(topic, reading.name)
    document, there, meanings, known, found = await standing_of(registry, topic, reading, evolution)
    if known is not None:
        return known
    if found:
        raise IncompatibleSchema(report(found, subject), found)
    if await registry.level(subject) is not (level := Level(evolution)):
        await registry.set_level(subject, level)
    alike = [each for each in there if _format(each) == reading.format.name and each.number in meanings]
    agreed = frozenset(each.id for each in alike if read_by_upcast(reading, meanings[each.number]))
    return await registry.register(subject, document, agreed=agreed)


async def _under_former_names(registry: Registry, topic: str, reading: Reading) -> list[tuple[str, Version]]:
    """All versions that the type had under other names, by name, in the order of their registration."""
    found = [
        (alias, version) for alias in reading.aliases for version in await registry.versions(subject_of(topic, alias))
    ]
    return sorted(found, key=lambda each: each[1].id)
