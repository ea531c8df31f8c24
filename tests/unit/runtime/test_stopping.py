"""Stopping and aborting: what runs may end or is dropped, and nothing hangs."""

from __future__ import annotations

import asyncio

from postline import App
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
