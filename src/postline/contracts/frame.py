"""The frame that serializers of Confluent's registries put around a value: a zero, the schema's id, then the value.

Source: Confluent's wire format (Schema Registry documentation, "Formats, Serializers, and Deserializers"). Byte 0 is 0,
bytes 1 to 4 are the id, big-endian; Protobuf then has the place of the message in its file, as a count and so many
numbers, zigzag varints, of which a single 0 stands for the first message. The newer form leaves the value alone: a
header holds a 1, the schema's 16-byte GUID, and the place.

A GUID goes wherever an id goes, as a number above all ids: whoever keeps schemas by number need not tell the two apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from postline.errors import DecodeError, EncodeError

__all__ = [
    "KEY_HEADER",
    "VALUE_HEADER",
    "Frame",
    "SchemaHeader",
    "framed",
    "guid_behind",
    "looks_framed",
    "number_in_header",
    "number_of_guid",
    "schema_header",
    "unframe",
]

#: Names of the record headers that hold the newer form.
KEY_HEADER, VALUE_HEADER = "__key_schema_id", "__value_schema_id"

_MAGIC_ID, _MAGIC_GUID = 0, 1
_HEAD_BYTES = 5
_GUID_BYTES = 17
_ID_MAX = (1 << 31) - 1
#: Numbers from here on stand for GUIDs.
_GUIDS_FROM = 1 << 128
#: Deeper than anybody nests messages, so that a damaged count is found out.
_INDEXES_MAX = 100
_VARINT_BYTES_MAX = 5
_WHOLE = "The value is no frame of a schema registry's serializer"
_HEADER = "The header is no schema id of a schema registry's serializer"


class Frame(NamedTuple):
    """A framed value taken apart."""

    schema_id: int
    payload: bytes
    #: The message's place in its Protobuf file; (0,) is its first message. () in other formats.
    indexes: tuple[int, ...] = ()


class SchemaHeader(NamedTuple):
    """What a header says of the schema: its GUID or its id, the other is None; and the message's place in Protobuf."""

    guid: UUID | None
    schema_id: int | None
    indexes: tuple[int, ...] = ()

    def encode(self) -> bytes:
        """The header's bytes. Raises EncodeError."""
        if self.guid is not None:
            return bytes((_MAGIC_GUID,)) + self.guid.bytes + _place(self.indexes)
        return framed(self.schema_id or 0, b"", self.indexes)


def framed(schema_id: int, payload: bytes, indexes: Sequence[int] | None = None) -> bytes:
    """The value in its frame, with the place of the message in Protobuf if `indexes` are given.

    Raises EncodeError for an id or a place that no registry gives.
    """
    if not 0 < schema_id <= _ID_MAX:
        raise EncodeError(
            f"{schema_id} can't stand in a frame as a schema id.", remedy=f"Registries give ids from 1 to {_ID_MAX:,}."
        )
    return bytes((_MAGIC_ID,)) + schema_id.to_bytes(4, "big") + _place(indexes) + payload


def looks_framed(data: bytes) -> bool:
    """Whether the value begins as a frame does. No JSON and no Protobuf message does; Avro values may."""
    return len(data) >= _HEAD_BYTES and data[0] == _MAGIC_ID and data[1] < 0x80 and any(data[1:_HEAD_BYTES])


def unframe(data: bytes, *, protobuf: bool = False) -> Frame:
    """Take a frame apart. Raises DecodeError for bytes that are none."""
    schema_id = _id_in(data, _WHOLE)
    if not protobuf:
        return Frame(schema_id, data[_HEAD_BYTES:])
    indexes, at = _indexes(data, _HEAD_BYTES, _WHOLE)
    return Frame(schema_id, data[at:], indexes)


