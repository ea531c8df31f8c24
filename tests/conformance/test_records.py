"""Topics, appending and reading, as the port promises them."""

from __future__ import annotations

import asyncio

import pytest

from postline.errors import LogUnavailable, MissingCapability, TopicMismatch, UnknownTopic
from postline.log.port import Append, Bounds, Capability, Log, Place
from postline.message import Envelope
from tests.conformance.harness import Engine, appended, message, topic, turns, values

ENVELOPES = [
    Envelope(),
    Envelope(id="order-1", source="shop", type="shop.OrderPlaced", time_ms=1_700_000_000_000),
    Envelope(
        id="0123456789abcdef0123456789abcdef",
        source="shop/ünïcode",
        type="shop.Ørder",
        time_ms=1,
        content_type="application/octet-stream",
        correlation_id="c" * 32,
        causation_id="not-hexadecimal",
        headers={"traceparent": "00-ab-cd-01", "empty": "", "snow": "☃", "newline": "a\nb"},
    ),
    Envelope(
        id="ABCDEF0123456789ABCDEF0123456789", source="s", type="t", correlation_id="F" * 32, causation_id="0" * 32
    ),
    Envelope(id="x" * 300, source="s" * 300, type="t" * 300, headers={"k" * 300: "v" * 5000}),
]


async def test_a_topic_is_created_once_and_the_log_tells_what_it_has(log: Log) -> None:
    first = topic(partitions=3, retention_ms=1000)
    assert await log.create_topic(first) == first
    assert await log.create_topic(topic(partitions=5)) == first
    other = topic("a.first", compacted=True, tombstone_ms=5, compact_after_ms=7, retention_bytes=9)
    await log.create_topic(other)
    assert await log.topics() == [other, first]


async def test_the_first_records_of_many_places_are_those_that_single_reads_give(log: Log) -> None:
    names = ["shop.orders", "shop.bills"]
    for name in names:
        await log.create_topic(topic(name, partitions=3))
    sent = [
        Append(name, partition, b"k", b"%d" % number * 500, Envelope(id=f"{number}", source="s", type="t"))
        for number in range(40)
        for name in names
        for partition in (0, 1)
    ]
    await log.append(sent)
    ends = {name: await log.bounds(name) for name in names}
    places = [Place(name, partition, offset) for name in names for partition in (0, 1, 2) for offset in (0, 7, 7, 39)]
    places += [Place(name, partition, ends[name][partition].end) for name in names for partition in range(3)]
    found = await log.read_first(places)
    for place, record in zip(places, found, strict=True):
        single = await log.read(*place, limit=1)
        assert ([] if record is None else [record]) == single, place
    assert [record is None for record in found].count(True) == 2 * (4 + 3)
    assert await log.read_first([]) == []


async def test_the_first_record_of_a_topic_that_is_not_there_is_refused(log: Log) -> None:
    await log.create_topic(topic())
    await appended(log, b"0")
    with pytest.raises(UnknownTopic):
        await log.read_first([Place("shop.orders", 0, 0), Place("nobody", 0, 0)])


async def test_altering_changes_retention_and_refuses_other_partitions(log: Log) -> None:
    await log.create_topic(topic(partitions=2))
    changed = topic(partitions=2, retention_ms=5, retention_bytes=6, compacted=True, tombstone_ms=7, compact_after_ms=8)
    await log.alter_topic(changed)
    assert await log.topics() == [changed]
    with pytest.raises(TopicMismatch):
        await log.alter_topic(topic(partitions=3))
    assert await log.topics() == [changed]


async def test_altering_an_unknown_topic_is_refused(log: Log) -> None:
    with pytest.raises(UnknownTopic):
        await log.alter_topic(topic())


async def test_records_come_back_as_they_were_appended(engine: Engine, log: Log) -> None:
    await log.create_topic(topic(partitions=2))
    sent = [
        message(b'{"a":1}', key=b"k1"),
        message(None, key=b"gone"),
        message(b"", key=None),
        message(b"\x00\xff" * 500, key=b""),
    ]
    sent[0].flags = 1
    before = engine.clock.now_ms()
    assert await log.append(sent) == [0, 1, 2, 3]
    records = await log.read("shop.orders", 0, 0)
    assert [record[0] for record in records] == [0, 1, 2, 3]
    assert [record[2] for record in records] == [b"k1", b"gone", None, b""]
    assert values(records) == [b'{"a":1}', None, b"", b"\x00\xff" * 500]
    assert [record[3] for record in records] == ["shop.OrderPlaced"] * 4
    assert [record[5] for record in records] == [1, 0, 0, 0]
    assert [log.envelope(record) for record in records] == [item.envelope for item in sent]
    assert all(before - 1000 <= record[1] <= engine.clock.now_ms() for record in records)
    assert await log.read("shop.orders", 1, 0) == []


