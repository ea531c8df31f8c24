"""Migrations between logs in memory: what is refused, what is noticed, what is told."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from postline.clock import VirtualClock
from postline.errors import LogFull, LogMoved, TopicMismatch, UsageError
from postline.log.port import Append, TopicSpec
from postline.log.sqlite.log import SqliteLog
from postline.log.transfer import Batch, Phase
from postline.message import Envelope
from postline.migration import Migration, Progress
from tests.unit.sqlite.build import QUIET

SPEC = TopicSpec(name="orders", partitions=1, owner="shop")
COMPACTED = TopicSpec(name="orders", partitions=1, owner="shop", compacted=True, tombstone_ms=1_000)


class Pair:
    """A source and a target, and migrations from one to the other."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.source, self.target = (SqliteLog(None, clock=clock, settings=QUIET) for _ in range(2))
        self.told: list[Progress] = []
        self._ids = itertools.count()

    def migration(self) -> Migration:
        """Another run."""
        return Migration(self.source, self.target, self.clock, lambda: f"m{next(self._ids)}", self.told.append)

    async def publish(self, *records: tuple[bytes, bytes | None], log: SqliteLog | None = None) -> None:
        """Keys and values."""
        for key, value in records:
            append = Append("orders", 0, key, value, Envelope(id="i", source="shop", type="t"))
            await (log or self.source).append([append])


@asynccontextmanager
async def pair(spec: TopicSpec = SPEC) -> AsyncIterator[Pair]:
    made = Pair(VirtualClock())
    await made.source.start()
    await made.target.start()
    made.source.storage.address, made.target.storage.address = "one", "other"
    await made.source.create_topic(spec)
    try:
        yield made
    finally:
        await made.source.close()
        await made.target.close()


async def values(log: SqliteLog) -> list[bytes | None]:
    return [record[4] for record in await log.read("orders", 0, 0)]


async def test_progress_and_report_tell_what_was_copied() -> None:
    async with pair() as logs:
        await logs.publish(*[(b"k", b"%d" % n) for n in range(10)])
        report = await logs.migration().cut_over()
        assert (report.moved, report.topics[0].records) == (True, 10)
        doing = [each.doing for each in logs.told]
        assert doing == ["copying", "freezing", "settling"]
        assert (logs.told[0].copied, logs.told[0].total) == (10, 10)
        assert (await logs.migration().cut_over()).moved


async def test_a_log_is_no_target_of_itself() -> None:
    async with pair() as logs:
        itself = Migration(logs.source, logs.source, logs.clock, lambda: "m", logs.told.append)
        with pytest.raises(UsageError, match="both source and target"):
            await itself.copy()


async def test_marks_of_another_migration_are_respected_on_both_sides() -> None:
    async with pair() as logs, pair() as others:
        await logs.migration().copy()
        others.source.storage.address, others.target.storage.address = "third", "fourth"
        onto = Migration(others.source, logs.target, logs.clock, lambda: "m", logs.told.append)
        with pytest.raises(UsageError, match="the other end is one, not third"):
            await onto.copy()
        from_target = Migration(logs.target, others.target, logs.clock, lambda: "m", logs.told.append)
        with pytest.raises(LogMoved, match="is being filled from one"):
            await from_target.copy()
        await logs.migration().cut_over()
        elsewhere = Migration(logs.source, others.target, logs.clock, lambda: "m", logs.told.append)
        with pytest.raises(UsageError, match="the other end is other, not fourth"):
            await elsewhere.copy()


async def test_what_a_target_lacks_is_found_and_nothing_is_handed_over() -> None:
    async with pair() as logs:
        await logs.publish(*[(b"k", b"%d" % n) for n in range(10)])
        transfer = logs.target.transfer()
        original, batches = type(transfer).restore, list[Batch]()

        async def losing(self: object, batch: Batch) -> None:
            batches.append(batch)
            batch.records = [record for record in batch.records if record[0] != 4]
            await original(self, batch)  # type: ignore[arg-type]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(transfer), "restore", losing)
            with pytest.raises(TopicMismatch, match="at offset 4: the target"):
                await logs.migration().cut_over()
        assert len(batches) == 1
        await logs.publish((b"k", b"the source goes on"))
        # Found again, however it came to be there; then begun anew.
        with pytest.raises(TopicMismatch, match="at offset 4"):
            await logs.migration().cut_over()
        await logs.migration().abandon(force=False)
        assert (await logs.migration().cut_over()).moved
        assert await values(logs.target) == await values(logs.source)


async def test_what_the_source_compacted_meanwhile_is_no_difference() -> None:
    async with pair(COMPACTED) as logs:
        await logs.publish((b"a", b"1"), (b"a", b"2"), (b"b", b"3"), (b"a", b"4"))
        await logs.migration().copy()
        await logs.source.run_maintenance()
        report = await logs.migration().cut_over()
        assert report.topics[0].dropped == 2
        await logs.target.run_maintenance()
        assert await values(logs.target) == await values(logs.source) == [b"3", b"4"]


async def test_a_key_that_was_deleted_and_forgotten_meanwhile_is_not_brought_back_to_life() -> None:
    async with pair(COMPACTED) as logs:
        await logs.publish((b"a", b"1"), (b"b", b"2"))
        await logs.migration().copy()
        await logs.publish((b"a", None))
        await logs.source.run_maintenance()
        logs.clock.jump_wall(5)
        await logs.source.run_maintenance()
        assert await values(logs.source) == [b"2"]
        with pytest.raises(TopicMismatch, match="its key was deleted"):
            await logs.migration().cut_over()
        await logs.migration().abandon(force=False)
        await logs.migration().cut_over()
        assert await values(logs.target) == [b"2"]


async def test_a_full_target_loses_nothing_and_is_gone_on_with() -> None:
    async with pair() as logs:
        await logs.publish(*[(b"k", b"%d" % n) for n in range(10)])
        logs.target.storage.writer.full = True
        logs.target.storage._next_room_check = float("inf")
        await logs.target.storage.writer.submit(lambda connection: None)
        with pytest.raises(LogFull, match="no room"):
            await logs.migration().copy()
        logs.target.storage.writer.full = False
        assert (await logs.migration().cut_over()).moved
        assert await values(logs.target) == await values(logs.source)


async def test_a_frozen_log_takes_nothing_and_thawed_everything() -> None:
    async with pair() as logs:
        await logs.publish((b"k", b"1"))
        await logs.migration().cut_over()
        with pytest.raises(LogMoved):
            await logs.publish((b"k", b"2"))
        with pytest.raises(LogMoved):
            await logs.source.create_topic(TopicSpec(name="more", partitions=1, owner="shop"))
        with pytest.raises(LogMoved, match="has moved to other"):
            await logs.source.require_standing()
        await logs.migration().abandon(force=True)
        await logs.publish((b"k", b"2"))
        assert await values(logs.source) == [b"1", b"2"]


async def test_an_abandoned_cut_over_opens_the_source_again() -> None:
    async with pair() as logs:
        await logs.publish((b"k", b"1"))
        await logs.migration().copy()
        mark = await logs.target.transfer().mark()
        assert mark is not None
        mark.verified.clear()
        await logs.source.transfer().freeze(type(mark)(phase=Phase.MOVING, id=mark.id, other="other", since_ms=0))
        with pytest.raises(LogMoved, match="is being moved to other"):
            await logs.source.require_standing()
        await logs.migration().abandon(force=False)
        await logs.publish((b"k", b"2"))
        assert await logs.target.topics() == []
