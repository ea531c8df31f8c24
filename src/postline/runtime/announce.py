"""Start-up work of a subscription in the log: its own topics, and the types it can handle."""

from __future__ import annotations

from postline.errors import UnknownSubscription
from postline.log.port import Log, TopicSpec
from postline.message import Envelope
from postline.runtime.control import ControlOp, control_record
from postline.runtime.entries import TYPES
from postline.runtime.plan import Plan

__all__ = ["DEAD_LETTERS_KEPT_MS", "announce_types", "create_own_topics"]

_DAY_MS = 86_400_000

#: How long full copies of dead letters are kept; the source record stays as long as its entry does.
DEAD_LETTERS_KEPT_MS = 90 * _DAY_MS
_CONTROL_KEPT_MS = 30 * _DAY_MS


async def create_own_topics(log: Log, plan: Plan, partitions: int) -> None:
    """Make the subscription's dead-letters and control topics, co-partitioned with its topic."""
    for name, kept_ms in ((plan.dead_letters, DEAD_LETTERS_KEPT_MS), (plan.control, _CONTROL_KEPT_MS)):
        await log.create_topic(TopicSpec(name=name, partitions=partitions, owner=plan.service, retention_ms=kept_ms))


async def announce_types(log: Log, plan: Plan, envelope: Envelope) -> None:
    """Tell owners of an existing subscription's partitions which types this version handles.

    They may run an older version, which must hold those records instead of filtering them
    (DESIGN §5, guarantee 10). It happens before this process joins.
    """
    try:
        partitions = await log.partitions(plan.name)
    except UnknownSubscription:
        return
    wanted = {name for name in plan.handlers if name}
    asked = []
    for info in partitions:
        known = {key.decode() for key, _ in await log.peek_state(plan.name, info.partition, TYPES)}
        if missing := tuple(sorted(wanted - known)):
            op = ControlOp(op="types", names=missing)
            asked.append(control_record(plan.control, info.partition, op, envelope))
    if asked:
        await log.append(asked)
