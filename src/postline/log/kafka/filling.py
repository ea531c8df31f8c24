"""`Filler`: writes records at the offsets that they have elsewhere, by a producer without transactions.

Brokers give offsets one after another, so that a record lands where it shall if exactly as many stand before it: gaps
become gap records. Whether it did is told by the delivery of a batch's last record.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from postline.errors import TopicMismatch
from postline.log.kafka.cluster import Cluster
from postline.log.kafka.topics import Topics
from postline.log.kafka.translation import translated
from postline.log.kafka.wire import GAP_HEADERS, written
from postline.log.port import Append, Record
from postline.log.transfer import Batch, differs

__all__ = ["FORM", "Filler", "as_written"]

#: What envelopes are packed as here: headers.
FORM = "kafka"
#: An end that stands still for so long moves no more: nothing of a dead migration is under way.
_STILL_SECONDS = 1.0
_LOOK_SECONDS = 0.2
_POLL_SECONDS = 0.05
_FILLED_AT_ONCE = 50_000
_DELIVERY_MS = 300_000
_SETTINGS = {"linger.ms": "5", "batch.size": str(1 << 20), "queue.buffering.max.messages": "200000"}
#: A record that fails takes all behind it along, so that none lands in its place.
_FIXED = {
    "enable.idempotence": "true",
    "enable.gapless.guarantee": "true",
    "acks": "all",
    "delivery.timeout.ms": str(_DELIVERY_MS),
}


def as_written(record: Record, batch: Batch) -> tuple[Any, bytes | None]:
    """Headers and value of the record as Kafka carries it."""
    if batch.form == FORM:
        return record[6], record[4]
    topic, partition = batch.topic, batch.partition
    return written(Append(topic, partition, record[2], record[4], batch.envelope(record), record[5]))


class Filler:
    """Fills partitions that nobody else writes to. Blocking; one call at a time."""

    def __init__(self, cluster: Cluster, topics: Topics) -> None:
        self._cluster, self._topics = cluster, topics
        self._producer: Producer | None = None
        self._calling = threading.Lock()
        #: Where partitions ended when they were looked at, and when that was.
        self._seen: dict[tuple[str, int], tuple[int, float]] = {}
        #: Where partitions end, as far as this has looked or written.
        self._ends: dict[tuple[str, int], int] = {}

    def watch(self, topics: Sequence[str]) -> None:
        """Look where these topics end now: what stands there a second later stands for good."""
        for topic in topics:
            now = self._cluster.clock.monotonic()
            for partition, bounds in enumerate(self._topics.bounds(topic)):
                self._seen[topic, partition] = (bounds.end, now)

    def _end(self, topic: str, partition: int) -> int:
        """Where the partition ends, for sure: what a dead migration had under way has arrived."""
        place = (topic, partition)
        if place not in self._ends:
            clock = self._cluster.clock
            found = self._topics.end(topic, partition)
            seen, since = self._seen.get(place, (found, clock.monotonic()))
            # A partition that nobody has written to has nobody's batches under way.
            while found and (found != seen or clock.monotonic() - since < _STILL_SECONDS):
                if found != seen:
                    seen, since = found, clock.monotonic()
                if self._cluster.stopping.wait(_LOOK_SECONDS):
                    raise self._cluster.closed()
                found = self._topics.end(topic, partition)
            self._ends[place] = found
        return self._ends[place]

    def begin(self, topic: str, partition: int, start: int) -> None:
        """Have an empty partition begin at `start`."""
        if self._end(topic, partition) or not start:
            return
        for first in range(0, start, _FILLED_AT_ONCE):
            count = min(_FILLED_AT_ONCE, start - first)
            # Deleted as soon as they are there, they need not say what they are.
            self._deliver(topic, partition, first + count, ({} for _ in range(count)))
        self._topics.trim(topic, partition, start)

    def write(self, batch: Batch) -> None:
        """Write the batch. Raises TopicMismatch where the partition ends elsewhere, or others write to it."""
        there = self._end(batch.topic, batch.partition)
        if there != batch.first:
            raise self._differs(batch.topic, batch.partition, batch.first, there)
        self._deliver(batch.topic, batch.partition, batch.end, _dense(batch))

    def _deliver(self, topic: str, partition: int, end: int, messages: Iterator[dict[str, Any]]) -> None:
        """Produce all of them and wait until they are stored, the last one right before `end`."""
        with self._calling:
            self._ends.pop((topic, partition), None)
            try:
                last = self._produce(topic, partition, messages)
            except BaseException:
                self._producer = None
                raise
            if last + 1 != end:
                raise self._differs(topic, partition, end, last + 1)
            self._ends[topic, partition] = end

    def _produce(self, topic: str, partition: int, messages: Iterator[dict[str, Any]]) -> int:
        producer = self._started()
        told: list[int] = []
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                failures.append(error)
            else:
                told.append(message.offset() or 0)

        held: dict[str, Any] = next(messages)
        for each in messages:
            _produce(producer, topic, partition, held)
            held = each
        _produce(producer, topic, partition, {**held, "on_delivery": delivered})
        while not told and not failures:
            producer.poll(_POLL_SECONDS)
            if self._cluster.stopping.is_set():
                raise self._cluster.closed()
        if failures:
            raise translated(failures[0], f"fill topic {topic}", self._cluster.address)
        return told[0]

    def _started(self) -> Producer:
        if self._producer is None:
            self._producer = self._cluster.producer(_SETTINGS, _FIXED)
        return self._producer

    @staticmethod
    def _differs(topic: str, partition: int, expected: int, there: int) -> TopicMismatch:
        return TopicMismatch(
            differs(topic, partition, expected, there), remedy="`postline migrate … --abandon` empties it again."
        )


def _dense(batch: Batch) -> Iterator[dict[str, Any]]:
    """The batch's records with gap records between them."""
    at, last_ms = batch.first, 1
    for record in batch.records:
        offset, last_ms = record[0], record[1] or 1
        for _ in range(at, offset):
            yield {"headers": GAP_HEADERS, "timestamp": last_ms}
        headers, value = as_written(record, batch)
        yield {"value": value, "key": record[2], "headers": headers, "timestamp": last_ms}
        at = offset + 1
    for _ in range(at, batch.end):
        yield {"headers": GAP_HEADERS, "timestamp": last_ms}


def _produce(producer: Producer, topic: str, partition: int, message: dict[str, Any]) -> None:
    while True:
        try:
            producer.produce(topic, partition=partition, **message)
            return
        except BufferError:
            producer.poll(_POLL_SECONDS)
