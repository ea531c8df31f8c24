"""The polling thread: the group's consumer, its callbacks, and consuming into the feed.

A consumer has to be polled at all times, or it loses its partitions; so it has a thread of its own, which slow or
blocking handlers can't hold up. Everything that touches the consumer happens in this thread. What the coordinator
assigns is consumed only once it has been taken up: the callback answers with an empty assignment, and partitions are
added later, each from its own position, and with the siblings that its owner follows.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from postline.errors import LogError
from postline.log.kafka.cluster import Cluster
from postline.log.kafka.feed import Cursor, Feed
from postline.log.kafka.ownership import Ownership
from postline.log.kafka.translation import translated
from postline.log.kafka.wire import is_gap, record_of
from postline.log.port import GAP_TYPE, Record
from postline.logs.events import event

__all__ = ["GroupConsumer", "GroupEvents", "Polling"]

_log = logging.getLogger("postline.log.kafka")

_POLL_SECONDS = 0.03
_BATCH_RECORDS = 4_000
_ROOM_SECONDS = 0.2
_OVERFILLED_MAX = 25
#: So many records of a paused place may lie ready: pausing throws away what the client library has prefetched.
_PAUSED_RECORDS_MAX = 500
_METADATA_SECONDS = 5.0
_ANEW_SECONDS = 1.0
#: A loop that has not run for so long is hung, not slow: the group may give its partitions to others.
_LOOP_SILENCE_SECONDS = 300.0
#: Trouble that passes, and that the client library deals with by itself.
_PASSING = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError._RESOLVE,
        KafkaError._MAX_POLL_EXCEEDED,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.FENCED_MEMBER_EPOCH,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    }
)


class GroupConsumer(NamedTuple):
    """A consumer that is to be a member of its group."""

    consumer: Consumer
    #: Whether by the classic group protocol.
    classic: bool


class GroupEvents(Protocol):
    """What the polling thread tells; called in that thread."""

    def assigned(self, partitions: Sequence[int]) -> None:
        """These are granted; returns at once."""

    def revoked(self, partitions: Sequence[int]) -> None:
        """These are to be given up: returns when that is done."""

    def lost(self, partitions: Sequence[int]) -> None:
        """These have, or will have, another owner."""

    def overtaken(self, cursor: Cursor) -> None:
        """The cursor's offset isn't there any more."""

    def failed(self, error: LogError) -> None:
        """The group can't be served any further."""


