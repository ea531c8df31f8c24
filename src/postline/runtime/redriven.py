"""Dead letters that run again and are at hand: in lanes, as a batch, with nothing in state that says so."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from itertools import islice

from postline.log.port import Record
from postline.runtime.edits import Edits
from postline.runtime.entries import (
    HELD,
    DeadEntry,
    HeldEntry,
    decode_entry,
    encode_entry,
    offset_key,
    offset_keys,
    redrives_of,
)
from postline.runtime.lanes import LaneOwner
from postline.runtime.outcomes import Outcome
from postline.runtime.standing import HeldCounts
from postline.runtime.window import Chunk

__all__ = ["AtHand", "Redriven", "fitting", "waiting"]

#: Redriven records kept in memory before they have ended; more wait by their offsets alone.
_RECORDS = 4_000
_BYTES = 8 << 20


class Redriven(Chunk):
    """Letters that one request redrives; `outcomes[i]` says how the one at `offsets[i]` has ended, or that it is held.

    Held means that it waits by an entry of its own, and is of this batch no more.
    """

    __slots__ = ("letters", "open", "run", "written")

    def __init__(self, letters: Mapping[int, bytes], records: Mapping[int, Record], run: str) -> None:
        size = sum([len(record[4] or b"") for record in records.values()])
        super().__init__(list(letters), 0, record_bytes=size / (len(letters) or 1))
        #: Their entries as dead letters.
        self.letters = list(letters.values())
        self.run = run
        #: The indexes of those that the window has as held.
        self.open: list[int] = list(range(len(self.letters)))
        #: State has entries of those that are open: they have outlasted a commit.
        self.written = False

    def redrives(self, index: int) -> int:
        """How often a letter was redriven, this time included."""
        return redrives_of(self.letters[index])[0] + 1

    def entry(self, index: int) -> HeldEntry:
        """What state says of a letter that has not ended."""
        return waiting(decode_entry(self.letters[index], DeadEntry), self.run)

    def close(self) -> dict[int, list[int]]:
        """The offsets of those that have ended since the last call, by outcome."""
        outcomes, offsets = self.outcomes, self.offsets
        if outcomes.count(0) == len(self.open):
            return {}
        if len(self.open) == len(offsets) == outcomes.count(outcomes[0]):
            ended, self.open = {outcomes[0]: offsets}, []
        else:
            ended, still_open = {}, []
            for index in self.open:
                if outcome := outcomes[index]:
                    ended.setdefault(outcome, []).append(offsets[index])
                else:
                    still_open.append(index)
            self.open = still_open
        ended.pop(Outcome.HELD, None)
        return ended


class AtHand:
    """The batches of one owned partition that have not ended. Event loop only.

    Their letters are no dead letters any more by the next commit, and it has their outcomes; only those that have none
    by then get entries, as held records. The window has all of them as held until `account`.
    """

    def __init__(self, owned: LaneOwner, counts: HeldCounts, edits: Edits) -> None:
        self._owned, self._counts, self._edits = owned, counts, edits
        self._batches: list[Redriven] = []

    @property
    def fresh(self) -> bool:
        """Whether some have not ended that no commit has found at hand yet."""
        return any(not batch.written and batch.outcomes.count(0) for batch in self._batches)

    def take(self, letters: Mapping[int, bytes], records: Mapping[int, Record], run: str) -> Redriven:
        """A batch of these letters, in order of offset, as far as there are records; the window has them as held."""
        if len(records) < len(letters):
            letters = {offset: data for offset, data in letters.items() if offset in records}
        batch = Redriven(letters, records, run)
        if batch.open:
            self._batches.append(batch)
        return batch

    @property
    def pending(self) -> int:
        """How many have not ended."""
        return sum([batch.outcomes.count(0) for batch in self._batches])

    @property
    def room(self) -> tuple[int, int]:
        """How many records more, and how many bytes of them, it may have."""
        size = sum([batch.outcomes.count(0) * batch.record_bytes for batch in self._batches])
        return max(0, _RECORDS - self.pending), max(0, _BYTES - int(size))

    def account(self) -> None:
        """Let the window know of those that have ended; before anything else is to become of one of them."""
        if not self._batches:
            return
        for batch in self._batches:
            if ended := batch.close():
                self._end(batch, ended)
        self._batches = [batch for batch in self._batches if batch.open]

    def _end(self, batch: Redriven, ended: Mapping[int, list[int]]) -> None:
        owned = self._owned
        owned.unit.moved = True
        for outcome, offsets in ended.items():
            owned.window.change_all(offsets, Outcome(outcome))
            if batch.written:
                owned.unit.delete_all(HELD, offset_keys(offsets))
                for offset in offsets:
                    self._counts.drop(offset)
            if self._edits.by and outcome != Outcome.DEAD_LETTERED:
                for offset in offsets:
                    self._edits.forget(offset)

    def write(self) -> None:
        """Put those that have not ended into the pending unit, before it is committed."""
        self.account()
        for batch in self._batches:
            if batch.written:
                continue
            batch.written = True
            for index in batch.open:
                entry, offset = batch.entry(index), batch.offsets[index]
                self._owned.unit.put(HELD, offset_key(offset), encode_entry(entry))
                self._counts.hold(offset, entry, ready=True)

    def entry(self, offset: int) -> HeldEntry | None:
        """What state would say of a letter at hand; None if it isn't."""
        for batch in self._batches:
            index = bisect_left(batch.offsets, offset)
            if index < len(batch.offsets) and batch.offsets[index] == offset and not batch.outcomes[index]:
                return batch.entry(index)
        return None


def waiting(dead: DeadEntry, run: str) -> HeldEntry:
    """What state says of a letter that is redriven and waits."""
    return HeldEntry(dead.lane_key, redrives=dead.redrives + 1, run=run)


def fitting(letters: Mapping[int, bytes], records: int, size: int) -> list[int]:
    """The offsets of the first of these letters, as many as have at most so many records and bytes."""
    chosen: list[int] = []
    for offset, data in islice(letters.items(), records):
        size -= decode_entry(data, DeadEntry).size
        if size < 0:
            break
        chosen.append(offset)
    return chosen
