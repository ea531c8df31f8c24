"""The topics and messages that the runtime's tests share, and ways to build an app of one handler."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Struct

from postline import App, Topic
from postline.events import Subscription
from postline.testing import TestApp

orders = Topic("shop.orders", owner="shop", key="customer")
notes = Topic("shop.notes", owner="shop")
receipts = Topic("shop.receipts", owner="shop", key="customer", partitions=4)


@orders.event("shop.Order")
class Order(Struct, frozen=True):
    id: str
    customer: str
    total: int = 0


@orders.event("shop.Cancelled")
class Cancelled(Struct, frozen=True):
    id: str
    customer: str


@notes.event("shop.Note")
class Note(Struct, frozen=True):
    text: str


@receipts.event("shop.Receipt")
class Receipt(Struct, frozen=True):
    order: str
    customer: str
    total: int = 0


def build(handler: Callable[..., Any], kind: type = Order, topic: Topic = orders, **options: Any) -> App:
    """An app "shop" that owns all topics, with one subscription "sub" and one handler."""
    app = App("shop", owns=[orders, notes, receipts])
    subscribe(app, handler, kind, topic, **options)
    return app


def subscribe(
    app: App, handler: Callable[..., Any], kind: type = Order, topic: Topic = orders, name: str = "sub", **options: Any
) -> Subscription:
    """A subscription with one handler; `where` goes to `.on`."""
    where = options.pop("where", None)
    subscription = app.subscribe(name, topic, start=options.pop("start", "earliest"), **options)
    subscription.on(kind, where=where)(handler)
    return subscription


@asynccontextmanager
async def running(*apps: App, settled: bool = True, **options: Any) -> AsyncIterator[TestApp]:
    """The apps under test; leaving it settles what is left and checks that the audit balances."""
    async with TestApp(*apps, **options) as t:
        yield t
        if settled:
            await t.settle()
        t.audit()


def spread(customers: int, orders_each: int) -> list[Order]:
    """Orders of several customers in turn; `total` counts up for each customer."""
    return [Order(f"{c}-{n}", f"c{c}", n) for n in range(orders_each) for c in range(customers)]


def in_order(handled: list[Order]) -> bool:
    """Whether each customer's orders were handled once, one after another."""
    by_customer: dict[str, list[int]] = {}
    for order in handled:
        by_customer.setdefault(order.customer, []).append(order.total)
    return all(totals == list(range(len(totals))) for totals in by_customer.values())
