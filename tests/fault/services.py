"""The services of a kill loop: orders become invoices, invoices balances, balances are mirrored; ticks run past."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from msgspec import Struct

from postline import App, Compaction, Context, Discard, Retention, Retry, Topic
from postline.clock import SystemClock
from tests.fault.journal import Journal
from tests.fault.scenario import ATTEMPTS, Scenario

__all__ = [
    "Balance",
    "Cancellation",
    "Invoice",
    "Ledger",
    "Order",
    "Services",
    "Tick",
    "balances",
    "invoices",
    "mended",
    "order_id",
    "orders",
    "shop",
    "ticks",
]

_CLOCK = SystemClock()
_RETRY = Retry(immediate=1, delays=(0.02, 0.1, 0.3))
assert _RETRY.attempts_max == ATTEMPTS

orders = Topic("shop.orders", owner="shop", key="customer", partitions=4)


@orders.event("shop.Order")
class Order(Struct, frozen=True):
    """Somebody's order; `number` counts within the customer."""

    customer: str
    number: int
    amount: int


@orders.event("shop.Cancellation")
class Cancellation(Struct, frozen=True):
    """Takes the place of an order; only version 2 of billing knows it."""

    customer: str
    number: int
    amount: int


ticks = Topic("shop.ticks", owner="shop", partitions=1, retention=Retention(bytes_per_partition=64 << 10))


@ticks.event("shop.Tick")
class Tick(Struct, frozen=True):
    """Something that is soon forgotten."""

    text: str


invoices = Topic("billing.invoices", owner="billing", key="customer", partitions=4)


@invoices.event("billing.Invoice")
class Invoice(Struct, frozen=True):
    """What an order came to, and all of the customer's orders until then."""

    customer: str
    number: int
    amount: int
    total: int


balances = Topic("ledger.balances", owner="ledger", key="customer", partitions=4, compaction=Compaction())


@balances.event("ledger.Balance")
class Balance(Struct, frozen=True):
    """The newest says it all."""

    customer: str
    count: int
    amount: int


class Ledger(Struct, frozen=True):
    """A customer's invoices so far; `disorder` counts those that came after a later one."""

    count: int = 0
    amount: int = 0
    last: int = -1
    disorder: int = 0


def shop() -> App:
    """Publishes only."""
    return App("shop", owns=[orders, ticks])


def order_id(customer: str, number: int) -> str:
    """The id under which an order is published, each time."""
    return f"{customer}-{number}"


def mended(directory: Path, customer: str, number: int) -> Path:
    """The file that says that the cause of a poisonous order is gone."""
    return directory / "mended" / order_id(customer, number)


class _Failure(Exception):
    """What goes wrong on purpose."""


class Services:
    """The apps of one worker process."""

    def __init__(self, scenario: Scenario, directory: Path, journal: Journal, version: int) -> None:
        self._scenario, self._directory, self._journal = scenario, directory, journal
        self._failed_in_batch = Counter[tuple[str, int]]()
        self.apps = [self._billing(version), self._ledger(), self._mirror()]

    def _billing(self, version: int) -> App:
        app = App("billing", owns=[invoices])
        billing = app.subscribe("billing", orders, start="earliest", state=int, retry=_RETRY)
        billing.on(Order)(self._bill)
        if version > 1:
            billing.on(Cancellation)(self._bill)
        watching = app.subscribe("watching", ticks, start="earliest")
        watching.on(Tick)(_forget)
        return app

    async def _bill(self, order: Order | Cancellation, ctx: Context[Any]) -> Invoice:
        customer, number = order.customer, order.number
        epoch = ctx.desk.assignment.epoch  # type: ignore[attr-defined]
        place = ("billing", customer, number, ctx.partition, epoch)
        self._journal.write("run", *place)
        try:
            await self._trouble(customer, number, ctx.attempt)
            total = (ctx.state.get() or 0) + order.amount
            ctx.state.put(total)
        except BaseException:
            self._journal.write("bad", *place)
            raise
        self._journal.write("ok", *place)
        return Invoice(customer, number, order.amount, total)

    async def _trouble(self, customer: str, number: int, attempt: int) -> None:
        scenario = self._scenario
        match scenario.mood(customer, number):
            case "slow":
                await _CLOCK.sleep(scenario.random_of(customer, number, "slow").uniform(0.001, 0.1))
            case "flaky" if attempt <= scenario.failures(customer, number):
                raise _Failure("flaky")
            case "thrown":
                raise Discard("nobody wants it")
            case "hopeless":
                raise _Failure("hopeless")
            case "poison" if not mended(self._directory, customer, number).exists():
                raise _Failure("poison")

    def _ledger(self) -> App:
        app = App("ledger", owns=[balances])
        ledger = app.subscribe("ledger", invoices, start="earliest", state=Ledger, batch=50, retry=_RETRY)
        ledger.on(Invoice)(self._enter)
        return app

    async def _enter(self, batch: list[Invoice], ctx: Context[Any]) -> None:
        for invoice in batch:
            place = (invoice.customer, invoice.number)
            if self._scenario.fails_in_batch(*place) and self._failed_in_batch[place] < 2:
                self._failed_in_batch[place] += 1
                raise _Failure("not yet")
        for invoice in batch:
            before: Ledger = ctx.state.get(invoice.customer) or Ledger()
            ctx.state.put(_entered(before, invoice.number, invoice.amount), invoice.customer)
        for customer in dict.fromkeys(invoice.customer for invoice in batch):
            now: Ledger = ctx.state.get(customer)
            ctx.publish(Balance(customer, now.count, now.amount))

    def _mirror(self) -> App:
        app = App("mirror")
        mirror = app.subscribe("mirror", balances, start="earliest", state=Ledger)
        mirror.on(Balance)(_reflect)
        return app


async def _forget(tick: Tick) -> None:
    del tick


def _reflect(balance: Balance, ctx: Context[Any]) -> None:
    before: Ledger = ctx.state.get() or Ledger()
    disorder = before.disorder + (balance.count <= before.last)
    ctx.state.put(Ledger(balance.count, balance.amount, balance.count, disorder))


def _entered(before: Ledger, number: int, amount: int) -> Ledger:
    disorder = before.disorder + (number <= before.last)
    return Ledger(before.count + 1, before.amount + amount, number, disorder)
