"""The records of a partition between its position and what was fetched, and how each one stands."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence

from postline.log.port import Record
from postline.runtime.outcomes import Outcome
from postline.runtime.progress import Progress, Run

__all__ = ["Chunk", "Window"]

_SAME_OUTCOME = re.compile(rb"([^\x00])\1*")
_COUNTED = [outcome for outcome in Outcome if outcome is not Outcome.PENDING]


class Chunk:
    """Records fetched together; `outcomes[i]` says how the one at `offsets[i]` stands."""

    __slots__ = ("counted", "end", "offsets", "outcomes", "record_bytes", "runs")

    def __init__(self, offsets: list[int], end: int, runs: Sequence[Run] = (), record_bytes: float = 0) -> None:
        self.offsets = offsets
        self.outcomes = bytearray(len(offsets))
        self.end = end
        #: How many of them the position has passed.
        self.counted = 0
        #: What one of them takes in memory while it is pending, on average.
        self.record_bytes = record_bytes
        #: How all offsets stand in a chunk of records that can't be read any more.
        self.runs = runs


class Window:
    """Turns outcomes into a position that never passes a record neither settled nor held.

    Settling is an assignment into `Chunk.outcomes`; everything else happens once per commit.
    """

    def __init__(self, position: int, progress: Progress) -> None:
        self.position = position
        self.progress = progress
        self._chunks: deque[Chunk] = deque()
        self._restored: list[Run] = list(progress.ahead)

    def prepare(self, records: Sequence[Record], next_offset: int) -> Chunk:
        """A chunk of fetched records, not taken in yet; what was settled before a restart is marked."""
        size = sum([len(record[4]) for record in records if record[4] is not None])
        chunk = Chunk([record[0] for record in records], next_offset, record_bytes=size / (len(records) or 1))
        self._mark_restored(chunk)
        return chunk

    def add(self, chunk: Chunk) -> None:
        """Take a prepared chunk in; it goes on where the last one ended."""
        self._mark_restored(chunk)  # what was held may have been settled since it was prepared
        self._forget_restored(chunk.end)
        self._chunks.append(chunk)

    def _mark_restored(self, chunk: Chunk) -> None:
        for first, last, outcome in self._restored:
            begin, end = bisect_left(chunk.offsets, first), bisect_left(chunk.offsets, last + 1)
            chunk.outcomes[begin:end] = bytes([outcome]) * (end - begin)

    def _forget_restored(self, below: int) -> None:
        self._restored = [(max(first, below), last, how) for first, last, how in self._restored if last >= below]

    def lose(self, log_start: int) -> int:
        """Note what retention took before it was read; gives how many offsets were lost."""
        fetched_to = self.fetched_to
        if log_start <= fetched_to:
            return 0
        kept = [(first, min(last, log_start - 1), how) for first, last, how in self._restored if first < log_start]
        lost: list[Run] = []
        at = fetched_to
        for first, last, _ in [*kept, (log_start, log_start, 0)]:
            if at < first:
                lost.append((at, first - 1, int(Outcome.LOST)))
            at = last + 1
        self._forget_restored(log_start)
        self._chunks.append(Chunk([], log_start, sorted(kept + lost)))
        return sum(last - first + 1 for first, last, _ in lost)

    def advance(self) -> None:
        """Move the position over everything settled or held, counting it."""
        while self._chunks:
            chunk = self._chunks[0]
            pending = chunk.outcomes.find(0, chunk.counted)
            complete = pending < 0
            upto = len(chunk.offsets) if complete else pending
            self._count(chunk, upto, chunk.end if complete else chunk.offsets[pending])
            if not complete:
                return
            self._chunks.popleft()

    def _count(self, chunk: Chunk, upto: int, position: int) -> None:
        passed = upto - chunk.counted
        counts = self.progress.counts
        if passed:
            outcomes = chunk.outcomes
            done = outcomes.count(Outcome.DONE, chunk.counted, upto)
            counts[Outcome.DONE] += done
            if done != passed:
                for outcome in _COUNTED[1:]:
                    counts[outcome] += outcomes.count(outcome, chunk.counted, upto)
        for first, last, how in chunk.runs:
            counts[how] += last - first + 1
            passed += last - first + 1
        self.progress.gaps += position - self.position - passed
        self.position = position
        chunk.counted = upto

    def change(self, offset: int, outcome: Outcome, counted_as: Outcome = Outcome.HELD) -> None:
        """Give a record that was held (or `counted_as`) another outcome, above or below the position."""
        if offset < self.progress.start:
            return  # an earlier generation's record; its counts are closed
        if offset < self.position:
            self.progress.counts[counted_as] -= 1
            self.progress.counts[outcome] += 1
            return
        for chunk in self._chunks:
            if offset < chunk.end:
                if chunk.runs:
                    chunk.runs = _cut(chunk.runs, offset, outcome)
                else:
                    chunk.outcomes[bisect_left(chunk.offsets, offset)] = outcome
                return
        self._restored = _cut(self._restored, offset, outcome)

    def change_all(self, offsets: Sequence[int], outcome: Outcome, counted_as: Outcome = Outcome.HELD) -> None:
        """As `change`, of many, in order of offset."""
        counts = self.progress.counts
        passed = bisect_left(offsets, self.position)
        number = max(0, passed - bisect_left(offsets, self.progress.start))
        counts[counted_as] -= number
        counts[outcome] += number
        for offset in offsets[passed:]:
            self.change(offset, outcome, counted_as)

    def settled(self, offset: int) -> bool:
        """Whether a record has its outcome, as far as the window knows: one below the position may be held."""
        if offset < self.position:
            return True
        for chunk in self._chunks:
            if offset < chunk.end:
                at = bisect_left(chunk.offsets, offset)
                known = at < len(chunk.offsets) and chunk.offsets[at] == offset
                runs = [*chunk.runs, (offset, offset, chunk.outcomes[at])] if known else chunk.runs
                return _outcome_in(runs, offset) not in (0, Outcome.HELD)
        return _outcome_in(self._restored, offset) not in (0, Outcome.HELD)

    @property
    def fetched_to(self) -> int:
        """The offset that fetching goes on from."""
        return self._chunks[-1].end if self._chunks else self.position

    def pending(self) -> int:
        """How many fetched records are neither settled nor held."""
        return sum(chunk.outcomes.count(0, chunk.counted) for chunk in self._chunks)

    def in_memory(self) -> tuple[int, float]:
        """As `pending`, and about how many bytes of values those keep in memory."""
        records, size = 0, 0.0
        for chunk in self._chunks:
            pending = chunk.outcomes.count(0, chunk.counted)
            records += pending
            size += pending * chunk.record_bytes
        return records, size

    def size(self) -> int:
        """How many fetched records the position has not passed."""
        return sum(len(chunk.offsets) - chunk.counted for chunk in self._chunks)

    def encode(self, completed: Callable[[Progress], None] = lambda progress: None) -> bytes:
        """The progress to commit with the position of this moment, once `completed` has added what it knows."""
        self.progress.ahead = self._runs()
        completed(self.progress)
        return self.progress.encode()

    def _runs(self) -> list[Run]:
        runs: list[Run] = []
        for chunk in self._chunks:
            offsets = chunk.offsets
            runs += chunk.runs
            for found in _SAME_OUTCOME.finditer(chunk.outcomes, chunk.counted):
                runs.append((offsets[found.start()], offsets[found.end() - 1], found.group()[0]))
        return runs + self._restored


def _outcome_in(runs: Sequence[Run], offset: int) -> int:
    return next((how for first, last, how in runs if first <= offset <= last), 0)


def _cut(runs: Sequence[Run], offset: int, outcome: Outcome) -> list[Run]:
    """The runs with another outcome for one offset: its run is cut in three."""
    found: list[Run] = []
    for first, last, before in runs:
        if not first <= offset <= last:
            found.append((first, last, before))
            continue
        pieces = [(first, offset - 1, before), (offset, offset, int(outcome)), (offset + 1, last, before)]
        found.extend(piece for piece in pieces if piece[0] <= piece[1])
    return found
