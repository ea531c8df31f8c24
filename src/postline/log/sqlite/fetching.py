"""Where a membership reads on: a cursor for each partition and topic, served in turn."""

from __future__ import annotations

from postline.log.port import Assignment, Fetched, Record
from postline.log.sqlite.appending import OFFSET_BITS, OFFSET_MASK
from postline.log.sqlite.connection import fetch
from postline.log.sqlite.reading import Reader
from postline.log.sqlite.statements import statements

__all__ = ["Feed"]

#: Records of one partition in one fetch, if they fit: a read costs as much as some fifty rows.
_SMALLEST_SHARE = 250


class _Cursor:
    """The next offset of one partition of one topic, and whether something may be there."""

    __slots__ = ("active", "assignment", "offset", "partition_id", "paused", "ready", "topic")

    def __init__(self, assignment: Assignment, topic: str, partition_id: int, offset: int, active: bool) -> None:
        self.assignment = assignment
        self.topic = topic
        self.partition_id = partition_id
        self.offset = offset
        #: The owner has taken the partition over, and nobody wants it back.
        self.active = active
        self.paused = False
        #: False once it was read to its end and nothing was heard of since.
        self.ready = True

    @property
    def place(self) -> tuple[int, str]:
        return self.assignment.partition, self.topic


class Feed:
    """The cursors of one membership. Synchronous: what it gives has been passed, in one step."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._sql = statements("queries")
        #: Those served longest ago come first.
        self._cursors: dict[tuple[int, str], _Cursor] = {}

    def open(self, assignment: Assignment) -> None:
        """Have a cursor at the assignment's position; it gives nothing before `activate`."""
        self.drop(assignment)
        partition_id = self._reader.partition_id(assignment.topic, assignment.partition)
        cursor = _Cursor(assignment, assignment.topic, partition_id, assignment.position, False)
        self._cursors[cursor.place] = cursor

    def activate(self, assignment: Assignment, active: bool) -> None:
        """Begin to give its records, or stop."""
        for cursor in self._of(assignment):
            cursor.active = active

    def drop(self, assignment: Assignment) -> None:
        """Forget the partition, siblings included, under whatever epoch."""
        self._cursors = {place: cursor for place, cursor in self._cursors.items() if place[0] != assignment.partition}

    def pause(self, assignment: Assignment, paused: bool) -> None:
        """Hold the subscribed topic's records back, or no more."""
        for cursor in self._of(assignment):
            if cursor.topic == assignment.topic:
                cursor.paused = paused

    def seek(self, assignment: Assignment, topic: str, offset: int) -> None:
        """Go on from `offset`; opens the sibling's cursor if there is none."""
        mine = self._of(assignment)
        if not mine:
            return
        cursor = self._cursors.get((assignment.partition, topic))
        if cursor is None:
            partition_id = self._reader.partition_id(topic, assignment.partition)
            cursor = _Cursor(assignment, topic, partition_id, offset, mine[0].active)
            self._cursors[cursor.place] = cursor
        cursor.offset = offset
        cursor.ready = True

    def mark(self, partition_ids: frozenset[int] | None) -> None:
        """Something may be there: in these partitions, or in any."""
        for cursor in self._cursors.values():
            if partition_ids is None or cursor.partition_id in partition_ids:
                cursor.ready = True

    def readable(self) -> bool:
        """Whether `take` would look at anything."""
        return bool(self._readable())

    def take(self, max_records: int, max_bytes: int) -> list[Fetched]:
        """Records of those that have some, the ones served longest ago first, in shares of the room."""
        waiting = self._readable()
        if not waiting:
            return []
        connection = self._reader.connection
        # One snapshot: between the bounds and the records retention might move its cut.
        connection.execute("BEGIN")
        try:
            return self._take_from(waiting, max_records, max_bytes)
        finally:
            connection.execute("COMMIT")

    def _readable(self) -> list[_Cursor]:
        return [each for each in self._cursors.values() if each.ready and each.active and not each.paused]

    def _take_from(self, cursors: list[_Cursor], max_records: int, max_bytes: int) -> list[Fetched]:
        found: list[Fetched] = []
        for place, cursor in enumerate(cursors):
            others = len(cursors) - place
            share = min(max_records, max(_SMALLEST_SHARE, max_records // others))
            fetched = self._read(cursor, share, max(1, max_bytes // others))
            if fetched is None:
                continue
            found.append(fetched)
            self._cursors[cursor.place] = self._cursors.pop(cursor.place)
            max_records -= len(fetched.records)
            max_bytes -= sum(len(record[4] or b"") for record in fetched.records)
            if max_records <= 0 or max_bytes <= 0:
                break
        return found

    def _read(self, cursor: _Cursor, limit: int, max_bytes: int) -> Fetched | None:
        start, end = fetch(
            self._reader.connection, self._sql["bounds"], (cursor.partition_id, cursor.partition_id + 1)
        )[0]
        if cursor.offset >= end:
            cursor.ready = False
            return None
        assignment = cursor.assignment
        records = self._reader.read(cursor.topic, assignment.partition, cursor.offset, limit, max_bytes)
        following = self._following(cursor, records, limit, end)
        cursor.offset = following
        cursor.ready = following < end
        return Fetched(assignment, cursor.topic, records, following, start)

    def _following(self, cursor: _Cursor, records: list[Record], limit: int, end: int) -> int:
        """The offset to go on from: where the next record is, so that gaps are passed with what lies before them."""
        if not records:
            return end
        last = records[-1][0]
        if last + 1 >= end or len(records) >= limit:
            return last + 1
        base = cursor.partition_id << OFFSET_BITS
        rows = fetch(self._reader.connection, self._sql["first_at_or_after"], (base | (last + 1), base | end))
        return int(rows[0][0]) & OFFSET_MASK if rows else end

    def _of(self, assignment: Assignment) -> list[_Cursor]:
        """The partition's cursors, if this is the assignment they stand under."""
        return [
            cursor
            for place, cursor in self._cursors.items()
            if place[0] == assignment.partition and cursor.assignment.epoch == assignment.epoch
        ]
