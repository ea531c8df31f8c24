"""The commit unit: everything of an owned partition at once, nothing of a fenced one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from postline.errors import UnknownTopic
from postline.log.port import Append, PartitionInfo
from postline.log.sqlite.state import get_entries, scan_entries
from postline.message import Envelope
from tests.unit.sqlite.build import change, opened, owned, record, stored, subscribe


async def test_position_progress_state_and_appends_are_stored_together(tmp_path: Path) -> None:
    async with opened(tmp_path / "log.db") as log:
        await subscribe(log.storage)
        part = change(owned(), 7, puts=[("held", b"a", b"1")], appends=[record(1), record(2, partition=1)])
        assert await log.storage.commit(1, [part]) == []
        assert (await log.partitions("billing"))[0] == PartitionInfo(
            partition=0, position=7, progress=b"progress", epoch=1
        )
        assert await log.peek_state("billing", 0, "held") == [(b"a", b"1")]
        assert [len(await log.read("orders", p, 0)) for p in range(2)] == [1, 1]


async def test_a_fenced_partition_is_refused_and_the_others_pass() -> None:
    async with stored() as storage:
        late = change(owned(0, epoch=0), 5, puts=[("n", b"k", b"late")], appends=[record(1)])
        good = change(owned(1), 6, puts=[("n", b"k", b"good")], appends=[record(2, partition=1)])
        assert await storage.commit(1, [late, good]) == [late.assignment]
        connection = storage.reader.connection
        assert scan_entries(connection, 1, 0, "n", b"", 10) == []
        assert scan_entries(connection, 1, 1, "n", b"", 10) == [(b"k", b"good")]
        assert [bounds.end for bounds in storage.reader.bounds("orders")] == [0, 1]


async def test_clears_apply_before_puts_and_the_last_put_of_an_entry_counts() -> None:
    async with stored() as storage:
        first = change(owned(), puts=[("n", b"%03d" % n, b"old") for n in range(250)] + [("m", b"x", b"1")])
        await storage.commit(1, [first])
        second = change(
            owned(), clears=["n"], puts=[("n", b"b", b"1"), ("n", b"a", b"2"), ("n", b"b", b"3")], deletes=[("m", b"x")]
        )
        await storage.commit(1, [second])
        connection = storage.reader.connection
        assert scan_entries(connection, 1, 0, "n", b"", 10) == [(b"a", b"2"), (b"b", b"3")]
        assert scan_entries(connection, 1, 0, "m", b"", 10) == []


async def test_entries_are_found_by_key_and_scanned_in_order() -> None:
    async with stored() as storage:
        await storage.commit(1, [change(owned(), puts=[("n", b"%03d" % n, b"v%d" % n) for n in range(321)])])
        connection = storage.reader.connection
        keys = [b"%03d" % n for n in range(0, 400, 2)]
        assert get_entries(connection, 1, 0, "n", keys) == {b"%03d" % n: b"v%d" % n for n in range(0, 321, 2)}
        assert scan_entries(connection, 1, 0, "n", b"317", 2) == [(b"318", b"v318"), (b"319", b"v319")]
        assert get_entries(connection, 1, 1, "n", keys) == {}


async def test_a_unit_with_an_unknown_topic_stores_nothing() -> None:
    async with stored() as storage:
        part = change(owned(), 3, appends=[Append("nowhere", 0, None, b"", Envelope())])
        with pytest.raises(UnknownTopic):
            await storage.commit(1, [part])
        rows = storage.reader.connection.execute("SELECT position FROM assignments WHERE partition = 0").fetchall()
        assert rows == [(0,)]


async def test_units_and_publishers_share_a_commit_without_mixing_offsets(tmp_path: Path) -> None:
    async with stored(tmp_path / "log.db") as storage:
        before = storage.writer.commits
        results = await asyncio.gather(
            storage.append([record(1)]),
            storage.commit(1, [change(owned(), 1, appends=[record(2), record(3)])]),
            storage.append([record(4), record(5)]),
        )
        assert storage.writer.commits - before == 1
        assert results[0] + results[2] == [2, 3, 4]
        rows = storage.reader.read("orders", 0, 0, 10, 1 << 20)
        assert [row[0] for row in rows] == [0, 1, 2, 3, 4]


async def test_a_removed_subscription_leaves_no_state_behind() -> None:
    async with opened() as log:
        await subscribe(log.storage)
        await log.storage.commit(1, [change(owned(), puts=[("n", b"%05d" % n, b"") for n in range(1_200)])])
        await log.remove_subscription("billing")
        connection = log.storage.reader.connection
        for table in ("state", "assignments", "subscriptions"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchall() == [(0,)]
