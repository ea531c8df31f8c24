"""The window against a plain model: positions, audit counts and what is done ahead, through restarts and losses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from postline.errors import LogVersionError
from postline.log.port import Record
from postline.runtime.outcomes import Outcome
from postline.runtime.progress import Progress
from postline.runtime.window import Chunk, Window

ENDS = [Outcome.DONE, Outcome.FILTERED, Outcome.DUPLICATE, Outcome.DEAD_LETTERED, Outcome.DISCARDED, Outcome.HELD]
settled = st.sampled_from(ENDS)


def record(offset: int) -> Record:
    return (offset, 0, None, "", None, 0, None)


class WindowMachine(RuleBasedStateMachine):
    """Drives a window and a dict that knows how each offset stands."""

    def __init__(self) -> None:
        super().__init__()
        #: Offsets of the log that hold records; the others are gaps.
        self.log: list[int] = []
        self.end = 0
        self.how: dict[int, Outcome] = {}
        self.fetched_to = 0
        self.log_start = 0
        self.in_runs: dict[int, Outcome] = {}
        self.committed: tuple[int, bytes] = (0, b"")
        self.committed_how: dict[int, Outcome] = {}
        self.window = Window(0, Progress())
        self.chunks: list[tuple[Chunk, list[int]]] = []

    @rule(gaps=st.lists(st.integers(0, 3), min_size=1, max_size=12))
    def append(self, gaps: list[int]) -> None:
        for gap in gaps:
            self.log.append(self.end + gap)
            self.end += gap + 1

    @rule(limit=st.integers(1, 8), past_gaps=st.booleans(), data=st.data())
    def fetch(self, limit: int, past_gaps: bool, data: st.DataObject) -> None:
        """As the consumer does: note what is lost, then take in what is there; a held record may settle meanwhile."""
        lost = self.window.lose(self.log_start)
        gone = range(self.fetched_to, self.log_start)
        # Whether an offset inside a run was a gap can't be known any more once the log has lost it.
        self.how.update((o, self.in_runs[o]) for o in gone if o in self.in_runs and o not in self.how)
        missed = [o for o in gone if o not in self.how]
        assert lost == len(missed)
        self.how.update((offset, Outcome.LOST) for offset in missed)
        self.fetched_to = max(self.fetched_to, self.log_start)
        found = [offset for offset in self.log if offset >= self.fetched_to][:limit]
        if not found:
            return
        following = [offset for offset in self.log if offset > found[-1]]
        next_offset = (following[0] if following else self.end) if past_gaps else found[-1] + 1
        chunk = self.window.prepare([record(offset) for offset in found], next_offset)
        self.chunks.append((chunk, found))
        if data.draw(st.booleans()):
            self.change_a_held_one_if_any(data)
        self.window.add(chunk)
        for index, offset in enumerate(found):
            assert chunk.outcomes[index] == self.how.get(offset, Outcome.PENDING), "restored as it stood"
        self.fetched_to = next_offset

    def open_places(self) -> list[tuple[Chunk, int, int]]:
        return [(c, i, o) for c, offsets in self.chunks for i, o in enumerate(offsets) if o not in self.how]

    @precondition(lambda self: self.open_places())
    @rule(data=st.data(), outcome=settled)
    def settle(self, data: st.DataObject, outcome: Outcome) -> None:
        chunk, index, offset = data.draw(st.sampled_from(self.open_places()))
        chunk.outcomes[index] = outcome
        self.how[offset] = outcome

    @rule(data=st.data())
    def change_a_held_one_if_any(self, data: st.DataObject) -> None:
        if held := sorted(o for o, how in self.how.items() if how is Outcome.HELD):
            offset, outcome = data.draw(st.sampled_from(held)), data.draw(settled)
            self.window.change(offset, outcome)
            self.how[offset] = outcome

    @precondition(lambda self: any(how is Outcome.DEAD_LETTERED for how in self.how.values()))
    @rule(data=st.data(), outcome=st.sampled_from([Outcome.HELD, Outcome.DISCARDED]))
    def change_a_dead_letter(self, data: st.DataObject, outcome: Outcome) -> None:
        offset = data.draw(st.sampled_from(sorted(o for o, how in self.how.items() if how is Outcome.DEAD_LETTERED)))
        self.window.change(offset, outcome, counted_as=Outcome.DEAD_LETTERED)
        self.how[offset] = outcome

    @rule()
    def commit(self) -> None:
        self.window.advance()
        self.committed = (self.window.position, self.window.encode())
        self.committed_how = dict(self.how)

    @rule()
    def crash(self) -> None:
        """What was not committed is forgotten; the next owner begins at the position."""
        position, progress = self.committed
        self.window = Window(position, Progress.decode(progress, position))
        self.how = dict(self.committed_how)
        runs = self.window.progress.ahead
        self.in_runs = {o: Outcome(how) for first, last, how in runs for o in range(first, last + 1)}
        self.chunks.clear()
        self.fetched_to = position

    @rule(by=st.integers(1, 10))
    def retention(self, by: int) -> None:
        """Held records and dead letters are spared, but the log's start moves over them."""
        self.log_start = min(self.log_start + by, self.end)
        self.log = [offset for offset in self.log if offset >= self.log_start]

    def expected_position(self) -> int:
        pending = [o for _, offsets in self.chunks for o in offsets if o not in self.how]
        return min(pending, default=self.fetched_to)

    @invariant()
    def the_position_passes_nothing_that_is_open_and_the_audit_balances(self) -> None:
        self.window.advance()
        position, progress = self.window.position, self.window.progress
        assert position == self.expected_position()
        assert progress.missing(position) == 0
        below = [how for offset, how in self.how.items() if offset < position]
        assert progress.counts == [0, *(below.count(outcome) for outcome in list(Outcome)[1:])]
        assert self.window.fetched_to == self.fetched_to
        assert self.window.pending() == len(self.open_places())


