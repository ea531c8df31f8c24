"""The only broker is down, at start or while services publish and handle: they wait, say so, and lose nothing."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from postline.app import open_environment
from postline.clock import SystemClock
from postline.errors import LogUnavailable
from tests.brokers.cluster import Cluster
from tests.fault.kafka.lengths import long_run
from tests.fault.kafka.plan import Plan
from tests.fault.kafka.services import Order, orders, shop
from tests.fault.kafka.trial import running
from tests.fault.kafka.verdict import judged

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_ROOT = Path(__file__).resolve().parents[3]
#: What an answer may take beyond what was asked for, on a busy machine.
_SLACK_SECONDS = 20.0


@asynccontextmanager
async def _down(cluster: Cluster) -> AsyncIterator[None]:
    """Its only broker is killed meanwhile."""
    await asyncio.to_thread(cluster.kill, 1)
    try:
        yield
    finally:
        if cluster.state(1) == "stopped":
            await asyncio.to_thread(cluster.restart, 1)


def _url(cluster: Cluster, directory: Path, **options: str) -> str:
    given = {"create_topics": "true", "cache_dir": str(directory), **options}
    return cluster.url + "?" + "&".join(f"{name}={value}" for name, value in given.items())


async def test_a_publish_waits_for_a_broker_within_its_time_and_then_says_so(
    kafka_one: Cluster, tmp_path: Path
) -> None:
    environment, app = open_environment(_url(kafka_one, tmp_path, publish_seconds="2")), shop()
    await app.start(environment, consume=False)
    try:
        before = await app.publish(Order("ann", 0, 0), id="ann-0")
        async with _down(kafka_one):
            for some in ([Order("ann", 1, 0)], [Order("ann", 2, 0), Order("ann", 3, 0)]):
                async with asyncio.timeout(2 + _SLACK_SECONDS):
                    with pytest.raises(LogUnavailable, match="kafka://"):
                        await app.publish_many(some)
        after = await app.publish(Order("ann", 4, 0), id="ann-4")
        assert after.partition == before.partition
        found = await environment.log.read(orders.name, before.partition, before.offset)
        ids = [environment.log.envelope(record).id for record in found]
        # What was refused for want of an answer may be there or not; what was acknowledged is.
        assert {"ann-0", "ann-4"} <= set(ids)
        assert len(ids) == len(set(ids))
    finally:
        await app.stop()
        await environment.log.close()


@long_run
async def test_a_publish_that_waits_for_a_broker_is_stored_when_it_comes_back(
    kafka_one: Cluster, tmp_path: Path
) -> None:
    environment, app = open_environment(_url(kafka_one, tmp_path, publish_seconds="120")), shop()
    await app.start(environment, consume=False)
    try:
        await app.publish(Order("bob", 0, 0), id="bob-0")
        async with _down(kafka_one):
            waiting = asyncio.create_task(app.publish(Order("bob", 1, 0), id="bob-1"))
            await asyncio.sleep(0)
            assert not waiting.done()
        stored = await waiting
        (record,) = await environment.log.read_offsets(orders.name, stored.partition, [stored.offset])
        assert environment.log.envelope(record).id == "bob-1"
    finally:
        await app.stop()
        await environment.log.close()


async def test_a_service_that_finds_no_broker_says_so_and_ends(kafka_one: Cluster, tmp_path: Path) -> None:
    Plan(seed=1).save(tmp_path)
    async with _down(kafka_one):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "postline", "run", "tests.fault.kafka.served:billing", "--url"),
            _url(kafka_one, tmp_path, connect_seconds="2"),
            cwd=_ROOT,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "FAULT_DIRECTORY": str(tmp_path),
                "FAULT_SLOT": "worker-0",
                "FAULT_LIFE": "1",
            },
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(2 + 2 * _SLACK_SECONDS):
            _, said = await process.communicate()
    assert process.returncode == 3, said
    assert kafka_one.bootstrap.encode() in said
    assert b"fix:" in said
    assert b"Traceback" not in said


@pytest.mark.parametrize(
    "unanswered",
    [
        pytest.param(1, marks=long_run),
        # Half a minute: then the client library's call to commit positions never returns (2.16).
        14,
    ],
)
async def test_services_outlast_their_only_broker_and_lose_and_double_nothing(
    unanswered: int, kafka_one: Cluster, tmp_path: Path
) -> None:
    async with running(kafka_one, Plan(seed=17, options={"publish_seconds": "2"}), tmp_path) as trial:
        await trial.billed(50)
        async with _down(kafka_one):
            wanted = len(trial.journal(trial.publishers[0], "unanswered")) + unanswered
            await trial.until(
                lambda: len(trial.journal(trial.publishers[0], "unanswered")) >= wanted, "publishes are unanswered"
            )
        await trial.acknowledged(50)
        await trial.billed(50)
        await judged(trial)


async def test_a_worker_that_is_told_to_stop_while_its_broker_is_away_ends(kafka_one: Cluster, tmp_path: Path) -> None:
    async with running(kafka_one, Plan(seed=18, options={"publish_seconds": "2"}), tmp_path) as trial:
        await trial.billed(50)
        async with _down(kafka_one):
            for worker in trial.workers:
                await trial.stop(worker)
        for worker in trial.workers:
            await trial.start(worker)
        await trial.acknowledged(50)
        await trial.billed(50)
        await judged(trial)


@long_run
async def test_a_service_that_starts_while_its_broker_comes_up_waits_for_it(kafka_one: Cluster, tmp_path: Path) -> None:
    environment = open_environment(_url(kafka_one, tmp_path, connect_seconds="120"))
    async with _down(kafka_one):
        starting = asyncio.create_task(environment.log.start())
        await SystemClock().sleep(0)
        assert not starting.done()
    await starting
    assert await environment.log.topics() is not None
    await environment.log.close()
