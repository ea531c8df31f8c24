"""The commit unit: fence, positions, partition state and appends of several partitions in one work."""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from postline.log.port import Assignment, CommitUnit
from postline.log.sqlite.appending import Appender, Rows
from postline.log.sqlite.state import apply_changes
from postline.log.sqlite.statements import statements

__all__ = ["apply_unit"]


def apply_unit(
    connection: apsw.Connection,
    subscription_id: int,
    unit: CommitUnit,
    appends: Sequence[Rows | None],
    appender: Appender,
) -> list[Assignment]:
    """Apply what the fence lets pass, inside the writer's transaction; gives what it refused.

    `appends` are the units' records made ready, one for each partition of the unit.
    """
    commit_position = statements("queries")["commit_position"]
    refused: list[Assignment] = []
    passed = Rows()
    for part, rows in zip(unit, appends, strict=True):
        given = part.assignment
        place = (subscription_id, given.partition, given.epoch, part.position, part.progress)
        connection.execute(commit_position, place)
        if not connection.changes():
            refused.append(given)
            continue
        if part.clears or part.puts or part.deletes:
            apply_changes(connection, subscription_id, given.partition, part.clears, part.puts, part.deletes)
        if rows is not None:
            passed.extend(rows)
    if passed.partition_ids:
        # All at once: each statement gives the interpreter away while the write lock is held.
        appender.insert(connection, passed)
    return refused
