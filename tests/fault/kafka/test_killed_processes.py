"""Publishers and workers killed with SIGKILL again and again on one broker: nothing lost, doubled or reordered."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.brokers.cluster import Cluster
from tests.fault.kafka.plan import Plan
from tests.fault.kafka.trial import running
from tests.fault.kafka.verdict import judged

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


async def test_killed_workers_and_publishers_lose_double_and_reorder_nothing(
    kafka_one: Cluster, tmp_path: Path
) -> None:
    async with running(kafka_one, Plan(seed=1), tmp_path) as trial:
        for place in (*trial.workers, *trial.publishers, *trial.workers):
            await trial.progress(place)
            await trial.kill_and_start(place)
        await trial.acknowledged(20)
        await judged(trial)
