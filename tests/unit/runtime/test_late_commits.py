"""A commit that comes too late for a partition that leaves, and workers whose handlers cancel them."""

from __future__ import annotations

import asyncio

import pytest

from postline import Context, Retry
from postline.contracts import Partitioner
from postline.errors import LogUnavailable
from tests.unit.runtime.shop import Order, Receipt, build, orders, running, spread


async def turns(number: int = 50) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_what_staying_partitions_settled_outlives_a_commit_that_is_too_late_for_a_leaving_one():
    slow = asyncio.Event()

    async def handle(order: Order) -> Receipt:
        if order.id == "0-0":
            await slow.wait()
        return Receipt(order.id, order.customer)

    app = build(handle)
    async with running(app, settled=False) as t:
        await t.settle()
        (consumer,) = app.consumers
        membership = consumer.membership
        assert membership is not None
        commit, gate, calls = membership.commit, asyncio.Event(), 0

        async def late(unit):
            nonlocal calls
            calls += 1
            if calls == 1:
                await gate.wait()
                raise LogUnavailable("The lock was held for too long.", remedy="Try again.")
            return await commit(unit)

        membership.commit = late  # type: ignore[method-assign]
        await t.publish_many(spread(20, 1))
        await turns()
        # While one handler runs the others' outcomes wait a little, so it is the leaving that commits them.
        assert calls == 0
        place = Partitioner(orders.partitions).partition_of
        leaving = next(owned for owned in consumer.owned.values() if owned.unit and owned.partition != place(b"c0"))
        revoking = asyncio.ensure_future(consumer.revoked([leaving.assignment]))
        while not revoking.done():
            await turns()
            t.clock.move_to(t.clock.monotonic() + 0.5)
        gate.set()
        slow.set()
        for _ in range(5):
            await turns()
            t.clock.move_to(t.clock.monotonic() + 0.5)
        staying = {order.id for order in spread(20, 1) if place(order.customer.encode()) != leaving.partition}
        assert len(staying) > 10
        assert staying <= {receipt.order for receipt in t.published(Receipt)}


@pytest.mark.parametrize("options", [{"concurrency": 1}, {"concurrency": 4}], ids=["one worker", "four workers"])
async def test_a_handler_that_cancels_its_own_task_fails_its_attempts_and_nobody_elses(options):
    handled: list[str] = []

    async def handle(order: Order, ctx: Context) -> None:
        if order.id == "0-1":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)
        handled.append(order.id)

    async with running(build(handle, retry=Retry(immediate=1, delays=()), **options)) as t:
        await t.publish_many(spread(6, 3))
        await t.settle()
        assert [letter.error for letter in t.dead_letters("sub") if "CancelledError" in letter.error]
        await t.discard("sub", *t.dead_letters("sub"), reason="test")
        await t.settle()
        assert sorted(handled) == sorted({order.id for order in spread(6, 3)} - {"0-1"})


async def test_a_batch_whose_handler_cancels_its_own_task_is_split_like_any_failing_one():
    handled: list[str] = []

    async def handle(batch: list[Order]) -> None:
        if any(order.id == "0-1" for order in batch):
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)
        handled.extend(order.id for order in batch)

    async with running(build(handle, batch=10, retry=Retry(immediate=0, delays=()), after="continue")) as t:
        await t.publish_many(spread(6, 3))
        await t.settle()
        assert len(t.dead_letters("sub")) == 1
        assert sorted(handled) == sorted({order.id for order in spread(6, 3)} - {"0-1"})
