"""CloudEvents 1.0 in structured mode and in batches: the JSON event format, from and to the parts of binary mode.

Source: "JSON Event Format for CloudEvents", 1.0.2. Headers are those of the Kafka binding (`cloudevents.py`): what the
envelope's attributes are, however the event travels.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from postline.contracts.cloudevents import CONTENT_TYPE, REQUIRED
from postline.errors import DecodeError, EncodeError
from postline.message import JSON_CONTENT_TYPE, UNREADABLE

__all__ = [
    "BATCH",
    "STRUCTURED",
    "Parts",
    "is_json",
    "is_packed",
    "read_batch",
    "read_structured",
    "require_event",
    "to_batch",
    "to_structured",
]

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
#: What every media type of whole events begins with.
_PACKED = "application/cloudevents"
_ATTRIBUTE = re.compile("[a-z0-9]+")
_DATA = ("data", "data_base64")
_PREFIX = "ce_"
#: Attributes of the specification, which are text; extensions may be booleans and integers.
_TEXTUAL = frozenset((*REQUIRED, CONTENT_TYPE, "ce_dataschema", "ce_subject", "ce_time"))
#: An integer attribute is of 32 bits.
_INTEGERS = range(-(1 << 31), 1 << 31)
_Members = dict[str, msgspec.Raw]
_members = msgspec.json.Decoder(_Members)
_batch = msgspec.json.Decoder(list[msgspec.Raw])


class Parts(NamedTuple):
    """An event taken apart: its headers, as in binary mode on Kafka, and its data; None if it has none."""

    headers: dict[str, str]
    data: bytes | None


def is_packed(content_type: str) -> bool:
    """Whether the value is a whole event, or several, rather than an event's data."""
    return content_type[: len(_PACKED)].lower() == _PACKED


def read_structured(document: bytes) -> Parts:
    """The event that a document is. Raises DecodeError for what is none."""
    try:
        members = _members.decode(document)
    except UNREADABLE as error:
        raise _no_event(f"it is no JSON object: {error}") from error
    data, packed = members.pop("data", None), members.pop("data_base64", None)
    headers = {header: text for name, raw in _in_lower_case(members).items() for header, text in _attribute(name, raw)}
    if missing := [name.removeprefix(_PREFIX) for name in REQUIRED if not headers.get(name)]:
        raise _no_event(f"it has no {', '.join(missing)}")
    if headers["ce_specversion"] != "1.0":
        raise _no_event(f"it is of version {headers['ce_specversion']!r}, and 1.0 is what is read here")
    if packed is not None and bytes(packed) == b"null":
        packed = None  # which is to say that it is not set
    if data is not None and packed is not None:
        raise _no_event("it has data twice, as data and as data_base64")
    if packed is not None:
        return Parts(headers, _unpacked(packed))
    if data is None:
        return Parts(headers, None)
    headers.setdefault(CONTENT_TYPE, JSON_CONTENT_TYPE)
    return Parts(headers, _written(data, headers[CONTENT_TYPE]))


def read_batch(document: bytes) -> list[Parts]:
    """The events of a batch. Raises DecodeError if one of them, which it names by its place, is none."""
    try:
        members = _batch.decode(document)
    except UNREADABLE as error:
        raise DecodeError(f"The batch of CloudEvents is no JSON array: {error}.", remedy=_REMEDY) from error
    found = []
    for place, member in enumerate(members):
        try:
            found.append(read_structured(bytes(member)))
        except DecodeError as error:
            raise DecodeError(f"Event {place} of the batch: {error.message}", remedy=error.remedy) from error
    return found


def to_structured(parts: Parts) -> tuple[bytes, dict[str, str]]:
    """The event as one document, and those of its headers that are no attributes and travel beside it.

    Raises EncodeError for what is no event: it has no id, source or type, or an attribute that is no text.
    """
    members, beside = _split(parts)
    return msgspec.json.encode(members), beside


def to_batch(events: Sequence[Parts]) -> bytes:
    """Events as one document; headers that are no attributes have no place in it. Raises EncodeError."""
    return msgspec.json.encode([_split(parts)[0] for parts in events])


# -- reading ------------------------------------------------------------------------------------------

_REMEDY = "Have its sender write CloudEvents 1.0 in the JSON event format; or discard it."


