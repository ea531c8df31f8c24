"""Ten million records in the file: rates beside those of an empty one, and the memory that stays resident."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from benchmarks.orders import Order, order, orders
from benchmarks.publishing import by_callers
from benchmarks.results import Figure, Ratio, Result
from benchmarks.running import Options, best, directory, open_log, run, running, settle
from postline import App
from postline.app import Environment

__all__ = ["large"]

_MANY = 10_000_000
_SAMPLE = 200_000
_LOAD_STEP = 100_000


def large(options: Options) -> Result:
    """The same publishes and the same number of records consumed, before and after the file was filled."""
    result = Result("large", f"{options.some(_MANY):,} records in the file")

    async def main() -> None:
        path = Path(place) / "bench.db"
        async with open_log(path) as environment:
            before = await _sample(environment, path, options, "empty")
            result.figures.append(Figure("resident before", _resident_mb(), "MB"))
            await _load(environment, options.some(_MANY))
            await asyncio.to_thread(os.sync)
            after = await _sample(environment, path, options, "full")
        result.figures.append(Figure("resident after", _resident_mb(), "MB"))
        result.figures.append(Figure("file", path.stat().st_size / 1e6, "MB"))
        for what, rate in before.items():
            result.figures += [Figure(f"{what}, empty", rate), Figure(f"{what}, full", after[what])]
            result.ratios.append(Ratio(f"{what}: full by empty", after[what] / rate, 0.8, unit="%"))

    with directory() as place:
        run(main)
    return result


async def _load(environment: Environment, number: int) -> None:
    shop = App("shop", owns=[orders])
    async with running(shop, environment):
        for start in range(0, number, _LOAD_STEP):
            await shop.publish_many(order(each) for each in range(start, start + _LOAD_STEP))


async def _sample(environment: Environment, path: Path, options: Options, when: str) -> dict[str, float]:
    """Publish by 100 callers and many at once; then consume so many of what the file has."""
    number, found = options.some(_SAMPLE), {"100 callers": [0.0], "publish_many": [0.0], "consume": [0.0]}
    shop = App("shop", owns=[orders])
    for turn in range(options.rounds):
        messages = [order(each) for each in range(number)]
        async with running(shop, environment):
            settle(path)
            found["100 callers"].append(await _timed(number // 4, by_callers(shop, messages[: number // 4])))
            settle(path)
            found["publish_many"].append(await _timed(number, shop.publish_many(messages)))
        settle(path)
        found["consume"].append(await _consume(environment, f"{when}-{turn}", number))
    return {what: best(rates) for what, rates in found.items()}


async def _timed(number: int, work: object) -> float:
    began = time.perf_counter()
    await work  # type: ignore[misc]
    return number / (time.perf_counter() - began)


async def _consume(environment: Environment, name: str, number: int) -> float:
    app, seen, done = App("billing", publishes_to=[orders]), 0, asyncio.Event()

    @app.subscribe(name, orders, start="earliest").on(Order)
    async def handle(message: Order) -> None:
        nonlocal seen
        seen += 1
        if seen >= number:
            done.set()

    began = time.perf_counter()
    async with running(app, environment):
        await done.wait()
        rate = number / (time.perf_counter() - began)
    await environment.log.remove_subscription(name)
    return rate


def _resident_mb() -> float:
    """The memory that this process has in use now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