@pytest.mark.parametrize("envelope", ENVELOPES, ids=range(len(ENVELOPES)))
async def test_every_envelope_comes_back_equal(log: Log, envelope: Envelope) -> None:
    await log.create_topic(topic())
    await log.append([Append("shop.orders", 0, b"k", b"v", envelope)])
    (record,) = await log.read("shop.orders", 0, 0)
    assert log.envelope(record) == envelope
    assert record[3] == envelope.type


async def test_one_append_to_many_partitions_gives_each_its_offset(log: Log) -> None:
    await log.create_topic(topic(partitions=3))
    await log.create_topic(topic("other"))
    sent = [message(partition=2), message(partition=0), message(partition=2), message(topic="other")]
    assert await log.append(sent) == [0, 0, 1, 0]
    bounds = await log.bounds("shop.orders")
    assert [each.start for each in bounds] == [0, 0, 0]
    # An engine may use offsets of its own behind them, which hold no record.
    assert [each.end - last >= 0 for each, last in zip(bounds, (1, 0, 2), strict=True)] == [True] * 3
    assert bounds[1].end == 0
    assert [len(await log.read("shop.orders", number, 0)) for number in range(3)] == [1, 0, 2]


async def test_an_empty_append_does_nothing(log: Log) -> None:
    assert await log.append([]) == []


async def test_an_append_with_one_unknown_topic_stores_nothing(log: Log) -> None:
    await log.create_topic(topic())
    with pytest.raises(UnknownTopic):
        await log.append([message(), message(topic="nobody.knows")])
    assert await log.bounds("shop.orders") == [Bounds(0, 0)]
    assert await appended(log, b"next") == [0]


async def test_a_failed_append_takes_no_concurrent_one_with_it(log: Log) -> None:
    await log.create_topic(topic())
    outcomes = await asyncio.gather(
        log.append([message(b"a")]),
        log.append([message(topic="unknown")]),
        log.append([message(b"b")]),
        return_exceptions=True,
    )
    assert isinstance(outcomes[1], UnknownTopic)
    stored = {record[0]: record[4] for record in await log.read("shop.orders", 0, 0)}
    assert [outcomes[0], outcomes[2]] in ([[0], [1]], [[1], [0]])
    assert {stored[outcomes[0][0]], stored[outcomes[2][0]]} == {b"a", b"b"}  # type: ignore[index]


async def test_a_cancelled_append_harms_no_other(log: Log) -> None:
    await log.create_topic(topic())
    cancelled = asyncio.ensure_future(appended(log, b"cancelled"))
    other = asyncio.ensure_future(appended(log, b"other"))
    await turns()
    cancelled.cancel()
    (offset,) = await other
    found = {record[0]: record[4] for record in await log.read("shop.orders", 0, 0)}
    assert found[offset] == b"other"
    assert set(found.values()) <= {b"other", b"cancelled"}


async def test_reading_goes_on_from_an_offset_within_its_limits(log: Log) -> None:
    await log.create_topic(topic())
    await appended(log, *(b"%04d" % number for number in range(50)))
    assert values(await log.read("shop.orders", 0, 48)) == [b"0048", b"0049"]
    assert len(await log.read("shop.orders", 0, 10, limit=7)) == 7
    assert await log.read("shop.orders", 0, 50) == []
    assert await log.read("shop.orders", 0, 5000) == []


async def test_reading_stops_at_the_bytes_yet_gives_at_least_one_record(log: Log) -> None:
    await log.create_topic(topic())
    await appended(log, b"x" * 5000, b"y" * 5000, b"z" * 5000)
    assert len(await log.read("shop.orders", 0, 0, max_bytes=100)) == 1
    assert len(await log.read("shop.orders", 0, 0, max_bytes=11_000)) == 2


