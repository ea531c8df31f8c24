"""`MigrationTurn`: one migration at a time works on a cluster, wherever it runs: the only member of a group."""

from __future__ import annotations

import threading

from confluent_kafka import Consumer, TopicPartition

from postline.errors import LogUnavailable
from postline.log.kafka.parts import Parts
from postline.log.transfer import already_migrating

__all__ = ["MigrationTurn"]

#: A migration that was killed is a member for so long.
_SESSION_SECONDS = 6.0
_LOOK_SECONDS = 0.2
_POLL_SECONDS = 0.2


class MigrationTurn:
    """Blocking; `take` before anything is done, `give_back` at the end."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._group = f"{parts.cluster.prefix}postline.migration"
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._held = threading.Event()

    def take(self) -> None:
        """Have the turn. Raises UsageError if another migration has it, and goes on having it."""
        cluster, address = self._parts.cluster, self._parts.cluster.address
        until = cluster.clock.monotonic() + 2 * _SESSION_SECONDS
        while self._parts.groups.members(self._group):
            if cluster.clock.monotonic() > until:
                raise already_migrating(address)
            if cluster.stopping.wait(_LOOK_SECONDS):
                raise cluster.closed()
        self._join()
        while not self._held.wait(_LOOK_SECONDS):
            if cluster.clock.monotonic() > until:
                self.give_back()
                raise already_migrating(address)

    def require(self) -> None:
        """Raise LogUnavailable if the turn went to somebody else, because this process stood still for long."""
        if not self._held.is_set():
            raise LogUnavailable(
                f"This migration has lost its turn on {self._parts.cluster.address}.",
                remedy="Run it again; it goes on where it was.",
            )

    def give_back(self) -> None:
        """Let the next one have it. Idempotent."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _join(self) -> None:
        settings = {
            "group.id": self._group,
            "group.protocol": "classic",
            "session.timeout.ms": str(int(_SESSION_SECONDS * 1000)),
            "heartbeat.interval.ms": "500",
            "max.poll.interval.ms": "300000",
            "partition.assignment.strategy": "range",
        }
        consumer = self._parts.cluster.consumer({}, settings)
        consumer.subscribe([self._parts.catalog.spec.name], on_assign=self._given, on_revoke=self._taken)
        self._ending.clear()
        self._thread = threading.Thread(target=self._stay, args=(consumer,), name="postline migration", daemon=True)
        self._thread.start()

    def _stay(self, consumer: Consumer) -> None:
        try:
            while not self._ending.is_set() and not self._parts.cluster.stopping.is_set():
                consumer.poll(_POLL_SECONDS)
        finally:
            self._held.clear()
            consumer.close()

    def _given(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        consumer.assign(places)
        consumer.pause(places)
        if places:
            self._held.set()

    def _taken(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        del places
        self._held.clear()
        consumer.unassign()
