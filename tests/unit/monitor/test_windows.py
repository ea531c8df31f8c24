"""Windows over a real log: what several looks say, and that they stay few."""

from __future__ import annotations

from postline.clock import VirtualClock
from postline.log.port import Bounds, PartitionInfo
from postline.monitor.trends import Trend
from postline.monitor.windows import Windows
from postline.runtime.lagging import lag_in
from postline.runtime.progress import Progress


class Partition:
    """A partition whose position and bounds a test moves, looked at every so often by somebody without samples."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.windows = Windows(self.clock)
        self.position, self.start, self.end = 0, 0, 0
        self.gaps_only = False

    def look(self, *, after: float = 0.0) -> Trend:
        self.clock.move_to(self.clock.monotonic() + after)
        stored = PartitionInfo(partition=0, position=self.position, progress=Progress().encode(), epoch=1)
        oldest_ms = None if self.gaps_only else self.clock.now_ms() - 1_000
        return self.windows.trend("billing", stored, lag_in(stored, Bounds(self.start, self.end)), oldest_ms)


def test_looks_every_second_see_growth_and_its_end() -> None:
    partition = Partition()
    for second in range(240):
        partition.end, partition.position = 200 * second, 100 * second
        found = partition.look(after=1)
    assert found is Trend.GROWING
    for _ in range(60):
        partition.position += 300
        found = partition.look(after=1)
    assert found is Trend.OK


def test_a_subscription_that_retention_overtakes_stands_still() -> None:
    partition = Partition()
    for second in range(60):
        partition.end, partition.start = 1_000 + 100 * second, 90 * second
        found = partition.look(after=1)
    assert found is Trend.STALLED


def test_gaps_that_are_left_are_no_standing_still() -> None:
    partition = Partition()
    partition.end, partition.gaps_only = 1, True
    assert {partition.look(after=10) for _ in range(30)} == {Trend.OK}


def test_looks_are_few_and_those_of_removed_subscriptions_go() -> None:
    partition = Partition()
    for _ in range(2_000):
        partition.look(after=1)
    assert len(partition.windows._looks["billing", 0]) <= 13
    partition.windows.forget_others({"shipping"})
    assert not partition.windows._looks
