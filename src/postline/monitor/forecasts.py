"""How fast subscriptions drain, when they will be at the end, and how much of their topics' bounds they use."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from postline.clock import Clock
from postline.contracts import Bound
from postline.log.port import Log, TopicSpec
from postline.monitor.views import BoundView, SubscriptionView
from postline.registry import SCHEMAS_TOPIC, DeclaredBounds
from postline.runtime.lagging import Flow

__all__ = ["Forecasts"]


#: How often it is asked which topics there are, for views of a single subscription.
_TOPICS_SECONDS = 30.0


class Forecasts:
    """Remembers the looks of the last seconds, and what owners declared."""

    def __init__(self, log: Log, clock: Clock) -> None:
        self._log, self._clock = log, clock
        self._flows: dict[str, Flow] = defaultdict(Flow)
        self._declared: dict[str, DeclaredBounds] = {}
        self._look_at = float("-inf")

    async def bounds(self, topics: Iterable[TopicSpec] | None = None) -> dict[str, Bound]:
        """The bounds by their topics, whatever the namespace; `topics` are all of the log, asked for if need be."""
        if topics is None and self._clock.monotonic() >= self._look_at:
            topics = await self._log.topics()
        if topics is not None:
            self._look_at = self._clock.monotonic() + _TOPICS_SECONDS
        for spec in topics or ():
            if spec.name.endswith(SCHEMAS_TOPIC) and spec.name not in self._declared:
                self._declared[spec.name] = DeclaredBounds(self._log, spec.name)
        found: dict[str, Bound] = {}
        for declared in self._declared.values():
            found |= await declared.all()
        return found

    def completed(self, view: SubscriptionView, bounds: dict[str, Bound]) -> SubscriptionView:
        """The view with its rates, from the second look on, and its part of the bound."""
        flow = self._flows[view.name]
        passed = sum(max(each.position, each.position + each.overtaken) + each.ahead for each in view.partitions)
        flow.note(self._clock.monotonic(), passed, view.lag_records)
        drained, added = flow.drained_per_second, flow.added_per_second
        return msgspec.structs.replace(
            view,
            drained_per_second=drained,
            added_per_second=added,
            drains_in_seconds=drains_in(view.lag_records, drained, added),
            bound=_bound_view(view, bounds.get(view.topic)),
        )


def drains_in(lag_records: int, drained: float | None, added: float | None) -> float | None:
    """When the end is reached if both go on as they did; None where it isn't, or nothing is known."""
    if not lag_records:
        return 0.0
    if drained is None or added is None or drained <= added:
        return None
    return lag_records / (drained - added)


def _bound_view(view: SubscriptionView, bound: Bound | None) -> BoundView | None:
    if bound is None or view.name not in bound.subscriptions:
        return None
    return BoundView(
        records=bound.records,
        seconds=None if bound.age is None else bound.age.total_seconds(),
        bytes=bound.bytes,
        used=bound.used(view.lag_records, view.lag_seconds),
    )
