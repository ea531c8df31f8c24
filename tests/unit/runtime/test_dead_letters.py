"""Dead letters: kept whole, holding their key or letting it flow, redriven in order, discarded, bounded."""

from __future__ import annotations

import logging
import re

import pytest

from postline import App, Context, Retry
from postline.log.port import Record
from postline.runtime.control import ControlOp
from tests.unit.runtime.shop import Order, Receipt, build, in_order, orders, running, spread, subscribe

NEVER = Retry(immediate=0, delays=())


class Switch:
    """A handler that fails for some orders until told otherwise."""

    def __init__(self, *broken: str) -> None:
        self.broken = set(broken)
        self.handled: list[Order] = []

    async def __call__(self, order: Order, ctx: Context) -> Receipt:
        if order.id in self.broken:
            raise ValueError(f"{order.id} is broken")
        self.handled.append(order)
        return Receipt(order.id, order.customer, order.total)


async def test_a_dead_letter_holds_its_key_until_it_is_redriven_in_order():
    switch = Switch("0-1")
    async with running(build(switch, retry=NEVER)) as t:
        await t.publish_many(spread(3, 4))
        await t.settle()
        await t.publish(Order("0-4", "c0", 4))
        await t.settle()
        assert [o.id for o in switch.handled if o.customer == "c0"] == ["0-0"]
        assert t.audit()["sub"] == {"done": 9, "dead-lettered": 1, "held": 3}
        switch.broken.clear()
        await t.redrive("sub")
        await t.settle()
        assert in_order(switch.handled)
        assert len(switch.handled) == 13
        assert t.dead_letters("sub") == []
        assert t.audit()["sub"] == {"done": 13}


async def test_a_redrive_that_fails_again_holds_the_key_again():
    switch = Switch("0-0")
    async with running(build(switch, retry=NEVER)) as t:
        await t.publish_many(spread(1, 3))
        await t.settle()
        for _ in range(3):
            assert await t.redrive("sub") == 1
            await t.settle()
            assert t.audit()["sub"] == {"dead-lettered": 1, "held": 2}
        switch.broken.clear()
        await t.redrive("sub")
        await t.settle()
        assert in_order(switch.handled)


async def test_a_redrive_has_the_whole_ladder_before_it_again():
    switch = Switch("0-0")
    async with running(build(switch, retry=Retry(immediate=1, delays=(10,)))) as t:
        await t.publish(Order("0-0", "c0"))
        await t.advance(minutes=1)
        await t.redrive("sub")
        await t.settle()
        assert t.audit()["sub"] == {"held": 1}
        await t.advance(minutes=1)
        assert t.dead_letters("sub")[0].attempts == 3


async def test_a_discard_lets_the_key_flow():
    switch = Switch("0-0", "0-2")
    async with running(build(switch, retry=NEVER)) as t:
        await t.publish_many(spread(1, 4))
        await t.settle()
        await t.discard("sub")
        await t.settle()
        assert [o.total for o in switch.handled] == [1]
        await t.discard("sub")
        await t.settle()
        assert [o.total for o in switch.handled] == [1, 3]
        assert t.audit()["sub"] == {"done": 2, "discarded": 2}


async def test_with_after_continue_the_key_flows_and_a_redrive_runs_later():
    switch = Switch("0-1", "0-2")
    async with running(build(switch, retry=NEVER, after="continue")) as t:
        await t.publish_many(spread(1, 4))
        await t.settle()
        assert [o.total for o in switch.handled] == [0, 3]
        assert [letter.holds for letter in t.dead_letters("sub")] == [False, False]
        switch.broken.clear()
        await t.redrive("sub")
        await t.settle()
        assert [o.total for o in switch.handled] == [0, 3, 1, 2]
        assert t.audit()["sub"] == {"done": 4}


async def test_a_held_record_can_be_discarded_before_its_turn():
    switch = Switch("0-0")
    async with running(build(switch, retry=Retry(immediate=0, delays=(60,)))) as t:
        await t.publish_many(spread(1, 3))
        await t.settle()
        partition = (await t.log.partitions("sub"))[0].partition
        for info in await t.log.partitions("sub"):
            if info.position:
                partition = info.partition
        await t.control("sub", ControlOp(op="discard", offset=1), partition)
        await t.settle()
        assert t.audit()["sub"] == {"held": 2, "discarded": 1}
        await t.control("sub", ControlOp(op="discard", offset=0), partition)
        await t.settle()
        assert [o.total for o in switch.handled] == [2]
        assert t.audit()["sub"] == {"done": 1, "discarded": 2}


async def test_control_records_that_mean_nothing_are_skipped_with_a_warning(caplog: pytest.LogCaptureFixture):
    async with running(build(Switch())) as t:
        await t.publish(Order("1", "c"))
        await t.settle()
        with caplog.at_level(logging.WARNING):
            await t.control("sub", ControlOp(op="redrive", offset=0))
            await t.control("sub", ControlOp(op="redrive"))
            await t.settle()
        assert re.search(r"has no dead letter [0-9]+:0 to redrive", caplog.text)
        assert "without meaning" in caplog.text
        assert t.audit()["sub"] == {"done": 1}