async def test_more_than_one_page_is_read_completely(log: Log) -> None:
    await log.create_topic(topic())
    sent = [b"%d" % number for number in range(2500)]
    await log.append([message(value) for value in sent])
    found: list[bytes | None] = []
    offset = 0
    while records := await log.read("shop.orders", 0, offset):
        found += values(records)
        offset = records[-1][0] + 1
    assert found == sent


async def test_records_are_read_by_their_offsets(log: Log) -> None:
    await log.create_topic(topic())
    await appended(log, *(b"%d" % number for number in range(20)))
    assert values(await log.read_offsets("shop.orders", 0, [17, 3, 999, 3])) == [b"3", b"17"]
    assert await log.read_offsets("shop.orders", 0, []) == []
    many = [record[0] for record in await log.read_offsets("shop.orders", 0, range(3000))]
    assert many == list(range(20))


async def test_a_time_finds_the_first_record_from_then_on(engine: Engine, log: Log) -> None:
    await log.create_topic(topic())
    await appended(log, b"old", b"old too")
    engine.clock.ahead_ms += 60_000
    first, _ = await appended(log, b"new", b"newer")
    moment = engine.clock.now_ms() - 30_000
    assert await log.offset_at("shop.orders", 0, 0) == 0
    assert await log.offset_at("shop.orders", 0, moment) == first
    (bounds,) = await log.bounds("shop.orders")
    assert await log.offset_at("shop.orders", 0, moment + 10_000_000) == bounds.end
    (record,) = await log.read("shop.orders", 0, first, limit=1)
    assert await log.offset_at("shop.orders", 0, record[1]) == first


async def test_unknown_topics_are_refused_by_name(log: Log) -> None:
    for call in (
        log.bounds("nobody.knows"),
        log.read("nobody.knows", 0, 0),
        log.read_offsets("nobody.knows", 0, [0]),
        log.offset_at("nobody.knows", 0, 0),
    ):
        with pytest.raises(UnknownTopic, match=r"nobody\.knows"):
            await call


async def test_waiting_for_appends_ends_with_one_from_the_same_process(log: Log) -> None:
    await log.create_topic(topic())
    waiting = asyncio.ensure_future(log.wait_for_appends("shop.orders", 600))
    await turns()
    await appended(log, b"now")
    await asyncio.wait_for(waiting, 20)


async def test_waiting_for_appends_ends_with_one_from_another_process(engine: Engine, log: Log) -> None:
    other = await engine.open()
    await log.create_topic(topic())
    waiting = asyncio.ensure_future(log.wait_for_appends("shop.orders", 600))
    await turns()
    await appended(other, b"now")
    await asyncio.wait_for(waiting, 20)


async def test_waiting_for_appends_ends_by_its_time(log: Log) -> None:
    await log.create_topic(topic())
    async with asyncio.timeout(20):
        await log.wait_for_appends("shop.orders", 0.01)


async def test_other_processes_read_what_one_appended(engine: Engine, log: Log) -> None:
    other = await engine.open()
    await log.create_topic(topic())
    await appended(log, b"1")
    assert values(await other.read("shop.orders", 0, 0)) == [b"1"]
    await appended(other, b"2")
    assert values(await log.read("shop.orders", 0, 0)) == [b"1", b"2"]
    assert await other.topics() == await log.topics()


async def test_retention_by_time_takes_what_is_older_and_leaves_offsets_alone(engine: Engine, log: Log) -> None:
    await log.create_topic(topic(retention_ms=10_000))
    await appended(log, b"0", b"1")
    engine.clock.ahead_ms += 60_000
    (offset,) = await appended(log, b"2")
    await engine.maintain(log)
    (bounds,) = await log.bounds("shop.orders")
    assert (bounds.start, bounds.end) == (offset, offset + 1)
    assert values(await log.read("shop.orders", 0, 0)) == [b"2"]
    assert await appended(log, b"3") == [offset + 1]


async def test_retention_of_everything_keeps_the_next_offset(engine: Engine, log: Log) -> None:
    await log.create_topic(topic(retention_ms=10_000))
    await appended(log, b"0", b"1")
    engine.clock.ahead_ms += 60_000
    await engine.maintain(log)
    (bounds,) = await log.bounds("shop.orders")
    assert bounds.start == bounds.end >= 2
    assert await appended(log, b"2") == [bounds.end]


