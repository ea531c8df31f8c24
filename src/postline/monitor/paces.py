"""How fast workers handle what they have to read, and how fast more comes in: measured from look to look, smoothed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

__all__ = ["Load", "Pace"]

#: A backlog that takes at least this part of the target keeps workers busy; with less they may only wait for handlers.
BUSY_SHARE = 0.25
#: Progress is waited for as long, and for half the target, before it counts as none.
_STILL_SECONDS_MIN = 5.0
#: Looks that took more than this part of the time between them do not tell how fast anything went: nobody knows when in
#: that time positions were read.
_VAGUE_SHARE = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What a subscription has to do, at one moment; one with priorities is summed over them."""

    name: str
    partitions: int
    #: Of these, how many have something to read.
    backlogged: int
    #: Records that are neither settled nor held, in partitions that are not paused.
    backlog: int
    #: Offsets that it is done with; how they grow is how it drains.
    passed: int
    #: Offsets that there are; how they grow is what comes in.
    end: int
    #: Live processes that work for it.
    members: int
    #: What more workers would not mend; "" where nothing stands in its way.
    obstacle: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How a subscription goes on. Immutable: `after` gives the next one."""

    at: float
    load: Load
    #: The look that progress is measured from: the last one at which there was some, or nothing to do.
    since: float
    since_load: Load
    #: How long that look took.
    since_took: float = 0.0
    #: Records that one worker handles in a second; 0.0 where nothing was handled yet.
    per_worker: float = 0.0
    #: How long that was measured while there was enough to do. 0.0: it may handle more.
    busy_seconds: float = 0.0
    #: Records that come in, a second.
    added: float = 0.0

    @classmethod
    def of(cls, before: Pace | None, load: Load, at: float, drain_seconds: float, took: float = 0.0) -> Pace:
        """The pace after this look, which ended at that steady time; `before` is that of the last look."""
        first = cls(at=at, load=load, since=at, since_load=load, since_took=took)
        if before is None:
            return first
        if load.passed < before.load.passed or load.end < before.load.end:
            # Reset, or another log in its place: what a worker can do is known, the rest begins anew.
            return replace(first, per_worker=before.per_worker, busy_seconds=before.busy_seconds)
        if at <= before.at:
            return before
        return before._after(load, at, drain_seconds, took)

    @property
    def exact(self) -> bool:
        """Whether `per_worker` is what one can do, rather than the least of it."""
        return self.busy_seconds > 0.0

    @property
    def capacity(self) -> float:
        """Records that those who work now handle in a second."""
        return self.per_worker * self.load.members

    @property
    def drain_seconds(self) -> float | None:
        """What the backlog takes them, if nothing more came; None where that is not known."""
        if not self.load.backlog:
            return 0.0
        return self.load.backlog / self.capacity if self.exact and self.load.members else None

    def stands_still(self, drain_seconds: float) -> bool:
        """Whether nothing was handled for long, although there is something to do and somebody to do it."""
        waited, stands = self.at - self.since, self.load.passed == self.since_load.passed
        nothing_left = not (self.load.backlog and self.load.members)
        return stands and not nothing_left and waited >= max(_STILL_SECONDS_MIN, drain_seconds / 2)

    def _after(self, load: Load, at: float, drain_seconds: float, took: float) -> Pace:
        seconds = at - self.at
        came = (load.end - self.load.end) / seconds
        added = self.added + _weight(seconds, drain_seconds / 2) * (came - self.added)
        done = load.passed - self.since_load.passed
        constant = load.members == self.since_load.members and load.members > 0
        vague = max(took, self.since_took) > _VAGUE_SHARE * (at - self.since)
        per_worker, busy_seconds = self.per_worker, self.busy_seconds
        if constant and done and not vague:
            per_worker, busy_seconds = self._learnt(load, done, at - self.since, drain_seconds)
        # A vague measure goes on until it is none, or begins anew with a look that is much quicker than its first.
        goes_on = constant and (not done or (vague and 2 * took >= self.since_took))
        if goes_on and self.since_load.backlog:
            since, since_load, since_took = self.since, self.since_load, self.since_took
        else:
            since, since_load, since_took = at, load, took
        return Pace(
            at=at,
            load=load,
            since=since,
            since_load=since_load,
            since_took=since_took,
            per_worker=per_worker,
            busy_seconds=busy_seconds,
            added=added,
        )

    def _learnt(self, load: Load, done: int, seconds: float, drain_seconds: float) -> tuple[float, float]:
        """What one worker handles, and for how long it was seen to."""
        rate = done / seconds / load.members
        enough = rate * load.members * drain_seconds * BUSY_SHARE
        busy = min(load.backlog, self.since_load.backlog) >= enough
        # The first time counts in full, whatever little was measured before.
        weight = max(_weight(seconds, drain_seconds / 4), seconds / (self.busy_seconds + seconds))
        if busy or rate > self.per_worker:
            return self.per_worker + weight * (rate - self.per_worker), self.busy_seconds + seconds * busy
        return self.per_worker, self.busy_seconds


def _weight(seconds: float, smoothed_seconds: float) -> float:
    """What a measure of so many seconds counts, beside all that came before."""
    return 1.0 - math.exp(-seconds / smoothed_seconds)
