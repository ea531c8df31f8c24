"""Envelopes as bytes: what is empty takes no room, ids that are 32 hexadecimal digits take 16 bytes.

The type is a column of its own and is not packed.
"""

from __future__ import annotations

from typing import Any

import msgspec

from postline.errors import DecodeError, EncodeError
from postline.message import JSON_CONTENT_TYPE, Envelope

__all__ = ["pack", "unpack"]

_ID_DIGITS = 32


class _Packed(msgspec.Struct, array_like=True, gc=False):
    """A MessagePack array (ids: text or raw bytes) whose last elements are left out while they have these values."""

    id: Any = ""
    source: str = ""
    time_ms: int = 0
    correlation_id: Any = ""
    causation_id: Any = ""
    content_type: str = JSON_CONTENT_TYPE
    headers: dict[str, str] = {}


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Packed).decode
_from_hex = bytes.fromhex


def pack(envelope: Envelope) -> bytes:
    """The bytes for `envelope` without its type. Raises EncodeError for text that is no Unicode."""
    fields: tuple[Any, ...] = (_shorten(envelope.id), envelope.source, envelope.time_ms)
    if envelope.headers or envelope.content_type != JSON_CONTENT_TYPE:
        fields += (_shorten(envelope.correlation_id), _shorten(envelope.causation_id))
        fields += (envelope.content_type, envelope.headers)
    elif envelope.correlation_id or envelope.causation_id:
        cause = _shorten(envelope.causation_id)
        began_by = envelope.correlation_id
        fields += (cause if began_by == envelope.causation_id else _shorten(began_by), cause)
    try:
        return _encode(fields)
    except (UnicodeEncodeError, OverflowError) as error:
        raise EncodeError(
            f"The envelope of message {envelope.id!r} can't be stored: {error}.",
            remedy="Headers, ids and source must be Unicode text, the time a 64-bit number.",
        ) from error


def unpack(type_name: str, packed: bytes) -> Envelope:
    """The envelope that `pack` was given, with the type put back. Raises DecodeError for any other bytes."""
    try:
        fields = _decode(packed)
        return Envelope(
            id=_lengthen(fields.id),
            source=fields.source,
            type=type_name,
            time_ms=fields.time_ms,
            content_type=fields.content_type,
            correlation_id=_lengthen(fields.correlation_id),
            causation_id=_lengthen(fields.causation_id),
            headers=fields.headers,
        )
    except Exception as error:
        raise DecodeError(
            f"The stored envelope of a {type_name!r} record can't be read: {error}.",
            remedy="Another program has changed the file, or it is damaged: compare it with a backup.",
        ) from error


def _lengthen(stored: Any) -> str:
    if type(stored) is bytes:
        return stored.hex()
    if type(stored) is not str:
        raise TypeError(f"an id is no text but {stored!r}")
    return stored


def _shorten(text: str) -> bytes | str:
    if len(text) == _ID_DIGITS:
        try:
            raw = _from_hex(text)
        except ValueError:
            return text
        # Capitals and spaces would not come back.
        if raw.hex() == text:
            return raw
    return text
