"""What lies on the shop's topics at the end, read as any program may read a log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from postline import Topic
from postline.demo import contracts
from postline.demo.contracts import (
    CountryTotals,
    CustomerTotals,
    InvoiceIssued,
    LineRead,
    LinesCounted,
    ParcelPacked,
    RefundPaid,
)
from postline.demo.shoplog import ShopLog

__all__ = ["Stored", "account_of", "identity_of", "read_messages", "read_stored"]


@dataclass
class Stored:
    """What lies on the shop's topics."""

    lines: list[LineRead] = field(default_factory=list)
    closings: int = 0
    #: Records that the shop published again after it was killed: all, and lines among them.
    repeated: int = 0
    repeated_lines: int = 0
    invoices: list[InvoiceIssued] = field(default_factory=list)
    parcels: list[ParcelPacked] = field(default_factory=list)
    payments: list[RefundPaid] = field(default_factory=list)
    counted: list[LinesCounted] = field(default_factory=list)
    customers: list[CustomerTotals] = field(default_factory=list)
    countries: list[CountryTotals] = field(default_factory=list)


async def read_stored(shop: ShopLog) -> Stored:
    """Read all of the shop's topics."""
    stored = Stored()
    numbers: set[tuple[type, int]] = set()
    async for message in read_messages(shop, contracts.lines):
        mark = (type(message), message.number if isinstance(message, LineRead) else message.after_line)
        stored.repeated += mark in numbers
        stored.repeated_lines += mark in numbers and isinstance(message, LineRead)
        if mark not in numbers and isinstance(message, LineRead):
            stored.lines.append(message)
        elif mark not in numbers:
            stored.closings += 1
        numbers.add(mark)
    stored.invoices = [message async for message in read_messages(shop, contracts.invoices)]
    stored.parcels = [message async for message in read_messages(shop, contracts.parcels)]
    stored.payments = [message async for message in read_messages(shop, contracts.payments)]
    stored.counted = [message async for message in read_messages(shop, contracts.counts)]
    # Of totals only the newest of a key counts.
    customers = {account_of(message): message async for message in read_messages(shop, contracts.customers)}
    countries = {message.country: message async for message in read_messages(shop, contracts.countries)}
    stored.customers, stored.countries = list(customers.values()), list(countries.values())
    return stored


async def read_messages(shop: ShopLog, topic: Topic, copies: str = "") -> AsyncIterator[Any]:
    """All messages of a topic, or of the copies of them that lie on another one."""
    name = shop.full(copies or topic.name)
    for partition, bounds in enumerate(await shop.log.bounds(name)):
        offset = bounds.start
        while records := await shop.log.read(name, partition, offset):
            for record in records:
                yield topic.decoder_of(record[3])(record[4] or b"")
            offset = records[-1][0] + 1


def account_of(message: InvoiceIssued | ParcelPacked | RefundPaid | CustomerTotals) -> tuple[str, str]:
    """What the message's key stands for: a customer, or one invoice without."""
    return (message.customer, "" if message.customer else message.invoice_no)


def identity_of(message: InvoiceIssued | ParcelPacked | RefundPaid) -> tuple[str, int, str, str]:
    """What tells an invoice, and what comes of it, from all others."""
    return (message.invoice_no, message.number, message.customer, message.country)
