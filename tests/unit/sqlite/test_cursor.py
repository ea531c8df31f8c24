"""Cursors: reading on, and what this process's own commits hand over."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postline.log.port import Record
from postline.log.sqlite.appending import Appended
from postline.log.sqlite.cursor import Cursor
from postline.log.sqlite.log import SqliteLog
from tests.unit.sqlite.build import opened, record

#: Who appends, how many records, and whether news of it (`None`: others' bell) comes before the cursor is read.
_STEPS = st.lists(st.tuples(st.booleans(), st.sampled_from([1, 2, 40]), st.integers(0, 2)), max_size=12)


class Heard:
    """What a log's own commits say, in the order in which they say it."""

    def __init__(self, log: SqliteLog) -> None:
        self.news: list[Appended] = []
        log.storage.presence.add(self)

    def records_appended(self, appended: Appended | None) -> None:
        """Keep it."""
        if appended is not None:
            self.news.append(appended)

    def group_changed(self) -> None:
        """Nothing to see."""

    def tick(self) -> None:
        """Nothing to do."""


def everything(cursor: Cursor) -> list[Record]:
    """All that the cursor gives until it is at the end."""
    found: list[Record] = []
    while cursor.has_more:
        found += cursor.take(7, 1 << 20) or []
    return found


async def test_what_this_process_appends_is_read_without_the_file(tmp_path: Path) -> None:
    async with opened(tmp_path / "log.db") as log:
        cursor, heard = Cursor(log.storage.reader, "orders", 0, 0), Heard(log)
        assert everything(cursor) == []
        await log.append([record(1, key=b"a"), record(2, partition=1), record(3, value=None)])
        cursor.offer(heard.news[0][cursor.partition_id])
        assert not cursor.needs_file
        assert everything(cursor) == log.storage.reader.read("orders", 0, 0, 10, 1 << 20)
        assert (cursor.offset, cursor.has_more) == (2, False)


async def test_many_records_and_large_ones_are_not_kept(tmp_path: Path) -> None:
    async with opened(tmp_path / "log.db") as log:
        heard = Heard(log)
        await log.append([record(number) for number in range(100)])
        await log.append([record(1, value=b"x" * 100_000)])
        assert [list(each.values()) for each in heard.news] == [[None], [None]]


@pytest.mark.parametrize("before", [0, 1])
async def test_what_does_not_follow_the_cursor_is_read_from_the_file(tmp_path: Path, before: int) -> None:
    async with opened(tmp_path / "log.db") as log, opened(tmp_path / "log.db") as other:
        cursor, heard = Cursor(log.storage.reader, "orders", 0, 0), Heard(log)
        assert everything(cursor) == []
        for writer in [other, log] if before else [log, other]:
            await writer.append([record(1)])
        cursor.offer(heard.news[0][cursor.partition_id])
        cursor.look()
        assert [each[0] for each in everything(cursor)] == [0, 1]


@settings(max_examples=30, deadline=None)
@given(_STEPS)
async def test_a_cursor_gives_each_record_once_whoever_appends_and_whenever_it_is_told(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, int, int]]
) -> None:
    path = tmp_path_factory.mktemp("cursor") / "log.db"
    async with opened(path) as log, opened(path) as other:
        cursor, heard = Cursor(log.storage.reader, "orders", 0, 0), Heard(log)
        found: list[Record] = []
        for ours, number, news in steps:
            await (log if ours else other).append([record(each) for each in range(number)])
            if not ours:
                cursor.look()  # the bell
            while heard.news and len(heard.news) > news:  # its own news may come late
                cursor.offer(heard.news.pop(0)[cursor.partition_id])
            if news != 1:
                found += everything(cursor)
        for appended in heard.news:
            cursor.offer(appended[cursor.partition_id])
        found += everything(cursor)
        assert [each[0] for each in found] == list(range((await log.bounds("orders"))[0].end))
        assert found == log.storage.reader.read("orders", 0, 0, 1_000, 1 << 20)
