"""Consuming on Kafka: no-op handlers beside the raw loop and FastStream, and one message published for each."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import kafka_raw as raw
from benchmarks.kafka_peers import faststream_consume
from benchmarks.kafka_running import Stopwatch, consumed, filled, fresh, open_log
from benchmarks.orders import Invoice, Order, invoices, orders
from benchmarks.results import Figure, Ratio, Result
from benchmarks.running import Options, best, billing, run
from postline import App

__all__ = ["consume", "consume_publish"]

_Declare = Callable[[App, str, Stopwatch], None]
_Raw = Callable[[str, str, int], float]


def _no_op(app: App, name: str, watch: Stopwatch) -> None:
    @app.subscribe(name, orders, start="earliest").on(Order)
    async def handle(message: Order) -> None:
        watch.count()


def _publishing(app: App, name: str, watch: Stopwatch) -> None:
    @app.subscribe(name, orders, start="earliest").on(Order)
    async def handle(message: Order) -> Invoice:
        watch.count()
        return Invoice(message.order_id, message.customer_id, message.total_cents)


def _measure(options: Options, number: int, declare: _Declare, limits: dict[str, _Raw]) -> dict[str, float]:
    """The best rate of Postline and of each raw loop, taken in turn on one topic, after a round that doesn't count."""
    rates: dict[str, list[float]] = {name: [] for name in ("postline", *limits)}

    async def main() -> None:
        async with open_log(fresh("bench")) as environment:
            topic = await filled(environment, number)
            out = environment.settings.full_name(invoices.name)
            for turn in range(options.rounds + 1):
                watch = Stopwatch(number)
                app = billing(owns_invoices=True)
                declare(app, f"billing-{turn}", watch)
                rates["postline"].append(await consumed(app, environment, watch))
                for name, limit in limits.items():
                    rates[name].append(limit(topic, out, number))

    run(main)
    return {name: best(found[1:]) for name, found in rates.items()}


def consume(options: Options) -> Result:
    """Typed, exactly-once, an async handler that does nothing."""
    result = Result("kafka-consume", "consume with a no-op handler, exactly-once commits")
    limits: dict[str, _Raw] = {
        "raw": lambda topic, out, number: raw.consume(topic, number),
        "whole": lambda topic, out, number: raw.consume(topic, number, whole=True),
    }
    rates = _measure(options, options.some(200_000), _no_op, limits)
    result.figures.append(Figure("raw consume-decode-commit, 1,000 to a transaction", rates["raw"]))
    result.figures.append(Figure("the same with type, key and time of each record", rates["whole"]))
    result.figures.append(Figure("postline", rates["postline"]))
    result.ratios.append(Ratio("share of raw", rates["postline"] / rates["raw"], 0.7, unit="%"))
    result.ratios.append(Ratio("share of raw with type, key and time", rates["postline"] / rates["whole"], unit="%"))
    _beside_faststream(result, options, rates["postline"])
    return result


def _beside_faststream(result: Result, options: Options, ours: float) -> None:
    for name, target, number in (("at least once", 10, 2_000), ("acknowledged first", 2, 20_000)):
        found: dict[str, float] = {}
        for client in ("confluent", "aiokafka"):
            # aiokafka's commit for each message takes 5 ms: a tenth of the messages has to do.
            some = number // 10 if (name, client) == ("at least once", "aiokafka") else number
            rate = faststream_consume(client, options.some(some), acknowledge_first=target == 2)
            if rate is None:
                result.notes.append("FastStream skipped: it is not installed (scripts/bench installs it).")
                return
            found[client] = rate
            result.figures.append(Figure(f"FastStream on {client}, {name}", rate))
        result.ratios.append(Ratio(f"FastStream, {name}", ours / max(found.values()), target))


def consume_publish(options: Options) -> Result:
    """The same with one message published for each, in the same transaction."""
    result = Result("kafka-consume-publish", "consume and publish one message for each, exactly-once")
    limits: dict[str, _Raw] = {"raw": lambda topic, out, number: raw.consume(topic, number, publish_to=out)}
    rates = _measure(options, options.some(100_000), _publishing, limits)
    result.figures.append(Figure("raw consume-decode-encode-produce-commit", rates["raw"]))
    result.figures.append(Figure("postline", rates["postline"]))
    result.ratios.append(Ratio("share of raw", rates["postline"] / rates["raw"], unit="%"))
    return result
