"""Records and headers as Kafka carries them."""

from __future__ import annotations

from uuid import UUID

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from postline.contracts.cloudevents import OWN_ID, RESERVED
from postline.contracts.cloudevents_json import is_packed
from postline.contracts.frame import VALUE_HEADER, SchemaHeader, number_of_guid
from postline.log.kafka import wire
from postline.log.kafka.pins import copy_of, record_in
from postline.log.kafka.wire import envelope_of, written
from postline.log.port import FLAG_OWN_ID, FLAG_STRUCTURED, SCHEMA_ID_SHIFT, UNREADABLE_TYPE, Append, Record
from postline.message import Envelope

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
own_headers = st.dictionaries(texts.filter(lambda name: name not in RESERVED), texts, max_size=3)
envelopes = st.builds(
    Envelope,
    id=texts,
    source=texts,
    type=texts,
    time_ms=st.integers(0, 4_000_000_000_000),
    content_type=texts.filter(lambda text: not is_packed(text)),
    correlation_id=texts,
    causation_id=texts,
    headers=st.one_of(st.just({}), own_headers),
)


class Consumed:
    """A message as the client library hands it out."""

    def __init__(self, headers: list | None, value: bytes | None = b"v", timestamp_ms: int = 1_700_000_000_000) -> None:
        self._headers, self._value, self._timestamp_ms = headers, value, timestamp_ms

    def headers(self) -> list | None:
        return self._headers

    def offset(self) -> int:
        return 7

    def timestamp(self) -> tuple[int, int]:
        return 1, self._timestamp_ms

    def key(self) -> bytes:
        return b"k"

    def value(self) -> bytes | None:
        return self._value


def record_of(consumed: Consumed) -> Record:
    """The record of what only looks like a message."""
    return wire.record_of(consumed)  # type: ignore[arg-type]


@given(
    envelopes, st.sampled_from([0, FLAG_OWN_ID, 17 << SCHEMA_ID_SHIFT, (2**31 - 1) << SCHEMA_ID_SHIFT | FLAG_OWN_ID])
)
def test_every_envelope_and_flag_comes_back_equal(envelope: Envelope, flags: int):
    record = record_of(Consumed(*written(Append("t", 0, b"k", b"v", envelope, flags))))
    assert envelope_of(record) == envelope
    assert record == (7, 1_700_000_000_000, b"k", envelope.type, b"v", flags, record[6])


@given(st.lists(st.tuples(texts, st.one_of(st.none(), st.binary(max_size=6))), max_size=5))
def test_whatever_others_wrote_becomes_an_envelope_and_goes_out_byte_for_byte(headers: list):
    record = record_of(Consumed(headers))
    envelope = envelope_of(record)
    again = dict(written(Append("t", 0, b"k", b"v", envelope, record[5]))[0])
    for name, value in dict(headers).items():
        if name not in RESERVED:
            assert again[name] == (value or b"")


def test_a_records_type_and_mark_are_found_wherever_they_stand():
    assert record_of(Consumed(None))[3:6] == ("", b"v", 0)
    foreign = [("a", b"1"), (OWN_ID, b"1"), ("ce_type", b"shop.Order")]
    assert record_of(Consumed(foreign))[3:6] == ("shop.Order", b"v", FLAG_OWN_ID)


WHOLE = Envelope(
    id="1", source="shop", type="shop.Order", time_ms=5, headers={"ce_subject": "o-1", "traceparent": "00-a-b-01"}
)


@pytest.mark.parametrize("value", [b'{"order":"o-1"}', b"\x00\xff", b""])
@pytest.mark.parametrize("flags", [0, FLAG_OWN_ID, 17 << SCHEMA_ID_SHIFT])
def test_a_structured_event_is_one_document_and_comes_back_as_if_it_were_binary(value: bytes, flags: int):
    headers, document = written(Append("t", 0, b"k", value, WHOLE, flags | FLAG_STRUCTURED))
    assert headers == [("content-type", b"application/cloudevents+json"), ("traceparent", b"00-a-b-01")]
    assert msgspec.json.decode(document or b"")["subject"] == "o-1"
    record = record_of(Consumed(headers, document))
    assert (record[3:6], envelope_of(record)) == (("shop.Order", value, flags), WHOLE)


def test_a_tombstone_of_a_structured_topic_stays_one():
    headers, value = written(Append("t", 0, b"k", None, WHOLE, FLAG_STRUCTURED))
    assert value is None
    record = record_of(Consumed(headers, value))
    assert (record[3], record[4]) == ("shop.Order", None)


