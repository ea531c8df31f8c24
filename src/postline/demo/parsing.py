"""How billing and statistics read one line of a till's file."""

from __future__ import annotations

import csv
import re
from decimal import Decimal

from msgspec import Struct

__all__ = ["COLUMNS", "Line", "UnreadableLine", "read_line", "split_line"]

COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")

# Bounded, so that sums of them are exact in Python's 28 digits.
_NUMBER = re.compile(r"\s*[+-]?[0-9]{1,9}(\.[0-9]{1,4})?\s*")


class UnreadableLine(ValueError):
    """A line that can't be billed as it stands."""


class Line(Struct, frozen=True):
    """One line of an invoice."""

    invoice_no: str
    customer: str
    country: str
    value: Decimal

    @property
    def cancels(self) -> bool:
        """Whether it belongs to a cancellation."""
        return self.invoice_no.startswith("C")


def split_line(text: str) -> list[str]:
    """The columns of a line. Raises UnreadableLine for what is no CSV."""
    try:
        return next(csv.reader([text]), [])
    except csv.Error as error:
        raise UnreadableLine(f"it is no CSV: {error}") from error


def read_line(text: str) -> Line:
    """The line that `text` says. Raises UnreadableLine with the reason."""
    row = split_line(text)
    if len(row) != len(COLUMNS):
        raise UnreadableLine(f"it has {len(row)} columns instead of {len(COLUMNS)}")
    invoice_no, _, _, quantity, _, price, customer, country = row
    if not invoice_no:
        raise UnreadableLine("it has no InvoiceNo")
    return Line(invoice_no, customer, country, _number("Quantity", quantity) * _number("UnitPrice", price))


def _number(column: str, text: str) -> Decimal:
    if not _NUMBER.fullmatch(text):
        raise UnreadableLine(f"{column} {text!r} is no number")
    return Decimal(text.strip())
