"""Retention and compaction take records while a subscription lags: what is lost is counted, what is held is spared."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import msgspec

from postline.app import App
from postline.contracts import Compaction, Retention, Topic
from postline.runtime.context import Context
from postline.runtime.entries import DEAD, HELD, USER_STATE
from postline.runtime.retry import Retry
from tests.simulation.checks import (
    Problem,
    StoredRecord,
    check_audit,
    check_effects,
    check_equal,
    check_executions,
    check_publishing,
)
from tests.simulation.faults import FaultPlan
from tests.simulation.parts import (
    Desk,
    HandlerFailed,
    Invoice,
    OrderPlaced,
    Total,
    add,
    assignment_of,
    audit_of,
    content_identity,
    identity_of,
    invoiced,
    serve,
)
from tests.simulation.world import Node, Result, World

__all__ = ["run_aging"]

_SUBSCRIPTION = "billing"
#: From this attempt on handlers succeed, so that no record becomes a dead letter.
_LAST_ATTEMPT = 4


class AgingShop:
    """One seed: a short-lived or compacted topic, and workers that now and then come too late."""

    def __init__(self, world: World, seed: int) -> None:
        draw = random.Random(f"aging {seed}")
        self.world = world
        self.compacted = draw.random() < 0.4
        self.partitions = draw.choice((1, 2))
        self.away_seconds = draw.choice((0.0, 3.0, 8.0))
        age = timedelta(seconds=draw.choice((0.4, 1, 3)))
        self.orders = Topic(
            "orders",
            owner="shop",
            key="customer",
            partitions=self.partitions,
            retention=Retention() if self.compacted else Retention(age=age),
            compaction=Compaction() if self.compacted else None,
        )
        self.orders.event("OrderPlaced")(OrderPlaced)
        self.invoices = Topic("invoices", owner="billing", key="customer", partitions=self.partitions)
        self.invoices.event("Invoice")(Invoice)
        self.customers = [f"customer{number}" for number in range(3)]
        self.messages = {
            customer: [OrderPlaced(customer, number, draw.choice(("fine", "flaky"))) for number in range(10)]
            for customer in self.customers
        }
        self.desk = Desk(world, self.orders, self.messages)

    async def bill(self, node: Node) -> None:
        """The program of a worker, which is away for a while before it begins."""
        await node.clock.sleep(node.random.random() * self.away_seconds)
        await serve(node, lambda: self.app(node), lives_seconds=lambda: 1 + 3 * node.random.random())

    def app(self, node: Node) -> App:
        """The service."""
        app = App("billing", owns=[self.invoices])
        retry = Retry(immediate=1, delays=(0.2, 1.0, 2.0))
        billing = app.subscribe(_SUBSCRIPTION, self.orders, start="earliest", retry=retry, state=Total)

        @billing.on(OrderPlaced)
        async def bill(order: OrderPlaced, ctx: Context[Any]) -> Invoice:
            failed = order.mood == "flaky" and ctx.attempt < _LAST_ATTEMPT and node.random.random() < 0.6
            node.executed(assignment_of(ctx), identity_of(order), ok=not failed)
            if failed:
                raise HandlerFailed
            return Invoice(order.customer, order.number, add(ctx, order))

        return app

    async def maintain(self, node: Node) -> None:
        """Retention and compaction, as upkeep does them."""
        while self.world.faults.active:
            await node.clock.sleep(0.5 * node.random.random())
            self.world.cluster.maintain(node.clock.now_ms())

    def settled(self) -> bool:
        """Whether all that was published has come to its end."""
        world = self.world
        subscription = world.cluster.subscriptions.get(_SUBSCRIPTION)
        ended = all(world.ended(f"shop-{customer}") for customer in self.customers)
        if subscription is None or not ended or not world.settled(_SUBSCRIPTION):
            return False
        return not any(slot.state.get(HELD) or slot.state.get(DEAD) for slot in subscription.slots)

    def check(self) -> list[Problem]:
        """Whether exactly that has no effect which was taken away before it was read."""
        world, history = self.world, self.world.history
        removed = world.records("orders", identity_of=content_identity, removed=True)
        there = world.records("orders", identity_of=content_identity)
        records = sorted([*removed, *there], key=lambda record: (record.partition, record.offset))
        effects = world.records("invoices", invoiced)
        unread = {record.identity for record in removed} - {effect.cause for effect in effects}
        left = {record.identity for record in there} & unread
        return [
            *([Problem("lost", f"{left} are in the log and had no effect")] if left - {None} else ()),
            *check_publishing(history, "orders", records),
            *check_effects(history, _SUBSCRIPTION, records, effects, excluded=unread),
            *check_executions(history, _SUBSCRIPTION, [r for r in records if r.identity not in unread]),
            *self._audit(records, len(effects), len(unread)),
            *check_equal("totals", self._totals(effects), self._stored_totals()),
        ]

    def _audit(self, records: list[StoredRecord], effects: int, unread: int) -> list[Problem]:
        lines, sums = audit_of(self.world, _SUBSCRIPTION)
        problems = [*check_audit(lines), *check_equal("done", {"DONE": effects}, {"DONE": sums["DONE"]})]
        if not self.compacted and not self.world.plan.gap_share:
            # Every offset is a record, and each was done, a duplicate, or lost before it was read.
            passed = sum(lines[r.partition].start <= r.offset < lines[r.partition].position for r in records)
            expected = passed - effects - sums["DUPLICATE"]
            problems += check_equal("lost", {"LOST": expected}, {"LOST": sums["LOST"]})
        if not 0 <= sums["LOST"] <= unread and self.compacted:
            # Of a compacted topic only what was held, and superseded before that was committed, counts as lost.
            problems.append(Problem("audit", f"{sums['LOST']} records count as lost, {unread} were not read"))
        return problems

    @staticmethod
    def _totals(effects: list[StoredRecord]) -> dict[str, int]:
        totals: dict[str, int] = {}
        for effect in effects:
            assert effect.cause is not None
            customer, _, number = effect.cause[1].rpartition("-")
            totals[customer] = totals.get(customer, 0) + int(number) + 1
        return totals

    def _stored_totals(self) -> dict[str, int]:
        slots = self.world.cluster.subscriptions[_SUBSCRIPTION].slots
        states = {key: data for slot in slots for key, data in slot.state.get(USER_STATE, {}).items()}
        return {key.decode(): msgspec.json.decode(data, type=Total).amount for key, data in states.items()}


def run_aging(seed: int, plan: FaultPlan | None = None, *, keep_trace: bool = False, mutant: str = "") -> Result:
    """One seed of the scenario."""
    world = World(seed, plan, keep_trace=keep_trace, mutant=mutant)
    shop = AgingShop(world, seed)
    for customer in shop.customers:
        world.add(f"shop-{customer}", lambda node, customer=customer: shop.desk.publish(node, customer))  # type: ignore[misc]
    for index in range(2):
        world.add(f"billing{index}", shop.bill)
    world.add("maintainer", shop.maintain)
    return world.run(shop.settled, shop.check)
