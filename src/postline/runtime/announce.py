"""Start-up work of a subscription: which topics are its own, and telling others the types it can handle."""

from __future__ import annotations

from postline.errors import UnknownSubscription
from postline.log.port import Log, TopicSpec
from postline.message import Envelope
from postline.runtime.control import ControlOp, control_record
from postline.runtime.entries import TYPES
from postline.runtime.plan import Plan

__all__ = ["DEAD_LETTERS_KEPT_MS", "announce_types", "own_topics"]

_DAY_MS = 86_400_000

#: How long full copies of dead letters are kept; the source record stays as long as its entry does.
DEAD_LETTERS_KEPT_MS = 90 * _DAY_MS
_CONTROL_KEPT_MS = 30 * _DAY_MS


def own_topics(plan: Plan, partitions: int) -> tuple[TopicSpec, ...]:
    """The subscription's dead-letters and control topics, co-partitioned with its topic."""
    kept = ((plan.dead_letters, DEAD_LETTERS_KEPT_MS), (plan.control, _CONTROL_KEPT_MS))
    return tuple(
        TopicSpec(name=name, partitions=partitions, owner=plan.service, retention_ms=kept_ms) for name, kept_ms in kept
    )


async def announce_types(log: Log, plan: Plan, envelope: Envelope) -> bool:
    """Tell owners of the subscription's partitions which types this version handles; False if there is none yet.

    They may run an older version, which must hold those records instead of filtering them
    (DESIGN §5, guarantee 10). It happens before this process joins; where that makes the subscription, right after,
    since another version may have joined at the same moment.
    """
    try:
        partitions = await log.partitions(plan.name)
    except UnknownSubscription:
        return False
    wanted = {name for name in plan.handlers if name}
    asked = []
    for info in partitions:
        known = {key.decode() for key, _ in await log.peek_state(plan.name, info.partition, TYPES)}
        if missing := tuple(sorted(wanted - known)):
            op = ControlOp(op="types", names=missing)
            asked.append(control_record(plan.control, info.partition, op, envelope))
    if asked:
        await log.append(asked)
    return True
