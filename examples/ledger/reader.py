"""Somebody downstream: knows all balances by what the ledger tells, and nothing of commands.

Run it: `postline run reader.py`
"""

from __future__ import annotations

from msgspec import Struct

from postline import App, Context, ForeignTopic

balances = ForeignTopic("ledger.balances")


@balances.reads("ledger.BalanceChanged")
class Balance(Struct, frozen=True):
    """Of the ledger's event, what is needed here."""

    balance: int


app = App("reader")
reading = app.subscribe("reader", balances, start="earliest", state=int)


@reading.on(Balance)
async def note(balance: Balance, ctx: Context) -> None:
    ctx.state.put(balance.balance)
