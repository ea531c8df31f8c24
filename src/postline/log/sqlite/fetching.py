"""Where a membership reads on: a cursor for each partition and topic, served in turn."""

from __future__ import annotations

from postline.log.port import Assignment, Fetched
from postline.log.sqlite.appending import Appended
from postline.log.sqlite.cursor import Cursor
from postline.log.sqlite.reading import Reader

__all__ = ["Feed"]

#: Records of one partition in one fetch, if they fit: a read costs as much as some fifty rows.
_SMALLEST_SHARE = 250


class _Place:
    """One partition of one topic under one assignment."""

    __slots__ = ("active", "assignment", "cursor", "paused")

    def __init__(self, assignment: Assignment, cursor: Cursor, active: bool) -> None:
        self.assignment = assignment
        self.cursor = cursor
        #: The owner has taken the partition over, and nobody wants it back.
        self.active = active
        self.paused = False

    @property
    def name(self) -> tuple[int, str]:
        return self.assignment.partition, self.cursor.topic


class Feed:
    """The cursors of one membership. Synchronous: what it gives has been passed, in one step."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        #: Those served longest ago come first.
        self._places: dict[tuple[int, str], _Place] = {}

    def open(self, assignment: Assignment) -> None:
        """Have a cursor at the assignment's position; it gives nothing before `activate`."""
        self.drop(assignment)
        self._open(assignment, assignment.topic, assignment.position, active=False)

    def _open(self, assignment: Assignment, topic: str, offset: int, *, active: bool) -> None:
        place = _Place(assignment, Cursor(self._reader, topic, assignment.partition, offset), active)
        self._places[place.name] = place

    def activate(self, assignment: Assignment, active: bool) -> None:
        """Begin to give its records, or stop."""
        for place in self._of(assignment):
            place.active = active

    def drop(self, assignment: Assignment) -> None:
        """Forget the partition, siblings included, under whatever epoch."""
        self._places = {name: place for name, place in self._places.items() if name[0] != assignment.partition}

    def pause(self, assignment: Assignment, paused: bool) -> None:
        """Hold the subscribed topic's records back, or no more."""
        for place in self._of(assignment):
            if place.cursor.topic == assignment.topic:
                place.paused = paused

    def seek(self, assignment: Assignment, topic: str, offset: int) -> None:
        """Go on from `offset`; opens the sibling's cursor if there is none."""
        mine = self._of(assignment)
        if not mine:
            return
        place = self._places.get((assignment.partition, topic))
        if place is None:
            self._open(assignment, topic, offset, active=mine[0].active)
        else:
            place.cursor.seek(offset)

    def mark(self, appended: Appended | None) -> None:
        """Something may be there: what this process has appended, or, with None, what others may have."""
        for place in self._places.values():
            cursor = place.cursor
            if appended is None:
                cursor.look()
            elif cursor.partition_id in appended:
                cursor.offer(appended[cursor.partition_id])

    def readable(self) -> bool:
        """Whether `take` would look at anything."""
        return bool(self._readable())

    def take(self, max_records: int, max_bytes: int) -> list[Fetched]:
        """Records of those that have some, the ones served longest ago first, in shares of the room."""
        waiting = self._readable()
        if not any(place.cursor.needs_file for place in waiting):
            return self._take_from(waiting, max_records, max_bytes)
        with self._reader.one_moment():
            return self._take_from(waiting, max_records, max_bytes)

    def _readable(self) -> list[_Place]:
        return [each for each in self._places.values() if each.active and not each.paused and each.cursor.has_more]

    def _take_from(self, places: list[_Place], max_records: int, max_bytes: int) -> list[Fetched]:
        found: list[Fetched] = []
        for index, place in enumerate(places):
            others, cursor = len(places) - index, place.cursor
            share = min(max_records, max(_SMALLEST_SHARE, max_records // others))
            records = cursor.take(share, max(1, max_bytes // others))
            if records is None:
                continue
            found.append(Fetched(place.assignment, cursor.topic, records, cursor.offset, cursor.log_start))
            self._places[place.name] = self._places.pop(place.name)
            max_records -= len(records)
            max_bytes -= sum(len(record[4] or b"") for record in records)
            if max_records <= 0 or max_bytes <= 0:
                break
        return found

    def _of(self, assignment: Assignment) -> list[_Place]:
        """The partition's places, if this is the assignment they stand under."""
        return [
            place
            for name, place in self._places.items()
            if name[0] == assignment.partition and place.assignment.epoch == assignment.epoch
        ]
