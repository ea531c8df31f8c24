"""Walking both logs where a digest can't decide: which records differ, and whether that is as it should be.

A source compacts while it is copied. What it has dropped since may stand in the target still, if it has a later record
of its key: the target will drop it too. Without one a deleted key would come back to life there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from postline.errors import TopicMismatch
from postline.log.port import Record
from postline.log.transfer import Transfer
from postline.message import Envelope
from postline.migration.digests import told

__all__ = ["Place", "walk"]


class Place(NamedTuple):
    """A partition of a topic, and whether the topic is compacted."""

    topic: str
    partition: int
    compacted: bool


async def walk(source: Transfer, target: Transfer, place: Place, start: int, end: int) -> int:
    """Compare all records from `start` to before `end`; gives how many the source alone has dropped since.

    Raises TopicMismatch with the first offset that differs.
    """
    walking = _Walk(place, source.envelope, target.envelope)
    at = start
    async for page in source.records(place.topic, place.partition, start, end):
        following = page[-1][0] + 1
        walking.compare(page, await _all(target, place, at, following))
        at = following
    walking.compare([], await _all(target, place, at, end))
    return walking.finished()


async def _all(target: Transfer, place: Place, start: int, end: int) -> list[Record]:
    return [
        record async for page in target.records(place.topic, place.partition, start, end) for record in page
    ]  # fmt: skip


class _Walk:
    def __init__(self, place: Place, ours: Callable[[Record], Envelope], theirs: Callable[[Record], Envelope]) -> None:
        self._place, self._ours, self._theirs = place, ours, theirs
        #: By key, the last record that the target alone has, if nothing of the key came later.
        self._open: dict[bytes | None, Record] = {}
        self._dropped = 0

    def compare(self, page: Sequence[Record], there: Sequence[Record]) -> None:
        """One page of the source and what the target has in its span."""
        wanted = [told(record, self._ours) for record in page]
        if len(page) == len(there) and not self._open and wanted == [told(record, self._theirs) for record in there]:
            return
        by_offset: dict[int, tuple[Any, ...]] = {each[0]: each for each in wanted}
        for record in there:
            known = by_offset.pop(record[0], None)
            if known is None:
                self._extra(record)
            elif (found := told(record, self._theirs)) != known:
                raise self._differs(record[0], _said(known, found))
        for offset in by_offset:
            raise self._differs(offset, "the target doesn't have it")
        self._close(page)

    def _extra(self, record: Record) -> None:
        if not self._place.compacted:
            raise self._differs(record[0], "the source doesn't have it")
        self._open[record[2]] = record
        self._dropped += 1

    def _close(self, page: Iterable[Record]) -> None:
        for record in page:
            extra = self._open.get(record[2])
            if extra is not None and extra[0] < record[0]:
                del self._open[record[2]]

    def finished(self) -> int:
        """How many records the target alone has. Raises TopicMismatch if one of them would come back to life."""
        for record in self._open.values():
            if record[4] is not None:
                raise self._differs(
                    record[0], "its key was deleted at the source, which has forgotten that before it was copied"
                )
        return self._dropped

    def _differs(self, offset: int, how: str) -> TopicMismatch:
        topic, partition, _ = self._place
        return TopicMismatch(
            f"Topic {topic!r} partition {partition} differs at offset {offset}: {how}.",
            remedy="Nothing was handed over. `postline migrate … --abandon` empties the target; then begin again.",
        )


def _said(wanted: tuple[Any, ...], found: tuple[Any, ...]) -> str:
    names = ("offset", "time", "key", "type", "value", "flags", "envelope")
    which = [name for name, one, other in zip(names, wanted, found, strict=True) if one != other]
    return f"its {' and '.join(which)} on both sides"
