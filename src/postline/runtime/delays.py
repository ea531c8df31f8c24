"""When a message shall leave, what is kept of it until then, and the token that cancels it."""

from __future__ import annotations

import base64
import binascii
import math
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from postline.errors import UsageError
from postline.log.port import Append
from postline.message import ENCODING_ERRORS, UNREADABLE, Envelope

__all__ = ["DelayToken", "Due", "Waiting", "due_of", "offset_in", "order_of", "pack_append", "unpack_append"]

#: As far as `datetime` goes.
_LATEST_MS = 253_402_300_799_000
_ENCODER = msgspec.msgpack.Encoder()
#: Most that one record's handling may delay.
_DELAYED_MAX = 1 << 16


def order_of(offset: int, index: int) -> int:
    """The place in order of what the handling of one record delays. Raises UsageError if that is too much."""
    if index >= _DELAYED_MAX:
        raise UsageError(
            f"One attempt delayed more than {_DELAYED_MAX} messages.", remedy="Spread them over several records."
        )
    return (offset * _DELAYED_MAX + index) % (1 << 64)


def offset_in(order: int) -> int:
    """The record that `order_of` was given."""
    return order // _DELAYED_MAX


class Due(NamedTuple):
    """When something is due, in wall-clock milliseconds; and how long that is to wait, 0 where a time was asked for."""

    at_ms: int
    delay_ms: int


class Waiting(NamedTuple):
    """A message that a handler has put off."""

    due: Due
    #: Messages of one due time leave in this order.
    order: int
    id: str
    packed: bytes
    #: It is found by its id alone when it is to be cancelled.
    noted: bool = False


def due_of(delay: timedelta | float | None, at: datetime | None, now_ms: int) -> Due:
    """When a message leaves that is told so; a time that has passed is now. Raises UsageError for what is no time."""
    if at is not None:
        if delay is not None:
            raise UsageError("publish was given delay= and at=.", remedy="Say one of them.")
        if at.tzinfo is None:
            raise UsageError(
                f"publish was given at={at!r}, which says no time zone.",
                remedy='Give a datetime with one, such as datetime(2030, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")).',
            )
        return Due(max(0, math.ceil(at.timestamp() * 1000)), 0)
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    if seconds is None or not 0 <= seconds < math.inf:
        raise UsageError(
            f"publish was given delay={delay!r}, which is no time to wait.",
            remedy="Give seconds, or a timedelta, of 0 or more.",
        )
    delay_ms = math.ceil(seconds * 1000)
    if now_ms + delay_ms > _LATEST_MS:
        raise UsageError(f"publish was given delay={delay!r}, which ends after the year 9999.", remedy="Wait less.")
    return Due(now_ms + delay_ms, delay_ms)


class DelayToken(msgspec.Struct, frozen=True, array_like=True):
    """Names one delayed message: where it waits, until when, and its id."""

    subscription: str
    partition: int
    due_ms: int
    order: int
    id: str

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(_ENCODER.encode(self)).decode().rstrip("=")

    @staticmethod
    def read(text: str) -> DelayToken:
        """The token that `str` wrote. Raises UsageError for anything else."""
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            token = msgspec.msgpack.decode(data, type=DelayToken)
            if not (
                token.partition >= 0
                and 0 <= token.due_ms < 1 << 63
                and token.order >= 0
                and token.id
                and token.subscription
            ):
                raise msgspec.ValidationError("it names nothing")
        except (binascii.Error, TypeError, ValueError, *UNREADABLE) as error:
            raise UsageError(
                f"{text!r:.80} is no token of a delayed message.",
                remedy="Give the text that publish(…, delay=) gave back; `postline schedules` lists what waits.",
            ) from error
        return token


class _Packed(msgspec.Struct, array_like=True, gc=False):
    """A record to be, as it is kept; texts are bytes, because those of others may be no UTF-8."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    flags: int
    time_ms: int
    #: id, source, type, content type, correlation id, causation id.
    told: tuple[bytes, bytes, bytes, bytes, bytes, bytes]
    headers: dict[bytes, bytes]
    #: How many the topic had when it was placed.
    partitions: int
    format: int = 1


_DECODER = msgspec.msgpack.Decoder(_Packed)


def pack_append(append: Append, partitions: int) -> bytes:
    """The record as it waits in state, placed among so many partitions."""
    said = append.envelope
    told = (said.id, said.source, said.type, said.content_type, said.correlation_id, said.causation_id)
    return _ENCODER.encode(
        _Packed(
            topic=append.topic,
            partition=append.partition,
            key=append.key,
            value=append.value,
            flags=append.flags,
            time_ms=said.time_ms,
            told=tuple(map(_bytes, told)),  # type: ignore[arg-type]
            headers={_bytes(name): _bytes(value) for name, value in said.headers.items()},
            partitions=partitions,
        )
    )


def unpack_append(data: bytes) -> tuple[Append, int]:
    """The record that `pack_append` packed, and among how many partitions it was placed."""
    packed = _DECODER.decode(data)
    own, source, type_name, content_type, correlation, causation = map(_text, packed.told)
    envelope = Envelope(
        id=own,
        source=source,
        type=type_name,
        time_ms=packed.time_ms,
        content_type=content_type,
        correlation_id=correlation,
        causation_id=causation,
        headers={_text(name): _text(value) for name, value in packed.headers.items()},
    )
    return Append(packed.topic, packed.partition, packed.key, packed.value, envelope, packed.flags), packed.partitions


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", ENCODING_ERRORS)


def _text(data: bytes) -> str:
    return data.decode("utf-8", ENCODING_ERRORS)
