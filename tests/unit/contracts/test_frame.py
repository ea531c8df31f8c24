"""Frames of schema registries' serializers, against confluent-kafka's own functions."""

from __future__ import annotations

import io
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postline.contracts.frame import (
    SchemaHeader,
    framed,
    guid_behind,
    looks_framed,
    number_in_header,
    number_of_guid,
    schema_header,
    unframe,
)
from postline.errors import DecodeError, EncodeError

IDS = st.integers(1, 2**31 - 1)
PLACES = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=100).map(tuple)
GUID = uuid.UUID("6f1e5a1e-54f2-4c8b-9d1a-0a5a7f0c9b11")


def theirs(kind: str, **known: object):
    """confluent-kafka's own idea of a frame."""
    serde = pytest.importorskip("confluent_kafka.schema_registry.serde")
    return serde.SchemaId(kind, **known)


def test_a_frame_is_a_zero_the_id_and_the_value() -> None:
    assert framed(0x01020304, b"value") == b"\x00\x01\x02\x03\x04value"


@pytest.mark.parametrize(
    ("indexes", "place"), [((0,), b"\0"), ((1,), b"\x02\x02"), ((0, 2), b"\x04\x00\x04"), ((64,), b"\x02\x80\x01")]
)
def test_the_first_message_of_a_protobuf_file_is_one_zero_and_others_are_counted(
    indexes: tuple[int, ...], place: bytes
) -> None:
    assert framed(7, b"value", indexes) == b"\x00\x00\x00\x00\x07" + place + b"value"


@given(IDS, st.binary(), PLACES)
def test_frames_are_those_of_confluents_serializers_in_both_directions(
    schema_id: int, payload: bytes, indexes: tuple[int, ...]
) -> None:
    ours = framed(schema_id, payload, indexes)
    assert ours == theirs("PROTOBUF", schema_id=schema_id, message_indexes=list(indexes)).id_to_bytes() + payload
    assert unframe(ours, protobuf=True) == (schema_id, payload, indexes)
    read = theirs("PROTOBUF")
    assert read.from_bytes(io.BytesIO(ours)).read() == payload
    assert (read.id, tuple(read.message_indexes)) == (schema_id, indexes)


@given(IDS, st.binary())
def test_frames_without_a_place_are_those_of_confluents_serializers(schema_id: int, payload: bytes) -> None:
    ours = framed(schema_id, payload)
    assert ours == theirs("AVRO", schema_id=schema_id).id_to_bytes() + payload
    assert unframe(ours) == (schema_id, payload, ())
    assert looks_framed(ours)


@pytest.mark.parametrize("protobuf", [False, True])
def test_a_header_with_a_guid_is_confluents_in_both_directions(protobuf: bool) -> None:
    place = [1, 300] if protobuf else None
    kind = "PROTOBUF" if protobuf else "JSON"
    expected = theirs(kind, guid=str(GUID), message_indexes=place).guid_to_bytes()
    header = SchemaHeader(GUID, None, tuple(place or ()))
    assert header.encode() == expected
    assert schema_header(expected, protobuf=protobuf) == header


def test_a_header_may_hold_an_id_too() -> None:
    header = SchemaHeader(None, 12, (0,))
    assert schema_header(header.encode(), protobuf=True) == header


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it has 0 bytes"),
        (b"\x00\x00\x00", "it has 3 bytes"),
        (b'{"id": 1}', "it begins with 123"),
        (b"\x01" + GUID.bytes, "it begins with 1"),
        (b"\x00\xff\xff\xff\xffvalue", "its schema id is -1"),
        (b"\x00\x00\x00\x00\x00value", "its schema id is 0"),
        (b"\x00\x00\x00\x00\x01", "it ends within its message indexes"),
        (b"\x00\x00\x00\x00\x01\x04\x02", "it ends within its message indexes"),
        (b"\x00\x00\x00\x00\x01" + b"\xff" * 50, "one of its message indexes has no end"),
        (b"\x00\x00\x00\x00\x01\xfe\xff\x03", "it counts 32767 message indexes"),
        (b"\x00\x00\x00\x00\x01\x01", "it counts -1 message indexes"),
        (b"\x00\x00\x00\x00\x01\x02\x03", "it has the message index -2"),
    ],
)
def test_a_corrupt_frame_is_refused_with_what_is_wrong_and_a_remedy(data: bytes, said: str) -> None:
    with pytest.raises(DecodeError, match=said) as caught:
        unframe(data, protobuf=True)
    assert "who produced it" in caught.value.remedy


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it has 0 bytes"),
        (b"\x01" + GUID.bytes[:-1], "it has 16 bytes of 17"),
        (b"\x02" + GUID.bytes, "it begins with 2"),
        (b"\x01" + GUID.bytes + b"\x00more", "it has 22 bytes, of which 18 belong to it"),
        (b"\x00\x00\x00\x00\x01", "it ends within its message indexes"),
    ],
)
def test_a_corrupt_header_is_refused_with_what_is_wrong(data: bytes, said: str) -> None:
    with pytest.raises(DecodeError, match=said):
        schema_header(data, protobuf=True)


@pytest.mark.parametrize("indexes", [(), (0,), (3, 1)])
def test_a_header_of_any_format_names_one_number(indexes: tuple[int, ...]) -> None:
    assert number_in_header(SchemaHeader(None, 12, indexes).encode()) == 12
    number = number_in_header(SchemaHeader(GUID, None, indexes).encode())
    assert (number, guid_behind(number)) == (number_of_guid(GUID), GUID)


@pytest.mark.parametrize("data", [b"", b"12", b"\x01" + GUID.bytes[:-1], b"\x00\x00\x00\x00\x00", b"\x02" + GUID.bytes])
def test_a_header_that_is_none_names_no_number(data: bytes) -> None:
    assert number_in_header(data) == 0


@given(st.uuids(), st.integers(0, 2**31 - 1))
def test_no_guid_is_taken_for_an_id(guid: uuid.UUID, schema_id: int) -> None:
    assert guid_behind(number_of_guid(guid)) == guid
    assert guid_behind(schema_id) is None


@given(st.binary(max_size=40), st.booleans())
def test_any_bytes_are_taken_apart_or_refused_and_what_is_taken_is_whole(data: bytes, protobuf: bool) -> None:
    try:
        frame = unframe(data, protobuf=protobuf)
    except DecodeError:
        return
    assert looks_framed(data)
    assert data.endswith(frame.payload)
    assert unframe(framed(frame.schema_id, frame.payload, frame.indexes), protobuf=protobuf) == frame


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\x00\x00\x00\x00\x00{}", b"\x00\xff\x00\x00\x01", b'{"a":1}', b"\n\x01a"]
)
def test_values_without_a_frame_do_not_look_framed(data: bytes) -> None:
    assert not looks_framed(data)


@pytest.mark.parametrize("schema_id", [0, -1, 2**31])
def test_an_id_that_no_registry_gives_is_not_framed(schema_id: int) -> None:
    with pytest.raises(EncodeError, match="can't stand in a frame"):
        framed(schema_id, b"")


@pytest.mark.parametrize("indexes", [(-1,), (2**31,), (0,) * 101])
def test_a_place_that_no_file_has_is_not_framed(indexes: tuple[int, ...]) -> None:
    with pytest.raises(EncodeError, match="place in its Protobuf file"):
        framed(1, b"", indexes)
