"""One process of a kill loop: `python -m tests.fault.process DIRECTORY ROLE NUMBER VERSION LIFE`.

It works until SIGTERM, or until its standard input ends because whoever started it is gone.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from postline import App
from postline.app import Environment
from postline.clock import SystemClock
from postline.errors import LogError, UsageError
from postline.log.port import Assignment, CommitUnit, GroupSpec, Membership, PartitionOwner
from postline.log.sqlite.log import SqliteLog
from postline.log.sqlite.storage import Settings as LogSettings
from postline.monitor import DeadLetterView, Monitor, RecordId
from postline.operations import Operations
from postline.settings import LogUrl, Settings
from tests.fault.journal import Journal, entries
from tests.fault.scenario import Scenario, Slot
from tests.fault.services import Cancellation, Order, Services, Tick, mended, order_id, shop

__all__ = ["ENOUGH", "LOG", "open_log", "url_of"]

LOG = "log.db"
#: A file of that name tells publishers to come to an end.
ENOUGH = "enough"
_CLOCK = SystemClock()


def url_of(directory: Path) -> str:
    """The log, for `postline run`."""
    return f"sqlite:///{directory / LOG}?upkeep_seconds=0.5&reserve_mb=1"


def _log_settings(scenario: Scenario) -> LogSettings:
    return LogSettings(upkeep_seconds=0.5, reserve_bytes=1 << 20, lease_seconds=scenario.lease_seconds)


@asynccontextmanager
async def open_log(scenario: Scenario, directory: Path) -> AsyncIterator[SqliteLog]:
    """The log, open for somebody who looks on."""
    log = SqliteLog(str(directory / LOG), clock=_CLOCK, settings=_log_settings(scenario))
    await log.start()
    try:
        yield log
    finally:
        await log.close()


class _WatchedLog(SqliteLog):
    """The engine as it is, whose commits are written down."""

    journal: Journal

    async def join(self, spec: GroupSpec, owner: PartitionOwner) -> Membership:
        """Join; the membership is watched."""
        inner = await super().join(spec, owner)
        return _WatchedMembership(inner, self.journal, spec.subscription)


class _WatchedMembership:
    """Passes everything on."""

    def __init__(self, inner: Membership, journal: Journal, subscription: str) -> None:
        self._inner, self._journal, self._subscription = inner, journal, subscription

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def commit(self, unit: CommitUnit) -> list[Assignment]:
        """Commit, and say when it began and ended."""
        self._journal.write("commit", self._subscription)
        try:
            refused = await self._inner.commit(unit)
        finally:
            self._journal.write("committed", self._subscription)
        if refused:
            self._journal.write("refused", self._subscription, len(refused))
        return refused


class _Process:
    """What all roles have."""

    def __init__(self, directory: Path, slot: Slot, life: int) -> None:
        self.directory, self.slot = directory, slot
        self.scenario = Scenario.load(directory)
        self.random = self.scenario.random_of(slot.name, life)
        self.journal = Journal(directory, slot.name, life)
        self.log = _WatchedLog(str(directory / LOG), clock=_CLOCK, settings=_log_settings(self.scenario))
        self.log.journal = self.journal

    async def start(self, *apps: App, consume: bool = True) -> None:
        """Start the apps on the one log."""
        settings = Settings(url=LogUrl("sqlite", str(self.directory / LOG)), instance=self.slot.name)
        for app in apps:
            await app.start(Environment(self.log, settings, _CLOCK, self.random), consume=consume)
        self.journal.write("ready")

    # Roles

    async def worker(self) -> None:
        """Run all services; a stop is asked for by cancelling."""
        apps = Services(self.scenario, self.directory, self.journal, self.slot.version).apps
        try:
            await self.start(*apps)
            failing = [asyncio.ensure_future(app.wait_failed()) for app in apps]
            done, _ = await asyncio.wait(failing, return_when=asyncio.FIRST_COMPLETED)
            raise next(iter(done)).result()
        finally:
            for app in apps:
                await app.stop()

    async def publisher(self) -> None:
        """Publish each customer's orders one after another, until it is enough."""
        app = shop()
        await self.start(app, consume=False)
        acknowledged, tried = self._published("ack"), self._published("try")
        customers = self.scenario.customers_of(self.slot.number)
        async with asyncio.TaskGroup() as group:
            for index, customer in enumerate(customers):
                first, last = acknowledged.get(customer, -1) + 1, tried.get(customer, -1)
                group.create_task(self._publish(app, customer, first, last, size=4 if index == 0 else 1))
        await app.stop()

    def _published(self, mark: str) -> dict[str, int]:
        """The last number of each customer that this slot's processes have tried, or had acknowledged."""
        found: dict[str, int] = {}
        for entry in entries(self.directory, self.slot.name):
            if entry.mark == mark:
                customer, number = entry.fields
                found[customer] = max(int(number), found.get(customer, -1))
        return found

    async def _publish(self, app: App, customer: str, first: int, tried: int, size: int) -> None:
        """What was tried and not acknowledged is published again under the same ids, here and after a restart."""
        enough, number = self.directory / ENOUGH, first
        while number <= tried or not enough.exists():
            messages = [self._message(customer, each) for each in range(number, number + size)]
            for message in messages:
                self.journal.write("try", customer, message.number)
            try:
                await self._publish_all(app, messages)
            except LogError as error:
                if not error.retryable:
                    raise
                await _CLOCK.sleep(0.1)
                continue
            for message in messages:
                self.journal.write("ack", customer, message.number)
            number += size
            await _CLOCK.sleep(self.random.uniform(0, self.scenario.pause_seconds))

    async def _publish_all(self, app: App, messages: Sequence[Order | Cancellation]) -> None:
        if len(messages) > 1:
            await app.publish_many(messages, id_of=lambda each: order_id(each.customer, each.number))
            await app.publish(Tick("x" * 500))
        else:
            await app.publish(messages[0], id=order_id(messages[0].customer, messages[0].number))

    def _message(self, customer: str, number: int) -> Order | Cancellation:
        kind = Cancellation if self.scenario.cancels(customer, number) else Order
        return kind(customer, number, number + 1)

    async def operator(self) -> None:
        """Redrive and discard dead letters; pause and resume now and then."""
        await self.log.start()
        operations = Operations(self.log, _CLOCK, self.random)
        monitor = Monitor(self.log, _CLOCK)
        self.journal.write("ready")
        paused = True  # by a predecessor, perhaps
        while True:
            known = {info.name for info in await self.log.subscriptions()}
            for name in ("billing", "ledger"):
                for letter in await monitor.dead_letters(name) if name in known else ():
                    await self._answer(operations, name, letter)
            if "billing" in known:
                if paused:
                    await operations.resume("billing")
                paused = self.random.random() < 0.05
                if paused:
                    await operations.pause("billing")
            self.journal.write("looked")
            await _CLOCK.sleep(self.random.uniform(0.02, 0.2))

    async def _answer(self, operations: Operations, name: str, letter: DeadLetterView) -> None:
        topic = {"billing": "shop.orders", "ledger": "billing.invoices"}[name]
        (record,) = await self.log.read_offsets(topic, letter.partition, [letter.offset])
        place = RecordId(letter.partition, letter.offset)
        customer, _, number = self.log.envelope(record).id.rpartition("-")
        self.journal.write("ask", name, place)
        try:
            if name == "billing" and self.scenario.mood(customer, int(number)) == "hopeless":
                await operations.discard(name, [place], "hopeless")
                return
            if name == "billing" and self.random.random() < 0.7:  # else in vain
                mended(self.directory, customer, int(number)).touch()
            await operations.redrive(name, [place])
        except UsageError:
            self.journal.write("late", name, place)  # what was asked before was done meanwhile
        finally:
            self.journal.write("asked", name, place)

    async def keeper(self) -> None:
        """Retention and compaction over and over, beside what every process does of it."""
        await self.log.start()
        self.journal.write("ready")
        while True:
            self.journal.write("tidy")
            await self.log.run_maintenance()
            self.journal.write("tidied")
            await _CLOCK.sleep(self.random.uniform(0, 0.01))


async def _main(process: _Process, role: str) -> None:
    loop = asyncio.get_running_loop()
    working = asyncio.ensure_future(getattr(process, role)())
    stopping = False

    def stop() -> None:
        nonlocal stopping
        stopping = True
        loop.remove_reader(sys.stdin.fileno())
        working.cancel()

    loop.add_signal_handler(signal.SIGTERM, stop)
    loop.add_reader(sys.stdin.fileno(), stop)
    try:
        await working
    except asyncio.CancelledError:
        if not stopping:
            raise
    finally:
        await process.log.close()


def main(arguments: Sequence[str]) -> None:
    """Play a role."""
    directory, role, number, version, life = arguments
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    process = _Process(Path(directory), Slot(role, int(number), int(version)), int(life))
    asyncio.run(_main(process, role))


if __name__ == "__main__":
    main(sys.argv[1:])
