"""Plain publishing: single records through an idempotent producer, several at once as one transaction."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from queue import SimpleQueue
from typing import Any

from confluent_kafka import TIMESTAMP_CREATE_TIME, KafkaError, KafkaException, Message, Producer

from postline.errors import LogError, LogUnavailable, MessageTooLarge
from postline.log.kafka.cluster import Cluster
from postline.log.kafka.reading import Readers
from postline.log.kafka.topics import Topics
from postline.log.kafka.transactions import (
    UNTOLD,
    Aborted,
    Died,
    Outgoing,
    Place,
    Transactions,
    failure_of,
    unknown_outcome,
)
from postline.log.kafka.translation import translated
from postline.log.kafka.wire import headers_of, written
from postline.log.port import Append
from postline.logs.events import event

__all__ = ["Publisher"]

_log = logging.getLogger("postline.log.kafka")

_POLL_SECONDS = 0.2
_FULL_SECONDS = 0.01
#: How far back a record is looked for whose offset was not told.
_LOOKED_UP = 20_000
#: How far a broker's clock, where that stamps records, may be from ours.
_CLOCKS_APART_MS = 60_000
_AGAIN_SECONDS = 0.05
#: So many records of waiting calls go into one transaction.
_TOGETHER_RECORDS = 5_000


class Publisher:
    """Appends that belong to no commit. Its coroutines run on one event loop; two threads of its own serve them."""

    def __init__(self, cluster: Cluster, topics: Topics, readers: Readers) -> None:
        self._cluster, self._topics, self._readers = cluster, topics, readers
        self._producer: Producer | None = None
        self._poller: threading.Thread | None = None
        self._closing = threading.Event()
        self._starting = asyncio.Lock()
        self._waiting: set[asyncio.Future[int]] = set()
        self._sets = _Sets(cluster, self._offset_since)

    async def append(self, records: Sequence[Append]) -> list[int]:
        """Store all of them, or none, durably; gives their offsets, in order."""
        if not records:
            return []
        if self._closing.is_set():
            raise self._cluster.closed()
        await self._require_places(records)
        found = await self._sets.append(records) if len(records) > 1 else [await self._append_one(records[0])]
        if UNTOLD in found:
            return await self._cluster.run(self._looked_up, records, found)
        return found

    def _looked_up(self, records: Sequence[Append], offsets: Sequence[int]) -> list[int]:
        """The offsets with those that the broker did not tell: it had the record already when it was sent again."""
        return [
            self._offset_since(Outgoing.of(record), 0) if offset == UNTOLD else offset
            for record, offset in zip(records, offsets, strict=True)
        ]

    def _offset_since(self, wanted: Outgoing, stamped_ms: int) -> int:
        """The offset of a record of this id, and this time unless it is 0, among the last ones; else UNTOLD.

        Waits for other programs' open transactions, which may lie before it.
        """
        topic, partition = wanted.topic, wanted.partition
        end = self._topics.end(topic, partition)
        start = max(0, end - _LOOKED_UP)
        if stamped_ms:
            start = self._topics.offset_at(topic, partition, stamped_ms - _CLOCKS_APART_MS)
        found = UNTOLD
        for messages in self._readers.stream(topic, partition, start, end):
            for message in messages:
                if _id_in(headers_of(message)) == _id_in(wanted.headers) and _is_of(message, stamped_ms):
                    found = message.offset() or 0
        return found

    async def close(self) -> None:
        """Finish what was accepted, as far as the cluster answers in time. Idempotent."""
        if self._closing.is_set():
            return
        if self._waiting:
            await asyncio.wait(set(self._waiting), timeout=self._cluster.options.publish_seconds)
        self._closing.set()
        await self._sets.close()
        if self._poller is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._poller.join)
        self._producer = None

    async def _require_places(self, records: Sequence[Append]) -> None:
        """Raise UnknownTopic before anything is stored."""
        for record in records:
            known = self._topics.known(record.topic)
            if known is None or record.partition >= known:
                known = await self._cluster.run(self._partitions_now, record.topic)
            if record.partition >= known:
                raise self._topics.unknown(record.topic)

    def _partitions_now(self, topic: str) -> int:
        self._topics.forget(topic)
        return self._topics.partitions(topic)

    # -- single records -----------------------------------------------------------------------

    async def _append_one(self, record: Append) -> int:
        stored = _Delivery(self, record.topic)
        self._waiting.add(stored.future)
        try:
            await self._produce(record, stored)
            return await stored.future
        except MessageTooLarge:
            # The broker measures batches: alone it may well fit.
            return (await self._sets.append([record]))[0]
        finally:
            self._waiting.discard(stored.future)

    async def _produce(self, record: Append, stored: _Delivery) -> None:
        producer = self._producer or await self._started()
        (headers, value), now_ms = written(record), self._cluster.clock.now_ms()
        end: float | None = None
        while True:
            try:
                producer.produce(
                    record.topic,
                    value=value,
                    key=record.key,
                    partition=record.partition,
                    on_delivery=stored,
                    timestamp=now_ms,
                    headers=headers,
                )
                return
            except BufferError as error:
                end = end or self._cluster.clock.monotonic() + self._cluster.options.publish_seconds
                if self._cluster.clock.monotonic() > end:
                    raise LogUnavailable(
                        f"{self._cluster.address} takes no more records: as many as fit wait for it already.",
                        remedy="Publish again later with the same id; look at the brokers.",
                    ) from error
            except KafkaException as error:
                raise translated(error, f"append to topic {record.topic}", self._cluster.address) from error
            await self._cluster.clock.sleep(_FULL_SECONDS)

    async def _started(self) -> Producer:
        async with self._starting:
            if self._producer is None:
                producer = await self._cluster.run(self._cluster.plain_producer)
                self._deliveries = _Deliveries(asyncio.get_running_loop())
                self._poller = threading.Thread(
                    target=self._poll, args=(producer,), name="postline kafka deliveries", daemon=True
                )
                self._poller.start()
                self._producer = producer
            return self._producer

    def _poll(self, producer: Producer) -> None:
        while not self._closing.is_set():
            producer.poll(_POLL_SECONDS)
            self._deliveries.hand_over()
        producer.flush(_POLL_SECONDS)
        self._deliveries.hand_over()

    def note(self, stored: _Delivery) -> None:
        """A delivery report came; called by the polling thread."""
        self._deliveries.add(stored)

    def failure(self, error: KafkaError, topic: str) -> Exception:
        """What to tell the caller of an append that failed."""
        if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            self._topics.forget(topic)
        told = translated(error, f"append to topic {topic}", self._cluster.address)
        if isinstance(told, LogUnavailable):
            again = "Whether it is stored is unknown: publish it again with the same id."
            return LogUnavailable(told.message, remedy=f"{again} {told.remedy}")
        return told


def _id_in(headers: Any) -> tuple[Any, Any]:
    """Source and id among a record's headers: who published it, and as what."""
    told = dict(headers or ())
    return told.get("ce_source"), told.get("ce_id")


