"""A small ledger as a service of commands, for the tests of this directory."""

from __future__ import annotations

from datetime import timedelta

from msgspec import Struct

from postline import App, CommandTopic, Context, Refused, Retry, Topic

MONEY = {"anna": 100}


class Ledger:
    """A ledger service and its contracts, made anew for each test."""

    def __init__(self, *, kept: timedelta = timedelta(days=7), **options: object) -> None:
        ledger = self.topic = CommandTopic("ledger", owner="ledger", key="source", partitions=2, tickets_kept=kept)
        balances = self.balances = Topic("ledger.balances", owner="ledger", key="account")

        @balances.event("ledger.BalanceChanged")
        class BalanceChanged(Struct, frozen=True):
            account: str
            amount: int

        @ledger.reply("ledger.Transferred")
        class Transferred(Struct, frozen=True):
            left: int

        class InsufficientFunds(Struct, frozen=True):
            missing: int

        class Balance(Struct, frozen=True):
            amount: int

        @ledger.command("ledger.Transfer", reply=Transferred, refusals=(InsufficientFunds,))
        class Transfer(Struct, frozen=True):
            source: str
            target: str
            amount: int

        @ledger.query("ledger.BalanceOf", reply=Balance)
        class BalanceOf(Struct, frozen=True):
            source: str

        class TooPoor(Struct, frozen=True):
            why: str

        self.TooPoor = TooPoor

        @ledger.query("ledger.Peek", reply=Balance, refusals=(TooPoor,))
        class Peek(Struct, frozen=True):
            source: str

        self.Peek = Peek
        self.BalanceChanged, self.Transferred, self.InsufficientFunds = BalanceChanged, Transferred, InsufficientFunds
        self.Transfer, self.BalanceOf, self.Balance = Transfer, BalanceOf, Balance
        self.attempts = 0
        self.failing: list[Exception] = []
        service = self.service = App("ledger", owns=[ledger, balances])
        policy = {"state": int, "retry": Retry(immediate=1, delays=()), **options}
        served = self.served = service.serve(ledger, **policy)  # type: ignore[arg-type]

        @served.on(Transfer)
        async def transfer(command: Transfer, ctx: Context) -> Transferred:
            self.attempts += 1
            if self.failing:
                raise self.failing.pop()
            left = (ctx.state.get() or MONEY.get(command.source, 0)) - command.amount
            ctx.publish(BalanceChanged(command.source, left))
            if left < 0:
                raise Refused(InsufficientFunds(-left))
            ctx.state.put(left)
            return Transferred(left)

        @served.on(BalanceOf)
        async def balance(query: BalanceOf, ctx: Context) -> Balance:
            return Balance(ctx.state.get() or MONEY.get(query.source, 0))

        self.client = App("shop", publishes_to=[ledger])
