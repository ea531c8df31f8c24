"""Engines that are broken on purpose, in real workers under real faults: the verdict finds each."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.brokers.cluster import Cluster
from tests.fault.kafka.lengths import long_run
from tests.fault.kafka.plan import Plan
from tests.fault.kafka.trial import Place, Trial, running
from tests.fault.kafka.verdict import judge

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


async def _problems(trial: Trial) -> set[str]:
    """The kinds of what is wrong."""
    await trial.come_to_rest()
    polls = await asyncio.to_thread(trial.reader.finish)
    async with trial.log() as log:
        verdict = await judge(trial.directory, log, polls)
    return {problem.partition(":")[0] for problem in verdict.problems}


@long_run
async def test_positions_that_are_committed_without_their_effects_are_found(kafka_one: Cluster, tmp_path: Path) -> None:
    plan = Plan(seed=11, workers=1, planted="positions without appends")
    async with running(kafka_one, plan, tmp_path) as trial:
        await trial.billed(20)
        assert "unprocessed" in await _problems(trial)


async def test_commits_of_whoever_does_not_own_are_found(kafka_one: Cluster, tmp_path: Path) -> None:
    # As in test_stopped_workers, where an engine that is whole stores each part once.
    plan = Plan(seed=10, workers=1, planted="no fence")
    async with running(kafka_one, plan, tmp_path) as trial:
        slow = trial.workers[0]
        await trial.billed(20, slow)
        await trial.hold(slow, partitions=4)
        trial.workers.append(Place("worker-1"))
        await trial.start(trial.workers[1])
        await trial.billed(20, trial.workers[1])
        trial.let_go(slow)
        await trial.billed(20, slow)
        assert "processed-twice" in await _problems(trial)
