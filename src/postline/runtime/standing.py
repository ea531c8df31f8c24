"""What a partition's owner tells of it beside the position, so that whoever looks on counts nothing: `Standing`."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from postline.runtime.entries import HeldEntry
from postline.runtime.plan import Plan
from postline.runtime.progress import Standing

__all__ = ["SAMPLE_MS", "HeldCounts", "sampled", "standing_of"]

#: How far samples of a position are apart at least, and how many are kept beside it.
SAMPLE_MS = 30_000
_SAMPLES = 6

_RETRYING, _BLOCKED, _UNSERVED = "retrying", "blocked", "unserved"


class _Held(NamedTuple):
    status: str
    due_ms: int
    size: int
    #: Whether it counts toward the bound: a redriven one does not before it has failed again.
    bound: bool


class HeldCounts:
    """Counts of one partition's held records and dead letters, kept as they come and go. Event loop only."""

    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}
        self._by_status = Counter[str]()
        #: A heap of (due_ms, offset); those that no record has any more are dropped when they come to the top.
        self._dues: list[tuple[int, int]] = []
        #: Of those that count toward the bound.
        self.records = 0
        self.size_bytes = 0
        self.dead_letters = 0
        #: Of these, how many hold their key.
        self.holding = 0
        #: No dead letter failed before this (wall-clock milliseconds); None while there is none.
        self.oldest_failed_ms: int | None = None
        #: Called after each change in the dead letters.
        self.dead_letters_changed: Callable[[], None] | None = None

    def __contains__(self, offset: int) -> bool:
        return offset in self._held

    def hold(self, offset: int, entry: HeldEntry, *, ready: bool = False) -> None:
        """A record is held as this entry says; `ready` if nothing but its turn is waited for."""
        self.drop(offset)
        status = _UNSERVED if entry.unserved else _RETRYING if entry.due_ms or ready else _BLOCKED
        held = self._held[offset] = _Held(status, entry.due_ms, entry.size, not entry.redrives or entry.attempts > 0)
        self._by_status[status] += 1
        self.records += held.bound
        self.size_bytes += entry.size
        if entry.due_ms:
            heapq.heappush(self._dues, (entry.due_ms, offset))

    def drop(self, offset: int) -> None:
        """It is held no more; nothing happens if it was not."""
        if (held := self._held.pop(offset, None)) is not None:
            self._by_status[held.status] -= 1
            self.records -= held.bound
            self.size_bytes -= held.size

    def bury(self, failed_ms: int, *, holds: bool) -> None:
        """There is one more dead letter."""
        self.dead_letters += 1
        self.holding += holds
        self.oldest_failed_ms = failed_ms if self.oldest_failed_ms is None else min(self.oldest_failed_ms, failed_ms)
        if self.dead_letters_changed is not None:
            self.dead_letters_changed()

    def exhume(self, number: int, *, holding: int) -> None:
        """So many were redriven or discarded, of which some held their key."""
        self.dead_letters -= number
        self.holding -= holding
        if not self.dead_letters:
            self.oldest_failed_ms = None
        if self.dead_letters_changed is not None:
            self.dead_letters_changed()

    def standing(self, pauses: set[str], samples: list[tuple[int, int]]) -> Standing:
        """All of it, for the next commit."""
        count = self._by_status
        return Standing(
            retrying=count[_RETRYING],
            blocked=count[_BLOCKED],
            unserved=count[_UNSERVED],
            dead_letters=self.dead_letters,
            holding=self.holding,
            oldest_failed_ms=self.oldest_failed_ms or 0,
            next_attempt_ms=self._next_due_ms(),
            pauses=sorted(pauses),
            samples=samples,
        )

    def _next_due_ms(self) -> int:
        dues = self._dues
        while dues and ((held := self._held.get(dues[0][1])) is None or held.due_ms != dues[0][0]):
            heapq.heappop(dues)
        return dues[0][0] if dues else 0


def standing_of(plan: Plan, counts: HeldCounts, pauses: set[str], samples: list[tuple[int, int]]) -> Standing:
    """All that the owner of a partition tells with a commit."""
    standing, limits = counts.standing(pauses, samples), plan.dead_letter_policy.limits
    standing.prioritized = plan.priority is not None
    standing.alarm_count, standing.alarm_age_ms = limits.alarm_count, limits.alarm_age_ms
    return standing


def sampled(samples: list[tuple[int, int]], now_ms: int, passed: int) -> list[tuple[int, int]]:
    """The samples with one of this moment; a clock that was set back begins anew."""
    return [*[each for each in samples if each[0] < now_ms], (now_ms, passed)][-_SAMPLES:]
