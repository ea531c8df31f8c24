"""Digests: the same wherever reading was interrupted, another one for any difference."""

from __future__ import annotations

from collections.abc import Sequence

import hypothesis.strategies as st
from hypothesis import given

from postline.log.port import FLAG_STRUCTURED, SCHEMA_ID_SHIFT, Record
from postline.log.transfer import Verified
from postline.message import Envelope
from postline.migration.digests import BLOCK, Digest, StateDigest, told

NOTHING = Verified(0, 0, "0")


def envelope(record: Record) -> Envelope:
    return Envelope(id=record[6], source="shop", type=record[3])


def record(offset: int, **changes: object) -> Record:
    fields = {"time": 5, "key": b"k", "type": "t", "value": b"v", "flags": 0, "id": f"i{offset}"} | changes
    return (offset, *fields.values())  # type: ignore[return-value]


def digest(records: Sequence[Record], begun: Verified = NOTHING) -> Digest:
    made = Digest(envelope, begun)
    made.feed(records)
    return made


offsets = st.lists(st.integers(0, 5 * BLOCK), unique=True, min_size=1, max_size=60).map(sorted)


@given(offsets, st.data())
def test_a_digest_is_the_same_however_records_come(chosen: list[int], data: st.DataObject) -> None:
    records = [record(offset) for offset in chosen]
    whole = digest(records).upto(9 * BLOCK)
    cut = data.draw(st.integers(0, len(records)))
    parts = digest(records[:cut])
    parts.feed(records[cut:])
    assert parts.upto(9 * BLOCK) == whole
    begun = digest(records[:cut]).resumable
    again = digest([each for each in records if each[0] >= begun.offset], begun)
    assert again.upto(9 * BLOCK) == whole


@given(offsets, st.data())
def test_any_difference_is_another_digest(chosen: list[int], data: st.DataObject) -> None:
    records = [record(offset) for offset in chosen]
    at = data.draw(st.integers(0, len(records) - 1))
    offset = chosen[at]
    changed = data.draw(
        st.sampled_from(
            [
                [record(offset, value=None)],
                [record(offset, value=b"")],
                [record(offset, key=None)],
                [record(offset, time=6)],
                [record(offset, flags=1)],
                [record(offset, id="other")],
                [record(5 * BLOCK + 1)],
                [],
            ]
        )
    )
    others = sorted([*records[:at], *changed, *records[at + 1 :]])
    assert digest(others).upto(9 * BLOCK) != digest(records).upto(9 * BLOCK)


def test_looking_at_a_digest_changes_nothing() -> None:
    one, other = digest([record(1)]), digest([record(1)])
    one.upto(2)
    for each in (one, other):
        each.feed([record(2)])
    assert one.upto(3) == other.upto(3)


def test_what_only_one_engine_keeps_makes_no_difference() -> None:
    assert told(record(1, flags=FLAG_STRUCTURED), envelope) == told(record(1), envelope)
    assert told(record(1, flags=1 << 70), envelope) == told(record(1), envelope)
    assert told(record(1, time=0), envelope) == told(record(1, time=1), envelope)
    assert told(record(1, flags=9 << SCHEMA_ID_SHIFT), envelope) != told(record(1), envelope)


def test_text_that_is_no_unicode_has_a_digest() -> None:
    assert digest([record(1, id="\udc80")]).upto(2) != digest([record(1, id="\udc81")]).upto(2)


def test_state_in_another_place_is_another_digest() -> None:
    one, other = StateDigest(), StateDigest()
    one.feed([("a", b"b", b"c")])
    other.feed([("a", b"bc", b"")])
    assert (one.entries, one.digest != other.digest) == (1, True)
