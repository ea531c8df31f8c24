"""`KafkaTail`: one partition read on and on, outside any group, by a consumer and a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from postline.log.kafka.cluster import PASSING, Cluster
from postline.log.kafka.reading import READING_GROUP
from postline.log.kafka.topics import Topics
from postline.log.kafka.wire import is_gap, record_of, size_of
from postline.log.port import Record

__all__ = ["KafkaTail"]

#: How long a closing waits for the thread to look up.
_POLL_SECONDS = 0.1
_BATCH_RECORDS = 1_000
_METADATA_SECONDS = 5.0
_SETTINGS = {
    "group.id": READING_GROUP,
    "auto.offset.reset": "earliest",
    "fetch.wait.max.ms": "500",
    "fetch.error.backoff.ms": "20",
    "queued.max.messages.kbytes": "8192",
}


class KafkaTail:
    """Implements the port's `Tail`. What was consumed and not given yet waits here, also when `read` is cancelled."""

    def __init__(
        self, cluster: Cluster, topics: Topics, place: TopicPartition, closed: Callable[[KafkaTail], None]
    ) -> None:
        self._cluster, self._topics, self._place, self._closed = cluster, topics, place, closed
        self._doing = f"read topic {place.topic} on"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"postline kafka tail {place.topic}")
        self._consumer: Consumer | None = None
        self._ready: deque[Record] = deque()
        self._stop = threading.Event()

    async def read(self, *, limit: int, max_bytes: int, wait_seconds: float) -> list[Record]:
        """The next records, as soon as there are any; [] after `wait_seconds`. Raises LogError."""
        if not self._ready:
            if self._stop.is_set():
                raise self._cluster.closed()
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._fill, wait_seconds)
            except RuntimeError as error:  # the thread has ended meanwhile
                raise self._cluster.closed() from error
        return self._taken(limit, max_bytes)

    def _taken(self, limit: int, max_bytes: int) -> list[Record]:
        found: list[Record] = []
        size = 0
        while self._ready and len(found) < limit:
            size += size_of(self._ready[0])
            if found and size > max_bytes:
                break
            found.append(self._ready.popleft())
        return found

    async def close(self) -> None:
        """Let go of the consumer; whoever waits is told that the log is closed. Idempotent."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._closed(self)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._end)
        self._thread.shutdown(wait=False)

    # -- the thread ---------------------------------------------------------------------------

    def _fill(self, wait_seconds: float) -> None:
        """Consume until there is something, or so long."""
        clock = self._cluster.clock
        until = clock.monotonic() + wait_seconds
        while not self._ready:
            left = until - clock.monotonic()
            if self._stop.is_set() or self._cluster.stopping.is_set():
                raise self._cluster.closed()
            with self._cluster.asking(self._doing):
                self._consume(max(0.0, min(left, _POLL_SECONDS)))
            if left <= 0:
                return

    def _consume(self, seconds: float) -> None:
        consumer = self._consumer or self._opened()
        first = consumer.poll(seconds)
        if first is None:
            return
        found = (first, *consumer.consume(_BATCH_RECORDS, 0))
        # All that came beside an error first: it is not consumed again.
        records = [record_of(message) for message in found if message.error() is None]
        self._ready.extend(record for record in records if not is_gap(record))
        for message in found:
            self._require_passing(message.error())

    def _opened(self) -> Consumer:
        topic = self._place.topic
        if self._place.partition >= self._topics.partitions(topic):
            raise self._topics.unknown(topic)
        consumer = self._cluster.outsider(_SETTINGS)
        with suppress(KafkaException):  # one that has never heard of a topic looks for it once a second; then later
            consumer.list_topics(topic, timeout=_METADATA_SECONDS)
        consumer.assign([self._place])
        self._consumer = consumer
        return consumer

    def _require_passing(self, error: KafkaError | None) -> None:
        if error is None:
            return
        if error.code() not in PASSING and not error.retriable():
            raise KafkaException(error)
        self._cluster.note(error)

    def _end(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
