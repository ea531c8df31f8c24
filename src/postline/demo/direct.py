"""The same sums in plain Python over the same files: no log, no services, nothing shared with how they read a line."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

__all__ = ["Direct", "compute"]


@dataclass
class Direct:
    """What the shop has to arrive at."""

    # On all lines.
    lines: int = 0
    exact_duplicate_lines: int = 0
    cancelled_lines: int = 0
    lines_without_customer: int = 0
    revenue_all_lines: Decimal = Decimal(0)
    invoice_numbers: set[str] = field(default_factory=set)
    customer_ids: set[str] = field(default_factory=set)
    unreadable_lines: int = 0
    # With exact duplicates dropped.
    gross: Decimal = Decimal(0)
    refunds: Decimal = Decimal(0)
    net_by_customer: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    net_by_country: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    net_without_customer: Decimal = Decimal(0)
    #: Texts of the lines that must end as dead letters.
    unreadable: set[str] = field(default_factory=set)
    #: Invoice numbers with goods by customer, in the order of the files.
    invoices_by_customer: dict[str, list[str]] = field(default_factory=dict)


def compute(directory: Path) -> Direct:
    """Read the files once and sum them up."""
    direct = Direct()
    seen: set[str] = set()
    for path in sorted(directory.glob("*.csv")):
        content = path.read_bytes().decode("utf-8-sig", errors="backslashreplace")
        for index, ended in enumerate(content.split("\n")):
            text = ended.rstrip("\r")
            if text and not (index == 0 and text.startswith("InvoiceNo,")):
                _add(direct, text, is_new=text not in seen)
                seen.add(text)
    return direct


def _add(direct: Direct, text: str, *, is_new: bool) -> None:
    direct.lines += 1
    direct.exact_duplicate_lines += not is_new
    try:
        invoice, _, _, quantity, _, price, customer, country = next(csv.reader([text]))
        if not invoice:
            raise ValueError(text)
        value = _decimal(quantity) * _decimal(price)
    except (ValueError, csv.Error):
        direct.unreadable_lines += 1
        direct.unreadable.add(text)
        return
    direct.cancelled_lines += invoice.startswith("C")
    direct.lines_without_customer += customer == ""
    direct.revenue_all_lines += value
    direct.invoice_numbers.add(invoice)
    if customer:
        direct.customer_ids.add(customer)
        if value > 0:
            bought = direct.invoices_by_customer.setdefault(customer, [])
            if invoice not in bought[-1:]:
                bought.append(invoice)
    if is_new:
        _add_unique(direct, value, customer, country)


def _add_unique(direct: Direct, value: Decimal, customer: str, country: str) -> None:
    if value < 0:
        direct.refunds += value
    else:
        direct.gross += value
    direct.net_by_country[country] += value
    if customer:
        direct.net_by_customer[customer] += value
    else:
        direct.net_without_customer += value


def _decimal(text: str) -> Decimal:
    """A plain number of at most nine digits and four decimals; ValueError for anything else."""
    whole, _, decimals = text.strip().lstrip("+-").partition(".")
    digits = whole + decimals
    if not (digits.isascii() and digits.isdigit()) or not 1 <= len(whole) <= 9 or len(decimals) > 4:
        raise ValueError(f"{text!r} is no number")
    if text.strip().endswith(".") or len(text.strip()) - len(text.strip().lstrip("+-")) > 1:
        raise ValueError(f"{text!r} is no number")
    return Decimal(text.strip())
