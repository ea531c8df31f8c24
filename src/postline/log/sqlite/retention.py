"""Retention by age and by size: the oldest records of a partition go, in steps of a few hundred."""

from __future__ import annotations

import apsw

from postline.log.sqlite.appending import OFFSET_MASK
from postline.log.sqlite.connection import fetch
from postline.log.sqlite.policy import STEP, Policy, Progress, pinned, progress_of
from postline.log.sqlite.statements import statements

__all__ = ["measure_step", "retention_due", "retention_step", "spared_step"]


def retention_due(connection: apsw.Connection, policy: Policy, now_ms: int) -> bool:
    """Whether `measure_step` or `retention_step` would do something; reads one record at most."""
    if policy.retention_ms is None and policy.retention_bytes is None:
        return False
    progress = progress_of(connection, policy)
    if policy.retention_bytes is not None:
        unmeasured = max(progress.measured_to, progress.start_offset) < progress.next_offset
        if unmeasured or progress.bytes > policy.retention_bytes:
            return True
    if policy.retention_ms is None:
        return False
    span = (policy.id_of(progress.start_offset), policy.end_id)
    oldest = fetch(connection, statements("upkeep")["oldest"], span)
    return bool(oldest) and oldest[0][0] < now_ms - policy.retention_ms


def measure_step(connection: apsw.Connection, policy: Policy) -> bool:
    """Count the bytes of some more records for retention by size; says if there are more to count."""
    if policy.retention_bytes is None:
        return False
    sql, progress = statements("upkeep"), progress_of(connection, policy)
    first = max(progress.measured_to, progress.start_offset)
    rows = fetch(connection, sql["sizes"], (policy.id_of(first), policy.end_id, STEP))
    more = len(rows) == STEP
    reached = (rows[-1][0] & OFFSET_MASK) + 1 if more else progress.next_offset
    total = progress.bytes + sum(size for _, _, size in rows)
    connection.execute(sql["set_measured"], (policy.partition_id, reached, total))
    return more


def retention_step(connection: apsw.Connection, policy: Policy, now_ms: int) -> bool:
    """Delete some of the oldest records that are over their time; says if there may be more."""
    sql, progress = statements("upkeep"), progress_of(connection, policy)
    first = policy.id_of(progress.start_offset)
    rows = fetch(connection, sql["sizes"], (first, policy.end_id, STEP))
    count, total = _count_over(rows, policy, progress, now_ms)
    if count == 0:
        return False
    emptied = count == len(rows) < STEP
    cut = policy.id_of(progress.next_offset) if emptied else rows[count - 1][0] + 1
    for each in pinned(connection, policy, [row[0] for row in rows[:count]]):
        connection.execute(sql["spare"], (each,))
    if policy.compacted:
        connection.execute(sql["forget_latest"], (policy.partition_id, first, cut))
    connection.execute(sql["delete_range"], (first, cut))
    connection.execute(sql["set_start"], (policy.partition_id, cut & OFFSET_MASK, total))
    return count == STEP


def _count_over(rows: list[tuple[int, int, int]], policy: Policy, progress: Progress, now_ms: int) -> tuple[int, int]:
    """How many of the first rows must go, and the partition's measured bytes without them."""
    oldest = -1 if policy.retention_ms is None else now_ms - policy.retention_ms
    limit, total = policy.retention_bytes, progress.bytes
    measured_to = policy.id_of(progress.measured_to)
    for count, (record_id, timestamp, size) in enumerate(rows):
        over = limit is not None and total > limit
        if timestamp >= oldest and not over:
            return count, total
        if record_id < measured_to:
            total -= size
    return len(rows), total


def spared_step(connection: apsw.Connection, policy: Policy, after_id: int) -> int | None:
    """Delete spared records that nothing names any more; gives where to go on, None at the end."""
    sql = statements("upkeep")
    span = (max(after_id, policy.id_of(0)), policy.end_id, STEP)
    ids = [row[0] for row in fetch(connection, sql["spared_after"], span)]
    for each in set(ids) - pinned(connection, policy, ids):
        connection.execute(sql["delete_record"], (each,))
        connection.execute(sql["unspare"], (each,))
    return ids[-1] + 1 if len(ids) == STEP else None
