"""`Freezer`: topics to which brokers let nobody append, whatever program asks, until they are thawed.

No record of ours fits into 80 bytes together with its batch's head; the end of a transaction, of 78, does, and has to:
one that fails on a frozen topic could never end else, nor its producer go on. Settings reach brokers one after another;
that all have them is known when each partition has refused a gap record. One that was taken before is hidden.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from confluent_kafka import KafkaError, Message, Producer

from postline.errors import LogUnavailable, UsageError
from postline.log.kafka.catalog import FROZEN, MIGRATION, Changes, Entries
from postline.log.kafka.parts import Parts
from postline.log.kafka.wire import GAP_HEADERS
from postline.log.transfer import Mark

__all__ = ["Freezer"]

_LIMIT, _NOTHING = "max.message.bytes", "80"
_SETTLE_SECONDS = 0.1
_OPEN_SECONDS = 30.0
_PROBE = {"enable.idempotence": "false", "acks": "all", "delivery.timeout.ms": "10000"}


class Freezer:
    """Freezes all of a log's topics together with its mark. Blocking."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._cluster, self._topics, self._catalog = parts.cluster, parts.topics, parts.catalog

    def freeze(self, mark: Mark, names: Sequence[str]) -> None:
        """Do it. Raises UsageError, with nothing changed, while members live, or a transaction does not end."""
        self._require_nobody()
        told = self._topics.settings(names)
        before = {name: settings[_LIMIT] for name, settings in told.items() if settings[_LIMIT] != _NOTHING}

        def change(entries: Entries) -> Changes:
            return {MIGRATION: msgspec.json.encode(mark), FROZEN: msgspec.json.encode(before | _known(entries))}

        self._catalog.update(change)
        try:
            self._require_nobody()
            self._await_ends(names)
        except UsageError:
            self.thaw()
            raise
        for name in names:
            self._topics.change(name, {_LIMIT: _NOTHING})
        self._await_refusal(names)

    def thaw(self) -> None:
        """Take it back; nothing happens where nothing is frozen."""
        there = self._topics.all()
        for name, value in _known(self._catalog.entries()).items():
            if name in there:
                self._topics.change(name, {_LIMIT: value})
        self._catalog.update(lambda entries: {key: None for key in (MIGRATION, FROZEN) if key in entries})

    def _require_nobody(self) -> None:
        for name in self._catalog.subscriptions():
            if self._parts.groups.members(name):
                raise UsageError(
                    f"Subscription {name!r} has live members.", remedy="Stop the service that runs it; then try again."
                )

    def _await_ends(self, names: Sequence[str]) -> None:
        """Wait until no transaction is open: its end could not be written any more."""
        until = self._cluster.clock.monotonic() + _OPEN_SECONDS
        for name in names:
            while self._topics.bounds(name) != self._topics.stable_bounds(name):
                if self._cluster.clock.monotonic() > until:
                    raise UsageError(
                        f"A transaction of some program on topic {name!r} does not end.",
                        remedy="`kafka-transactions.sh find-hanging` tells whose it is; end it, and try again.",
                    )
                self._pause()

    def _await_refusal(self, names: Sequence[str]) -> None:
        producer = self._cluster.producer({}, _PROBE)
        left = [(name, number) for name in names for number in range(self._topics.partitions(name))]
        until = self._cluster.clock.monotonic() + _OPEN_SECONDS
        while left := self._taken(producer, left):
            if self._cluster.clock.monotonic() > until:
                topic, partition = left[0]
                raise LogUnavailable(
                    f"The broker of topic {topic!r} partition {partition} does not close it.",
                    remedy="Look at the brokers, and run the same again: it goes on.",
                )
            self._pause()

    @staticmethod
    def _taken(producer: Producer, places: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        """Those that did not refuse a record as too large."""
        refused = set[tuple[str, int]]()

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                refused.add((message.topic() or "", message.partition() or 0))

        for topic, partition in places:
            producer.produce(topic, partition=partition, headers=GAP_HEADERS, on_delivery=delivered)
        producer.flush()
        return [place for place in places if place not in refused]

    def _pause(self) -> None:
        if self._cluster.stopping.wait(_SETTLE_SECONDS):
            raise self._cluster.closed()


def _known(entries: Entries) -> dict[str, str]:
    """What topics had before, by name."""
    return msgspec.json.decode(entries[FROZEN], type=dict[str, str]) if FROZEN in entries else {}
