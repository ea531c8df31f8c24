"""How many workers a backlog needs: a pure function of what was seen so far, without clock, log or processes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from postline.monitor.paces import BUSY_SHARE, Load, Pace

__all__ = ["Decision", "DemandView", "Look", "Policy", "Scale", "advance"]

#: A worker less must do what comes in with so much of what it can.
_SPARE_SHARE = 0.8
#: How long new workers may take to get their partitions before more are added regardless.
_JOIN_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """Between how many workers, and by which times."""

    workers_min: int
    workers_max: int
    #: In what time a backlog shall be handled.
    drain_seconds: float = 60.0
    #: How long fewer workers must have been enough, and nothing been changed, before one is taken away.
    cool_down_seconds: float = 120.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What was seen at one steady time: how many workers there shall be, and what they have to do."""

    at: float
    workers: int
    loads: tuple[Load, ...]
    #: How long it took to see that, up to then, in seconds.
    took: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """What is remembered from look to look. Bounded: one pace for each subscription."""

    paces: Mapping[str, Pace] = field(default_factory=dict)
    #: When the number was changed, by the decision of a look; None if never.
    changed_at: float | None = None
    #: Since when one worker less would do; None where it would not.
    spare_since: float | None = None


class DemandView(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription's part in a decision."""

    name: str
    partitions: int
    backlog: int
    #: Live processes that work for it.
    workers: int
    handled_per_second_per_worker: float
    #: Whether that was measured with enough to do; else a worker may handle more.
    measured: bool
    added_per_second: float
    #: What the backlog takes them, if nothing more came; None where that is not known.
    drain_seconds: float | None


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """How many workers there shall be, and why."""

    desired: int
    workers: int
    reason: str
    #: Over all subscriptions.
    backlog: int
    #: The longest of all subscriptions'; None where that is not known.
    drain_seconds: float | None
    subscriptions: list[DemandView]


@dataclass(frozen=True, slots=True)
class _Wish:
    """What one subscription asks for: a number of workers in all, and why."""

    workers: int
    reason: str
    spare: bool = False
    #: How many would be needed, if there were enough to do for each; and why there is not.
    needed: int = 0
    limit: str = ""


def advance(policy: Policy, scale: Scale, look: Look) -> tuple[Scale, Decision]:
    """Decide on one look: what to remember for the next one, and the decision.

    The number stays within the policy's. It rises at once by as many as the backlog needs, up to the partitions that
    have something to read, and falls by one at a time after the cool-down.
    """
    paces = {
        load.name: Pace.of(scale.paces.get(load.name), load, look.at, policy.drain_seconds, look.took)
        for load in look.loads
    }
    spare_since, (desired, reason) = scale.spare_since, _bounded(policy, look.workers)
    if not reason:
        wishes = [_wish(policy, paces[load.name], look) for load in look.loads]
        wish = max(wishes, key=lambda each: (each.workers, not each.spare), default=_NOTHING)
        spare = bool(wishes) and all(each.spare for each in wishes)
        spare_since = (look.at if spare_since is None else spare_since) if spare else None
        desired, reason = _wished(policy, scale, look, wish, spare_since)
    changed = desired != look.workers
    kept = Scale(
        paces=paces,
        changed_at=look.at if changed else scale.changed_at,
        spare_since=None if changed else spare_since,
    )
    return kept, _decision(look, paces, desired, reason)


def _bounded(policy: Policy, workers: int) -> tuple[int, str]:
    """The nearest number within the policy's, with a reason if it is another one."""
    if workers < policy.workers_min:
        return policy.workers_min, f"there shall be {policy.workers_min} at least"
    if workers > policy.workers_max:
        return policy.workers_max, f"there shall be {policy.workers_max} at most"
    return workers, ""


def _wished(policy: Policy, scale: Scale, look: Look, wish: _Wish, spare_since: float | None) -> tuple[int, str]:
    """What the subscriptions ask for, as far as it may be done now."""
    changed_at = -math.inf if scale.changed_at is None else scale.changed_at
    if wish.workers > look.workers:
        return _more(policy, look, wish, look.at - changed_at)
    if spare_since is None or look.workers <= policy.workers_min:
        return look.workers, wish.reason
    waited = look.at - spare_since  # which begins anew with each change
    if waited < policy.cool_down_seconds:
        return look.workers, f"{look.workers - 1} would do, for {waited:.0f} of {policy.cool_down_seconds:g} s"
    return look.workers - 1, f"{wish.reason}; {look.workers - 1} would have done for {waited:.0f} s"


def _more(policy: Policy, look: Look, wish: _Wish, unchanged_seconds: float) -> tuple[int, str]:
    """More workers, unless those of the last time have not shown yet what they do."""
    if unchanged_seconds < _JOIN_SECONDS and _joining(look):
        return look.workers, f"waits until all {look.workers} workers have joined"
    if unchanged_seconds < min(_JOIN_SECONDS, policy.drain_seconds / 4):
        return look.workers, f"waits for what {look.workers} workers do"
    desired = min(wish.workers, policy.workers_max)
    if desired == wish.needed:
        return desired, f"{wish.reason}; {desired} do it in time"
    return desired, f"{wish.reason}; {f'{desired} is the most' if desired == policy.workers_max else wish.limit}"


def _joining(look: Look) -> bool:
    return any(load.members < look.workers for load in look.loads)


# -- what one subscription asks for ---------------------------------------------------------------

_NOTHING = _Wish(0, "no subscription has joined yet")


def _wish(policy: Policy, pace: Pace, look: Look) -> _Wish:
    load, drain = pace.load, policy.drain_seconds
    # Others beside this team work for it too: another host's, say.
    others = max(0, load.members - look.workers)
    if load.obstacle or not load.members:
        return _Wish(look.workers, f"{load.name}: {load.obstacle or 'no worker has joined'}", spare=not load.backlog)
    spare = _would_do(pace, look.workers + others - 1, drain)
    if pace.stands_still(drain):
        said = f"{load.name}: nothing was handled for {pace.at - pace.since:.0f} s; more workers are no remedy"
        return _Wish(look.workers, said, spare)
    if (needed := _needed(pace, drain) - others) > look.workers:
        return _more_wished(
            pace, look.workers, needed, others, f"{load.name}: {_said(pace)}; the target is {drain:g} s"
        )
    return _Wish(look.workers, f"{load.name}: {_said(pace)}", spare)


def _more_wished(pace: Pace, workers: int, needed: int, others: int, reason: str) -> _Wish:
    """More, but no more than there are partitions with something to read: the rest would have nothing to do."""
    limit = f"{pace.load.backlogged} of {pace.load.partitions} partitions have something to read"
    able = min(needed, pace.load.backlogged - others)
    if able > workers:
        return _Wish(able, reason, needed=needed, limit=limit)
    return _Wish(workers, f"{reason}; {limit}")


def _needed(pace: Pace, drain_seconds: float) -> int:
    """How many it takes to handle what is there within the target, and what comes in meanwhile; 0 if that is so."""
    load, capacity = pace.load, pace.capacity
    if not pace.exact or load.backlog < capacity * drain_seconds * BUSY_SHARE:
        return 0
    # What it will be after another such time, if it goes on so.
    foreseen = load.backlog + max(0.0, pace.added - capacity) * drain_seconds
    if foreseen <= capacity * drain_seconds:
        return 0
    return math.ceil((pace.added + load.backlog / drain_seconds) / pace.per_worker)


def _would_do(pace: Pace, workers: int, drain_seconds: float) -> bool:
    """Whether so many handle what comes in, with something to spare, and the backlog in half the target."""
    load = pace.load
    if not pace.exact:
        return load.backlog <= pace.capacity * drain_seconds * BUSY_SHARE
    return pace.added + 2 * load.backlog / drain_seconds <= _SPARE_SHARE * workers * pace.per_worker


def _said(pace: Pace) -> str:
    takes = pace.drain_seconds
    behind = f"{pace.load.backlog:,} to read" + (f" take {takes:.0f} s" if takes else "")
    return f"{behind}; {pace.added:,.0f}/s come in, one worker does {pace.per_worker:,.0f}/s"


def _decision(look: Look, paces: dict[str, Pace], desired: int, reason: str) -> Decision:
    drains = [paces[load.name].drain_seconds for load in look.loads]
    known = [each for each in drains if each is not None]
    return Decision(
        desired=desired,
        workers=look.workers,
        reason=reason,
        backlog=sum(load.backlog for load in look.loads),
        drain_seconds=max(known, default=0.0) if len(known) == len(drains) else None,
        subscriptions=[_view(paces[load.name]) for load in look.loads],
    )


def _view(pace: Pace) -> DemandView:
    takes = pace.drain_seconds
    return DemandView(
        name=pace.load.name,
        partitions=pace.load.partitions,
        backlog=pace.load.backlog,
        workers=pace.load.members,
        handled_per_second_per_worker=round(pace.per_worker, 3),
        measured=pace.exact,
        added_per_second=round(pace.added, 3),
        drain_seconds=None if takes is None else round(takes, 3),
    )
