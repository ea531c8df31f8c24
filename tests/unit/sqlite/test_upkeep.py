"""Retention, compaction and giving back of space: what goes, what stays, and where readers begin."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from postline.clock import VirtualClock
from postline.errors import TopicMismatch, UnknownTopic
from postline.log.port import Append, Bounds, TopicSpec
from postline.log.sqlite import upkeep
from postline.log.sqlite.log import SqliteLog
from postline.log.sqlite.storage import Settings
from postline.message import Envelope
from tests.unit.sqlite.build import QUIET, change, opened, owned, record, subscribe

_MINUTE = 60_000


def _orders(**policy: int | bool | None) -> TopicSpec:
    return TopicSpec(name="orders", partitions=2, owner="shop", **policy)  # type: ignore[arg-type]


async def _offsets(log: SqliteLog, partition: int = 0) -> list[int]:
    return [row[0] for row in await log.read("orders", partition, 0, limit=10_000)]


async def _pin(log: SqliteLog, *offsets: int, namespace: str = "held") -> None:
    puts = [(namespace, offset.to_bytes(8, "big"), b"") for offset in offsets]
    await log.storage.commit(1, [change(owned(), puts=puts)])


async def _unpin(log: SqliteLog, offset: int, namespace: str = "held") -> None:
    await log.storage.commit(1, [change(owned(), deletes=[(namespace, offset.to_bytes(8, "big"))])])


async def test_records_over_their_age_go_and_the_start_moves_up() -> None:
    clock = VirtualClock()
    async with opened(clock=clock) as log:
        await log.alter_topic(_orders(retention_ms=_MINUTE))
        await log.append([record(n) for n in range(1_200)])
        clock.move_to(50)
        await log.append([record(n) for n in range(3)] + [record(0, partition=1)])
        await log.run_maintenance()
        assert len(await _offsets(log)) == 1_203
        clock.move_to(61)
        await log.run_maintenance()
        assert await _offsets(log) == [1_200, 1_201, 1_202]
        assert await log.bounds("orders") == [Bounds(1_200, 1_203), Bounds(0, 1)]
        clock.move_to(3_600)
        await log.run_maintenance()
        assert await log.bounds("orders") == [Bounds(1_203, 1_203), Bounds(1, 1)]
        assert await log.append([record(1)]) == [1_203]


async def test_retention_by_size_is_exact_to_the_record() -> None:
    async with opened() as log:
        await log.append([record(n, value=b"x" * 1_000) for n in range(700)])
        await log.alter_topic(_orders(retention_bytes=100 * 1_100))
        await log.run_maintenance()
        kept = await _offsets(log)
        sizes = log.storage.reader.connection.execute(
            "SELECT sum(length(value) + length(packed) + length(type)) FROM records"
        ).fetchall()[0][0]
        assert kept == list(range(700 - len(kept), 700))
        assert isinstance(sizes, int)
        assert 100 * 1_100 - 1_100 < sizes <= 100 * 1_100
        await log.append([record(1, value=b"x" * 1_000)])
        await log.run_maintenance()
        assert await _offsets(log) == [*kept[1:], 700]


async def test_records_that_state_names_outlive_retention_until_it_lets_them_go() -> None:
    clock = VirtualClock()
    async with opened(clock=clock) as log:
        await subscribe(log.storage)
        await log.alter_topic(_orders(retention_ms=_MINUTE))
        await log.append([record(n) for n in range(10)])
        await _pin(log, 3)
        await _pin(log, 5, namespace="dead")
        clock.move_to(100)
        await log.run_maintenance()
        assert await _offsets(log) == []
        assert await log.bounds("orders") == [Bounds(10, 10), Bounds(0, 0)]
        assert [row[0] for row in await log.read_offsets("orders", 0, range(10))] == [3, 5]
        await _unpin(log, 3)
        await log.run_maintenance()
        assert [row[0] for row in await log.read_offsets("orders", 0, range(10))] == [5]


async def test_compaction_keeps_the_newest_record_of_each_key_and_those_without() -> None:
    async with opened() as log:
        await log.alter_topic(_orders(compacted=True))
        await log.append(
            [record(n, key=b"k%d" % (n % 7), value=b"v%d" % n) for n in range(1_500)] + [record(1), record(2)]
        )
        await log.run_maintenance()
        assert await _offsets(log) == [*range(1_493, 1_500), 1_500, 1_501]
        await log.append([record(1, key=b"k%d" % (1_493 % 7), value=b"new")])
        await log.run_maintenance()
        assert await _offsets(log) == [*range(1_494, 1_500), 1_500, 1_501, 1_502]
        assert (await log.bounds("orders"))[0].start == 0


async def test_versions_younger_than_the_stated_time_all_stay() -> None:
    clock = VirtualClock()
    async with opened(clock=clock) as log:
        await log.alter_topic(_orders(compacted=True, compact_after_ms=_MINUTE))
        await log.append([record(1, key=b"k"), record(2, key=b"k")])
        clock.move_to(59)
        await log.append([record(3, key=b"k")])
        await log.run_maintenance()
        assert await _offsets(log) == [0, 1, 2]
        clock.move_to(61)
        await log.run_maintenance()
        assert await _offsets(log) == [1, 2]


async def test_a_tombstone_stays_for_its_time_and_then_goes_with_its_key() -> None:
    clock = VirtualClock()
    async with opened(clock=clock) as log:
        await log.alter_topic(_orders(compacted=True, tombstone_ms=_MINUTE))
        await log.append([record(1, key=b"a"), record(2, key=b"b"), record(3, key=b"a", value=None)])
        await log.run_maintenance()
        assert await _offsets(log) == [1, 2]
        clock.move_to(59)
        await log.run_maintenance()
        assert await _offsets(log) == [1, 2]
        clock.move_to(61)
        await log.run_maintenance()
        assert await _offsets(log) == [1]


async def test_a_key_written_again_after_its_tombstone_stays() -> None:
    clock = VirtualClock()
    async with opened(clock=clock) as log:
        await log.alter_topic(_orders(compacted=True, tombstone_ms=_MINUTE))
        await log.append([record(1, key=b"a", value=None)])
        await log.run_maintenance()
        await log.append([record(2, key=b"a")])
        clock.move_to(600)
        await log.run_maintenance()
        assert await _offsets(log) == [1]


async def test_compaction_spares_what_state_names_until_it_lets_it_go() -> None:
    async with opened() as log:
        await subscribe(log.storage)
        await log.alter_topic(_orders(compacted=True))
        await log.append([record(n, key=b"k") for n in range(4)])
        await _pin(log, 1)
        await log.run_maintenance()
        assert await _offsets(log) == [1, 3]
        await _unpin(log, 1)
        await log.run_maintenance()
        assert await _offsets(log) == [3]


async def test_a_topic_can_be_compacted_and_retained_at_once() -> None:
    clock = VirtualClock()
    async with opened(clock=clock) as log:
        await log.alter_topic(_orders(compacted=True, retention_ms=_MINUTE, retention_bytes=1_000))
        await log.append([record(n, key=b"k%d" % (n % 3)) for n in range(9)])
        await log.run_maintenance()
        assert await _offsets(log) == [6, 7, 8]
        clock.move_to(100)
        await log.append([record(1, key=b"k0")])
        await log.run_maintenance()
        assert await _offsets(log) == [9]
        counted = log.storage.reader.connection.execute("SELECT bytes FROM partitions WHERE id = 1").fetchall()
        actual = log.storage.reader.connection.execute(
            "SELECT sum(length(key) + length(value) + length(packed) + length(type)) FROM records"
        ).fetchall()
        assert counted == actual
        assert log.storage.reader.connection.execute("SELECT count(*) FROM latest").fetchall() == [(1,)]


async def test_altering_changes_the_rules_but_never_partitions_or_key() -> None:
    async with opened() as log:
        await log.alter_topic(_orders(retention_ms=5, compacted=True, tombstone_ms=7))
        assert await log.topics() == [_orders(retention_ms=5, compacted=True, tombstone_ms=7)]
        for wrong in (TopicSpec(name="orders", partitions=3, owner="shop"), _orders(key="id")):  # type: ignore[arg-type]
            with pytest.raises(TopicMismatch):
                await log.alter_topic(wrong)
        with pytest.raises(UnknownTopic):
            await log.alter_topic(TopicSpec(name="nowhere", partitions=1, owner="shop"))


async def test_freed_pages_go_back_to_the_disk(tmp_path: Path) -> None:
    clock = VirtualClock()
    path = tmp_path / "log.db"
    async with opened(path, clock=clock, settings=Settings(upkeep_seconds=0, reserve_bytes=0, spare_pages=10)) as log:
        await log.alter_topic(_orders(retention_ms=_MINUTE))
        for _ in range(5):
            await log.append([record(n, value=b"x" * 4_000) for n in range(500)])
        clock.move_to(100)
        await log.run_maintenance()
        pages = log.storage.reader.connection.execute("PRAGMA page_count").fetchall()[0][0]
        assert isinstance(pages, int)
        assert pages < 50
    assert path.stat().st_size < 50 * 4_096


async def test_publishing_goes_on_between_the_steps(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with opened(tmp_path / "log.db", clock=clock) as log:
        await log.alter_topic(_orders(retention_ms=_MINUTE))
        await log.append([record(n) for n in range(3_000)])
        clock.move_to(100)
        before = log.storage.writer.commits
        await log.run_maintenance()
        # 500 records a step: none of them holds the write lock for long.
        assert log.storage.writer.commits - before >= 6


async def test_the_clock_starts_passes_until_the_log_is_closed() -> None:
    clock = VirtualClock()
    async with opened(clock=clock, settings=Settings(upkeep_seconds=5)) as log:
        await log.alter_topic(_orders(retention_ms=_MINUTE))
        await log.append([record(1)])
        for second in range(0, 100, 5):
            clock.move_to(second)
            await _settle(log)
        assert await _offsets(log) == []
    assert clock.next_due() is None


async def _settle(log: SqliteLog) -> None:
    """Let what the clock has started come to its end."""
    for _ in range(5):
        await log.storage.writer.submit(lambda connection: None)


async def test_a_wal_that_has_grown_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "WAL_WARNING_BYTES", 1 << 20)
    async with opened(tmp_path / "log.db") as log:
        connection = log.storage.reader.connection
        with caplog.at_level(logging.WARNING, "postline.log.sqlite"):
            await log.run_maintenance()
            assert not caplog.records
            cursor = connection.execute("SELECT 1 FROM sqlite_schema")
            for _ in range(3):
                await log.append([record(n, value=b"x" * 4_000) for n in range(1_000)])
            cursor.close()
            await log.run_maintenance()
        assert "keeps a read transaction open" in caplog.text


async def test_state_of_a_removed_subscription_is_swept_up_after_a_crash() -> None:
    async with opened() as log:
        await subscribe(log.storage)
        await log.storage.commit(1, [change(owned(), puts=[("n", b"%05d" % n, b"") for n in range(700)])])
        await log.storage.writer.submit(lambda connection: connection.execute("DELETE FROM subscriptions"))
        await log.run_maintenance()
        assert log.storage.reader.connection.execute("SELECT count(*) FROM state").fetchall() == [(0,)]


async def test_records_of_a_topic_without_rules_stay_for_ever() -> None:
    clock = VirtualClock()
    async with opened(clock=clock, settings=QUIET) as log:
        await log.append([Append("orders", 0, b"k", b"", Envelope())] * 3)
        clock.move_to(1e9)
        await log.run_maintenance()
        assert await _offsets(log) == [0, 1, 2]
