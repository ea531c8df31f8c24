"""Moving a subscription's position: what it clears, what it drops, and the new counts it begins."""

from __future__ import annotations

import logging

from postline.log.port import Assignment, PartitionCommit
from postline.logs.events import event
from postline.runtime.control import CONTROL_POSITION, OPERATOR, ControlOp, position_entry
from postline.runtime.entries import (
    CONTROL,
    DEAD,
    EDITS,
    HELD,
    USER_STATE,
    DeadEntry,
    decode_entry,
    keys_of,
    offset_key,
    offset_of,
    pages_of,
)
from postline.runtime.partition import OwnedPartition
from postline.runtime.progress import Progress
from postline.runtime.standing import HeldCounts, standing_of
from postline.runtime.unit import PendingUnit

__all__ = ["reset_commit"]

_log = logging.getLogger("postline.runtime")


async def reset_commit(owned: OwnedPartition, op: ControlOp, control_offset: int) -> tuple[PartitionCommit, Assignment]:
    """The commit that moves an idle, fully committed partition, and its assignment as it is then.

    Held records and dead letters at or above the new position are dropped, since they will be read
    again; held ones below it count as discarded; dead letters below it stay.
    """
    target = await _target(owned, op)
    before = owned.window.progress
    unit = PendingUnit()
    discarded = 0
    held = [offset_of(key) for key in await keys_of(owned, HELD)]
    for offset in held:
        unit.delete(HELD, offset_key(offset))
        discarded += offset < target
    if owned.answers is not None:
        await owned.answers.reset(unit, [offset for offset in held if offset < target], target)
    kept = HeldCounts()
    async for page in pages_of(owned, DEAD):
        for key, data in page:
            if offset_of(key) >= target:
                unit.delete(DEAD, key)
            else:
                dead = decode_entry(data, DeadEntry)
                kept.bury(dead.failed_ms, holds=dead.holds)
    gone = {*held, *(offset_of(key) for place, key in unit.changes if place == DEAD)}
    for offset in gone & owned.holding.edits.by.keys():
        unit.delete(EDITS, offset_key(offset))
    if not op.keep_state:
        unit.clear(USER_STATE)
    unit.put(CONTROL, CONTROL_POSITION, position_entry(control_offset, owned.control_topic))
    progress = Progress(
        generation=before.generation + 1,
        start=target,
        discarded_by_resets=before.discarded_by_resets + discarded,
        standing=standing_of(owned.plan, kept, {OPERATOR} if owned.paused_for(OPERATOR) else set(), []),
    )
    _log.warning(
        "subscription %s moves %s partition %d from %d to %d and discards %d held records",
        *(owned.plan.name, owned.topic, owned.partition, owned.window.position, target, discarded),
        extra=event(
            "partition.reset",
            subscription=owned.plan.name,
            topic=owned.topic,
            partition=owned.partition,
            offset=target,
            discarded=discarded,
        ),
    )
    old = owned.assignment
    moved = Assignment(old.subscription, old.topic, old.partition, old.epoch, target, progress.encode())
    return unit.commit(old, target, moved.progress), moved


async def _target(owned: OwnedPartition, op: ControlOp) -> int:
    log = owned.around.log
    bounds = (await log.bounds(owned.topic))[owned.partition]
    wanted = op.offset
    if wanted is None:
        wanted = await log.offset_at(owned.topic, owned.partition, op.time_ms or 0)
    return min(max(wanted, bounds.start), bounds.end)
