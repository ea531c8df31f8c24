"""Gap records: every record is produced under its offset, and what stands between is seen by nobody."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from postline.log.kafka.filling import _dense
from postline.log.kafka.wire import is_gap
from postline.log.port import GAP_TYPE, Record
from postline.log.transfer import Batch
from postline.message import Envelope


@given(st.lists(st.integers(0, 60), unique=True).map(sorted), st.integers(0, 5), st.integers(0, 5))
def test_each_record_is_produced_as_the_one_of_its_offset(offsets: list[int], before: int, after: int) -> None:
    records: list[Record] = [(at + before, 7, b"k", "t", b"%d" % at, 0, None) for at in offsets]
    end = (records[-1][0] + 1 if records else 0) + after
    batch = Batch("orders", 0, 0, end, records, "sqlite", lambda record: Envelope(id="i", source="s", type="t"))
    produced = list(_dense(batch))
    assert len(produced) == end
    values = {at: each["value"] for at, each in enumerate(produced) if "value" in each}
    assert values == {record[0]: record[4] for record in records}
    assert all(each["timestamp"] for each in produced)


def test_only_what_has_neither_key_nor_value_is_a_gap() -> None:
    gap: Record = (1, 5, None, GAP_TYPE, None, 0, [])
    assert is_gap(gap)
    assert not is_gap((1, 5, b"k", GAP_TYPE, None, 0, []))
    assert not is_gap((1, 5, None, GAP_TYPE, b"v", 0, []))
    assert not is_gap((1, 5, None, "shop.OrderPlaced", None, 0, []))
