"""A group's offsets deleted or moved by another tool while nobody serves: nothing is passed over in silence."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from postline.clock import SystemClock
from postline.monitor import Monitor
from tests.brokers.cluster import Cluster
from tests.fault.journal import Entry
from tests.fault.kafka.lengths import long_run
from tests.fault.kafka.plan import Plan
from tests.fault.kafka.services import orders
from tests.fault.kafka.trial import Trial, running
from tests.fault.kafka.verdict import judged

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_ANSWER_SECONDS = 20.0


async def _nobody_serves(trial: Trial) -> None:
    """Stop every worker; orders are published all the same."""
    for place in trial.workers:
        await trial.stop(place)


async def _serve_again(trial: Trial) -> None:
    for place in trial.workers:
        await trial.start(place)


async def test_deleted_offsets_are_gone_on_from_where_they_were(kafka_one: Cluster, tmp_path: Path) -> None:
    async with running(kafka_one, Plan(seed=15), tmp_path) as trial:
        admin = AdminClient({"bootstrap.servers": kafka_one.bootstrap})
        await trial.billed(50)
        await _nobody_serves(trial)
        for future in admin.delete_consumer_groups(["billing", "ledger"]).values():
            await asyncio.to_thread(future.result, _ANSWER_SECONDS)
        await trial.acknowledged(20)
        await _serve_again(trial)
        await trial.billed(50)
        await judged(trial)
        assert any("gone (expired or deleted)" in trial.said(place) for place in trial.workers)


@long_run
async def test_offsets_moved_back_by_another_tool_are_a_reset_that_is_counted(
    kafka_one: Cluster, tmp_path: Path
) -> None:
    async with running(kafka_one, Plan(seed=16, workers=1), tmp_path) as trial:
        worker = trial.workers[0]
        await trial.billed(100)
        await _nobody_serves(trial)
        before = await _positions(trial)
        moved = {0: before[0] // 2}
        await asyncio.to_thread(_move, kafka_one, moved)
        handled = len(trial.journal(worker, "ok"))
        await _serve_again(trial)
        await trial.billed(20)
        await trial.come_to_rest()
        again = Counter(_offset(entry) for entry in trial.journal(worker, "ok")[handled:] if entry.fields[3] == "0")
        # From there on everything, each once, what had been handled before included.
        wanted = {offset for offset in _unflawed(trial, 0) if offset >= moved[0]}
        assert again == Counter(wanted), (moved, sorted(again.items())[:20], sorted(wanted)[:20])
        async with trial.log() as log:
            audit = await Monitor(log, SystemClock()).audit("billing")
        assert audit.balanced, audit
        assert "moved" in trial.said(worker)


async def _positions(trial: Trial) -> dict[int, int]:
    async with trial.log() as log:
        return {each.partition: each.position for each in await log.partitions("billing")}


def _move(cluster: Cluster, to: dict[int, int]) -> None:
    """As `kafka-consumer-groups --reset-offsets` does."""
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    places = [TopicPartition(orders.name, partition, offset) for partition, offset in to.items()]
    for future in admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions("billing", places)]).values():
        future.result(_ANSWER_SECONDS)


def _offset(entry: Entry) -> int:
    return int(entry.fields[4])


def _unflawed(trial: Trial, partition: int) -> set[int]:
    """The offsets of a partition's orders that a handler ends well with."""
    found = set()
    for entry in trial.journal(trial.publishers[0], "ack"):
        customer, number, _, at, offset = entry.fields
        if int(at) == partition and trial.plan.mood(customer, int(number)) != "thrown":
            found.add(int(offset))
    return found
