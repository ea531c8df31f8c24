"""A reader without Postline that reads what is committed, from the beginning and as it comes, and writes it down."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Sequence
from typing import NamedTuple

from confluent_kafka import Consumer, IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from tests.brokers.ready import silent

__all__ = ["Ends", "Reader", "Seen"]

_POLL_SECONDS = 0.05
_ANSWER_SECONDS = 10.0


class Seen(NamedTuple):
    """One record, and when it was read."""

    time_ns: int
    topic: str
    partition: int
    offset: int
    value: bytes


class Ends:
    """Where partitions end: for everybody, and for readers of what is committed."""

    def __init__(self, bootstrap: str) -> None:
        self._admin = AdminClient({"bootstrap.servers": bootstrap}, logger=silent)

    def partitions(self, topics: Sequence[str]) -> list[TopicPartition]:
        """All partitions of these topics."""
        known = self._admin.list_topics(timeout=_ANSWER_SECONDS).topics
        return [TopicPartition(topic, number) for topic in topics for number in sorted(known[topic].partitions)]

    def of(self, topics: Sequence[str], *, stable: bool) -> dict[tuple[str, int], int]:
        """The end of each partition; `stable`: before the first transaction that is open."""
        level = IsolationLevel.READ_COMMITTED if stable else IsolationLevel.READ_UNCOMMITTED
        asked = {each: OffsetSpec.latest() for each in self.partitions(topics)}
        told = self._admin.list_offsets(asked, isolation_level=level, request_timeout=_ANSWER_SECONDS)
        return {(at.topic, at.partition): future.result(_ANSWER_SECONDS).offset for at, future in told.items()}


class Reader:
    """Reads topics in a thread of its own until `finish`; what it read is then in `polls`, poll by poll."""

    def __init__(self, bootstrap: str, topics: Sequence[str]) -> None:
        self._topics, self.ends = topics, Ends(bootstrap)
        self.polls: list[list[Seen]] = []
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"reader-{uuid.uuid4()}",
                "enable.auto.commit": "false",
                "isolation.level": "read_committed",
                "log_level": "0",  # a broker that is away is what trials are about
                "auto.offset.reset": "error",
            },
            logger=silent,
        )
        self._places = self.ends.partitions(topics)
        self._consumer.assign([TopicPartition(each.topic, each.partition, 0) for each in self._places])
        #: Where it will go on in each partition.
        self.position: dict[tuple[str, int], int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader of a trial", daemon=True)
        self._thread.start()

    def finish(self, seconds: float = 60.0) -> list[list[Seen]]:
        """Read to the end of now, open transactions included, and give it all; AssertionError if that takes longer."""
        ends = self.ends.of(self._topics, stable=False)
        until, pause = time.monotonic() + seconds, threading.Event()
        while (behind := self._behind(ends)) and time.monotonic() < until:
            pause.wait(_POLL_SECONDS)
        self.close()
        assert not behind, f"a reader of what is committed is held back at {behind}; the ends are {ends}"
        return self.polls

    def close(self) -> None:
        """Stop reading. Idempotent."""
        self._stop.set()
        self._thread.join()

    def _behind(self, ends: dict[tuple[str, int], int]) -> dict[tuple[str, int], int]:
        return {at: self.position.get(at, 0) for at, end in ends.items() if end > self.position.get(at, 0)}

    def _run(self) -> None:
        while not self._stop.is_set():
            messages = self._consumer.consume(500, _POLL_SECONDS)
            now = time.monotonic_ns()
            seen = [
                Seen(
                    now, message.topic() or "", message.partition() or 0, message.offset() or 0, message.value() or b""
                )
                for message in messages
                if message.error() is None
            ]
            if seen:
                self.polls.append(seen)
            self.position = {
                (at.topic, at.partition): max(0, at.offset) for at in self._consumer.position(self._places)
            }
        self._consumer.close()
