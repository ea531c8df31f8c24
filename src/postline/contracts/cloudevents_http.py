"""CloudEvents 1.0 over HTTP: events from requests and into them, in binary and structured mode and in batches.

Source: "HTTP Protocol Binding for CloudEvents", 1.0.2. Only what belongs to an event is read from headers: its
attributes, its content type, and the trace context.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Literal, NamedTuple, TypeAlias
from urllib.parse import quote, unquote

import msgspec

from postline.contracts.cloudevents import CONTENT_TYPE, REQUIRED, TRACE
from postline.contracts.cloudevents_json import (
    BATCH,
    STRUCTURED,
    Parts,
    is_json,
    is_packed,
    read_batch,
    read_structured,
    require_event,
    to_batch,
    to_structured,
)
from postline.contracts.json_documents import require_unique_keys
from postline.errors import DecodeError

__all__ = ["ContentMode", "HttpMessage", "batch_message", "event_message", "read_events"]

ContentMode: TypeAlias = Literal["binary", "structured"]

_PREFIX, _KAFKA_PREFIX = "ce-", "ce_"
#: What need not be escaped in a header: printable ASCII but the space, the double quote and the percent sign.
_SAFE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


class HttpMessage(NamedTuple):
    """Headers, with names in lower case, and body of a request or a response."""

    headers: dict[str, str]
    body: bytes


def read_events(headers: Mapping[str, str], body: bytes) -> list[Parts]:
    """The events in a request: one, or those of a batch. Raises DecodeError if one is none, or says a key twice."""
    found = _events_in(headers, body)
    for each in found:
        _require_attributes(each.headers)
    return found


def _require_attributes(headers: Mapping[str, str]) -> None:
    """Refuse attributes that are none by the specification, which their readers would stumble over."""
    for name in ("ce_subject", "ce_dataschema"):
        if name in headers and not headers[name].strip():
            raise DecodeError(f"The event's {name.removeprefix(_KAFKA_PREFIX)} is empty.", remedy="Leave it out.")
    try:
        msgspec.convert(headers.get("ce_time", "1970-01-01T00:00:00Z"), Annotated[datetime, msgspec.Meta(tz=True)])
    except msgspec.ValidationError as error:
        raise DecodeError(
            f"The event's time, {headers['ce_time']!r:.40}, is no moment as RFC 3339 has it.",
            remedy="Send one like 2026-01-31T12:00:00Z, or leave it out.",
        ) from error


def _events_in(headers: Mapping[str, str], body: bytes) -> list[Parts]:
    lower = {name.lower(): value for name, value in headers.items()}
    content_type = lower.get(CONTENT_TYPE, "")
    if is_json(content_type):
        require_unique_keys(body)
    if not is_packed(content_type):
        return [_binary(lower, body)]
    media_type = content_type.partition(";")[0].strip().lower()
    trace = {name: lower[name] for name in TRACE if name in lower}
    if media_type == BATCH:
        return read_batch(body)
    if media_type == STRUCTURED:
        event = read_structured(body)
        return [Parts(trace | event.headers, event.data)]
    raise DecodeError(
        f"Events as {media_type} can't be read here.", remedy=f"Send {STRUCTURED}, {BATCH}, or binary mode."
    )


def event_message(parts: Parts, mode: ContentMode = "binary") -> HttpMessage:
    """The request for an event. Raises EncodeError for a message without id, source or type."""
    require_event(parts)
    trace = {name: value for name, value in parts.headers.items() if name in TRACE}
    if mode == "structured":
        return HttpMessage({CONTENT_TYPE: STRUCTURED, **trace}, to_structured(parts)[0])
    attributes = {
        _PREFIX + name.removeprefix(_KAFKA_PREFIX).lower(): quote(parts.headers.get(name.lower(), value), safe=_SAFE)
        for name, value in parts.headers.items()
        if name.startswith(_KAFKA_PREFIX)
    }
    told = parts.headers.get(CONTENT_TYPE)
    content_type = {CONTENT_TYPE: told} if told and parts.data is not None else {}
    return HttpMessage({**attributes, **content_type, **trace}, parts.data or b"")


def batch_message(events: Sequence[Parts]) -> HttpMessage:
    """One request for several events. Raises EncodeError for a message without id, source or type."""
    return HttpMessage({CONTENT_TYPE: BATCH}, to_batch(events))


def _binary(headers: Mapping[str, str], body: bytes) -> Parts:
    found = {
        _KAFKA_PREFIX + name.removeprefix(_PREFIX): _unescaped(name, value)
        for name, value in headers.items()
        if name.startswith(_PREFIX)
    }
    if missing := [name.removeprefix(_KAFKA_PREFIX) for name in REQUIRED if not found.get(name)]:
        raise DecodeError(
            f"The request is no CloudEvent: it has no {', '.join(_PREFIX + name for name in missing)}.",
            remedy=f"Send these headers, or a whole event as {STRUCTURED}.",
        )
    if found["ce_specversion"] != "1.0":
        raise DecodeError(
            f"The request is a CloudEvent of version {found['ce_specversion']!r}.", remedy="Send version 1.0."
        )
    found |= {name: headers[name] for name in (CONTENT_TYPE, *TRACE) if name in headers}
    return Parts(found, body or None)


def _unescaped(name: str, value: str) -> str:
    quoted = _QUOTED.fullmatch(value)
    try:
        return unquote(re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else value, errors="strict")
    except UnicodeDecodeError as error:
        raise DecodeError(
            f"The header {name} is no text: {error}.", remedy="Escape what is not ASCII as percent-encoded UTF-8."
        ) from error
