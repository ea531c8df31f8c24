"""Exactly one stored effect for each record, whoever comes, goes, dies or hangs, with real apps on every engine."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.conformance.apps import INVOICES, Billing, Gate, OrderPlaced, World, eventually, orders
from tests.conformance.harness import Engine, turns


class Fleet:
    """Members of one service that come and go while they work."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.random = world, random.Random(seed)
        self.gate = Gate()
        self.members: list[Billing] = []
        self.begun = 0

    async def grow(self) -> None:
        """One more member."""
        member = Billing(f"process {self.begun}", self.gate)
        self.begun += 1
        await self.world.start(member.app)
        self.members.append(member)

    async def lose_one(self, how: str) -> None:
        """One member ends, some handler standing in the middle of its work; all others go on."""
        self.gate.shut()
        victim = self.members.pop(self.random.randrange(len(self.members)))
        await self.gate.until_somebody_waits()
        if how == "stop":
            stopping = asyncio.create_task(self.world.stop(victim.app))
            await turns(self.random.randrange(10))
            self.gate.open()
            await stopping
        else:
            await (self.world.abort if how == "abort" else self.world.kill)(victim.app)
            self.gate.open()


@pytest.mark.parametrize("how", ["stop", "abort", "kill"])
async def test_each_record_has_one_effect_however_often_members_come_and_go(engine: Engine, how: str) -> None:
    async with World(engine) as world:
        fleet = Fleet(world, 11)
        await fleet.grow()
        await fleet.grow()
        published: list[OrderPlaced] = []
        async with world.audited() as audits:
            for _ in range(4):
                batch = orders(40, customers=10, first=len(published))
                published += batch
                fleet.gate.shut()
                await world.publish(batch)
                await fleet.lose_one(how)
                await fleet.grow()
            await world.until_handled()
        assert audits
        await world.billed_once_and_in_order(published)
        await world.balanced(done=len(published))


async def test_one_process_after_another_goes_on_where_the_last_was_aborted(engine: Engine) -> None:
    async with World(engine) as world:
        gate = Gate()
        published = orders(60)
        ran = 0
        for number in range(3):
            gate.shut(passes=7)
            billing = Billing(f"process {number}", gate, concurrency=4)
            await world.start(billing.app)
            await world.publish(published[number * 20 : number * 20 + 20])
            await eventually(lambda: gate.waiting == 4, "all attempts stand at the gate")
            await world.abort(billing.app)
            gate.open()
            ran += len(billing.ran)
        last = Billing("the last", gate)
        await world.start(last.app)
        await world.until_handled()
        await world.billed_once_and_in_order(published)
        await world.balanced(done=60)
        assert ran == 3 * 7
        assert len(last.ran) >= 60 - ran


async def test_what_a_hung_process_finishes_late_is_never_stored(engine: Engine) -> None:
    async with World(engine) as world:
        gate = Gate()
        hung, successor = Billing("hung", gate), Billing("successor")
        await world.start(hung.app)
        published = orders(40)
        await world.publish(published[:20])
        await world.until_handled()
        gate.shut()
        await world.publish(published[20:])
        await eventually(lambda: gate.waiting == 12, "a handler of each customer stands at the gate")
        await engine.hang(world.own_handle(hung.app))
        await world.start(successor.app)
        await world.until_handled()
        before = len(hung.ran)
        gate.open()
        await eventually(lambda: gate.waiting == 0, "the hung process's handlers have ended")
        await turns(100)
        await engine.go_on(world.own_handle(hung.app))
        await world.stop(successor.app)
        last = orders(20, first=40)
        await world.publish(last)
        await world.until_handled()
        invoices = await world.billed_once_and_in_order(published + last)
        assert len(hung.ran) > before
        in_hand = {(order.customer, order.number) for order in published[20:]}
        late = [each.message.by for each in invoices if (each.message.customer, each.message.number) in in_hand]
        assert set(late) == {"successor"}
        await world.balanced(done=60)


async def test_stopping_under_load_loses_and_doubles_nothing(engine: Engine) -> None:
    async with World(engine) as world:
        gate = Gate()
        published: list[OrderPlaced] = []
        ran = 0
        for number in range(3):
            billing = Billing(f"process {number}", gate)
            gate.shut()
            await world.start(billing.app)
            batch = orders(120, customers=12, first=len(published))
            published += batch
            await world.publish(batch)
            await gate.until_somebody_waits()
            stopping = asyncio.create_task(world.stop(billing.app))
            await turns(5)
            gate.open()
            await stopping
            ran += len(billing.ran)
            assert (await world.monitor.audit("billing")).balanced
            # What had run was committed before it left; what is ahead of the position isn't counted yet.
            assert len(await world.read(INVOICES)) == ran
        await world.start(Billing("the last", gate).app)
        await world.until_handled()
        await world.billed_once_and_in_order(published)
        await world.balanced(done=len(published))
