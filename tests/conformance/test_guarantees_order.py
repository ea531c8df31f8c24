"""Order per key, through everything that could break it, with real apps on every engine."""

from __future__ import annotations

import asyncio

from postline import Context, Retry
from postline.monitor import RecordId
from tests.conformance.apps import Billing, Gate, OrderPlaced, World, eventually, orders, some_turns
from tests.conformance.harness import Engine


class Failing:
    """Lets some orders fail a number of times before they pass."""

    def __init__(self, **times: int) -> None:
        self.left = times
        #: The attempts at orders that were to fail, in their order.
        self.attempts: list[tuple[str, int]] = []

    async def __call__(self, order: OrderPlaced, ctx: Context) -> None:
        """Fail if it is to."""
        await some_turns(order, ctx)
        name = f"{order.customer}_{order.number}"
        if self.left.get(name, 0) > 0:
            self.left[name] -= 1
            self.attempts.append((name, ctx.attempt))
            raise ValueError(f"{name} fails")


async def test_records_of_a_key_are_handled_in_order_at_any_concurrency(engine: Engine) -> None:
    async with World(engine) as world:
        published = orders(400, customers=20)
        await world.publish(published)
        billing = Billing(concurrency=64)
        await world.start(billing.app)
        await world.until_handled()
        await world.billed_once_and_in_order(published)
        await world.balanced(done=400)
        assert len(billing.ran) == 400


async def test_a_record_that_is_tried_again_holds_its_key_and_no_other(engine: Engine) -> None:
    async with World(engine) as world:
        failing = Failing(c0_0=1, c1_1=2, c2_0=3, c3_2=4)
        billing = Billing(before=failing, retry=Retry(immediate=1, delays=(0.01, 0.02, 0.01)))
        await world.start(billing.app)
        published = orders(80)
        async with world.audited():
            await world.publish(published)
            await world.until_handled()
        await world.billed_once_and_in_order(published)
        await world.balanced(done=80)
        assert [number for name, number in failing.attempts if name == "c3_2"] == [1, 2, 3, 4]


async def test_what_waits_behind_a_dead_letter_runs_after_its_redrive_and_in_order(engine: Engine) -> None:
    async with World(engine) as world:
        failing = Failing(c0_1=1, c1_0=1)
        billing = Billing(before=failing, after="hold")
        await world.start(billing.app)
        published = orders(40)
        await world.publish(published)
        await world.until_handled(held=2 + 3, dead=2)
        assert {letter.key: letter.blocked for letter in await world.letters()} == {"c0": 2, "c1": 3}
        await world.balanced(done=33, dead_lettered=2, held=5)
        await world.redrive_all()
        await world.until_handled()
        await world.billed_once_and_in_order(published)
        await world.balanced(done=40)


async def test_a_key_with_two_dead_letters_flows_when_both_are_settled(engine: Engine) -> None:
    async with World(engine) as world:
        billing = Billing(before=Failing(c0_0=1, c0_1=1), after="hold")
        await world.start(billing.app)
        published = orders(4, customers=1)
        await world.publish(published)
        await world.until_handled(held=3, dead=1)
        await world.redrive_all()
        await world.until_handled(held=2, dead=1)
        (letter,) = await world.letters()
        await world.obeyed(await world.operations.discard("billing", [RecordId.parse(letter.id)], "a test"))
        await world.until_handled()
        await world.billed_once_and_in_order([published[0], *published[2:]])
        await world.balanced(done=3, discarded=1)


async def test_a_dead_letter_is_redriven_in_order_by_the_next_owner(engine: Engine) -> None:
    async with World(engine) as world:
        first = Billing("first", before=Failing(c0_1=1), after="hold")
        await world.start(first.app)
        published = orders(36)
        await world.publish(published)
        await world.until_handled(held=1, dead=1)
        await world.stop(first.app)
        (letter,) = await world.letters()
        request = await world.operations.redrive("billing", [RecordId.parse(letter.id)])
        assert not request.live
        second = Billing("second", after="hold")
        await world.start(second.app)
        await world.obeyed(request)
        await world.until_handled()
        await world.billed_once_and_in_order(published)
        assert [(order.customer, order.number) for order in second.ran] == [("c0", 1), ("c0", 2)]


async def test_order_holds_while_a_member_joins_and_leaves_in_the_middle_of_work(engine: Engine) -> None:
    async with World(engine) as world:
        gate = Gate()
        first, second = Billing("first", gate), Billing("second", gate)
        await world.start(first.app)
        published = orders(400)
        async with world.audited() as audits:
            gate.shut()
            await world.publish(published[:100])
            await gate.until_somebody_waits()
            await world.start(second.app)
            await world.publish(published[100:200])
            gate.open()
            await eventually(lambda: first.owned and second.owned, "both have partitions")
            await world.publish(published[200:300])
            await world.until_handled()
            gate.shut()
            await world.publish(published[300:])
            await gate.until_somebody_waits()
            leaving = asyncio.create_task(world.stop(second.app))
            gate.open()
            await leaving
            await world.until_handled()
        assert audits
        assert first.ran
        assert second.ran
        await world.billed_once_and_in_order(published)
        await world.balanced(done=400)
