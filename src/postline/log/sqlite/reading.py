"""Reads of topics and records: short, complete and synchronous, on the event loop's own connection."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple

import apsw

from postline.errors import UnknownTopic, UsageError
from postline.log.port import Bounds, Record, TopicSpec
from postline.log.sqlite.appending import OFFSET_BITS
from postline.log.sqlite.connection import fetch
from postline.log.sqlite.statements import filled, statements

__all__ = ["Reader", "TopicEntry", "topic_spec", "trimmed"]

_FIRST_LOOK = 16
#: So many offsets are worth a look at how close together they lie: a stretch costs less than to look each up.
_STRETCH_RECORDS = 16
_value = itemgetter(4)
_TOPIC_COLUMNS = (
    "name",
    "partitions",
    "owner",
    "key",
    "retention_ms",
    "retention_bytes",
    "compacted",
    "tombstone_ms",
    "compact_after_ms",
)


class TopicEntry(NamedTuple):
    """What never changes about a topic."""

    id: int
    #: Partition p has the id `first_partition_id + p`.
    first_partition_id: int
    partitions: int


class Reader:
    """Queries on one connection. No cursor outlives a call, so no call holds the WAL back."""

    def __init__(self, connection: apsw.Connection, address: str) -> None:
        self.connection = connection
        self._address = address
        self._sql = statements("queries")
        self._topics: dict[str, TopicEntry] = {}
        self._names: dict[int, str] = {}

    def topic(self, name: str) -> TopicEntry:
        """The topic's entry. Raises UnknownTopic."""
        entry = self._topics.get(name)
        if entry is None:
            rows = fetch(self.connection, self._sql["topic_entry"], (name,))
            if not rows:
                raise UnknownTopic(
                    f"The log {self._address} has no topic {name!r}.",
                    remedy="Start the service that owns it, or correct the name.",
                )
            self._topics[name] = entry = TopicEntry(*rows[0])
        return entry

    def forget_topics(self) -> None:
        """Look topics up anew; for whoever has removed some."""
        self._topics.clear()
        self._names.clear()

    def partition_id(self, name: str, partition: int) -> int:
        """The id of one partition. Raises UnknownTopic, and UsageError if there is no such partition."""
        entry = self._topics.get(name) or self.topic(name)
        if 0 <= partition < entry.partitions:
            return entry.first_partition_id + partition
        raise UsageError(
            f"Topic {name!r} has partitions 0 to {entry.partitions - 1}, not {partition}.",
            remedy="Take the number of partitions from the topic.",
        )

    def topic_name(self, partition_id: int) -> str:
        """The topic that a partition id belongs to."""
        if partition_id not in self._names:
            for first, count, name in fetch(self.connection, self._sql["topic_names"]):
                self._names.update(dict.fromkeys(range(first, first + count), name))
        return self._names[partition_id]

    def topics(self) -> list[TopicSpec]:
        """All topics, by name."""
        return [topic_spec(row) for row in fetch(self.connection, self._sql["topics"])]

    def bounds(self, name: str) -> list[Bounds]:
        """First and next offset of each partition."""
        entry = self.topic(name)
        span = (entry.first_partition_id, entry.first_partition_id + entry.partitions)
        return [Bounds(*row) for row in fetch(self.connection, self._sql["bounds"], span)]

    @contextmanager
    def one_moment(self) -> Iterator[None]:
        """Have all queries inside see the file as it is at the first one: retention may move its cut in between."""
        self.connection.execute("BEGIN")
        try:
            yield
        finally:
            self.connection.execute("COMMIT")

    def partition_bounds(self, partition_id: int) -> tuple[int, int]:
        """First and next offset of one partition."""
        bounds: tuple[int, int] = fetch(self.connection, self._sql["bounds"], (partition_id, partition_id + 1))[0]
        return bounds

    def first_at_or_after(self, partition_id: int, offset: int, end: int) -> tuple[int, int] | None:
        """The offset and time of the first record from `offset` to before `end`; None if there is none."""
        base = partition_id << OFFSET_BITS
        rows: list[tuple[int, int]] = fetch(
            self.connection, self._sql["first_at_or_after"], (base | offset, base | end)
        )
        return rows[0] if rows else None

    def read(self, name: str, partition: int, offset: int, limit: int, max_bytes: int) -> list[Record]:
        """Records from `offset` on until one of the bounds is reached, at least one if there is any."""
        partition_id = self.partition_id(name, partition)
        first = partition_id << OFFSET_BITS | max(0, offset)
        cursor = self.connection.execute(self._sql["read"], (partition_id, first, limit))
        return _within(cursor, limit, max_bytes)

    def read_offsets(self, name: str, partition: int, offsets: Sequence[int]) -> list[Record]:
        """The records at exactly these offsets that are still there, in order."""
        base = self.partition_id(name, partition) << OFFSET_BITS
        found: list[Record] = []
        wanted = [base | offset for offset in sorted(set(offsets))]
        if len(wanted) >= _STRETCH_RECORDS and wanted[-1] - wanted[0] < 2 * len(wanted):
            found = fetch(self.connection, self._sql["read_stretch"], (wanted[0], wanted[-1]))
            if len(found) > len(wanted):
                meant = set(offsets)
                found = [record for record in found if record[0] in meant]
            return found
        for some, size in filled(wanted):
            found += fetch(self.connection, _some_statement(size), some)
        return found

    def size_between(self, name: str, partition: int, start: int, end: int) -> int:
        """Bytes of keys, values and envelopes from offset `start` to before `end`."""
        base = self.partition_id(name, partition) << OFFSET_BITS
        ((size,),) = fetch(self.connection, self._sql["size_between"], (base | start, base | end))
        return int(size)

    def offset_at(self, name: str, partition: int, time_ms: int) -> int:
        """The first offset with a timestamp of `time_ms` or later, else the end; by bisection."""
        partition_id = self.partition_id(name, partition)
        low, end = self.partition_bounds(partition_id)
        high = end
        while low < high:
            middle = (low + high) // 2
            found = self.first_at_or_after(partition_id, middle, high)
            if found is None or found[1] >= time_ms:
                high = middle
            else:
                low = found[0] + 1
        found = self.first_at_or_after(partition_id, low, end)
        return end if found is None else found[0]


