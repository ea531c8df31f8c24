"""Keyed state: each customer's totals, kept in the same commit as the position, without a database.

Run it: `postline run totals_per_customer.py`
"""

from __future__ import annotations

from msgspec import Struct

from postline import App, Context, Topic

accounts = Topic("shop.accounts", owner="totals", key="customer")
totals = Topic("shop.totals", owner="totals", key="customer")


@accounts.event("shop.Bought")
class Bought(Struct, frozen=True):
    customer: str
    amount: int


@accounts.event("shop.AccountClosed")
class AccountClosed(Struct, frozen=True):
    customer: str


@totals.event("shop.CustomerTotals")
class CustomerTotals(Struct, frozen=True):
    customer: str
    orders: int = 0
    amount: int = 0


app = App("totals", owns=[accounts, totals])
summing = app.subscribe("summing", accounts, start="earliest", state=CustomerTotals)


@summing.on(Bought)
async def add(bought: Bought, ctx: Context) -> None:
    before = ctx.state.get() or CustomerTotals(bought.customer)
    ctx.state.put(CustomerTotals(bought.customer, before.orders + 1, before.amount + bought.amount))


@summing.on(AccountClosed)
async def close(closed: AccountClosed, ctx: Context) -> CustomerTotals:
    """Both types share one position, so a closing comes after all that was bought before it."""
    last = ctx.state.get() or CustomerTotals(closed.customer)
    ctx.state.delete()
    return last