def _is_of(message: Message, stamped_ms: int) -> bool:
    kind, time_ms = message.timestamp()
    return not stamped_ms or kind != TIMESTAMP_CREATE_TIME or time_ms == stamped_ms


class _Deliveries:
    """Delivery reports on their way to the loop, all of a poll in one call."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._reported: list[_Delivery] = []

    def add(self, stored: _Delivery) -> None:
        self._reported.append(stored)

    def hand_over(self) -> None:
        if self._reported:
            reported, self._reported = self._reported, []
            try:
                self._loop.call_soon_threadsafe(_resolve, reported)
            except RuntimeError:
                _log.warning(
                    "%d delivery reports came after the event loop had ended",
                    len(reported),
                    extra=event("kafka.loop_ended"),
                )


def _resolve(reported: Sequence[_Delivery]) -> None:
    for stored in reported:
        stored.resolve()


class _Delivery:
    """One record under way; the client library calls it with the report."""

    __slots__ = ("_error", "_offset", "_publisher", "_topic", "future")

    def __init__(self, publisher: Publisher, topic: str) -> None:
        self.future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._publisher, self._topic = publisher, topic
        self._error: KafkaError | None = None
        self._offset = 0

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        self._error = error
        if error is None:
            offset = message.offset()
            self._offset = UNTOLD if offset is None else offset
        self._publisher.note(self)

    def resolve(self) -> None:
        if self.future.done():
            return
        if self._error is None:
            self.future.set_result(self._offset)
        else:
            self.future.set_exception(self._publisher.failure(self._error, self._topic))


class _Sets:
    """Appends of several records: each call's are stored wholly or not at all; calls that wait share a transaction."""

    def __init__(self, cluster: Cluster, offset_since: Callable[[Outgoing, int], int]) -> None:
        self._cluster = cluster
        #: Looks a record up that bears a time.
        self._offset_since = offset_since
        self._queue: SimpleQueue[_Set | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._transactions: Transactions | None = None

    async def append(self, records: Sequence[Append]) -> list[int]:
        loop = asyncio.get_running_loop()
        outgoing = [Outgoing.of(record, told=True) for record in records]
        until = self._cluster.clock.monotonic() + self._cluster.options.publish_seconds
        waiting = _Set(outgoing, loop, loop.create_future(), until)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="postline kafka sets", daemon=True)
            self._thread.start()
        self._queue.put(waiting)
        return await waiting.future

    async def close(self) -> None:
        if self._thread is not None:
            self._queue.put(None)
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            together, ending = [first], False
            while not self._queue.empty() and sum(len(each.outgoing) for each in together) < _TOGETHER_RECORDS:
                following = self._queue.get()
                if following is None:
                    ending = True
                    break
                together.append(following)
            self._store(together)
            if ending:
                break
        if self._transactions is not None:
            self._transactions.close()

    def _store(self, together: Sequence[_Set]) -> None:
        """Store these, again and again within their time; whoever waits hears how it ended."""
        until = min(each.until for each in together)
        transactions = self._transaction()
        while True:
            try:
                offsets = self._stored(transactions, [each for one in together for each in one.outgoing])
            except Exception as error:  # noqa: BLE001 - whoever waits must hear of it, and the thread go on
                refused, failure = error, error
                if isinstance(error, Aborted):
                    failure = failure_of(error, "append", self._cluster.address)
                elif isinstance(error, Died):
                    failure = self._not_taken(error)
            else:
                for one in together:
                    one.succeed(offsets)
                return
            again = isinstance(refused, Died) or (isinstance(refused, Aborted) and refused.passing)
            if not again or self._cluster.clock.monotonic() > until or self._cluster.stopping.wait(_AGAIN_SECONDS):
                break
        if len(together) > 1 and isinstance(refused, Aborted):  # one may be at fault; the others must not pay for it
            for one in together:
                self._store([one])
            return
        for one in together:
            one.fail(failure)

    def _not_taken(self, died: Died) -> LogUnavailable:
        """Producer after producer died. Being fenced is no more than that: the id is this process's alone."""
        options, address = self._cluster.options, self._cluster.address
        return LogUnavailable(
            f"{address} did not take the records within {options.publish_seconds:g} s, and stored none: {died}.",
            remedy="Publish them again with the same ids; if it stays so, look at the brokers' health.",
        )

    def _stored(self, transactions: Transactions, outgoing: Sequence[Outgoing]) -> Mapping[Place, Iterator[int]]:
        """Offsets by place, in order. Raises Aborted or Died with nothing stored, LogError where nobody can tell."""
        try:
            placed = transactions.run(outgoing)
        except Died as died:
            if not died.committing:
                raise
            if not self._is_stored(transactions, outgoing[0]):
                raise
            return defaultdict(lambda: repeat(UNTOLD))
        return {place: iter(found) for place, found in placed.items()}

    def _is_stored(self, transactions: Transactions, first: Outgoing) -> bool:
        """Whether a transaction of unknown outcome was stored after all, told by its first record.

        A new producer settles what the old one left open; the record's time tells it from an earlier one of its id.
        """
        if _id_in(first.headers)[1] is None:  # raw bytes without an envelope look all the same
            raise unknown_outcome(self._cluster.address)
        try:
            stamped_ms = transactions.stamped_ms
            transactions.open()
            return self._offset_since(first, stamped_ms) != UNTOLD
        except LogError as error:
            raise unknown_outcome(self._cluster.address) from error

    def _transaction(self) -> Transactions:
        if self._transactions is None:
            self._transactions = Transactions(
                self._cluster,
                self._cluster.transactional_id("publish"),
                marked=True,
                # Half of a call's time for a step, so that there is some left to find out how it ended.
                seconds=self._cluster.options.publish_seconds / 2,
            )
        return self._transactions


class _Set:
    """The records of one call, and who waits for them."""

    def __init__(
        self,
        outgoing: Sequence[Outgoing],
        loop: asyncio.AbstractEventLoop,
        future: asyncio.Future[list[int]],
        until: float,
    ) -> None:
        self.outgoing, self.future = outgoing, future
        #: Steady time after which it is not tried again.
        self.until = until
        self._loop = loop

    def succeed(self, offsets: Mapping[Place, Iterator[int]]) -> None:
        """Take this call's offsets off their partitions' rows."""
        found = [next(offsets[each.topic, each.partition]) for each in self.outgoing]
        self._tell(self.future.set_result, found)

    def fail(self, error: Exception) -> None:
        """Raise out of the call."""
        self._tell(self.future.set_exception, error)

    def _tell(self, tell: Any, what: object) -> None:
        def if_waiting() -> None:
            if not self.future.done():
                tell(what)

        try:
            self._loop.call_soon_threadsafe(if_waiting)
        except RuntimeError:
            _log.warning("an append ended after its event loop had", extra=event("kafka.loop_ended"))