TestWindow = WindowMachine.TestCase


def chunk_of(*outcomes: Outcome) -> tuple[Window, Chunk]:
    window = Window(0, Progress())
    chunk = window.prepare([record(offset) for offset in range(len(outcomes))], len(outcomes))
    window.add(chunk)
    chunk.outcomes[:] = bytes(outcomes)
    return window, chunk


def test_the_position_stops_at_the_first_open_record_and_what_is_ahead_is_remembered_in_runs():
    pending, done, held = Outcome.PENDING, Outcome.DONE, Outcome.HELD
    window, chunk = chunk_of(done, pending, done, done, held, done)
    window.advance()
    assert window.position == 1
    restored = Progress.decode(window.encode(), 1)
    assert restored.ahead == [(2, 3, done), (4, 4, held), (5, 5, done)]
    chunk.outcomes[1] = done
    window.advance()
    assert (window.position, window.progress.held) == (6, 1)


def test_a_record_of_an_earlier_generation_changes_no_counts():
    window = Window(10, Progress(start=10))
    window.change(3, Outcome.DONE)
    assert window.progress.counts == [0] * len(Outcome)


def test_a_planted_fault_is_seen_as_a_missing_record():
    window, _ = chunk_of(Outcome.DONE, Outcome.DONE)
    window.advance()
    window.progress.counts[Outcome.DONE] -= 1
    assert window.progress.missing(window.position) == 1


def test_progress_of_a_newer_format_is_refused():
    with pytest.raises(LogVersionError, match="format 99"):
        Progress.decode(Progress(format=99).encode(), 0)


@given(st.lists(st.integers(1, 200), max_size=40), st.data())
def test_progress_comes_back_as_it_was_written(steps: list[int], data: Any):
    runs, at = [], 0
    for step in steps:
        runs.append((at, at + step - 1, int(data.draw(settled))))
        at += step + 1
    progress = Progress(start=3, counts=[0, *range(9)], gaps=5, ahead=runs, discarded_by_resets=2)
    assert Progress.decode(progress.encode(), 0) == progress
