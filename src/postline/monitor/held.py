"""What waits in a subscription, record by record or key by key, without walking more of it than is shown."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from postline.log.port import Log
from postline.monitor.entries import entries_of
from postline.monitor.views import HeldKeysView, HeldKeyView, HeldView, RecordId
from postline.runtime.entries import DEAD, HELD, DeadEntry, HeldEntry, decode_entry

__all__ = ["Shown", "held_keys", "held_records"]

#: So many dead letters of a partition are looked at for keys that they hold, and so many held records for their keys.
_LETTERS_MAX = 10_000
_RECORDS_MAX = 10_000

#: How a key is shown; None for a record without one.
Shown = Callable[[bytes | None], str | None]


class _Held(NamedTuple):
    partition: int
    offset: int
    entry: HeldEntry
    status: str


async def held_records(log: Log, name: str, shown: Shown, limit: int | None) -> list[HeldView]:
    """The first `limit` records that wait, by partition and offset; all for None. Raises UnknownSubscription."""
    views: list[HeldView] = []
    async for found in _walk(log, name):
        if limit is not None and len(views) >= limit:
            break
        entry = found.entry
        views.append(
            HeldView(
                id=str(RecordId(found.partition, found.offset)),
                key=shown(entry.lane_key),
                status=found.status,
                attempts=entry.attempts,
                next_attempt_ms=entry.due_ms or None,
                error=entry.error,
            )
        )
    return views


async def held_keys(log: Log, name: str, shown: Shown, limit: int) -> HeldKeysView:
    """The first `limit` keys that wait, with what each waits for. Raises UnknownSubscription."""
    keys: dict[tuple[int, bytes | int], HeldKeyView] = {}
    walked, complete = 0, True
    async for found in _walk(log, name):
        # One without a key is by itself.
        place = found.partition, found.offset if found.entry.lane_key is None else found.entry.lane_key
        known = keys.get(place)
        if walked >= _RECORDS_MAX or (known is None and len(keys) >= limit):
            complete = False
            break
        walked += 1
        keys[place] = _first(found, shown) if known is None else known.with_one_more()
    return HeldKeysView(subscription=name, keys=list(keys.values()), complete=complete)


def _first(found: _Held, shown: Shown) -> HeldKeyView:
    return HeldKeyView(
        key=shown(found.entry.lane_key),
        partition=found.partition,
        offset=found.offset,
        status=found.status,
        records=1,
        attempts=found.entry.attempts,
        next_attempt_ms=found.entry.due_ms or None,
        error=found.entry.error,
    )


async def _walk(log: Log, name: str) -> AsyncIterator[_Held]:
    """All held records, by partition and offset, a page at a time."""
    for info in await log.partitions(name):
        number = info.partition
        behind = await _held_by_letters(log, name, number)
        async for offset, data in entries_of(log, name, number, HELD):
            entry = decode_entry(data, HeldEntry)
            yield _Held(number, offset, entry, _status(entry, entry.lane_key in behind))
            if entry.lane_key is not None:
                behind.add(entry.lane_key)


async def _held_by_letters(log: Log, name: str, partition: int) -> set[bytes | None]:
    found, looked_at = set[bytes | None](), 0
    async for _, data in entries_of(log, name, partition, DEAD):
        dead = decode_entry(data, DeadEntry)
        if dead.holds:
            found.add(dead.lane_key)
        looked_at += 1
        if looked_at >= _LETTERS_MAX:
            break
    return found


def _status(entry: HeldEntry, behind: bool) -> str:
    if entry.due_ms:
        return "retrying"
    if entry.unserved:
        return "unserved"
    return "blocked" if behind else "ready"
