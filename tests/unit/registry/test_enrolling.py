"""What a type's present version is judged by: its own versions, and all that it had under former names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pytest
from msgspec import Struct

from postline.contracts import Schemas, Topic
from postline.contracts.compatibility import Level
from postline.contracts.reflection import schema_of
from postline.contracts.schema import Schema
from postline.registry import Document, IncompatibleSchema, Version, enroll


class WithNumber(Struct):
    k: str
    a: int


class Bare(Struct):
    k: str


class WithText(Struct):
    k: str
    a: str = ""


class Registered:
    """A registry that has these versions, by type, in the order of their registration."""

    def __init__(self, *versions: tuple[str, Any]) -> None:
        self._schemas = {number: schema_of(cls, name=name) for number, (name, cls) in enumerate(versions, 1)}
        self._names = {number: name for number, (name, _) in enumerate(versions, 1)}

    async def versions(self, subject: str) -> list[Version]:
        ids = [number for number, name in self._names.items() if subject == f"shop.o-{name}"]
        return [Version(subject, at, number, Document("JSON", "")) for at, number in enumerate(ids, 1)]

    async def schemas(self, ids: Collection[int]) -> Mapping[int, Schema]:
        return {each: self._schemas[each] for each in ids}

    async def level(self, subject: str) -> Level:
        return Level.BACKWARD_TRANSITIVE

    async def register(self, subject: str, document: Document, *, agreed: frozenset[int]) -> int:
        return 99


async def enrolled(registry: Any, cls: Any, *aliases: str) -> int:
    topic = Topic("shop.o", owner="shop", key="k", schemas=Schemas(evolution="BACKWARD_TRANSITIVE"))
    topic.event("C", aliases=aliases)(cls)
    return await enroll(registry, "shop.o", topic.reading_of("C"), "BACKWARD_TRANSITIVE")


@pytest.mark.parametrize(
    ("versions", "aliases"),
    [
        ([("A", WithNumber)], ["A"]),
        ([("A", WithNumber), ("C", Bare)], ["A"]),
        ([("A", WithNumber), ("B", Bare)], ["B", "A"]),
        ([("A", WithNumber), ("B", Bare), ("C", Bare)], ["B", "A"]),
    ],
)
async def test_versions_under_every_former_name_are_judged_always(versions: Any, aliases: list[str]) -> None:
    with pytest.raises(IncompatibleSchema, match=r"records of version 1 of A, which stay in the log:\n  a: the reader"):
        await enrolled(Registered(*versions), WithText, *aliases)


async def test_own_versions_keep_their_numbers() -> None:
    with pytest.raises(IncompatibleSchema, match="records of version 2, which stay in the log"):
        await enrolled(Registered(("A", Bare), ("C", Bare), ("C", WithNumber)), WithText, "A")


async def test_what_reads_all_of_them_is_registered() -> None:
    assert await enrolled(Registered(("A", WithNumber), ("C", WithNumber)), Bare, "A") == 99
