"""What operators ask for: pause, resume and reset, through records that the owner obeys; and retention."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import pytest

from postline import App, Context, Retry, Topic
from postline.log.port import Append
from postline.message import Envelope
from postline.runtime.control import CONTROL_POSITION, ControlOp, position_entry
from postline.runtime.entries import CONTROL
from postline.runtime.progress import Progress
from tests.unit.runtime.shop import Order, build, in_order, running, spread

PAUSE, RESUME = ControlOp(op="pause"), ControlOp(op="resume")


def counting(broken: set[str]) -> tuple[App, list[Order]]:
    handled: list[Order] = []

    async def handle(order: Order, ctx: Context) -> None:
        if order.id in broken:
            raise ValueError
        handled.append(order)
        ctx.state.put((ctx.state.get() or 0) + 1)

    return build(handle, state=int, retry=Retry(immediate=0, delays=(10,), jitter=0)), handled


async def test_a_paused_subscription_takes_nothing_in_until_it_is_resumed_even_after_a_restart():
    app, handled = counting(set())
    async with running(app) as t:
        await t.control("sub", PAUSE)
        await t.settle()
        await t.publish_many(spread(3, 3))
        await t.settle()
        assert handled == []
        await t.crash(app)
        await t.start(app)
        await t.settle()
        assert handled == []
        await t.control("sub", RESUME)
        await t.settle()
        assert len(handled) == 9
        assert in_order(handled)


async def test_retries_and_redrives_wait_for_the_end_of_a_pause():
    broken = {"0-0", "1-0"}
    app, handled = counting(broken)
    async with running(app) as t:
        await t.publish_many(spread(2, 2))
        await t.settle()
        await t.control("sub", PAUSE)
        await t.settle()
        broken.clear()
        await t.advance(minutes=1)
        assert handled == []
        await t.control("sub", RESUME)
        await t.settle()
        assert len(handled) == 4
        assert in_order(handled)


async def test_a_redrive_asked_for_during_a_pause_runs_after_it():
    broken = {"0-0"}
    app, handled = counting(broken)
    async with running(app) as t:
        await t.publish_many(spread(1, 2))
        await t.advance(minutes=1)
        assert len(t.dead_letters("sub")) == 1
        broken.clear()
        await t.control("sub", PAUSE)
        await t.redrive("sub")
        await t.settle()
        assert handled == []
        await t.control("sub", RESUME)
        await t.settle()
        assert [order.total for order in handled] == [0, 1]


async def test_retries_that_a_pause_holds_back_run_once_after_restart_and_resume():
    broken = {"0-0"}
    app, handled = counting(broken)
    async with running(app) as t:
        await t.publish_many(spread(1, 2))
        await t.settle()
        await t.control("sub", PAUSE)
        await t.settle()
        await t.stop(app)
        broken.clear()
        await t.start(app)
        await t.advance(minutes=1)
        assert handled == []
        await t.control("sub", RESUME)
        await t.settle()
        assert [order.total for order in handled] == [0, 1]


async def test_a_reset_to_the_beginning_handles_everything_again_with_fresh_state():
    app, handled = counting(set())
    async with running(app) as t:
        await t.publish_many(spread(2, 5))
        await t.settle()
        assert t.state("sub", "c0") == 5
        await t.control("sub", ControlOp(op="reset", offset=0))
        await t.settle()
        assert len(handled) == 20
        assert t.state("sub", "c0") == 5
        assert t.audit()["sub"] == {"done": 10}
        generations = [Progress.decode(p.progress, 0).generation for p in await t.log.partitions("sub")]
        assert generations == [1] * 8


async def test_a_reset_may_keep_the_state():
    app, handled = counting(set())
    async with running(app) as t:
        await t.publish_many(spread(1, 5))
        await t.settle()
        await t.control("sub", ControlOp(op="reset", offset=3, keep_state=True))
        await t.settle()
        assert len(handled) == 7
        assert t.state("sub", "c0") == 7
        assert t.audit()["sub"] == {"done": 2}


async def test_a_reset_to_a_time_goes_on_with_what_came_since():
    app, handled = counting(set())
    async with running(app) as t:
        await t.publish_many(spread(4, 2))
        await t.advance(hours=1)
        since = t.clock.now_ms()
        await t.publish_many([Order(f"{c}-2", f"c{c}", 2) for c in range(4)])
        await t.settle()
        await t.control("sub", ControlOp(op="reset", time_ms=since))
        await t.settle()
        assert [order.total for order in handled[12:]] == [2] * 4


async def test_a_reset_forward_skips_and_one_beyond_the_end_stops_there():
    app, handled = counting(set())
    async with running(app) as t:
        await t.control("sub", PAUSE)
        await t.settle()
        await t.publish_many(spread(1, 5))
        await t.control("sub", ControlOp(op="reset", offset=999))
        await t.control("sub", RESUME)
        await t.settle()
        assert handled == []
        await t.publish(Order("0-5", "c0", 5))
        await t.settle()
        assert [order.total for order in handled] == [5]
        assert t.audit()["sub"] == {"done": 1}


async def test_a_reset_drops_held_records_that_come_again_and_counts_the_others_as_discarded():
    broken = {"0-1", "1-3"}
    app, handled = counting(broken)
    async with running(app) as t:
        await t.publish_many(spread(2, 5))
        await t.settle()
        assert t.audit()["sub"] == {"done": 4, "held": 6}
        broken.clear()
        places = [p.partition for p in await t.log.partitions("sub") if p.position]
        for partition in places:
            await t.control("sub", ControlOp(op="reset", offset=3), partition)
        await t.settle()
        progress = [Progress.decode(p.progress, 0) for p in await t.log.partitions("sub")]
        assert t.audit()["sub"]["done"] == sum(p.position - 3 for p in await t.log.partitions("sub") if p.position)
        assert sum(p.discarded_by_resets for p in progress) > 0
        assert "held" not in t.audit()["sub"]
        await t.advance(hours=1)
        await t.publish(Order("0-9", "c0", 9))
        await t.settle()
        assert handled[-1].total == 9


async def test_dead_letters_below_the_new_position_stay_and_can_be_redriven():
    broken = {"0-1"}
    app, handled = counting(broken)
    async with running(app) as t:
        await t.publish_many(spread(1, 4))
        await t.advance(minutes=1)
        await t.control("sub", ControlOp(op="reset", offset=3))
        await t.settle()
        (letter,) = t.dead_letters("sub")
        assert letter.offset == 1
        broken.clear()
        await t.redrive("sub")
        await t.settle()
        assert [order.total for order in handled] == [0, 1, 3]
        assert t.dead_letters("sub") == []


async def test_a_reset_during_a_pause_keeps_the_pause():
    app, handled = counting(set())
    async with running(app) as t:
        await t.publish_many(spread(1, 3))
        await t.settle()
        await t.control("sub", PAUSE)
        await t.control("sub", ControlOp(op="reset", offset=0))
        await t.settle()
        assert len(handled) == 3
        await t.control("sub", RESUME)
        await t.settle()
        assert len(handled) == 6


async def test_what_retention_took_before_it_was_read_is_counted_and_said_aloud(caplog: pytest.LogCaptureFixture):
    brief = Topic("shop.brief", owner="shop", key="customer", partitions=1, retention=timedelta(hours=1))
    brief.event("shop.Order")(Order)
    handled: list[Order] = []
    app = App("shop", owns=[brief])

    @app.subscribe("sub", brief, start="earliest").on(Order)
    async def handle(order: Order) -> None:
        handled.append(order)

    async with running(app) as t:
        await t.publish_many(spread(1, 3))
        await t.settle()
        await t.control("sub", PAUSE)
        await t.settle()
        await t.publish_many([Order(f"0-{n}", "c", n) for n in range(3, 20)])
        await t.advance(hours=3)
        await t.publish(Order("0-20", "c", 20))
        (bounds,) = await t.log.bounds("shop.brief")
        assert bounds.start > 3
        with caplog.at_level(logging.ERROR):
            await t.control("sub", RESUME)
            await t.settle()
        lost = bounds.start - 3
        assert f"lost {lost} records of shop.brief partition 0 to retention" in caplog.text
        assert t.audit()["sub"] == {"done": 21 - lost, "lost to retention": lost}


async def test_retention_spares_records_that_are_held(caplog: pytest.LogCaptureFixture):
    brief = Topic("shop.brief", owner="shop", key="customer", partitions=1, retention=timedelta(hours=1))
    brief.event("shop.Order")(Order)
    broken = {"0-0"}
    handled: list[Order] = []
    app = App("shop", owns=[brief])

    @app.subscribe("sub", brief, start="earliest", retry=Retry(immediate=0, delays=())).on(Order)
    async def handle(order: Order) -> None:
        if order.id in broken:
            raise ValueError
        handled.append(order)

    async with running(app) as t:
        await t.publish_many(spread(2, 3))
        await t.advance(days=2)
        await t.publish(Order("x", "y"))
        await t.advance(days=2)
        broken.clear()
        await t.redrive("sub")
        await t.settle()
        assert [order.total for order in handled if order.customer == "c0"] == [0, 1, 2]
        assert t.audit()["sub"] == {"done": 7}


async def test_a_redrive_of_a_paused_subscription_waits_through_a_restart_too():
    broken = {"0-0"}
    app, handled = counting(broken)
    async with running(app) as t:
        await t.publish_many(spread(1, 3))
        await t.advance(minutes=1)
        await t.control("sub", PAUSE)
        await t.redrive("sub")
        await t.settle()
        broken.clear()
        await t.crash(app)
        await t.start(app)
        await t.advance(minutes=1)
        assert handled == []
        assert t.audit()["sub"] == {"held": 3}
        await t.control("sub", RESUME)
        await t.settle()
        assert [order.total for order in handled] == [0, 1, 2]


@pytest.mark.parametrize(
    "value",
    [
        b'{"op":"pause","reason":"\xff"}',
        b'{"op":"redrive","offset":-1}',
        b'{"op":"discard","offset":18446744073709551616}',
        b'{"op":"reset"}',
        b'{"op":"resume","more":' + b"[" * 100_000,
        b"\x00",
        b"",
    ],
)
async def test_what_is_no_request_is_skipped_with_a_word(value: bytes, caplog: pytest.LogCaptureFixture):
    app, handled = counting(set())
    async with running(app) as t:
        record = Append("sub.control", 0, None, value, Envelope())
        await t.publish_many(spread(2, 1))
        await t.settle()
        await app.log.append([record])
        await t.settle()
        await t.control("sub", PAUSE)
        await t.settle()
        await t.publish_many(spread(3, 3))
        await t.settle()
    assert len(handled) == 2
    assert "can't be read" in caplog.text


async def test_a_control_topic_that_others_made_again_is_obeyed_from_its_beginning():
    app, handled = counting(set())
    async with running(app) as t:
        await t.control("sub", PAUSE)
        await t.control("sub", RESUME)
        await t.settle()
        (consumer,) = app.consumers
        owned = next(iter(consumer.owned.values()))
        owned.unit.put(CONTROL, CONTROL_POSITION, position_entry(999, "sub.control"))
        owned.unit.moved = True
        await t.publish_many(spread(4, 1))
        await t.settle()
        await t.stop(app)
        await t.start(app)
        await t.control("sub", PAUSE, owned.partition)
        await t.settle()
        paused = [number for number, each in app.consumers[0].owned.items() if each.paused]
        assert paused == [owned.partition]
    assert len(handled) == 4


async def test_what_is_asked_is_obeyed_while_more_lies_ready_than_is_fetched_beside_it():
    gate, begun = asyncio.Event(), []

    async def handle(order: Order) -> None:
        begun.append(order.id)
        await gate.wait()

    app = build(handle, concurrency=1)
    async with running(app) as t:
        await t.publish_many(spread(200, 1))
        while not begun:
            await asyncio.sleep(0)
        await t.control("sub", PAUSE)
        (consumer,) = app.consumers
        for _ in range(100):
            t.clock.move_to(t.clock.monotonic() + 0.1)
            for _ in range(20):
                await asyncio.sleep(0)
            if all(owned.paused_for("operator") for owned in consumer.owned.values()):
                break
        assert all(owned.paused_for("operator") for owned in consumer.owned.values())
        assert len(begun) == 1
        asked = t.clock.monotonic()
        await t.control("sub", RESUME)
        while any(owned.paused for owned in consumer.owned.values()):
            t.clock.move_to(t.clock.monotonic() + 0.1)
            for _ in range(20):
                await asyncio.sleep(0)
        assert t.clock.monotonic() - asked < 2
        gate.set()
        await t.settle()
        assert len(begun) == 200
