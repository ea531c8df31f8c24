"""Brokers killed, stopped and started again beneath services at work: nothing is lost, nothing doubled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from postline.app import open_environment
from tests.brokers.cluster import Cluster
from tests.fault.kafka.lengths import long_run
from tests.fault.kafka.plan import Plan
from tests.fault.kafka.services import orders, shop
from tests.fault.kafka.trial import Trial, running
from tests.fault.kafka.verdict import judged

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_WATCHED_SECONDS = 6.0
#: Publishers wait longer than a failover takes.
_PATIENT = {"publish_seconds": "60"}


@asynccontextmanager
async def _served(cluster: Cluster, plan: Plan, directory: Path) -> AsyncIterator[Trial]:
    """A trial at work, every broker there; judged at the end."""
    try:
        async with running(cluster, plan, directory) as trial:
            await trial.acknowledged(50)
            await trial.billed(50)
            yield trial
            for number in cluster.numbers:
                await _back(cluster, number)
            await trial.acknowledged(50)
            await judged(trial)
    finally:
        for number in cluster.numbers:
            await _back(cluster, number)


async def _back(cluster: Cluster, number: int) -> None:
    state = cluster.state(number)
    if state == "paused":
        cluster.resume(number)
        await asyncio.to_thread(cluster.wait_until_in_sync, number)
    elif state == "stopped":
        await asyncio.to_thread(cluster.restart, number)


def _controller(cluster: Cluster) -> int:
    return cluster.controller()


def _group_coordinator(cluster: Cluster) -> int:
    return cluster.coordinator("billing")


def _transaction_coordinator(cluster: Cluster) -> int:
    return cluster.transaction_coordinator("postline.trial.0.billing")


@pytest.mark.parametrize(
    "victim",
    [
        pytest.param(_controller, marks=long_run),
        pytest.param(_group_coordinator, marks=long_run),
        _transaction_coordinator,
    ],
)
async def test_a_killed_broker_loses_and_doubles_nothing(
    kafka_three: Cluster, tmp_path: Path, victim: Callable[[Cluster], int]
) -> None:
    async with _served(kafka_three, Plan(seed=2, options=_PATIENT), tmp_path) as trial:
        number = await asyncio.to_thread(victim, kafka_three)
        await asyncio.to_thread(kafka_three.kill, number)
        await trial.acknowledged(100)
        await trial.billed(100)


@long_run
async def test_brokers_killed_in_turn_lose_and_double_nothing(kafka_three: Cluster, tmp_path: Path) -> None:
    async with _served(kafka_three, Plan(seed=3, options=_PATIENT), tmp_path) as trial:
        for number in kafka_three.numbers:
            await asyncio.to_thread(kafka_three.kill, number)
            await trial.progress(*trial.workers)
            await trial.kill_and_start(trial.workers[number % 2])
            await asyncio.to_thread(kafka_three.restart, number)
        await trial.acknowledged(100)


@long_run
async def test_a_broker_that_hangs_loses_and_doubles_nothing(kafka_three: Cluster, tmp_path: Path) -> None:
    async with _served(kafka_three, Plan(seed=4, options=_PATIENT), tmp_path) as trial:
        number = await asyncio.to_thread(_transaction_coordinator, kafka_three)
        await asyncio.to_thread(kafka_three.pause, number)
        await trial.acknowledged(100)
        await asyncio.to_thread(kafka_three.resume, number)
        await trial.billed(100)


async def test_questions_to_a_broker_that_died_take_hardly_any_processor(kafka_three: Cluster, tmp_path: Path) -> None:
    environment = open_environment(f"{kafka_three.url}?create_topics=true&cache_dir={tmp_path}")
    app = shop()
    await app.start(environment, consume=False)
    asked: list[asyncio.Task[object]] = []
    try:
        await environment.log.bounds(orders.name)
        told = await environment.log.survey()
        await asyncio.to_thread(kafka_three.kill, 1)
        began, worked = time.monotonic(), time.process_time()
        while (seconds := time.monotonic() - began) < _WATCHED_SECONDS:
            asked.append(asyncio.create_task(environment.log.bounds(orders.name)))
            asked.append(asyncio.create_task(environment.log.survey()))
            await asyncio.wait(asked, timeout=1)
        # One client that tries again without a pause takes three quarters of a processor.
        assert (time.process_time() - worked) / seconds < 0.3
        assert await environment.log.survey() == told, "two brokers know all of it"
    finally:
        await _back(kafka_three, 1)
        await asyncio.gather(*asked)
        await app.stop()
        await environment.log.close()
