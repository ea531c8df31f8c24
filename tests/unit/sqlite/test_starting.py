"""A start that fails, or a close that is cancelled, leaves no descriptor, thread or lock behind."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from postline.clock import SystemClock, VirtualClock
from postline.errors import LogUnavailable
from postline.log.sqlite import storage as storage_module
from postline.log.sqlite.log import SqliteLog
from postline.log.sqlite.rundir import run_directory
from postline.log.sqlite.storage import Settings
from postline.log.sqlite.turnstile import Turnstile
from postline.log.sqlite.waiting import Waiters
from tests.unit.sqlite.build import opened, record

IMPATIENT = Settings(upkeep_seconds=0, reserve_bytes=0, lock_seconds=0.02)


def resources() -> tuple[int, list[str]]:
    """Descriptors and threads of this process."""
    return len(os.listdir("/dev/fd")), sorted(thread.name for thread in threading.enumerate())


async def test_a_start_that_finds_the_write_lock_taken_leaves_nothing_behind(tmp_path: Path) -> None:
    async with opened(tmp_path / "log.db"):
        pass
    holder = Turnstile(run_directory(tmp_path / "log.db"))
    log = SqliteLog(str(tmp_path / "log.db"), clock=SystemClock(), settings=IMPATIENT)
    with holder:
        before = resources()
        with pytest.raises(LogUnavailable, match=str(os.getpid())):
            await log.start()
        assert resources() == before
    await log.start()
    await log.close()
    holder.close()


async def test_a_start_that_fails_late_closes_what_it_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path / "log.db"):
        pass

    def no_thread(*given: object, **named: object) -> None:
        raise RuntimeError("can't start new thread")

    before = resources()
    with monkeypatch.context() as patched:
        patched.setattr(storage_module, "Writer", no_thread)
        with pytest.raises(RuntimeError, match="new thread"):
            await SqliteLog(str(tmp_path / "log.db"), clock=SystemClock(), settings=IMPATIENT).start()
    assert resources() == before
    async with opened(tmp_path / "log.db"):
        pass


async def test_a_close_that_is_cancelled_while_another_process_writes_still_closes_all_of_it(tmp_path: Path) -> None:
    before = resources()
    async with opened(tmp_path / "log.db", clock=SystemClock()) as log:
        with Turnstile(run_directory(tmp_path / "log.db")) as holder:
            appending = asyncio.ensure_future(log.append([record(1)]))
            while "postline-turnstile" not in resources()[1]:
                await asyncio.sleep(0.001)
            for _ in range(2):
                closing = asyncio.ensure_future(log.close())
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                closing.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await closing
        holder.close()
        assert await appending == [0]
        await log.close()
        # The turnstile's thread ends by itself, soon after it was told to.
        while resources() != before:
            await asyncio.sleep(0.001)


async def test_a_close_that_never_gets_the_write_lock_leaves_the_wal_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = resources()
    async with opened(tmp_path / "log.db", clock=SystemClock(), settings=IMPATIENT) as log:
        await log.append([record(1)])
        with Turnstile(run_directory(tmp_path / "log.db")) as holder:
            await log.close()
        holder.close()
    assert "left to the next one" in caplog.text
    while resources() != before:
        await asyncio.sleep(0.001)
    async with opened(tmp_path / "log.db", clock=SystemClock()) as log:
        assert len(await log.read("orders", 0, 0)) == 1


async def test_those_who_wait_for_a_topic_go_on_in_the_order_in_which_they_came() -> None:
    waiters, woken = Waiters(VirtualClock()), list[int]()

    async def wait(number: int) -> None:
        await waiters.wait("orders", 60)
        woken.append(number)

    tasks = [asyncio.ensure_future(wait(number)) for number in range(50)]
    await asyncio.sleep(0)
    waiters.wake(["orders"])
    await asyncio.gather(*tasks)
    assert woken == list(range(50))
