"""Stopping and aborting: what runs may end or is dropped, and nothing hangs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from postline import App
from postline.app import Environment
from postline.clock import SystemClock
from postline.log.sqlite import SqliteLog
from postline.settings import LogUrl, Settings
from postline.testing import TestApp
from tests.unit.runtime.shop import Order, orders


async def test_an_abort_cancels_attempts_that_run_and_does_not_hang():
    app, cancelled = App("shop", owns=[orders]), []
    slow = app.subscribe("slow", orders, start="earliest")

    @slow.on(Order)
    async def wait(order: Order) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(order.id)
            raise

    async with TestApp(app, patience_seconds=0.25) as t:
        await t.publish(Order("1", "c"))
        await t.publish(Order("2", "d"))
        try:
            await t.settle()
        except AssertionError:
            await t.crash(app)
    assert sorted(cancelled) == ["1", "2"]


async def test_a_stop_that_is_cancelled_is_an_abort():
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        yield
        events.append("resources closed")

    app, running = App("shop", owns=[orders], lifespan=lifespan), asyncio.Event()
    slow = app.subscribe("slow", orders, start="earliest")

    @slow.on(Order)
    async def wait(order: Order) -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            events.append("attempt cancelled")
            raise

    log = SqliteLog(None, clock=SystemClock())
    await app.start(Environment(log, Settings(url=LogUrl("sqlite"))))
    await app.publish(Order("1", "c"))
    await running.wait()
    (consumer,) = app.consumers
    stopping = asyncio.ensure_future(app.stop(grace_seconds=600))
    while not all(owned.draining for owned in consumer.owned.values()):
        await SystemClock().sleep(0)
    stopping.cancel()
    await asyncio.wait({stopping})
    assert events == ["attempt cancelled", "resources closed"]
    await log.close()