def topic_spec(row: Sequence[Any]) -> TopicSpec:
    """A row of the statements `topics` and `topic` as a spec."""
    named = dict(zip(_TOPIC_COLUMNS, row, strict=True))
    return TopicSpec(**{**named, "compacted": bool(named["compacted"])})


@functools.cache
def _some_statement(records: int) -> str:
    return f"{statements('queries')['read_some']} IN ({', '.join('?' * records)}) ORDER BY id"


def _within(cursor: apsw.Cursor, limit: int, max_bytes: int) -> list[Record]:
    """Rows of the cursor up to `max_bytes` of values; closes it.

    It takes them in strides that what was read so far says will fit, so that large records never
    fill the memory and small ones cost no loop.
    """
    rows: list[Record] = []
    size, stride = 0, _FIRST_LOOK
    while True:
        some: list[Any] = list(islice(cursor, stride))
        size += _size(some)
        rows += some
        if size > max_bytes or len(some) < stride or len(rows) >= limit:
            cursor.close()
            return rows if size <= max_bytes else trimmed(rows, max_bytes)
        stride = max(1, min(limit - len(rows), (max_bytes - size) * len(rows) // (size + 1)))


def _size(rows: list[Record]) -> int:
    try:
        return sum(map(len, map(_value, rows)))
    except TypeError:
        # Some are tombstones.
        return sum(len(row[4]) for row in rows if row[4] is not None)


def trimmed(rows: list[Record], max_bytes: int) -> list[Record]:
    """As many of the rows as fit, but one at least."""
    size = 0
    for count, row in enumerate(rows):
        size += len(row[4] or b"")
        if size > max_bytes and count:
            return rows[:count]
    return rows
