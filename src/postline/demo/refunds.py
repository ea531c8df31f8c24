"""The refunds service: pays back what cancellations ask for, and remembers how much each customer got."""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct

from postline import App, Context
from postline.demo.billing import RETRY
from postline.demo.contracts import InvoiceIssued, RefundPaid, invoices, payments
from postline.demo.scenario import Bench, bench

__all__ = ["app"]


class Paid(Struct, frozen=True):
    """What a customer got back so far."""

    total: Decimal = Decimal(0)


app = App("refunds", owns=[payments], lifespan=bench)
refunds = app.subscribe("refunds", invoices, start="earliest", state=Paid, retry=RETRY)


def _asks_for_money(invoice: InvoiceIssued) -> bool:
    return invoice.refunds < 0


@refunds.on(InvoiceIssued, where=_asks_for_money)
async def pay(invoice: InvoiceIssued, ctx: Context[Bench]) -> RefundPaid:
    """Pay, and add it up in the same step."""
    ctx.resources.may_fail("refunds", invoice.number, ctx.attempt)
    before: Paid = ctx.state.get() or Paid()
    amount = -invoice.refunds
    ctx.state.put(Paid(before.total + amount))
    return RefundPaid(invoice.customer, invoice.invoice_no, invoice.number, invoice.country, amount, before.total)
