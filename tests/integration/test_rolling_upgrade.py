"""Versions of a service that follow each other while records flow, a bad one that is rolled back, and a lost file."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from postline import App, Topic
from postline.app import care
from postline.cli import main
from postline.clock import SystemClock
from postline.log.port import Log
from postline.monitor import AuditView, Monitor
from postline.settings import load_settings
from tests.integration.processes import ROOT, Service, publisher, running_service

_CLOCK = SystemClock()

_SHOP = """
from msgspec import Struct
from postline import App, Context, Retry, Topic

orders = Topic("shop.orders", owner="shop", key="customer", partitions=4)
invoices = Topic("shop.invoices", owner="shop", key="customer", partitions=4)

@orders.event("shop.OrderPlaced")
class OrderPlaced(Struct, frozen=True):
    customer: str
    number: int
    {field}

@invoices.event("shop.InvoiceIssued")
class InvoiceIssued(Struct, frozen=True):
    customer: str
    number: int
    total: int
    version: str

app = App("shop", owns=[orders, invoices])
billing = app.subscribe("billing", orders, start="earliest", state=int, retry=Retry(immediate=0, delays=(0.2,) * 100))

@billing.on(OrderPlaced)
async def bill(order: OrderPlaced, ctx: Context) -> InvoiceIssued:
    {first}
    total = (ctx.state.get() or 0) + 1
    ctx.state.put(total)
    return InvoiceIssued(order.customer, order.number, total, "{version}")
"""

_VERSIONS = {
    "v1": _SHOP.format(version="v1", field="", first=""),
    "v2": _SHOP.format(version="v2", field='channel: str = "web"', first=""),
    # A mistake that shows at the start, and one that shows only once it handles records.
    "v3": _SHOP.format(version="v3", field="", first="") + "\nimport a_module_that_nobody_installed\n",
    "v4": _SHOP.format(version="v4", field="", first='raise KeyError("a mistake of version 4")'),
}

orders = Topic("shop.orders", owner="shop", key="customer", partitions=4)


@orders.event("shop.OrderPlaced")
class OrderPlaced(Struct, frozen=True):
    """An order."""

    customer: str
    number: int


class _Load:
    """Publishes one order after another, each with an id of its own, and knows which were acknowledged."""

    def __init__(self, app: App) -> None:
        self._app, self.log = app, app.log
        self._stop = False
        self.acknowledged: list[OrderPlaced] = []

    async def run(self) -> None:
        """Until `stop`."""
        while not self._stop:
            number = len(self.acknowledged)
            order = OrderPlaced(f"c{number % 11}", number)
            await self._app.publish(order, id=f"order-{number}")
            self.acknowledged.append(order)

    def stop(self) -> None:
        """The one under way is the last."""
        self._stop = True

    async def go_on(self, count: int = 100) -> None:
        """Wait until so many more are published: records flow meanwhile."""
        end = len(self.acknowledged) + count
        while len(self.acknowledged) < end:
            await asyncio.sleep(0.005)


@asynccontextmanager
async def _load(url: str) -> AsyncIterator[_Load]:
    async with publisher(url, [orders]) as app:
        load = _Load(app)
        running = asyncio.ensure_future(load.run())
        try:
            yield load
        finally:
            load.stop()
            await running


@pytest.fixture(params=["sqlite", pytest.param("kafka-1", marks=[pytest.mark.brokers, pytest.mark.slow])])
def url(request: pytest.FixtureRequest, place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A log of the test's own."""
    if request.param == "sqlite":
        return f"sqlite:///{place}/shop.db"
    monkeypatch.setenv("POSTLINE_NAMESPACE", f"rolling-{os.getpid()}")
    cluster = request.getfixturevalue("kafka_one")
    return f"kafka://{cluster.bootstrap}?create_topics=true&cache_dir={place}/cache"


def _full(name: str) -> str:
    """A name as the log has it."""
    return load_settings(os.environ, ROOT, url="sqlite://").full_name(name)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """All versions, deployed."""
    for name, text in _VERSIONS.items():
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


class _Fleet:
    """So many processes of a service, whose versions are exchanged one after another."""

    def __init__(self, place: Path, url: str) -> None:
        self._place, self._url = place, url
        self._slots: list[tuple[AbstractAsyncContextManager[Service], Service]] = []

    async def start(self, version: str, count: int) -> None:
        """Start so many of a version; AssertionError if one does not come to run."""
        for _ in range(count):
            context = running_service(str(self._place / f"{version}.py"), url=self._url)
            self._slots.append((context, await context.__aenter__()))

    async def stop_one(self) -> Service:
        """SIGTERM to the oldest; its exit code must be 0."""
        context, service = self._slots.pop(0)
        await context.__aexit__(None, None, None)
        return service

    async def roll(self, version: str) -> None:
        """One after another: stop an old one, start a new one, go on when that runs."""
        for _ in range(len(self._slots)):
            await self.stop_one()
            await self.start(version, 1)

    async def stop(self) -> None:
        """Stop all."""
        while self._slots:
            await self.stop_one()


