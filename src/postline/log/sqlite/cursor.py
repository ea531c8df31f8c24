"""Where a reader stands in one partition of one topic, and how it reads on from there."""

from __future__ import annotations

from postline.log.port import Record
from postline.log.sqlite.reading import Reader, trimmed

__all__ = ["Cursor"]


class Cursor:
    """The next offset of a partition, and whether something may be there. Synchronous.

    What this process stores itself it is offered at once, so that a reader at the end need not look into the file.
    """

    __slots__ = ("_at_hand", "_reader", "_ready", "log_start", "offset", "partition", "partition_id", "topic")

    def __init__(self, reader: Reader, topic: str, partition: int, offset: int) -> None:
        self._reader = reader
        self.topic = topic
        self.partition = partition
        self.partition_id = reader.partition_id(topic, partition)
        self.offset = offset
        #: The partition's first offset when the file was last read.
        self.log_start = 0
        #: False once it was read to its end and nothing was heard of since, but what is at hand.
        self._ready = True
        #: What comes next, if this process has stored it and it is little.
        self._at_hand: list[Record] = []

    @property
    def has_more(self) -> bool:
        """Whether `take` would look at anything."""
        return self._ready or bool(self._at_hand)

    @property
    def needs_file(self) -> bool:
        """Whether more than what is at hand may be there, for which `take` reads the file."""
        return self._ready

    def seek(self, offset: int) -> None:
        """Go on from there."""
        self.offset = offset
        self.look()

    def look(self) -> None:
        """Something may be there: the file is read next time."""
        self._ready = True
        self._at_hand = []

    def offer(self, records: list[Record] | None) -> None:
        """This process has appended these to the partition, in one commit, or (None) more than are handed over."""
        if records and records[0][0] == self.offset:
            self._at_hand = records
        else:
            self.look()

    def take(self, limit: int, max_bytes: int) -> list[Record] | None:
        """The next records, as many as there is room for; [] for a gap that was passed, None at the end.

        Whoever reads the file should hold a read transaction: retention may move its cut between two queries.
        """
        if records := self._at_hand:
            some = trimmed(records[:limit], max_bytes)
            self.offset, self._at_hand = some[-1][0] + 1, records[len(some) :]
            return some
        self.log_start, end = self._reader.partition_bounds(self.partition_id)
        if self.offset >= end:
            self._ready = False
            return None
        records = self._reader.read(self.topic, self.partition, self.offset, limit, max_bytes)
        self.offset = self._following(records, limit, end)
        self._ready = self.offset < end
        return records

    def _following(self, records: list[Record], limit: int, end: int) -> int:
        """The offset to go on from: where the next record is, so that gaps are passed with what lies before them."""
        if not records:
            return end
        last = records[-1][0]
        if last + 1 >= end or len(records) >= limit:
            return last + 1
        following = self._reader.first_at_or_after(self.partition_id, last + 1, end)
        return end if following is None else following[0]
