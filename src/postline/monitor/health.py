"""Which subscriptions lag and handle nothing, and why: two looks at the same figures."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from postline.monitor.causes import standing_causes
from postline.monitor.views import CauseView, PartitionView, SubscriptionView

__all__ = ["HealthView", "SubscriptionHealth", "health_of"]


class SubscriptionHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How a subscription fares."""

    name: str
    #: "ok" (at its end, or going on), or "stalled" (it lags, and handled nothing between the looks).
    status: str
    lag_records: int
    lag_seconds: float
    held: int
    dead_letters: int
    #: What stands in its way: of a stalled one all that is known, else "unknown"; of others what their processes say.
    causes: list[CauseView]


class HealthView(msgspec.Struct, frozen=True, kw_only=True):
    """How all subscriptions of a log fare."""

    healthy: bool
    #: How long was looked.
    seconds: float
    #: Why the log does not answer; "" if it does.
    log_error: str
    subscriptions: list[SubscriptionHealth]


def health_of(before: Sequence[SubscriptionView], after: Sequence[SubscriptionView], seconds: float) -> HealthView:
    """By two looks that are so far apart; who came between them counts as well."""
    first = {view.name: view for view in before}
    found = [_one(first.get(view.name), view, seconds) for view in after]
    healthy = all(each.status == "ok" for each in found)
    return HealthView(healthy=healthy, seconds=seconds, log_error="", subscriptions=found)


def _one(before: SubscriptionView | None, after: SubscriptionView, seconds: float) -> SubscriptionHealth:
    lags = after.lag_records > 0 and after.lag_seconds >= seconds
    stalled = lags and before is not None and _done(before.partitions) == _done(after.partitions)
    return SubscriptionHealth(
        name=after.name,
        status="stalled" if stalled else "ok",
        lag_records=after.lag_records,
        lag_seconds=after.lag_seconds,
        held=after.held,
        dead_letters=after.dead_letters,
        causes=standing_causes(after) if stalled else after.causes,
    )


def _done(partitions: Sequence[PartitionView]) -> list[tuple[int, int, int]]:
    """What changes with each record that is settled or held."""
    return [(each.partition, each.position, each.ahead) for each in partitions]
