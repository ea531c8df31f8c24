"""The ledger in its simplest form: one order for all, so that both accounts are at hand and nothing needs a lock.

Run it: `postline run simple.py`
"""

from __future__ import annotations

from msgspec import Struct

from postline import App, CommandTopic, Context, Refused, Topic

OPENING = 1_000

#: One key for all commands: they are handled in sequence, by one process at a time, and share one state.
ledger = CommandTopic("book", owner="book", key=lambda _: "all accounts", partitions=1)
balances = Topic("book.balances", owner="book", key="account")


@balances.event("book.BalanceChanged")
class BalanceChanged(Struct, frozen=True):
    account: str
    balance: int


class Transferred(Struct, frozen=True):
    """The money has arrived."""


class InsufficientFunds(Struct, frozen=True):
    missing: int


@ledger.command("book.Transfer", reply=Transferred, refusals=(InsufficientFunds,))
class Transfer(Struct, frozen=True):
    source: str
    target: str
    amount: int


app = App("book", owns=[ledger, balances])
transfers = app.serve(ledger, state=dict)


@transfers.on(Transfer)
async def transfer(command: Transfer, ctx: Context) -> Transferred:
    book = ctx.state.get() or {}
    source, target = (book.get(account, OPENING) for account in (command.source, command.target))
    if source < command.amount:
        raise Refused(InsufficientFunds(command.amount - source))
    if command.source != command.target:
        book[command.source], book[command.target] = source - command.amount, target + command.amount
        ctx.state.put(book)
        ctx.publish(BalanceChanged(command.source, source - command.amount))
        ctx.publish(BalanceChanged(command.target, target + command.amount))
    return Transferred()
