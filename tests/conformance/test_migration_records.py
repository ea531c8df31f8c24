"""Records, gaps, ends and state lie in the target exactly as in the source, whatever upkeep has taken."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from postline.errors import TopicMismatch, UsageError
from postline.log.port import FLAG_OWN_ID, FLAG_STRUCTURED, SCHEMA_ID_SHIFT, Append, Log
from postline.message import Envelope
from postline.migration.digests import told
from tests.conformance.harness import (
    Engine,
    appended,
    fetch_all,
    fetched_values,
    joined,
    message,
    settled,
    topic,
    turns,
)
from tests.conformance.migrations import migration, movable, moved

#: Brokers take no record that is more than an hour ahead.
_KEPT_MS = 600_000


def strange() -> list[Append]:
    """Records of every shape that an engine takes."""
    plain = message(b"x", key=b"a")
    rich = Envelope(
        id="ä/1",
        source="shop",
        type="shop.OrderPlaced",
        time_ms=1_700_000_000_123,
        content_type="application/cbor",
        correlation_id="0" * 32,
        causation_id="c-1",
        headers={"traceparent": "00-1", "zoll": "€", "a": ""},
    )
    replace = msgspec.structs.replace
    return [
        plain,
        replace(plain, key=None),
        replace(plain, value=None),
        replace(plain, value=b"", key=b"\0\xff"),
        replace(plain, envelope=rich, flags=FLAG_OWN_ID | 77 << SCHEMA_ID_SHIFT),
        replace(plain, envelope=rich, flags=FLAG_STRUCTURED),
        replace(plain, envelope=Envelope(content_type="")),
    ]


async def contents(log: Log, name: str) -> list[tuple[object, ...]]:
    """What a topic says: its bounds, and its records with their places and times."""
    found: list[tuple[object, ...]] = []
    for partition, bounds in enumerate(await log.bounds(name)):
        offset = bounds.start
        found.append((partition, bounds.end))
        while page := await log.read(name, partition, offset):
            found += [(partition, *told(record, log.envelope)) for record in page]
            offset = page[-1][0] + 1
    return found


async def test_records_of_every_shape_keep_offsets_times_keys_and_headers(engine: Engine, target: Engine) -> None:
    log = await engine.open()
    movable(log)
    await log.create_topic(topic(partitions=3))
    await log.append(strange())
    for each in strange():
        await log.append([msgspec.structs.replace(each, partition=2)])
    before = await contents(log, "shop.orders")
    report = await moved(log, target)
    there = await target.open()
    assert await contents(there, "shop.orders") == before
    assert [spec.name for spec in await there.topics()] == ["shop.orders"]
    (moved_topic,) = report.topics
    assert (moved_topic.records, moved_topic.dropped) == (2 * len(strange()), 0)


async def test_offsets_go_on_in_the_target_where_they_ended(engine: Engine, target: Engine) -> None:
    log = await engine.open()
    movable(log)
    await log.create_topic(topic())
    offsets = await appended(log, b"1", b"2", b"3")
    await moved(log, target)
    end = (await log.bounds("shop.orders"))[0].end  # a transaction's mark may come after the append has returned
    there = await target.open()
    (following,) = await appended(there, b"4")
    assert following == end > offsets[-1]


async def test_what_compaction_and_retention_took_stays_gone_and_starts_are_equal(
    engine: Engine, target: Engine
) -> None:
    log = await engine.open()
    movable(log)
    await log.create_topic(topic("shop.customers", compacted=True))
    await log.create_topic(topic("shop.events", retention_ms=_KEPT_MS))
    for number in range(40):
        await log.append([message(b"%d" % number, key=b"c%d" % (number % 3), topic="shop.customers")])
        await log.append([message(b"%d" % number, topic="shop.events")])
    engine.clock.ahead_ms += 2 * _KEPT_MS
    await log.append([message(b"new", key=b"c9", topic="shop.customers"), message(b"new", topic="shop.events")])
    await engine.maintain(log)
    before = {name: await contents(log, name) for name in ("shop.customers", "shop.events")}
    starts = {name: (await log.bounds(name))[0].start for name in before}
    await moved(log, target)
    there = await target.open()
    assert {name: await contents(there, name) for name in before} == before
    assert (await there.bounds("shop.events"))[0].start == starts["shop.events"] > 0
    wanted = [record[4] for record in await there.read("shop.customers", 0, 0)]
    membership, _ = await joined(there, topic="shop.customers", subscription="reading")
    fetched = await fetch_all(membership, len(wanted))
    assert fetched_values(fetched, "shop.customers") == wanted
    await membership.leave()
    kept = {spec.name: (spec.compacted, spec.retention_ms) for spec in await there.topics()}
    assert kept == {"shop.customers": (True, None), "shop.events": (False, _KEPT_MS)}


async def test_held_records_that_retention_took_stay_readable(engine: Engine, target: Engine) -> None:
    log = await engine.open()
    movable(log)
    await log.create_topic(topic(retention_ms=_KEPT_MS))
    offsets = await appended(log, b"held", b"gone")
    membership, owner = await joined(log)
    commit = settled(owner.owned[0], offsets[1] + 1)
    commit.puts = [("held", offsets[0].to_bytes(8), b"why"), ("later", b"k", b"v" * 5_000)]
    await membership.commit([commit])
    engine.clock.ahead_ms += _KEPT_MS * 3 // 4
    await engine.maintain(log)
    engine.clock.ahead_ms += _KEPT_MS
    await appended(log, b"new")
    await engine.maintain(log)
    await membership.leave()
    (held,) = await log.read_offsets("shop.orders", 0, offsets)
    await moved(log, target)
    target.clock.ahead_ms = engine.clock.ahead_ms
    there = await target.open()
    assert [told(each, there.envelope) for each in await there.read_offsets("shop.orders", 0, offsets)] == [
        told(held, log.envelope)
    ]
    assert await there.peek_state("billing", 0, "later") == [(b"k", b"v" * 5_000)]
    await target.maintain(there)
    assert len(await there.read_offsets("shop.orders", 0, offsets)) == 1


async def test_namespaces_that_nobody_knows_and_long_progress_go_along(engine: Engine, target: Engine) -> None:
    log = await engine.open()
    movable(log)
    await log.create_topic(topic(partitions=2))
    await appended(log, b"1", b"2")
    membership, owner = await joined(log, 2)
    commit = settled(owner.owned[0], 2, b"p" * 9_000)
    commit.puts = [(f"later-{n % 7}", b"%d" % n, b"v%d" % n) for n in range(2_500)]
    await membership.commit([commit])
    await membership.leave()
    before = await log.partitions("billing")
    report = await moved(log, target)
    there = await target.open()
    after = await there.partitions("billing")
    assert [(each.position, each.progress) for each in after] == [(each.position, each.progress) for each in before]
    assert len(await there.peek_state("billing", 0, "later-3", limit=1_000)) == 357
    assert report.subscriptions[0].entries == 2_500
    again, next_owner = await joined(there, 2)
    assert next_owner.owned[0].epoch > before[0].epoch
    assert (next_owner.owned[0].position, next_owner.owned[0].progress) == (2, b"p" * 9_000)
    await again.leave()


async def test_a_second_migration_on_either_log_is_refused(engine: Engine, target: Engine) -> None:
    log = await engine.open()
    source = movable(log)
    await log.create_topic(topic())
    first = await migration(log, target)
    async with movable(await target.open()).transfer().lock():
        with pytest.raises(UsageError, match="Another migration"):
            await first.copy()
    assert await source.transfer().mark() is None
    assert not (await first.copy()).moved


async def test_what_others_write_to_the_target_is_noticed(engine: Engine, target: Engine) -> None:
    log = await engine.open()
    movable(log)
    await log.create_topic(topic())
    await appended(log, b"1", b"2")
    moving = await migration(log, target)
    await moving.copy()
    await appended(await target.open(), b"strange")
    await appended(log, b"3", b"4")
    with pytest.raises(TopicMismatch, match=r"shop\.orders.* partition 0"):
        await (await migration(log, target)).cut_over()
    await appended(log, b"the source goes on")


async def test_records_that_come_while_it_is_copied_are_copied(engine: Engine, target: Engine) -> None:
    log = await engine.open()
    movable(log)
    await log.create_topic(topic(partitions=2))
    await appended(log, *[b"%d" % n for n in range(500)])
    over = False

    async def publish() -> None:
        while not over:
            await appended(log, b"more", partition=1)
            await turns(3)

    publishing = asyncio.create_task(publish())
    moving = await migration(log, target)
    await moving.copy()
    await appended(log, b"later")
    await moving.copy()
    over = True
    await publishing
    await moving.cut_over()
    assert await contents(await target.open(), "shop.orders") == await contents(log, "shop.orders")
