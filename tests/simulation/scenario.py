"""The whole runtime in a simulated world: a shop publishes, several workers bill, an operator clears dead letters."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

import msgspec

from postline.app import App, Environment
from postline.contracts import Topic
from postline.errors import PostlineError
from postline.log.port import Assignment, Record
from postline.message import Envelope
from postline.runtime.context import Context
from postline.runtime.control import ControlOp, control_record
from postline.runtime.entries import DEAD, HELD, USER_STATE, DeadEntry, decode_entry, offset_of
from postline.runtime.intents import Discard, RetryLater
from postline.runtime.outcomes import Outcome
from postline.runtime.progress import Progress
from postline.runtime.retry import Retry
from postline.settings import Settings, parse_url
from tests.simulation.checks import (
    AuditLine,
    Identity,
    Problem,
    check_audit,
    check_effects,
    check_equal,
    check_executions,
    check_publishing,
)
from tests.simulation.faults import FaultPlan
from tests.simulation.world import Node, Result, World

__all__ = ["Shape", "run_shop"]

_SUBSCRIPTION = "billing"
#: Where nothing goes wrong, an order is billed within this time; a lost wake-up takes longer.
_PROMPT_SECONDS = 1.0
_PROBE = "probe"
#: Longer than a lease and the death of a process take to be noticed.
_CALM_SECONDS = 8.0
#: Moods of a message, by how often they occur.
_MOODS = {"fine": 75, "flaky": 12, "later": 4, "curable": 4, "hopeless": 2, "thrown": 2, "filtered": 3}
STYLES = ("async", "async", "plain", "batch")
#: These end without an effect.
_WITHOUT_EFFECT = ("hopeless", "thrown", "filtered")


class OrderPlaced(msgspec.Struct, frozen=True):
    """An order; its mood says how its handling goes."""

    customer: str
    number: int
    mood: str


class Invoice(msgspec.Struct, frozen=True):
    """What an order becomes, with the customer's sum so far."""

    customer: str
    number: int
    total: int


class Total(msgspec.Struct):
    """A customer's state."""

    amount: int = 0


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
    own_ids: bool

    @classmethod
    def by_seed(cls, seed: int) -> Shape:
        """A shape drawn by the seed."""
        draw = random.Random(f"shape {seed}")
        return cls(
            partitions=draw.choice((1, 2, 4)),
            workers=draw.choice((1, 2, 3)),
            customers=draw.choice((2, 6)),
            orders_each=draw.choice((6, 12)),
            concurrency=draw.choice((1, 4, 64)),
            style=draw.choice(STYLES),
            after=draw.choice(("hold", "hold", "continue")),
            order=draw.choice(("key", "key", "partition")),
            immediate=draw.choice((0, 1, 2)),
            own_ids=draw.random() < 0.9,
        )


