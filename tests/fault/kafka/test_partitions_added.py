"""Another program gives a topic more partitions beneath services at work: placing goes on by the declared number."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]

from tests.brokers.cluster import Cluster
from tests.fault.kafka.plan import Plan
from tests.fault.kafka.reader import Ends
from tests.fault.kafka.services import orders
from tests.fault.kafka.trial import running
from tests.fault.kafka.verdict import judged

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_ANSWER_SECONDS = 20.0


async def test_partitions_that_another_program_adds_move_no_key(kafka_one: Cluster, tmp_path: Path) -> None:
    async with running(kafka_one, Plan(seed=18), tmp_path) as trial:
        await trial.billed(50)
        admin = AdminClient({"bootstrap.servers": kafka_one.bootstrap})
        adding = admin.create_partitions([NewPartitions(orders.name, 6)])[orders.name]
        await asyncio.to_thread(adding.result, _ANSWER_SECONDS)
        await trial.billed(50)
        # Those who start now find six.
        for place in (trial.workers[0], trial.publishers[0]):
            await trial.kill_and_start(place)
        await trial.acknowledged(50)
        await trial.billed(50)
        await judged(trial)
        ends = Ends(kafka_one.bootstrap).of([orders.name], stable=False)
        assert [ends[orders.name, number] for number in (4, 5)] == [0, 0]
        assert any("partitions" in line and "6" in line for line in _warnings(trial.said(trial.workers[0])))


def _warnings(said: str) -> list[str]:
    return [line for line in said.splitlines() if "WARNING" in line or "ERROR" in line]
