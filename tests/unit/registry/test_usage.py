"""What consumers read: a view for each version of a consumer, as long as it may be running."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import msgspec
import pytest

from postline.clock import VirtualClock
from postline.contracts.reading import Reading
from postline.log.sqlite import SqliteLog
from postline.registry import View, schemas_topic
from postline.registry.usage import Usage, view_of

_ids = itertools.count()
DAY_SECONDS = 24 * 3_600


class Old(msgspec.Struct):
    id: str
    a: int


class New(msgspec.Struct):
    id: str


class Running(msgspec.Struct):
    """A log with a clock of its own."""

    log: SqliteLog
    clock: VirtualClock

    @property
    def usage(self) -> Usage:
        """As each process has one."""
        return Usage(self.log, "s", lambda: f"id-{next(_ids)}", self.clock.now_ms)

    async def readers(self) -> list[type]:
        """Whose classes count."""
        kept = {Reading(each, "shop.Order").schema.fingerprint: each for each in (Old, New)}
        return [kept[each.reader.fingerprint] for each in await self.usage.views()]

    async def records(self) -> int:
        return len(await self.log.read("s", 0, 0))


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    clock = VirtualClock()
    log = SqliteLog(None, clock=clock)
    await log.start()
    await log.create_topic(schemas_topic("s"))
    yield Running(log, clock)
    await log.close()


def view(kind: type) -> View:
    reading = Reading(kind, "shop.Order")
    return view_of(reading, "shop.Order", topic="shop.orders", service="billing", subscription="billing")


async def test_two_versions_of_a_consumer_that_run_at_once_are_both_named(running: Running) -> None:
    await running.usage.note("billing", [view(Old)])
    await running.usage.note("billing", [view(New)])
    assert await running.readers() == [Old, New]
    running.clock.jump_wall(DAY_SECONDS - 1)
    assert await running.readers() == [Old, New]
    running.clock.jump_wall(2)
    assert await running.readers() == [New]


async def test_two_versions_that_differ_in_what_they_keep_for_upcasts_are_both_named(running: Running) -> None:
    first, second = view(New), msgspec.structs.replace(view(New), upcasts=(view(Old).reader,))
    await running.usage.note("billing", [first])
    await running.usage.note("billing", [second])
    assert await running.usage.views() == [first, second]


async def test_the_version_that_started_last_counts_on(running: Running) -> None:
    for kind in (Old, New, Old):
        await running.usage.note("billing", [view(kind)])
    assert await running.readers() == [New, Old]
    running.clock.jump_wall(DAY_SECONDS + 1)
    assert await running.readers() == [Old]
    before = await running.records()
    await running.usage.note("billing", [view(Old)])  # which lets go of what is over
    assert await running.records() == before + 1
    await running.usage.note("billing", [view(Old)])
    assert await running.records() == before + 1


async def test_a_type_that_is_not_read_any_more_counts_for_a_day(running: Running) -> None:
    await running.usage.note("billing", [view(Old)])
    await running.usage.note("billing", [])
    assert await running.readers() == [Old]
    running.clock.jump_wall(DAY_SECONDS + 1)
    assert await running.readers() == []
    await running.usage.note("billing", [view(Old)])
    assert await running.readers() == [Old]
