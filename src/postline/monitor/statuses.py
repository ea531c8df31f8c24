"""The status of a subscription and its partitions: one word or two, and the reason in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from postline.monitor.trends import Trend
from postline.runtime.control import OPERATOR
from postline.runtime.holding import HELD_RECORDS
from postline.runtime.progress import Standing
from postline.runtime.restraint import REASON as BOUND

__all__ = ["GONE", "HELD", "Status", "is_paused", "partition_status", "subscription_status"]


class Status(NamedTuple):
    """How it is, and why; the reason is "" where all is well."""

    name: str
    reason: str = ""
    #: The worst of several partitions counts for all.
    severity: int = 0


OK = Status("ok")
PAUSED, PARTLY_PAUSED, NO_MEMBER = "paused", "partly paused", "no member"
HELD, WAITS, AWAY, GONE = "held by a key", "waits for a bound", "backend away", "topic gone"


def partition_status(
    standing: Standing, trend: Trend, *, owned: bool, paused: bool, lag_records: int, lag_seconds: float
) -> Status:
    """The cause that explains most: what an operator or the group decided, what stops it, then how its lag goes."""
    if paused:
        return Status(PAUSED, "an operator paused it")
    if not owned:
        return Status(NO_MEMBER, "no worker has it", 7)
    if HELD_RECORDS in standing.pauses:
        what = (
            "redrive or discard" if standing.holding else "they wait for retries, or for a version that has a handler"
        )
        return Status(HELD, f"it holds {standing.held:,} records, as many as it may: {what}", 6)
    if BOUND in standing.pauses:
        return Status(WAITS, "a topic that its handlers publish to is over its bound", 4)
    for cause in standing.causes:
        if cause.kind == "breaker":
            return Status(AWAY, f"the breaker of {cause.name} is open", 4)
    if trend is Trend.STALLED:
        return Status(
            "stalled", f"{lag_records:,} records wait, the oldest for {lag_seconds:,.0f} s; none is settled", 5
        )
    if trend is Trend.REWOUND:
        return Status("rewound", f"its position went back; {lag_records:,} records to read again", 2)
    if trend is Trend.GROWING:
        return Status("growing", f"{lag_records:,} records wait, and more come than are settled", 3)
    if standing.holding:
        return Status(
            HELD, f"dead letters hold {standing.holding:,} key{'s' * (standing.holding != 1)}: redrive or discard", 1
        )
    return OK


def subscription_status(partitions: Sequence[tuple[int, Status]], *, served: bool) -> Status:
    """The worst of its partitions', which are given with their numbers; `served` says whether it has a live member."""
    found = [(number, status) for number, status in partitions if status.name != PAUSED]
    if partitions and not found:
        return Status(PAUSED, "an operator paused it")
    if not served:
        return Status(NO_MEMBER, "no worker is there")
    if not found:
        return OK
    number, worst = max(found, key=lambda each: each[1].severity)
    if worst.name == "ok":
        return OK if len(found) == len(partitions) else Status(PARTLY_PAUSED, "an operator paused some partitions")
    if len(partitions) == 1:
        return worst
    alike = [each for each, status in found if status.name == worst.name]
    others = f" (and {len(alike) - 1} others)" if len(alike) > 1 else ""
    return Status(worst.name, f"partition {number}{others}: {worst.reason}", worst.severity)


def is_paused(standing: Standing) -> bool:
    """Whether an operator paused it, as its owner says."""
    return OPERATOR in standing.pauses
