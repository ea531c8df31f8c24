"""`Transactions`: one transactional id, and one transaction after another under it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote, unquote

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from postline.errors import LogUnavailable
from postline.log.kafka.calling import Calling
from postline.log.kafka.cluster import Cluster
from postline.log.kafka.translation import translated
from postline.log.kafka.wire import written
from postline.log.port import Append
from postline.logs.events import event

__all__ = [
    "UNTOLD",
    "Aborted",
    "Died",
    "Outgoing",
    "Place",
    "Positions",
    "Transactions",
    "end_left_open",
    "failure_of",
    "unknown_outcome",
]

_log = logging.getLogger("postline.log.kafka")

_STEP_SECONDS = 1.0
#: A step that was given a second, and takes so long, never returns.
_STUCK_SECONDS = 8.0
_SETTLE_SECONDS = 0.2
_PAUSE_SECONDS, _PAUSE_SECONDS_MAX = 0.002, 0.5
_AT_ONCE = 8
_TIMES = frozenset({KafkaError._TIMED_OUT, KafkaError._MSG_TIMED_OUT, KafkaError.REQUEST_TIMED_OUT})
_TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
_STALE_GROUP = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.FENCED_MEMBER_EPOCH,
    }
)
#: Answers of brokers that are starting, moving a leader or a coordinator: the same again will do.
_PASSING = frozenset(
    {
        KafkaError._TIMED_OUT,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.CONCURRENT_TRANSACTIONS,
        KafkaError._IN_PROGRESS,
        KafkaError._CONFLICT,
    }
)


#: In place of an offset that the broker did not tell: a repetition found the record stored already.
UNTOLD = -1

#: A topic and a partition of it.
Place: TypeAlias = tuple[str, int]

#: The offsets to commit, with their metadata, and the group's metadata that they are committed under.
Positions: TypeAlias = tuple[Sequence[TopicPartition], Any]


class Outgoing(NamedTuple):
    """A record on its way to the cluster; `told` asks for its offset."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Any = None
    told: bool = False

    @staticmethod
    def of(append: Append, *, told: bool = False) -> Outgoing:
        """The record that the port's append is."""
        headers, value = written(append)
        return Outgoing(append.topic, append.partition, append.key, value, headers, told)


class Aborted(Exception):
    """The transaction was rolled back: nothing of it is stored. `stale_group` says that the membership moved on."""

    def __init__(self, error: KafkaError) -> None:
        super().__init__(error.str())
        self.error = error
        self.stale_group = error.code() in _STALE_GROUP
        #: The same may well succeed when it is tried again.
        self.passing = error.retriable() or error.code() in _TIMES


class Died(Exception):
    """The producer is dead. Whether the transaction is stored is unknown if `committing`; else nothing of it is."""

    def __init__(self, error: KafkaError, *, committing: bool) -> None:
        super().__init__(error.str())
        self.error, self.committing = error, committing


