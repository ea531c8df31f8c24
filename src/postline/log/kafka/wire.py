"""Messages as Kafka carries them: records of the port from consumed messages, headers for produced ones.

The envelope travels as CloudEvents 1.0 headers in binary mode (DESIGN §7). `ce_type` stands first and the schema's id
second, so that both are found in a record of ours without looking through the others; foreign records may have them in
any order, or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from postline.contracts.cloudevents import OWN_ID, SCHEMA_ID, from_headers, to_headers
from postline.log.port import EMPTY_TYPE, FLAG_OWN_ID, SCHEMA_ID_SHIFT, Append, Record
from postline.message import Envelope

if TYPE_CHECKING:
    from confluent_kafka import Message

__all__ = ["envelope_of", "headers_of", "record_of", "size_of"]

_TYPE = "ce_type"
_TYPES_CACHED_MAX = 10_000
_SCHEMA_IDS_CACHED_MAX = 10_000
#: Header values that are no UTF-8 come back byte for byte when they are written again.
_ERRORS = "surrogateescape"

#: As the client library takes them.
Header: TypeAlias = tuple[str, str | bytes | None]
Headers: TypeAlias = list[Header]
_OWN_ID: Header = (OWN_ID, b"1")
_NO_HEADER: tuple[str, Any] = ("", None)
#: A registry's ids are of 32 bits.
_SCHEMA_ID_DIGITS_MAX = 10

_type_names: dict[bytes, str] = {}
_schema_flags: dict[bytes, int] = {}


def record_of(message: Message) -> Record:
    """The record that a consumed message is; its envelope stays packed as the headers it came with."""
    headers: Any = message.headers()
    name, flags = EMPTY_TYPE, 0
    if headers:
        first, value = headers[0]
        second, told = headers[1] if len(headers) > 1 else _NO_HEADER
        if first != _TYPE or second == OWN_ID:
            name, flags = _found_in(headers)
        else:
            name = _type_names.get(value) or _type_name(value)
            if second == SCHEMA_ID:
                flags = _schema_flags.get(told) or _flags_of(told)
    return (message.offset(), message.timestamp()[1], message.key(), name, message.value(), flags, headers)  # type: ignore[return-value]


def _found_in(headers: Sequence[tuple[str, bytes | None]]) -> tuple[str, int]:
    name, flags = EMPTY_TYPE, 0
    for header, value in headers:
        if header == _TYPE:
            name = _type_name(value)
        elif header == OWN_ID:
            flags |= FLAG_OWN_ID
        elif header == SCHEMA_ID:
            flags |= _flags_of(value)
    return name, flags


def _flags_of(schema_id: bytes | None) -> int:
    """The flags that a schema's id stands for; none for what is no id of a registry."""
    if schema_id is None or not schema_id.isdigit() or len(schema_id) > _SCHEMA_ID_DIGITS_MAX:
        return 0
    flags = int(schema_id) << SCHEMA_ID_SHIFT
    if len(_schema_flags) < _SCHEMA_IDS_CACHED_MAX:
        _schema_flags[schema_id] = flags
    return flags


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
    return from_headers({name: str(value, "utf-8", _ERRORS) if value else "" for name, value in headers or ()})


def headers_of(append: Append) -> Headers:
    """The headers to produce a record with. Raises EncodeError for a time that no calendar has."""
    envelope = append.envelope
    if envelope.headers or not (envelope.id and envelope.source and envelope.type):
        return _any_headers(append)
    first, fixed = _fixed(envelope.type, envelope.source, envelope.content_type)
    headers = [first, *_of_flags(append.flags), *fixed] if append.flags else [first, *fixed]
    headers.append(("ce_id", envelope.id.encode("utf-8", _ERRORS)))
    if envelope.correlation_id:
        headers.append(("ce_correlationid", envelope.correlation_id.encode("utf-8", _ERRORS)))
    if envelope.causation_id:
        headers.append(("ce_causationid", envelope.causation_id.encode("utf-8", _ERRORS)))
    if envelope.time_ms:
        headers.append(_time(envelope.time_ms))
    return headers


@lru_cache(4_096)
def _of_flags(flags: int) -> Headers:
    own: Headers = [_OWN_ID] if flags & FLAG_OWN_ID else []
    schema_id = flags >> SCHEMA_ID_SHIFT
    return [*own, (SCHEMA_ID, str(schema_id).encode())] if schema_id else own


@lru_cache(4_096)
def _fixed(type_name: str, source: str, content_type: str) -> tuple[Header, Headers]:
    """What is the same for every message of a type: its first header, and others."""
    found = to_headers(Envelope(id="-", source=source, type=type_name, content_type=content_type))
    del found["ce_id"]
    first = found.pop(_TYPE)
    return (_TYPE, first.encode("utf-8", _ERRORS)), [
        (name, value.encode("utf-8", _ERRORS)) for name, value in found.items()
    ]


@lru_cache(1_024)
def _time(time_ms: int) -> Header:
    """Many messages are of one millisecond, and writing it as text is what takes longest."""
    return "ce_time", to_headers(Envelope(time_ms=time_ms))["ce_time"].encode()


def _any_headers(append: Append) -> Headers:
    found = to_headers(append.envelope)
    headers: Headers = []
    if (name := found.pop(_TYPE, None)) is not None:
        headers.append((_TYPE, name.encode("utf-8", _ERRORS)))
    headers += _of_flags(append.flags)
    headers += [(name, value.encode("utf-8", _ERRORS)) for name, value in found.items()]
    return headers


def size_of(record: Record) -> int:
    """About how many bytes the record's key and value take."""
    return len(record[4] or b"") + len(record[2] or b"")
