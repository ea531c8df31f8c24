"""Random lives of a subscription: failures, crashes, second workers, pauses and redrives; and what must come out."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from postline import App, Context, Discard, Retry, RetryLater
from postline.runtime.control import ControlOp
from postline.testing import TestApp
from tests.unit.runtime.shop import Order, Receipt, build

ERRORS: list[Callable[[], BaseException]] = [lambda: ValueError("broken"), lambda: RetryLater(3), lambda: KeyError("x")]


class Life:
    """One seeded run: what was published, what is broken at the moment, and what shall be thrown away."""

    def __init__(self, seed: int, form: str) -> None:
        self.chance = random.Random(seed)
        self.form = form
        self.published: dict[str, list[int]] = {}
        self.broken: dict[str, Callable[[], BaseException]] = {}
        self.unwanted: set[str] = set()
        self.apps = [self.app(), self.app()]
        self.running = [True, False]

    def app(self) -> App:
        """A worker; each form of handler does the same."""
        forms: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
            "async": (self.handle_async, {}),
            "plain": (self.handle, {}),
            "middleware": (self.handle, {"middleware": [self.around]}),
            "batch": (self.handle_batch_async, {"batch": 7}),
            "plain batch": (self.handle_batch, {"batch": 7}),
        }
        handler, options = forms[self.form]
        retry = Retry(immediate=1, delays=(2, 20))
        return build(handler, state=int, retry=retry, held_records_max=20, **options)

    def handle(self, order: Order, ctx: Context) -> Receipt:
        """Counts in state what it has done for a key; a second worker would see a doubled or missing one."""
        if order.id in self.broken:
            raise self.broken[order.id]()
        if order.id in self.unwanted:
            raise Discard("unwanted")
        done = (ctx.state.get(order.customer) or 0) + 1
        ctx.state.put(done, order.customer)
        return Receipt(order.id, order.customer, order.total)

    async def handle_async(self, order: Order, ctx: Context) -> Receipt:
        return self.handle(order, ctx)

    def handle_batch(self, batch: list[Order], ctx: Context) -> list[Receipt]:
        if len(batch) > 1 and any(order.id in self.unwanted for order in batch):
            raise ValueError("one of them is unwanted")
        return [self.handle(order, ctx) for order in batch]

    async def handle_batch_async(self, batch: list[Order], ctx: Context) -> list[Receipt]:
        return self.handle_batch(batch, ctx)

    async def around(self, call_next: Any, message: Any, ctx: Context) -> Any:
        return await call_next(message, ctx)

    async def step(self, t: TestApp) -> None:
        """Something happens."""
        steps = [self.publish, self.publish, self.publish, self.mend, self.time, self.worker, self.operate]
        await self.chance.choice(steps)(t)

    async def publish(self, t: TestApp) -> None:
        orders = []
        for _ in range(self.chance.randrange(1, 15)):
            customer = f"c{self.chance.randrange(6)}"
            number = len(self.published.setdefault(customer, []))
            order = Order(f"{customer}-{number}", customer, number)
            self.published[customer].append(number)
            orders.append(order)
            if self.chance.random() < 0.15:
                self.broken[order.id] = self.chance.choice(ERRORS)
            elif self.chance.random() < 0.05:
                self.unwanted.add(order.id)
        await t.publish_many(orders)
        if self.chance.random() < 0.7:
            await t.settle()

    async def mend(self, t: TestApp) -> None:
        for order in [order for order in self.broken if self.chance.random() < 0.4]:
            del self.broken[order]

    async def time(self, t: TestApp) -> None:
        await t.advance(seconds=self.chance.choice([1, 5, 60]))

    async def worker(self, t: TestApp) -> None:
        which = self.chance.randrange(2)
        if not self.running[which]:
            await t.start(self.apps[which])
        else:
            await self.chance.choice([t.crash, t.stop])(self.apps[which])
        self.running[which] = not self.running[which]

    async def operate(self, t: TestApp) -> None:
        kind = self.chance.choice(["redrive", "redrive", "pause", "resume"])
        if kind == "redrive":
            letters = [letter for letter in t.dead_letters("sub") if self.chance.random() < 0.6]
            if letters:
                await t.redrive("sub", *letters)
        else:
            await t.control("sub", ControlOp(op="pause" if kind == "pause" else "resume"))

    async def come_to_an_end(self, t: TestApp) -> None:
        """Everything works again, and whatever was given up is redriven."""
        self.broken.clear()
        if not any(self.running):
            await t.start(self.apps[0])
        await t.control("sub", ControlOp(op="resume"))
        await t.advance(minutes=10)
        while t.dead_letters("sub"):
            await t.redrive("sub")
            await t.settle()
        await t.advance(minutes=10)


@pytest.mark.parametrize("form", ["async", "plain", "middleware", "batch", "plain batch"])
@pytest.mark.parametrize("seed", range(8))
async def test_whatever_happens_each_order_takes_effect_once_and_in_turn(seed: int, form: str):
    life = Life(seed, form)
    async with TestApp(life.apps[0], seed=seed) as t:
        for _ in range(40):
            await life.step(t)
            t.audit()
        await life.come_to_an_end(t)
        counts = t.audit()["sub"]
        total = sum(len(numbers) for numbers in life.published.values())
        assert counts == {"done": total - len(life.unwanted)} | (
            {"discarded": len(life.unwanted)} if life.unwanted else {}
        )
        receipts: dict[str, list[int]] = {}
        for receipt in t.published(Receipt):
            receipts.setdefault(receipt.customer, []).append(receipt.total)
        for customer, numbers in life.published.items():
            wanted = [number for number in numbers if f"{customer}-{number}" not in life.unwanted]
            assert receipts.get(customer, []) == wanted
            assert (t.state("sub", customer) or 0) == len(wanted)
