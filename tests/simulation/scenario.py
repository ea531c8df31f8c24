"""The whole runtime in a simulated world: a shop publishes, several workers bill, an operator clears dead letters."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from postline.app import App
from postline.contracts import Topic
from postline.errors import PostlineError
from postline.events import Subscription
from postline.runtime.context import Context
from postline.runtime.control import ControlOp
from postline.runtime.dedup import Dedup
from postline.runtime.entries import DEAD, HELD, USER_STATE, DeadEntry, decode_entry, offset_of
from postline.runtime.intents import Discard, RetryLater
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
    environment,
    identity_of,
    invoiced,
    serve,
    tell,
)
from tests.simulation.world import Node, Result, World

__all__ = ["Shape", "run_shop"]

_SUBSCRIPTION = "billing"
#: Another service's subscription on the same topic, which nothing of billing's may concern.
_OTHER = "counting"
#: Where nothing goes wrong, an order is billed within this time; a lost wake-up takes longer.
_PROMPT_SECONDS = 1.0
_PROBE = "probe"
#: Longer than a lease and the death of a process take to be noticed.
_CALM_SECONDS = 8.0
#: Moods of a message, by how often they occur.
_MOODS = {
    "fine": 66,
    "slow": 6,
    "flaky": 12,
    "stuck": 3,
    "later": 4,
    "curable": 4,
    "hopeless": 2,
    "thrown": 2,
    "filtered": 3,
}
STYLES = ("async", "async", "plain", "batch")
#: These end without an effect.
_WITHOUT_EFFECT = ("hopeless", "thrown", "filtered")


@dataclass(frozen=True)
class Shape:
    """How a seed's shop is built."""

    partitions: int
    workers: int
    customers: int
    orders_each: int
    concurrency: int
    style: str
    after: str
    order: str
    immediate: int
    #: What tells a repeated message: its own id, a field or its content.
    known_by: str
    #: Attempts have a time limit, and stuck ones never end by themselves.
    hangs: bool
    #: Workers are stopped and started again, as upgrades do.
    rolling: bool
    #: A second subscription reads the same topic.
    counted: bool

    @classmethod
    def by_seed(cls, seed: int) -> Shape:
        """A shape drawn by the seed."""
        draw = random.Random(f"shape {seed}")
        style, order = draw.choice(STYLES), draw.choice(("key", "key", "key", "partition", "none"))
        return cls(
            partitions=draw.choice((1, 2, 4)),
            workers=draw.choice((1, 2, 3)),
            customers=draw.choice((2, 6)),
            orders_each=draw.choice((6, 12)),
            concurrency=draw.choice((1, 4, 64)),
            style=style,
            after="continue" if order == "none" else draw.choice(("hold", "hold", "continue")),
            order=order,
            immediate=draw.choice((0, 1, 2)),
            known_by=draw.choice(("id", "id", "id", "field", "digest")),
            hangs=style != "plain" and draw.random() < 0.3,
            rolling=draw.random() < 0.3,
            counted=draw.random() < 0.2,
        )

    @property
    def dedup(self) -> Dedup | None:
        """What subscriptions are told of repeated messages; those with own ids need not be told."""
        if self.known_by == "field":
            return Dedup(field="reference")
        return Dedup(digest=True, ignore=("sent",)) if self.known_by == "digest" else None


