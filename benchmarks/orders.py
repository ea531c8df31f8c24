"""The work that every contender gets: orders of exactly 277 bytes, 997 customers, 8 partitions."""

from __future__ import annotations

from msgspec import Struct

from postline import Topic

__all__ = ["CUSTOMERS", "ORDER_BYTES", "Invoice", "Item", "Order", "invoices", "order", "orders"]

ORDER_BYTES = 277
CUSTOMERS = 997

orders = Topic("shop.orders", owner="shop", key="customer_id", partitions=8)
invoices = Topic("billing.invoices", owner="billing", key="customer_id", partitions=8)


class Item(Struct, frozen=True, gc=False):
    """A line of an order."""

    sku: str
    quantity: int
    price: float


@orders.event("shop.OrderPlaced")
class Order(Struct, frozen=True):
    """An order as shops write them: text, numbers and a list."""

    order_id: str
    customer_id: str
    total_cents: int
    currency: str
    placed_at_ns: int
    note: str
    items: list[Item]


@invoices.event("billing.InvoiceIssued")
class Invoice(Struct, frozen=True):
    """What a handler publishes for an order."""

    order_id: str
    customer_id: str
    total_cents: int


_ITEMS = [Item("sku-1041", 2, 10.25), Item("sku-2718", 1, 99.5)]
_NOTE = "Please leave it with the neighbours"


def order(number: int, placed_at_ns: int = 1_700_000_000_000_000_000) -> Order:
    """Order `number`, below 100 million; always 277 bytes of JSON."""
    customer = f"customer-{number % CUSTOMERS:04d}"
    return Order(f"order-{number:08d}", customer, 10_000 + number % 90_000, "EUR", placed_at_ns, _NOTE, _ITEMS)
