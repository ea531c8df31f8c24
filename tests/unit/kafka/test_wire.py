"""Records and headers as Kafka carries them."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from postline.contracts.cloudevents import OWN_ID, RESERVED
from postline.log.kafka import wire
from postline.log.kafka.wire import envelope_of, headers_of
from postline.log.port import FLAG_OWN_ID, SCHEMA_ID_SHIFT, Append, Record
from postline.message import Envelope

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
own_headers = st.dictionaries(texts.filter(lambda name: name not in RESERVED), texts, max_size=3)
envelopes = st.builds(
    Envelope,
    id=texts,
    source=texts,
    type=texts,
    time_ms=st.integers(0, 4_000_000_000_000),
    content_type=texts,
    correlation_id=texts,
    causation_id=texts,
    headers=st.one_of(st.just({}), own_headers),
)


class Consumed:
    """A message as the client library hands it out."""

    def __init__(self, headers: list | None) -> None:
        self._headers = headers

    def headers(self) -> list | None:
        return self._headers

    def offset(self) -> int:
        return 7

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_700_000_000_000

    def key(self) -> bytes:
        return b"k"

    def value(self) -> bytes:
        return b"v"


def record_of(consumed: Consumed) -> Record:
    """The record of what only looks like a message."""
    return wire.record_of(consumed)  # type: ignore[arg-type]


@given(
    envelopes, st.sampled_from([0, FLAG_OWN_ID, 17 << SCHEMA_ID_SHIFT, (2**31 - 1) << SCHEMA_ID_SHIFT | FLAG_OWN_ID])
)
def test_every_envelope_and_flag_comes_back_equal(envelope: Envelope, flags: int):
    record = record_of(Consumed(headers_of(Append("t", 0, b"k", b"v", envelope, flags))))
    assert envelope_of(record) == envelope
    assert record == (7, 1_700_000_000_000, b"k", envelope.type, b"v", flags, record[6])


@given(st.lists(st.tuples(texts, st.one_of(st.none(), st.binary(max_size=6))), max_size=5))
def test_whatever_others_wrote_becomes_an_envelope_and_goes_out_byte_for_byte(headers: list):
    record = record_of(Consumed(headers))
    envelope = envelope_of(record)
    written = dict(headers_of(Append("t", 0, b"k", b"v", envelope, record[5])))
    for name, value in dict(headers).items():
        if name not in RESERVED:
            assert written[name] == (value or b"")


def test_a_records_type_and_mark_are_found_wherever_they_stand():
    assert record_of(Consumed(None))[3:6] == ("", b"v", 0)
    foreign = [("a", b"1"), (OWN_ID, b"1"), ("ce_type", b"shop.Order")]
    assert record_of(Consumed(foreign))[3:6] == ("shop.Order", b"v", FLAG_OWN_ID)
