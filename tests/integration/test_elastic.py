"""`postline run --workers MIN..MAX` as real processes: up with a backlog, down after it, and nothing lost by kills."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from tests.integration.elastic_shop import Shop, kill, pids_of

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(params=["sqlite", pytest.param("kafka-1", marks=pytest.mark.brokers)])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Shop:
    folder = tmp_path / f"elastic-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    if request.param == "sqlite":
        return Shop(folder, "sqlite:///shop.db")
    return Shop(folder, f"{request.getfixturevalue('kafka_one').url}?create_topics=true&cache_dir={tmp_path}/cache")


@pytest.mark.slow
async def test_workers_come_with_a_backlog_and_go_after_it_and_kills_between_lose_and_double_nothing(
    shop: Shop,
) -> None:
    await shop.publish(4_000)
    # One worker handles up to a hundred a second.
    times = ("--drain-seconds", "8", "--cool-down-seconds", "2", "--grace", "2")
    async with shop.running("--workers", "1..3", *times) as service:
        await service.wait_for("workers 1 -> 3: ")
        await service.wait_for("shop: running", times=2)
        kill(pids_of(service, 1)[0])
        await service.wait_for("worker 1 was killed by SIGKILL; restarting in 0.1 s")
        await service.wait_for("worker 1 started", times=2)
        await shop.publish(2_000)
        await shop.handled(service)
        await service.wait_for("workers 3 -> 2: ")
        kill(pids_of(service, 2)[0])
        await service.wait_for("worker 2 left")
        await shop.publish(500)
        await service.wait_for("workers 2 -> 1: ")
        await service.wait_for("worker 1 left")
        await shop.handled(service)
        assert len(pids_of(service, 2)) == 1, "one that was to leave was started again"
        assert service.said.count("starting 1 worker\n") == 1
        assert await service.stop() == 0, service.said
    await shop.prove()


@pytest.mark.slow
@pytest.mark.parametrize("shop", ["sqlite"], indirect=True)
async def test_a_worker_that_ignores_being_told_to_leave_is_killed_and_its_records_are_handled_by_others(
    shop: Shop,
) -> None:
    await shop.publish(1_000)
    times = ("--drain-seconds", "4", "--cool-down-seconds", "10", "--grace", "0.5")
    async with shop.running("--workers", "1..2", *times) as service:
        await service.wait_for("shop: running", times=2)
        await shop.handled(service)
        (shop.folder / f"block-{pids_of(service, 1)[0]}").touch()
        await shop.publish(100)
        await service.wait_for("has not turned")
        await service.wait_for("workers 2 -> 1: ")
        await service.wait_for("worker 1 does not stop; killing it")
        await service.wait_for("worker 1 left: it was killed by SIGKILL")
        await shop.handled(service)
        assert await service.stop() == 0, service.said
    await shop.prove()


@pytest.mark.slow
@pytest.mark.parametrize("shop", ["sqlite"], indirect=True)
async def test_workers_end_although_they_hang_when_their_supervisor_is_killed(shop: Shop) -> None:
    await shop.publish(500)
    async with shop.running("--workers", "1..2", "--drain-seconds", "600", "--grace", "0.5") as service:
        await service.wait_for("shop: running")
        (worker,) = pids_of(service, 0)
        (shop.folder / f"block-{worker}").touch()
        await service.wait_for("has not turned")  # by the watch on its loop
        service.process.kill()
        # It holds the standard error of its supervisor: that ends when the worker has.
        await service.ended()
    assert "stopped: committed and left" not in service.said