def schema_header(data: bytes, *, protobuf: bool = False) -> SchemaHeader:
    """Read the header of a key's or a value's schema, in either form. Raises DecodeError."""
    guid, schema_id, at = None, None, _HEAD_BYTES
    if data[:1] == bytes((_MAGIC_GUID,)):
        if len(data) < _GUID_BYTES:
            raise _corrupt(_HEADER, f"it has {len(data)} bytes of {_GUID_BYTES}")
        guid, at = UUID(bytes=bytes(data[1:_GUID_BYTES])), _GUID_BYTES
    else:
        schema_id = _id_in(data, _HEADER)
    indexes, end = _indexes(data, at, _HEADER) if protobuf else ((), at)
    if end != len(data):
        raise _corrupt(_HEADER, f"it has {len(data)} bytes, of which {end} belong to it")
    return SchemaHeader(guid, schema_id, indexes)


def number_in_header(data: bytes) -> int:
    """The number of the schema that a header of any format names: its id, or what stands for its GUID; 0 if none."""
    head_bytes = _GUID_BYTES if data[:1] == bytes((_MAGIC_GUID,)) else _HEAD_BYTES
    try:
        # Only Protobuf has something behind it: which message it is, which the record's type tells us.
        found = schema_header(data, protobuf=len(data) > head_bytes)
    except DecodeError:
        return 0
    return found.schema_id or 0 if found.guid is None else number_of_guid(found.guid)


def number_of_guid(guid: UUID) -> int:
    """The number that stands for a GUID where others are ids."""
    return _GUIDS_FROM | guid.int


def guid_behind(number: int) -> UUID | None:
    """The GUID that a schema's number stands for; None if it is an id."""
    return UUID(int=number ^ _GUIDS_FROM) if number >= _GUIDS_FROM else None


def _id_in(data: bytes, what: str) -> int:
    if len(data) < _HEAD_BYTES:
        raise _corrupt(what, f"it has {len(data)} bytes, fewer than {_HEAD_BYTES}")
    if data[0] != _MAGIC_ID:
        raise _corrupt(what, f"it begins with {data[0]}")
    schema_id = int.from_bytes(data[1:_HEAD_BYTES], "big", signed=True)
    if schema_id < 1:
        raise _corrupt(what, f"its schema id is {schema_id}")
    return schema_id


def _place(indexes: Sequence[int] | None) -> bytes:
    if not indexes:
        return b""
    if len(indexes) > _INDEXES_MAX or not all(0 <= index <= _ID_MAX for index in indexes):
        raise EncodeError(
            "A message's place in its Protobuf file can't be written: "
            f"{len(indexes)} indexes, the smallest {min(indexes)}, the largest {max(indexes)}.",
            remedy=f"Give at most {_INDEXES_MAX}, counted from 0.",
        )
    return b"\0" if tuple(indexes) == (0,) else _varint(len(indexes)) + b"".join(map(_varint, indexes))


def _varint(number: int) -> bytes:
    left, found = number << 1, bytearray()  # zigzag of a number that isn't negative
    while left > 0x7F:
        found.append(left & 0x7F | 0x80)
        left >>= 7
    found.append(left)
    return bytes(found)


def _indexes(data: bytes, at: int, what: str) -> tuple[tuple[int, ...], int]:
    """The message's place, and where it ends."""
    count, at = _number(data, at, what)
    if count == 0:
        return (0,), at
    if not 0 < count <= _INDEXES_MAX:
        raise _corrupt(what, f"it counts {count} message indexes")
    indexes = []
    for _ in range(count):
        index, at = _number(data, at, what)
        if index < 0:
            raise _corrupt(what, f"it has the message index {index}")
        indexes.append(index)
    return tuple(indexes), at


def _number(data: bytes, at: int, what: str) -> tuple[int, int]:
    """The zigzag varint at a place, and the place behind it."""
    found = 0
    for count in range(_VARINT_BYTES_MAX):
        if at + count >= len(data):
            raise _corrupt(what, "it ends within its message indexes")
        byte = data[at + count]
        found |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return (found >> 1) ^ -(found & 1), at + count + 1
    raise _corrupt(what, "one of its message indexes has no end")


def _corrupt(what: str, said: str) -> DecodeError:
    return DecodeError(
        f"{what}: {said}.",
        remedy="Look at who produced it; a value without a frame needs its schema's id in the headers.",
    )