def _no_event(why: str) -> DecodeError:
    return DecodeError(f"The value is no structured CloudEvent: {why}.", remedy=_REMEDY)


def _in_lower_case(members: _Members) -> _Members:
    """Attributes under the names that the specification has: some senders write capitals, which no other mode keeps."""
    found: _Members = {}
    for name, raw in members.items():
        if (lower := name.lower()) in found or (lower != name and lower in (*_DATA, *members)):
            raise _no_event(f"{name!r:.100} is there in another case, too, or is no attribute's name")
        found[lower] = raw
    return found


def _attribute(name: str, raw: msgspec.Raw) -> list[tuple[str, str]]:
    """The header that an attribute is; none for null, which means that it is not set."""
    if not _ATTRIBUTE.fullmatch(name):
        raise _no_event(f"{name!r:.100} can't be an attribute's name (letters and digits)")
    header = CONTENT_TYPE if name == "datacontenttype" else _PREFIX + name
    match _json(raw):
        case None:
            return []
        case str(value):
            return [(header, value)]
        case _ if header in _TEXTUAL:
            raise _no_event(f"attribute {name} is no text")
        case bool(value):
            return [(header, "true" if value else "false")]
        case int(value) if value in _INTEGERS:
            return [(header, str(value))]
    raise _no_event(f"attribute {name} is neither text, nor a boolean, nor an integer of 32 bits")


def _json(raw: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(raw)
    except UNREADABLE as error:
        raise _no_event(f"{error}") from error


def _unpacked(raw: msgspec.Raw) -> bytes:
    text = _json(raw)
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise _no_event(f"its data_base64 is none: {error}") from error


def _written(raw: msgspec.Raw, content_type: str) -> bytes:
    """The data's own bytes: JSON as it stands there, other text without its quotes."""
    if not is_json(content_type) and isinstance(text := _json(raw), str):
        return text.encode()
    return bytes(raw)


@lru_cache(1_024)
def is_json(content_type: str) -> bool:
    """Whether data of this media type is a JSON value; so it is where none is told."""
    media_type = content_type.partition(";")[0].strip().lower()
    return not media_type or media_type.endswith(("/json", "+json"))


# -- writing ------------------------------------------------------------------------------------------


def require_event(parts: Parts) -> None:
    """Raise EncodeError for what is no event: it has no id, source or type, or an attribute that is no text."""
    if any(not parts.headers.get(name) for name in REQUIRED):
        raise EncodeError(
            "A message without id, source or type is no CloudEvent.", remedy="Send it as it is, not as an event."
        )
    for name, value in parts.headers.items():
        if not (value.isascii() or _is_text(value)) and (name.startswith(_PREFIX) or name == CONTENT_TYPE):
            raise EncodeError(
                f"The message's header {name:.100} is no UTF-8, so it is no CloudEvent.",
                remedy="Have its producer write text there.",
            )


def _is_text(value: str) -> bool:
    """Whether it is text, and not bytes of others that were kept as they came."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _split(parts: Parts) -> tuple[dict[str, Any], dict[str, str]]:
    require_event(parts)
    members: dict[str, Any] = {}
    beside: dict[str, str] = {}
    for header, value in parts.headers.items():
        # Kafka's headers of other programs may have capitals, which attributes can't.
        name = header.removeprefix(_PREFIX).lower()
        if header == CONTENT_TYPE:
            members["datacontenttype"] = value
        elif header.startswith(_PREFIX) and _ATTRIBUTE.fullmatch(name) and name not in (*_DATA, "datacontenttype"):
            members[name] = parts.headers.get(_PREFIX + name, value)
        else:
            beside[header] = value
    if parts.data is not None:
        members |= _data_member(parts.data, parts.headers.get(CONTENT_TYPE, ""))
    return members, beside


def _data_member(data: bytes, content_type: str) -> dict[str, Any]:
    if is_json(content_type) and _is_value(data):
        return {"data": msgspec.Raw(data)}
    if content_type.lower().startswith("text/") and (text := _text(data)) is not None:
        return {"data": text}
    return {"data_base64": base64.b64encode(data).decode()}


def _is_value(data: bytes) -> bool:
    try:
        msgspec.json.decode(data)
    except UNREADABLE:
        return False
    return True


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