async def test_retention_by_size_takes_the_oldest(engine: Engine, log: Log) -> None:
    await log.create_topic(topic(retention_bytes=50_000))
    await appended(log, *(b"%d" % number * 10_000 for number in range(9)))
    await engine.maintain(log)
    (bounds,) = await log.bounds("shop.orders")
    assert bounds.end >= 9
    assert 3 <= bounds.start <= 8
    assert [record[0] for record in await log.read("shop.orders", 0, 0)] == list(range(bounds.start, 9))


async def test_compaction_keeps_the_newest_of_each_key_and_leaves_gaps(engine: Engine, log: Log) -> None:
    await log.create_topic(topic(compacted=True))
    await log.append([message(b"%d" % n, key=b"k%d" % (n % 3)) for n in range(9)] + [message(b"other", key=b"k9")])
    engine.clock.ahead_ms += 1000
    await engine.maintain(log)
    assert [record[0] for record in await log.read("shop.orders", 0, 0)] == [6, 7, 8, 9]
    assert (await log.bounds("shop.orders"))[0].end >= 10
    assert [record[0] for record in await log.read("shop.orders", 0, 7)] == [7, 8, 9]


async def test_compaction_keeps_every_version_for_the_stated_time(engine: Engine, log: Log) -> None:
    await log.create_topic(topic(compacted=True, compact_after_ms=60_000))
    await appended(log, b"1", b"2")
    await engine.maintain(log)
    assert values(await log.read("shop.orders", 0, 0)) == [b"1", b"2"]
    engine.clock.ahead_ms += 120_000
    await engine.maintain(log)
    assert values(await log.read("shop.orders", 0, 0)) == [b"2"]


async def test_a_tombstone_is_kept_for_the_stated_time_then_goes(engine: Engine, log: Log) -> None:
    await log.create_topic(topic(compacted=True, tombstone_ms=60_000))
    await log.append([message(b"1"), message(None), message(b"stays", key=b"other")])
    engine.clock.ahead_ms += 1000
    await engine.maintain(log)
    assert values(await log.read("shop.orders", 0, 0)) == [None, b"stays"]
    engine.clock.ahead_ms += 120_000
    await engine.maintain(log)
    assert values(await log.read("shop.orders", 0, 0)) == [b"stays"]


async def test_starting_and_closing_twice_are_legal_and_a_closed_log_refuses(log: Log) -> None:
    await log.start()
    await log.create_topic(topic())
    await log.close()
    await log.close()
    with pytest.raises(LogUnavailable):
        await appended(log, b"late")


async def test_closing_finishes_what_was_accepted(engine: Engine, log: Log) -> None:
    other = await engine.open()
    await log.create_topic(topic())
    accepted = [asyncio.ensure_future(appended(log, b"%d" % number)) for number in range(20)]
    await turns()
    await log.close()
    outcomes = await asyncio.gather(*accepted, return_exceptions=True)
    stored = {record[0] for record in await other.read("shop.orders", 0, 0)}
    assert {outcome[0] for outcome in outcomes if isinstance(outcome, list)} <= stored
    assert len(stored) == 20


async def test_what_was_acknowledged_outlives_the_process(engine: Engine, log: Log) -> None:
    other = await engine.open()
    await log.create_topic(topic())
    await appended(log, b"kept")
    await engine.kill(log)
    assert values(await other.read("shop.orders", 0, 0)) == [b"kept"]


async def test_spans_of_records_are_weighed_where_the_engine_says_so(log: Log) -> None:
    await log.create_topic(topic())
    await appended(log, b"x" * 100, b"y" * 1_000, b"z" * 10_000)
    if Capability.SIZES not in log.capabilities:
        with pytest.raises(MissingCapability):
            await log.size_between("shop.orders", 0, 0, 3)
        return
    first, both, last = [await log.size_between("shop.orders", 0, *span) for span in ((0, 1), (0, 2), (2, 3))]
    assert 100 <= first < 1_000 <= both - first < 2_000
    assert 10_000 <= last < 11_000
    assert await log.size_between("shop.orders", 0, 0, 1_000) == both + last
    assert await log.size_between("shop.orders", 0, 3, 3) == 0
