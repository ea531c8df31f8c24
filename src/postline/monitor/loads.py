"""What the subscriptions of some services have to do, out of the read model; and advice on workers, look by look."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeAlias

from postline.clock import Clock
from postline.monitor.paces import Load
from postline.monitor.reading import Monitor
from postline.monitor.scaling import Decision, Look, Policy, Scale, advance
from postline.monitor.views import SubscriptionView

__all__ = ["LOOK_SECONDS_MIN", "Adviser", "Source", "declared_name", "loads_in", "loads_of"]

#: Causes that more workers would not mend, and may make worse.
_OBSTACLES = ("breaker", "bound")
#: So many policies are remembered: whoever asks may name any.
_POLICIES_MAX = 8
#: An answer counts as long; rates over less mean little.
LOOK_SECONDS_MIN = 1.0
#: A log as it is read, and which of its subscriptions count.
Source: TypeAlias = tuple[Monitor, Callable[[SubscriptionView], bool]]


async def loads_in(sources: Iterable[Source]) -> tuple[Load, ...]:
    """What subscriptions on these logs have to do. Raises LogError."""
    return tuple(
        [load for monitor, counts in sources for load in loads_of(filter(counts, await monitor.subscriptions()))]
    )


def declared_name(view: SubscriptionView) -> str:
    """Under which it was declared: those of several priorities have one in common."""
    return view.name if view.priority is None else view.priority.declared_as


def loads_of(views: Iterable[SubscriptionView]) -> tuple[Load, ...]:
    """What live subscriptions have to do, by name; one with priorities is one, as it has one crew.

    Those without a live member are left out: who reads them no more must not keep workers.
    """
    by_name: dict[str, list[SubscriptionView]] = defaultdict(list)
    for view in views:
        if view.members:
            by_name[declared_name(view)].append(view)
    return tuple(_load(name, found) for name, found in sorted(by_name.items()))


def _load(name: str, views: Sequence[SubscriptionView]) -> Load:
    # None of these are lag that workers could work at: nobody may read there.
    running = [each for view in views for each in view.partitions if not each.paused]
    everything = [each for view in views for each in view.partitions]
    obstacles = [cause.said for view in views for cause in view.causes if cause.kind in _OBSTACLES]
    return Load(
        name=name,
        partitions=max(len(view.partitions) for view in views),
        backlogged=len({each.partition for each in running if each.lag_records}),
        backlog=sum(each.lag_records for each in running),
        passed=sum(each.position + max(0, each.overtaken) + each.ahead for each in everything),
        end=sum(each.end for each in everything),
        members=max(len(view.members) for view in views),
        obstacle=obstacles[0] if obstacles else "",
    )


class _Answer(NamedTuple):
    """The last one by a policy: what is remembered, when it was looked, and what was said."""

    scale: Scale
    at: float
    decision: Decision


class Adviser:
    """Looks at logs when asked, and says how many processes their services should have, wherever they run.

    For an autoscaler that has a cool-down of its own: the number is that of processes which live now, or more of them
    by as many as the backlog needs, or one less. What was seen is remembered from one question to the next; a first
    one waits `first_seconds`, for a second look. Event loop only.
    """

    def __init__(self, sources: Sequence[Source], clock: Clock, first_seconds: float = LOOK_SECONDS_MIN) -> None:
        self._sources, self._clock, self._first_seconds = sources, clock, first_seconds
        #: For each policy, the newest last.
        self._answers: dict[Policy, _Answer] = {}

    async def advice(self, policy: Policy) -> Decision:
        """How many there should be; the policy's cool-down is left to who asks. Raises LogError."""
        policy = replace(policy, cool_down_seconds=0.0)
        known = self._answers.get(policy)
        if known is None:
            known = await self._answer(policy, Scale())
            await self._clock.sleep(self._first_seconds)
        elif self._clock.monotonic() - known.at < LOOK_SECONDS_MIN:
            return known.decision
        return (await self._answer(policy, known.scale)).decision

    async def _answer(self, policy: Policy, scale: Scale) -> _Answer:
        began = self._clock.monotonic()
        loads = await loads_in(self._sources)
        at = self._clock.monotonic()
        workers = max((load.members for load in loads), default=policy.workers_min)
        scale, decision = advance(policy, scale, Look(at=at, workers=workers, loads=loads, took=at - began))
        # Nothing was changed: who asked may do so, or not.
        answer = _Answer(replace(scale, changed_at=None), at, decision)
        self._answers.pop(policy, None)
        self._answers[policy] = answer
        while len(self._answers) > _POLICIES_MAX:
            del self._answers[next(iter(self._answers))]
        return answer
