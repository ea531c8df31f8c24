"""How far a topic's required subscriptions may lag before publishers have to wait, as its owner declares it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

__all__ = ["Bound"]


@dataclass(frozen=True, kw_only=True)
class Bound:
    """How far the slowest of `subscriptions` may be behind: the first limit that is reached counts.

    `records` are those of all partitions together that it has neither settled nor held; `age` is that of the oldest of
    them, and `bytes` their size, where an engine can tell it. A publisher waits up to `wait_seconds` for room,
    and then gets BackPressure with nothing stored.
    """

    records: int | None = None
    age: timedelta | None = None
    bytes: int | None = None
    #: The required subscriptions, by name; one that does not exist bounds nothing.
    subscriptions: tuple[str, ...] = ()
    wait_seconds: float = 5.0

    def used(self, records: int, age_seconds: float, size_bytes: float = 0) -> float:
        """How much of it is used by who is so far behind: 1.0 is all of it."""
        by_records = 0.0 if self.records is None else records / self.records
        by_age = 0.0 if self.age is None else age_seconds / self.age.total_seconds()
        by_bytes = 0.0 if self.bytes is None else size_bytes / self.bytes
        return max(by_records, by_age, by_bytes)

    def problems(self) -> Iterator[str]:
        """What is wrong with it, each with its remedy."""
        age_seconds = None if self.age is None else self.age.total_seconds()
        limits = [limit for limit in (self.records, age_seconds, self.bytes) if limit is not None]
        if not limits:
            yield "its bound has no limit; give records=, age= or bytes=."
        if any(limit <= 0 for limit in limits):
            yield "the limits of its bound must be above zero; leave out what shall not be limited."
        if type(self.subscriptions) is not tuple or not self.subscriptions or not all(self.subscriptions):
            yield 'its bound must name the subscriptions that have to keep up, as a tuple: subscriptions=("billing",).'
        if not (math.isfinite(self.wait_seconds) and self.wait_seconds >= 0):
            yield "wait_seconds of its bound must be 0 or more; 0 refuses at once."
