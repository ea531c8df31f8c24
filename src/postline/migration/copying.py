"""`PartitionCopy`: one partition of a topic on its way, copied and compared stretch by stretch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from postline.log.port import Bounds, Record
from postline.log.transfer import Batch, Transfer, Verified
from postline.migration.comparing import Place, walk
from postline.migration.digests import Digest

__all__ = ["PartitionCopy"]

#: So many records, or bytes, go to the target at once.
_BATCH_RECORDS, _BATCH_BYTES = 10_000, 8 << 20
#: So many are copied before they are read back and compared.
_STRETCH_RECORDS = 100_000


class PartitionCopy:
    """Copies from where the target ends, and knows up to where both were found equal."""

    def __init__(self, source: Transfer, target: Transfer, place: Place, verified: Verified | None) -> None:
        self.place = place
        self._source, self._target = source, target
        self._verified = verified
        #: Up to here it is copied, and compared.
        self.copied = self.compared = 0
        #: Records that the source has compacted away since they were copied.
        self.dropped = 0
        self._ours: Digest
        self._theirs: Digest

    async def begin(self, source: Bounds, there: Bounds) -> None:
        """See how far an earlier attempt came in the target, and compare what it left uncompared."""
        topic, partition, _ = self.place
        if there.end == 0 and source.start:
            await self._target.begin(topic, partition, source.start)
            there = Bounds(source.start, source.start)
        known = self._verified
        if known is None or not there.start <= known.offset <= there.end:
            known = Verified(there.start, 0, "0")
        self._ours, self._theirs = Digest(self._source.envelope, known), Digest(self._target.envelope, known)
        self.compared, self.copied = known.offset, there.end
        if self.compared < self.copied:
            await _feed(self._source, self.place, self.compared, self.copied, self._ours)
            await self._compare()

    @property
    def digest(self) -> Verified:
        """What was compared so far."""
        return self._theirs.upto(self.compared)

    @property
    def resumable(self) -> Verified:
        """What a later attempt can go on from."""
        return self._theirs.resumable

    async def copy(self, end: int, noted: Callable[[int], Awaitable[None]]) -> None:
        """Copy up to `end`; `noted` is told after each stretch how many offsets it had."""
        while self.copied < end:
            before = self.copied
            await self._stretch(end)
            await self._compare()
            await noted(self.copied - before)

    async def _stretch(self, end: int) -> None:
        topic, partition, _ = self.place
        pending: list[Record] = []
        size, count = 0, 0
        writing: asyncio.Task[None] | None = None
        try:
            async for page in self._source.records(topic, partition, self.copied, end):
                self._ours.feed(page)
                pending += page
                size += sum([len(record[4] or b"") for record in page])
                count += len(page)
                if len(pending) < _BATCH_RECORDS and size < _BATCH_BYTES:
                    continue
                if writing is not None:
                    await writing
                writing = asyncio.create_task(self._write(pending, pending[-1][0] + 1))
                pending, size = [], 0
                if count >= _STRETCH_RECORDS:
                    await writing
                    return
            if writing is not None:
                await writing
            await self._write(pending, end)
        finally:
            if writing is not None and not writing.done():
                await asyncio.wait([writing])

    async def _write(self, records: list[Record], end: int) -> None:
        topic, partition, _ = self.place
        source = self._source
        await self._target.restore(Batch(topic, partition, self.copied, end, records, source.form, source.envelope))
        self.copied = end

    async def _compare(self) -> None:
        """Read back what was written since the last time. Raises TopicMismatch."""
        start, end = self.compared, self.copied
        await _feed(self._target, self.place, start, end, self._theirs)
        if self._ours.upto(end) != self._theirs.upto(end):
            # The block's beginning was found equal before, but walking it again costs little.
            self.dropped += await walk(self._source, self._target, self.place, start, end)
            self._ours.adopt(self._theirs)
        self.compared = end

    async def walk(self, start: int) -> int:
        """Compare everything again, record by record; gives how many the source alone has dropped."""
        return await walk(self._source, self._target, self.place, start, self.copied)


async def _feed(log: Transfer, place: Place, start: int, end: int, digest: Digest) -> None:
    async for page in log.records(place.topic, place.partition, start, end):
        digest.feed(page)
