"""The ledger's public face: what it can be told, what it answers, and what it tells everybody."""

from __future__ import annotations

from msgspec import Struct

from postline import CommandTopic, Topic

#: What every account of the example begins with.
OPENING = 1_000

ledger = CommandTopic("ledger", owner="ledger", key="source")
balances = Topic("ledger.balances", owner="ledger", key="account")


@balances.event("ledger.BalanceChanged")
class BalanceChanged(Struct, frozen=True):
    """An account has a new balance; the envelope names the client and the request behind it."""

    account: str
    balance: int


@ledger.reply("ledger.Transferred")
class Transferred(Struct, frozen=True):
    """The money has arrived."""


@ledger.reply("ledger.InsufficientFunds")
class InsufficientFunds(Struct, frozen=True):
    """Nothing was moved: so much is missing."""

    missing: int


@ledger.command("ledger.Transfer", reply=Transferred, refusals=(InsufficientFunds,))
class Transfer(Struct, frozen=True):
    """Move `amount` from one account to another."""

    source: str
    target: str
    amount: int
