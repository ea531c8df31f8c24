"""What one membership owns at this moment: the fence that every commit passes (research: kafka §4.1).

The group's epoch alone does not fence on Kafka: a coordinator checks that a member belongs to the group, never that it
owns the partition. So a commit keeps only parts whose assignment still stands here, takes the group's metadata in the
same step, and holds the lock until its transaction has ended; giving partitions up takes the same lock.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from postline.log.kafka.cache import StateCache
from postline.log.kafka.stamp import Stamp
from postline.log.port import Assignment

__all__ = ["Owned", "Ownership"]


class Owned:
    """One owned partition as the engine keeps it: what was last committed, and its state."""

    __slots__ = ("assignment", "cache", "cache_broken", "checkpoint", "position", "stamp")

    def __init__(self, assignment: Assignment, position: int, stamp: Stamp, cache: StateCache) -> None:
        self.assignment, self.position, self.stamp, self.cache = assignment, position, stamp, cache
        #: What is committed could not be written into the cache: the partition has to be taken up anew.
        self.cache_broken = False
        #: Number and time of the last checkpoint in the changelog.
        self.checkpoint = (-1, 0.0)


class Ownership:
    """The owned partitions and the group's metadata that commits for them need. Thread-safe."""

    def __init__(self) -> None:
        #: Held while a commit is under way, and to give partitions up.
        self.lock = threading.RLock()
        self.owned: dict[int, Owned] = {}
        #: What the coordinator has granted and not taken back, taken up already or not, each under a number of its own:
        #: a partition that was away in between comes under another.
        self.granted: dict[int, int] = {}
        self._grants = 0
        self._metadata: Any = None
        self._metadata_number = 0
        #: How many wait for metadata that is fresher.
        self.awaited = 0
        self._fresh = threading.Condition()

    # -- the group's metadata -----------------------------------------------------------------

    def refresh(self, metadata: Any) -> None:
        """The polling thread saw the group as it is now."""
        with self._fresh:
            self._metadata = metadata
            self._metadata_number += 1
            self._fresh.notify_all()

    def metadata(self) -> tuple[Any, int]:
        """The group's metadata as last seen, and its number."""
        with self._fresh:
            return self._metadata, self._metadata_number

    def wait_fresher(self, number: int, seconds: float) -> bool:
        """Wait until the polling thread has looked again; whether it has."""
        with self._fresh:
            self.awaited += 1
            try:
                return self._fresh.wait_for(lambda: self._metadata_number > number, seconds)
            finally:
                self.awaited -= 1

    # -- owning -------------------------------------------------------------------------------

    def stands(self, assignment: Assignment) -> bool:
        """Whether this assignment is not over."""
        owned = self.owned.get(assignment.partition)
        return owned is not None and owned.assignment.epoch == assignment.epoch

    def grant(self, partitions: Iterable[int]) -> None:
        """The coordinator grants these."""
        for partition in partitions:
            self._grants += 1
            self.granted[partition] = self._grants

    def give_up(self, partitions: Iterable[int], wait_seconds: float) -> list[Owned]:
        """End the assignments of these partitions, after a commit that is under way, as far as it ends in time.

        One that goes on longer holds metadata of before, which the coordinator refuses once it has moved on, or has
        sent its offsets already, for which the next owner's stable read waits.
        """
        held = self.lock.acquire(timeout=wait_seconds)
        try:
            gone = []
            for partition in partitions:
                self.granted.pop(partition, None)
                if (owned := self.owned.pop(partition, None)) is not None:
                    gone.append(owned)
            return gone
        finally:
            if held:
                self.lock.release()
