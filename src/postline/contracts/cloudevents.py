"""The envelope as CloudEvents 1.0 headers in binary mode, as the protocol binding for Kafka has them (DESIGN §7).

Reading never fails: whatever other programs wrote becomes an envelope, and what the envelope has no field for stays
among its headers under its own name, so that writing it again gives the same event.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from postline.errors import EncodeError
from postline.message import Envelope

__all__ = [
    "CALLBACK",
    "CLIENT_ID",
    "CONTENT_TYPE",
    "EXPIRY",
    "HANDED_ON",
    "NOT_GIVEN",
    "OUTCOME",
    "OWN_ID",
    "REQUEST_ID",
    "REQUIRED",
    "RESERVED",
    "SCHEMA_ID",
    "TRACE",
    "UNIQUE_ID",
    "from_headers",
    "time_of",
    "timestamp",
    "to_headers",
]

_VERSION, _TIME = "ce_specversion", "ce_time"

#: The header of the data's media type, whose attribute is `datacontenttype`.
CONTENT_TYPE = "content-type"

#: Header and field, in the order in which they are written.
_FIELDS = (
    ("ce_id", "id"),
    ("ce_source", "source"),
    ("ce_type", "type"),
    (CONTENT_TYPE, "content_type"),
    ("ce_correlationid", "correlation_id"),
    ("ce_causationid", "causation_id"),
)
_OF_FIELDS = frozenset(header for header, _ in _FIELDS)

#: The headers that every event has.
REQUIRED = ("ce_specversion", "ce_id", "ce_source", "ce_type")

#: What W3C Trace Context sends along the whole chain; no attributes, and part of every message all the same.
TRACE = ("traceparent", "tracestate")

#: The extension that marks a message whose publisher chose its id; engines with headers write and read it.
OWN_ID = "ce_ownid"

#: The extension that names the schema which the value was written under, by its id in the registry.
SCHEMA_ID = "ce_schemaid"

#: Extensions of commands, of their replies, and of all that handling them causes: who asked, and in which request.
CLIENT_ID, REQUEST_ID = "ce_clientid", "ce_requestid"

#: The extension of a command of which one is under way at a time: the same for all that are equal to it.
UNIQUE_ID = "ce_uniqueid"

#: The extension of a reply that says which of the four outcomes it is.
OUTCOME = "ce_outcome"

#: The extension of a command that names where its reply shall be posted; its reply carries it too.
CALLBACK = "ce_callbackurl"

#: CloudEvents' documented extension: when a command expires, as a timestamp.
EXPIRY = "ce_expirytime"

#: What a message hands on to those that handling it causes.
HANDED_ON = (*TRACE, CLIENT_ID, REQUEST_ID)

_OF_FLAGS = frozenset({OWN_ID, SCHEMA_ID})

#: Headers that belong to the envelope's fields: a user's own header of that name would not be written.
RESERVED = _OF_FIELDS | {_VERSION, _TIME, OWN_ID, SCHEMA_ID}

#: Headers that nobody may give to a message by hand.
NOT_GIVEN = RESERVED | {CLIENT_ID, REQUEST_ID, UNIQUE_ID, OUTCOME, EXPIRY, CALLBACK}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_RFC3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def to_headers(envelope: Envelope) -> dict[str, str]:
    """The headers of a message: attributes first, then the envelope's own headers; empty fields write none.

    An event without id, source or type is no CloudEvent and doesn't call itself one. Raises EncodeError for a time
    that no calendar has.
    """
    headers = {_VERSION: "1.0"} if envelope.id and envelope.source and envelope.type else {}
    headers |= {header: value for header, name in _FIELDS if (value := getattr(envelope, name))}
    if envelope.time_ms:
        headers[_TIME] = _written(envelope.time_ms)
    for name, value in envelope.headers.items():
        # A time that was read and could not be kept whole in milliseconds lies here as it was written.
        if (
            name not in _OF_FIELDS
            and name not in _OF_FLAGS
            and (name != _TIME or (_read(value) or (0, True))[0] == envelope.time_ms)
        ):
            headers[name] = value
    return headers


def from_headers(headers: Mapping[str, str]) -> Envelope:
    """The envelope that headers describe; a field is empty, or its time 0, where they say nothing that can be read.

    A `ce_time` that is malformed or finer than milliseconds, and a `ce_specversion` other than a whole event's 1.0,
    are kept among the envelope's headers too.
    """
    get = headers.get
    named, source, kind = get("ce_id", ""), get("ce_source", ""), get("ce_type", "")
    others = (
        {} if RESERVED.issuperset(headers) else {name: value for name, value in headers.items() if name not in RESERVED}
    )
    version, time = get(_VERSION), get(_TIME)
    if version is not None and not (version == "1.0" and named and source and kind):
        others[_VERSION] = version
    time_ms, exact = (_read(time) or (0, False)) if time is not None else (0, True)
    if time is not None and not (exact and time_ms):
        others[_TIME] = time
    return Envelope(
        id=named,
        source=source,
        type=kind,
        time_ms=time_ms,
        content_type=get(CONTENT_TYPE, ""),
        correlation_id=get("ce_correlationid", ""),
        causation_id=get("ce_causationid", ""),
        headers=others,
    )


@lru_cache(1_024)
def timestamp(time_ms: int) -> str:
    """A time as CloudEvents' attributes have it. Raises EncodeError for one that no calendar has."""
    return _written(time_ms)


def time_of(text: str) -> int | None:
    """Milliseconds since 1970 of a timestamp of RFC 3339, rounded down; None for anything else."""
    found = _read(text)
    return None if found is None else found[0]


def _written(time_ms: int) -> str:
    try:
        moment = _EPOCH + time_ms * _MILLISECOND
    except OverflowError as error:
        raise EncodeError(
            f"{time_ms} can't be the time of a message.", remedy="Use milliseconds since 1970, before the year 10000."
        ) from error
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


@lru_cache(1_024)  # many messages are of one millisecond
def _read(text: str) -> tuple[int, bool] | None:
    """Milliseconds since 1970, rounded down, and whether that is all the text says; None for no time of RFC 3339."""
    if not (found := _RFC3339.fullmatch(text)):
        return None
    date, time, fraction, offset = found[1], found[2], found[3] or "", found[4]
    try:
        moment = datetime.fromisoformat(f"{date}T{time}{offset.upper()}")
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return (moment - _EPOCH) // _MILLISECOND + int(f"{fraction:0<3}"[:3]), not fraction[3:].strip("0")
