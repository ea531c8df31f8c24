"""Dedup marks against a plain model: what is remembered, what may be forgotten, and that a replay is none."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from postline import Dedup, SettingsError
from postline.ids import derived_id
from postline.message import Envelope
from postline.runtime.dedup import EVICTION_STEP, Marks, identity_digest
from postline.runtime.entries import DEDUP, DEDUP_ORDER
from postline.runtime.unit import PendingUnit

WINDOW_MS, COUNT = 1_000, 20


class MarksMachine(RuleBasedStateMachine):
    """Drives marks over a dict of committed state; `seen` is every digest with its first offset and time."""

    def __init__(self) -> None:
        super().__init__()
        self.state: dict[tuple[str, bytes], bytes] = {}
        self.seen: dict[bytes, tuple[int, int]] = {}
        self.records: list[tuple[int, bytes, int]] = []
        self.marks, self.unit = self.fresh()
        self.now = 10_000
        self.position = 0

    def fresh(self) -> tuple[Marks, PendingUnit]:
        return Marks(timedelta(milliseconds=WINDOW_MS), COUNT), PendingUnit()

    def ask(self, digest: bytes, offset: int, timestamp: int) -> bool:
        if unknown := self.marks.missing([digest]):
            found = {d: self.state[DEDUP, d] for d in unknown if (DEDUP, d) in self.state}
            self.marks.learn(found)
        return self.marks.is_duplicate(digest, offset, timestamp, self.unit)

    @rule(name=st.integers(0, 30), passes=st.integers(0, 400))
    def record(self, name: int, passes: int) -> None:
        self.now += passes
        digest, offset = str(name).encode().rjust(16), self.position
        self.position += 1
        self.records.append((offset, digest, self.now))
        duplicate = self.ask(digest, offset, self.now)
        if digest not in self.seen:
            assert not duplicate
            self.seen[digest] = (offset, self.now)
            return
        first, when = self.seen[digest]
        if self.now <= when + WINDOW_MS or offset <= first + COUNT:
            assert duplicate, "neither window nor count may be shortened"
        if not duplicate:
            self.seen[digest] = (offset, self.now)

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def the_first_record_again_is_no_duplicate(self, data: st.DataObject) -> None:
        digest = data.draw(st.sampled_from(sorted(self.seen)))
        offset, timestamp = self.seen[digest]
        if self.now <= timestamp + WINDOW_MS or self.position <= offset + COUNT:
            assert not self.ask(digest, offset, timestamp)

    @rule()
    def commit_and_evict(self) -> None:
        if self.marks.eviction_due(self.now):
            order = sorted(place[1] for place in self.state if place[0] == DEDUP_ORDER)[:EVICTION_STEP]
            oldest = [(key, self.state[DEDUP_ORDER, key]) for key in order]
            self.marks.evict(oldest, self.position, self.now, self.unit)
        for place, value in self.unit.changes.items():
            if value is None:
                self.state.pop(place, None)
            else:
                self.state[place] = value
        self.unit = PendingUnit()
        self.marks.trim(self.unit, in_memory_max=5)

    @rule()
    def restart(self) -> None:
        """The next owner reads again what the last one had not committed."""
        self.marks, self.unit = self.fresh()
        self.commit_and_evict()
        kept = {offset for (kind, key), _ in self.state.items() if kind == DEDUP_ORDER for offset in [key[:8]]}
        for offset, digest, timestamp in self.records:
            if self.seen.get(digest) == (offset, timestamp) and offset.to_bytes(8, "big") not in kept:
                recent = self.now <= timestamp + WINDOW_MS or self.position <= offset + COUNT
                if recent:
                    assert not self.ask(digest, offset, timestamp)


TestMarks = MarksMachine.TestCase


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "exactly one"),
        ({"by_id": True, "digest": True}, "exactly one"),
        ({"by_id": True, "ignore": ("x",)}, "ignore= belongs to digest"),
        ({"digest": True, "window": timedelta(0)}, "window must be above zero"),
    ],
)
def test_what_contradicts_itself_is_refused(options: dict[str, object], problem: str):
    with pytest.raises(SettingsError, match=problem):
        Dedup(**options)  # type: ignore[arg-type]


def test_identities_differ_by_source_and_id_and_foreign_records_have_none():
    digests = {identity_digest(Envelope(id=i, source=s)) for i in ("a", "b") for s in ("x", "y")}
    assert len(digests) == 4
    assert identity_digest(Envelope(source="x")) is None


def test_marks_of_other_kinds_and_types_do_not_meet():
    record = (0, 0, None, "a", b'{"x":1}', 0, None)
    other = (0, 0, None, "b", b'{"x":1}', 0, None)
    by_digest = Dedup(digest=True)
    found = {by_digest.digest_of(each, None, lambda _: Envelope()) for each in (record, other)}
    assert len(found) == 2


def test_a_digest_does_not_depend_on_the_order_of_fields_and_leaves_out_what_it_is_told_to():
    def of(dedup: Dedup, value: bytes) -> bytes | None:
        return dedup.digest_of((0, 0, None, "a", value, 0, None), None, lambda record: Envelope())

    assert of(Dedup(digest=True), b'{"x":1,"y":2}') == of(Dedup(digest=True), b'{"y": 2, "x": 1}')
    assert of(Dedup(digest=True), b'{"x":1}') != of(Dedup(digest=True), b'{"x":2}')
    ignoring = Dedup(digest=True, ignore=("sent",))
    assert of(ignoring, b'{"x":1,"sent":5}') == of(ignoring, b'{"x":1,"sent":6}') == of(ignoring, b'{"x":1}')


def test_identities_that_are_no_unicode_have_marks_and_ids_of_their_own():
    odd = [Envelope(id=name, source=source) for name in ("a\udcff", "a") for source in ("s\udcff", "s")]
    assert len({identity_digest(envelope) for envelope in odd}) == 4
    assert len({derived_id("sub", envelope.source, envelope.id) for envelope in odd}) == 4
