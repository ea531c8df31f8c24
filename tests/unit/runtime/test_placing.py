"""Where state goes when a topic gets more partitions: with its keys, to each place once, and back again."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postline.contracts import Partitioner
from postline.errors import UsageError
from postline.log.needs import StateEntry
from postline.runtime.control import CONTROL_POSITION, PAUSED
from postline.runtime.dedup import Marks
from postline.runtime.entries import CONTROL, DEAD, DEDUP, DEDUP_ORDER, HELD, TYPES, USER_STATE, offset_key
from postline.runtime.placing import state_placer
from postline.runtime.unit import PendingUnit

DIGEST = b"d" * 16
TIME = (1_700_000_000_000).to_bytes(8, "big")
COUNTS = st.tuples(st.integers(1, 40), st.integers(1, 40)).map(sorted)

State = set[StateEntry]


def settled(entries: State, before: int, after: int, count: int, ends: list[int]) -> State:
    """State after every entry was placed, as an engine does it: what is there already stays, until nothing changes."""
    place = state_placer(before, after, ends)
    known = {(each.partition, each.namespace, each.key): each for each in entries}
    waiting = list(entries)
    while waiting:
        entry = waiting.pop()
        belongs = place(entry, count)
        if all(each.partition != entry.partition for each in belongs):
            del known[entry.partition, entry.namespace, entry.key]
        for each in belongs:
            if (where := (each.partition, each.namespace, each.key)) not in known:
                known[where] = each
                waiting.append(each)
    return set(known.values())


@given(COUNTS, st.sets(st.binary(min_size=1, max_size=8), max_size=20))
def test_a_keys_state_goes_where_its_records_go_and_back(counts: list[int], keys: set[bytes]) -> None:
    before, after = counts
    entries = {StateEntry(Partitioner(before).partition_of(key), USER_STATE, key, b"v" + key) for key in keys}
    moved = settled(entries, before, after, after, [9] * before)
    assert moved == {StateEntry(Partitioner(after).partition_of(key), USER_STATE, key, b"v" + key) for key in keys}
    assert settled(moved, before, after, after, [9] * before) == moved
    assert settled(moved, before, after, before, [9] * before) == entries


@given(COUNTS, st.binary(min_size=1, max_size=8))
def test_a_mark_is_wherever_a_duplicate_of_its_record_can_come(counts: list[int], key: bytes) -> None:
    before, after = counts
    home = Partitioner(before).partition_of(key)
    entries = {
        StateEntry(home, DEDUP, DIGEST, offset_key(5) + TIME),
        StateEntry(home, DEDUP_ORDER, offset_key(5) + DIGEST, TIME),
    }
    ends = [9 + number for number in range(before)]
    moved = settled(entries, before, after, after, ends)
    places = {each.partition for each in moved if each.namespace == DEDUP}
    assert places == {each.partition for each in moved if each.namespace == DEDUP_ORDER}
    assert Partitioner(after).partition_of(key) in places
    assert places == set(range(home % math.gcd(before, after), after, math.gcd(before, after)))
    assert entries <= moved
    assert len(moved) == 2 * len(places)
    assert settled(moved, before, after, after, ends) == moved
    assert {each.partition for each in settled(moved, before, after, before, ends)} <= set(range(before))


def test_a_mark_that_came_from_elsewhere_tells_duplicates_whatever_their_offset_and_is_forgotten_in_time() -> None:
    place = state_placer(1, 2, [7])
    (_, mark) = place(StateEntry(0, DEDUP, DIGEST, offset_key(0) + TIME), 2)
    (_, order) = place(StateEntry(0, DEDUP_ORDER, offset_key(0) + DIGEST, TIME), 2)
    assert (mark.partition, order.partition) == (1, 1)
    marks, unit = Marks(timedelta(seconds=10), 3), PendingUnit()
    marks.learn({mark.key: mark.value})
    assert marks.is_duplicate(DIGEST, 0, 0, unit)
    late = 1_700_000_000_000 + 60_000
    marks.evict([(order.key, order.value)], 2, late, unit)
    assert not unit.changes
    marks.evict([(order.key, order.value)], 3, late, unit)
    assert unit.changes == {(DEDUP, DIGEST): None, (DEDUP_ORDER, order.key): None}


def test_types_and_a_pause_count_in_new_partitions_and_what_belongs_to_offsets_stays() -> None:
    entries = {
        StateEntry(1, TYPES, b"shop.Order", b"1"),
        StateEntry(0, CONTROL, PAUSED, b"1"),
        StateEntry(0, CONTROL, CONTROL_POSITION, b"3 billing.control"),
        StateEntry(0, HELD, offset_key(1), b"h"),
        StateEntry(1, DEAD, offset_key(2), b"d"),
    }
    moved = settled(entries, 2, 4, 4, [9, 9])
    assert moved - entries == {
        StateEntry(2, TYPES, b"shop.Order", b"1"),
        StateEntry(3, TYPES, b"shop.Order", b"1"),
        StateEntry(2, CONTROL, PAUSED, b"1"),
    }
    assert entries <= moved
    assert settled(moved, 2, 4, 2, [9, 9]) == entries


def test_state_that_this_version_does_not_know_is_not_moved() -> None:
    with pytest.raises(UsageError, match="'windows' can't be moved"):
        state_placer(1, 2, [0])(StateEntry(0, "windows", b"k", b"v"), 2)
