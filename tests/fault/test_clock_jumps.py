"""A wall clock that jumps either way, while services run or between: nothing early, late, lost or doubled."""

from __future__ import annotations

import pytest
from msgspec import Struct

from postline import App, Retry, Topic
from postline.testing import TestApp

_DAY = 86_400.0

orders = Topic("shop.orders", owner="shop", key="customer", partitions=1)


@orders.event("shop.Order")
class Order(Struct):
    """An order."""

    customer: str
    number: int


class Billing:
    """Fails at a customer's order as often as told, and notes what it handled."""

    def __init__(self) -> None:
        self.attempts: list[int] = []
        self.failing = 1

    def app(self) -> App:
        """The service; each call is a new life of it."""
        app = App("shop", owns=[orders])
        billing = app.subscribe(
            "billing", orders, start="earliest", retry=Retry(immediate=0, delays=(60, 60), jitter=0)
        )

        @billing.on(Order)
        async def bill(order: Order) -> None:
            self.attempts.append(order.number)
            if self.failing:
                self.failing -= 1
                raise ValueError("not yet")

        return app


_EITHER_WAY = pytest.mark.parametrize("jump", [_DAY, -_DAY], ids=["forward", "back"])


@_EITHER_WAY
async def test_a_retry_comes_after_its_delay_whatever_the_wall_clock_does(jump: float) -> None:
    billing = Billing()
    async with TestApp(billing.app()) as t:
        await t.publish(Order("ann", 1))
        await t.publish(Order("ann", 2))
        await t.settle()
        t.clock.jump_wall(jump)
        await t.advance(seconds=59)
        assert billing.attempts == [1]
        await t.advance(seconds=1)
        assert billing.attempts == [1, 1, 2]
        assert t.audit()["billing"]["done"] == 2


@_EITHER_WAY
async def test_a_retry_that_waits_through_a_restart_waits_no_longer_than_its_ladder(jump: float) -> None:
    billing = Billing()
    first = billing.app()
    async with TestApp(first) as t:
        await t.publish(Order("ann", 1))
        await t.publish(Order("ann", 2))
        await t.settle()
        await t.crash(first)
        t.clock.jump_wall(jump)
        await t.start(billing.app())
        await t.advance(seconds=60)
        assert billing.attempts == [1, 1, 2]
        assert t.audit()["billing"]["done"] == 2


@_EITHER_WAY
async def test_a_jump_between_the_publish_and_its_repetition_makes_no_second_message(jump: float) -> None:
    billing = Billing()
    billing.failing = 0
    async with TestApp(billing.app()) as t:
        await t.publish(Order("ann", 1), id="one")
        await t.settle()
        t.clock.jump_wall(30 * jump)
        await t.publish(Order("ann", 1), id="one")
        await t.publish(Order("ann", 2), id="two")
        await t.settle()
        assert billing.attempts == [1, 2]
        assert t.audit()["billing"]["duplicate"] == 1


async def test_order_and_timestamps_stay_through_jumps_of_the_clock_and_crashes() -> None:
    billing = Billing()
    billing.failing = 0
    running = billing.app()
    async with TestApp(running) as t:
        for number in range(20):
            t.clock.jump_wall((-1) ** number * 3_600 * (number + 1))
            await t.publish(Order("ann", number))
            if number % 5 == 0:
                await t.settle()
                await t.crash(running)
                running = billing.app()
                await t.start(running)
        await t.settle()
        assert billing.attempts == list(range(20))
        records = await t.log.read("shop.orders", 0, 0)
        assert [record[1] for record in records] == sorted(record[1] for record in records)
        assert t.audit()["billing"]["done"] == 20
