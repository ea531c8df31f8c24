"""Outcomes found again by request id: an index of one client's look over the topic of tickets, read as it grows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from hashlib import blake2b

from postline.commands.accepting import ACCEPTED, ACCEPTED_SUFFIX, Standing, read_accepted
from postline.commands.first_sent import FIRST_SENT, FirstSent, read_first_sent, request_of_note
from postline.commands.reading import ReplyReader
from postline.commands.tickets import Outcome
from postline.commands.writing import GONE_SUFFIX, PROGRESS
from postline.contracts.commands import ticket_key, ticket_partition
from postline.log.needs import TopicSpec
from postline.log.port import Log, Record

__all__ = ["Tickets"]

_PAGE_RECORDS = 1_000
#: After so many records it looks for what retention has taken.
_FORGET_RECORDS = 50_000
_PAGE_BYTES = 8 << 20
#: What is waited for is stored, and shown once transactions before it end; others who wait may be told in our stead.
_WAIT_SECONDS = 0.05


class _Seen:
    """One partition as far as it was read: where the newest outcome, note and acceptance of each request lie."""

    __slots__ = ("accepted", "firsts", "forgot_at", "gone", "later", "next_offset", "notes", "outcomes", "reading")

    def __init__(self) -> None:
        self.next_offset = 0
        #: Where it stood when it last forgot what retention has taken.
        self.forgot_at = 0
        self.outcomes: dict[bytes, int] = {}
        self.notes: dict[bytes, int] = {}
        self.accepted: dict[bytes, int] = {}
        #: The oldest note of what each request was first sent as.
        self.firsts: dict[bytes, int] = {}
        #: Of the few that have several, the others in order: each is the first once those before it are gone.
        self.later: dict[bytes, list[int]] = {}
        #: What tells that an outcome is not kept; counts only where there is none.
        self.gone: dict[bytes, int] = {}
        #: Resolved, with whether it came to the end, by whoever reads on now.
        self.reading: asyncio.Future[bool] | None = None

    def version(self, mark: bytes) -> int:
        """The offset of the newest of all that is said of a request; -1 if nothing is."""
        return max(known.get(mark, -1) for known in (self.accepted, self.notes, self.outcomes, self.gone))

    def note_first(self, mark: bytes, offset: int) -> None:
        """There is a note, after all before it, of what a request was first sent as."""
        if self.firsts.setdefault(mark, offset) != offset:
            self.later.setdefault(mark, []).append(offset)

    def kept_first(self, mark: bytes, start: int) -> int | None:
        """The oldest note of what a request was first sent as that does not lie below an offset."""
        known = self.firsts.get(mark)
        if known is None or known >= start:
            return known
        later = [offset for offset in self.later.pop(mark, ()) if offset >= start]
        if not later:
            return None
        self.firsts[mark] = later[0]
        if later[1:]:
            self.later[mark] = later[1:]
        return later[0]

    def forget(self, start: int) -> None:
        """Remember nothing of what lies below an offset."""
        self.outcomes = {mark: offset for mark, offset in self.outcomes.items() if offset >= start}
        self.notes = {mark: offset for mark, offset in self.notes.items() if offset >= start}
        self.accepted = {mark: offset for mark, offset in self.accepted.items() if offset >= start}
        for mark in list(self.later):
            self.kept_first(mark, start)
        self.firsts = {mark: offset for mark, offset in self.firsts.items() if offset >= start}
        self.gone = {mark: offset for mark, offset in self.gone.items() if offset >= start}
        self.forgot_at = self.next_offset


class Tickets:
    """Reads one command topic's tickets. Event loop only.

    The first look at a partition reads all that is kept of it, later ones what came since.
    It remembers 16 bytes and an offset of each for as long as it is kept.
    """

    def __init__(self, log: Log, reader: ReplyReader | None, spec: TopicSpec) -> None:
        """`reader` reads outcomes; None where the topic has none, but acceptances alone."""
        self._log, self._reader, self._name = log, reader, spec.name
        self._partitions = spec.partitions
        self._seen: dict[int, _Seen] = {}

    async def find(self, client_id: str, request_id: str) -> tuple[Outcome | None, str]:
        """The outcome of a request if it has one, and the last note of its progress."""
        key = ticket_key(client_id, request_id)
        partition, mark = self._place(key)
        seen = self._seen.setdefault(partition, _Seen())
        await self._catch_up(partition, seen)
        record = await self._at(partition, seen.outcomes.get(mark)) or await self._at(partition, seen.gone.get(mark))
        note = await self._at(partition, seen.notes.get(mark))
        told = (note[4] or b"").decode("utf-8", "replace") if note is not None else ""
        if record is None or self._reader is None:
            return None, told
        await self._reader.learn((record,))
        return self._reader.outcome(record, self._log.envelope(record)), told

    async def standing(self, client_id: str, request_id: str) -> Standing:
        """All that is kept of a request."""
        key = ticket_key(client_id, request_id)
        partition, mark = self._place(key)
        outcome, note = await self.find(client_id, request_id)
        seen = self._seen[partition]
        record = await self._at(partition, seen.accepted.get(mark))
        accepted = read_accepted(record[4] or b"") if record is not None else None
        return Standing(accepted, outcome, note, seen.version(mark) if accepted or outcome or note else -1)

    async def before(self, client_id: str, request_id: str) -> tuple[FirstSent | None, Outcome | None]:
        """What a request was first sent as, by the first note of it, and its outcome; each None without one.

        There is no outcome here whose note has not been seen. Raises LogUnavailable.
        """
        outcome, _ = await self.find(client_id, request_id)
        partition, mark = self._place(ticket_key(client_id, request_id))
        return await self._first(partition, mark), outcome

    async def first_of(self, client_id: str, request_id: str, noted: tuple[int, FirstSent]) -> FirstSent | None:
        """What the first note says of a request, of which `noted`, with its offset, was stored just now."""
        partition, mark = self._place(ticket_key(client_id, request_id))
        seen = self._seen.setdefault(partition, _Seen())
        if seen.next_offset <= noted[0]:  # else somebody has read past it
            await self._catch_up(partition, seen)
        while seen.next_offset <= noted[0]:  # an engine may show it only once what is stored before it is committed
            await self._log.wait_for_appends(self._name, _WAIT_SECONDS)
            await self._catch_up(partition, seen)
        return noted[1] if seen.firsts.get(mark) == noted[0] else await self._first(partition, mark)

    async def _first(self, partition: int, mark: bytes) -> FirstSent | None:
        seen = self._seen[partition]
        record = await self._at(partition, seen.firsts.get(mark))
        if record is None and mark in seen.firsts:  # retention has taken it, but there may be others
            start = (await self._log.bounds(self._name))[partition].start
            record = await self._at(partition, seen.kept_first(mark, start))
        return None if record is None else read_first_sent(record[4] or b"")

    async def versions(self, client_id: str, request_ids: Iterable[str]) -> dict[str, int]:
        """Of each request a number that grows with everything that is said of it; -1 if nothing is."""
        places = {each: self._place(ticket_key(client_id, each)) for each in request_ids}
        for partition in {partition for partition, _ in places.values()}:
            await self._catch_up(partition, self._seen.setdefault(partition, _Seen()))
        return {each: self._seen[partition].version(mark) for each, (partition, mark) in places.items()}

    def _place(self, key: bytes) -> tuple[int, bytes]:
        return ticket_partition(key, self._partitions), _mark(key)

    async def _catch_up(self, partition: int, seen: _Seen) -> None:
        """Know all that was stored before this was called; whoever asks meanwhile shares one reading."""
        if (current := seen.reading) is not None:
            await asyncio.shield(current)
            # It may have looked before we asked; the one after it has not, and a failed one tells nothing.
            if (following := seen.reading) is not None and await asyncio.shield(following):
                return
        reading = seen.reading = asyncio.get_running_loop().create_future()
        done = False
        try:
            await self._read_on(partition, seen)
            done = True
        finally:
            reading.set_result(done)
            if seen.reading is reading:
                seen.reading = None

    async def _read_on(self, partition: int, seen: _Seen) -> None:
        while records := await self._log.read(
            self._name, partition, seen.next_offset, limit=_PAGE_RECORDS, max_bytes=_PAGE_BYTES
        ):
            for offset, _, key, kind, *_ in records:
                if key is None:
                    continue
                if kind == PROGRESS:
                    seen.notes[_mark(key.removesuffix(b"#progress"))] = offset
                elif kind == ACCEPTED:
                    seen.accepted[_mark(key.removesuffix(ACCEPTED_SUFFIX))] = offset
                elif kind == FIRST_SENT:
                    seen.note_first(_mark(request_of_note(key)), offset)
                elif key.endswith(GONE_SUFFIX):
                    seen.gone[_mark(key.removesuffix(GONE_SUFFIX))] = offset
                else:
                    seen.outcomes[_mark(key)] = offset
            seen.next_offset = max(seen.next_offset, records[-1][0] + 1)
            await asyncio.sleep(0)  # engines whose reads never wait would keep the loop for the whole history
        if seen.next_offset - seen.forgot_at >= _FORGET_RECORDS:
            seen.forget((await self._log.bounds(self._name))[partition].start)

    async def _at(self, partition: int, offset: int | None) -> Record | None:
        if offset is None:
            return None
        return next(iter(await self._log.read_offsets(self._name, partition, [offset])), None)


def _mark(key: bytes) -> bytes:
    return blake2b(key, digest_size=16).digest()
