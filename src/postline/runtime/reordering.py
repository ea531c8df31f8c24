"""Held records and dead letters that a version with another `order` kept: the lanes they have under the present one."""

from __future__ import annotations

from collections.abc import Sequence

from postline.runtime.entries import DEAD, HELD, DeadEntry, HeldEntry, encode_entry, offset_key
from postline.runtime.lanes import PARTITION_LANE, LaneOwner, lane_key_of

__all__ = ["fit_dead", "fit_held"]

#: Records read at a time for their keys.
_READ_RECORDS = 100


async def fit_held(owned: LaneOwner, held: Sequence[tuple[int, HeldEntry]]) -> None:
    """Give each entry its lane under the present order; one that had another is written anew."""
    keys = await _keys(owned, held) if owned.plan.order == "key" else {}
    for offset, entry in held:
        lane_key = lane_key_of(owned.plan.order, keys.get(offset, entry.lane_key))
        if lane_key != entry.lane_key:
            entry.lane_key = lane_key
            owned.unit.put(HELD, offset_key(offset), encode_entry(entry))


async def _keys(owned: LaneOwner, held: Sequence[tuple[int, HeldEntry]]) -> dict[int, bytes | None]:
    """The keys of the records whose entries don't name one; a record that is gone keeps its lane until it is missed."""
    unnamed = [offset for offset, entry in held if entry.lane_key is None or entry.lane_key == PARTITION_LANE]
    keys: dict[int, bytes | None] = {}
    for first in range(0, len(unnamed), _READ_RECORDS):
        offsets = unnamed[first : first + _READ_RECORDS]
        for record in await owned.around.log.read_offsets(owned.topic, owned.partition, offsets):
            keys[record[0]] = record[2]
    return keys


def fit_dead(owned: LaneOwner, offset: int, dead: DeadEntry) -> None:
    """The same for a dead letter, which knows its record's key; without a lane to hold it holds nothing."""
    lane_key = lane_key_of(owned.plan.order, dead.key)
    if lane_key != dead.lane_key:
        dead.lane_key, dead.holds = lane_key, dead.holds and lane_key is not None
        owned.unit.put(DEAD, offset_key(offset), encode_entry(dead))
