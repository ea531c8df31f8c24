"""Compaction: of each key the newest record stays, found through a side table, in small steps."""

from __future__ import annotations

import apsw

from postline.log.sqlite.appending import OFFSET_MASK
from postline.log.sqlite.connection import fetch
from postline.log.sqlite.policy import STEP, Policy, progress_of, remove
from postline.log.sqlite.statements import statements

__all__ = ["compaction_due", "compaction_step", "tombstone_step", "tombstones_due"]


def compaction_due(connection: apsw.Connection, policy: Policy, now_ms: int) -> bool:
    """Whether `compaction_step` would do something; reads one record at most."""
    if not policy.compacted:
        return False
    progress = progress_of(connection, policy)
    first = max(progress.compacted_to, progress.start_offset)
    oldest = fetch(connection, statements("upkeep")["oldest"], (policy.id_of(first), policy.end_id))
    return bool(oldest) and oldest[0][0] <= now_ms - policy.compact_after_ms


def compaction_step(connection: apsw.Connection, policy: Policy, now_ms: int) -> bool:
    """Let some more records that are old enough supersede earlier ones; says if there may be more."""
    sql, progress = statements("upkeep"), progress_of(connection, policy)
    first = max(progress.compacted_to, progress.start_offset)
    rows = fetch(connection, sql["compactable"], (policy.id_of(first), policy.end_id, STEP))
    ripe = [row for row in rows if row[1] <= now_ms - policy.compact_after_ms]
    if not ripe:
        return False
    newest: dict[bytes, tuple[int, bool]] = {}
    superseded = []
    for record_id, _, key, is_tombstone in ripe:
        # Records without a key supersede nothing and stay.
        if key is not None:
            before = newest.get(key)
            superseded += [before[0]] if before else _ids(connection, policy, key)
            newest[key] = (record_id, is_tombstone)
    remove(connection, policy, superseded)
    for key, (record_id, is_tombstone) in newest.items():
        values = (policy.partition_id, key, record_id, now_ms if is_tombstone else None)
        connection.execute(sql["set_latest"], values)
    connection.execute(sql["set_compacted"], (policy.partition_id, (ripe[-1][0] & OFFSET_MASK) + 1))
    return len(ripe) == STEP


def tombstones_due(connection: apsw.Connection, policy: Policy, now_ms: int) -> bool:
    """Whether `tombstone_step` would do something."""
    return bool(policy.compacted) and bool(_old_tombstones(connection, policy, now_ms, 1))


def tombstone_step(connection: apsw.Connection, policy: Policy, now_ms: int) -> bool:
    """Delete some tombstones that readers have had their time to see; says if there may be more."""
    rows = _old_tombstones(connection, policy, now_ms, STEP)
    for key, _ in rows:
        connection.execute(statements("upkeep")["delete_latest"], (policy.partition_id, key))
    remove(connection, policy, [record_id for _, record_id in rows])
    return len(rows) == STEP


def _old_tombstones(connection: apsw.Connection, policy: Policy, now_ms: int, limit: int) -> list[tuple[bytes, int]]:
    values = (policy.partition_id, now_ms - policy.tombstone_ms, limit)
    return fetch(connection, statements("upkeep")["old_tombstones"], values)


def _ids(connection: apsw.Connection, policy: Policy, key: bytes) -> list[int]:
    """The record that was the key's newest before this step, as a list of one or none."""
    rows = fetch(connection, statements("upkeep")["latest_id"], (policy.partition_id, key))
    return [row[0] for row in rows]
