"""Order: of each key at any concurrency, of a whole partition, or none at all."""

from __future__ import annotations

import asyncio
import random

import pytest

from postline import Context, Retry
from postline.clock import SystemClock
from postline.runtime.control import ControlOp
from tests.unit.runtime.shop import Note, Order, build, in_order, notes, running, spread

REAL = SystemClock()


@pytest.mark.parametrize("concurrency", [1, 3, 64])
async def test_orders_of_a_key_are_handled_in_turn_however_slow_handlers_are(concurrency: int):
    handled: list[Order] = []
    at_work: set[str] = set()
    chance = random.Random(concurrency)

    async def handle(order: Order) -> None:
        assert order.customer not in at_work
        at_work.add(order.customer)
        for _ in range(chance.randrange(4)):
            await REAL.sleep(0)
        at_work.remove(order.customer)
        handled.append(order)

    async with running(build(handle, concurrency=concurrency)) as t:
        await t.publish_many(spread(7, 20))
        await t.settle()
    assert len(handled) == 140
    assert in_order(handled)


async def test_keys_are_handled_at_the_same_time_up_to_the_concurrency():
    most, now = 0, 0
    release = asyncio.Event()

    async def handle(order: Order) -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        if now == 5:
            release.set()
        await release.wait()
        now -= 1

    async with running(build(handle, concurrency=5)) as t:
        await t.publish_many(spread(20, 2))
        await t.settle()
    assert most == 5


async def test_a_slow_key_does_not_hold_back_others_nor_their_commits():
    release = asyncio.Event()
    handled: list[Order] = []

    async def handle(order: Order) -> None:
        if order.customer == "c0" and order.total == 0:
            await release.wait()
        handled.append(order)

    async with running(build(handle), patience_seconds=0.25) as t:
        await t.publish_many(spread(6, 5))
        with pytest.raises(AssertionError, match="1 attempts running"):
            await t.settle()
        assert len(handled) == 25
        assert not any(owned.unit for owned in t.apps[0].consumers[0].owned.values()), "the others are committed"
        release.set()
        await t.settle()
        assert in_order(handled)
        assert t.audit()["sub"] == {"done": 30}


async def test_what_was_done_ahead_of_a_slow_record_is_not_done_again_after_a_crash():
    handled: list[str] = []
    stuck = [True]

    async def handle(order: Order) -> None:
        if order.id == "0-0" and stuck[0]:
            await asyncio.Event().wait()
        handled.append(order.id)

    app = build(handle)
    async with running(app, patience_seconds=0.25) as t:
        await t.publish_many(spread(30, 1))
        with pytest.raises(AssertionError):
            await t.settle()
        assert len(handled) == 29
        await t.crash(app)
        stuck[0] = False
        await t.start(app)
        await t.settle()
        assert handled[-1] == "0-0"
        assert len(handled) == 30


async def test_order_by_partition_runs_one_record_of_a_partition_at_a_time():
    at_work: set[int] = set()
    handled: dict[int, list[int]] = {}

    async def handle(order: Order, ctx: Context) -> None:
        assert ctx.partition not in at_work
        at_work.add(ctx.partition)
        await REAL.sleep(0)
        at_work.remove(ctx.partition)
        handled.setdefault(ctx.partition, []).append(ctx.offset)

    async with running(build(handle, order="partition")) as t:
        await t.publish_many(spread(30, 5))
        await t.settle()
    assert len(handled) > 1
    assert all(offsets == list(range(len(offsets))) for offsets in handled.values())


async def test_a_hold_under_order_by_partition_holds_the_partition():
    async def handle(order: Order) -> None:
        if order.id == "0-0":
            raise ValueError

    app = build(handle, order="partition", retry=Retry(immediate=0, delays=()))
    async with running(app) as t:
        await t.publish_many(spread(16, 1))
        await t.settle()
        (letter,) = t.dead_letters("sub")
        lying = await t.log.read("shop.orders", letter.partition, 0)
        counts = t.audit()["sub"]
        assert counts.get("held", 0) == len(lying) - 1 - letter.offset
        await t.discard("sub")
        await t.settle()
        assert t.audit()["sub"] == {"done": 15, "discarded": 1}


async def test_without_order_records_of_one_key_run_at_the_same_time():
    waiting = 0
    release = asyncio.Event()

    async def handle(order: Order) -> None:
        nonlocal waiting
        waiting += 1
        if waiting == 4:
            release.set()
        await release.wait()

    async with running(build(handle, order="none")) as t:
        await t.publish_many(spread(1, 4))
        await t.settle()
    assert waiting == 4


