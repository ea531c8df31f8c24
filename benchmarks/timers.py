"""Timers: other work beside a million that wait, how late one fires, and how fast many are set and fired."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from pathlib import Path

import msgspec

from benchmarks.orders import Order, order, orders
from benchmarks.results import Figure, Ratio, Result
from benchmarks.running import Options, best, directory, filled, open_log, run, running, settle, until_caught_up
from postline import App, Context
from postline.app import Environment
from postline.clock import SystemClock

__all__ = ["timers"]

_PENDING = 1_000_000
_SAMPLE = 100_000
_FIRED = 100_000
_LATE = 200
#: So many one filling record delays.
_STEP = 1_000
_FILLS, _LATES = -1, -2


class _Ahead(SystemClock):
    """The machine's clock, ahead by a day."""

    def now_ms(self) -> int:
        return super().now_ms() + 86_400_000


def timers(options: Options) -> Result:
    """Consuming by a subscription without timers and by one with a million, in turn, each on a file of its own."""
    pending = options.some(_PENDING)
    result = Result("timers", f"{pending:,} delayed messages wait in the subscription that works")
    rates: dict[str, list[float]] = {"none wait": [], "a million wait": []}

    async def main() -> None:
        paths = {name: Path(place) / f"{number}.db" for number, name in enumerate(rates)}
        async with open_log(paths["none wait"]) as empty, open_log(paths["a million wait"]) as full:
            result.figures.append(Figure("delayed by handlers", await _fill(full, pending)))
            for _ in range(options.rounds):
                for name, environment in (("none wait", empty), ("a million wait", full)):
                    rates[name].append(await _consume(environment, paths[name], options.some(_SAMPLE)))
            late = sorted(await _lateness(full))
            result.figures.append(Figure("late, p50", late[len(late) // 2], "ms"))
            result.figures.append(Figure("late, worst of 200", late[-1], "ms"))
            result.ratios.append(Ratio("the latest", late[-1] / 1000, 1.0, at_least=False, unit="s"))
            result.figures.append(Figure("fired", await _fire(full, min(_FIRED, pending // 2))))
        found = {name: best(each) for name, each in rates.items()}
        result.figures += [Figure(f"consumed, {name}", rate) for name, rate in found.items()]
        result.ratios.append(
            Ratio("consuming: a million wait by none", found["a million wait"] / found["none wait"], 0.9, unit="%")
        )

    with directory() as place:
        run(main)
    return result


class _Working:
    """The service that works: orders do nothing, but those that say so delay others."""

    def __init__(self) -> None:
        self.app = App("billing", publishes_to=[orders])
        self.late_ms: list[float] = []

        @self.app.subscribe("work", orders, start="earliest").on(Order)
        async def handle(message: Order, ctx: Context) -> None:
            if message.total_cents == _FILLS:
                first = int(message.order_id)
                for number in range(first, first + _STEP):
                    ctx.publish(order(number), delay=timedelta(hours=1, milliseconds=number))
            elif message.total_cents == _LATES:
                later = msgspec.structs.replace(message, total_cents=SystemClock().now_ms() + 1_000)
                ctx.publish(later, delay=1)
            elif message.total_cents > 1_000_000_000_000:
                self.late_ms.append(time.time() * 1000 - message.total_cents)


def _asking(number: int, what: int) -> Order:
    return msgspec.structs.replace(order(number), order_id=str(number), total_cents=what)


async def _fill(environment: Environment, pending: int) -> float:
    began = time.perf_counter()
    async with running(_Working().app, environment) as app:
        for first in range(0, pending, _STEP):
            await app.publish(_asking(first, _FILLS))
        await until_caught_up(app)
        return pending / (time.perf_counter() - began)


async def _consume(environment: Environment, path: Path, number: int) -> float:
    await filled(environment, number)
    settle(path)
    began = time.perf_counter()
    async with running(_Working().app, environment) as app:
        await until_caught_up(app)
        return number / (time.perf_counter() - began)


async def _lateness(environment: Environment) -> list[float]:
    """How long after its time a message of an idle service is handled."""
    working = _Working()
    async with running(working.app, environment) as app:
        for number in range(_LATE):
            await app.publish(_asking(number, _LATES))
            await asyncio.sleep(0.005)
        while len(working.late_ms) < _LATE:
            await asyncio.sleep(0.01)
    return working.late_ms


async def _fire(environment: Environment, number: int) -> float:
    """All of them come due at once: appended a second, of the first so many, which their own subscription reads."""
    start = sum(each.end for each in await environment.log.bounds(orders.name))
    began = time.perf_counter()
    app = _Working().app
    await app.start(Environment(environment.log, environment.settings, _Ahead()))
    while (fired := sum(each.end for each in await environment.log.bounds(orders.name)) - start) < number:
        await asyncio.sleep(0.01)
    rate = fired / (time.perf_counter() - began)
    await app.abort()
    return rate
