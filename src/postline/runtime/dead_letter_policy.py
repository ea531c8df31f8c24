"""What a subscription says of its dead letters: from when on they are an alarm, and when they are given up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import NamedTuple

__all__ = ["DeadLetterLimits", "DeadLetterPolicy"]


class DeadLetterLimits(NamedTuple):
    """A policy in numbers: more letters than `alarm_count` are an alarm, -1 for none; an age of 0 is none."""

    alarm_count: int
    alarm_age_ms: int
    max_age_ms: int


@dataclass(frozen=True, kw_only=True)
class DeadLetterPolicy:
    """When dead letters are an alarm, and when they end.

    One that is older than `max_age` is discarded by its partition's owner; None keeps them until somebody redrives or
    discards them. `alarm_count`: more than so many are an alarm; `alarm_age`: one that is older is one.
    """

    max_age: timedelta | None = None
    alarm_count: int | None = None
    alarm_age: timedelta | None = None

    def problems(self) -> list[str]:
        """What contradicts itself, in sentences; [] if nothing does."""
        found = []
        if self.max_age is not None and self.max_age <= timedelta():
            found.append("max_age of dead letters must be above zero.")
        if self.alarm_age is not None and self.alarm_age <= timedelta():
            found.append("alarm_age of dead letters must be above zero.")
        if self.alarm_count is not None and self.alarm_count < 0:
            found.append("alarm_count of dead letters must be 0 or more.")
        if self.max_age is not None and self.alarm_age is not None and self.alarm_age >= self.max_age:
            found.append("alarm_age of dead letters must be below their max_age, else nobody ever hears it.")
        return found

    @cached_property
    def limits(self) -> DeadLetterLimits:
        """The same in numbers."""
        return DeadLetterLimits(
            alarm_count=-1 if self.alarm_count is None else self.alarm_count,
            alarm_age_ms=_milliseconds(self.alarm_age),
            max_age_ms=_milliseconds(self.max_age),
        )


def _milliseconds(time: timedelta | None) -> int:
    return 0 if time is None else max(1, int(time.total_seconds() * 1000))
