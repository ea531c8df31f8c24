"""`Feed`: records that were consumed and not yet fetched, for each owned partition and its siblings.

The polling thread puts records in, the event loop takes them out in fair shares. What was consumed for a place that has
since been left or sought elsewhere belongs to a cursor that nobody looks at any more.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from postline.log.kafka.wire import size_of
from postline.log.port import Assignment, Fetched, Record

__all__ = ["Cursor", "Feed"]

#: More than this lies ready: the polling thread consumes no further.
_RECORDS_MAX = 8_192
_BYTES_MAX = 32 << 20
#: A batch is not cut into shares smaller than this.
_SMALLEST_SHARE = 10


class Cursor:
    """One partition of one topic under one assignment, read onwards from one offset."""

    __slots__ = (
        "active",
        "assignment",
        "batches",
        "log_start",
        "next_offset",
        "paused",
        "starting",
        "topic",
        "waiting",
    )

    def __init__(self, assignment: Assignment, topic: str, offset: int) -> None:
        self.assignment, self.topic = assignment, topic
        #: Where consuming begins.
        self.starting = offset
        #: Past everything that was put in, gaps included.
        self.next_offset = offset
        self.log_start = 0
        #: Records, the offset to go on from behind them, and their size.
        self.batches: deque[tuple[Sequence[Record], int, int]] = deque()
        #: Whether the owner has taken the partition up: nothing is given before.
        self.active = False
        self.paused = False
        #: Records in the batches.
        self.waiting = 0

    @property
    def place(self) -> tuple[str, int]:
        """The topic and the partition."""
        return self.topic, self.assignment.partition


class Feed:
    """The cursors of one membership. Thread-safe; `on_ready` is called, in any thread, when `take` may give more."""

    def __init__(self, on_ready: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._cursors: dict[tuple[str, int], Cursor] = {}
        self._on_ready = on_ready
        self._room = threading.Event()
        self._room.set()
        self._records, self._bytes = 0, 0

    # -- what there is ------------------------------------------------------------------------

    def open(self, cursor: Cursor) -> None:
        """Have the place read by this cursor from now on; what another one left is dropped."""
        with self._lock:
            old = self._cursors.pop(cursor.place, None)
            if old is not None:
                cursor.active, cursor.paused = old.active, old.paused
                self._discount(old)
            self._cursors[cursor.place] = cursor

    def drop(self, partitions: Sequence[int]) -> list[Cursor]:
        """Forget these partitions, siblings included; gives the cursors that are gone."""
        with self._lock:
            gone = [cursor for cursor in self._cursors.values() if cursor.assignment.partition in partitions]
            for cursor in gone:
                del self._cursors[cursor.place]
                self._discount(cursor)
            return gone

    def of(self, assignment: Assignment) -> list[Cursor]:
        """The partition's cursors, if this is the assignment they stand under."""
        with self._lock:
            return [
                cursor
                for cursor in self._cursors.values()
                if cursor.assignment.partition == assignment.partition and cursor.assignment.epoch == assignment.epoch
            ]

    def activate(self, assignment: Assignment, active: bool) -> None:
        """Begin, or stop, giving records of the partition."""
        for cursor in self.of(assignment):
            cursor.active = active
        if active:
            self._on_ready()

    def pause(self, assignment: Assignment, paused: bool) -> None:
        """Hold the subscribed topic's records back, or no more."""
        for cursor in self.of(assignment):
            if cursor.topic == assignment.topic:
                cursor.paused = paused
        if not paused:
            self._on_ready()

    # -- the polling thread's side ------------------------------------------------------------

    def put(self, cursor: Cursor, records: Sequence[Record], next_offset: int) -> None:
        """Records that were consumed for this cursor, or, with none, a gap up to `next_offset`."""
        size = sum([len(record[4] or b"") + len(record[2] or b"") for record in records])
        with self._lock:
            cursor.next_offset = next_offset
            if self._cursors.get(cursor.place) is not cursor:
                return
            cursor.batches.append((records, next_offset, size))
            cursor.waiting += len(records)
            self._records += len(records)
            self._bytes += size
            if self._records > _RECORDS_MAX or self._bytes > _BYTES_MAX:
                self._room.clear()
        self._on_ready()

    def wait_for_room(self, seconds: float) -> bool:
        """Whether there is room for more, at once or within so long."""
        return self._room.wait(seconds)

    # -- the loop's side ----------------------------------------------------------------------

    def readable(self) -> bool:
        """Whether `take` would give something."""
        with self._lock:
            return any(_readable(cursor) for cursor in self._cursors.values())

    def take(self, max_records: int, max_bytes: int) -> list[Fetched]:
        """Records of those that have some, the ones served longest ago first, in shares of the room."""
        found: list[Fetched] = []
        with self._lock:
            waiting = [cursor for cursor in self._cursors.values() if _readable(cursor)]
            for place, cursor in enumerate(waiting):
                others = len(waiting) - place
                share = min(max_records, max(_SMALLEST_SHARE, max_records // others))
                fetched, size = _taken(cursor, share, max(1, max_bytes // others))
                found.append(fetched)
                self._cursors[cursor.place] = self._cursors.pop(cursor.place)
                cursor.waiting -= len(fetched.records)
                self._records -= len(fetched.records)
                self._bytes -= size
                max_records -= len(fetched.records)
                max_bytes -= size
                if max_records <= 0 or max_bytes <= 0:
                    break
            if self._records < _RECORDS_MAX // 2 and self._bytes < _BYTES_MAX // 2:
                self._room.set()
        return found

    def _discount(self, cursor: Cursor) -> None:
        for records, _, size in cursor.batches:
            self._records -= len(records)
            self._bytes -= size
        if self._records < _RECORDS_MAX // 2 and self._bytes < _BYTES_MAX // 2:
            self._room.set()


def _readable(cursor: Cursor) -> bool:
    # A gap at the end is passed by a paused one, too: nothing waits there for anybody.
    return cursor.active and bool(cursor.batches) and not (cursor.paused and cursor.waiting)


def _taken(cursor: Cursor, limit: int, max_bytes: int) -> tuple[Fetched, int]:
    """As many records as there is room for, at least one if there is any, and their size."""
    records: list[Record] = []
    size, following = 0, cursor.next_offset
    batches = cursor.batches
    while batches:
        batch, end, batch_size = batches.popleft()
        room = limit - len(records)
        if len(batch) <= room and batch_size <= max_bytes - size:
            records += batch
            size, following = size + batch_size, end
            continue
        if batch_size <= max_bytes - size:
            # Enough room for the whole: the part's size is reckoned, and what is left keeps the rest of the sum.
            fitting, taken_size = room, batch_size * room // len(batch)
        else:
            fitting = _fitting(batch[:room], max_bytes - size, at_least=0 if records else 1)
            taken_size = sum(map(size_of, batch[:fitting]))
        records += batch[:fitting]
        size += taken_size
        if fitting == len(batch):
            following = end
        else:
            batches.appendleft((batch[fitting:], end, batch_size - taken_size))
            following = records[-1][0] + 1
        break
    return Fetched(cursor.assignment, cursor.topic, records, following, cursor.log_start), size


def _fitting(batch: Sequence[Record], room: int, at_least: int) -> int:
    """How many records of the batch's beginning have room."""
    fitting = 0
    for record in batch:
        room -= size_of(record)
        if room < 0:
            break
        fitting += 1
    return max(fitting, min(at_least, len(batch)))
