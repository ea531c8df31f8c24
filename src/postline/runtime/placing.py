"""Where the entries of partition state belong when a topic gets more partitions."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import msgspec

from postline.contracts import Partitioner
from postline.errors import UsageError
from postline.log.needs import Placer, StateEntry
from postline.runtime.control import PAUSED
from postline.runtime.entries import (
    ANSWERED,
    CANCELLED,
    CONTROL,
    DEAD,
    DEDUP,
    DEDUP_ORDER,
    EARLY,
    EDITS,
    HELD,
    HISTORY,
    JOINED,
    LATER,
    PRIORITY,
    SCHEDULES,
    TIMER_NOTES,
    TIMERS,
    TYPES,
    UNIQUE,
    USER_STATE,
    TimerEntry,
    decode_entry,
    offset_key,
    offset_of,
)

__all__ = ["state_placer"]

#: In a mark that came from another partition, instead of an offset: no record has it, so that none is taken for the
#: one that left the mark.
_ELSEWHERE = b"\xff" * 8

#: The key whose partition an entry belongs to; None for one that stays where it is.
_BY_HOME: dict[str, Callable[[StateEntry], bytes | None]] = {
    USER_STATE: lambda entry: entry.key,
    SCHEDULES: lambda entry: entry.key,
    TIMERS: lambda entry: decode_entry(entry.value, TimerEntry).home,
    # They belong to messages that wait where their tokens say.
    TIMER_NOTES: lambda entry: None,
}


def state_placer(before: int, partitions: int, ends: Sequence[int]) -> Placer:
    """Places state for a topic that goes from `before` to `partitions`; `ends` are the partitions' next offsets.

    A key's state goes where the key goes. A mark of deduplication doesn't tell its key, so it stays and is copied to
    every partition that a key of its own can go to. Types that are registered, and an operator's pause, count in the
    new partitions too.
    """
    return _Placing(before, partitions, ends).place


class _Placing:
    def __init__(self, before: int, partitions: int, ends: Sequence[int]) -> None:
        self._before, self._partitions, self._ends = before, partitions, ends
        self._copies: dict[str, Callable[[StateEntry], list[StateEntry]]] = {
            TYPES: lambda entry: [_moved(entry, each) for each in range(before, partitions)],
            PRIORITY: lambda entry: [_moved(entry, each) for each in range(before, partitions)],
            CONTROL: self._pause,
            DEDUP: lambda entry: self._to_others(entry, value=_ELSEWHERE + entry.value[8:]),
            DEDUP_ORDER: self._order,
            CANCELLED: self._to_others,
        }

    def place(self, entry: StateEntry, count: int) -> list[StateEntry]:
        """The entry's places among `count` partitions: those after, or those before when it is taken back."""
        if entry.namespace in (HELD, DEAD, EDITS, ANSWERED, LATER, EARLY, UNIQUE, JOINED):
            return [entry]
        if entry.namespace == HISTORY:
            return [entry] if entry.partition < count else []
        if entry.namespace in _BY_HOME:
            home = _BY_HOME[entry.namespace](entry)
            return [entry if home is None else _moved(entry, _partition_of(count)(home))]
        if entry.namespace not in self._copies:
            raise UsageError(
                f"State of namespace {entry.namespace!r} can't be moved by this version.",
                remedy="Run the version of Postline that wrote it.",
            )
        if count == self._before:
            return [entry] if entry.partition < count else []
        return [entry, *self._copies[entry.namespace](entry)]

    def _pause(self, entry: StateEntry) -> list[StateEntry]:
        wanted = entry.key == PAUSED
        return [each for each in self._to_others(entry) if wanted and each.partition >= self._before]

    def _order(self, entry: StateEntry) -> list[StateEntry]:
        """Places in the order of forgetting: as many later records shall come there, from its partition's end on."""
        if offset_of(entry.key[:8]) == self._end_of(entry.partition):
            return []  # it came here just now
        return [
            msgspec.structs.replace(each, key=offset_key(self._end_of(each.partition)) + entry.key[8:])
            for each in self._to_others(entry)
        ]

    def _to_others(self, entry: StateEntry, value: bytes | None = None) -> list[StateEntry]:
        """Copies for all other partitions that keys of this one can go to."""
        step = math.gcd(self._before, self._partitions)
        places = range(entry.partition % step, self._partitions, step)
        kept = entry if value is None else msgspec.structs.replace(entry, value=value)
        return [_moved(kept, each) for each in places if each != entry.partition]

    def _end_of(self, partition: int) -> int:
        return self._ends[partition] if partition < len(self._ends) else 0


@functools.cache
def _partition_of(partitions: int) -> Callable[[bytes], int]:
    return Partitioner(partitions).partition_of


def _moved(entry: StateEntry, partition: int) -> StateEntry:
    return msgspec.structs.replace(entry, partition=partition)
