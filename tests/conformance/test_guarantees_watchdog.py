"""What stands still says why on every engine, to whoever looks from another handle of the log."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from postline import App
from postline.monitor import HealthView, health_of
from tests.conformance.apps import ORDERS, Gate, OrderPlaced, World, eventually, orders
from tests.conformance.harness import Engine


class Standing:
    """Handlers that stand until they are let go: a task at a gate, or a thread at an event."""

    def __init__(self, *, plain: bool) -> None:
        self.app = App("billing")
        self.gate, self.event = Gate(), threading.Event()
        self.gate.shut()
        subscription = self.app.subscribe("billing", ORDERS, start="earliest", slow_after=0.05)
        handler: Callable[[OrderPlaced], Any] = self.stand_in_a_thread if plain else self.stand_in_a_task
        subscription.on(OrderPlaced)(handler)

    async def stand_in_a_task(self, order: OrderPlaced) -> None:
        await self.gate.pass_through()

    def stand_in_a_thread(self, order: OrderPlaced) -> None:
        self.event.wait()

    def let_go(self) -> None:
        self.event.set()
        self.gate.open()


async def until_named(world: World, kind: str) -> HealthView:
    """Wait until a cause of this kind is known of the subscription, which stands still."""
    found: list[HealthView] = []

    async def named() -> bool:
        view = await world.view()
        found[:] = [health_of([view], [await world.view()], 0.0)]
        return any(cause.kind == kind for cause in found[0].subscriptions[0].causes)

    await eventually(named, f"the cause {kind!r} is named")
    return found[0]


@pytest.mark.parametrize("plain", [False, True], ids=["task", "thread"])
async def test_a_handler_that_does_not_come_back_is_named_with_its_stack(
    engine: Engine, plain: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with World(engine) as world:
        service = Standing(plain=plain)
        try:
            await world.start(service.app)
            await world.publish(orders(24))
            health = await until_named(world, "handler")
            assert not health.healthy
            (cause,) = [each for each in health.subscriptions[0].causes if each.kind == "handler"]
            assert cause.name.endswith("stand_in_a_thread" if plain else "stand_in_a_task")
            assert ("self.event.wait()" if plain else "await self._open.wait()") in cause.detail
            lines = [record for record in caplog.records if "does not come back" in record.getMessage()]
            assert len(lines) == 1, "one line for the handler, however many records"
        finally:
            service.let_go()
        await world.until_handled()

        async def over() -> bool:
            return not (await world.view()).causes

        await eventually(over, "it has come back")


async def test_without_a_process_that_is_the_cause(engine: Engine) -> None:
    async with World(engine) as world:
        service = Standing(plain=False)
        service.let_go()
        await world.start(service.app)
        await world.publish(orders(12))
        await world.until_handled()
        await world.stop(service.app)
        await world.publish(orders(12, first=12))
        health = await until_named(world, "no member")
        assert health.subscriptions[0].status == "stalled"


async def test_a_pause_is_a_cause(engine: Engine) -> None:
    async with World(engine) as world:
        service = Standing(plain=False)
        service.let_go()
        await world.start(service.app)
        await world.publish(orders(12))
        await world.until_handled()
        await world.obeyed(await world.operations.pause("billing"))
        await world.publish(orders(12, first=12))
        health = await until_named(world, "paused")
        assert health.subscriptions[0].status == "stalled"
        await world.obeyed(await world.operations.resume("billing"))
        await world.until_handled()
