"""A service that delays: each message leaves once, or never if cancelling it was answered so; no run is doubled."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import msgspec

from postline.app import App
from postline.contracts import Topic
from postline.runtime.context import Context
from postline.runtime.delays import DelayToken
from postline.runtime.entries import HELD, TIMER_NOTES, TIMERS
from postline.runtime.retry import Retry
from postline.runtime.revoked import outcome_key
from postline.schedules import Run
from tests.simulation.checks import Identity, Problem, StoredRecord, check_audit, check_effects, check_publishing
from tests.simulation.faults import FaultPlan
from tests.simulation.parts import (
    Desk,
    HandlerFailed,
    Invoice,
    OrderPlaced,
    assignment_of,
    audit_of,
    environment,
    identity_of,
    invoiced,
    persist,
    serve,
)
from tests.simulation.world import Node, Result, World

__all__ = ["run_delaying"]

_SUBSCRIPTION = "billing"
_SCHEDULES = "billing.schedules"
#: From this attempt on handlers succeed, so that no record becomes a dead letter.
_LAST_ATTEMPT = 4
_ORDERS, _NOTES = 10, 10


class Note(msgspec.Struct, frozen=True):
    """What is delayed at the edge, or left by a run of the schedule."""

    name: str
    number: int


class DelayingShop:
    """One seed: orders are billed later, some bills are cancelled; notes wait from outside; a schedule runs."""

    def __init__(self, world: World, seed: int) -> None:
        draw = random.Random(f"delaying {seed}")
        self.world = world
        self.partitions = draw.choice((1, 2, 4))
        self.longest_seconds = draw.choice((1.0, 6.0, 20.0))
        self.orders = Topic("orders", owner="shop", key="customer", partitions=self.partitions)
        self.orders.event("OrderPlaced")(OrderPlaced)
        self.invoices = Topic("invoices", owner="billing", key="customer", partitions=self.partitions)
        self.invoices.event("Invoice")(Invoice)
        self.notes = Topic("notes", owner="billing", key="name", partitions=self.partitions)
        self.notes.event("Note")(Note)
        self.customers = [f"customer{number}" for number in range(3)]
        messages = {each: [OrderPlaced(each, number, "fine") for number in range(_ORDERS)] for each in self.customers}
        self.desk = Desk(world, self.orders, messages)
        #: The ids of the bills, and those that were to be cancelled.
        self.bills: dict[Identity, str] = {}
        self.unwanted = {
            ("shop", f"{each}-{n}") for each in self.customers for n in range(_ORDERS) if draw.random() < 0.4
        }

    async def bill(self, node: Node) -> None:
        """The program of a worker."""
        await serve(node, lambda: self.app(node), lives_seconds=lambda: 1 + 6 * node.random.random())

    def app(self, node: Node) -> App:
        """The service."""
        app = App("billing", owns=[self.invoices, self.notes], schedules=True)
        retry = Retry(immediate=0, delays=(0.1, 0.5, 1.0, 1.0))
        billing = app.subscribe(_SUBSCRIPTION, self.orders, start="earliest", retry=retry)

        @billing.on(OrderPlaced)
        async def bill(order: OrderPlaced, ctx: Context[Any]) -> None:
            failed = ctx.attempt < _LAST_ATTEMPT and node.random.random() < 0.2
            identity = identity_of(order)
            node.executed(assignment_of(ctx), identity, ok=not failed)
            delay = node.random.random() * self.longest_seconds
            token = ctx.publish(Invoice(order.customer, order.number, 0), delay=delay)
            self.bills[identity] = DelayToken.read(token).id
            if identity in self.unwanted:
                ctx.cancel(token)
            if failed:
                raise HandlerFailed

        @app.every(2, name="tick", missed="all")
        async def tick(run: Run) -> Note:
            return Note("tick", round(run.planned_at.timestamp()))

        return app

    async def note(self, node: Node) -> None:
        """The program of somebody who delays from outside, and repeats what may have failed."""
        app = App("billing", owns=[self.notes], schedules=True)
        await persist(node, lambda: app.start(environment(node), consume=False))
        for number in range(_NOTES):
            delay = node.random.random() * self.longest_seconds

            def publish(number: int = number, delay: float = delay) -> Any:
                return app.publish(Note("edge", number), id=f"note-{number}", delay=delay)

            await persist(node, publish)
            if node.random.random() < 0.3:
                await persist(node, publish)
            await node.clock.sleep(node.random.random())
        await app.stop()
        await node.log.close()

    def settled(self) -> bool:
        """Whether all has come to its end, and nothing of it waits but the next run."""
        world = self.world
        if not all(world.ended(each) for each in ("edge", *(f"shop-{customer}" for customer in self.customers))):
            return False
        for name, waits in ((_SUBSCRIPTION, 0), (_SCHEDULES, 1)):
            subscription = world.cluster.subscriptions.get(name)
            if subscription is None or not world.settled(name):
                return False
            if any(slot.state.get(HELD) for slot in subscription.slots):
                return False
            if sum(len(slot.state.get(TIMERS, ())) for slot in subscription.slots) != waits:
                return False
        return True

    def check(self) -> list[Problem]:
        """Nothing is lost or doubled, and what was cancelled did not leave."""
        world, history = self.world, self.world.history
        records, bills = world.records("orders"), world.records("invoices", invoiced)
        slots = world.cluster.subscriptions[_SUBSCRIPTION].slots
        answers = {key: value for slot in slots for key, value in slot.state.get(TIMER_NOTES, {}).items()}
        cancelled = {
            identity for identity in self.unwanted if answers.get(outcome_key(self.bills.get(identity, ""))) == b"1"
        }
        left = cancelled & {bill.cause for bill in bills}
        keys = {customer.encode() for customer in self.customers}
        return [
            *([Problem("wrong", f"cancelled, and left all the same: {sorted(left)}")] if left else ()),
            *check_publishing(history, "orders", records),
            *check_effects(history, _SUBSCRIPTION, records, bills, excluded=cancelled, unordered=keys),
            *self._check_notes(world.records("notes", _noted)),
            *check_audit(audit_of(world, _SUBSCRIPTION)[0]),
            *check_audit(audit_of(world, _SCHEDULES)[0]),
        ]

    def _check_notes(self, notes: list[StoredRecord]) -> list[Problem]:
        found = Counter(note.cause for note in notes)
        doubled = [each for each, count in found.items() if count > 1]
        lost = [("edge", str(number)) for number in range(_NOTES) if ("edge", str(number)) not in found]
        problems = [Problem("doubled", f"{doubled} left more than once")] if doubled else []
        return problems + ([Problem("lost", f"{lost} never left")] if lost else [])


def _noted(record: Any) -> Identity:
    note = msgspec.json.decode(record[4] or b"", type=Note)
    return (note.name, str(note.number))


def run_delaying(seed: int, plan: FaultPlan | None = None, *, keep_trace: bool = False, mutant: str = "") -> Result:
    """One seed of the scenario."""
    world = World(seed, plan, keep_trace=keep_trace, mutant=mutant)
    shop = DelayingShop(world, seed)
    for customer in shop.customers:
        world.add(f"shop-{customer}", lambda node, customer=customer: shop.desk.publish(node, customer))  # type: ignore[misc]
    world.add("edge", shop.note)
    for index in range(2):
        world.add(f"billing{index}", shop.bill)
    return world.run(lambda: False, shop.check, finished_calmly=shop.settled, fault_seconds=12.0)
