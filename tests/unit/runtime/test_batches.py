"""Batch handlers: many keys in one call, in order, split until the poison members stand alone."""

from __future__ import annotations

from typing import Any

import pytest

from postline import Context, Retry, UsageError
from tests.unit.runtime.shop import Cancelled, Note, Order, Receipt, build, in_order, notes, running, spread

NEVER = Retry(immediate=0, delays=())


@pytest.mark.parametrize("plain", [False, True])
async def test_batches_hold_up_to_their_size_and_keep_the_order_of_keys(plain: bool):
    sizes: list[int] = []
    handled: list[Order] = []

    def take(batch: list[Order]) -> None:
        sizes.append(len(batch))
        handled.extend(batch)

    async def take_async(batch: list[Order]) -> None:
        take(batch)

    async with running(build(take if plain else take_async, batch=50)) as t:
        await t.apps[0].publish_many(spread(9, 60))
        await t.settle()
        assert t.audit()["sub"] == {"done": 540}
    assert max(sizes) == 50
    assert in_order(handled)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("poison", [{"2-3"}, {"0-0", "0-1", "3-7"}, {f"1-{n}" for n in range(10)}])
async def test_a_failing_batch_is_split_until_the_poison_members_stand_alone(poison: set[str], plain: bool):
    broken = set(poison)
    handled: list[Order] = []

    def take(batch: list[Order], ctx: Context) -> None:
        if any(order.id in broken for order in batch):
            raise ValueError("poison")
        handled.extend(batch)

    async def take_async(batch: list[Order], ctx: Context) -> None:
        take(batch, ctx)

    async with running(build(take if plain else take_async, batch=20, retry=NEVER)) as t:
        await t.apps[0].publish_many(spread(5, 10))
        await t.settle()
        firsts = {customer: min(int(i[2:]) for i in poison if i[0] == customer) for customer in {i[0] for i in poison}}
        assert len(t.dead_letters("sub")) == len(firsts), "later ones of the key wait behind the first"
        assert len(handled) == 50 - sum(10 - n for n in firsts.values())
        assert in_order(handled)
        broken.clear()
        await t.redrive("sub")
        await t.settle()
        assert in_order(handled)
        assert len(handled) == 50
        assert t.audit()["sub"] == {"done": 50}


async def test_members_that_fail_alone_enter_the_retry_ladder_singly():
    attempts: list[int] = []
    handled: list[Order] = []

    async def take(batch: list[Order], ctx: Context) -> None:
        if any(order.id == "1-1" for order in batch):
            if len(batch) == 1:
                attempts.append(ctx.attempt)
            if len(attempts) < 3:
                raise ValueError
        handled.extend(batch)

    async with running(build(take, batch=8, retry=Retry(immediate=1, delays=(5,)))) as t:
        await t.apps[0].publish_many(spread(4, 4))
        await t.settle()
        await t.publish(Order("1-4", "c1", 4))
        await t.settle()
        assert len(handled) == 13
        await t.advance(seconds=6)
        assert attempts == [1, 2, 3]
        assert in_order(handled)
        assert len(handled) == 17


async def test_state_of_a_batch_is_read_and_put_by_key():
    async def take(batch: list[Order], ctx: Context) -> list[Receipt]:
        for order in batch:
            ctx.state.put((ctx.state.get(order.customer) or 0) + 1, order.customer)
        return [Receipt(order.id, order.customer) for order in batch]

    async with running(build(take, batch=7, state=int)) as t:
        await t.apps[0].publish_many(spread(3, 10))
        await t.settle()
        assert [t.state("sub", f"c{c}") for c in range(3)] == [10, 10, 10]
        assert len(t.published(Receipt)) == 30


async def test_state_of_a_key_outside_the_batch_is_refused():
    errors: list[str] = []

    async def take(batch: list[Order], ctx: Context) -> None:
        try:
            ctx.state.get("somebody")
        except UsageError as error:
            errors.append(error.message)

    async with running(build(take, batch=7, state=int)) as t:
        await t.publish(Order("1", "c"))
        await t.settle()
    assert "state of key 'somebody' asked for" in errors[0]


async def test_state_and_outputs_of_a_batch_that_fails_are_dropped():
    async def take(batch: list[Order], ctx: Context) -> Any:
        for order in batch:
            ctx.state.put(order.total, order.customer)
            ctx.publish(Receipt(order.id, order.customer))
        if any(order.customer == "c1" for order in batch):
            raise ValueError

    async with running(build(take, batch=10, state=int, retry=NEVER)) as t:
        await t.apps[0].publish_many(spread(4, 1))
        await t.settle()
        assert [t.state("sub", f"c{c}") for c in range(4)] == [0, None, 0, 0]
        assert sorted(receipt.customer for receipt in t.published(Receipt)) == ["c0", "c2", "c3"]


async def test_a_batch_has_one_type():
    calls: list[set[type]] = []

    async def orders_of(batch: list[Order]) -> None:
        calls.append({type(order) for order in batch})

    async def cancelled(batch: list[Cancelled]) -> None:
        calls.append({type(each) for each in batch})

    app = build(orders_of, batch=10)
    app.subscriptions["sub"].on(Cancelled)(cancelled)
    async with running(app) as t:
        await t.apps[0].publish_many([Order("1", "c"), Order("2", "c"), Cancelled("1", "c"), Order("3", "c")])
        await t.settle()
    assert calls == [{Order}, {Cancelled}, {Order}]


async def test_keyless_records_come_in_batches_too():
    handled: list[str] = []

    async def take(batch: list[Note]) -> None:
        if any(note.text == "13" for note in batch):
            raise ValueError
        handled.extend(note.text for note in batch)

    async with running(build(take, Note, notes, batch=10, retry=NEVER)) as t:
        await t.apps[0].publish_many([Note(str(n)) for n in range(40)])
        await t.settle()
        assert sorted(handled, key=int) == [str(n) for n in range(40) if n != 13]
        assert t.audit()["sub"] == {"done": 39, "dead-lettered": 1}


async def test_a_filter_and_an_undecodable_record_leave_a_batch_whole():
    sizes: list[int] = []

    async def take(batch: list[Order]) -> None:
        sizes.append(len(batch))

    def odd(order: Order) -> bool:
        if order.total == 5:
            raise ValueError("filter")
        return bool(order.total % 2)

    async with running(build(take, batch=100, retry=NEVER, after="continue", where=odd)) as t:
        await t.apps[0].publish_many(spread(1, 10))
        await t.settle()
        assert t.audit()["sub"] == {"done": 4, "filtered": 5, "dead-lettered": 1}
        assert sum(sizes) == 4


async def test_batches_survive_a_crash():
    handled: list[Order] = []
    broken = {"2-2"}

    async def take(batch: list[Order]) -> None:
        if any(order.id in broken for order in batch):
            raise ValueError
        handled.extend(batch)

    app = build(take, batch=6, retry=Retry(immediate=0, delays=(10,)))
    async with running(app) as t:
        await t.apps[0].publish_many(spread(4, 5))
        await t.settle()
        await t.crash(app)
        broken.clear()
        await t.start(app)
        await t.settle()
        await t.advance(minutes=1)
        assert in_order(handled)
        assert len(handled) == 20
