"""What upkeep knows of one partition, and which of its records held or dead letters still name."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

import apsw

from postline.log.port import PINNING_NAMESPACES
from postline.log.sqlite.appending import OFFSET_BITS, OFFSET_MASK
from postline.log.sqlite.connection import fetch
from postline.log.sqlite.state import get_entries
from postline.log.sqlite.statements import statements

__all__ = ["STEP", "Policy", "Progress", "pinned", "policies", "progress_of", "remove"]

#: Rows that one step looks at: about half a millisecond under the write lock.
STEP = 500


class Policy(NamedTuple):
    """A partition and its topic's rules."""

    partition_id: int
    topic_id: int
    partition: int
    retention_ms: int | None
    retention_bytes: int | None
    compacted: int
    tombstone_ms: int
    compact_after_ms: int

    def id_of(self, offset: int) -> int:
        """The record id of an offset."""
        return self.partition_id << OFFSET_BITS | offset

    @property
    def end_id(self) -> int:
        """Above the ids of all its records."""
        return (self.partition_id + 1) << OFFSET_BITS


class Progress(NamedTuple):
    """How far upkeep has come with a partition; offsets and bytes."""

    start_offset: int
    next_offset: int
    compacted_to: int
    measured_to: int
    bytes: int


def policies(connection: apsw.Connection) -> list[Policy]:
    """All partitions that need upkeep at all."""
    return [Policy(*row) for row in fetch(connection, statements("upkeep")["policies"])]


def progress_of(connection: apsw.Connection, policy: Policy) -> Progress:
    """The partition's progress."""
    return Progress(*fetch(connection, statements("upkeep")["progress"], (policy.partition_id,))[0])


def pinned(connection: apsw.Connection, policy: Policy, ids: Collection[int]) -> set[int]:
    """Those of the record ids that some subscription's held or dead letters name."""
    if not ids:
        return set()
    keys = [(each & OFFSET_MASK).to_bytes(8, "big") for each in ids]
    found: set[int] = set()
    for (subscription_id,) in fetch(connection, statements("upkeep")["subscriptions_of"], (policy.topic_id,)):
        for namespace in PINNING_NAMESPACES:
            entries = get_entries(connection, subscription_id, policy.partition, namespace, keys)
            found.update(policy.id_of(int.from_bytes(key, "big")) for key in entries)
    return found


def remove(connection: apsw.Connection, policy: Policy, ids: Iterable[int]) -> None:
    """Delete single records, or note them as spared while they are pinned."""
    sql = statements("upkeep")
    ids = list(ids)
    keep = pinned(connection, policy, ids)
    measured_to = policy.id_of(progress_of(connection, policy).measured_to)
    freed = 0
    for each in ids:
        if each < measured_to:
            freed += sum(size for (size,) in fetch(connection, sql["size_of"], (each,)))
        connection.execute(sql["spare" if each in keep else "delete_record"], (each,))
    if freed:
        connection.execute(sql["shrink"], (policy.partition_id, freed))
