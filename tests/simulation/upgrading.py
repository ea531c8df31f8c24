"""Two versions of the billing service in one group: what the newer one handles is held for it, not filtered."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from postline.app import App
from postline.contracts import Topic
from postline.runtime.context import Context
from postline.runtime.entries import DEAD, HELD, TYPES
from postline.runtime.retry import Retry
from tests.simulation.checks import (
    Identity,
    Problem,
    check_audit,
    check_effects,
    check_equal,
    check_executions,
    check_publishing,
)
from tests.simulation.faults import FaultPlan
from tests.simulation.parts import (
    HandlerFailed,
    Invoice,
    OrderPlaced,
    Total,
    add,
    assignment_of,
    audit_of,
    environment,
    identity_of,
    invoiced,
    persist,
    serve,
)
from tests.simulation.world import Node, Result, World

__all__ = ["run_upgrading"]

_SUBSCRIPTION = "billing"
_NEW_TYPE = "OrderChanged"
#: From this attempt on handlers succeed, so that no record becomes a dead letter.
_LAST_ATTEMPT = 4


class OrderChanged(msgspec.Struct, frozen=True):
    """What only the newer version handles."""

    customer: str
    number: int


class UpgradingShop:
    """One seed: publishers of both types, and workers that are of either version until the faults are over."""

    def __init__(self, world: World, seed: int) -> None:
        draw = random.Random(f"upgrade {seed}")
        self.world = world
        self.partitions = draw.choice((1, 2))
        self.order = draw.choice(("key", "key", "partition"))
        self.orders = Topic("orders", owner="shop", key="customer", partitions=self.partitions)
        self.orders.event("OrderPlaced")(OrderPlaced)
        self.orders.event(_NEW_TYPE)(OrderChanged)
        self.invoices = Topic("invoices", owner="billing", key="customer", partitions=self.partitions)
        self.invoices.event("Invoice")(Invoice)
        self.customers = [f"customer{number}" for number in range(3)]
        self.changed = {
            ("shop", f"{customer}-{number}")
            for customer in self.customers
            for number in range(12)
            if draw.random() < 0.4
        }
        #: Published when every partition knew the newer type: these may not be filtered.
        self.announced: set[Identity] = set()

    async def publish(self, node: Node, customer: str) -> None:
        """The program of the customer's publisher."""
        app = App("shop", owns=[self.orders])
        await persist(node, lambda: app.start(environment(node), consume=False))
        for number in range(12):
            order = OrderPlaced(customer, number, "fine")
            identity = identity_of(order)
            known = node.history.publications.get(identity)
            if known is not None and known.acknowledged:
                continue
            if known is None and self._is_known():
                self.announced.add(identity)
            node.history.publishing("orders", identity, customer.encode(), number)
            message = OrderChanged(customer, number) if identity in self.changed else order
            await persist(node, lambda message=message, identity=identity: app.publish(message, id=identity[1]))  # type: ignore[misc]
            node.history.acknowledged(identity)
            await node.clock.sleep(node.random.random() * 0.8)
        await app.stop()
        await node.log.close()

    def _is_known(self) -> bool:
        found = self.world.cluster.subscriptions.get(_SUBSCRIPTION)
        return found is not None and all(_NEW_TYPE.encode() in slot.state.get(TYPES, ()) for slot in found.slots)

    async def bill(self, node: Node) -> None:
        """The program of a worker: each of its lives is of one version, the last one of the newer."""
        await serve(node, lambda: self.app(node), lives_seconds=lambda: 1 + 4 * node.random.random())

    def app(self, node: Node) -> App:
        """The service, in one of its versions."""
        app = App("billing", owns=[self.invoices])
        retry = Retry(immediate=0, delays=(0.1, 0.5, 1.0, 1.0))
        billing = app.subscribe(
            _SUBSCRIPTION,
            self.orders,
            start="earliest",
            retry=retry,
            order=self.order,  # type: ignore[arg-type]
            state=Total,
        )

        async def bill(order: Any, ctx: Context[Any]) -> Invoice:
            failed = ctx.attempt < _LAST_ATTEMPT and node.random.random() < 0.2
            node.executed(assignment_of(ctx), identity_of(order), ok=not failed)
            if failed:
                raise HandlerFailed
            return Invoice(order.customer, order.number, add(ctx, order))

        billing.on(OrderPlaced)(bill)
        newer = not self.world.faults.active or node.random.random() < 0.5
        if newer:
            billing.on(OrderChanged)(bill)
        node.trace("version", 2 if newer else 1)
        return app

    def settled(self) -> bool:
        """Whether all that was published has come to its end."""
        world = self.world
        subscription = world.cluster.subscriptions.get(_SUBSCRIPTION)
        ended = all(world.ended(f"shop-{customer}") for customer in self.customers)
        if subscription is None or not ended or not world.settled(_SUBSCRIPTION):
            return False
        return not any(slot.state.get(HELD) or slot.state.get(DEAD) for slot in subscription.slots)

    def check(self) -> list[Problem]:
        """Nothing is lost or reordered, and only what came before the announcement is filtered."""
        world, history = self.world, self.world.history
        records, effects = world.records("orders"), world.records("invoices", invoiced)
        handled = {effect.cause for effect in effects}
        filtered = {identity for identity in self.changed if identity not in handled}
        wrongly = filtered & self.announced
        lines, sums = audit_of(world, _SUBSCRIPTION)
        return [
            *([Problem("lost", f"filtered, although known: {sorted(wrongly)}")] if wrongly else ()),
            *check_publishing(history, "orders", records),
            *check_effects(history, _SUBSCRIPTION, records, effects, excluded=filtered),
            # What an older version passed over, and did not come to commit, may be handled after its successors.
            *check_executions(history, _SUBSCRIPTION, records, excluded=self.changed - self.announced),
            *check_audit(lines),
            *check_equal("done", {"DONE": len(handled)}, {"DONE": sums["DONE"]}),
        ]


def run_upgrading(seed: int, plan: FaultPlan | None = None, *, keep_trace: bool = False, mutant: str = "") -> Result:
    """One seed of the scenario."""
    world = World(seed, plan, keep_trace=keep_trace, mutant=mutant)
    shop = UpgradingShop(world, seed)
    for customer in shop.customers:
        world.add(f"shop-{customer}", lambda node, customer=customer: shop.publish(node, customer))  # type: ignore[misc]
    for index in range(2):
        world.add(f"billing{index}", shop.bill)
    # It is over when the faults are: while they last, what only the newer version handles may wait for it.
    return world.run(lambda: False, shop.check, finished_calmly=shop.settled, fault_seconds=12.0)
