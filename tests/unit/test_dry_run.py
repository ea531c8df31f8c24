"""A dry run says what present code would make of dead letters, and changes nothing: events, commands, tasks."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import Struct

from postline import App, CommandTopic, Context, Refused, Retry, Topic, UsageError
from postline.app import DryRun, Environment, rehearse
from postline.monitor import Monitor, Selection
from postline.monitor.deadletters import Opened
from postline.settings import LogUrl, Settings
from postline.testing import TestApp

NEVER = Retry(immediate=0, delays=())


class Order(Struct, frozen=True):
    customer: str
    number: int


class Returned(Struct, frozen=True):
    customer: str
    number: int


class Packed(Struct, frozen=True):
    customer: str
    number: int
    total: int


orders = Topic("shop.orders", owner="shop", key="customer", partitions=2)
orders.event("shop.Order")(Order)
orders.event("shop.Returned")(Returned)
packages = Topic("packing.packages", owner="packing", key="customer", partitions=2)
packages.event("packing.Packed")(Packed)


def broken_app() -> App:
    """Every handler fails."""
    app = App("packing", owns=[packages], publishes_to=[orders])
    subscription = app.subscribe("packing", orders, start="earliest", retry=NEVER, after="continue", state=int)

    @subscription.on(Order)
    async def pack(order: Order) -> None:
        raise ValueError("broken")

    @subscription.on(Returned)
    async def unpack(order: Returned) -> None:
        raise ValueError("broken")

    return app


class Mended:
    """The app as it is mended, with handlers that may be called in a dry run, or not."""

    def __init__(self, *, dry_run: bool = True) -> None:
        self.charged: list[int] = []
        self.dry: list[bool] = []
        self.app = App("packing", owns=[packages], publishes_to=[orders], lifespan=self._lifespan)
        subscription = self.app.subscribe("packing", orders, start="earliest", after="continue", state=int)

        @subscription.on(Order, where=lambda order: order.number != 7, dry_run=dry_run)
        async def pack(order: Order, ctx: Context[str]) -> Packed:
            self.dry.append(ctx.dry_run)
            assert ctx.resources == "the bank"
            if order.number == 3:
                raise LookupError("no box")
            if not ctx.dry_run:
                self.charged.append(order.number)
            total = (ctx.state.get() or 0) + 1
            ctx.state.put(total)
            return Packed(order.customer, order.number, total)

        @subscription.on(Returned)
        def unpack(order: Returned) -> None:
            raise AssertionError("must not be run")

    @asynccontextmanager
    async def _lifespan(self, app: App) -> AsyncIterator[str]:
        yield "the bank"


async def dry(t: TestApp, app: App, name: str) -> DryRun:
    """A dry run of all dead letters, and that it has stored nothing."""
    monitor = Monitor(t.log, t.clock)
    info = await monitor.info(name)

    async def pages() -> AsyncIterator[Sequence[Opened]]:
        async for page in monitor.letters.pages(info, Selection()):
            yield await monitor.letters.opened(info, page)

    before = await _everything(t)
    environment = Environment(t.log, Settings(url=LogUrl("sqlite")), t.clock, random.Random(1))
    found = await rehearse(app, environment, name, pages())
    assert await _everything(t) == before
    return found


async def _everything(t: TestApp) -> Any:
    topics = [(spec, await t.log.bounds(spec.name)) for spec in await t.log.topics()]
    subscriptions = [(each, await t.log.partitions(each.name)) for each in await t.log.subscriptions()]
    return topics, subscriptions


async def test_the_report_says_what_succeeds_what_fails_and_what_was_not_run() -> None:
    async with TestApp(broken_app()) as t:
        await t.publish_many([Order("ann", n) for n in (1, 2, 3, 7)])
        await t.publish_many([Returned("bob", 1), Returned("bob", 2)])
        await t.settle()
        mended = Mended()
        found = await dry(t, mended.app, "packing")
        assert (found.letters, found.succeed, found.filtered, found.failed) == (6, 2, 1, 1)
        assert (found.not_run, found.unserved, found.lost) == ({"shop.Returned": 2}, {}, 0)
        (group,) = found.fails
        assert (group.count, group.error, group.types) == (1, "LookupError: no box", ["shop.Order"])
        assert "test_dry_run:Mended.__init__.<locals>.pack (line" in group.place
        assert mended.charged == []
        assert mended.dry == [True, True, True]


async def test_a_handler_that_is_not_declared_for_it_is_only_checked() -> None:
    async with TestApp(broken_app()) as t:
        await t.publish_many([Order("ann", n) for n in (1, 3, 7)])
        await t.settle()
        mended = Mended(dry_run=False)
        found = await dry(t, mended.app, "packing")
        assert (found.succeed, found.filtered, found.not_run) == (0, 1, {"shop.Order": 2})
        assert mended.dry == []


async def test_what_present_code_can_not_read_or_does_not_handle_is_told() -> None:
    class OtherOrder(Struct, frozen=True):
        customer: int
        number: int

    other = Topic("shop.orders", owner="shop", key="customer", partitions=2)
    other.event("shop.Order")(OtherOrder)
    app = App("packing", publishes_to=[other])

    @app.subscribe("packing", other, start="earliest").on(OtherOrder, dry_run=True)
    async def pack(order: OtherOrder) -> None:
        raise AssertionError("must not be reached")

    async with TestApp(broken_app()) as t:
        await t.publish_many([Order("ann", 1), Returned("ann", 2)])
        await t.settle()
        found = await dry(t, app, "packing")
        assert (found.unserved, [each.place for each in found.fails]) == ({"shop.Returned": 1}, ["reading shop.Order"])


async def test_state_that_a_rehearsed_handler_puts_is_seen_by_its_key_alone_and_kept_by_nobody() -> None:
    seen: list[tuple[str, int]] = []
    app = App("packing", owns=[packages], publishes_to=[orders])
    subscription = app.subscribe("packing", orders, start="earliest", state=int)

    @subscription.on(Order, dry_run=True)
    async def pack(order: Order, ctx: Context) -> None:
        ctx.state.put(before := (ctx.state.get() or 0) + 1)
        seen.append((order.customer, before))

    async with TestApp(broken_app()) as t:
        await t.publish_many([Order("ann", 1), Order("bob", 1), Order("ann", 2)])
        await t.settle()
        assert (await dry(t, app, "packing")).succeed == 3
        assert sorted(seen) == [("ann", 1), ("ann", 2), ("bob", 1)]


async def test_a_message_that_its_contract_refuses_fails_in_a_dry_run_too() -> None:
    app = App("packing", owns=[packages], publishes_to=[orders])

    @app.subscribe("packing", orders, start="earliest").on(Order, dry_run=True)
    async def pack(order: Order, ctx: Context) -> Packed:
        return Packed("", order.number, 1)  # no key

    async with TestApp(broken_app()) as t:
        await t.publish(Order("ann", 1))
        await t.settle()
        (group,) = (await dry(t, app, "packing")).fails
        assert "no usable key" in group.error


async def test_publishing_past_the_context_is_refused_in_a_dry_run_too() -> None:
    app = App("packing", owns=[packages], publishes_to=[orders])

    @app.subscribe("packing", orders, start="earliest").on(Order, dry_run=True)
    async def pack(order: Order, ctx: Context) -> None:
        await app.publish(Packed("ann", 1, 1))

    async with TestApp(broken_app()) as t:
        await t.publish(Order("ann", 1))
        await t.settle()
        (group,) = (await dry(t, app, "packing")).fails
        assert "was called in a handler" in group.error


async def test_batch_and_plain_handlers_are_rehearsed_one_letter_at_a_time() -> None:
    batches: list[int] = []
    app = App("packing", publishes_to=[orders])
    subscription = app.subscribe("packing", orders, start="earliest", batch=50)

    @subscription.on(Order, dry_run=True)
    def pack(some: list[Order]) -> None:
        batches.append(len(some))

    async with TestApp(broken_app()) as t:
        await t.publish_many([Order("ann", 1), Order("bob", 2)])
        await t.settle()
        assert (await dry(t, app, "packing")).succeed == 2
        assert batches == [1, 1]


class Transfer(Struct, frozen=True):
    source: str
    amount: int


class Transferred(Struct, frozen=True):
    amount: int


class Insufficient(Struct, frozen=True):
    missing: int


def ledger(*, broken: bool) -> App:
    topic = CommandTopic("ledger", owner="ledger", key="source")
    topic.reply("ledger.Transferred")(Transferred)
    topic.reply("ledger.Insufficient")(Insufficient)
    topic.command("ledger.Transfer", reply=Transferred, refusals=(Insufficient,))(Transfer)
    app = App("ledger", owns=[topic])

    @app.serve(topic, retry=NEVER).on(Transfer, dry_run=True)
    async def transfer(command: Transfer, ctx: Context) -> Transferred:
        if broken:
            raise ValueError("broken")
        await ctx.progress("half-way")
        if command.amount > 100:
            raise Refused(Insufficient(command.amount - 100))
        if command.amount == 13:
            return None  # type: ignore[return-value] # a fault of the program
        return Transferred(command.amount)

    return app


async def test_commands_are_rehearsed_with_their_replies_and_refusals() -> None:
    first = ledger(broken=True)
    async with TestApp(first) as t:
        for amount in (1, 13, 500):
            await first.send(Transfer("ann", amount))
        await t.settle()
        found = await dry(t, ledger(broken=False), "ledger")
        assert (found.letters, found.succeed, found.failed) == (3, 2, 1)
        assert "returned 0 replies" in found.fails[0].error


def jobs(*, broken: bool, ran: list[str]) -> App:
    app = App("jobs")

    @app.task(name="resize", retry=NEVER, dry_run=True)
    async def resize(ctx: Context, path: str) -> None:
        if broken:
            raise ValueError("broken")
        if not ctx.dry_run:
            ran.append(path)

    @app.task(name="shred", retry=NEVER)
    def shred(path: str) -> None:
        if broken:
            raise ValueError("broken")
        ran.append(path)

    app.declared = (resize, shred)  # type: ignore[attr-defined]
    return app


async def test_tasks_are_rehearsed_if_they_are_declared_for_it() -> None:
    first, ran = jobs(broken=True, ran=[]), list[str]()
    async with TestApp(first) as t:
        resize, shred = first.declared  # type: ignore[attr-defined]
        await resize.send("cat.jpg")
        await shred.send("dog.jpg")
        await t.settle()
        found = await dry(t, jobs(broken=False, ran=ran), "jobs.tasks")
        assert (found.succeed, found.not_run, ran) == (1, {"jobs.shred": 1}, [])


async def test_an_app_that_does_not_serve_the_subscription_is_refused() -> None:
    async with TestApp(broken_app()) as t:
        with pytest.raises(UsageError, match="has no subscription 'packing'"):
            await dry(t, ledger(broken=False), "packing")
