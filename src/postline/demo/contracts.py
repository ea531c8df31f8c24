"""What the shop's services say to each other: their topics and message types."""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct

from postline import Schemas, Topic
from postline.contracts import Compaction

__all__ = [
    "CountrySale",
    "CountryTotals",
    "CustomerTotals",
    "InvoiceIssued",
    "LineRead",
    "LinesCounted",
    "ParcelPacked",
    "ReceiptClosed",
    "RefundPaid",
    "countries",
    "counts",
    "customers",
    "invoices",
    "lines",
    "parcels",
    "payments",
    "sales",
]

# The shop: what the tills wrote, line by line as it stands in the file. All lines of an invoice have one key, so they
# stay in order and exact duplicates meet in one partition.

lines = Topic("shop.lines", owner="shop", key="invoice_no", schemas=Schemas(message_bytes_max=16 << 20))


@lines.event("shop.LineRead")
class LineRead(Struct, frozen=True):
    """One line of a file, untouched; `number` counts the lines of all files from 1."""

    invoice_no: str
    text: str
    number: int
    file: str
    line: int


@lines.event("shop.ReceiptClosed")
class ReceiptClosed(Struct, frozen=True):
    """The till went on to another invoice after a line; one that came back to an invoice closes it again."""

    invoice_no: str
    #: Not named `number`, which billing's deduplication ignores: no two closings are the same.
    after_line: int


# Billing: invoices per customer.


def _account(message: InvoiceIssued | ParcelPacked | RefundPaid | CustomerTotals) -> str:
    """Whose message it is: a customer, or an invoice without one, kept apart from all others."""
    return message.customer or f"without customer/{message.invoice_no}"


invoices = Topic("billing.invoices", owner="billing", key=_account)


@invoices.event("billing.InvoiceIssued")
class InvoiceIssued(Struct, frozen=True):
    """What a customer was charged and is to get back. (invoice_no, number, customer, country) is unique."""

    invoice_no: str
    #: Number of the line, or of the closing of the receipt, that made it.
    number: int
    customer: str
    country: str
    lines: int
    #: Sum of the lines of zero and above.
    gross: Decimal
    #: Sum of the lines below zero.
    refunds: Decimal


# Packing and refunds: one message out for each invoice that asks for it.

parcels = Topic("packing.parcels", owner="packing", key=_account)


@parcels.event("packing.ParcelPacked")
class ParcelPacked(Struct, frozen=True):
    """The goods of an invoice are on their way."""

    customer: str
    invoice_no: str
    number: int
    country: str


payments = Topic("refunds.payments", owner="refunds", key=_account)


@payments.event("refunds.RefundPaid")
class RefundPaid(Struct, frozen=True):
    """Money went back to a customer; `paid_before` is what had gone to them until then."""

    customer: str
    invoice_no: str
    number: int
    country: str
    amount: Decimal
    paid_before: Decimal


# Statistics: counts of what came in, and totals of which only the newest matters.

counts = Topic("statistics.counts", owner="statistics", partitions=1)


@counts.event("statistics.LinesCounted")
class LinesCounted(Struct, frozen=True):
    """What one batch of lines adds to the figures on all lines, duplicates included."""

    lines: int = 0
    unreadable: int = 0
    invoices: int = 0
    cancelled: int = 0
    without_customer: int = 0
    revenue: Decimal = Decimal(0)
    #: Lines that came after a later one of their invoice.
    out_of_order: int = 0


customers = Topic("statistics.customers", owner="statistics", key=_account, compaction=Compaction())


@customers.event("statistics.CustomerTotals")
class CustomerTotals(Struct, frozen=True):
    """All that a customer's invoices came to so far."""

    customer: str
    invoice_no: str
    invoices: int
    gross: Decimal
    refunds: Decimal
    out_of_order: int


def _country(message: CountrySale | CountryTotals) -> str:
    return message.country or "no country"


sales = Topic("statistics.sales", owner="statistics", key=_country, partitions=4)


@sales.event("statistics.CountrySale")
class CountrySale(Struct, frozen=True):
    """One invoice, told by country."""

    country: str
    gross: Decimal
    refunds: Decimal


countries = Topic("statistics.countries", owner="statistics", key=_country, partitions=4, compaction=Compaction())


@countries.event("statistics.CountryTotals")
class CountryTotals(Struct, frozen=True):
    """All that a country's invoices came to so far."""

    country: str
    invoices: int
    gross: Decimal
    refunds: Decimal
