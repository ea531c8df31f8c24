"""How far a subscription is behind: the one place that counts it, for bounds, for operators and for forecasts."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from postline.log.port import Bounds, Log, PartitionInfo, Place
from postline.runtime.progress import Progress
from postline.runtime.weighing import Weights

__all__ = ["Behind", "Flow", "Lag", "PartitionLag", "lag_in", "lag_of", "oldest_ms"]

#: What rates are reckoned from: looks of so long, and no shorter.
_FLOW_SECONDS = 10.0
_FLOW_SECONDS_MIN = 0.2


class PartitionLag(NamedTuple):
    """Where a subscription stands in one partition."""

    #: The lowest offset that is neither settled nor held, nor taken by retention.
    first: int
    #: Settled or held above it.
    ahead: int
    #: Offsets neither settled nor held; gaps count.
    records: int
    progress: Progress


class Behind(NamedTuple):
    """A partition where a subscription has something to read."""

    topic: str
    partition: int
    lag: PartitionLag


class Lag(NamedTuple):
    """How far a subscription is behind, over all partitions."""

    records: int
    #: Offsets that it is done with, all the time long: how they grow is how it drains.
    passed: int
    #: Age of the oldest record that it is not done with; 0 where it was not asked for.
    age_seconds: float = 0.0
    #: Of those records; 0 where it was not asked for.
    bytes: int = 0


def lag_in(stored: PartitionInfo, bounds: Bounds) -> PartitionLag:
    """Where a subscription stands in a partition with these bounds. Held records and dead letters are no lag."""
    progress = Progress.decode(stored.progress, stored.position)
    first = max(stored.position, bounds.start)
    ahead = sum(last + 1 - max(begin, first) for begin, last, _ in progress.ahead if last >= first)
    return PartitionLag(first, ahead, max(0, bounds.end - first - ahead), progress)


async def oldest_ms(log: Log, wanted: Sequence[Behind]) -> list[int | None]:
    """The timestamp of the oldest record of each that it is not done with; None without one."""
    found: list[int | None] = [None] * len(wanted)
    left = {number: each.lag.first for number, each in enumerate(wanted)}
    while left:
        places = [Place(wanted[number].topic, wanted[number].partition, first) for number, first in left.items()]
        records = dict(zip(left, await log.read_first(places), strict=True))
        left = {}
        for number, record in records.items():
            if record is None:
                continue
            ahead = wanted[number].lag.progress.ahead
            after = next((last + 1 for begin, last, _ in ahead if begin <= record[0] <= last), None)
            if after is None:
                found[number] = record[1]
            else:
                left[number] = after
    return found


async def lag_of(
    log: Log,
    topic: str,
    subscription: str,
    bounds: list[Bounds],
    *,
    age_at_ms: int | None = None,
    weights: Weights | None = None,
) -> Lag:
    """How far it is behind those bounds; also its age at that time, and its bytes, if asked for.

    Raises UnknownSubscription.
    """
    records = passed = size = 0
    behind: list[Behind] = []
    for stored in await log.partitions(subscription):
        lag = lag_in(stored, bounds[stored.partition])
        records += lag.records
        passed += lag.first + lag.ahead
        if weights is not None and lag.records:
            end = bounds[stored.partition].end
            weight = await weights.of(subscription, stored.partition, lag.first, end)
            size += (
                weight * lag.records // (end - lag.first)
            )  # what is settled ahead is as large as the rest, on average
        if lag.records:
            behind.append(Behind(topic, stored.partition, lag))
    told = [] if age_at_ms is None or not behind else await oldest_ms(log, behind)
    oldest = [at_ms for at_ms in told if at_ms is not None]
    age_ms = max(0, age_at_ms - min(oldest)) if age_at_ms is not None and oldest else 0
    return Lag(records, passed, age_ms / 1000, size)


class Flow:
    """How fast a subscription drains and its topic grows, by the looks of the last seconds."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int, int]] = deque()

    def note(self, at: float, passed: int, records: int) -> None:
        """At this steady time it was done with `passed` offsets, and `records` behind."""
        looks = self._looks
        if looks and passed < looks[-1][1]:  # a reset came between
            looks.clear()
        if looks and at <= looks[-1][0]:
            looks.pop()
        while looks and at - looks[0][0] > _FLOW_SECONDS:
            looks.popleft()
        looks.append((at, passed, passed + records))

    @property
    def drained_per_second(self) -> float | None:
        """Offsets that it gets done with in a second; None before there are looks."""
        return self._per_second(1)

    @property
    def added_per_second(self) -> float | None:
        """Offsets that come in a second; None before there are looks."""
        return self._per_second(2)

    def _per_second(self, what: int) -> float | None:
        if not self._looks:
            return None
        first, last = self._looks[0], self._looks[-1]
        seconds = last[0] - first[0]
        return None if seconds < _FLOW_SECONDS_MIN else (last[what] - first[what]) / seconds
