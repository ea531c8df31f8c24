"""An operator moves the subscription back again and again; what counts is what the last generation did."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from postline.app import App
from postline.contracts import Topic
from postline.errors import PostlineError
from postline.log.port import Record
from postline.runtime.context import Context
from postline.runtime.control import ControlOp
from postline.runtime.entries import DEAD, HELD, USER_STATE
from postline.runtime.progress import Progress
from postline.runtime.retry import Retry
from tests.simulation.checks import Identity, Problem, StoredRecord, check_audit, check_equal, check_publishing
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
    tell,
)
from tests.simulation.world import Node, Result, World

__all__ = ["run_resetting"]

_SUBSCRIPTION = "billing"
#: From this attempt on handlers succeed, so that no record becomes a dead letter.
_LAST_ATTEMPT = 5


class ResetShop:
    """One seed: publishers, workers, and an operator who resets partitions to offsets and times."""

    def __init__(self, world: World, seed: int) -> None:
        draw = random.Random(f"reset {seed}")
        self.world = world
        self.partitions, self.workers = draw.choice((1, 2)), draw.choice((1, 2))
        self.keep_state = draw.random() < 0.3
        self.batch = draw.choice((None, None, 4))
        self.orders = Topic("orders", owner="shop", key="customer", partitions=self.partitions)
        self.orders.event("OrderPlaced")(OrderPlaced)
        self.invoices = Topic("invoices", owner="billing", key="customer", partitions=self.partitions)
        self.invoices.event("Invoice")(Invoice)
        moods = ("fine", "fine", "flaky", "filtered")
        self.customers = [f"customer{number}" for number in range(3)]
        self.messages = {
            customer: [OrderPlaced(customer, number, draw.choice(moods)) for number in range(10)]
            for customer in self.customers
        }
        self.desk = Desk(world, self.orders, self.messages)

    async def bill(self, node: Node) -> None:
        """The program of a worker."""
        await serve(node, lambda: self.app(node))

    def app(self, node: Node) -> App:
        """The service."""
        app = App("billing", owns=[self.invoices])
        billing = app.subscribe(
            _SUBSCRIPTION,
            self.orders,
            start="earliest",
            retry=Retry(immediate=1, delays=(0.1, 0.3, 0.5, 0.5)),
            batch=self.batch,
            state=Total,
        )

        def handle(order: OrderPlaced, ctx: Context[Any]) -> None:
            ctx.publish(Invoice(order.customer, order.number, add(ctx, order)))

        @billing.on(OrderPlaced, where=lambda order: order.mood != "filtered")
        async def bill(given: Any, ctx: Context[Any]) -> None:
            orders = given if isinstance(given, list) else [given]
            failed = ctx.attempt < _LAST_ATTEMPT and node.random.random() < 0.5
            if failed and any(order.mood == "flaky" for order in orders):
                raise HandlerFailed
            for order in orders:
                node.trace("handled", assignment_of(ctx).partition, *identity_of(order))
                handle(order, ctx)

        return app

    async def operate(self, node: Node) -> None:
        """Reset now and then, as long as there are faults."""
        await node.log.start()
        while self.world.faults.active and not self.settled():
            await node.clock.sleep(0.5 + 3 * node.random.random())
            try:
                for info in await node.log.partitions(_SUBSCRIPTION):
                    if node.random.random() < 0.5:
                        op = await self._reset(node, info.partition, node.random.randint(0, info.position))
                        await tell(node, _SUBSCRIPTION, info.partition, op)
            except PostlineError:
                continue
        await node.log.close()

    async def _reset(self, node: Node, partition: int, offset: int) -> ControlOp:
        if node.random.random() < 0.5:
            return ControlOp(op="reset", offset=offset, keep_state=self.keep_state)
        records = await node.log.read("orders", partition, offset, limit=1)
        return ControlOp(op="reset", time_ms=records[0][1] if records else 0, keep_state=self.keep_state)

    def settled(self) -> bool:
        """Whether all that was published and asked for has come to its end."""
        world = self.world
        subscription = world.cluster.subscriptions.get(_SUBSCRIPTION)
        ended = all(world.ended(f"shop-{customer}") for customer in self.customers)
        if subscription is None or not ended or not world.settled(_SUBSCRIPTION):
            return False
        return not any(slot.state.get(HELD) or slot.state.get(DEAD) for slot in subscription.slots)

    def finished(self) -> bool:
        """The same, when the operator is done and his last wish was granted."""
        if not (self.world.ended("operator") and self.settled()):
            return False
        control = self.world.cluster.topics[f"{_SUBSCRIPTION}.control"].partitions
        slots = self.world.cluster.subscriptions[_SUBSCRIPTION].slots
        read = [int(slot.state.get("control", {}).get(b"position", b"0").split()[0]) for slot in slots]
        return all(offset >= part.end for offset, part in zip(read, control, strict=True))

    # The verdict.

    def check(self) -> list[Problem]:
        """The last generation's effects, the totals that they make, and the audit."""
        world = self.world
        records = world.records("orders", identity_of=content_identity)
        lines, _ = audit_of(world, _SUBSCRIPTION)
        return [
            *check_publishing(world.history, "orders", records),
            *check_audit(lines),
            *(problem for customer in self.customers for problem in self._check_key(customer, records)),
        ]

    def _check_key(self, customer: str, records: list[StoredRecord]) -> list[Problem]:
        key = customer.encode()
        expected, doubtful = self._last_generation(key, records)
        invoices = [
            (invoiced(record), _invoice(record))
            for part in self.world.cluster.topics["invoices"].partitions
            for record in part.records
            if record[2] == key
        ]
        done = [identity for identity, _ in invoices if identity not in doubtful]
        last = done[len(done) - len(expected) :]
        problems = []
        if last != expected:
            problems.append(Problem("wrong", f"{customer}: the last generation handled {last}, not {expected}"))
        total = 0
        for identity, invoice in invoices:
            amount = invoice.number + 1
            if invoice.total not in ({total + amount} if self.keep_state else {total + amount, amount}):
                problems.append(Problem("wrong", f"{identity} brought {total} to {invoice.total}"))
            total = invoice.total
        fresh = sum(int(identity[1].rpartition("-")[2]) + 1 for identity in expected)
        if expected and not doubtful and not self.keep_state and total != fresh:
            problems.append(Problem("wrong", f"{customer}: the last generation comes to {total}, not {fresh}"))
        # A reset after the last invoice leaves no state.
        left = total if expected or doubtful or self.keep_state else 0
        told = {} if doubtful else check_equal("total", {customer: left}, {customer: self._stored(key)})
        return [*problems, *told]

    def _last_generation(self, key: bytes, records: list[StoredRecord]) -> tuple[list[Identity], set[Identity]]:
        """What must have been handled since the last reset, and what has copies on both sides of it."""
        slots = self.world.cluster.subscriptions[_SUBSCRIPTION].slots
        moods = {identity_of(order): order.mood for orders in self.messages.values() for order in orders}
        after: dict[Identity, None] = {}
        before: set[Identity] = set()
        for record in records:
            if record.key == key and moods[record.identity] != "filtered":
                slot = slots[record.partition]
                if record.offset < Progress.decode(slot.progress, slot.position).start:
                    before.add(record.identity)
                elif record.offset < slot.position:
                    after.setdefault(record.identity)
        return [identity for identity in after if identity not in before], before & after.keys()

    def _stored(self, key: bytes) -> int:
        for slot in self.world.cluster.subscriptions[_SUBSCRIPTION].slots:
            if (data := slot.state.get(USER_STATE, {}).get(key)) is not None:
                return msgspec.json.decode(data, type=Total).amount
        return 0


def _invoice(record: Record) -> Invoice:
    return msgspec.json.decode(record[4] or b"", type=Invoice)


def run_resetting(seed: int, plan: FaultPlan | None = None, *, keep_trace: bool = False, mutant: str = "") -> Result:
    """One seed of the scenario."""
    world = World(seed, plan, keep_trace=keep_trace, mutant=mutant)
    shop = ResetShop(world, seed)
    for customer in shop.customers:
        world.add(f"shop-{customer}", lambda node, customer=customer: shop.desk.publish(node, customer))  # type: ignore[misc]
    for index in range(shop.workers):
        world.add(f"billing{index}", shop.bill)
    world.add("operator", shop.operate)
    return world.run(lambda: world.ended("operator") and shop.finished(), shop.check, finished_calmly=shop.finished)
