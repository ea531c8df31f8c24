"""Messages as Kafka carries them: records of the port from consumed messages, headers for produced ones.

The envelope travels as CloudEvents 1.0 headers in binary mode (DESIGN §7). `ce_type` stands first, so that the type of
a record of ours is found without looking through the others; foreign records may have them in any order, or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from postline.contracts.cloudevents import OWN_ID, from_headers, to_headers
from postline.log.port import EMPTY_TYPE, FLAG_OWN_ID, Append, Record
from postline.message import Envelope

if TYPE_CHECKING:
    from confluent_kafka import Message

__all__ = ["envelope_of", "headers_of", "record_of", "size_of"]

_TYPE = "ce_type"
_TYPES_CACHED_MAX = 10_000
#: Header values that are no UTF-8 come back byte for byte when they are written again.
_ERRORS = "surrogateescape"

_type_names: dict[bytes, str] = {}


def record_of(message: Message) -> Record:
    """The record that a consumed message is; its envelope stays packed as the headers it came with."""
    headers: Any = message.headers()
    name, flags = EMPTY_TYPE, 0
    if headers:
        if headers[0][0] == _TYPE and (len(headers) < 2 or headers[1][0] != OWN_ID):
            name = _type_name(headers[0][1])
        else:
            name, flags = _found_in(headers)
    return (message.offset(), message.timestamp()[1], message.key(), name, message.value(), flags, headers)  # type: ignore[return-value]


def _found_in(headers: Sequence[tuple[str, bytes | None]]) -> tuple[str, int]:
    name, flags = EMPTY_TYPE, 0
    for header, value in headers:
        if header == _TYPE:
            name = _type_name(value)
        elif header == OWN_ID:
            flags |= FLAG_OWN_ID
    return name, flags


def _type_name(value: bytes | None) -> str:
    if value is None:
        return EMPTY_TYPE
    name = _type_names.get(value)
    if name is None:
        name = value.decode("utf-8", _ERRORS)
        if len(_type_names) < _TYPES_CACHED_MAX:
            _type_names[value] = name
    return name


def envelope_of(record: Record) -> Envelope:
    """The record's envelope; whatever other programs wrote becomes one."""
    headers: Sequence[tuple[str, bytes | None]] | None = record[6]
    return from_headers({name: (value or b"").decode("utf-8", _ERRORS) for name, value in headers or ()})


def headers_of(append: Append) -> list[tuple[str, str | bytes | None]]:
    """The headers to produce a record with. Raises EncodeError for a time that no calendar has."""
    found = to_headers(append.envelope)
    headers: list[tuple[str, str | bytes | None]] = []
    if (name := found.pop(_TYPE, None)) is not None:
        headers.append((_TYPE, name.encode("utf-8", _ERRORS)))
    if append.flags & FLAG_OWN_ID:
        headers.append((OWN_ID, b"1"))
    headers += [(name, value.encode("utf-8", _ERRORS)) for name, value in found.items()]
    return headers


def size_of(record: Record) -> int:
    """About how many bytes the record's key and value take."""
    return len(record[4] or b"") + len(record[2] or b"")
