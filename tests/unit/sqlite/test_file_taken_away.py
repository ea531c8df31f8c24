"""The file is deleted, renamed or replaced underneath an open log: everything says so, nothing pretends."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from postline.clock import SystemClock
from postline.errors import LogCorrupt
from postline.log.sqlite.log import SqliteLog
from tests.unit.sqlite.build import QUIET, opened, record


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink()


def _move(path: Path) -> None:
    path.rename(path.with_name("elsewhere.db"))


def _replace(path: Path) -> None:
    copy = path.with_name("copy.db")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


def _remove_wal(path: Path) -> None:
    path.with_name(path.name + "-wal").unlink()


def _move_directory(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))


async def _use(log: SqliteLog) -> None:
    """Read until it raises."""
    while True:
        await log.wait_for_appends("orders", 0.01)
        await log.topics()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the log lies, in a directory of its own."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "log.db"


@pytest.mark.parametrize("harm", [_remove, _move, _replace, _remove_wal, _move_directory])
async def test_nothing_is_acknowledged_once_the_file_is_not_what_was_opened(
    path: Path, harm: Callable[[Path], None]
) -> None:
    async with opened(path, clock=SystemClock()) as log:
        await log.append([record(1)])
        harm(path)
        with pytest.raises(LogCorrupt, match="removed or replaced") as caught:
            await log.append([record(2)])
        assert not caught.value.retryable
        assert str(path) in str(caught.value)
        assert caught.value.remedy
        with pytest.raises(LogCorrupt, match="removed or replaced"):
            await log.read("orders", 0, 0)


async def test_reads_alone_notice_it_too(path: Path) -> None:
    async with opened(path, clock=SystemClock()) as log:
        _remove(path)
        with pytest.raises(LogCorrupt, match="removed or replaced"):
            await _use(log)


async def test_a_new_file_in_its_place_is_left_alone(path: Path) -> None:
    async with opened(path, clock=SystemClock()) as log:
        await log.append([record(1)])
        _remove(path)
        async with opened(path, clock=SystemClock()) as successor:
            await successor.append([record(7)])
            with pytest.raises(LogCorrupt):
                await log.append([record(2)])
            await log.close()
            assert await successor.append([record(8)]) == [1]
    async with opened(path) as again:
        assert [again.envelope(each).time_ms for each in await again.read("orders", 0, 0)] == [7, 8]


async def test_a_log_reached_by_a_relative_path_or_a_link_is_still_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    os.symlink("log.db", "link.db")
    async with opened(Path("link.db")) as log:
        monkeypatch.chdir("/")
        assert await log.append([record(1)]) == [0]


async def test_a_log_started_again_after_that_works_on_what_lies_there(path: Path) -> None:
    log = SqliteLog(str(path), clock=SystemClock(), settings=QUIET)
    await log.start()
    _remove(path)
    with pytest.raises(LogCorrupt, match="removed or replaced"):
        await _use(log)
    await log.close()
    await log.start()
    assert await log.topics() == []
    await log.close()
