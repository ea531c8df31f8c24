"""What waits for its time in a log: delayed messages and periodic schedules, as every view shows them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec

from postline.log.port import Log
from postline.runtime.delays import DelayToken, unpack_append
from postline.runtime.entries import SCHEDULES, TIMERS, TimerEntry, decode_entry
from postline.runtime.timers import APPEND
from postline.schedules import read_planned

__all__ = ["DelayedView", "ScheduleView", "WaitingView", "waiting_of"]

_PAGE = 1_000


class DelayedView(msgspec.Struct, frozen=True, kw_only=True):
    """A message that leaves later."""

    token: str
    due_ms: int
    partition: int
    id: str
    type: str
    #: Where it goes.
    topic: str
    key: str | None


class ScheduleView(msgspec.Struct, frozen=True, kw_only=True):
    """A periodic schedule, as the owner of its partition plans it."""

    name: str
    rule: str
    partition: int
    next_ms: int


class WaitingView(msgspec.Struct, frozen=True, kw_only=True):
    """What waits in one subscription."""

    subscription: str
    schedules: list[ScheduleView]
    #: The next ones, the earliest first.
    delayed: list[DelayedView]
    #: There are more than were asked for.
    more: bool


async def waiting_of(log: Log, subscription: str, limit: int) -> WaitingView:
    """A subscription's schedules, and its next `limit` delayed messages. Raises UnknownSubscription, LogError."""
    schedules: list[ScheduleView] = []
    delayed: list[DelayedView] = []
    for info in await log.partitions(subscription):
        schedules += [each async for each in _schedules(log, subscription, info.partition)]
        delayed += await _delayed(log, subscription, info.partition, limit + 1)
    delayed.sort(key=lambda each: (each.due_ms, each.id))
    return WaitingView(
        subscription=subscription,
        schedules=sorted(schedules, key=lambda each: each.name),
        delayed=delayed[:limit],
        more=len(delayed) > limit,
    )


async def _schedules(log: Log, subscription: str, partition: int) -> AsyncIterator[ScheduleView]:
    after = b""
    while page := await log.peek_state(subscription, partition, SCHEDULES, after=after, limit=_PAGE):
        for key, data in page:
            planned = read_planned(data)
            yield ScheduleView(name=key.decode(), rule=planned.rule, partition=partition, next_ms=planned.planned_ms)
        after = page[-1][0]


async def _delayed(log: Log, subscription: str, partition: int, limit: int) -> list[DelayedView]:
    found: list[DelayedView] = []
    after = b""
    while len(found) < limit and (
        page := await log.peek_state(subscription, partition, TIMERS, after=after, limit=min(limit, _PAGE))
    ):
        found += _views(subscription, partition, [decode_entry(data, TimerEntry) for _, data in page])
        after = page[-1][0]
    return found[:limit]


def _views(subscription: str, partition: int, entries: Sequence[TimerEntry]) -> list[DelayedView]:
    views = []
    for entry in entries:
        if entry.kind != APPEND:
            continue
        append, _ = unpack_append(entry.payload)
        views.append(
            DelayedView(
                token=str(DelayToken(subscription, partition, entry.due_ms, entry.order, entry.token)),
                due_ms=entry.due_ms,
                partition=partition,
                id=append.envelope.id,
                type=append.envelope.type,
                topic=append.topic,
                key=None if append.key is None else append.key.decode("utf-8", "backslashreplace"),
            )
        )
    return views
