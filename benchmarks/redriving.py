"""Redriving: dead letters run again by the many, beside the same records consumed for the first time."""

from __future__ import annotations

import random
import time
from pathlib import Path

from benchmarks.consuming import no_op
from benchmarks.orders import Order, orders
from benchmarks.results import Figure, Ratio, Result
from benchmarks.running import (
    Options,
    best,
    billing,
    consumed,
    directory,
    filled,
    open_log,
    run,
    running,
    settle,
    until_caught_up,
)
from postline import App, Retry
from postline.app import Environment
from postline.clock import SystemClock
from postline.monitor import Monitor, Selection
from postline.operations import Operations, Pace

__all__ = ["redrive"]

_NAME = "redriven"


def redrive(options: Options) -> Result:
    """All records failed once; then the handler is mended, and all are redriven."""
    result = Result("redrive", "dead letters redriven, exactly-once, beside consuming the same records")
    number = options.some(100_000)
    rates: dict[str, list[float]] = {"consume": [], "redrive": []}

    async def main(path: Path) -> None:
        async with open_log(path) as environment:
            await filled(environment, number)
            for _ in range(options.rounds):
                settle(path)
                app = billing()
                no_op(app, "consuming")
                rates["consume"].append(await consumed(app, environment, number))
                await consumed_in_vain(environment, number)
                settle(path)
                rates["redrive"].append(await _redriven(environment, number))
                await environment.log.remove_subscription(_NAME)

    with directory() as place:
        run(lambda: main(Path(place) / "bench.db"))
    result.figures += [Figure(name, best(found)) for name, found in rates.items()]
    pairs = sorted(again / first for first, again in zip(rates["consume"], rates["redrive"], strict=True))
    result.ratios.append(Ratio("share of consuming", pairs[len(pairs) // 2], 0.5, unit="%"))
    return result


def _app(*, broken: bool) -> App:
    app = App("billing", publishes_to=[orders])
    subscription = app.subscribe(_NAME, orders, start="earliest", after="continue", retry=Retry(immediate=0, delays=()))

    @subscription.on(Order)
    async def handle(message: Order) -> None:
        if broken:
            raise ValueError("not yet")

    return app


async def consumed_in_vain(environment: Environment, number: int) -> None:
    """Have all records become dead letters."""
    app = _app(broken=True)
    async with running(app, environment):
        await until_caught_up(app)


async def _redriven(environment: Environment, number: int) -> float:
    monitor = Monitor(environment.log, SystemClock())
    operations = Operations(environment.log, SystemClock(), random.Random(1))
    app = _app(broken=False)
    async with running(app, environment):
        await until_caught_up(app)
        began = time.perf_counter()
        letters = monitor.letters.picked(await monitor.info(_NAME), Selection())
        await operations.redrive_many(_NAME, letters, "bench", Pace())
        await until_caught_up(app)
        rate = number / (time.perf_counter() - began)
    assert (await monitor.audit(_NAME)).outcomes["done"] == number
    return rate
