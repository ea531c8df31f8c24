"""Two services that book payments in a database of their own, one of which doubles them when its process dies.

`postline.testing.crash_points` tells which (tests/integration/test_crash_points.py, docs/howto/crash-points.md).
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from msgspec import Struct

from postline import App, Context, Topic

payments = Topic("shop.payments", owner="shop", key="customer", partitions=2)


@payments.event("shop.PaymentReceived")
class PaymentReceived(Struct, frozen=True):
    customer: str
    cents: int


blind = App("shop", owns=[payments])


@blind.subscribe("booking", payments, start="earliest").on(PaymentReceived)
def book(payment: PaymentReceived) -> None:
    with opened() as database:
        database.execute("insert into booked values (?, ?, ?)", (None, payment.customer, payment.cents))


careful = App("shop", owns=[payments])


@careful.subscribe("booking", payments, start="earliest").on(PaymentReceived)
def book_once(payment: PaymentReceived, ctx: Context) -> None:
    with opened() as database:
        booking = (ctx.idempotency_key, payment.customer, payment.cents)
        database.execute("insert into booked values (?, ?, ?) on conflict do nothing", booking)


def opened() -> sqlite3.Connection:
    """The service's own database."""
    database = sqlite3.connect("booked.db")
    database.execute("create table if not exists booked (key text primary key, customer text, cents int)")
    return database


# -- what the search needs ---------------------------------------------------------------------------


async def feed(app: App) -> None:
    """What is to be handled."""
    await app.publish_many([PaymentReceived("ann", 500), PaymentReceived("bob", 70)])


def booked(directory: Path) -> list[tuple[str, int]]:
    """What was booked, whatever the keys are."""
    database = sqlite3.connect(directory / "booked.db")
    return database.execute("select customer, cents from booked order by customer").fetchall()
