"""From publish to handler at 200/s between two processes, beside the fsyncs of the same disk."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from benchmarks.orders import Order, order, orders
from benchmarks.results import Figure, Ratio, Result
from benchmarks.running import Options, directory, open_log, run, running
from postline import App
from postline.app import Environment

__all__ = ["fdatasync_seconds", "handle_timed", "latency", "publish_timed"]

_EVERY_SECONDS = 1 / 200
_BLOCK = b"x" * 4096
_SYNCS = 500


def fdatasync_seconds() -> tuple[float, float]:
    """p50 and p99 of writing 4 KiB at a file's end and making it durable, as a commit does."""
    seconds = []
    with tempfile.TemporaryFile(buffering=0) as file:
        for _ in range(_SYNCS):
            file.write(_BLOCK)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            seconds.append(time.perf_counter() - began)
    return _p50_p99(seconds)


def _p50_p99(values: list[float]) -> tuple[float, float]:
    parts = statistics.quantiles(values, n=100)
    return parts[49], parts[98]


def latency(options: Options) -> Result:
    """Publishes carry the steady clock's time, which both processes share; the best of three rounds."""
    result = Result("latency", "publish to handler at 200/s across two processes")
    number = 400 if options.quick else 2_000
    rounds = [_round(number) for _ in range(options.rounds)]
    p50, p99, sync50, sync99 = min(rounds)
    result.figures += [Figure("fdatasync p50", sync50 * 1000, "ms"), Figure("fdatasync p99", sync99 * 1000, "ms")]
    result.figures += [Figure("publish to handler p50", p50 * 1000, "ms")]
    result.figures += [Figure("publish to handler p99", p99 * 1000, "ms")]
    result.ratios.append(Ratio("p50 beyond two fsyncs", (p50 - 2 * sync50) * 1000, 1, at_least=False, unit="ms"))
    result.ratios.append(Ratio("p99 beyond two fsyncs", (p99 - 2 * sync50) * 1000, 5, at_least=False, unit="ms"))
    result.notes.append("two median fsyncs are taken off p50 and p99 alike")
    return result


def _round(number: int) -> tuple[float, float, float, float]:
    with directory() as place:
        path = Path(place) / "bench.db"
        sync50, sync99 = fdatasync_seconds()
        command = [sys.executable, "-m", "benchmarks.latency", str(path), str(number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as consumer:
            assert consumer.stdout is not None
            if consumer.stdout.readline().strip() != "ready":
                raise RuntimeError("the consuming process did not start")
            run(lambda: publish_timed(open_log(path), number))
            p50, p99 = map(float, consumer.stdout.readline().split())
    return p50, p99, sync50, sync99


async def publish_timed(opening: AbstractAsyncContextManager[Environment], number: int) -> None:
    """Publish so many orders, 200 a second, each with its time."""
    shop = App("shop", owns=[orders])
    async with opening as environment, running(shop, environment):
        due = time.monotonic() + 0.5
        for each in range(number):
            due += _EVERY_SECONDS
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await shop.publish(order(each, time.monotonic_ns()))


async def handle_timed(opening: AbstractAsyncContextManager[Environment], number: int) -> None:
    """Say "ready", handle so many orders, and print p50 and p99 of their ages in seconds."""
    seen: list[float] = []
    done = asyncio.Event()
    app = App("billing", publishes_to=[orders])

    @app.subscribe("billing", orders, start="latest").on(Order)
    async def handle(message: Order) -> None:
        seen.append((time.monotonic_ns() - message.placed_at_ns) / 1e9)
        if len(seen) == number:
            done.set()

    async with opening as environment, running(app, environment):
        while not await app.caught_up():
            await asyncio.sleep(0.01)
        print("ready", flush=True)
        await done.wait()
    print(*_p50_p99(seen), flush=True)


if __name__ == "__main__":
    run(lambda: handle_timed(open_log(Path(sys.argv[1])), int(sys.argv[2])))
