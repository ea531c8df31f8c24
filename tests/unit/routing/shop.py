"""The topics of the routing tests: orders that are sent on, split, gathered and tapped."""

from __future__ import annotations

from msgspec import Struct

from postline import Topic
from postline.routing import TapTopic

orders = Topic("shop.orders", owner="shop", key="customer", partitions=4)
reviews = Topic("desk.reviews", owner="desk", key="customer", partitions=4)
lines = Topic("desk.lines", owner="desk", key="sku", partitions=4)
totals = Topic("desk.totals", owner="desk", key="order", partitions=4)
copies = TapTopic("desk.copies", owner="desk", partitions=4)


class Item(Struct, frozen=True):
    sku: str
    price: int


@orders.event("shop.OrderPlaced")
class OrderPlaced(Struct, frozen=True):
    order: str
    customer: str
    total: int = 0
    country: str | None = None
    items: list[Item] = []


@reviews.event("desk.Review")
class Review(Struct, frozen=True):
    customer: str
    total: float
    note: str = "by hand"


@reviews.event("desk.Parked")
class Parked(Struct, frozen=True):
    customer: str
    order: str


@lines.event("desk.Line")
class Line(Struct, frozen=True):
    order: str
    sku: str
    price: int


@totals.event("desk.Total")
class Total(Struct, frozen=True):
    order: str
    total: int
    skus: list[str] = []
