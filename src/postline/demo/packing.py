"""The packing service: a parcel for each invoice with goods, in the order of the customer's invoices."""

from __future__ import annotations

from postline import App, Context
from postline.demo.billing import RETRY
from postline.demo.contracts import InvoiceIssued, ParcelPacked, invoices, parcels
from postline.demo.scenario import Bench, bench

__all__ = ["LabelJam", "app"]


class LabelJam(Exception):
    """The label printer can't print this invoice's label before it is repaired."""


app = App("packing", owns=[parcels], lifespan=bench)

# after="hold", the default: while a parcel waits for someone, the customer's later ones wait behind it.
packing = app.subscribe("packing", invoices, start="earliest", retry=RETRY)


def _has_goods(invoice: InvoiceIssued) -> bool:
    return invoice.gross > 0


@packing.on(InvoiceIssued, where=_has_goods)
async def pack(invoice: InvoiceIssued, ctx: Context[Bench]) -> ParcelPacked:
    """Print the label and pack."""
    bench = ctx.resources
    bench.may_fail("packing", invoice.number, ctx.attempt)
    if invoice.invoice_no == bench.scenario.poison_invoice and not bench.repaired.exists():
        raise LabelJam(f"the label of invoice {invoice.invoice_no} jams the printer")
    return ParcelPacked(invoice.customer, invoice.invoice_no, invoice.number, invoice.country)
