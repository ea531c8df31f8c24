"""A team of workers on a virtual clock: records come in and are handled as a fluid, and the decisions are obeyed."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from postline.clock import VirtualClock
from postline.monitor import Load, Look, Policy, Scale, advance

__all__ = ["Team", "burst", "day", "steady"]

#: Records a second at a time in seconds.
Arrivals = Callable[[float], float]


def steady(rate: float) -> Arrivals:
    """Always as many."""
    return lambda at: rate


def burst(rate: float, *, times: float, begin: float, seconds: float) -> Arrivals:
    """So many times as many, from then on for so long."""
    return lambda at: rate * (times if begin <= at < begin + seconds else 1.0)


def day(low: float, high: float, *, seconds: float = 86_400.0) -> Arrivals:
    """A wave between two rates, with a ripple of ten minutes upon it."""

    def rate(at: float) -> float:
        wave = (1 - math.cos(2 * math.pi * at / seconds)) / 2
        return (low + (high - low) * wave) * (1 + 0.15 * math.sin(2 * math.pi * at / 600))

    return rate


@dataclass
class Team:
    """So many workers as the decisions say; each needs a while to join, and to leave."""

    policy: Policy
    arrivals: Arrivals
    partitions: int = 16
    #: Records that one worker handles in a second.
    rate: float = 100.0
    join_seconds: float = 3.0
    step_seconds: float = 1.0
    look_seconds: float = 5.0
    clock: VirtualClock = field(default_factory=VirtualClock)
    workers: int = 0
    end: float = 0.0
    passed: float = 0.0
    scale: Scale = field(default_factory=Scale)
    #: When, from how many, to how many, and why.
    changes: list[tuple[float, int, int, str]] = field(default_factory=list)
    worker_seconds: float = 0.0
    #: What records waited, with how many did.
    waits: list[tuple[float, float]] = field(default_factory=list)
    #: When each worker joins.
    _joins: list[float] = field(default_factory=list)
    #: What came in, with the time.
    _waiting: deque[list[float]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._resize(self.workers or self.policy.workers_min)

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return self.clock.monotonic()

    @property
    def backlog(self) -> int:
        """Whole records that wait."""
        return round(self.end) - round(self.passed)

    @property
    def members(self) -> int:
        """Workers that have joined."""
        return sum(at <= self.now for at in self._joins)

    @property
    def worst_wait_seconds(self) -> float:
        """Of all records that were handled."""
        return max(seconds for seconds, _ in self.waits)

    def wait_seconds(self, share: float) -> float:
        """What such a share of all records waited at most."""
        total, seen = sum(records for _, records in self.waits), 0.0
        for seconds, records in sorted(self.waits):
            seen += records
            if seen >= share * total:
                return seconds
        return 0.0

    @property
    def mean_workers(self) -> float:
        """Over the whole time."""
        return self.worker_seconds / self.now

    def add(self, records: float) -> None:
        """So many come in at once."""
        self.end += records
        self._waiting.append([self.now, records])

    def crash(self) -> None:
        """One worker dies, and is started again."""
        self._joins[0] = self.now + self.join_seconds

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        next_look = self.now
        while self.now < until:
            if self.now >= next_look:
                self.look()
                next_look += self.look_seconds
            self._step()

    def look(self) -> None:
        """Look, decide, and do it."""
        busy = min(self.partitions, self.backlog)
        load = Load(
            name="billing",
            partitions=self.partitions,
            backlogged=busy,
            backlog=self.backlog,
            passed=round(self.passed),
            end=round(self.end),
            members=self.members,
        )
        self.scale, decision = advance(self.policy, self.scale, Look(at=self.now, workers=self.workers, loads=(load,)))
        if decision.desired != self.workers:
            self.changes.append((self.now, self.workers, decision.desired, decision.reason))
            self._resize(decision.desired)

    def _resize(self, workers: int) -> None:
        self.workers = workers
        del self._joins[workers:]
        self._joins += [self.now + self.join_seconds] * (workers - len(self._joins))

    def _step(self) -> None:
        seconds = self.step_seconds
        self.worker_seconds += self.workers * seconds
        if (come := self.arrivals(self.now) * seconds) > 0:
            self.add(come)
        self._handle(min(self.members, self.partitions) * self.rate * seconds)
        self.clock.move_to(self.now + seconds)

    def _handle(self, able: float) -> None:
        while able > 1e-9 and self._waiting:
            at, records = self._waiting[0]
            part = min(able, records)
            self.waits.append((self.now - at, part))
            self.passed += part
            able -= part
            self._waiting[0][1] -= part
            if self._waiting[0][1] <= 1e-9:
                self._waiting.popleft()