async def test_records_without_a_key_are_lanes_of_their_own():
    handled: list[str] = []

    async def handle(note: Note) -> None:
        if note.text == "0":
            raise ValueError
        handled.append(note.text)

    async with running(build(handle, Note, notes, retry=Retry(immediate=0, delays=(5,)))) as t:
        await t.publish_many([Note(str(n)) for n in range(20)])
        await t.settle()
        assert sorted(handled, key=int) == [str(n) for n in range(1, 20)]
        await t.advance(seconds=6)
        assert [letter.holds for letter in t.dead_letters("sub")] == [False]


async def test_a_partition_keeps_its_keys_order_when_it_moves_to_a_second_process():
    handled: list[Order] = []

    async def handle(order: Order) -> None:
        await REAL.sleep(0)
        handled.append(order)

    first, second = build(handle), build(handle)
    async with running(first) as t:
        await t.publish_many(spread(10, 10))
        await t.start(second)
        await t.publish_many([Order(f"{c}-x", f"c{c}", 10) for c in range(10)])
        await t.settle()
        assert {len(app.consumers[0].owned) for app in (first, second)} == {4}
        await t.crash(first)
        await t.publish_many([Order(f"{c}-y", f"c{c}", 11) for c in range(10)])
        await t.settle()
    assert len(second.consumers) == 0
    assert in_order(handled)
    assert len(handled) == 120


@pytest.mark.parametrize("parked", [True, False], ids=["while it is retried", "once it is a dead letter"])
@pytest.mark.parametrize("after", ["key", "partition"])
@pytest.mark.parametrize("before", ["key", "partition", "none"])
async def test_a_version_with_another_order_keeps_its_own_with_what_the_last_one_held(
    before: str, after: str, parked: bool
):
    broken = {"0-0"}
    handled: list[Order] = []

    async def handle(order: Order) -> None:
        if order.id in broken:
            raise ValueError
        handled.append(order)

    retry = Retry(immediate=0, delays=(10,), jitter=0)
    versions = [
        build(handle, retry=retry, order=order, after="continue" if order == "none" else "hold")
        for order in (before, after)
    ]
    async with running(*versions[:1]) as t:
        await t.publish_many(spread(2, 2))
        await (t.settle() if parked else t.advance(minutes=1))
        await t.stop(versions[0])
        t.apps[:] = versions[1:]
        await t.start(versions[1])
        await t.publish_many([Order(f"{c}-2", f"c{c}", 2) for c in range(2)])
        await t.settle()
        held_back = [order for order in handled if order.customer == "c0"]
        # Without an order the later ones were handled, and of a dead letter it holds nothing.
        assert [order.total for order in held_back] == ([] if before != "none" else [1] if parked else [1, 2])
        broken.clear()
        await t.advance(minutes=1)
        await t.redrive("sub")
        await t.settle()
        if before != "none":
            assert in_order(handled)
        assert t.audit()["sub"] == {"done": 6}


async def test_a_version_without_an_order_lets_go_of_what_the_last_one_held_behind_a_dead_letter():
    broken = {"0-0"}
    handled: list[Order] = []

    async def handle(order: Order) -> None:
        if order.id in broken:
            raise ValueError
        handled.append(order)

    retry = Retry(immediate=0, delays=())
    old, new = build(handle, retry=retry), build(handle, retry=retry, order="none")
    async with running(old) as t:
        await t.publish_many(spread(1, 3))
        await t.settle()
        assert handled == []
        await t.stop(old)
        t.apps[:] = [new]
        await t.start(new)
        await t.settle()
        assert sorted(order.total for order in handled) == [1, 2]
        await t.discard("sub")
        await t.settle()
        assert t.audit()["sub"] == {"done": 2, "discarded": 1}


async def test_what_was_held_under_another_order_can_be_discarded_and_survives_a_crash():
    broken = {"0-0", "0-1"}
    handled: list[Order] = []

    async def handle(order: Order) -> None:
        if order.id in broken:
            raise ValueError
        handled.append(order)

    retry = Retry(immediate=0, delays=(10,), jitter=0)
    old, new = build(handle, retry=retry, order="partition"), build(handle, retry=retry)
    async with running(old) as t:
        first, *_ = await t.publish_many(spread(1, 4))
        await t.settle()
        await t.stop(old)
        t.apps[:] = [new]
        await t.start(new)
        await t.settle()
        await t.crash(new)
        await t.start(new)
        await t.control("sub", ControlOp(op="discard", offset=0, reason="no use"), first.partition)
        await t.control("sub", ControlOp(op="discard", offset=1, reason="no use"), first.partition)
        await t.settle()
        assert [order.total for order in handled] == [2, 3]
        assert t.audit()["sub"] == {"done": 2, "discarded": 2}
