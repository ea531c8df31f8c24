"""Duplicates from outside and failures of many kinds: what is dropped, retried, given up, or given up for good.

Run it: `postline run dedup_and_retries.py`
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from msgspec import Struct

from postline import App, Context, DeadLetter, Dedup, Discard, Retry, RetryLater, Topic

payments = Topic("bank.payments", owner="bank", key="account")


@payments.event("bank.PaymentReceived")
class PaymentReceived(Struct, frozen=True):
    reference: str
    account: str
    cents: int


class BankBusy(Exception):
    """The bank asks for patience."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"busy for {seconds:g} s")
        self.seconds = seconds


class NoSuchAccount(Exception):
    """Trying again won't make it."""


async def _print(payment: PaymentReceived, idempotency_key: str) -> None:
    print(f"booked {payment.cents} on {payment.account} ({idempotency_key})")


@dataclass
class Bank:
    """Stands for a client of a service elsewhere, which takes an idempotency key."""

    book: Callable[[PaymentReceived, str], Awaitable[None]] = field(default=_print)


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[Bank]:
    yield Bank()


app = App("bank", owns=[payments], lifespan=lifespan)
booking = app.subscribe(
    "booking",
    payments,
    start="earliest",
    # The sender repeats itself with new message ids: its reference is what tells a duplicate.
    dedup=Dedup(field="reference", window=timedelta(days=30)),
    retry=Retry(
        immediate=1,
        delays=(5, timedelta(minutes=1)),
        never=(NoSuchAccount,),
        by_type={ConnectionError: Retry(immediate=0, delays=[30] * 20)},
    ),
    timeout=10,
)


@booking.on(PaymentReceived, where=lambda payment: payment.cents != 0)
async def book(payment: PaymentReceived, ctx: Context[Bank]) -> None:
    if payment.account == "closed":
        raise Discard("the account is closed")  # counted as discarded; the key flows on
    if payment.cents < 0:
        raise DeadLetter("someone must look at this")  # no further attempts; the key waits
    try:
        await ctx.resources.book(payment, ctx.idempotency_key)
    except BankBusy as busy:
        raise RetryLater(busy.seconds, str(busy)) from busy  # its own delay; counts as one attempt
