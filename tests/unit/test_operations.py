"""What operators ask for is obeyed by the owners, now or when the next worker comes, and by nobody else."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import Struct

from postline import App, Context, Retry, Topic, UsageError
from postline.cli.failures import NEGATIVE
from postline.cli.requests import Answer, await_owner, tell
from postline.errors import UnknownSubscription
from postline.monitor import Monitor, RecordId
from postline.operations import Operations, ResetTarget
from postline.testing import TestApp

orders = Topic("shop.orders", owner="shop", key="customer", partitions=2)


@orders.event("shop.OrderPlaced")
class OrderPlaced(Struct, frozen=True):
    customer: str
    total: int


class Billing:
    """A service that counts per customer and fails on customers it is told to fail on."""

    def __init__(self, name: str = "billing", aliases: tuple[str, ...] = ()) -> None:
        self.failing: set[str] = set()
        self.seen: list[OrderPlaced] = []
        self.app = App("billing", publishes_to=[orders])
        subscription = self.app.subscribe(
            name, orders, start="earliest", aliases=aliases, retry=Retry(immediate=0, delays=()), state=int
        )

        @subscription.on(OrderPlaced)
        async def bill(order: OrderPlaced, ctx: Context) -> None:
            if order.customer in self.failing:
                raise ValueError(f"{order.customer} can't pay")
            ctx.state.put((ctx.state.get() or 0) + order.total)
            self.seen.append(order)


def operations(t: TestApp) -> Operations:
    return Operations(t.log, t.clock, random.Random(1))


def monitor(t: TestApp) -> Monitor:
    return Monitor(t.log, t.clock)


async def test_a_redrive_runs_the_dead_letter_and_what_waits_behind_it() -> None:
    billing = Billing()
    billing.failing = {"ann"}
    async with TestApp(billing.app) as t:
        await t.publish_many([OrderPlaced("ann", 1), OrderPlaced("ann", 2), OrderPlaced("bob", 3)])
        await t.settle()
        (letter,) = await monitor(t).dead_letters("billing")
        assert (letter.key, letter.blocked, letter.error) == ("ann", 1, "ValueError: ann can't pay")
        billing.failing.clear()
        request = await operations(t).redrive("billing", [RecordId(letter.partition, letter.offset)])
        assert request.live
        await t.settle()
        assert await operations(t).obeyed(request, 0)
        assert [order.total for order in billing.seen] == [3, 1, 2]
        assert await monitor(t).dead_letters("billing") == []


async def test_a_discarded_dead_letter_lets_its_key_flow() -> None:
    billing = Billing()
    billing.failing = {"ann"}
    async with TestApp(billing.app) as t:
        await t.publish_many([OrderPlaced("ann", 1), OrderPlaced("ann", 2)])
        await t.settle()
        billing.failing.clear()
        (letter,) = await monitor(t).dead_letters("billing")
        await operations(t).discard("billing", [RecordId.parse(letter.id)], "test")
        await t.settle()
        assert [order.total for order in billing.seen] == [2]
        audit = await monitor(t).audit("billing")
        assert (audit.outcomes["discarded"], audit.outcomes["done"], audit.balanced) == (1, 1, True)


async def test_a_held_record_can_be_discarded_by_its_id() -> None:
    billing = Billing()
    billing.failing = {"ann"}
    async with TestApp(billing.app) as t:
        await t.publish_many([OrderPlaced("ann", 1), OrderPlaced("ann", 2), OrderPlaced("ann", 3)])
        await t.settle()
        first_held = (await monitor(t).held("billing"))[0]
        assert (first_held.key, first_held.status) == ("ann", "blocked")
        await operations(t).discard("billing", [RecordId.parse(first_held.id)], "test")
        await t.settle()
        assert [view.key for view in await monitor(t).held("billing")] == ["ann"]
        assert (await monitor(t).audit("billing")).balanced


async def test_what_is_no_dead_letter_is_refused_and_nothing_is_asked() -> None:
    billing = Billing()
    async with TestApp(billing.app) as t:
        await t.publish(OrderPlaced("ann", 1))
        await t.settle()
        before = await t.log.bounds("billing.control")
        with pytest.raises(UsageError, match="no dead letter 0:0, 7:0"):
            await operations(t).redrive("billing", [RecordId(0, 0), RecordId(7, 0)])
        with pytest.raises(UsageError, match="needs a reason"):
            await operations(t).discard("billing", [RecordId(0, 0)], " ")
        with pytest.raises(UnknownSubscription):
            await operations(t).pause("nobody")
        assert await t.log.bounds("billing.control") == before


async def test_a_pause_outlives_the_workers_until_it_is_resumed() -> None:
    billing = Billing()
    async with TestApp(billing.app) as t:
        await operations(t).pause("billing")
        await t.settle()
        await t.stop(billing.app)
        await t.start(billing.app)
        await t.publish(OrderPlaced("ann", 1))
        await t.settle()
        assert billing.seen == []
        view = await monitor(t).subscription("billing")
        assert (view.status, view.lag_records) == ("paused", 1)
        await operations(t).resume("billing")
        await t.settle()
        assert [order.total for order in billing.seen] == [1]


async def test_a_discard_that_met_its_record_being_handled_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    app = App("billing", publishes_to=[orders])
    subscription = app.subscribe("billing", orders, start="earliest", retry=Retry(immediate=0, delays=(10,) * 2))

    @subscription.on(OrderPlaced)
    async def bill(order: OrderPlaced, ctx: Context) -> None:
        if ctx.attempt == 2:
            begun.set()
            await go_on.wait()
        raise ValueError

    async with TestApp(app) as t:
        await t.publish(OrderPlaced("ann", 1))
        await t.settle()
        (held,) = await monitor(t).held("billing")
        advancing = asyncio.create_task(t.advance(seconds=12))
        await begun.wait()
        records = [RecordId.parse(held.id)]
        request = await operations(t).discard("billing", records, "test")
        while not await operations(t).obeyed(request, 0):
            await asyncio.sleep(0)
        assert await operations(t).missed(request) == records
        opened: Any = SimpleNamespace(operations=operations(t))
        status = await await_owner(opened, request, 1)
        answer = Answer(subscription="billing", action="discard", status=status)
        assert tell(answer, "discard 1 record", json=False) == NEGATIVE
        assert "is not discarded, since it was being handled" in capsys.readouterr().out
        go_on.set()
        await advancing
        again = await operations(t).discard("billing", records, "test")
        await t.settle()
        assert await operations(t).obeyed(again, 0)
        assert await operations(t).missed(again) == []


async def test_what_is_asked_while_nobody_works_is_done_by_the_next_worker() -> None:
    billing = Billing()
    billing.failing = {"ann"}
    async with TestApp(billing.app) as t:
        await t.publish(OrderPlaced("ann", 1))
        await t.settle()
        await t.stop(billing.app)
        billing.failing.clear()
        (letter,) = await monitor(t).dead_letters("billing")
        request = await operations(t).redrive("billing", [RecordId.parse(letter.id)])
        assert not request.live
        assert not await operations(t).obeyed(request, 0)
        await t.start(billing.app)
        await t.settle()
        assert await operations(t).obeyed(request, 0)
        assert [order.total for order in billing.seen] == [1]


async def test_a_reset_plan_says_what_the_reset_then_does() -> None:
    billing = Billing()
    billing.failing = {"bad"}
    async with TestApp(billing.app) as t:
        await t.publish_many([OrderPlaced("bad", 1), OrderPlaced("bad", 2), OrderPlaced("ann", 3)])
        await t.settle()
        plan = await operations(t).plan_reset("billing", ResetTarget(offset=0))
        totals = {field: plan.total(field) for field in ("read_again", "held_read_again", "dead_letters_read_again")}
        assert totals == {"read_again": 3, "held_read_again": 1, "dead_letters_read_again": 1}
        assert plan.total("state_cleared") == 1
        billing.failing.clear()
        billing.seen.clear()
        await operations(t).reset(plan)
        await t.settle()
        assert sorted(order.total for order in billing.seen) == [1, 2, 3]
        audit = await monitor(t).audit("billing")
        assert (audit.outcomes["done"], audit.balanced) == (3, True)
        assert {each.generation for each in audit.partitions} == {1}


async def test_a_reset_to_the_end_gives_held_records_up_and_keeps_state_if_told() -> None:
    billing = Billing()
    billing.failing = {"bad"}
    async with TestApp(billing.app) as t:
        await t.publish_many([OrderPlaced("bad", 1), OrderPlaced("bad", 2), OrderPlaced("ann", 3)])
        await t.settle()
        plan = await operations(t).plan_reset("billing", ResetTarget(), keep_state=True)
        assert (plan.total("held_discarded"), plan.total("dead_letters_kept"), plan.total("state_cleared")) == (1, 1, 0)
        await operations(t).reset(plan)
        await t.settle()
        assert t.state("billing", "ann") == 3
        audit = await monitor(t).audit("billing")
        assert sum(each.discarded_by_resets for each in audit.partitions) == 1
        assert [letter.key for letter in await monitor(t).dead_letters("billing")] == ["bad"]
        assert audit.balanced


async def test_a_reset_of_one_partition_or_to_a_time_touches_nothing_else() -> None:
    billing = Billing()
    async with TestApp(billing.app) as t:
        await t.publish_many([OrderPlaced(f"c{number}", number) for number in range(10)])
        await t.advance(seconds=60)
        middle_ms = t.clock.now_ms()
        await t.publish_many([OrderPlaced(f"c{number}", number) for number in range(10, 20)])
        await t.settle()
        plan = await operations(t).plan_reset("billing", ResetTarget(time_ms=middle_ms))
        assert plan.total("read_again") == 10
        with pytest.raises(UsageError, match="no partition 5"):
            await operations(t).plan_reset("billing", ResetTarget(offset=0), partitions=[5])
        plan = await operations(t).plan_reset("billing", ResetTarget(offset=0), partitions=[1])
        assert [each.partition for each in plan.partitions] == [1]


async def test_a_removed_subscription_is_gone_and_comes_back_without_its_past() -> None:
    billing = Billing()
    async with TestApp(billing.app) as t:
        await t.publish(OrderPlaced("ann", 1))
        await t.settle()
        with pytest.raises(UsageError, match="live members"):
            await operations(t).remove("billing")
        await operations(t).pause("billing")
        await t.stop(billing.app)
        await operations(t).remove("billing")
        with pytest.raises(UnknownSubscription):
            await monitor(t).subscription("billing")
        await t.advance(seconds=1)
        billing.seen.clear()
        await t.start(billing.app)
        await t.settle()
        # The pause was asked of the subscription that is gone.
        assert [order.total for order in billing.seen] == [1]
        assert (await monitor(t).subscription("billing")).status == "ok"


async def test_a_renamed_subscription_obeys_under_its_new_name() -> None:
    old = Billing("old-name")
    async with TestApp(old.app) as t:
        await t.publish(OrderPlaced("ann", 1))
        for _ in range(3):
            await operations(t).pause("old-name")
            await operations(t).resume("old-name")
        await t.settle()
        await t.stop(old.app)
        new = Billing("new-name", aliases=("old-name",))
        await t.start(new.app)
        await t.settle()
        assert new.seen == []
        request = await operations(t).pause("new-name")
        await t.settle()
        assert await operations(t).obeyed(request, 0)
        assert (await monitor(t).subscription("new-name")).status == "paused"


async def test_what_was_asked_before_a_rename_is_obeyed_after_it() -> None:
    old, new = Billing("old-name"), Billing("new-name", aliases=("old-name",))
    old.failing = {"ann"}
    async with TestApp(old.app) as t:
        await t.publish_many([OrderPlaced("ann", 1), OrderPlaced("ann", 2)])
        await t.settle()
        (letter,) = await monitor(t).dead_letters("old-name")
        await t.stop(old.app)
        request = await operations(t).redrive("old-name", [RecordId(letter.partition, letter.offset)])
        assert not request.live
        await operations(t).pause("old-name")
        await t.start(new.app)
        await t.settle()
        assert (await monitor(t).subscription("new-name")).status == "paused"
        await operations(t).resume("new-name")
        await t.settle()
        assert [order.total for order in new.seen] == [1, 2]
        await t.crash(new.app)
        await t.start(new.app)
        await t.settle()
        assert (await monitor(t).subscription("new-name")).status != "paused"
        assert len(new.seen) == 2


@pytest.mark.parametrize("then_paused", [True, False])
async def test_a_reset_asked_for_before_a_rename_is_made_once(then_paused: bool) -> None:
    old, new = Billing("old-name"), Billing("new-name", aliases=("old-name",))
    async with TestApp(old.app) as t:
        await t.publish_many([OrderPlaced("ann", 1), OrderPlaced("ann", 2)])
        await t.settle()
        await t.stop(old.app)
        await operations(t).reset(await operations(t).plan_reset("old-name", ResetTarget(offset=0)))
        if then_paused:
            await operations(t).pause("old-name")
        await t.start(new.app)
        await t.settle()
        assert then_paused == ((await monitor(t).subscription("new-name")).status == "paused")
        await operations(t).resume("new-name")
        await t.settle()
        assert [order.total for order in new.seen] == [1, 2]
        await t.crash(new.app)
        await t.start(new.app)
        await t.settle()
        assert len(new.seen) == 2
        request = await operations(t).pause("new-name")
        await t.settle()
        assert await operations(t).obeyed(request, 0)
