"""The statistics service: counts lines as they come in, and sums invoices by customer and by country."""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct

from postline import App, Context
from postline.demo.billing import RETRY
from postline.demo.contracts import (
    CountrySale,
    CountryTotals,
    CustomerTotals,
    InvoiceIssued,
    LineRead,
    LinesCounted,
    countries,
    counts,
    customers,
    invoices,
    lines,
    sales,
)
from postline.demo.parsing import Line, UnreadableLine, read_line
from postline.demo.scenario import Bench, bench

__all__ = ["app"]

app = App("statistics", owns=[counts, customers, sales, countries], lifespan=bench)

# Lines, all of them: many to a call, since each adds only a little.

counting = app.subscribe("counting", lines, start="earliest", batch=1_000, state=int)


@counting.on(LineRead)
async def count(batch: list[LineRead], ctx: Context[Bench]) -> LinesCounted:
    """Add a batch up. The state of an invoice is the number of its last readable line."""
    readable = [(read, line) for read in batch if (line := _readable(read)) is not None]
    new = late = 0
    for read, _ in readable:
        last = ctx.state.get(read.invoice_no)
        new += last is None
        late += last is not None and last >= read.number
        ctx.state.put(read.number, read.invoice_no)
    return LinesCounted(
        lines=len(batch),
        unreadable=len(batch) - len(readable),
        invoices=new,
        cancelled=sum(line.cancels for _, line in readable),
        without_customer=sum(not line.customer for _, line in readable),
        revenue=sum((line.value for _, line in readable), Decimal(0)),
        out_of_order=late,
    )


def _readable(read: LineRead) -> Line | None:
    try:
        return read_line(read.text)
    except UnreadableLine:
        return None


# Invoices: each customer's totals, and the same sale told by country, for another key.


class Account(Struct, frozen=True):
    """What is known of a customer."""

    invoices: int = 0
    gross: Decimal = Decimal(0)
    refunds: Decimal = Decimal(0)
    #: Offset of the last invoice; the next one's is above it.
    last_offset: int = -1
    out_of_order: int = 0


by_customer = app.subscribe("customer-totals", invoices, start="earliest", state=Account, retry=RETRY)


@by_customer.on(InvoiceIssued)
async def add_to_customer(invoice: InvoiceIssued, ctx: Context[Bench]) -> CustomerTotals:
    """Sum the customer's invoices."""
    ctx.resources.may_fail("customer-totals", invoice.number, ctx.attempt)
    known: Account = ctx.state.get() or Account()
    account = Account(
        known.invoices + 1,
        known.gross + invoice.gross,
        known.refunds + invoice.refunds,
        ctx.offset,
        known.out_of_order + (ctx.offset <= known.last_offset),
    )
    ctx.state.put(account)
    ctx.publish(CountrySale(invoice.country, invoice.gross, invoice.refunds))
    return CustomerTotals(
        invoice.customer, invoice.invoice_no, account.invoices, account.gross, account.refunds, account.out_of_order
    )


by_country = app.subscribe("country-totals", sales, start="earliest", state=CountryTotals, retry=RETRY)


@by_country.on(CountrySale)
async def add_to_country(sale: CountrySale, ctx: Context[Bench]) -> CountryTotals:
    """Sum the country's invoices."""
    ctx.resources.may_fail("country-totals", ctx.offset, ctx.attempt)
    known: CountryTotals = ctx.state.get() or CountryTotals(sale.country, 0, Decimal(0), Decimal(0))
    totals = CountryTotals(sale.country, known.invoices + 1, known.gross + sale.gross, known.refunds + sale.refunds)
    ctx.state.put(totals)
    return totals
