"""State caches that are gone, damaged, old or another's: state is what the changelog says, whatever the file does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.brokers.cluster import Cluster
from tests.fault.kafka.caches import FATES, caches_of, corrupt, delete, falsify
from tests.fault.kafka.lengths import long_run
from tests.fault.kafka.plan import Plan
from tests.fault.kafka.trial import running
from tests.fault.kafka.verdict import judge, judged

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


async def test_caches_that_are_gone_damaged_old_or_of_others_are_built_anew(kafka_one: Cluster, tmp_path: Path) -> None:
    async with running(kafka_one, Plan(seed=12, workers=1), tmp_path) as trial:
        worker = trial.workers[0]
        await trial.billed(100)
        await trial.stop(worker)
        files = [*caches_of(tmp_path, "billing"), *caches_of(tmp_path, "ledger")]
        for number, path in enumerate(files):
            FATES[number % len(FATES)](path, trial.random)
        await trial.start(worker)
        await trial.billed(50)
        await judged(trial)


@long_run
async def test_caches_that_are_damaged_or_deleted_beneath_their_owner_lose_nothing(
    kafka_one: Cluster, tmp_path: Path
) -> None:
    async with running(kafka_one, Plan(seed=13, workers=1), tmp_path) as trial:
        for harm in (corrupt, delete, corrupt):
            await trial.billed(50)
            for path in caches_of(tmp_path, "billing"):
                harm(path, trial.random)
        await trial.billed(50)
        await judged(trial)


@long_run
async def test_a_cache_that_were_trusted_wrongly_would_be_found(kafka_one: Cluster, tmp_path: Path) -> None:
    async with running(kafka_one, Plan(seed=14, workers=1), tmp_path) as trial:
        worker = trial.workers[0]
        await trial.billed(50)
        await trial.stop(worker)
        for path in caches_of(tmp_path, "billing"):
            falsify(path)
        await trial.start(worker)
        await trial.billed(20)
        await trial.come_to_rest()
        polls = await asyncio.to_thread(trial.reader.finish)
        async with trial.log() as log:
            verdict = await judge(tmp_path, log, polls)
    assert {"wrong-total", "wrong-state"} <= {problem.partition(":")[0] for problem in verdict.problems}
