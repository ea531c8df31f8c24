"""Subscriptions that know nothing of each other, and what operators do to them, with real apps on every engine."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from postline import App
from postline.errors import UnknownSubscription, UsageError
from postline.operations import ResetTarget
from tests.conformance.apps import INVOICES, NEVER, ORDERS, Billing, OrderPlaced, World, all_records, orders
from tests.conformance.harness import Engine


class Watching:
    """A subscription that only notes what it is given."""

    def __init__(self, name: str, start: Any = "earliest", app: App | None = None) -> None:
        self.app = app or App(name)
        self.name = name
        self.seen: list[OrderPlaced] = []
        subscription = self.app.subscribe(name, ORDERS, start=start, state=int, retry=NEVER)

        @subscription.on(OrderPlaced)
        async def see(order: OrderPlaced) -> None:
            self.seen.append(order)

    def saw(self, published: list[OrderPlaced]) -> bool:
        """Whether it was given exactly these, each customer's in order."""
        by_customer = sorted(self.seen, key=lambda order: order.customer)
        return by_customer == sorted(published, key=lambda order: order.customer)


async def test_subscriptions_have_positions_of_their_own(engine: Engine) -> None:
    async with World(engine) as world:
        both = App("watchers")
        quick, slow = Watching("quick", app=both), Watching("slow", app=both)
        await world.start(both)
        await world.obeyed(await world.operations.pause("slow"))
        published = orders(60)
        await world.publish(published)
        await world.until_handled("quick")
        assert quick.saw(published)
        assert slow.seen == []
        assert (await world.view("slow")).lag_records >= 60
        await world.stop(both)
        later = Watching("later")
        await world.start(later.app)
        await world.until_handled("later")
        assert later.saw(published)


async def test_a_new_subscription_begins_at_the_start_at_the_end_or_at_a_time(engine: Engine) -> None:
    async with World(engine) as world:
        old, new, newest = orders(16), orders(16, first=16), orders(16, first=32)
        await world.publish(old)
        engine.clock.ahead_ms += 60_000
        moment = datetime.fromtimestamp(engine.clock.now_ms() / 1000 - 30, UTC)
        await world.publish(new)
        app = App("watchers")
        from_start = Watching("from-start", "earliest", app)
        from_end = Watching("from-end", "latest", app)
        from_time = Watching("from-time", moment, app)
        await world.start(app)
        await world.publish(newest)
        for each in (from_start, from_end, from_time):
            await world.until_handled(each.name)
        assert from_start.saw(old + new + newest)
        assert from_end.saw(newest)
        assert from_time.saw(new + newest)


async def test_where_it_begins_counts_only_while_it_is_new(engine: Engine) -> None:
    async with World(engine) as world:
        first = Watching("sub", "latest")
        await world.start(first.app)
        await world.stop(first.app)
        published = orders(16)
        await world.publish(published)
        again = Watching("sub", "latest")
        await world.start(again.app)
        await world.until_handled("sub")
        assert again.saw(published)


async def test_a_paused_subscription_takes_nothing_until_it_is_resumed_also_after_a_restart(engine: Engine) -> None:
    async with World(engine) as world:
        first = Billing()
        await world.start(first.app)
        published = orders(40)
        await world.publish(published[:20])
        await world.until_handled()
        await world.obeyed(await world.operations.pause("billing"))
        await world.stop(first.app)
        await world.publish(published[20:])
        second = Billing()
        await world.start(second.app)
        other = Watching("other")
        if engine.name != "sqlite-memory":  # where one app at a time can run
            await world.start(other.app)
            await world.until_handled("other")
        view = await world.view()
        assert view.status == "paused"
        assert view.lag_records >= 20
        assert second.ran == []
        await world.balanced(done=20)
        request = await world.operations.resume("billing")
        await world.obeyed(request)
        await world.until_handled()
        await world.billed_once_and_in_order(published)


async def test_a_reset_to_an_offset_replays_from_there_with_new_counts_and_state(engine: Engine) -> None:
    async with World(engine) as world:
        billing = Billing()
        await world.start(billing.app)
        published = orders(40, customers=5)
        await world.publish(published)
        await world.until_handled()
        before = len(await world.read(INVOICES))
        first = {partition: record[0] for partition, record in reversed(await all_records(world.log, ORDERS.name))}
        plan = await world.operations.plan_reset("billing", ResetTarget(offset=0))
        assert plan.total("read_again") >= 40
        assert {each.partition: each.target for each in plan.partitions if each.partition in first} == first
        await world.obeyed(await world.operations.reset(plan))
        await world.until_handled()
        invoices = await world.read(INVOICES)
        assert [each.message for each in invoices[before:]]
        assert len(invoices) == 80
        assert sum((await world.totals()).values()) == sum(order.total for order in published)
        audit = await world.balanced(done=40)
        assert {each.generation for each in audit.partitions} == {1}


async def test_a_reset_of_one_partition_to_an_offset_in_the_middle_replays_its_rest(engine: Engine) -> None:
    async with World(engine) as world:
        watching = Watching("sub")
        await world.start(watching.app)
        await world.publish(orders(80))
        await world.until_handled("sub")
        placed = await world.read(ORDERS)
        partition = placed[0].partition
        own = [each for each in placed if each.partition == partition]
        middle = own[len(own) // 2]
        watching.seen.clear()
        target = ResetTarget(offset=middle.offset)
        plan = await world.operations.plan_reset("sub", target, partitions=[partition])
        await world.obeyed(await world.operations.reset(plan))
        await world.until_handled("sub")
        assert watching.saw([each.message for each in own if each.offset >= middle.offset])
        assert (await world.monitor.audit("sub")).balanced


async def test_a_reset_to_a_time_replays_what_came_since(engine: Engine) -> None:
    async with World(engine) as world:
        watching = Watching("sub")
        await world.start(watching.app)
        old, new = orders(24), orders(24, first=24)
        await world.publish(old)
        engine.clock.ahead_ms += 60_000
        moment = engine.clock.now_ms() - 30_000
        await world.publish(new)
        await world.until_handled("sub")
        watching.seen.clear()
        plan = await world.operations.plan_reset("sub", ResetTarget(time_ms=moment), keep_state=True)
        await world.obeyed(await world.operations.reset(plan))
        await world.until_handled("sub")
        assert watching.saw(new)
        assert (await world.monitor.audit("sub")).balanced


async def test_a_reset_to_the_end_skips_what_nobody_will_handle(engine: Engine) -> None:
    async with World(engine) as world:
        first = Watching("sub")
        await world.start(first.app)
        await world.obeyed(await world.operations.pause("sub"))
        await world.publish(orders(24))
        plan = await world.operations.plan_reset("sub", ResetTarget())
        assert plan.total("skipped") >= 24
        await world.obeyed(await world.operations.reset(plan))
        await world.obeyed(await world.operations.resume("sub"))
        more = orders(8, first=24)
        await world.publish(more)
        await world.until_handled("sub")
        assert first.saw(more)
        await world.balanced("sub", done=8)


async def test_a_removed_subscription_is_gone_and_begins_anew(engine: Engine) -> None:
    async with World(engine) as world:
        first = Watching("sub")
        await world.start(first.app)
        published = orders(16)
        await world.publish(published)
        await world.until_handled("sub")
        with pytest.raises(UsageError):
            await world.operations.remove("sub")
        await world.stop(first.app)
        await world.operations.remove("sub")
        with pytest.raises(UnknownSubscription):
            await world.monitor.audit("sub")
        again = Watching("sub")
        await world.start(again.app)
        await world.until_handled("sub")
        assert again.saw(published)
        await world.balanced("sub", done=16)
