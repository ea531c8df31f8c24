"""Messages as Kafka carries them: records of the port from consumed messages, headers for produced ones.

The envelope travels as CloudEvents 1.0 headers in binary mode (DESIGN §7). `ce_type` stands first and the schema's id
second, so that both are found in a record of ours without looking through the others; foreign records may have them in
any order, or none, and the schema's id or GUID as Confluent's serializers put it beside the value. A value that is a
whole event, in structured mode, is taken apart here: nobody above knows the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from operator import methodcaller
from typing import TYPE_CHECKING, Any, TypeAlias

from postline.contracts.cloudevents import CONTENT_TYPE, OWN_ID, SCHEMA_ID, from_headers, to_headers
from postline.contracts.cloudevents_json import STRUCTURED, Parts, is_packed, read_structured, to_structured
from postline.contracts.frame import VALUE_HEADER, guid_behind, number_in_header
from postline.errors import DecodeError
from postline.log.port import (
    EMPTY_TYPE,
    FLAG_OWN_ID,
    FLAG_STRUCTURED,
    GAP_TYPE,
    SCHEMA_ID_SHIFT,
    UNREADABLE_TYPE,
    Append,
    Record,
)
from postline.message import Envelope

if TYPE_CHECKING:
    from confluent_kafka import Message

__all__ = ["GAP_HEADERS", "envelope_of", "headers_of", "is_gap", "record_of", "size_of", "written"]

_TYPE = "ce_type"
_TYPES_CACHED_MAX = 10_000
_SCHEMA_IDS_CACHED_MAX = 10_000
#: Header values that are no UTF-8 come back byte for byte when they are written again.
_ERRORS = "surrogateescape"

#: As the client library takes them.
Header: TypeAlias = tuple[str, str | bytes | None]
Headers: TypeAlias = list[Header]
_NO_HEADER: tuple[str, Any] = ("", None)
#: The last millisecond of the year 9999.
_TIME_MAX = 253_402_300_799_999
#: A registry's ids are of 32 bits.
_SCHEMA_ID_DIGITS_MAX = 10

#: Of a header's name that is no UTF-8 the client library makes a list with a hole, and an error that the interpreter
#: does not look for everywhere: called so it does, and nobody touches the hole.
_headers: Any = methodcaller("headers")

#: Of a record that stands for none.
GAP_HEADERS: Headers = [(_TYPE, GAP_TYPE.encode())]

_type_names: dict[bytes, str] = {}
_schema_flags: dict[bytes, int] = {}
#: Apart from those, whose digits would be no header.
_flags_by_header: dict[bytes, int] = {}


def record_of(message: Message) -> Record:
    """The record that a consumed message is; its envelope stays packed as the headers it came with.

    Never fails, whatever others wrote: what can't be read becomes a record of UNREADABLE_TYPE.
    """
    timestamp_ms, data = message.timestamp()[1], message.value()
    if not 0 <= timestamp_ms <= _TIME_MAX:  # brokers take times that no calendar has
        timestamp_ms = min(max(timestamp_ms, 0), _TIME_MAX)
    try:
        headers: Any = _headers(message)
        name, flags = EMPTY_TYPE, 0
        if headers:
            first, value = headers[0]
            second, told = headers[1] if len(headers) > 1 else _NO_HEADER
            if first == _TYPE and second == SCHEMA_ID:
                name = _type_names.get(value) or _type_name(value)
                flags = _schema_flags.get(told) or _flags_of(told)
            else:
                name, flags = _found_in(headers)
                if flags & FLAG_STRUCTURED and data is not None:
                    name, flags, headers, data = _unpacked(data, headers)
    except SystemError:  # the client library's, about a header whose name is no UTF-8
        name, flags, headers = UNREADABLE_TYPE, 0, None
    return (message.offset(), timestamp_ms, message.key(), name, data, flags, headers)  # type: ignore[return-value]


def is_gap(record: Record) -> bool:
    """Whether the record only takes an offset: nobody is to see it."""
    return record[3] == GAP_TYPE and record[2] is None and record[4] is None


def headers_of(message: Message) -> Headers:
    """A consumed message's headers; none where the client library can't read them."""
    try:
        return _headers(message) or []
    except SystemError:
        return []


def _found_in(headers: Sequence[tuple[str, Any]]) -> tuple[str, int]:
    name, flags, beside = EMPTY_TYPE, 0, 0
    for header, value in headers:
        if header == _TYPE:
            name = _type_name(value)
        elif header == OWN_ID:
            flags |= FLAG_OWN_ID
        elif header == SCHEMA_ID:
            flags |= _flags_of(value)
        elif header == VALUE_HEADER:
            beside = _flags_by_header.get(value) or _flags_beside(value)
        elif value and header.lower() == CONTENT_TYPE and is_packed(value.decode("utf-8", _ERRORS)):
            flags |= FLAG_STRUCTURED
    # What names an id of ours was written, or copied, by us: the other header was the original's.
    return name, flags if flags >> SCHEMA_ID_SHIFT else flags | beside


def _unpacked(value: Any, headers: Headers) -> tuple[str, int, Headers, bytes]:
    """Type, flags, headers and data of a value that is a whole event; of one that can't be read, what there is."""
    try:
        event = read_structured(value)
    except DecodeError:
        return UNREADABLE_TYPE, 0, headers, value
    beside = [(name, each) for name, each in headers if not name.startswith("ce_") and name.lower() != CONTENT_TYPE]
    told: Headers = [(name, each.encode("utf-8", _ERRORS)) for name, each in event.headers.items()]
    # What stands beside a whole event may name the schema of all of it, but not that of its data; and a structured
    # event without data is no tombstone.
    return *_found_in(told), told + beside, event.data or b""


def _flags_of(schema_id: bytes | None) -> int:
    """The flags that a schema's id stands for; none for what is no id of a registry."""
    if schema_id is None or not schema_id.isdigit() or len(schema_id) > _SCHEMA_ID_DIGITS_MAX:
        return 0
    return _remembered(_schema_flags, schema_id, int(schema_id))


def _flags_beside(header: bytes | None) -> int:
    """The flags that a header of Confluent's serializers stands for; none where it names no schema."""
    number = number_in_header(header or b"")
    return _remembered(_flags_by_header, header or b"", number) if number else 0


def _remembered(known: dict[bytes, int], told: bytes, number: int) -> int:
    """The flags of a schema's number, kept for the next record that tells it so."""
    flags = number << SCHEMA_ID_SHIFT
    if len(known) < _SCHEMA_IDS_CACHED_MAX:
        known[told] = flags
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


def written(append: Append) -> tuple[Headers, bytes | None]:
    """Headers and value to produce a record with. Raises EncodeError for a time that no calendar has."""
    if append.flags & FLAG_STRUCTURED and append.value is not None:
        headers = to_headers(append.envelope) | _told_by_flags(append.flags)
        document, beside = to_structured(Parts(headers, append.value))
        packed: Headers = [(CONTENT_TYPE, STRUCTURED.encode())]
        return packed + [(name, told.encode("utf-8", _ERRORS)) for name, told in beside.items()], document
    return _headers_of(append), append.value


def _headers_of(append: Append) -> Headers:
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
    return [(name, told.encode()) for name, told in _told_by_flags(flags).items()]


def _told_by_flags(flags: int) -> dict[str, str]:
    own = {OWN_ID: "1"} if flags & FLAG_OWN_ID else {}
    number = flags >> SCHEMA_ID_SHIFT
    # A GUID is no id of ours; it is in a header among the envelope's, which goes along.
    return {**own, SCHEMA_ID: str(number)} if number and guid_behind(number) is None else own


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
