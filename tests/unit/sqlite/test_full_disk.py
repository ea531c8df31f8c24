"""A full disk: nothing is torn, positions still pass, and all goes on when there is room."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from postline.clock import VirtualClock
from postline.errors import LogFull
from postline.log.sqlite.space import Reserve
from postline.log.sqlite.storage import Settings, Storage
from tests.unit.sqlite.build import change, opened, owned, record, subscribe

_SMALL = Settings(upkeep_seconds=0, reserve_bytes=1 << 20)


def _pages(storage: Storage, spare: int) -> None:
    """Let the file grow by `spare` pages and no more."""
    used = storage.writer.connection.pragma("page_count")
    storage.writer.connection.pragma("max_page_count", used + spare)


@pytest.fixture(params=["memory", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """Where the log lies."""
    return None if request.param == "memory" else tmp_path / "log.db"


async def test_a_full_disk_refuses_appends_whole_and_lets_positions_pass(place: Path | None) -> None:
    clock = VirtualClock()
    async with opened(place, clock=clock, settings=_SMALL) as log:
        await subscribe(log.storage)
        await log.append([record(1)])
        _pages(log.storage, 5)
        with pytest.raises(LogFull) as caught:
            await log.append([record(n, value=b"x" * 4_000) for n in range(50)])
        assert caught.value.retryable
        assert log.storage.writer.full
        assert await log.storage.commit(1, [change(owned(), 1)]) == []
        with pytest.raises(LogFull):
            await log.storage.commit(1, [change(owned(), 2, appends=[record(2)])])
        assert (await log.partitions("billing"))[0].position == 1
        assert len(await log.read("orders", 0, 0)) == 1
        _pages(log.storage, 10_000)
        clock.move_to(clock.monotonic() + 10)
        assert await log.append([record(3)]) == [1]
        assert not log.storage.writer.full


async def test_what_shares_a_commit_with_an_append_that_finds_no_room_still_passes(tmp_path: Path) -> None:
    async with opened(tmp_path / "log.db", settings=_SMALL) as log:
        await subscribe(log.storage)
        _pages(log.storage, 5)
        results = await asyncio.gather(
            log.append([record(n, value=b"x" * 4_000) for n in range(50)]),
            log.storage.commit(1, [change(owned(), 9)]),
            return_exceptions=True,
        )
        assert isinstance(results[0], LogFull)
        assert results[1] == []
        assert (await log.partitions("billing"))[0].position == 9


async def test_the_reserve_lies_beside_the_file_and_is_given_up_and_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = VirtualClock()
    reserve = tmp_path / "log.db-reserve"
    async with opened(tmp_path / "log.db", clock=clock, settings=_SMALL) as log:
        assert reserve.stat().st_blocks * 512 >= 1 << 20
        _pages(log.storage, 5)
        with caplog.at_level(logging.WARNING, "postline.log.sqlite"), pytest.raises(LogFull):
            await log.append([record(n, value=b"x" * 4_000) for n in range(50)])
        assert not reserve.exists()
        assert "is full" in caplog.text
        assert (tmp_path / "log.db-wal").stat().st_size == 0
        _pages(log.storage, 10_000)
        clock.move_to(clock.monotonic() + 10)
        await log.run_maintenance()
        assert reserve.stat().st_size == 1 << 20


async def test_while_there_is_no_room_for_the_reserve_appends_stay_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = VirtualClock()
    async with opened(tmp_path / "log.db", clock=clock, settings=_SMALL) as log:
        _pages(log.storage, 5)
        monkeypatch.setattr(Reserve, "_free_bytes", lambda self: 1 << 20)
        for _ in range(3):
            clock.move_to(clock.monotonic() + 10)
            with pytest.raises(LogFull):
                await log.append([record(n, value=b"x" * 4_000) for n in range(50)])
        _pages(log.storage, 10_000)
        clock.move_to(clock.monotonic() + 10)
        with pytest.raises(LogFull):
            await log.append([record(1)])
        monkeypatch.setattr(Reserve, "_free_bytes", lambda self: 1 << 30)
        clock.move_to(clock.monotonic() + 10)
        assert await log.append([record(1)]) == [0]
