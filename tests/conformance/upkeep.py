"""Retention and compaction of a real cluster, brought about at once instead of in the brokers' own time.

Brokers know nothing of a test's clock that jumps, and touch only segments that nobody writes to any more. So retention
is done by deleting what the topic's settings would have had deleted at the test's time, and compaction by the brokers'
own cleaner: with settings that make it eager, and a transaction that is rolled back to begin a new segment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from postline.clock import SystemClock
from postline.log.kafka.topics import settings_of
from postline.log.port import Log, Record, TopicSpec
from tests.conformance.harness import Unsupported

__all__ = ["Upkeep"]

_PATIENCE_SECONDS = 20.0
_ROLL_SECONDS = 1.0
_EAGER = {"segment.ms": "1", "min.cleanable.dirty.ratio": "0.0001", "delete.retention.ms": "0"}


class Upkeep:
    """Retention and compaction of all topics of one cluster."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._admin = AdminClient({"bootstrap.servers": bootstrap})
        #: Topics whose tombstones brokers keep by their own clock.
        self._kept: set[str] = set()

    async def run(self, log: Log, now_ms: int, ahead_ms: int) -> None:
        """Do what is due at `now_ms`, which is `ahead_ms` ahead of the machine's time."""
        for spec in await log.topics():
            if not spec.owner:
                continue
            if spec.compacted:
                await self._compact(log, spec, ahead_ms)
            else:
                await self._retain(log, spec, now_ms)

    # -- retention ----------------------------------------------------------------------------

    async def _retain(self, log: Log, spec: TopicSpec, now_ms: int) -> None:
        for partition, bounds in enumerate(await log.bounds(spec.name)):
            cut = bounds.start
            if spec.retention_ms is not None:
                cut = await log.offset_at(spec.name, partition, now_ms - spec.retention_ms)
            if spec.retention_bytes is not None:
                cut = max(cut, _within(await _all(log, spec.name, partition), spec.retention_bytes, bounds.end))
            if cut > bounds.start:
                for answer in self._admin.delete_records([TopicPartition(spec.name, partition, cut)]).values():
                    answer.result(20)

    # -- compaction ---------------------------------------------------------------------------

    async def _compact(self, log: Log, spec: TopicSpec, ahead_ms: int) -> None:
        if spec.compact_after_ms > ahead_ms:
            return
        expired = spec.tombstone_ms <= ahead_ms
        if expired and spec.name in self._kept:
            raise Unsupported("brokers count how long a tombstone is kept by their own clock")
        self._set(spec.name, {**_EAGER, "min.compaction.lag.ms": "0"} if expired else _patient(spec))
        until = SystemClock().monotonic() + _PATIENCE_SECONDS
        while not await self._is_compact(log, spec, expired):
            assert SystemClock().monotonic() < until, f"the brokers did not compact {spec.name}"
            await asyncio.to_thread(self._roll, spec.name, spec.partitions)
            rolled = SystemClock().monotonic()
            while SystemClock().monotonic() - rolled < _ROLL_SECONDS and not await self._is_compact(log, spec, expired):
                await SystemClock().sleep(0.1)
        if not expired:
            self._kept.add(spec.name)
        self._set(spec.name, settings_of(spec))

    async def _is_compact(self, log: Log, spec: TopicSpec, expired: bool) -> bool:
        for partition in range(spec.partitions):
            records = await _all(log, spec.name, partition)
            keys = [record[2] for record in records]
            if len(keys) != len(set(keys)) or (expired and any(record[4] is None for record in records)):
                return False
        return True

    def _roll(self, topic: str, partitions: int) -> None:
        """Begin new segments by records that nobody will ever read."""
        producer = Producer({"bootstrap.servers": self._bootstrap, "transactional.id": f"upkeep-{topic}"})
        producer.list_topics(timeout=20)
        producer.init_transactions(20)
        producer.begin_transaction()
        for partition in range(partitions):
            producer.produce(topic, key=b"\0roll", value=b"", partition=partition)
        producer.flush(20)
        producer.abort_transaction(20)

    def _set(self, topic: str, settings: Mapping[str, str]) -> None:
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in settings.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
        self._admin.incremental_alter_configs([resource])[resource].result(20)


def _patient(spec: TopicSpec) -> dict[str, str]:
    return {**_EAGER, "min.compaction.lag.ms": "0", "delete.retention.ms": str(spec.tombstone_ms)}


async def _all(log: Log, topic: str, partition: int) -> list[Record]:
    found: list[Record] = []
    offset = 0
    while page := await log.read(topic, partition, offset):
        found += page
        offset = page[-1][0] + 1
    return found


def _within(records: Sequence[Record], size: int, end: int) -> int:
    """The first offset of the newest records that take no more than `size` together."""
    first = end
    for record in reversed(records):
        size -= len(record[4] or b"")
        if size < 0:
            break
        first = record[0]
    return first
