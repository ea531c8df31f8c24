"""Limits of attempts: never more at once, never more in any window, and in nobody's way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from postline import App, Context, Rate, SettingsError
from postline.clock import VirtualClock
from postline.runtime.crew import TurnCrew
from postline.runtime.limits import Limit, Limiter
from postline.testing import TestApp
from tests.unit.runtime.prioritized import Job, jobs_topic, publish
from tests.unit.runtime.shop import Cancelled, Order, notes, orders, receipts


class Times:
    """Handlers that note when each attempt began, and the most that ran at once; shut until `open` is set."""

    def __init__(self) -> None:
        self.began: list[tuple[float, str]] = []
        self.running = self.most = 0
        self.open = asyncio.Event()
        self.open.set()
        self.clock: Any = None

    async def handle(self, message: Any, ctx: Context) -> None:
        self.began.append((self.clock.monotonic(), f"{ctx.subscription}:{type(message).__name__}"))
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        await self.open.wait()
        self.running -= 1

    def of(self, name: str) -> list[float]:
        return [at for at, whose in self.began if whose.endswith(name)]


def shop(**options: Any) -> App:
    return App("shop", owns=[orders, notes, receipts], **options)


def require_rate(began: Sequence[float], count: float, per: float, burst: int) -> None:
    """In every window that begins with an attempt at most burst + rate * window begin."""
    for first, start in enumerate(began):
        for last in range(first, len(began)):
            window = began[last] - start
            assert last - first + 1 <= burst + count * window / per + 1e-6


async def placed(t: TestApp, count: int, *, keys: int = 10) -> None:
    await t.publish_many([Order(f"o{n}", f"c{n % keys}") for n in range(count)])


async def test_a_handler_runs_no_more_attempts_at_once_than_its_limit() -> None:
    times, app = Times(), shop()
    app.subscribe("sub", orders, start="earliest").on(Order, concurrency=3)(times.handle)
    async with TestApp(app) as t:
        times.clock = t.clock
        times.open.clear()
        await placed(t, 60)
        while times.running < 3:
            await asyncio.sleep(0)
        times.open.set()
        await t.settle()
        assert t.audit()["sub"]["done"] == 60
    assert times.most == 3


async def test_other_handlers_go_on_while_one_stands_at_its_limit() -> None:
    limited, free, app = Times(), Times(), shop()
    sub = app.subscribe("sub", orders, start="earliest", concurrency=4)
    sub.on(Order, concurrency=1)(limited.handle)
    sub.on(Cancelled)(free.handle)
    limited.open.clear()
    async with TestApp(app) as t:
        limited.clock = free.clock = t.clock
        await placed(t, 200, keys=100)
        await t.publish_many([Cancelled(f"o{n}", f"d{n}") for n in range(50)])
        while len(free.began) < 50:
            await asyncio.sleep(0)
        assert len(limited.began) == 1
        limited.open.set()
        await t.settle()
    assert limited.most == 1
    assert len(limited.began) == 200


async def test_a_rate_is_kept_in_every_window_and_used() -> None:
    times, app = Times(), shop()
    app.subscribe("sub", orders, start="earliest").on(Order, rate=Rate(50, per_seconds=1, burst=5))(times.handle)
    async with TestApp(app) as t:
        times.clock = t.clock
        await placed(t, 105)
        await t.advance(seconds=1.001)
        assert len(times.began) == 55
        await t.advance(seconds=2)
        assert t.audit()["sub"]["done"] == 105
    require_rate(times.of("Order"), 50, 1, 5)


async def test_order_of_a_key_is_kept_by_what_a_limit_holds_up() -> None:
    seen: list[Order] = []
    app = shop()

    @app.subscribe("sub", orders, start="earliest").on(Order, concurrency=2, rate=Rate(100))
    async def handle(order: Order) -> None:
        await asyncio.sleep(0)
        seen.append(order)

    async with TestApp(app) as t:
        await placed(t, 60, keys=4)
        await t.advance(seconds=2)
    assert len(seen) == 60
    for key in range(4):
        numbers = [int(order.id[1:]) for order in seen if order.customer == f"c{key}"]
        assert numbers == sorted(numbers)


async def test_repeated_attempts_count() -> None:
    times, app = Times(), shop()

    async def handle(order: Order, ctx: Context) -> None:
        await times.handle(order, ctx)
        if ctx.attempt < 3:
            raise ValueError("again")

    app.subscribe("sub", orders, start="earliest").on(Order, rate=Rate(10, burst=1))(handle)
    async with TestApp(app) as t:
        times.clock = t.clock
        await placed(t, 4)
        await t.advance(seconds=30)
        assert t.audit()["sub"]["done"] == 4
    assert len(times.began) == 12
    require_rate(times.of("Order"), 10, 1, 1)


async def test_plain_handlers_are_limited_one_by_one() -> None:
    began: list[float] = []
    app, clock = shop(), list[Any]()

    @app.subscribe("sub", orders, start="earliest").on(Order, rate=Rate(10, burst=2), concurrency=2)
    def handle(order: Order) -> None:
        began.append(clock[0].monotonic())

    async with TestApp(app) as t:
        clock.append(t.clock)
        await placed(t, 12, keys=1)
        await t.advance(seconds=3)
    assert len(began) == 12
    require_rate(sorted(began), 10, 1, 2)


async def test_a_subscriptions_rate_counts_all_its_handlers() -> None:
    times, app = Times(), shop()
    sub = app.subscribe("sub", orders, start="earliest", rate=Rate(20, burst=1))
    sub.on(Order)(times.handle)
    sub.on(Cancelled)(times.handle)
    async with TestApp(app) as t:
        times.clock = t.clock
        await placed(t, 20)
        await t.publish_many([Cancelled(f"o{n}", f"d{n}") for n in range(20)])
        await t.advance(seconds=3)
        assert t.audit()["sub"]["done"] == 40
    require_rate([at for at, _ in times.began], 20, 1, 1)


async def test_an_apps_limits_hold_for_all_its_subscriptions_which_take_turns() -> None:
    times, app = Times(), shop(concurrency=2, rate=Rate(20, burst=2))
    for name in ("one", "two"):
        app.subscribe(name, orders, start="earliest").on(Order)(times.handle)
    async with TestApp(app) as t:
        times.clock = t.clock
        await placed(t, 30)
        await t.advance(seconds=1)
        some = [whose for _, whose in times.began]
        assert abs(some.count("one:Order") - some.count("two:Order")) <= 2
        await t.advance(seconds=5)
        assert {each["done"] for each in t.audit().values()} == {30}
    assert times.most <= 2
    require_rate([at for at, _ in times.began], 20, 1, 2)


async def test_an_app_at_its_limit_still_takes_the_higher_priority_first() -> None:
    seen, topic = list[str](), jobs_topic({"high": 0, "normal": 0})
    app = App("shop", owns=[topic], rate=Rate(10, burst=1))

    @app.subscribe("work", topic, start="earliest").on(Job)
    async def handle(job: Job, ctx: Context) -> None:
        seen.append(ctx.topic)

    async with TestApp(app) as t:
        await publish(t, 30, "normal")
        await t.advance(seconds=1)
        before = len(seen)
        await publish(t, 5, "high")
        await t.advance(seconds=5)
    assert seen[before : before + 5] == ["jobs.high"] * 5
    assert len(seen) == 35


async def test_a_stop_while_all_wait_for_a_rate_ends_at_once_and_loses_nothing() -> None:
    times, app = Times(), shop()
    app.subscribe("sub", orders, start="earliest").on(Order, rate=Rate(1, per_seconds=timedelta(hours=1)))(times.handle)
    async with TestApp(app) as t:
        times.clock = t.clock
        await placed(t, 5)
        await t.advance(seconds=1)
        assert len(times.began) == 1
        await t.stop(app)
        assert t.audit()["sub"]["done"] == 1


def test_a_limiter_gives_back_what_was_not_used() -> None:
    clock = VirtualClock()
    limiter = Limiter(Limit(rate=Rate(1, burst=1)), clock)
    limiter.enter()
    assert not limiter.is_open
    limiter.leave(unused=True)
    assert limiter.is_open
    limiter.enter()
    limiter.leave()
    assert limiter.opens_in_seconds == pytest.approx(1)
    clock.move_to(1)
    assert limiter.is_open


async def test_whoever_waits_at_a_limiter_comes_before_whoever_comes_later() -> None:
    limiter = Limiter(Limit(concurrency=1), VirtualClock())
    limiter.enter()
    waiting = asyncio.ensure_future(limiter.wait())
    await asyncio.sleep(0)
    limiter.leave()
    assert not limiter.is_open
    await waiting
    assert limiter.is_open


async def test_a_cancelled_wait_lets_the_next_one_begin() -> None:
    limiter = Limiter(Limit(concurrency=1), VirtualClock())
    limiter.enter()
    first, second = (asyncio.ensure_future(limiter.wait()) for _ in range(2))
    await asyncio.sleep(0)
    limiter.leave()
    first.cancel()
    await second
    assert limiter.is_open


@pytest.mark.parametrize(
    ("rate", "at_once"),
    [(Rate(500), 50), (Rate(5), 1), (Rate(5, burst=3), 3), (Rate(600, per_seconds=timedelta(minutes=1)), 1)],
)
def test_the_burst_is_a_tenth_of_a_seconds_worth_unless_it_is_said(rate: Rate, at_once: int) -> None:
    assert rate.at_once == at_once


@pytest.mark.parametrize("options", [{"rate": Rate(0)}, {"rate": Rate(1, burst=-1)}, {"concurrency": 0}])
async def test_limits_that_make_no_sense_are_refused_at_start(options: dict[str, Any]) -> None:
    app = shop(**options)
    with pytest.raises(SettingsError, match="1 or more"):
        async with TestApp(app):
            pass


async def test_limits_of_single_attempts_are_refused_with_batches() -> None:
    app = shop()

    @app.subscribe("sub", orders, start="earliest", batch=10).on(Order, concurrency=2)
    async def handle(many: list[Order]) -> None: ...

    with pytest.raises(SettingsError, match="leave out batch="):
        async with TestApp(app):
            pass


async def test_a_partition_that_goes_away_leaves_nothing_behind_a_limit() -> None:
    times, app = Times(), shop()
    sub = app.subscribe("sub", orders, start="earliest")
    sub.on(Order, rate=Rate(1, per_seconds=timedelta(hours=1)))(times.handle)
    async with TestApp(app) as t:
        times.clock = t.clock
        await placed(t, 20, keys=20)
        await t.advance(seconds=1)
        (consumer,) = app.consumers
        crew = consumer.pool._crew
        assert isinstance(crew, TurnCrew)
        queued = [waiting for each in crew._turns.classes for waiting in each._limited]
        assert queued
        for owned in list(consumer.owned.values()):
            owned.halt()
            consumer.pool.drop_attempts(owned)
        assert not any(waiting for each in crew._turns.classes for waiting in each._limited.values())
        await t.stop(app)
