"""Effects in a database of one's own, made idempotent: a batch handler, and a plain one with ctx.idempotency_key.

Postline's own effects appear once; those in another database are at-least-once, because a process may die between that
database's commit and ours. So what is written there carries a key by which a repetition is told.

Run it: `ARCHIVE=archive.db postline run batch_archive.py`
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from msgspec import Struct

from postline import App, Context, Topic

orders = Topic("shop.orders", owner="archive", key="customer")


@orders.event("shop.OrderPlaced")
class OrderPlaced(Struct, frozen=True):
    order: str
    customer: str
    total: int


@dataclass(frozen=True)
class Archive:
    """The service's own database; each call opens it, because plain handlers run in several threads."""

    path: Path

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            yield connection


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[Archive]:
    archive = Archive(Path(os.environ.get("ARCHIVE", "archive.db")))
    with archive.transaction() as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS orders (number TEXT PRIMARY KEY, customer TEXT, total INTEGER)")
        connection.execute("CREATE TABLE IF NOT EXISTS postings (id TEXT PRIMARY KEY, customer TEXT, amount INTEGER)")
    yield archive


app = App("archive", owns=[orders], lifespan=lifespan)
archiving = app.subscribe("archiving", orders, start="earliest", batch=500)
posting = app.subscribe("posting", orders, start="earliest")


@archiving.on(OrderPlaced)
def archive_orders(batch: list[OrderPlaced], ctx: Context[Archive]) -> None:
    """One transaction for up to 500 orders; an order's own number tells a repetition."""
    with ctx.resources.transaction() as connection:
        connection.executemany(
            "INSERT OR IGNORE INTO orders VALUES (?, ?, ?)",
            [(order.order, order.customer, order.total) for order in batch],
        )


@posting.on(OrderPlaced)
def post(order: OrderPlaced, ctx: Context[Archive]) -> None:
    """What has no natural number gets ctx.idempotency_key: the same for each attempt, redrive and replay."""
    with ctx.resources.transaction() as connection:
        connection.execute(
            "INSERT OR IGNORE INTO postings VALUES (?, ?, ?)", (ctx.idempotency_key, order.customer, order.total)
        )
