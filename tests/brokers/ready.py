"""Whether a cluster truly answers: asked as a client asks, since a broker that listens may still be loading."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.brokers.waiting import BrokerError, until

__all__ = ["Asking", "silent", "slot_of"]

_ASK_SECONDS = 2.0
_TOPIC = "postline-brokers-ready"
# Names that differ in the last digit lie in consecutive partitions of the coordinators' topics, which have four.
_NAMES = tuple(f"postline-brokers-ready-{number}" for number in range(4))

#: A client tells its log of every refused connection; while brokers start, that is no news.
silent = logging.getLogger("tests.brokers.silent")
silent.addHandler(logging.NullHandler())
silent.propagate = False


class Asking:
    """Questions to a cluster until it answers them: at most so many seconds each, and while its brokers are alive.

    `client` says how to get in, and whom to ask.
    """

    def __init__(self, client: Mapping[str, str], seconds: float, alive: Callable[[], bool]) -> None:
        self._client: dict[str, str | int | float] = {
            **client,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 200,
        }
        self._seconds = seconds
        self._alive = alive
        self._admin = AdminClient(self._client, logger=silent)
        self._last = ""

    def wait_until_ready(self, brokers: int) -> None:
        """Return when all brokers are listed and every coordinator has done something; else BrokerError."""
        self._until(partial(self._all_listed, brokers))
        self._until(self._topic_is_there)
        for name in _NAMES:
            self._until(partial(self._group_answers, name))
            self._until(partial(self._commits, name))
        self._until(self._topic_is_dropped)

    def wait_until_in_sync(self, number: int) -> None:
        """Return when every broker that is asked lists this one, in sync wherever it has a copy; else BrokerError."""
        self._until(partial(self._is_in_sync, number))

    def leader(self, topic: str, partition: int) -> int:
        """The broker that leads a partition; -1 while none does."""
        found: list[int] = []
        self._until(partial(self._finds_leader, topic, partition, found))
        return found[-1]

    def _until(self, step: Callable[[], str]) -> None:
        """Repeat a step until it has no complaint."""
        until(partial(self._succeeds, step), self._seconds, lambda: f"it does not answer: {self._last}")

    def _succeeds(self, step: Callable[[], str]) -> bool:
        try:
            self._last = step()
        except (KafkaException, TimeoutError) as error:
            self._last = f"{error!r}"
        if self._last and not self._alive():
            raise BrokerError("a broker died")
        return not self._last

    def _all_listed(self, brokers: int) -> str:
        there = len(self._admin.list_topics(timeout=_ASK_SECONDS).brokers)
        return "" if there == brokers else f"{there} of {brokers} brokers are listed"

    def _topic_is_there(self) -> str:
        if _TOPIC not in self._admin.list_topics(timeout=_ASK_SECONDS).topics:
            self._admin.create_topics([NewTopic(_TOPIC, 1)])[_TOPIC].result(_ASK_SECONDS)
        return ""

    def _topic_is_dropped(self) -> str:
        if _TOPIC in self._admin.list_topics(timeout=_ASK_SECONDS).topics:
            self._admin.delete_topics([_TOPIC])[_TOPIC].result(_ASK_SECONDS)
        return ""

    def _group_answers(self, group: str) -> str:
        # Not the AdminClient's question for a group's offsets: librdkafka 2.16 aborts the program when that times out.
        consumer = Consumer({**self._client, "group.id": group}, logger=silent)
        try:
            consumer.committed([TopicPartition(_TOPIC, 0)], _ASK_SECONDS)
        finally:
            consumer.close()
        return ""

    def _commits(self, name: str) -> str:
        producer = Producer({**self._client, "transactional.id": name, "retry.backoff.ms": 20}, logger=silent)
        producer.init_transactions(_ASK_SECONDS)
        producer.begin_transaction()
        producer.produce(_TOPIC, b"ready")
        producer.commit_transaction(_ASK_SECONDS)
        return ""

    def _finds_leader(self, topic: str, partition: int, found: list[int]) -> str:
        partitions = self._admin.list_topics(topic, timeout=_ASK_SECONDS).topics[topic].partitions
        found.append(partitions[partition].leader if partition in partitions else -1)
        return ""

    def _is_in_sync(self, number: int) -> str:
        # Each by itself: who comes back knows better than the others, and who was paused knows worse.
        addresses = f"{self._client['bootstrap.servers']}".split(",")
        return next(filter(None, (self._is_behind(number, address) for address in addresses)), "")

    def _is_behind(self, number: int, address: str) -> str:
        admin = AdminClient({**self._client, "bootstrap.servers": address}, logger=silent)
        metadata = admin.list_topics(timeout=_ASK_SECONDS)
        if number not in metadata.brokers:
            return f"{address} does not list broker {number}"
        behind = [
            f"{topic.topic}/{partition.id}"
            for topic in metadata.topics.values()
            for partition in topic.partitions.values()
            if number in partition.replicas and number not in partition.isrs
        ]
        return f"for {address} broker {number} is behind in {', '.join(behind[:5])}" if behind else ""


def slot_of(name: str, partitions: int) -> int:
    """The partition of a coordinators' topic in which Kafka keeps a group or a transactional id of this name."""
    code = 0
    for character in name:
        code = (31 * code + ord(character)) & 0xFFFFFFFF
    return (code & 0x7FFFFFFF) % partitions
