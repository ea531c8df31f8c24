"""What apps and commands say of files that they can't work on: an error with a remedy, and nothing is changed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest
from msgspec import Struct

from postline import App, Topic
from postline.app import Environment
from postline.cli import main
from postline.clock import SystemClock
from postline.errors import LogCorrupt, LogError, LogReadOnly, LogUnavailable, LogVersionError
from postline.log.sqlite import connection as connection_module
from postline.log.sqlite.log import SqliteLog
from postline.log.sqlite.storage import Settings as LogSettings
from postline.monitor import Monitor
from postline.settings import LogUrl, Settings

_CLOCK = SystemClock()
_NOBODY = 65534
_LOG_SETTINGS = LogSettings(upkeep_seconds=0, reserve_bytes=0)

orders = Topic("shop.orders", owner="shop", key="customer", partitions=2)


@orders.event("shop.Order")
class Order(Struct):
    """An order."""

    customer: str
    number: int


class Service:
    """An app on a file, and what its handler got."""

    def __init__(self, path: Path) -> None:
        self.handled: list[int] = []
        #: Handlers wait for it.
        self.gate = asyncio.Event()
        self.gate.set()
        self.app = App("shop", owns=[orders])
        self.log = SqliteLog(str(path), clock=_CLOCK, settings=_LOG_SETTINGS)
        self._environment = Environment(self.log, Settings(url=LogUrl("sqlite", str(path))), _CLOCK)
        subscription = self.app.subscribe("billing", orders, start="earliest")

        @subscription.on(Order)
        async def bill(order: Order) -> None:
            await self.gate.wait()
            self.handled.append(order.number)

    async def start(self) -> None:
        """Start it; a file that can't be used raises."""
        await self.app.start(self._environment)

    async def stop(self) -> None:
        """Stop it and close the log."""
        await self.app.stop()
        await self.log.close()

    async def publish(self, *numbers: int) -> None:
        """Publish orders, all at once."""
        await asyncio.gather(*(self.app.publish(Order(f"c{number % 5}", number)) for number in numbers))

    async def caught_up(self) -> None:
        """Wait until all is handled."""
        while not await self.app.caught_up():
            await _CLOCK.sleep(0.005)


async def _use(path: Path, *numbers: int) -> list[int]:
    service = Service(path)
    try:
        await service.start()
        await service.publish(*numbers)
        await service.caught_up()
    finally:
        await service.stop()
    return service.handled


# What is done to a log with messages in it.


def _foreign(path: Path) -> None:
    path.unlink()
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA auto_vacuum = 2; CREATE TABLE diary (day)")
    connection.close()


def _no_database(path: Path) -> None:
    path.write_bytes(b"dear diary, " * 1_000)


def _truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)


def _newer(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA user_version = 99; UPDATE meta SET value = 98 WHERE key = 'min_reader_version'")
    connection.close()


def _damaged_head(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\0" * 50)


def _no_directory(path: Path) -> None:
    path.unlink()
    path.parent.rename(path.parent.with_name("elsewhere"))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A file with messages, closed."""
    place = tmp_path / "place"
    place.mkdir()
    asyncio.run(_use(place / "log.db", *range(500)))
    return place / "log.db"


_BAD = pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (_foreign, LogCorrupt),
        (_no_database, LogCorrupt),
        (_truncated, LogCorrupt),
        (_damaged_head, LogCorrupt),
        (_newer, LogVersionError),
        (_no_directory, LogUnavailable),
    ],
)


@_BAD
def test_an_app_refuses_a_bad_file_and_starts_once_it_is_whole_again(
    log: Path, spoil: Callable[[Path], None], error: type[LogError]
) -> None:
    whole, place = log.read_bytes(), log.parent
    spoil(log)
    spoilt = log.read_bytes() if log.exists() else None
    with pytest.raises(error) as caught:
        asyncio.run(_use(log))
    assert str(log) in caught.value.message or str(place) in caught.value.message
    assert caught.value.remedy
    assert (log.read_bytes() if log.exists() else None) == spoilt
    place.mkdir(exist_ok=True)
    log.write_bytes(whole)
    assert asyncio.run(_use(log, 1000)) == [1000]


@_BAD
def test_commands_name_a_bad_file_and_its_remedy(
    log: Path, spoil: Callable[[Path], None], error: type[LogError], capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(log)
    assert main(["lag", "--url", f"sqlite:///{log}"]) == 3
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "fix: " in said


@pytest.fixture
def without_rights(log: Path) -> None:
    """The test has no right to write the log; root gives its rights up for that, in a child process alone."""
    for path in log.parents:
        if os.stat(path).st_mode & 0o005 != 0o005 and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    log.chmod(0o444)
    log.parent.chmod(0o555)


def test_a_file_that_must_not_be_written_is_refused_by_apps_and_commands(log: Path, without_rights: None) -> None:
    before = log.read_bytes()
    if child := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    else:
        code = 99
        try:
            if os.getuid() == 0:
                os.setuid(_NOBODY)
            with pytest.raises(LogReadOnly, match="can't be written"):
                asyncio.run(_use(log))
            code = main(["lag", "--url", f"sqlite:///{log}"])
        finally:
            os._exit(code)
    assert log.read_bytes() == before


def test_damage_that_a_running_subscription_comes_upon_fails_the_app_and_nothing_is_passed_over(log: Path) -> None:
    whole = log.read_bytes()
    connection = apsw.Connection(str(log))
    connection.execute("UPDATE assignments SET position = 0, progress = x''")
    leaves = "SELECT pageno FROM dbstat WHERE name = 'records' AND pagetype = 'leaf'"
    pages: list[Any] = [page for (page,) in connection.execute(leaves)]
    connection.close()
    with log.open("r+b") as file:
        file.seek((pages[len(pages) // 2] - 1) * 4096)
        file.write(b"\xff" * 4096)

    async def run() -> BaseException:
        service = Service(log)
        await service.start()
        try:
            return await service.app.wait_failed()
        finally:
            await service.stop()

    failure = asyncio.run(run())
    assert isinstance(failure, LogCorrupt)
    assert ".recover" in failure.remedy
    # Restored, it begins where it was.
    log.write_bytes(whole)
    assert asyncio.run(_use(log, 1000)) == [1000]


async def test_a_file_that_another_program_locks_makes_publishers_ask_again_and_consumers_wait(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "_BUSY_MS", 1)
    service = Service(log)
    await service.start()
    service.log.storage.writer.connection.set_busy_timeout(1)
    await service.publish(500)
    await service.caught_up()
    other = apsw.Connection(str(log))
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LogUnavailable, match="locked") as caught:
        await service.publish(501)
    assert caught.value.retryable
    other.execute("ROLLBACK")
    await service.publish(501)
    await service.caught_up()
    assert service.handled == [500, 501]
    audit = await Monitor(service.log, _CLOCK).audit("billing")
    assert (audit.outcomes["done"], audit.balanced) == (502, True)
    other.close()
    await service.stop()


async def test_a_commit_that_meets_a_lock_is_made_again_without_running_the_handlers_again(
    log: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection_module, "_BUSY_MS", 1)
    service, other = Service(log), apsw.Connection(str(log))
    await service.start()
    service.log.storage.writer.connection.set_busy_timeout(1)
    service.gate.clear()
    await service.publish(500)
    other.execute("BEGIN EXCLUSIVE")
    service.gate.set()
    while "can't commit and tries again" not in caplog.text:
        await _CLOCK.sleep(0.001)
    other.execute("ROLLBACK")
    await service.caught_up()
    assert service.handled == [500]
    other.close()
    await service.stop()
