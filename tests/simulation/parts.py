"""What the scenarios share: the shop's messages, its publishers, and the audit as the checks read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

import msgspec

from postline.app import App, Environment
from postline.contracts import Topic
from postline.errors import PostlineError
from postline.log.port import Assignment, Record
from postline.message import Envelope
from postline.runtime.context import Context
from postline.runtime.control import ControlOp, control_record
from postline.runtime.entries import DEAD, HELD
from postline.runtime.outcomes import Outcome
from postline.runtime.progress import Progress, Standing
from postline.settings import Settings, parse_url
from tests.simulation.checks import AuditLine, Identity
from tests.simulation.world import Node, World

__all__ = [
    "Desk",
    "HandlerFailed",
    "Invoice",
    "OrderPlaced",
    "Total",
    "add",
    "assignment_of",
    "audit_of",
    "content_identity",
    "environment",
    "identity_of",
    "invoiced",
    "persist",
    "serve",
    "tell",
]

T = TypeVar("T")


class OrderPlaced(msgspec.Struct, frozen=True):
    """An order; its mood says how its handling goes."""

    customer: str
    number: int
    mood: str
    #: Tells one message from its repetition where the id doesn't.
    reference: str = ""
    sent: int = 0


class Invoice(msgspec.Struct, frozen=True):
    """What an order becomes, with the customer's sum so far."""

    customer: str
    number: int
    total: int


class Total(msgspec.Struct):
    """A customer's state."""

    amount: int = 0


class HandlerFailed(Exception):
    """What handlers raise now and then."""


def identity_of(order: OrderPlaced) -> Identity:
    """The message that this order is, however often it is published."""
    return ("shop", f"{order.customer}-{order.number}")


def content_identity(record: Record) -> Identity:
    """The same, of a stored order."""
    return identity_of(msgspec.json.decode(record[4] or b"", type=OrderPlaced))


def invoiced(record: Record) -> Identity:
    """The order that a stored invoice is for: outputs of a batch name its first message as their cause."""
    invoice = msgspec.json.decode(record[4] or b"", type=Invoice)
    return ("shop", f"{invoice.customer}-{invoice.number}")


def assignment_of(ctx: Context[Any]) -> Assignment:
    """The assignment under which an attempt runs."""
    assignment: Assignment = ctx.desk.assignment  # type: ignore[attr-defined]
    return assignment


def add(ctx: Context[Any], order: OrderPlaced) -> int:
    """Add the order to its customer's total; gives the new total."""
    total = ctx.state.get(order.customer) or Total()
    amount: int = total.amount + order.number + 1
    ctx.state.put(Total(amount), order.customer)
    return amount


def environment(node: Node) -> Environment:
    """What an app of that node runs on."""
    settings = Settings(url=parse_url("sqlite://"), instance=node.process.name)
    return Environment(node.log, settings, node.clock, node.random, watches=False)


async def persist(node: Node, attempt: Callable[[], Awaitable[T]]) -> T:
    """Repeat until the log takes it."""
    while True:
        try:
            return await attempt()
        except PostlineError as error:
            if not getattr(error, "retryable", False):
                raise
            await node.clock.sleep(0.1)


async def tell(node: Node, subscription: str, partition: int, op: ControlOp) -> None:
    """Ask the partition's owner for `op`, as operators do."""
    node.trace("operator", partition, op.op, op.offset)
    envelope = Envelope(id=node.ids.next_id(), source="operator")
    await persist(node, lambda: node.log.append([control_record(f"{subscription}.control", partition, op, envelope)]))


async def serve(node: Node, make: Callable[[], App], *, lives_seconds: Callable[[], float] | None = None) -> None:
    """Run a service until the world stops it; while there are faults, stop and start it after each of its lives."""
    while True:
        faulty = node.world.faults.active
        app = make()
        await persist(node, lambda app=app: app.start(environment(node)))  # type: ignore[misc]
        again = node.world.calm if faulty and lives_seconds else node.stopping
        lasts = lives_seconds() if faulty and lives_seconds else None
        await node.until_set(again, app.wait_failed(), lasts)
        await app.stop()
        if node.stopping.is_set():
            break
    await node.log.close()


class Desk:
    """The publishing side: each customer's orders, one after another, each until it is acknowledged."""

    def __init__(self, world: World, topic: Topic, messages: dict[str, list[OrderPlaced]]) -> None:
        self.world = world
        self.topic = topic
        self.messages = messages
        self.pause_seconds = 0.4
        #: Publish without own ids, and now and then twice; `dedup` has to tell by the content.
        self.repeats = False

    async def publish(self, node: Node, customer: str) -> None:
        """The program of the customer's publisher."""
        app = App("shop", owns=[self.topic])
        await persist(node, lambda: app.start(environment(node), consume=False))
        for order in self.messages[customer]:
            identity = identity_of(order)
            known = node.history.publications.get(identity)
            if known is not None and known.acknowledged:
                continue
            node.history.publishing(self.topic.name, identity, customer.encode(), order.number)
            await self._one(node, app, order)
            node.history.acknowledged(identity)
            if self.repeats and node.random.random() < 0.3:
                await self._one(node, app, order)
            await node.clock.sleep(node.random.random() * self.pause_seconds)
        await app.stop()
        await node.log.close()

    async def _one(self, node: Node, app: App, order: OrderPlaced) -> None:
        if self.repeats:
            told = msgspec.structs.replace(order, reference=identity_of(order)[1], sent=node.random.getrandbits(30))
            await persist(node, lambda: app.publish(told))
        else:
            await persist(node, lambda: app.publish(order, id=identity_of(order)[1]))


def audit_of(world: World, subscription: str) -> tuple[list[AuditLine], Counter[str]]:
    """Each partition's counts, and their sums by outcome."""
    lines, sums = [], Counter[str]()
    for index, slot in enumerate(world.cluster.subscriptions[subscription].slots):
        progress = Progress.decode(slot.progress, slot.position)
        counts = {outcome.name: progress.counts[outcome] for outcome in Outcome if progress.counts[outcome]}
        sums.update(counts)
        counts["gaps"] = progress.gaps
        kept = len(slot.state.get(HELD, ())), len(slot.state.get(DEAD, ()))
        told = progress.standing or Standing(retrying=kept[0], dead_letters=kept[1])
        line = AuditLine(subscription, index, progress.start, slot.position, counts)
        lines.append(replace(line, told=(told.held, told.dead_letters), kept=kept))
    return lines, sums
