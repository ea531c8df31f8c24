"""Moving a whole log, beside how fast the slower of both engines appends by itself."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random
from typing import cast

from benchmarks import kafka_running
from benchmarks.orders import order, orders
from benchmarks.results import Figure, Ratio, Result
from benchmarks.running import Options, directory, open_log, run, running
from postline import App
from postline.app import Environment
from postline.clock import SystemClock
from postline.ids import IdSource
from postline.log.transfer import MovableLog
from postline.migration import Migration, Progress

__all__ = ["between_files", "to_kafka_and_back"]

_TARGET = 0.6
_MANY = 1_000_000


def between_files(options: Options) -> Result:
    """From one file to another one, compared on the way."""
    number = options.some(_MANY)
    result = Result("migrate", f"{number:,} records from a file to another one")

    async def main() -> None:
        async with open_log(Path(place) / "source.db") as source, open_log(Path(place) / "target.db") as target:
            appended = await _publish(source, number)
            moved = await _move(source, target, number)
        result.figures += [Figure("publish_many", appended), Figure("migrate", moved)]
        result.ratios.append(Ratio("share of publish_many", moved / appended, _TARGET, unit="%"))

    with directory() as place:
        run(main)
    return result


def to_kafka_and_back(options: Options) -> Result:
    """From a file to a cluster, and from there to another file."""
    number = options.some(_MANY // 2)
    result = Result("kafka-migrate", f"{number:,} records from a file to Kafka, and back")

    async def main() -> None:
        async with open_log(Path(place) / "source.db") as source, open_log(Path(place) / "target.db") as target:
            async with kafka_running.open_log(kafka_running.fresh("bench")) as other:
                on_kafka = await _publish(other, number)
            on_file = await _publish(source, number)
            async with kafka_running.open_log(kafka_running.fresh("bench")) as cluster:
                there = await _move(source, cluster, number)
                back = await _move(cluster, target, number)
        slower = min(on_kafka, on_file)
        result.figures += [Figure("publish_many on Kafka", on_kafka), Figure("publish_many on a file", on_file)]
        result.figures += [Figure("file to Kafka", there), Figure("Kafka to file", back)]
        result.ratios.append(Ratio("file to Kafka: share of the slower one", there / slower, _TARGET, unit="%"))
        result.ratios.append(Ratio("Kafka to file: share of the slower one", back / slower, _TARGET, unit="%"))

    with directory() as place:
        run(main)
    return result


async def _publish(environment: Environment, number: int) -> float:
    """Fill it; gives the rate."""
    shop = App("shop", owns=[orders])
    async with running(shop, environment):
        began, step = time.perf_counter(), 100_000
        for start in range(0, number, step):
            await shop.publish_many([order(each) for each in range(start, min(start + step, number))])
        return number / (time.perf_counter() - began)


async def _move(source: Environment, target: Environment, number: int) -> float:
    clock = SystemClock()
    ids = IdSource(clock.now_ms, Random())
    logs = (cast(MovableLog, source.log), cast(MovableLog, target.log))
    began = time.perf_counter()
    await Migration(*logs, clock, ids.next_id, _nobody).cut_over()
    return number / (time.perf_counter() - began)


def _nobody(progress: Progress) -> None:
    del progress
