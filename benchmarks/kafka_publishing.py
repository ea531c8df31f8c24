"""Publishing on Kafka: awaited by 100 callers, and many at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from benchmarks import kafka_raw as raw
from benchmarks.kafka_running import fresh, open_log
from benchmarks.orders import Order, order, orders
from benchmarks.publishing import Way, by_callers
from benchmarks.results import Figure, Ratio, Result
from benchmarks.running import Options, best, run, running
from postline import App

__all__ = ["callers", "many"]

_Raw = Callable[[str, Sequence[Order]], float]


def _measure(options: Options, number: int, publish: Way, limits: dict[str, _Raw]) -> dict[str, float]:
    """The best rate of Postline and of each raw loop, taken in turn, after a round that doesn't count."""
    rates: dict[str, list[float]] = {name: [] for name in ("postline", *limits)}

    async def main() -> None:
        messages = [order(each) for each in range(number)]
        shop = App("shop", owns=[orders])
        async with open_log(fresh("bench")) as environment, running(shop, environment):
            topic = environment.settings.full_name(orders.name)
            for _ in range(options.rounds + 1):
                began = time.perf_counter()
                await publish(shop, messages)
                rates["postline"].append(number / (time.perf_counter() - began))
                for name, limit in limits.items():
                    rates[name].append(limit(topic, messages))

    run(main)
    return {name: best(found[1:]) for name, found in rates.items()}


def callers(options: Options) -> Result:
    """Awaited publish by 100 concurrent callers."""
    result = Result("kafka-callers", "publish awaited by 100 concurrent callers")
    rates = _measure(options, options.some(50_000), by_callers, {"raw": raw.produce_awaited})
    result.figures.append(Figure("raw produce with callbacks, 100 in flight", rates["raw"]))
    result.figures.append(Figure("postline", rates["postline"]))
    result.ratios.append(Ratio("share of raw", rates["postline"] / rates["raw"], 0.7, unit="%"))
    return result


def many(options: Options) -> Result:
    """publish_many beside produce and flush, 1,000 to each."""
    result = Result("kafka-publish-many", "publish_many, 1,000 to a transaction")
    limits: dict[str, _Raw] = {"raw": raw.produce_and_flush, "transactions": raw.produce_in_transactions}
    rates = _measure(options, options.some(100_000), App.publish_many, limits)
    result.figures.append(Figure("raw produce, flushed each 1,000", rates["raw"]))
    result.figures.append(Figure("raw produce in transactions of 1,000", rates["transactions"]))
    result.figures.append(Figure("postline", rates["postline"]))
    result.ratios.append(Ratio("share of raw with flush", rates["postline"] / rates["raw"], unit="%"))
    result.ratios.append(Ratio("share of raw in transactions", rates["postline"] / rates["transactions"], unit="%"))
    return result
