"""A contract, a service that bills, and each customer's running total, all in one commit: the README's tour.

Run it: `postline run shop.py`, then publish from another terminal (the README says how).
"""

from __future__ import annotations

from msgspec import Struct

from postline import App, Context, Retry, Topic

orders = Topic("shop.orders", owner="shop", key="customer")
invoices = Topic("shop.invoices", owner="shop", key="customer")


@orders.event("shop.OrderPlaced")
class OrderPlaced(Struct, frozen=True):
    order: str
    customer: str
    total: int


@invoices.event("shop.InvoiceIssued")
class InvoiceIssued(Struct, frozen=True):
    order: str
    customer: str
    running_total: int


app = App("shop", owns=[orders, invoices])
billing = app.subscribe("billing", orders, start="earliest", state=int, retry=Retry(immediate=2, delays=(1, 5)))


@billing.on(OrderPlaced)
async def bill(order: OrderPlaced, ctx: Context) -> InvoiceIssued:
    if order.total < 0:
        raise ValueError("an order can't be negative")
    total = (ctx.state.get() or 0) + order.total
    ctx.state.put(total)  # committed together with the record and the invoice
    return InvoiceIssued(order.order, order.customer, total)