class Transactions:
    """Runs transactions under one id. Blocking; to be used by one thread at a time.

    `run` ends in one of three ways: all of it is stored; `Aborted`, nothing is; or `Died`, the outcome may be unknown
    and the next call begins with a new producer, whose initialization settles whatever the old one left open.
    """

    def __init__(self, cluster: Cluster, transactional_id: str, *, marked: bool = False, seconds: float = 0) -> None:
        self.id = transactional_id
        self._cluster = cluster
        #: Names the id to whoever takes this process's slot after it.
        self._mark = cluster.marks / quote(transactional_id, safe="") if marked else None
        self._producer: Producer | None = None
        self._calling: Calling | None = None
        self._singly = False
        #: How long a step may take before the producer is given up; 0: twice as long as a transaction may.
        self._seconds = seconds
        #: The time that the records of the last attempt bear, in milliseconds since 1970.
        self.stamped_ms = 0

    def open(self) -> None:
        """Have a producer, ending what an earlier user of the id left open. Raises our errors."""
        if self._producer is None:
            if self._mark is not None:
                self._mark.touch()
            producer = self._cluster.transactional_producer(self.id, singly=self._singly)
            with self._cluster.asking(f"begin transactions as {self.id}"):
                self._until_done(producer.init_transactions)
            self._producer = producer

    def close(self) -> None:
        """Let go of the producer, between two transactions."""
        self._producer = None
        if self._mark is not None:
            self._mark.unlink(missing_ok=True)

    def run(self, outgoing: Sequence[Outgoing], positions: Positions | None = None) -> dict[Place, list[int]]:
        """Produce all of these and commit these positions with them; gives the offsets of what asked, in order."""
        try:
            return self._attempt(outgoing, positions)
        except Aborted as error:
            if self._singly or len(outgoing) < 2 or error.error.code() not in _TOO_LARGE:
                raise
        # The broker measures what the client library packs together; from now on it packs nothing together.
        self._singly, self._producer = True, None
        return self._attempt(outgoing, positions)

    def _attempt(self, outgoing: Sequence[Outgoing], positions: Positions | None) -> dict[Place, list[int]]:
        self.open()
        producer = self._producer
        assert producer is not None
        placed: dict[Place, list[int]] = {}
        committing = False

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                placed.setdefault((message.topic(), message.partition()), []).append(_offset_of(message))  # type: ignore[arg-type]

        try:
            producer.begin_transaction()
            self.stamped_ms = self._cluster.clock.now_ms()
            for each in outgoing:
                _produce(producer, each, self.stamped_ms, delivered if each.told else None)
            if positions is not None:
                offsets, group = positions
                self._until_done(lambda seconds: producer.send_offsets_to_transaction(list(offsets), group, seconds))
            committing = True
            self._until_done(producer.commit_transaction)
        except KafkaException as error:
            self._rolled_back(producer, _first_cause(producer, error), committing)
        except BaseException:
            self._producer = None
            raise
        return placed

    def _rolled_back(self, producer: Producer, error: KafkaException, committing: bool) -> None:
        """Abort what failed and raise how it ended.

        Records that the broker may have stored without our hearing of it are purged by the abort, and the client
        library gives their sequence numbers to the next ones: as many of these are then taken for repetitions of the
        aborted ones and dropped, and the next transaction commits without them. So a producer goes on after an abort
        only if nothing was under way; a new one has another epoch and counts anew.
        """
        told: KafkaError = error.args[0]
        settled = told.code() in _STALE_GROUP and producer.flush(_SETTLE_SECONDS) == 0
        if self._producer is not None and not told.fatal():
            try:
                self._until_done(producer.abort_transaction)
            except KafkaException as another:
                told = another.args[0]
            else:
                self._producer = producer if settled else None
                raise Aborted(told) from error
        _log.info(
            "the producer %s ended: %s", self.id, told.str(), extra=event("kafka.producer_ended", producer=self.id)
        )
        self._producer = None
        raise Died(told, committing=committing) from error

    def _call(self, work: Callable[[], Any], seconds: float) -> None:
        calling = self._calling = self._calling or Calling(f"postline kafka {self.id}")
        calling.call(work, seconds)

    def _until_done(self, step: Callable[[float], Any]) -> None:
        until = self._cluster.clock.monotonic() + (self._seconds or 2 * self._cluster.options.transaction_seconds)
        pause_seconds = _PAUSE_SECONDS
        while True:
            try:
                self._call(lambda: step(_STEP_SECONDS), _STUCK_SECONDS)
                return
            except TimeoutError as error:
                _log.error(
                    "the producer %s does not return from a call, and is given up for a new one",
                    self.id,
                    extra=event("kafka.producer_hangs", producer=self.id),
                )
                self._producer = self._calling = None
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "a call did not return")) from error
            except KafkaException as error:
                told: KafkaError = error.args[0]
                if told.fatal() or told.txn_requires_abort() or not (told.retriable() or told.code() in _PASSING):
                    raise
                if self._cluster.clock.monotonic() > until:
                    # By now its time limit has ended the transaction; a client that doesn't find back is replaced.
                    self._producer = None
                    raise
            # Some answers come at once, and a cluster in trouble must not be asked by everybody in a loop.
            if self._cluster.stopping.wait(pause_seconds):
                self._producer = None
                raise self._cluster.closed()
            pause_seconds = min(2 * pause_seconds, _PAUSE_SECONDS_MAX)


def _offset_of(message: Message) -> int:
    offset = message.offset()
    return UNTOLD if offset is None else offset


def _first_cause(producer: Producer, error: KafkaException) -> KafkaException:
    """What made the transaction fail, where `error` says only that it did: a delivery, while others were produced."""
    if error.args[0].code() != KafkaError._STATE:
        return error
    try:
        producer.begin_transaction()  # impossible now, and refused with the reason
    except KafkaException as refusal:
        return refusal if refusal.args[0].code() != KafkaError._STATE else error
    return error


def _produce(producer: Producer, each: Outgoing, now_ms: int, delivered: Callable[..., None] | None) -> None:
    while True:
        try:
            producer.produce(
                each.topic,
                value=each.value,
                key=each.key,
                partition=each.partition,
                timestamp=now_ms,
                headers=each.headers,
                **({"on_delivery": delivered} if delivered is not None else {}),
            )
            return
        except BufferError:
            producer.poll(0.05)


def failure_of(end: Aborted | Died, doing: str, address: str) -> Exception:
    """What to tell a caller about a transaction that could not be made."""
    return translated(end.error, doing, address)


def unknown_outcome(address: str) -> LogUnavailable:
    """What to tell a caller whose transaction may or may not be stored, when nobody was there to be asked."""
    return LogUnavailable(
        f"{address} did not say whether the records are stored.", remedy="Publish them again with the same ids."
    )


def end_left_open(cluster: Cluster) -> None:
    """End the transactions that the last holder of this process's slot left open when it died: readers wait for them.

    Blocking; before this process has transactions of its own.
    """
    marks = list(cluster.marks.iterdir()) if cluster.has_been_here() else []
    if marks:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="postline kafka ending") as threads:
            list(threads.map(lambda mark: Transactions(cluster, unquote(mark.name)).open(), marks))
        for mark in marks:
            mark.unlink(missing_ok=True)