def test_an_event_is_a_whole_one_wherever_its_content_type_stands_and_whatever_else_is_there():
    document = b'{"specversion":"1.0","id":"1","source":"/s","type":"shop.Order","data":[1, 2]}'
    headers = [("ce_type", b"another"), ("x", b"1"), ("Content-Type", b"Application/CloudEvents+JSON; charset=utf-8")]
    record = record_of(Consumed(headers, document))
    assert record[3:6] == ("shop.Order", b"[1, 2]", 0)
    assert envelope_of(record) == Envelope(id="1", source="/s", type="shop.Order", headers={"x": "1"})


def test_a_structured_event_without_data_is_no_tombstone():
    document = b'{"specversion":"1.0","id":"1","source":"/s","type":"shop.Order"}'
    assert record_of(Consumed([("content-type", b"application/cloudevents+json")], document))[4] == b""


@pytest.mark.parametrize("content_type", ["application/cloudevents+json", "application/cloudevents-batch+json"])
def test_what_is_no_event_keeps_its_bytes_and_headers_and_is_marked(content_type: str):
    headers = [("content-type", content_type.encode()), ("ce_type", b"shop.Order")]
    record = record_of(Consumed(headers, b'[{"specversion":"1.0"}]'))
    assert record[3:6] == (UNREADABLE_TYPE, b'[{"specversion":"1.0"}]', 0)
    again = written(Append("t", 0, b"k", record[4], envelope_of(record), record[5]))
    assert record_of(Consumed(*again))[3:6] == record[3:6]


def nested(name: str) -> bytes:
    return b'{"specversion":"1.0","id":"1","source":"/s","type":"t","%s":%s' % (name.encode(), b"[" * 100_000)


@pytest.mark.parametrize("name", ["data", "extension"])
def test_a_whole_event_that_nests_without_end_is_marked(name: str):
    record = record_of(Consumed([("content-type", b"application/cloudevents+json")], nested(name)))
    assert record[3] == UNREADABLE_TYPE


def test_a_record_whose_headers_the_client_library_can_not_read_is_marked():
    class Unreadable(Consumed):
        def headers(self) -> list | None:
            raise SystemError("a header's name is no UTF-8")

    record = record_of(Unreadable(None, b"v"))
    assert record[2:6] == (b"k", UNREADABLE_TYPE, b"v", 0)
    assert envelope_of(record) == Envelope(content_type="")


@pytest.mark.parametrize(("given", "kept"), [(-1, 0), (-9 << 50, 0), (5, 5), (9 << 60, 253_402_300_799_999)])
def test_a_time_that_no_calendar_has_becomes_the_next_that_one_has(given: int, kept: int):
    assert record_of(Consumed([], timestamp_ms=given))[1] == kept


GUID = UUID("6f1e5a1e-54f2-4c8b-9d1a-0a5a7f0c9b11")
BY_GUID, BY_ID = SchemaHeader(GUID, None).encode(), SchemaHeader(None, 17).encode()


@pytest.mark.parametrize(
    ("header", "number"),
    [
        (BY_ID, 17),
        (BY_GUID, number_of_guid(GUID)),
        (SchemaHeader(None, 17, (0,)).encode(), 17),
        (SchemaHeader(GUID, None, (2, 1)).encode(), number_of_guid(GUID)),
        (b"", 0),
        (None, 0),
        (b"17", 0),
        (BY_GUID[:-1], 0),
    ],
)
def test_a_schema_that_confluents_header_names_is_in_the_flags(header: bytes | None, number: int):
    for _ in range(2):  # the second time from memory
        record = record_of(Consumed([("trace", b"1"), (VALUE_HEADER, header), (OWN_ID, b"1")]))
        assert record[3:6] == ("", b"v", number << SCHEMA_ID_SHIFT | FLAG_OWN_ID)


@pytest.mark.parametrize("header", [BY_ID, BY_GUID])
def test_a_copy_of_a_record_names_the_same_schema(header: bytes):
    record = record_of(Consumed([("ce_type", b"shop.Order"), (VALUE_HEADER, header)]))
    headers, value = written(Append("t", 0, b"k", record[4], envelope_of(record), record[5]))
    assert dict(headers)[VALUE_HEADER] == header
    assert record_of(Consumed(headers, value))[3:6] == record[3:6]
    assert record_in(copy_of(record)) == record


def test_an_id_of_ours_counts_before_a_header_that_came_along():
    for headers in ([("ce_schemaid", b"5"), (VALUE_HEADER, BY_GUID)], [(VALUE_HEADER, BY_ID), ("ce_schemaid", b"5")]):
        assert record_of(Consumed(headers))[5] == 5 << SCHEMA_ID_SHIFT


def test_a_header_beside_a_whole_event_says_nothing_of_its_data():
    document = b'{"specversion":"1.0","id":"1","source":"/s","type":"shop.Order","data":1}'
    headers = [("content-type", b"application/cloudevents+json"), (VALUE_HEADER, BY_ID)]
    record = record_of(Consumed(headers, document))
    assert (record[5], dict(record[6])[VALUE_HEADER]) == (0, BY_ID)
