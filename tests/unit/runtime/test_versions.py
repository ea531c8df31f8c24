"""Decoders by handler and schema id: looked up once for a batch, whatever types and ids it mixes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest
from msgspec import Struct

from postline.contracts import Reading, was
from postline.contracts.frame import framed, number_of_guid
from postline.contracts.reflection import schema_of
from postline.contracts.schema import Schema
from postline.errors import DecodeError, LogUnavailable
from postline.log.port import SCHEMA_ID_SHIFT, Record
from postline.runtime.handlers import Handler
from postline.runtime.versions import Versions


class Old(Struct):
    amount: int


class New(Struct):
    total: Annotated[int, was("amount")]


class Other(Struct):
    amount: str


def handler(name: str, cls: type) -> Handler:
    return Handler(name, print, Reading(cls, name), is_async=False, wants_context=False)


class Source:
    """Knows these schemas, and counts how often it is asked."""

    def __init__(self, **known: Schema) -> None:
        self.asked: list[set[int]] = []
        self._known = {int(name.removeprefix("id")): schema for name, schema in known.items()}
        self.away = False

    def register(self, number: int, schema: Schema) -> None:
        self._known[number] = schema

    async def schemas(self, ids: Collection[int]) -> Mapping[int, Schema]:
        if self.away:
            raise LogUnavailable("The registry is away.", remedy="Wait.")
        self.asked.append(set(ids))
        return {number: self._known[number] for number in ids if number in self._known}


def record(name: str, value: bytes | None, schema_id: int = 0) -> Record:
    return (0, 0, b"k", name, value, schema_id << SCHEMA_ID_SHIFT, None)


def decoded(handlers: Mapping[str, Handler], each: Record) -> Any:
    """As the worker pool decodes."""
    return handlers[each[3]].decoders[each[5] >> SCHEMA_ID_SHIFT](each[4] or b"")


OLD, VALUE = schema_of(Old), msgspec.json.encode(Old(7))


async def test_a_schema_is_asked_for_once_and_read_by_every_handler_that_meets_it() -> None:
    handlers = {"a": handler("a", New), "b": handler("b", Old)}
    source = Source(id5=OLD)
    versions = Versions(handlers, source)
    await versions.learn([record("a", VALUE, 5)] * 3)
    assert decoded(handlers, record("a", VALUE, 5)) == New(7)
    # Another type under the same id, in a later batch: nothing is left to be learned, and all the same it is read.
    await versions.learn([record("b", VALUE, 5)])
    assert decoded(handlers, record("b", VALUE, 5)) == Old(7)
    assert source.asked == [{5}]


async def test_what_cannot_be_read_is_refused_when_its_turn_comes_not_before() -> None:
    handlers = {"a": handler("a", New), "c": handler("c", Other)}
    versions = Versions(handlers, Source(id5=OLD))
    await versions.learn([record("a", VALUE, 5), record("c", VALUE, 5), record("a", VALUE, 6)])
    assert decoded(handlers, record("a", VALUE, 5)) == New(7)
    with pytest.raises(DecodeError, match=r"Schema id 5: .*amount"):
        decoded(handlers, record("c", VALUE, 5))
    with pytest.raises(DecodeError, match="Schema id 6 is not in the registry"):
        decoded(handlers, record("a", VALUE, 6))


async def test_a_schema_that_is_registered_later_is_found_when_the_record_is_redriven() -> None:
    handlers, source = {"a": handler("a", New)}, Source()
    versions = Versions(handlers, source)
    for each in (record("a", VALUE, 5), record("a", framed(5, VALUE))):
        await versions.learn([each])
        with pytest.raises(DecodeError, match="Schema id 5 is not in the registry"):
            decoded(handlers, each)
    source.register(5, OLD)
    for each in (record("a", VALUE, 5), record("a", framed(5, VALUE))):
        await versions.learn([each])
        assert decoded(handlers, each) == New(7)


async def test_a_frame_in_a_later_batch_is_noticed() -> None:
    handlers = {"a": handler("a", New)}
    versions = Versions(handlers, Source(id5=OLD))
    plain = record("a", msgspec.json.encode(New(1)))
    await versions.learn([plain])
    await versions.learn([plain, record("a", framed(5, VALUE)), record("a", None)])
    assert decoded(handlers, record("a", framed(5, VALUE))) == New(7)
    assert decoded(handlers, plain) == New(1)


async def test_a_registry_that_is_away_holds_back_only_what_is_unknown() -> None:
    handlers, source = {"a": handler("a", New)}, Source(id5=OLD)
    versions = Versions(handlers, source)
    await versions.learn([record("a", VALUE, 5)])
    source.away = True
    await versions.learn([record("a", VALUE, 5), record("a", VALUE), record("nobody's", VALUE)])
    with pytest.raises(LogUnavailable):
        await versions.learn([record("a", VALUE, 6)])
    await versions.learn([])


async def test_a_schema_that_is_named_by_its_guid_is_read_and_refused_like_one_that_is_named_by_an_id() -> None:
    handlers, source = {"a": handler("a", New)}, Source(id5=OLD)
    versions, guid = Versions(handlers, source), UUID("6f1e5a1e-54f2-4c8b-9d1a-0a5a7f0c9b11")
    number = number_of_guid(guid)
    source.away = True
    with pytest.raises(LogUnavailable):
        await versions.learn([record("a", VALUE, number)])
    source.away = False
    await versions.learn([record("a", VALUE, number), record("a", VALUE, 5)])
    with pytest.raises(DecodeError, match=f"Schema GUID {guid} is not in the registry"):
        decoded(handlers, record("a", VALUE, number))
    source.register(number, OLD)
    for _ in range(2):
        await versions.learn([record("a", VALUE, number)])
        assert decoded(handlers, record("a", VALUE, number)) == New(7)
    assert source.asked == [{number, 5}, {number}]
