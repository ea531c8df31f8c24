"""Where records that waited go by now: their topic may be gone since, or have more partitions."""

from __future__ import annotations

import logging

from postline.contracts import Partitioner
from postline.contracts.cloudevents import UNIQUE_ID
from postline.log.port import Append, Log
from postline.logs.events import event

__all__ = ["Destinations"]

_log = logging.getLogger("postline.runtime")


class Destinations:
    """Topics as the log had them when asked for; partitions are added while services stand. Event loop only."""

    def __init__(self, log: Log) -> None:
        self._log = log
        #: None for a topic that is not there.
        self._partitions: dict[str, int | None] = {}

    def knows(self, topic: str) -> bool:
        """Whether the topic has been asked for."""
        return topic in self._partitions

    async def look(self, topic: str) -> None:
        """Ask for a topic. Raises LogError."""
        there = {spec.name: spec.partitions for spec in await self._log.topics()}
        self._partitions |= {topic: None, **there}

    def place(self, append: Append, partitions: int) -> bool:
        """Put a record, placed among so many partitions, where its key belongs now; False if its topic is gone."""
        now = self._partitions[append.topic]
        if now is None:
            return False
        told = append.envelope
        keyless = told.headers.get(UNIQUE_ID, told.id).encode("utf-8", "surrogatepass")
        placed_by = keyless if append.key is None else append.key
        if now == partitions:
            return True
        if Partitioner(partitions).partition_of(placed_by) == append.partition:
            append.partition = Partitioner(now).partition_of(placed_by)
        elif append.key is not None:
            _log.warning(
                "topic %s has other partitions than when message %s was delayed, and something else than its key "
                "places it: it goes to partition %d still",
                *(append.topic, append.envelope.id, append.partition),
                extra=event(
                    "message.misplaced", topic=append.topic, partition=append.partition, message_id=append.envelope.id
                ),
            )
        return True