class HandlerFailed(Exception):
    """What handlers raise now and then."""


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

    @property
    def publishers(self) -> list[str]:
        """Names of the publishing processes, one for each customer."""
        return [f"shop-{customer}" for customer in self.customers]

    def environment(self, node: Node) -> Environment:
        """What an app of that node runs on."""
        settings = Settings(url=parse_url("sqlite://"), instance=node.process.name)
        return Environment(node.log, settings, node.clock, node.random)

    # Programs.

    async def publish(self, node: Node, customer: str) -> None:
        """Publish the customer's orders one after another, each until it is acknowledged."""
        app = App("shop", owns=[self.orders])
        await _persist(node, lambda: app.start(self.environment(node), consume=False))
        for order in self.messages[customer]:
            identity = _identity(order)
            known = node.history.publications.get(identity)
            if known is not None and known.acknowledged:
                continue
            node.history.publishing("orders", identity, customer.encode(), order.number)
            await _persist(node, lambda order=order: app.publish(order, id=_identity(order)[1]))
            node.history.acknowledged(identity)
            await node.clock.sleep(node.random.random() * 0.4)
        await app.stop()
        await node.log.close()

    async def probe(self, node: Node) -> None:
        """When all is calm, publish a few orders more and see that each is billed promptly."""
        while not self.settled() or any(other.process.stopped for other in self.world.nodes()):
            await node.clock.sleep(0.5)
        # Calls that were made slow may still be under way.
        await node.clock.sleep(_CALM_SECONDS + 2 * self.world.plan.slow_seconds)
        app = App("shop", owns=[self.orders])
        await app.start(self.environment(node), consume=False)
        for order in self.messages[_PROBE]:
            identity = _identity(order)
            node.history.publishing("orders", identity, _PROBE.encode(), order.number)
            await app.publish(order, id=identity[1])
            node.history.acknowledged(identity)
            published = node.clock.monotonic()
            while not any(effect.cause == identity for effect in self.world.records("invoices", _invoiced)):
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
        app = self.billing_app(node)
        await _persist(node, lambda: app.start(self.environment(node)))
        await node.stopped_or_failed(app.wait_failed())
        await app.stop()
        await node.log.close()

    def billing_app(self, node: Node) -> App:
        """The service, with handlers in the seed's style."""
        shape = self.shape
        app = App("billing", owns=[self.invoices])
        billing = app.subscribe(
            _SUBSCRIPTION,
            self.orders,
            start="earliest",
            concurrency=shape.concurrency,
            retry=Retry(immediate=shape.immediate, delays=(0.1, 0.5, 2.0)),
            order=shape.order,  # type: ignore[arg-type]
            after=shape.after,  # type: ignore[arg-type]
            batch=5 if shape.style == "batch" else None,
            state=Total,
            timeout=10.0 if shape.style == "async" else None,
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
            self.judge(node, order, ctx)
            return Invoice(order.customer, order.number, _add(ctx, order))

        return bill

    def _plain_handler(self, node: Node) -> Any:
        def bill(order: OrderPlaced, ctx: Context[Any]) -> Invoice:
            self.judge(node, order, ctx)
            return Invoice(order.customer, order.number, _add(ctx, order))

        return bill

    def _batch_handler(self, node: Node) -> Any:
        async def bill(orders: list[OrderPlaced], ctx: Context[Any]) -> None:
            # All are looked at before any takes effect, so that a failed call has succeeded for none.
            for order in orders:
                if self.fails(node, order):
                    raise self.error(order)
            for order in orders:
                node.executed(_assignment(ctx), _identity(order), ok=True)
                ctx.publish(Invoice(order.customer, order.number, _add(ctx, order)))

        return bill

    def judge(self, node: Node, order: OrderPlaced, ctx: Context[Any]) -> None:
        """Note how this attempt ends; raise if it fails."""
        failed = self.fails(node, order)
        node.executed(_assignment(ctx), _identity(order), ok=not failed)
        if failed:
            raise self.error(order)

    def fails(self, node: Node, order: OrderPlaced) -> bool:
        """Whether this attempt fails."""
        match order.mood:
            case "flaky" | "later":
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
            node.trace("operator", partition, op.op, op.offset)
            envelope = Envelope(id=node.ids.next_id(), source="operator")
            topic = f"{_SUBSCRIPTION}.control"
            while True:
                # A pause without its resume would last for ever.
                try:
                    await node.log.append([control_record(topic, partition, op, envelope)])
                    break
                except PostlineError:
                    await node.clock.sleep(0.1)

    async def resume_all(self, node: Node) -> None:
        """Undo a pause whose resume died with the operator."""
        await node.log.start()
        while self.world.faults.active:
            await node.clock.sleep(0.5)
        while _SUBSCRIPTION not in self.world.cluster.subscriptions:
            await node.clock.sleep(0.5)
        for partition in range(self.shape.partitions):
            envelope = Envelope(id=node.ids.next_id(), source="operator")
            await node.log.append(
                [control_record(f"{_SUBSCRIPTION}.control", partition, ControlOp(op="resume"), envelope)]
            )
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
        return not any(slot.state.get(HELD) or slot.state.get(DEAD) for slot in subscription.slots)

    def check(self) -> list[Problem]:
        """Every guarantee, at the end."""
        world = self.world
        slots = world.cluster.subscriptions[_SUBSCRIPTION].slots
        every = [order for orders in self.messages.values() for order in orders]
        without = {_identity(order) for order in every if order.mood in _WITHOUT_EFFECT}
        # A continued key gave up its order where a record of it was a dead letter.
        unordered = {customer.encode() for customer in self.customers} if self.shape.after == "continue" else set()
        records, effects = world.records("orders"), world.records("invoices", _invoiced)
        states = {key: data for slot in slots for key, data in slot.state.get(USER_STATE, {}).items()}
        totals = {key.decode(): msgspec.json.decode(data, type=Total).amount for key, data in states.items()}
        expected = Counter[str]()
        for order in every:
            if order.mood not in _WITHOUT_EFFECT:
                expected[order.customer] += order.number + 1
        return [
            *self.late,
            *check_publishing(world.history, "orders", records),
            *check_effects(world.history, _SUBSCRIPTION, records, effects, excluded=without, unordered=unordered),
            *check_executions(world.history, _SUBSCRIPTION, records, excluded=without, unordered=unordered),
            *check_equal("totals", dict(expected), totals),
            *self._audit(every, sum(record.offset < slots[record.partition].position for record in records)),
        ]

    def _audit(self, every: list[OrderPlaced], passed: int) -> list[Problem]:
        # A dead publisher's last copy may land when all is over, so only what positions passed is counted.
        lines, sums = [], Counter[str]()
        for index, slot in enumerate(self.world.cluster.subscriptions[_SUBSCRIPTION].slots):
            progress = Progress.decode(slot.progress, slot.position)
            counts = {outcome.name: progress.counts[outcome] for outcome in Outcome if progress.counts[outcome]}
            sums.update(counts)
            lines.append(
                AuditLine(_SUBSCRIPTION, index, progress.start, slot.position, counts | {"gaps": progress.gaps})
            )
        moods = Counter(order.mood for order in every)
        copies = passed - len(every)
        expected = {
            "DONE": len(every) - sum(moods[mood] for mood in _WITHOUT_EFFECT),
            "DISCARDED": moods["hopeless"] + moods["thrown"],
        }
        # Copies of a filtered message may count as either.
        told = {name: sums[name] for name in expected}
        told["FILTERED or DUPLICATE"] = sums["FILTERED"] + sums["DUPLICATE"]
        expected["FILTERED or DUPLICATE"] = moods["filtered"] + copies
        return [*check_audit(lines), *check_equal("outcomes", expected, told)]


def run_shop(
    seed: int, plan: FaultPlan | None = None, *, keep_trace: bool = False, mutant: str = "", shape: Shape | None = None
) -> Result:
    """One seed of the shop; `mutant` is one of the engine's, which the checks must find."""
    world = World(seed, plan, keep_trace=keep_trace, mutant=mutant)
    shop = Shop(world, shape or Shape.by_seed(seed))
    for name, customer in zip(shop.publishers, shop.customers, strict=True):
        world.add(name, lambda node, customer=customer: shop.publish(node, customer))  # type: ignore[misc]
    for index in range(shop.shape.workers):
        world.add(f"billing{index}", shop.bill)
    world.add("operator", shop.operate)
    world.add("resumer", shop.resume_all)
    world.add_later("prober", shop.probe)
    return world.run(shop.settled, shop.check, finished_calmly=shop.finished)


def _invoiced(record: Record) -> Identity:
    # Outputs of a batch name its first message as their cause, so the content tells.
    invoice = msgspec.json.decode(record[4] or b"", type=Invoice)
    return ("shop", f"{invoice.customer}-{invoice.number}")


def _identity(order: OrderPlaced) -> Identity:
    return ("shop", f"{order.customer}-{order.number}")


def _assignment(ctx: Context[Any]) -> Assignment:
    assignment: Assignment = ctx.desk.assignment  # type: ignore[attr-defined]
    return assignment


def _add(ctx: Context[Any], order: OrderPlaced) -> int:
    key = order.customer
    total = ctx.state.get(key) or Total()
    amount: int = total.amount + order.number + 1
    ctx.state.put(Total(amount), key)
    return amount


async def _persist(node: Node, attempt: Any) -> Any:
    """Repeat until the log takes it."""
    while True:
        try:
            return await attempt()
        except PostlineError as error:
            if not getattr(error, "retryable", False):
                raise
            await node.clock.sleep(0.1)
