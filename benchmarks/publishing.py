"""Publishing: awaited by 100 callers, one at a time, and many at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from benchmarks import raw
from benchmarks.orders import Order, order, orders
from benchmarks.peers import faststream_publish, huey_publish, redis_server
from benchmarks.results import Figure, Ratio, Result
from benchmarks.running import Options, best, directory, open_log, run, running, settle
from postline import App

__all__ = ["Way", "by_callers", "callers", "many", "one_at_a_time"]

_CALLERS = 100

#: A way to publish messages by an app.
Way = Callable[[App, Sequence[Order]], Coroutine[Any, Any, object]]
_Raw = Callable[[Path], float]


async def by_callers(app: App, messages: Sequence[Order]) -> None:
    """100 tasks, each of which awaits every publish."""

    async def caller(first: int) -> None:
        for message in messages[first::_CALLERS]:
            await app.publish(message)

    await asyncio.gather(*(caller(first) for first in range(_CALLERS)))


async def _alone(app: App, messages: Sequence[Order]) -> None:
    for message in messages:
        await app.publish(message)


def _measure(options: Options, number: int, publish: Way, limits: dict[str, _Raw]) -> dict[str, float]:
    """The best rate of Postline and of each raw loop, taken in turn."""
    rates: dict[str, list[float]] = {name: [] for name in ("postline", *limits)}

    async def main() -> None:
        path = Path(place) / "bench.db"
        messages = [order(each) for each in range(number)]
        shop = App("shop", owns=[orders])
        async with open_log(path) as environment, running(shop, environment):
            for _ in range(options.rounds):
                for name, limit in limits.items():
                    settle(path)
                    rates[name].append(limit(Path(place) / "raw.db"))
                settle(path)
                began = time.perf_counter()
                await publish(shop, messages)
                rates["postline"].append(number / (time.perf_counter() - began))

    with directory() as place:
        run(main)
    return {name: best(found) for name, found in rates.items()}


def _singly(number: int) -> _Raw:
    messages = [order(each) for each in range(number)]
    return lambda path: raw.single_commits(path, messages)


def callers(options: Options) -> Result:
    """Awaited publish by 100 concurrent callers, fsync on."""
    result = Result("callers", "publish awaited by 100 concurrent callers, synchronous=FULL")
    rates = _measure(options, options.some(50_000), by_callers, {"raw": _singly(options.some(10_000))})
    ours = rates["postline"]
    result.figures += [Figure("raw single commits", rates["raw"]), Figure("postline", ours)]
    result.ratios.append(Ratio("raw single commits", ours / rates["raw"], 10))
    huey = huey_publish(options.some(10_000))
    if huey is None:
        result.notes.append("huey skipped: it is not installed (scripts/bench installs it).")
    else:
        result.figures.append(Figure("huey at FULL", huey))
        result.ratios.append(Ratio("huey at FULL", ours / huey, 10))
    with redis_server(result) as port:
        if port:
            peer = faststream_publish(port, options.some(20_000))
            result.figures.append(Figure("FastStream on Redis, flushed once a second", peer))
            result.ratios.append(Ratio("FastStream on Redis", ours / peer, 1))
    return result


def one_at_a_time(options: Options) -> Result:
    """One caller that awaits each publish."""
    result = Result("one-at-a-time", "publish awaited one by one, synchronous=FULL")
    number = options.some(10_000)
    rates = _measure(options, number, _alone, {"raw": _singly(number)})
    result.figures += [Figure("raw single commits", rates["raw"]), Figure("postline", rates["postline"])]
    result.ratios.append(Ratio("share of raw", rates["postline"] / rates["raw"], unit="%"))
    return result


def many(options: Options) -> Result:
    """publish_many beside executemany, 1,000 to a commit."""
    result = Result("publish-many", "publish_many, 1,000 to a commit")
    number = options.some(100_000)
    messages = [order(each) for each in range(number)]
    limits: dict[str, _Raw] = {
        "raw": lambda path: raw.insert(path, messages),
        "encoded": lambda path: raw.insert_encoded(path, messages),
    }

    rates = _measure(options, number, App.publish_many, limits)
    result.figures.append(Figure("raw encode and executemany", rates["raw"]))
    result.figures.append(Figure("raw executemany of rows made beforehand", rates["encoded"]))
    result.figures.append(Figure("postline", rates["postline"]))
    result.ratios.append(Ratio("share of raw", rates["postline"] / rates["raw"], 0.65, unit="%"))
    result.ratios.append(Ratio("share of rows made beforehand", rates["postline"] / rates["encoded"], unit="%"))
    return result
