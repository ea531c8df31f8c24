"""The services of a trial: each order becomes one invoice, which says where the order lies; a ledger sums them up."""

from __future__ import annotations

import itertools
from typing import Any

from msgspec import Struct

from postline import App, Context, Discard, Retry, Topic
from postline.clock import SystemClock
from tests.fault.journal import Journal
from tests.fault.kafka.plan import Plan

__all__ = ["SUBSCRIPTIONS", "Invoice", "Ledger", "Order", "Services", "invoices", "orders", "shop"]

SUBSCRIPTIONS = ("billing", "ledger")
_CLOCK = SystemClock()
_RETRY = Retry(immediate=1, delays=(0.02, 0.1, 0.3))

orders = Topic("shop.orders", owner="shop", key="customer", partitions=4)
invoices = Topic("billing.invoices", owner="billing", key="customer", partitions=4)


@orders.event("shop.Order")
class Order(Struct, frozen=True):
    """`number` counts within the customer; `copy` counts how often it was published before."""

    customer: str
    number: int
    copy: int


@invoices.event("billing.Invoice")
class Invoice(Struct, frozen=True):
    """The effect of one order: `run` is the attempt that made it, unlike any other; `total` is the customer's."""

    customer: str
    number: int
    total: int
    partition: int
    offset: int
    run: str


class Ledger(Struct, frozen=True):
    """A customer's invoices so far; `disorder` counts those that came after a later one."""

    count: int = 0
    amount: int = 0
    last: int = -1
    disorder: int = 0


class _Flaky(Exception):
    """What goes wrong on purpose."""


def shop() -> App:
    """Publishes only."""
    return App("shop", owns=[orders])


class Services:
    """The apps of one worker process."""

    def __init__(self, plan: Plan, journal: Journal, process: str) -> None:
        self._plan, self._journal = plan, journal
        self._runs = (f"{process}.{number}" for number in itertools.count())
        self.billing = App("billing", owns=[invoices])
        billing = self.billing.subscribe("billing", orders, start="earliest", state=int, retry=_RETRY)
        billing.on(Order)(self._bill)
        self.ledger = App("ledger")
        ledger = self.ledger.subscribe("ledger", invoices, start="earliest", state=Ledger, batch=50, retry=_RETRY)
        ledger.on(Invoice)(_enter)

    async def _bill(self, order: Order, ctx: Context[Any]) -> Invoice:
        run = next(self._runs)
        epoch = ctx.desk.assignment.epoch  # type: ignore[attr-defined]
        place = (run, order.customer, order.number, ctx.partition, ctx.offset, epoch)
        self._journal.write("run", *place)
        try:
            await self._trouble(order, ctx.attempt)
            total = (ctx.state.get() or 0) + order.number + 1
            ctx.state.put(total)
        except BaseException:
            self._journal.write("bad", *place)
            raise
        self._journal.write("ok", *place)
        return Invoice(order.customer, order.number, total, ctx.partition, ctx.offset, run)

    async def _trouble(self, order: Order, attempt: int) -> None:
        plan = self._plan
        match plan.mood(order.customer, order.number):
            case "slow":
                chance = plan.random_of(order.customer, order.number, "slow")
                await _CLOCK.sleep(chance.uniform(0.001, plan.slow_seconds))
            case "flaky" if attempt == 1:
                raise _Flaky("flaky")
            case "thrown":
                raise Discard("nobody wants it")


async def _enter(batch: list[Invoice], ctx: Context[Any]) -> None:
    for invoice in batch:
        before: Ledger = ctx.state.get(invoice.customer) or Ledger()
        disorder = before.disorder + (invoice.number <= before.last)
        now = Ledger(before.count + 1, before.amount + invoice.number + 1, invoice.number, disorder)
        ctx.state.put(now, invoice.customer)
