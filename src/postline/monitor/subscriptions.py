"""Views of subscriptions out of one survey of the log: nothing is counted that owners have not counted already."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import msgspec

from postline.clock import Clock
from postline.log.port import Bounds, Group, Log, PartitionInfo, Survey
from postline.monitor.ages import Ages
from postline.monitor.alarms import alarm_of
from postline.monitor.causes import causes_of
from postline.monitor.entries import entries_of
from postline.monitor.forecasts import Forecasts
from postline.monitor.statuses import GONE, Status, is_paused, partition_status, subscription_status
from postline.monitor.views import MemberView, PartitionView, PriorityView, SubscriptionView
from postline.monitor.windows import Windows
from postline.runtime.control import OPERATOR, PAUSED
from postline.runtime.entries import (
    CONTROL,
    DEAD,
    HELD,
    PRIORITY,
    DeadEntry,
    HeldEntry,
    PriorityEntry,
    decode_entry,
)
from postline.runtime.lagging import Behind, PartitionLag, lag_in
from postline.runtime.progress import Standing

__all__ = ["Subscriptions"]

#: So many entries are counted of a partition whose last owner, of an older version, did not tell their number.
_COUNTED_MAX = 10_000
#: A new owner's first commit may come after a look: so it is read again, although it hardly ever changes.
_PRIORITY_SECONDS = 60.0


class Subscriptions:
    """Makes the views. Remembers looks, times of records, and what never changes. Event loop only."""

    def __init__(self, log: Log, clock: Clock) -> None:
        self._log, self._clock = log, clock
        self._forecasts = Forecasts(log, clock)
        self._ages, self._windows = Ages(log), Windows(clock)
        #: By subscription: under which owner they were read, until when they count, and what was found.
        self._priorities: dict[str, tuple[int, float, PriorityView | None]] = {}

    async def views(self, survey: Survey, *, all_of_them: bool) -> list[SubscriptionView]:
        """All subscriptions of the survey, by name. Raises LogUnavailable."""
        declared = await self._forecasts.bounds(survey.topics if all_of_them else None)
        lags = {group.info.name: _lags(group, survey.bounds.get(group.info.topic, [])) for group in survey.groups}
        behind = [
            (group.info.name, Behind(group.info.topic, number, lag))
            for group in survey.groups
            for number, lag in enumerate(lags[group.info.name])
            if lag.records
        ]
        times = await self._ages.oldest_ms([each for _, each in behind])
        oldest = {(name, each.partition): at for (name, each), at in zip(behind, times, strict=True)}
        if all_of_them:
            self._forget_others({group.info.name for group in survey.groups})
        found = []
        for group in survey.groups:
            standings = [
                await self._standing(group.info.name, stored, lag)
                for stored, lag in zip(group.partitions, lags[group.info.name], strict=True)
            ]
            partitions = self._partitions(group, lags[group.info.name], standings, oldest)
            bounds = survey.bounds.get(group.info.topic)
            prioritized = any(standing.prioritized for standing in standings[:1])
            view = msgspec.structs.replace(
                _summed(group, bounds, partitions, await self._priority(group) if prioritized else None),
                causes=causes_of(group.partitions, standings),
                dead_letters_alarm=await alarm_of(self._log, group.info.name, standings, self._clock.now_ms()),
            )
            found.append(self._forecasts.completed(view, declared))
        return found

    def _forget_others(self, names: set[str]) -> None:
        self._windows.forget_others(names)
        self._priorities = {name: told for name, told in self._priorities.items() if name in names}

    def _partitions(
        self,
        group: Group,
        lags: Sequence[PartitionLag],
        standings: Sequence[Standing],
        oldest: dict[tuple[str, int], int | None],
    ) -> list[tuple[PartitionView, Status]]:
        now_ms, name, views = self._clock.now_ms(), group.info.name, []
        live = {member.member for member in group.members}
        for stored, lag, standing in zip(group.partitions, lags, standings, strict=True):
            at_ms = oldest.get((name, stored.partition))
            lag_seconds = 0.0 if at_ms is None else max(0, now_ms - at_ms) / 1000
            paused = is_paused(standing)
            status = partition_status(
                standing,
                self._windows.trend(name, stored, lag, at_ms),
                owned=stored.owner in live,
                paused=paused,
                lag_records=lag.records,
                lag_seconds=lag_seconds,
            )
            view = PartitionView(
                partition=stored.partition,
                status=status.name,
                reason=status.reason,
                position=stored.position,
                end=lag.first + lag.ahead + lag.records,
                lag_records=lag.records,
                lag_seconds=lag_seconds,
                overtaken=lag.first - stored.position,
                ahead=lag.ahead,
                retrying=standing.retrying,
                blocked=standing.blocked,
                unserved=standing.unserved,
                dead_letters=standing.dead_letters,
                holding=standing.holding,
                next_attempt_ms=standing.next_attempt_ms or None,
                paused=paused,
                owner=stored.owner,
                epoch=stored.epoch,
            )
            views.append((view, status))
        return views

    async def _standing(self, name: str, stored: PartitionInfo, lag: PartitionLag) -> Standing:
        """What its owner told; counted here, as far as that is quick, where one of an older version did not."""
        if lag.progress.standing is not None:
            return lag.progress.standing
        if not stored.progress:
            return Standing()  # nothing was ever committed
        return await _counted(self._log, name, stored.partition)

    async def _priority(self, group: Group) -> PriorityView | None:
        """Which priority it is, read again when a partition has gone to another owner: only they write it."""
        first, name, now = group.partitions[0], group.info.name, self._clock.monotonic()
        told = self._priorities.get(name)
        if told is None or told[0] != first.epoch or now >= told[1]:
            found = await self._read_priority(name, first.partition)
            told = self._priorities[name] = (first.epoch, now + _PRIORITY_SECONDS, found)
        return told[2]

    async def _read_priority(self, name: str, partition: int) -> PriorityView | None:
        for _, data in await self._log.peek_state(name, partition, PRIORITY):
            said = decode_entry(data, PriorityEntry)
            return PriorityView(declared_as=said.declared_as, name=said.name, rank=said.rank, share=said.share)
        return None


def _lags(group: Group, bounds: Sequence[Bounds]) -> list[PartitionLag]:
    """Where it stands in each partition; at the end in one that is gone."""
    gone = {stored.partition: Bounds(stored.position, stored.position) for stored in group.partitions}
    there = dict(enumerate(bounds))
    return [lag_in(stored, (gone | there)[stored.partition]) for stored in group.partitions]


def _summed(
    group: Group,
    bounds: Sequence[Bounds] | None,
    found: Sequence[tuple[PartitionView, Status]],
    priority: PriorityView | None,
) -> SubscriptionView:
    partitions = [each for each, _ in found]
    status = subscription_status([(each.partition, status) for each, status in found], served=bool(group.members))
    if bounds is None:
        status = Status(GONE, f"the log has no topic {group.info.topic!r} any more")
    due = [each.next_attempt_ms for each in partitions if each.next_attempt_ms is not None]
    return SubscriptionView(
        name=group.info.name,
        topic=group.info.topic,
        service=group.info.service,
        created_ms=group.info.created_ms,
        status=status.name,
        reason=status.reason,
        lag_records=sum(each.lag_records for each in partitions),
        lag_seconds=max((each.lag_seconds for each in partitions), default=0.0),
        overtaken=sum(each.overtaken for each in partitions),
        held=sum(each.held for each in partitions),
        retrying=sum(each.retrying for each in partitions),
        blocked=sum(each.blocked for each in partitions),
        unserved=sum(each.unserved for each in partitions),
        dead_letters=sum(each.dead_letters for each in partitions),
        holding=sum(each.holding for each in partitions),
        next_attempt_ms=min(due, default=None),
        topic_partitions=len(bounds or ()),
        beyond=sum(each.end - each.start for each in (bounds or ())[len(partitions) :]),
        members=_members(group, partitions),
        partitions=partitions,
        priority=priority,
    )


def _members(group: Group, partitions: Iterable[PartitionView]) -> list[MemberView]:
    return [
        MemberView(
            member=member.member,
            instance=member.instance,
            joined_ms=member.joined_ms,
            partitions=[each.partition for each in partitions if each.owner == member.member],
        )
        for member in group.members
    ]


async def _counted(log: Log, name: str, partition: int) -> Standing:
    """Held records and dead letters counted one by one, up to a bound of each."""
    found, behind = Standing(prioritized=True), set[bytes | None]()
    async for _, data in entries_of(log, name, partition, DEAD):
        dead = decode_entry(data, DeadEntry)
        found.dead_letters += 1
        if dead.holds:
            found.holding += 1
            behind.add(dead.lane_key)
        if found.dead_letters >= _COUNTED_MAX:
            break
    dues: list[int] = []
    async for _, data in entries_of(log, name, partition, HELD):
        _count_held(found, decode_entry(data, HeldEntry), behind, dues)
        if found.held >= _COUNTED_MAX:
            break
    found.next_attempt_ms = min(dues, default=0)
    control: Collection[bytes] = dict(await log.peek_state(name, partition, CONTROL))
    found.pauses = [OPERATOR] if PAUSED in control else []
    return found


def _count_held(found: Standing, entry: HeldEntry, behind: set[bytes | None], dues: list[int]) -> None:
    if entry.due_ms:
        dues.append(entry.due_ms)
        found.retrying += 1
    elif entry.unserved:
        found.unserved += 1
    elif entry.lane_key in behind:
        found.blocked += 1
    else:
        found.retrying += 1  # its turn is next
    if entry.lane_key is not None:
        behind.add(entry.lane_key)
