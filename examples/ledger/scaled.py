"""The ledger on many partitions: debit where A is, credit as a message to where B is, the reply after the credit.

Run as many as you like: `postline run scaled.py --workers 4`
"""

from __future__ import annotations

from msgspec import Struct

from examples.ledger.contracts import (
    OPENING,
    BalanceChanged,
    InsufficientFunds,
    Transfer,
    Transferred,
    balances,
    ledger,
)
from postline import App, Context, Topic

#: What moves between the partitions. Each account has one place there, for debits and credits alike.
entries = Topic("ledger.entries", owner="ledger", key="account")


@entries.event("ledger.Debit")
class Debit(Struct, frozen=True):
    """Take the money from `account` and send it on, if it is there."""

    account: str
    target: str
    amount: int
    token: str


@entries.event("ledger.Credit")
class Credit(Struct, frozen=True):
    """Money in transit: it has left its source and not arrived yet."""

    account: str
    amount: int
    token: str


app = App("ledger", owns=[ledger, balances, entries])
transfers = app.serve(ledger)
accounts = app.subscribe("ledger.accounts", entries, start="earliest", state=int)


@transfers.on(Transfer)
async def transfer(command: Transfer, ctx: Context) -> None:
    """The reply comes once the money has arrived, from whichever process handles that."""
    ctx.publish(Debit(command.source, command.target, command.amount, ctx.reply_later()))


def balance_of(ctx: Context) -> int:
    """The balance of the account whose entry is handled."""
    balance = ctx.state.get()
    return OPENING if balance is None else int(balance)


@accounts.on(Debit)
async def debit(entry: Debit, ctx: Context) -> Credit | None:
    balance = balance_of(ctx)
    if balance < entry.amount:
        ctx.reply(entry.token, InsufficientFunds(entry.amount - balance))
        return None
    ctx.state.put(balance - entry.amount)
    ctx.publish(BalanceChanged(entry.account, balance - entry.amount))
    return Credit(entry.target, entry.amount, entry.token)


@accounts.on(Credit)
async def credit(entry: Credit, ctx: Context) -> BalanceChanged:
    balance = balance_of(ctx) + entry.amount
    ctx.state.put(balance)
    ctx.reply(entry.token, Transferred())
    return BalanceChanged(entry.account, balance)
