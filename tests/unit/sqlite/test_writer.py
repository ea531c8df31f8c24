"""Group commit: who shares a transaction, and who is not concerned by another's failure."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import apsw
import pytest

from postline.errors import LogUnavailable, UsageError
from postline.log.sqlite.appending import Appended
from tests.unit.sqlite.build import opened, record


@pytest.fixture(params=["memory", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """Where the log lies."""
    return None if request.param == "memory" else tmp_path / "log.db"


async def test_concurrent_callers_share_a_few_commits(place: Path | None) -> None:
    async with opened(place) as log:
        before = log.storage.writer.commits
        offsets = await asyncio.gather(*(log.append([record(n)]) for n in range(100)))
        assert sorted(offset for (offset,) in offsets) == list(range(100))
        assert log.storage.writer.commits - before <= 2


async def test_each_caller_gets_the_offsets_of_its_own_records(place: Path | None) -> None:
    async with opened(place) as log:
        calls = [[record(100 * n + m, partition=m % 2) for m in range(n)] for n in range(1, 8)]
        results = await asyncio.gather(*(log.append(call) for call in calls))
        for call, offsets in zip(calls, results, strict=True):
            for sent, offset in zip(call, offsets, strict=True):
                (row,) = await log.read_offsets("orders", sent.partition, [offset])
                assert log.envelope(row) == sent.envelope


async def test_work_that_fails_before_it_changes_anything_fails_alone(place: Path | None) -> None:
    async with opened(place) as log:
        runs = []

        def refused(connection: apsw.Connection) -> None:
            runs.append("refused")
            raise UsageError("no")

        results = await asyncio.gather(
            log.append([record(1)]), log.storage.writer.submit(refused), log.append([record(2)]), return_exceptions=True
        )
        assert (results[0], results[2]) == ([0], [1])
        assert isinstance(results[1], UsageError)
        assert runs == ["refused"]


async def test_work_that_fails_after_a_change_leaves_nothing_of_it_and_all_of_the_others(place: Path | None) -> None:
    async with opened(place) as log:

        def keeps(connection: apsw.Connection) -> str:
            connection.execute("INSERT INTO meta VALUES ('kept', 1)")
            return "kept"

        def spoils(connection: apsw.Connection) -> None:
            connection.execute("INSERT INTO meta VALUES ('spoilt', 1)")
            raise UsageError("no")

        submit = log.storage.writer.submit
        results = await asyncio.gather(submit(keeps), submit(spoils), log.append([record(1)]), return_exceptions=True)
        assert (results[0], results[2]) == ("kept", [0])
        assert isinstance(results[1], UsageError)
        rows = log.storage.reader.connection.execute("SELECT key FROM meta WHERE key IN ('kept', 'spoilt')").fetchall()
        assert rows == [("kept",)]
        assert await log.append([record(2)]) == [1]


async def test_a_cancelled_caller_does_not_concern_the_others(place: Path | None) -> None:
    async with opened(place) as log:
        cancelled = asyncio.ensure_future(log.append([record(1)]))
        other = asyncio.ensure_future(log.append([record(2)]))
        await asyncio.sleep(0)
        cancelled.cancel()
        (offset,) = await other
        assert len(await log.read_offsets("orders", 0, [offset])) == 1
        with pytest.raises(asyncio.CancelledError):
            await cancelled


async def test_closing_finishes_what_was_accepted(tmp_path: Path) -> None:
    async with opened(tmp_path / "log.db") as log:
        calls = [asyncio.ensure_future(log.append([record(n)])) for n in range(10)]
        await asyncio.sleep(0)
    assert sorted(offset for (offset,) in await asyncio.gather(*calls)) == list(range(10))
    with pytest.raises(LogUnavailable):
        await log.append([record(1)])


async def test_a_log_in_memory_has_no_thread() -> None:
    before = threading.active_count()
    async with opened() as log:
        await log.append([record(1)])
        assert threading.active_count() == before


async def test_the_hook_after_a_commit_names_the_partitions_that_got_records(tmp_path: Path) -> None:
    async with opened(tmp_path / "log.db") as log:
        heard: list[Appended] = []
        log.storage.writer.after_commit.append(heard.append)
        await log.append([record(1, partition=1)])
        await log.storage.writer.submit(lambda connection: None)
        await log.append([record(1), record(2, partition=1)])
        assert [set(each) for each in heard] == [{2}, {1, 2}]


async def test_waiting_readers_are_woken_by_an_append_and_by_nothing_else(place: Path | None) -> None:
    async with opened(place) as log:
        waiting = asyncio.ensure_future(log.wait_for_appends("orders", 3_600))
        await log.storage.writer.submit(lambda connection: None)
        assert not waiting.done()
        await log.append([record(1)])
        await waiting
