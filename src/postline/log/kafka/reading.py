"""Reading partitions outside any group: pages for operators, records at offsets, and whole changelogs."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from postline.errors import LogUnavailable
from postline.log.kafka.cluster import Cluster
from postline.log.kafka.topics import Topics
from postline.log.kafka.wire import is_gap, record_of, size_of
from postline.log.port import Record

__all__ = ["READING_GROUP", "STABLE_SECONDS", "Readers", "held_back"]

_IDLE_MAX = 4
_METADATA_SECONDS = 5.0
_OVERTAKEN_SECONDS = 1.0
_POLL_SECONDS = 0.02
_PAGE_RECORDS = 2_000
#: How long the end of a transaction may take to reach its partitions, beyond its own time.
STABLE_SECONDS = 10.0
_ANSWER_SECONDS = 30.0
#: Offsets that lie nearer to each other are read in one go.
_NEAR = 2_000
#: A consumer has to name a group, although these never join one.
READING_GROUP = "postline.reading"
_SETTINGS = {
    "group.id": READING_GROUP,
    "auto.offset.reset": "earliest",
    "fetch.wait.max.ms": "10",
    "fetch.error.backoff.ms": "20",
    # Else who reads on for long waits a second each time that so much lies ready.
    "fetch.queue.backoff.ms": "5",
    "queued.min.messages": "5000",
    "queued.max.messages.kbytes": "8192",
}


class _Reader(NamedTuple):
    consumer: Consumer
    #: Those whose brokers it knows.
    topics: set[str]


class Readers:
    """A few consumers without a group, lent to whoever has something to read. Blocking; thread-safe."""

    def __init__(self, cluster: Cluster, topics: Topics) -> None:
        self._cluster, self._topics = cluster, topics
        self._idle: queue.SimpleQueue[_Reader] = queue.SimpleQueue()

    def close(self) -> None:
        """Let go of the consumers that nobody uses."""
        while not self._idle.empty():
            self._idle.get().consumer.close()

    @contextmanager
    def _lent(self) -> Iterator[_Reader]:
        try:
            reader = self._idle.get_nowait()
        except queue.Empty:
            reader = _Reader(self._cluster.outsider(_SETTINGS), set())
        sound = False
        try:
            yield reader
            sound = True
        except GeneratorExit:
            sound = True  # whoever reads has enough
            raise
        finally:
            if sound and self._idle.qsize() < _IDLE_MAX and not self._cluster.stopping.is_set():
                reader.consumer.unassign()
                self._idle.put(reader)
            else:
                reader.consumer.close()

    def stream(self, topic: str, partition: int, offset: int, end: int) -> Iterator[list[Message]]:
        """The committed messages from `offset` up to `end`, a batch at a time.

        Gives an empty batch a few dozen times a second while it waits, for an open transaction say: the caller decides
        how long that may go on. Ends early only when the log closes, with LogUnavailable.
        """
        at = max(offset, self._topics.start(topic, partition))
        if at >= end:
            return
        place = TopicPartition(topic, partition, at)
        clock, looked = self._cluster.clock, self._cluster.clock.monotonic()
        with self._lent() as reader, self._cluster.asking(f"read topic {topic}"):
            consumer = reader.consumer
            if topic not in reader.topics:  # a client that has never heard of a topic looks for it once a second
                with suppress(KafkaException):  # later, then
                    consumer.list_topics(topic, timeout=_METADATA_SECONDS)
                    reader.topics.add(topic)
            consumer.assign([place])
            while at < end:
                if self._cluster.stopping.is_set():
                    raise self._cluster.closed()
                messages = self._some(consumer)
                yield messages
                at = max(at, (messages[-1].offset() or 0) + 1 if messages else 0, consumer.position([place])[0].offset)
                if not messages and at < end and clock.monotonic() - looked > _OVERTAKEN_SECONDS:
                    # Retention may take what is still to be read, and the client library says nothing of it.
                    at, looked = max(at, self._topics.start(topic, partition)), clock.monotonic()

    @staticmethod
    def _some(consumer: Consumer) -> list[Message]:
        first = consumer.poll(_POLL_SECONDS)
        if first is None:
            return []
        found = [first, *consumer.consume(_PAGE_RECORDS, 0)]
        for message in found:
            error = message.error()
            if error is not None and not error.retriable() and error.code() != KafkaError._ALL_BROKERS_DOWN:
                raise KafkaException(error)
        return [message for message in found if message.error() is None]

    def read(self, topic: str, partition: int, offset: int, limit: int, max_bytes: int) -> list[Record]:
        """Records from `offset` on, at most `limit`, at least one if there is any.

        What stands behind somebody's open transaction is waited for as long as one of ours may take. Raises
        UnknownTopic, and LogUnavailable where what is there can't be had: an empty page always is the end.
        """
        if partition >= self._topics.partitions(topic):
            raise self._topics.unknown(topic)
        clock = self._cluster.clock
        waited_until = clock.monotonic() + STABLE_SECONDS + self._cluster.options.transaction_seconds
        while True:
            stable = self._topics.stable_end(topic, partition)
            if stable > offset and (found := self._page(topic, partition, offset, stable, (limit, max_bytes))):
                return found
            offset = max(offset, stable)
            if offset >= self._topics.end(topic, partition):
                return []
            if clock.monotonic() > waited_until:
                raise held_back(self._cluster.address, offset, topic, partition)
            if self._cluster.stopping.wait(_POLL_SECONDS):
                raise self._cluster.closed()

    def _page(self, topic: str, partition: int, offset: int, end: int, sizes: tuple[int, int]) -> list[Record]:
        """The first records between two offsets, all of whose transactions have ended; none if there are only gaps."""
        found: list[Record] = []
        limit, max_bytes = sizes
        size, given_up = 0, self._cluster.clock.monotonic() + _ANSWER_SECONDS
        for messages in self.stream(topic, partition, offset, end):
            for message in messages:
                record = record_of(message)
                if record[0] < offset or is_gap(record):
                    continue
                size += size_of(record)
                if found and size > max_bytes:
                    return found
                found.append(record)
                if len(found) >= limit:
                    return found
            if found and not messages:
                return found
            if self._cluster.clock.monotonic() > given_up:
                raise LogUnavailable(
                    f"{self._cluster.address} did not give the records of {topic} partition {partition} in time.",
                    remedy="Try again; look at the brokers.",
                )
        return found

    def read_offsets(self, topic: str, partition: int, offsets: Sequence[int]) -> list[Record]:
        """The records at exactly these offsets that are still there, in offset order. Raises UnknownTopic."""
        if partition >= self._topics.partitions(topic):
            raise self._topics.unknown(topic)
        found: list[Record] = []
        wanted = sorted(set(offsets))
        end = self._topics.end(topic, partition) if wanted else 0
        for first, last in _runs(wanted):
            chosen = {offset for offset in wanted if first <= offset <= last}
            for messages in self.stream(topic, partition, first, min(last + 1, end)):
                some = [record_of(message) for message in messages if message.offset() in chosen]
                found += [record for record in some if not is_gap(record)]
                if messages and (messages[-1].offset() or 0) >= last:
                    break
        return found


def _runs(offsets: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Runs of offsets that are near each other, as first and last."""
    first = last = None
    for offset in offsets:
        if first is not None and last is not None and offset - last > _NEAR:
            yield first, last
            first = None
        if first is None:
            first = offset
        last = offset
    if first is not None and last is not None:
        yield first, last


def held_back(address: str, offset: int, topic: str, partition: int) -> LogUnavailable:
    """The refusal of records that somebody's open transaction keeps from being read."""
    return LogUnavailable(
        f"{address}: a transaction that is still open holds back what follows offset {offset} of {topic} partition "
        f"{partition}.",
        remedy="Try again later; `kafka-transactions.sh find-hanging` tells whose it is.",
    )
