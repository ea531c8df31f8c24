"""The billing service: lines of receipts become invoices; duplicates and unreadable lines don't."""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct
from msgspec.structs import replace

from postline import App, Context, DeadLetter, Dedup, Retry
from postline.demo.contracts import InvoiceIssued, LineRead, ReceiptClosed, invoices, lines
from postline.demo.parsing import Line, UnreadableLine, read_line
from postline.demo.scenario import Bench, bench

__all__ = ["RETRY", "app"]

#: Twice at once, then a little later: what goes wrong in this shop is over soon.
RETRY = Retry(immediate=2, delays=(0.1, 0.3, 1.0))


class Receipt(Struct, frozen=True):
    """What is known of an invoice number: the lines that wait to be billed, by customer and country."""

    open: tuple[InvoiceIssued, ...] = ()
    closed: bool = False

    def with_line(self, line: Line, number: int) -> Receipt:
        """This receipt with one line more."""
        value = line.value
        gross, refunds = (value, Decimal(0)) if value >= 0 else (Decimal(0), value)
        for index, part in enumerate(self.open):
            if (part.invoice_no, part.customer, part.country) == (line.invoice_no, line.customer, line.country):
                added = replace(part, lines=part.lines + 1, gross=part.gross + gross, refunds=part.refunds + refunds)
                return replace(self, open=(*self.open[:index], added, *self.open[index + 1 :]))
        part = InvoiceIssued(line.invoice_no, number, line.customer, line.country, 1, gross, refunds)
        return replace(self, open=(*self.open, part))


app = App("billing", owns=[invoices], lifespan=bench)

# The same text twice on one invoice is a duplicate, wherever it stands. A line that can't be read says nothing about
# the next one: its dead letter doesn't hold the invoice.
billing = app.subscribe(
    "billing",
    lines,
    start="earliest",
    state=Receipt,
    dedup=Dedup(digest=True, ignore=("number", "file", "line")),
    retry=RETRY,
    after="continue",
)


@billing.on(LineRead)
async def collect(read: LineRead, ctx: Context[Bench]) -> InvoiceIssued | None:
    """Keep the line until its receipt is closed; bill one that comes late at once."""
    ctx.resources.may_fail("billing", read.number, ctx.attempt)
    try:
        line = read_line(read.text)
    except UnreadableLine as error:
        raise DeadLetter(f"{read.file} line {read.line}: {error}") from error
    receipt: Receipt = ctx.state.get() or Receipt()
    if receipt.closed:
        return Receipt().with_line(line, read.number).open[0]
    ctx.state.put(receipt.with_line(line, read.number))
    return None


@billing.on(ReceiptClosed)
async def issue(closing: ReceiptClosed, ctx: Context[Bench]) -> None:
    """Bill what the receipt has."""
    receipt: Receipt = ctx.state.get() or Receipt()
    for part in receipt.open:
        ctx.publish(part)
    ctx.state.put(Receipt(closed=True))
