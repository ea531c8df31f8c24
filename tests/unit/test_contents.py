"""What people are shown of values: decoded by their schemas, in a frame or not, with sensitive fields masked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from postline import App, Schemas, Topic
from postline.app import Environment
from postline.clock import SystemClock
from postline.contracts import Sensitive
from postline.contracts.masking import MASK
from postline.log.port import Append
from postline.log.sqlite import SqliteLog
from postline.message import Envelope
from postline.monitor import Contents, Monitor, RecordView
from postline.registry import LogRegistry
from postline.settings import LogUrl, Settings

CLOCK = SystemClock()


class Person(Struct):
    id: str
    email: Sensitive[str]


class Plain(Struct):
    id: str


@pytest.fixture
async def log() -> AsyncIterator[SqliteLog]:
    made = SqliteLog(None, clock=CLOCK)
    yield made
    await made.close()


async def shown(log: SqliteLog, topic: Topic, *messages: Any, **options: Any) -> list[RecordView]:
    """What a monitor shows of these after they were published."""
    app = App("shop", owns=[topic])
    await app.start(Environment(log, Settings(url=LogUrl("sqlite")), CLOCK), consume=False)
    await app.publish_many(messages)
    await app.stop()
    return await views(log, topic.name, **options)


async def views(log: SqliteLog, topic: str, *, reveal: bool = False) -> list[RecordView]:
    registry = LogRegistry(log, "postline.schemas", lambda: "none")
    monitor = Monitor(log, CLOCK, Contents(registry, reveal=reveal))
    return await monitor.read(topic, dict.fromkeys(range(len(await log.bounds(topic))), 0))


def people(**options: Any) -> Topic:
    topic = Topic("shop.people", owner="shop", key="id", partitions=1, schemas=Schemas(**options))
    topic.event("shop.Person")(Person)
    topic.event("shop.Plain")(Plain)
    return topic


def contents(found: list[RecordView]) -> list[Any]:
    return [
        msgspec.json.decode(view.data) if isinstance(view.data, msgspec.Raw) else view.data_base64 for view in found
    ]


@pytest.mark.parametrize("framed", [False, True], ids=["beside", "framed"])
@pytest.mark.parametrize("format_name", ["json", "avro", "protobuf"])
async def test_values_of_every_format_are_shown_as_json_and_masked(
    log: SqliteLog, format_name: Any, framed: bool
) -> None:
    topic = people(format=format_name, framed=framed)
    found = await shown(log, topic, Person("1", "a@b"), Plain("2"))
    assert contents(found) == [{"id": "1", "email": MASK}, {"id": "2"}]
    assert contents(await views(log, topic.name, reveal=True))[0] == {"id": "1", "email": "a@b"}


async def test_records_without_a_schema_are_masked_by_the_newest_of_their_type(log: SqliteLog) -> None:
    await shown(log, people(), Plain("0"))
    envelope = Envelope(id="f", source="legacy", type="shop.Person", content_type="application/json")
    for value in (b'{"id":"1","email":"a@b"}', b'{"id":"1","email":', None):
        await log.append([Append("shop.people", 0, b"1", value, envelope)])
    assert contents(await views(log, "shop.people"))[1:] == [{"id": "1", "email": MASK}, MASK, msgspec.UNSET]


async def test_what_nobody_registered_is_shown_as_it_is(log: SqliteLog) -> None:
    await shown(log, people(), Plain("0"))
    json, other = "application/json", "application/octet-stream"
    for value, kind in ((b'{"x":1}', json), (b"{", json), (b'{"x":1}', other), (b"\xff", "")):
        await log.append([Append("shop.people", 0, b"1", value, Envelope(id="f", type="x.Y", content_type=kind))])
    assert contents(await views(log, "shop.people"))[1:] == [{"x": 1}, "ew==", "eyJ4IjoxfQ==", "/w=="]


@pytest.mark.parametrize("name", ["json", "avro", "protobuf"])
async def test_older_records_are_masked_once_their_field_is_marked(log: SqliteLog, name: Any) -> None:
    unmarked = msgspec.defstruct("Person", [("id", str), ("email", str)])
    topic = Topic("shop.people", owner="shop", key="id", partitions=1, schemas=Schemas(format=name))
    topic.event("shop.Person")(unmarked)
    (before,) = await shown(log, topic, unmarked("1", "a@b"))
    assert b"a@b" in bytes(before.data)  # type: ignore[arg-type]
    old, new = await shown(log, people(format=name), Person("2", "c@d"))
    for each in (old, new):
        assert msgspec.json.decode(each.data)["email"] == MASK  # type: ignore[arg-type]
