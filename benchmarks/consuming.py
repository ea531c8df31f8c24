"""Consuming: no-op handlers, one message published for each, a slow handler among others, state, threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from benchmarks import raw
from benchmarks.orders import Invoice, Order, orders
from benchmarks.peers import faststream_consume, redis_server
from benchmarks.results import Figure, Ratio, Result
from benchmarks.running import Options, best, billing, consumed, directory, filled, open_log, run, settle
from postline import App, Breaker, Context

__all__ = ["consume", "consume_publish", "handlers", "no_op", "slow_handler"]

_SLOW_SECONDS = 0.05
_SLOW_EVERY = 1_000

_Declare = Callable[[App, str], None]


def no_op(app: App, name: str) -> None:
    """Subscribe an async handler that does nothing."""

    @app.subscribe(name, orders, start="earliest").on(Order)
    async def handle(message: Order) -> None:
        pass


def _with_breaker(app: App, name: str) -> None:
    @app.subscribe(name, orders, start="earliest").on(Order, breaker=Breaker())
    async def handle(message: Order) -> None:
        pass


def _plain(app: App, name: str) -> None:
    @app.subscribe(name, orders, start="earliest").on(Order)
    def handle(message: Order) -> None:
        pass


def _stateful(app: App, name: str) -> None:
    @app.subscribe(name, orders, start="earliest", state=int).on(Order)
    async def handle(message: Order, ctx: Context) -> None:
        ctx.state.put((ctx.state.get() or 0) + message.total_cents)


def _publishing(app: App, name: str) -> None:
    @app.subscribe(name, orders, start="earliest").on(Order)
    async def handle(message: Order) -> Invoice:
        return Invoice(message.order_id, message.customer_id, message.total_cents)


def _batch(app: App, name: str) -> None:
    @app.subscribe(name, orders, start="earliest", batch=500).on(Order)
    async def handle(messages: list[Order]) -> None:
        pass


def _sometimes_slow(app: App, name: str) -> None:
    @app.subscribe(name, orders, start="earliest").on(Order)
    async def handle(message: Order) -> None:
        if message.order_id.endswith("500") and int(message.order_id[6:]) % _SLOW_EVERY == 500:
            await asyncio.sleep(_SLOW_SECONDS)


def _measure(options: Options, number: int, declare: dict[str, _Declare], *, publish: bool) -> dict[str, float]:
    """The best rate of each way to consume, and of the raw loop, taken in turn on one file."""
    rates: dict[str, list[float]] = {name: [] for name in ("raw", *declare)}

    async def main() -> None:
        path = Path(place) / "bench.db"
        async with open_log(path) as environment:
            await filled(environment, number)
            for turn in range(options.rounds):
                settle(path)
                rates["raw"].append(raw.consume(path, orders.name, number, publish=publish))
                for name, each in declare.items():
                    settle(path)
                    app = billing(publish)
                    each(app, f"{name}-{turn}")
                    rates[name].append(await consumed(app, environment, number))

    with directory() as place:
        run(main)
    return {name: best(found) for name, found in rates.items()}


def consume(options: Options) -> Result:
    """Typed, exactly-once, an async handler that does nothing."""
    result = Result("consume", "consume with a no-op handler, exactly-once commits")
    rates = _measure(options, options.some(200_000), {"postline": no_op}, publish=False)
    result.figures += [Figure("raw read-decode-commit", rates["raw"]), Figure("postline", rates["postline"])]
    result.ratios.append(Ratio("share of raw", rates["postline"] / rates["raw"], 0.35, unit="%"))
    with redis_server(result) as port:
        if port:
            peer = faststream_consume(port, options.some(20_000))
            result.figures.append(Figure("FastStream on Redis streams, acknowledged one by one", peer))
            result.ratios.append(Ratio("FastStream on Redis", rates["postline"] / peer, 10))
    return result


def consume_publish(options: Options) -> Result:
    """The same with one message published for each, in the same commit."""
    result = Result("consume-publish", "consume and publish one message for each, exactly-once")
    rates = _measure(options, options.some(100_000), {"postline": _publishing}, publish=True)
    result.figures += [Figure("raw read-decode-encode-append-commit", rates["raw"])]
    result.figures += [Figure("postline", rates["postline"])]
    result.ratios.append(Ratio("share of raw", rates["postline"] / rates["raw"], 0.35, unit="%"))
    return result


def slow_handler(options: Options) -> Result:
    """One handler in 1,000 takes 50 ms: what it costs the others."""
    result = Result("slow-handler", "one handler of 50 ms in 1,000")
    number = options.some(200_000)
    rates = _measure(options, number, {"quick": no_op, "slow": _sometimes_slow}, publish=False)
    result.figures += [Figure("without", rates["quick"]), Figure("with", rates["slow"])]
    result.ratios.append(Ratio("rate kept", rates["slow"] / rates["quick"], 0.6, unit="%"))
    return result


def handlers(options: Options) -> Result:
    """Other kinds of handlers; no targets."""
    result = Result("handlers", "plain, batch and stateful handlers")
    ways: dict[str, _Declare] = {"plain function": _plain, "batch of 500": _batch, "ctx.state": _stateful}
    rates = _measure(options, options.some(100_000), ways, publish=False)
    for name in ways:
        result.figures.append(Figure(name, rates[name]))
        result.ratios.append(Ratio(f"{name}: share of raw", rates[name] / rates["raw"], unit="%"))
    return result


def breaker(options: Options) -> Result:
    """What a breaker costs while its backend answers."""
    result = Result("breaker", "a closed breaker beside none")
    ways: dict[str, _Declare] = {"without": no_op, "with": _with_breaker}
    rates = _measure(options, options.some(200_000), ways, publish=False)
    result.figures += [Figure(name, rates[name]) for name in ways]
    result.ratios.append(Ratio("rate kept", rates["with"] / rates["without"], 0.97, unit="%"))
    return result