async def _settled(log: Log, count: int) -> AuditView:
    monitor = Monitor(log, _CLOCK)
    while (audit := await monitor.audit(_full("billing"))).handled < count or audit.outcomes["held"]:
        await asyncio.sleep(0.02)
    return audit


async def _invoices(log: Log) -> dict[str, list[tuple[int, int, str]]]:
    """Each customer's invoices in their order: order, running total, version."""
    found = defaultdict(list)
    for partition in range(4):
        at = 0
        while records := await log.read(_full("shop.invoices"), partition, at):
            at = records[-1][0] + 1
            for record in records:
                invoice = msgspec.json.decode(record[4] or b"{}")
                found[invoice["customer"]].append((invoice["number"], invoice["total"], invoice["version"]))
    return found


def _prove(load: _Load, audit: AuditView, invoices: dict[str, list[tuple[int, int, str]]]) -> set[str]:
    """Each order was billed once, in its customer's order; gives the versions that did it."""
    assert audit.balanced
    assert audit.outcomes["done"] == len(load.acknowledged)
    assert sum(audit.outcomes.values()) == len(load.acknowledged)
    for customer, billed in invoices.items():
        assert [number for number, _, _ in billed] == [o.number for o in load.acknowledged if o.customer == customer]
        assert [total for _, total, _ in billed] == list(range(1, len(billed) + 1))
    return {version for billed in invoices.values() for _, _, version in billed}


async def test_versions_roll_one_after_another_and_bad_ones_are_rolled_back_while_records_flow(
    place: Path, url: str
) -> None:
    fleet = _Fleet(place, url)
    await fleet.start("v1", 2)
    async with _load(url) as load:
        await load.go_on()
        await fleet.roll("v2")
        await load.go_on()
        # Version 3 does not come up: the roll-out stops at its first process, and the other one has gone on.
        await fleet.stop_one()
        with pytest.raises(AssertionError, match="a_module_that_nobody_installed"):
            await fleet.start("v3", 1)
        await load.go_on()
        await fleet.start("v2", 1)
        # Version 4 comes up and fails: its records are held, with their keys, and version 2 handles them again.
        await fleet.stop_one()
        await fleet.start("v4", 1)
        monitor = Monitor(load.log, _CLOCK)
        while not (await monitor.subscription(_full("billing"))).retrying:
            await asyncio.sleep(0.02)
        await load.go_on()
        await fleet.roll("v2")
        await load.go_on()
        load.stop()
        audit = await _settled(load.log, len(load.acknowledged))
        await fleet.stop()
        audit = await _settled(load.log, len(load.acknowledged))
        versions = _prove(load, audit, await _invoices(load.log))
    assert versions == {"v1", "v2"}


async def test_a_lost_file_comes_back_from_its_backup_and_what_is_lost_is_published_again(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, backup = f"sqlite:///{place}/shop.db", place / "backup.db"
    fleet = _Fleet(place, url)
    await fleet.start("v1", 1)
    async with _load(url) as load:
        await load.go_on()
        acknowledged_before = len(load.acknowledged)
        made = await care.backup(place / "shop.db", backup, _CLOCK, lambda done, total: None)
        assert made.unbalanced == []
        await load.go_on()
    await fleet.stop()
    code = await _postline("restore", str(backup), f"{place}/shop.db", "--dry-run", "--table")
    said = capsys.readouterr().out
    assert code == 0, said
    for name in ("shop.db", "shop.db-wal", "shop.db-shm"):
        place.joinpath(name).unlink(missing_ok=True)
    assert await _postline("restore", str(backup), f"{place}/shop.db") == 0
    await fleet.start("v1", 1)
    async with publisher(url, [orders]) as app:
        stored = sum(each.end for each in await app.log.bounds("shop.orders"))
        # What was acknowledged before the backup is in it, and what it lacks was said in records.
        assert acknowledged_before <= stored < len(load.acknowledged)
        assert f"shop.orders: {len(load.acknowledged) - stored:,} (partition" in said
        # Whoever still has them publishes all again, under their ids.
        for order in load.acknowledged:
            await app.publish(order, id=f"order-{order.number}")
        audit = await _settled(app.log, stored + len(load.acknowledged))
        await fleet.stop()
        assert audit.balanced
        assert audit.outcomes["done"] == len(load.acknowledged)
        assert audit.outcomes["duplicate"] == stored
        for customer, billed in (await _invoices(app.log)).items():
            numbers = [order.number for order in load.acknowledged if order.customer == customer]
            assert [number for number, _, _ in billed] == numbers


async def _postline(*arguments: str) -> int:
    """The command line, on a thread, since it runs a loop of its own."""
    return await asyncio.to_thread(main, arguments)
