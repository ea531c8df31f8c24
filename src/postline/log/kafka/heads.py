"""`Heads`: the first records of many partitions at once, by one client that is kept."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from typing import TypeAlias

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from postline.log.kafka.cluster import CONNECTED, Cluster
from postline.log.kafka.reading import READING_GROUP
from postline.log.kafka.wire import is_gap, record_of
from postline.log.port import Place, Record

__all__ = ["Heads"]

_GREETING_SECONDS = 2.0
#: Whoever is not told by then is asked for by itself.
_ANSWER_SECONDS = 1.0
_POLL_SECONDS = 0.02
_MESSAGES_AT_ONCE = 100
#: A partition that has given so many is let go of: else others come behind all that was fetched of it.
_SURPLUS_MAX = 30
_SETTINGS = {
    "group.id": READING_GROUP,
    "auto.offset.reset": "earliest",
    "enable.partition.eof": "true",
    "fetch.wait.max.ms": "10",
    "fetch.error.backoff.ms": "20",
    # One answer has all partitions, but for those whose next batch is larger than this: each of them takes one more.
    "fetch.message.max.bytes": str(512 << 10),
    "queued.min.messages": "1",
    "fetch.queue.backoff.ms": "5",
    **CONNECTED,
}

_Partition: TypeAlias = tuple[str, int]


class Heads:
    """Reads one record of each of many partitions: a hundred in ten milliseconds. Blocking; thread-safe."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lock = threading.Lock()
        self._reader: Consumer | None = None
        self._closed = False

    def close(self) -> None:
        """Let go of the client."""
        with self._lock:
            self._closed = True
            self._let_go()

    def _let_go(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def first(self, places: Sequence[Place]) -> dict[Place, Record]:
        """The first committed record at or above each place; those that are not to be had at once are left out."""
        wanted: dict[_Partition, list[int]] = defaultdict(list)
        for topic, partition, offset in places:
            wanted[topic, partition].append(offset)
        found: dict[Place, Record] = {}
        with self._lock:
            while wanted:
                lowest = {partition: min(offsets) for partition, offsets in wanted.items()}
                records = self._read(lowest)
                wanted = _taken(wanted, lowest, records, found)
        return found

    def _read(self, places: dict[_Partition, int]) -> dict[_Partition, Record]:
        if self._closed:
            raise self._cluster.closed()
        reader, found = self._lent(), dict[_Partition, Record]()
        try:
            reader.assign([TopicPartition(*partition, offset) for partition, offset in places.items()])
            self._collect(reader, places, found)
            reader.unassign()
        except KafkaException:  # whoever is missing is asked for by itself, and says what it is
            self._let_go()
        return found

    def _collect(self, reader: Consumer, places: dict[_Partition, int], found: dict[_Partition, Record]) -> None:
        left, seen, clock = set(places), Counter[_Partition](), self._cluster.clock
        until = clock.monotonic() + _ANSWER_SECONDS
        while left and clock.monotonic() < until and not self._cluster.stopping.is_set():
            for message in reader.consume(_MESSAGES_AT_ONCE, _POLL_SECONDS):
                partition = _partition_of(message)
                if message.error() is not None:  # the end, most of the time
                    left.discard(partition)
                    continue
                seen[partition] += 1
                if partition in left and not is_gap(record := record_of(message)) and record[0] >= places[partition]:
                    found[partition] = record
                    left.discard(partition)
            if left and (full := [each for each in seen if seen[each] > _SURPLUS_MAX and each not in left]):
                reader.incremental_unassign([TopicPartition(*each) for each in full])
                for each in full:
                    seen[each] = -(1 << 60)  # once is enough

    def _lent(self) -> Consumer:
        if self._reader is None:
            self._reader = self._cluster.outsider(_SETTINGS)
            with suppress(KafkaException):  # one that has not heard of a topic looks for it once a second
                self._reader.list_topics(timeout=_GREETING_SECONDS)
        return self._reader


def _partition_of(message: Message) -> _Partition:
    return message.topic() or "", message.partition() or 0


def _taken(
    wanted: dict[_Partition, list[int]],
    lowest: dict[_Partition, int],
    records: dict[_Partition, Record],
    found: dict[Place, Record],
) -> dict[_Partition, list[int]]:
    """Note records as the first ones of all places between them and where they were looked for; gives what is left."""
    left: dict[_Partition, list[int]] = {}
    for partition, offsets in wanted.items():
        record = records.get(partition)
        if record is None:
            continue
        reached = [offset for offset in offsets if offset <= record[0]] or [lowest[partition]]
        found.update({Place(*partition, offset): record for offset in reached})
        if rest := [offset for offset in offsets if offset > record[0]]:
            left[partition] = rest
    return left