class Polling:
    """Owns the consumer of one membership from `start` to `stop`."""

    def __init__(
        self,
        cluster: Cluster,
        make: Callable[[], GroupConsumer],
        topic: str,
        parts: tuple[Feed, Ownership],
        events: GroupEvents,
    ) -> None:
        self._cluster, self._topic = cluster, topic
        self._make = make
        self._consumer, self.classic = make()
        self._feed, self._ownership = parts
        self._events = events
        self._cursors: dict[tuple[str, int], Cursor] = {}
        self._commands: SimpleQueue[Callable[[], None]] = SimpleQueue()
        #: The group's metadata as last read, not published yet.
        self._candidate: Any = None
        self._held_back = False
        #: Records taken one by one while the feed was full.
        self._overfilled = 0
        self._known_topics: set[str] = set()
        self._stop = threading.Event()
        #: Cleared to stand still, as a hung process does; for tests.
        self.going = threading.Event()
        self.going.set()
        self.heard_ms = cluster.clock.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"postline kafka poll {topic}", daemon=True)

    # -- for other threads --------------------------------------------------------------------

    def start(self) -> None:
        """Join the group."""
        self._subscribe()
        self._thread.start()

    def _subscribe(self) -> None:
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def stop(self) -> None:
        """Leave the group and end the thread; blocks until it has."""
        self._stop.set()
        self.going.set()
        if self._thread.is_alive():
            self._thread.join()

    def heard(self) -> None:
        """The event loop lives."""
        self.heard_ms = self._cluster.clock.monotonic()

    def consume(self, cursors: Sequence[Cursor]) -> None:
        """Consume these places from where their cursors begin; another cursor of a place is replaced."""
        self._commands.put(lambda: self._assign(cursors))

    def release(self, partitions: Sequence[int]) -> None:
        """Consume nothing more of these partitions."""
        self._commands.put(lambda: self._unassign(set(partitions)))

    def resume(self, topic: str, partition: int) -> None:
        """Consume on; a paused place is held back only once enough of it lies ready."""
        self._commands.put(lambda: self._set_paused([(topic, partition)], False))

    def rejoin(self) -> None:
        """Leave the group and join it again, with another client; what is owned is lost."""
        self._commands.put(lambda: self._begin_anew("its group stands still"))

    # -- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self.going.wait()
                self._obey()
                if self._cluster.clock.monotonic() - self.heard_ms > _LOOP_SILENCE_SECONDS:
                    self._stop.wait(_ROOM_SECONDS)
                    continue
                try:
                    self._serve()
                except KafkaException as error:
                    told: KafkaError = error.args[0]
                    if not told.fatal() and told.code() != KafkaError._FATAL:  # by an event it comes without the flag
                        raise
                    self._begin_anew(told.str())
        except KafkaException as error:
            self._events.failed(_as_log_error(error.args[0], self._topic, self._cluster))
        except LogError as error:
            self._events.failed(error)
        except Exception as error:  # noqa: BLE001 - a fault of ours ends what waits for this thread, or it waits for ever
            _log.exception(
                "the consumer of %s ended by a fault",
                self._topic,
                extra=event("kafka.consumer_fault", topic=self._topic),
            )
            self._events.failed(
                LogError(
                    f"The consumer of topic {self._topic} ended by a fault of Postline: {error!r}.",
                    remedy="Start again, and report it with the log of this process.",
                )
            )
        finally:
            self._close()

    def _begin_anew(self, why: str) -> None:
        """The client is dead, as after its group was forgotten by a coordinator that lost its memory: take another."""
        _log.error(
            "the consumer of %s ended and is made anew: %s",
            self._topic,
            why,
            extra=event("kafka.consumer_anew", topic=self._topic),
        )
        self._events.lost(list(self._ownership.granted))
        self._cursors.clear()
        self._candidate, self._held_back = None, False
        self._known_topics.clear()
        self._close()
        if not self._stop.wait(_ANEW_SECONDS):
            self._consumer, self.classic = self._make()
            self._subscribe()

    def _close(self) -> None:
        try:
            self._consumer.close()
        except (KafkaException, RuntimeError, SystemError) as error:
            # The last is what the client library makes of an error in a callback that it calls while it closes.
            _log.info(
                "the consumer of %s did not leave its group cleanly: %s",
                self._topic,
                error,
                extra=event("kafka.leave_failed", topic=self._topic),
            )

    def _obey(self) -> None:
        while True:
            try:
                command = self._commands.get_nowait()
            except Empty:
                return
            command()

    def _serve(self) -> None:
        room = self._has_room()
        first = self._consumer.poll(_POLL_SECONDS)
        messages = [] if first is None else [first]
        if first is not None and room:
            messages += self._consumer.consume(_BATCH_RECORDS, 0)
        consumed_all = room and len(messages) <= _BATCH_RECORDS
        self._look_at_group(seen_empty=first is None or consumed_all)
        if messages:
            self._hand_over(messages)
        self._pass_gaps()

    def _look_at_group(self, *, seen_empty: bool) -> None:
        """Publish the group's metadata for commits, but none that is ahead of what the callbacks have told.

        With the newer protocol the client library rejoins by itself after it was fenced, before the callback that says
        so is served: metadata of that moment would let a commit pass for partitions that are lost. The callback lies in
        the consumer's queue by then; so metadata counts once the queue was seen empty after it was read.
        """
        if seen_empty and self._candidate is not None:
            self._ownership.refresh(self._candidate)
        self._candidate = self._consumer.consumer_group_metadata()

    def _has_room(self) -> bool:
        """Whether to consume a batch; else one record at most, so that the group's callbacks are served.

        A feed that stays full is given a record now and then, for some seconds. After that, or when a commit waits for
        the group's metadata, consuming is paused, which throws away what the client library has prefetched.
        """
        if self._feed.wait_for_room(0 if self._held_back else _ROOM_SECONDS):
            if self._held_back:
                self._held_back = False
                self._set_paused([place for place, cursor in self._cursors.items() if not cursor.paused], False)
            self._overfilled = 0
            return True
        self._overfilled += 1
        if not self._held_back and (self._overfilled > _OVERFILLED_MAX or self._ownership.awaited):
            self._held_back = True
            self._set_paused(list(self._cursors), True)
        return False

    def _hand_over(self, messages: Sequence[Message]) -> None:
        batches: dict[tuple[str, int], list[Record]] = {}
        for message in messages:
            if message.error() is not None:
                self._trouble(message)
                continue
            place: Any = (message.topic(), message.partition())
            batch = batches.get(place)
            if batch is None:
                batch = batches[place] = []
            record = record_of(message)
            if record[3] != GAP_TYPE or not is_gap(record):
                batch.append(record)
        for place, records in batches.items():
            cursor = self._cursors.get(place)
            if cursor is None or not records:
                continue  # it was taken away while the client library filled this batch, or holds gap records alone
            fresh = records
            if records[0][0] < cursor.next_offset:
                fresh = [record for record in records if record[0] >= cursor.next_offset]
            if fresh:
                self._feed.put(cursor, fresh, fresh[-1][0] + 1)
            if cursor.paused and cursor.waiting > _PAUSED_RECORDS_MAX:
                self._set_paused([place], True)

    def _pass_gaps(self) -> None:
        """Offsets that hold no record (transactions' ends, aborted and compacted records) are passed, too."""
        if not self._cursors:
            return
        for at in self._consumer.position([TopicPartition(*place) for place in self._cursors]):
            cursor = self._cursors[at.topic, at.partition]
            if at.offset > cursor.next_offset:
                self._feed.put(cursor, [], at.offset)

    def _trouble(self, message: Message) -> None:
        error = message.error()
        assert error is not None
        if error.code() in {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}:
            cursor = self._cursors.get((message.topic() or "", message.partition() or 0))
            if cursor is not None:
                self._events.overtaken(cursor)
        elif error.code() in _PASSING or (error.retriable() and not error.fatal()):
            self._cluster.note(error)
        else:
            raise KafkaException(error)

    # -- the consumer's assignment ------------------------------------------------------------

    def _assign(self, cursors: Sequence[Cursor]) -> None:
        fresh = [cursor for cursor in cursors if cursor.assignment.partition in self._ownership.granted]
        for topic in {cursor.topic for cursor in fresh} - self._known_topics:
            # A client that has never heard of a topic looks for it only about once a second.
            with suppress(KafkaException):  # then it finds the topic by itself, later
                self._consumer.list_topics(topic, timeout=_METADATA_SECONDS)
                self._known_topics.add(topic)
        old = [cursor.place for cursor in fresh if cursor.place in self._cursors]
        if old:
            self._consumer.incremental_unassign([TopicPartition(*place) for place in old])
        if fresh:
            self._consumer.incremental_assign([TopicPartition(*cursor.place, cursor.starting) for cursor in fresh])
        self._cursors.update({cursor.place: cursor for cursor in fresh})
        # A pause outlives the assignment that it was made under.
        self._set_paused([cursor.place for cursor in fresh], self._held_back)

    def _unassign(self, partitions: set[int]) -> None:
        places = [place for place in self._cursors if place[1] in partitions]
        if places:
            self._consumer.incremental_unassign([TopicPartition(*place) for place in places])
        for place in places:
            del self._cursors[place]

    def _set_paused(self, places: Sequence[tuple[str, int]], paused: bool) -> None:
        mine = [TopicPartition(*place) for place in places if place in self._cursors]
        if mine:
            (self._consumer.pause if paused else self._consumer.resume)(mine)

    # -- callbacks of the client library, in this thread ---------------------------------------

    def _on_assign(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._cluster.reached()
        numbers = [each.partition for each in partitions if each.topic == self._topic]
        consumer.incremental_assign([])
        self._told_by_callback(consumer)
        self._ownership.grant(numbers)
        self._events.assigned(numbers)

    def _on_revoke(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        numbers = [each.partition for each in partitions if each.topic == self._topic]
        self._told_by_callback(consumer)
        self._events.revoked(numbers)
        self._take_away(consumer, numbers)

    def _on_lost(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        numbers = [each.partition for each in partitions if each.topic == self._topic]
        self._candidate = None
        self._events.lost(numbers)
        self._take_away(consumer, numbers)

    def _told_by_callback(self, consumer: Consumer) -> None:
        """The classic protocol waits for us before it goes on, so that its metadata holds at once."""
        self._candidate = consumer.consumer_group_metadata()
        if self.classic:
            self._ownership.refresh(self._candidate)

    def _take_away(self, consumer: Consumer, numbers: Sequence[int]) -> None:
        places = [place for place in self._cursors if place[1] in numbers]
        consumer.incremental_unassign([TopicPartition(*place) for place in places])
        for place in places:
            del self._cursors[place]


def _as_log_error(error: KafkaError, topic: str, cluster: Cluster) -> LogError:
    told = translated(error, f"consume topic {topic}", cluster.address)
    return told if isinstance(told, LogError) else LogError(told.message, remedy=told.remedy)
