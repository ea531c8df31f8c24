"""`postline run --workers MIN..MAX` on three brokers: workers and a broker are killed while workers come and go."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers.cluster import Cluster
from tests.integration.elastic_shop import Shop, kill, pids_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: One worker handles up to a hundred records a second.
_TIMES = ("--drain-seconds", "8", "--cool-down-seconds", "2", "--grace", "2")


@pytest.fixture
def brokers(kafka_three: Cluster) -> Iterator[Cluster]:
    """Three brokers, which all run again in the end."""
    yield kafka_three
    for number in kafka_three.numbers:
        if kafka_three.state(number) == "stopped":
            kafka_three.restart(number)


async def test_workers_that_come_and_go_lose_double_and_reorder_nothing_while_they_and_a_broker_are_killed(
    brokers: Cluster, tmp_path: Path
) -> None:
    folder = tmp_path / f"elastic-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    shop = Shop(folder, f"{brokers.url}?create_topics=true&publish_seconds=60&cache_dir={tmp_path}/cache")
    await shop.publish(5_000)
    async with shop.running("--workers", "1..3", *_TIMES, patience_seconds=240) as service:
        await service.wait_for("shop: running")
        victim = await asyncio.to_thread(brokers.coordinator, f"{shop.namespace}.billing")
        await asyncio.to_thread(brokers.kill, victim)
        await service.wait_for("shop: running", times=3)
        kill(pids_of(service, 1)[0])
        await service.wait_for("worker 1 started", times=2)
        done = await shop.done(service, 1)
        assert done < shop.published, "nobody was at work any more"
        await shop.publish(1_000)
        kill(pids_of(service, 2)[0])
        await shop.done(service, done + 500)
        await asyncio.to_thread(brokers.restart, victim)
        await shop.handled(service)
        await service.wait_for("workers 3 -> 2: ")
        kill(pids_of(service, 0)[-1])
        await service.wait_for("workers 2 -> 1: ")
        await service.wait_for("worker 1 left")
        await shop.publish(500)
        await shop.handled(service)
        assert service.said.count("starting 1 worker\n") == 1
        assert await service.stop() == 0, service.said
    await shop.prove()
