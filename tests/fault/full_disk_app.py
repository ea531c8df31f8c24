"""A service that publishes and consumes while its disk fills up and gets room again; run by test_full_disk."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import apsw
from msgspec import Struct

from postline import App, Topic
from postline.app import Environment
from postline.clock import SystemClock
from postline.errors import LogFull
from postline.log.sqlite.log import SqliteLog
from postline.log.sqlite.storage import Settings as LogSettings
from postline.monitor import Monitor
from postline.settings import LogUrl, Settings

_DISK = "size=24m"
_LOG_SETTINGS = LogSettings(upkeep_seconds=0, reserve_bytes=4 << 20)
_CLOCK = SystemClock()

orders = Topic("shop.orders", owner="shop", partitions=2, key="customer")
invoices = Topic("shop.invoices", owner="shop", partitions=2, key="customer")


@orders.event("shop.Order")
class Order(Struct):
    """Large enough to fill something."""

    customer: str
    number: int
    text: str = "x" * 1_000


@invoices.event("shop.Invoice")
class Invoice(Struct):
    """One for each order; `total` is the customer's."""

    customer: str
    number: int
    total: int
    text: str = "y" * 1_000


class Service:
    """The app, what it was told was stored, and how often its handler ran."""

    def __init__(self, log: SqliteLog) -> None:
        self.runs = Counter[int]()
        self.acknowledged: list[int] = []
        self.numbers = itertools.count()
        self.log = log
        self.gate = asyncio.Event()
        self.app = App("shop", owns=[orders, invoices])
        subscription = self.app.subscribe("billing", orders, start="earliest", state=int)

        @subscription.on(Order)
        async def bill(order: Order, ctx) -> Invoice:
            await self.gate.wait()
            self.runs[order.number] += 1
            total = (ctx.state.get() or 0) + 1
            ctx.state.put(total)
            return Invoice(order.customer, order.number, total)

    async def publish(self) -> bool:
        """One more order; whether it was taken."""
        number = next(self.numbers)
        try:
            await self.app.publish(Order(f"c{number % 5}", number), id=str(number))
        except LogFull:
            return False
        self.acknowledged.append(number)
        return True

    async def invoiced(self) -> list[tuple[str, int, int]]:
        """Customer, number and total of all invoices."""
        found = []
        for partition, bounds in enumerate(await self.log.bounds(invoices.name)):
            records = await self.log.read(invoices.name, partition, bounds.start, limit=10**6, max_bytes=1 << 30)
            found += [invoices.decoder_of(record[3])(record[4] or b"") for record in records]
        return [(each.customer, each.number, each.total) for each in found]


async def fill(place: Path) -> dict[str, object]:
    """The whole story; gives what the test asserts on."""
    log = SqliteLog(str(place / "log.db"), clock=_CLOCK, settings=_LOG_SETTINGS)
    service, found = Service(log), dict[str, object]()
    await service.app.start(Environment(log, Settings(url=LogUrl("sqlite", str(place / "log.db"))), _CLOCK))
    for _ in range(300):
        await service.publish()
    # Something else eats up the disk, while handlers are at work on what was published so far.
    ballast = place / "ballast"
    room = os.statvfs(place)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - (1 << 20))
    while await service.publish():
        pass
    found["refused after"] = len(service.acknowledged)
    service.gate.set()
    while len(service.runs) < len(service.acknowledged):
        await _CLOCK.sleep(0.01)
    found["refused while full"] = not await service.publish()
    found["invoices while full"] = len(await service.invoiced())
    # Handlers are done, and what they published finds no room: nothing of it is stored, nothing is lost.
    ballast.unlink()
    while not await service.publish():
        await _CLOCK.sleep(0.01)
    while not await service.app.caught_up():
        await _CLOCK.sleep(0.01)
    await service.app.stop()
    audit = await Monitor(log, _CLOCK).audit("billing")
    totals: dict[str, list[int]] = {}
    for customer, _, total in await service.invoiced():
        totals.setdefault(customer, []).append(total)
    found |= {
        "acknowledged": sorted(service.acknowledged),
        "invoiced": sorted(number for _, number, _ in await service.invoiced()),
        "totals": [sorted(each) == list(range(1, len(each) + 1)) for each in totals.values()],
        "runs": max(service.runs.values()),
        "done": audit.outcomes["done"],
        "balanced": audit.balanced,
    }
    await log.close()
    connection = apsw.Connection(str(place / "log.db"))
    found["integrity"] = [text for (text,) in connection.execute("PRAGMA integrity_check")]
    return found


if __name__ == "__main__":
    mount = Path(sys.argv[1])
    subprocess.run(["mount", "-t", "tmpfs", "-o", _DISK, "none", str(mount)], check=True)
    sys.stdout.write(json.dumps(asyncio.run(fill(mount))))
