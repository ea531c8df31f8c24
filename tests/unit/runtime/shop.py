"""The topics and messages that the runtime's tests share, and ways to build an app of one handler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from postline import App, Topic
from postline.events import Subscription

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