class Shop:
    """One seed's shop: its contracts, programs and verdict."""

    def __init__(self, world: World, shape: Shape) -> None:
        self.world = world
        self.shape = shape
        self.orders = Topic("orders", owner="shop", key="customer", partitions=shape.partitions)
        self.orders.event("OrderPlaced")(OrderPlaced)
        self.invoices = Topic("invoices", owner="billing", key="customer", partitions=shape.partitions)
        self.invoices.event("Invoice")(Invoice)
        self.customers = [f"customer{number}" for number in range(shape.customers)]
        #: The curable are cured once the faults are over.
        self.buried: set[bytes] = set()
        draw = random.Random(f"moods {world.seed}")
        moods = draw.choices(list(_MOODS), list(_MOODS.values()), k=shape.customers * shape.orders_each)
        self.messages = {
            customer: [OrderPlaced(customer, number, moods.pop()) for number in range(shape.orders_each)]
            for customer in self.customers
        }
        self.messages[_PROBE] = [OrderPlaced(_PROBE, number, "fine") for number in range(4)]
        self.late: list[Problem] = []
        self.desk = Desk(world, self.orders, self.messages)
        self.desk.repeats = shape.known_by != "id"

    @property
    def publishers(self) -> list[str]:
        """Names of the publishing processes, one for each customer."""
        return [f"shop-{customer}" for customer in self.customers]

    # Programs.

    async def probe(self, node: Node) -> None:
        """When all is calm, publish a few orders more and see that each is billed promptly."""
        while not self.settled() or any(other.process.stopped for other in self.world.nodes()):
            await node.clock.sleep(0.5)
        # Calls that were made slow may still be under way.
        await node.clock.sleep(_CALM_SECONDS + 2 * self.world.plan.slow_seconds)
        app = App("shop", owns=[self.orders])
        await app.start(environment(node), consume=False)
        for order in self.messages[_PROBE]:
            identity = identity_of(order)
            node.history.publishing("orders", identity, _PROBE.encode(), order.number)
            await app.publish(msgspec.structs.replace(order, reference=identity[1]), id=identity[1])
            node.history.acknowledged(identity)
            published = node.clock.monotonic()
            while not any(effect.cause == identity for effect in self.world.records("invoices", invoiced)):
                await node.clock.sleep(0.05)
            passed = node.clock.monotonic() - published
            if passed > _PROMPT_SECONDS:
                self.late.append(
                    Problem("late", f"{identity} was billed after {passed:.2f} s, with nothing in the way")
                )
        await app.stop()
        await node.log.close()

    async def bill(self, node: Node) -> None:
        """Run the billing service until the world stops it."""
        lives = (lambda: 0.5 + 4 * node.random.random()) if self.shape.rolling else None
        await serve(node, lambda: self.billing_app(node), lives_seconds=lives)

    async def count(self, node: Node) -> None:
        """Run the other service, which counts all orders and never fails."""
        await serve(node, self.counting_app)

    def counting_app(self) -> App:
        """The other service."""
        app = App("statistics")
        counting = app.subscribe(_OTHER, self.orders, start="earliest", state=Total, dedup=self.shape.dedup)

        @counting.on(OrderPlaced)
        def count(order: OrderPlaced, ctx: Context[Any]) -> None:
            add(ctx, order)

        return app

    def billing_app(self, node: Node) -> App:
        """The service, with handlers in the seed's style."""
        shape = self.shape
        app = App("billing", owns=[self.invoices])
        limit = 1.0 if shape.hangs else 10.0
        billing: Subscription = app.subscribe(
            _SUBSCRIPTION,
            self.orders,
            start="earliest",
            concurrency=shape.concurrency,
            retry=Retry(immediate=shape.immediate, delays=(0.1, 0.5, 2.0)),
            order=shape.order,  # type: ignore[arg-type]
            after=shape.after,  # type: ignore[arg-type]
            batch=5 if shape.style == "batch" else None,
            state=None if shape.order == "none" else Total,
            timeout=None if shape.style == "plain" else limit,
            dedup=shape.dedup,
        )
        register = billing.on(OrderPlaced, where=lambda order: order.mood != "filtered")
        if shape.style == "async":
            register(self._async_handler(node))
        elif shape.style == "plain":
            register(self._plain_handler(node))
        else:
            register(self._batch_handler(node))
        return app

    def _async_handler(self, node: Node) -> Any:
        async def bill(order: OrderPlaced, ctx: Context[Any]) -> Invoice:
            if node.random.random() < 0.3:
                await node.clock.sleep(node.random.random() * 0.05)
            await self.linger(node, order)
            self.judge(node, order, ctx)
            return Invoice(order.customer, order.number, self.add(ctx, order))

        return bill

    def _plain_handler(self, node: Node) -> Any:
        def bill(order: OrderPlaced, ctx: Context[Any]) -> Invoice:
            self.judge(node, order, ctx)
            return Invoice(order.customer, order.number, self.add(ctx, order))

        return bill

    def _batch_handler(self, node: Node) -> Any:
        async def bill(orders: list[OrderPlaced], ctx: Context[Any]) -> None:
            # All are looked at before any takes effect, so that a failed call has succeeded for none.
            for order in orders:
                await self.linger(node, order)
                if self.fails(node, order):
                    raise self.error(order)
            for order in orders:
                node.executed(assignment_of(ctx), identity_of(order), ok=True)
                ctx.publish(Invoice(order.customer, order.number, self.add(ctx, order)))

        return bill

    def add(self, ctx: Context[Any], order: OrderPlaced) -> int:
        """Add to the customer's total, where there is state."""
        return 0 if self.shape.order == "none" else add(ctx, order)

    async def linger(self, node: Node, order: OrderPlaced) -> None:
        """Take long, or get stuck, now and then, until the time limit ends it."""
        if order.mood == "slow" and self.shape.style == "async":
            await node.clock.sleep(node.random.random() * 1.5)
        if self.shape.hangs and order.mood == "stuck" and node.random.random() < 0.5:
            node.trace("stuck", *identity_of(order))
            await node.clock.sleep(1000.0)

    def judge(self, node: Node, order: OrderPlaced, ctx: Context[Any]) -> None:
        """Note how this attempt ends; raise if it fails."""
        failed = self.fails(node, order)
        node.executed(assignment_of(ctx), identity_of(order), ok=not failed)
        if failed:
            raise self.error(order)

    def fails(self, node: Node, order: OrderPlaced) -> bool:
        """Whether this attempt fails."""
        match order.mood:
            case "flaky" | "later" | "stuck":
                return node.random.random() < 0.5
            case "curable":
                return self.world.faults.active
            case mood:
                return mood in ("hopeless", "thrown")

    @staticmethod
    def error(order: OrderPlaced) -> Exception:
        """What a failing attempt raises."""
        if order.mood == "thrown":
            return Discard("thrown away")
        return RetryLater(0.3) if order.mood == "later" else HandlerFailed(order.mood)

    async def operate(self, node: Node) -> None:
        """Redrive dead letters, discard the hopeless, now and then pause and resume."""
        await node.log.start()
        while not node.stopping.is_set():
            await node.clock.sleep(0.3 + node.random.random())
            try:
                for partition in range(self.shape.partitions):
                    await self._clear(node, partition)
            except PostlineError:
                continue
        await node.log.close()

    async def _clear(self, node: Node, partition: int) -> None:
        ops = []
        if node.world.faults.active and node.random.random() < 0.1:
            ops = [ControlOp(op="pause"), ControlOp(op="resume")]
        for key, data in await node.log.peek_state(_SUBSCRIPTION, partition, DEAD):
            offset = offset_of(key)
            self.buried.add(decode_entry(data, DeadEntry).key or b"")
            (record,) = await node.log.read_offsets("orders", partition, [offset])
            mood = msgspec.json.decode(record[4] or b"", type=OrderPlaced).mood
            ops.append(ControlOp(op="discard" if mood == "hopeless" else "redrive", offset=offset, reason="sim"))
        for op in ops:
            # Until it is told: a pause without its resume would last for ever.
            await tell(node, _SUBSCRIPTION, partition, op)

    async def resume_all(self, node: Node) -> None:
        """Undo a pause whose resume died with the operator."""
        await node.log.start()
        while self.world.faults.active:
            await node.clock.sleep(0.5)
        while _SUBSCRIPTION not in self.world.cluster.subscriptions:
            await node.clock.sleep(0.5)
        for partition in range(self.shape.partitions):
            await tell(node, _SUBSCRIPTION, partition, ControlOp(op="resume"))
        await node.log.close()

    # The verdict.

    def finished(self) -> bool:
        """Whether all is over, the probe too."""
        return self.world.ended("prober") and self.settled()

    def settled(self) -> bool:
        """Whether the faults are over and all that was published has come to its end."""
        world = self.world
        subscription = world.cluster.subscriptions.get(_SUBSCRIPTION)
        if subscription is None or not all(map(world.ended, self.publishers)) or not world.settled(_SUBSCRIPTION):
            return False
        if self.shape.counted and not world.settled(_OTHER):
            return False
        return not any(slot.state.get(HELD) or slot.state.get(DEAD) for slot in subscription.slots)

    def check(self) -> list[Problem]:
        """Every guarantee, at the end."""
        world, shape = self.world, self.shape
        every = [order for orders in self.messages.values() for order in orders]
        without = {identity_of(order) for order in every if order.mood in _WITHOUT_EFFECT}
        # A continued key gave up its order where a record of it was a dead letter.
        ordered = shape.after == "hold" and shape.order != "none"
        unordered = set[bytes]() if ordered else {customer.encode() for customer in self.messages}
        records = world.records("orders", identity_of=content_identity)
        effects = world.records("invoices", invoiced)
        totals = {} if shape.order == "none" else _totals(order for order in every if order.mood not in _WITHOUT_EFFECT)
        return [
            *self.late,
            *check_publishing(world.history, "orders", records),
            *check_effects(world.history, _SUBSCRIPTION, records, effects, excluded=without, unordered=unordered),
            *check_executions(world.history, _SUBSCRIPTION, records, excluded=without, unordered=unordered),
            *check_equal("totals", totals, self._stored_totals(_SUBSCRIPTION)),
            *self._audit(every, records),
            *(self._check_other(every, records) if shape.counted else ()),
        ]

    def _stored_totals(self, subscription: str) -> dict[str, int]:
        slots = self.world.cluster.subscriptions[subscription].slots
        states = {key: data for slot in slots for key, data in slot.state.get(USER_STATE, {}).items()}
        return {key.decode(): msgspec.json.decode(data, type=Total).amount for key, data in states.items()}

    def _passed(self, subscription: str, records: list[StoredRecord]) -> int:
        # A dead publisher's last copy may land when all is over, so only what positions passed is counted.
        slots = self.world.cluster.subscriptions[subscription].slots
        return sum(record.offset < slots[record.partition].position for record in records)

    def _audit(self, every: list[OrderPlaced], records: list[StoredRecord]) -> list[Problem]:
        lines, sums = audit_of(self.world, _SUBSCRIPTION)
        moods = Counter(order.mood for order in every)
        expected = {
            "DONE": len(every) - sum(moods[mood] for mood in _WITHOUT_EFFECT),
            "DISCARDED": moods["hopeless"] + moods["thrown"],
        }
        # Copies of a filtered message may count as either.
        told = {name: sums[name] for name in expected}
        told["FILTERED or DUPLICATE"] = sums["FILTERED"] + sums["DUPLICATE"]
        expected["FILTERED or DUPLICATE"] = moods["filtered"] + self._passed(_SUBSCRIPTION, records) - len(every)
        return [*check_audit(lines), *check_equal("outcomes", expected, told)]

    def _check_other(self, every: list[OrderPlaced], records: list[StoredRecord]) -> list[Problem]:
        """The other subscription has handled each order once, whatever became of it in billing."""
        lines, sums = audit_of(self.world, _OTHER)
        expected = {"DONE": len(every), "DUPLICATE": self._passed(_OTHER, records) - len(every)}
        return [
            *check_audit(lines),
            *check_equal("outcomes of the other subscription", expected, {name: sums[name] for name in expected}),
            *check_equal("totals of the other subscription", _totals(every), self._stored_totals(_OTHER)),
        ]


def run_shop(
    seed: int, plan: FaultPlan | None = None, *, keep_trace: bool = False, mutant: str = "", shape: Shape | None = None
) -> Result:
    """One seed of the shop; `mutant` is one of the engine's, which the checks must find."""
    world = World(seed, plan, keep_trace=keep_trace, mutant=mutant)
    shop = Shop(world, shape or Shape.by_seed(seed))
    for name, customer in zip(shop.publishers, shop.customers, strict=True):
        world.add(name, lambda node, customer=customer: shop.desk.publish(node, customer))  # type: ignore[misc]
    for index in range(shop.shape.workers):
        world.add(f"billing{index}", shop.bill)
    if shop.shape.counted:
        world.add("counting", shop.count)
    world.add("operator", shop.operate)
    world.add("resumer", shop.resume_all)
    world.add_later("prober", shop.probe)
    return world.run(shop.settled, shop.check, finished_calmly=shop.finished)


def _totals(orders: Iterable[OrderPlaced]) -> dict[str, int]:
    """What each customer's orders come to."""
    totals = Counter[str]()
    for order in orders:
        totals[order.customer] += order.number + 1
    return dict(totals)