async def test_held_keys_dead_letters_and_what_waits_survive_a_crash():
    switch = Switch("0-1", "1-0")
    app = build(switch, retry=NEVER)
    async with running(app) as t:
        await t.publish_many(spread(3, 4))
        await t.settle()
        await t.crash(app)
        await t.publish_many([Order(f"{c}-4", f"c{c}", 4) for c in range(3)])
        await t.start(app)
        await t.settle()
        assert len(switch.handled) == 6
        assert t.audit()["sub"] == {"done": 6, "dead-lettered": 2, "held": 7}
        switch.broken.clear()
        await t.redrive("sub")
        await t.settle()
        assert in_order(switch.handled)
        assert t.audit()["sub"] == {"done": 15}


async def test_a_redrive_asked_for_while_nobody_runs_is_obeyed_by_the_next_who_does():
    switch = Switch("0-0")
    app = build(switch, retry=NEVER)
    async with running(app) as t:
        await t.publish_many(spread(1, 2))
        await t.settle()
        await t.stop(app)
        await t.redrive("sub")
        switch.broken.clear()
        await t.start(app)
        await t.settle()
        assert in_order(switch.handled)
        assert t.audit()["sub"] == {"done": 2}


async def test_the_partition_pauses_with_an_alarm_at_the_bound_and_goes_on_after_a_redrive(
    caplog: pytest.LogCaptureFixture,
):
    switch = Switch("0-0")
    async with running(build(switch, retry=NEVER, held_records_max=10)) as t:
        await t.publish_many(spread(1, 3))
        await t.settle()
        await t.publish_many([Order(f"0-{n}", "c0", n) for n in range(3, 30)])
        await t.settle()
        counts = t.audit()["sub"]
        assert counts["dead-lettered"] == 1
        assert "holds" in caplog.text
        assert "redrive or discard" in caplog.text
        before = sum(counts.values())
        await t.publish_many([Order(f"0-{n}", "c0", n) for n in range(30, 40)])
        await t.settle()
        assert sum(t.audit()["sub"].values()) == before, "a paused partition takes nothing in"
        switch.broken.clear()
        await t.redrive("sub")
        await t.settle()
        assert len(switch.handled) == 40
        assert in_order(switch.handled)


async def test_the_full_copy_says_what_went_wrong_and_where_it_came_from():
    async with running(build(Switch("1"), retry=NEVER)) as t:
        published = await t.publish(Order("1", "c"), headers={"tenant": "north"})
        await t.settle()
        (copy,) = [r for p in range(8) for r in await t.log.read("sub.dead-letters", p, 0)]
        envelope = t.log.envelope(copy)
        assert copy[4] == (await t.log.read("shop.orders", published.partition, 0))[0][4]
        assert envelope.id == published.id
        assert envelope.headers["tenant"] == "north"
        assert envelope.headers["postline-error-type"] == "ValueError"
        assert envelope.headers["postline-error"] == "ValueError: 1 is broken"
        assert "in __call__" in envelope.headers["postline-error-stack"]
        assert envelope.headers["postline-origin"] == f"shop.orders/{published.partition}/0"


async def test_subscriptions_fail_independently():
    switch, other = Switch("0-0"), Switch()
    app = App("shop", owns=[orders])

    async def broken(order: Order) -> None:
        await switch(order, None)  # type: ignore[arg-type]

    async def works(order: Order) -> None:
        await other(order, None)  # type: ignore[arg-type]

    subscribe(app, broken, name="broken", retry=NEVER)
    subscribe(app, works, name="works", retry=NEVER)
    async with running(app) as t:
        await t.publish_many(spread(1, 3))
        await t.settle()
        assert t.audit() == {"broken": {"dead-lettered": 1, "held": 2}, "works": {"done": 3}}
        assert in_order(other.handled)


async def test_a_handled_dead_letter_is_not_confused_with_a_later_record_of_its_key():
    switch = Switch("0-0")
    async with running(build(switch, retry=NEVER)) as t:
        await t.publish_many(spread(1, 120))
        await t.settle()
        switch.broken = {"0-60"}
        await t.redrive("sub")
        await t.settle()
        assert t.audit()["sub"] == {"done": 60, "dead-lettered": 1, "held": 59}
        await t.publish(Order("0-120", "c0", 120))
        switch.broken.clear()
        await t.redrive("sub")
        await t.settle()
        assert in_order(switch.handled)
        assert len(switch.handled) == 121


async def test_a_dead_letter_whose_record_is_gone_is_redriven_from_its_copy(monkeypatch: pytest.MonkeyPatch):
    broken = [True]
    handled: list[tuple[Order, str]] = []

    async def handle(order: Order, ctx: Context) -> None:
        if broken[0]:
            raise ValueError
        handled.append((order, ctx.message_id))

    async with running(build(handle, retry=Retry(immediate=0, delays=()))) as t:
        published = [await t.publish(Order(id, "c")) for id in ("1", "2")]
        await t.settle()
        there = t.log.read_offsets
        gone = [published[0].offset]

        async def without(topic: str, partition: int, offsets: list[int]) -> list[Record]:
            return [each for each in await there(topic, partition, offsets) if each[0] not in gone]

        monkeypatch.setattr(t.log, "read_offsets", without)
        await t.redrive("sub")
        await t.settle()
        broken[0] = False
        await t.redrive("sub")
        await t.settle()
        assert handled == [(Order("1", "c"), published[0].id), (Order("2", "c"), published[1].id)]
        assert t.audit()["sub"] == {"done": 2}
