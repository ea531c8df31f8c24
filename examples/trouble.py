"""A shop to which everything happens that docs/runbook.md mends: touch a file here, and it is in trouble.

`postline run trouble.py`; then `touch backend-away`, `touch hang`, `touch old-version`, or publish an order below zero.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from msgspec import Struct

from postline import App, Breaker, Retry, Topic

orders = Topic("shop.orders", owner="shop", key="customer", partitions=4)


@orders.event("shop.OrderPlaced")
class OrderPlaced(Struct, frozen=True):
    customer: str
    total: int


app = App("shop", owns=[orders])


def there(name: str) -> bool:
    """Whether somebody has touched that file."""
    return Path(name).exists()


billing = app.subscribe("billing", orders, start="earliest", after="hold", retry=Retry(immediate=1, delays=(0.2,)))
mailing = app.subscribe("mailing", orders, start="earliest", retry=Retry(immediate=2, delays=(0.2, 1, 5)))
archive = app.subscribe("archive", orders, start="earliest", slow_after=2)


@billing.on(OrderPlaced, dry_run=True)  # it does nothing elsewhere
async def bill(order: OrderPlaced) -> None:
    if order.total < 0 and not there("mended"):
        raise ValueError("an order can't be negative")


@mailing.on(OrderPlaced, breaker=Breaker(failures=3, probe_seconds=0.5, probe_seconds_max=2, errors=(ConnectionError,)))
async def mail(order: OrderPlaced) -> None:
    if there("backend-away"):
        raise ConnectionError("smtp.example: connection refused")


@archive.on(OrderPlaced)
async def keep(order: OrderPlaced) -> None:
    while there("hang"):  # noqa: ASYNC110 - a file can't wake it
        await asyncio.sleep(0.5)
