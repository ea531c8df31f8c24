"""Redriven letters at hand, against a model: what state and the counts say at each commit, whatever ended before it."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from postline.runtime.edits import Edits
from postline.runtime.entries import (
    DEAD,
    HELD,
    DeadEntry,
    HeldEntry,
    decode_entry,
    encode_entry,
    offset_key,
    offset_keys,
    offset_of,
    redrives_of,
)
from postline.runtime.outcomes import Outcome
from postline.runtime.progress import Progress
from postline.runtime.redriven import AtHand, fitting
from postline.runtime.standing import HeldCounts
from postline.runtime.unit import PendingUnit
from postline.runtime.window import Window

OFFSETS, POSITION = range(12), 7
ENDS = [Outcome.DONE, Outcome.FILTERED, Outcome.DISCARDED, Outcome.DEAD_LETTERED]


def record(offset: int, size: int = 5) -> Any:
    return (offset, 0, b"k", "t", b"x" * size, 0, b"")


def letter(redrives: int = 0, run: str = "", size: int = 5) -> bytes:
    return encode_entry(DeadEntry(b"k", b"k", "t", "E", "E: x", 1, 5, False, size=size, redrives=redrives, run=run))


class World:
    """A partition whose records are all dead letters at first, some above the position; `stored` is what is durable."""

    def __init__(self) -> None:
        progress = Progress()
        progress.counts[Outcome.DEAD_LETTERED] = POSITION
        self.owned: Any = SimpleNamespace(window=Window(POSITION, progress), unit=PendingUnit())
        chunk = self.owned.window.prepare([record(offset) for offset in OFFSETS[POSITION:]], len(OFFSETS))
        chunk.outcomes[:] = bytes([Outcome.DEAD_LETTERED]) * len(chunk.outcomes)
        self.owned.window.add(chunk)
        self.counts = HeldCounts()
        self.hand = AtHand(self.owned, self.counts, Edits(self.owned))
        self.stored: dict[tuple[str, bytes], bytes] = {(DEAD, offset_key(offset)): letter() for offset in OFFSETS}
        #: By offset: the outcome that it has, HELD for what waits by an entry, PENDING for what is at hand.
        self.how = dict.fromkeys(OFFSETS, Outcome.DEAD_LETTERED)
        self.redrives = Counter[int]()
        self.items: dict[int, Any] = {}

    def seen(self, offset: int) -> bytes | None:
        place = (DEAD, offset_key(offset))
        return self.owned.unit.changes.get(place, self.stored.get(place))

    def redrive(self, chosen: set[int]) -> None:
        """As `Holding.redrive` does it."""
        letters = {each: self.seen(each) or b"" for each in OFFSETS if self.how[each] is Outcome.DEAD_LETTERED}
        letters = {offset: data for offset, data in letters.items() if offset in chosen}
        self.hand.account()
        self.owned.unit.delete_all(DEAD, offset_keys(list(letters)))
        self.owned.window.change_all(list(letters), Outcome.HELD, counted_as=Outcome.DEAD_LETTERED)
        batch = self.hand.take(letters, {offset: record(offset) for offset in letters}, "r")
        for index, offset in enumerate(letters):
            self.items[offset], self.how[offset] = (batch, index), Outcome.PENDING
            self.redrives[offset] += 1

    def end(self, offset: int, outcome: Outcome) -> None:
        if self.how[offset] is not Outcome.PENDING:
            return
        batch, index = self.items.pop(offset)
        batch.outcomes[index], self.how[offset] = outcome, outcome
        if outcome is Outcome.DEAD_LETTERED:
            assert batch.redrives(index) == self.redrives[offset]
            self.owned.unit.put(DEAD, offset_key(offset), letter(batch.redrives(index), "r"))
        elif outcome is Outcome.HELD:
            entry = batch.entry(index)
            self.owned.unit.put(HELD, offset_key(offset), encode_entry(entry))
            self.counts.hold(offset, entry)

    def commit(self) -> None:
        self.hand.write()
        for place, value in self.owned.unit.changes.items():
            if value is None:
                self.stored.pop(place, None)
            else:
                self.stored[place] = value
        self.owned.unit = PendingUnit()

    def entries(self, namespace: str) -> dict[int, bytes]:
        return {offset_of(key): data for (name, key), data in self.stored.items() if name == namespace}

    def check(self) -> None:
        """A crash now would lose and double nothing, and the counts balance."""
        waits = {each for each, how in self.how.items() if how in (Outcome.PENDING, Outcome.HELD)}
        held = {
            offset_of(key): decode_entry(data, HeldEntry) for (name, key), data in self.stored.items() if name == HELD
        }
        dead = {offset_of(key): data for (name, key), data in self.stored.items() if name == DEAD}
        assert held.keys() == waits
        assert {offset: entry.redrives for offset, entry in held.items()} == {
            each: self.redrives[each] for each in waits
        }
        assert dead.keys() == {each for each, how in self.how.items() if how is Outcome.DEAD_LETTERED}
        assert {offset: redrives_of(data)[0] for offset, data in dead.items()} == {o: self.redrives[o] for o in dead}
        assert {each for each in OFFSETS if each in self.counts} == waits
        assert self.hand.pending == sum(how is Outcome.PENDING for how in self.how.values())


REDRIVE = st.tuples(st.just("redrive"), st.sets(st.sampled_from(OFFSETS), min_size=1))
END = st.tuples(st.just("end"), st.sampled_from(OFFSETS), st.sampled_from([*ENDS, Outcome.HELD]))
COMMIT = st.tuples(st.just("commit"))


@given(st.lists(REDRIVE | END | END | END | COMMIT, max_size=60))
def test_what_is_at_hand_is_neither_lost_nor_doubled_by_any_commit(steps: list[Any]) -> None:
    world = World()
    for step in steps:
        getattr(world, step[0])(*step[1:])
        if step[0] == "commit":
            world.check()
    world.commit()
    world.check()
    world.owned.window.advance()
    counts = Counter(Outcome.HELD if how is Outcome.PENDING else how for how in world.how.values())
    found = world.owned.window.progress.counts
    assert {outcome: found[outcome] for outcome in Outcome if found[outcome]} == counts


@given(st.lists(st.integers(0, 300), min_size=1, max_size=20), st.integers(0, 10), st.integers(0, 900))
def test_memory_takes_the_first_letters_up_to_its_bounds(sizes: list[int], records: int, room: int) -> None:
    letters = {offset: letter(size=size) for offset, size in enumerate(sizes)}
    chosen = fitting(letters, records, room)
    assert chosen == list(range(len(chosen)))
    assert len(chosen) <= records
    assert sum(sizes[: len(chosen)]) <= room
    whole = len(chosen) == min(records, len(sizes))
    assert whole or sum(sizes[: len(chosen) + 1]) > room


@given(st.integers(0, 1 << 20), st.text(max_size=12), st.integers(0, 1 << 33))
def test_how_often_a_letter_was_redriven_is_told_as_its_entry_has_it(redrives: int, run: str, size: int) -> None:
    known = (redrives, run) if redrives else (0, "")  # a run is named with the first redrive
    if run or redrives % 256:
        assert redrives_of(letter(*known, size=size)) == known
    assert redrives_of(letter(size=size)) == (0, "")
