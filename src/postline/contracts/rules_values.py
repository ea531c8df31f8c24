"""Values that rules compare: which kinds there are, what a message's value counts as, and constants as JSON data."""

from __future__ import annotations

import base64
import binascii
import math
import reprlib
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum, StrEnum
from typing import Any
from uuid import UUID

from postline.errors import ContractError

__all__ = [
    "EXACT",
    "TEXT_MAX",
    "ValueKind",
    "constant_from_data",
    "constant_of",
    "constant_to_data",
    "kind_of_type",
    "plain",
]

#: Most characters of a text constant; bytes alike.
TEXT_MAX = 10_000


class ValueKind(StrEnum):
    """What can be compared with what: values of two kinds are never equal, nor one before the other."""

    TEXT = "text"
    NUMBER = "number"
    BOOLEAN = "true or false"
    BYTES = "bytes"
    DATETIME = "a time with a zone"
    LOCAL_DATETIME = "a time without a zone"
    DATE = "a date"
    DURATION = "a duration"
    UUID = "a UUID"

    @property
    def ordered(self) -> bool:
        """Whether one value of it can be less than another."""
        return self not in (ValueKind.BOOLEAN, ValueKind.UUID)


#: Types whose values need no second look.
EXACT: dict[type, ValueKind] = {
    str: ValueKind.TEXT,
    int: ValueKind.NUMBER,
    bool: ValueKind.BOOLEAN,
    bytes: ValueKind.BYTES,
    date: ValueKind.DATE,
    timedelta: ValueKind.DURATION,
    UUID: ValueKind.UUID,
}
#: The usual types whose values need one.
_CAREFUL = {float: ValueKind.NUMBER, Decimal: ValueKind.NUMBER, datetime: ValueKind.DATETIME}
#: Of a type and those below it, the first that fits.
_BY_BASE: tuple[tuple[type, ValueKind], ...] = (
    (bool, ValueKind.BOOLEAN),
    (str, ValueKind.TEXT),
    (int, ValueKind.NUMBER),
    (float, ValueKind.NUMBER),
    (Decimal, ValueKind.NUMBER),
    (datetime, ValueKind.DATETIME),
    (bytes, ValueKind.BYTES),
    (date, ValueKind.DATE),
    (timedelta, ValueKind.DURATION),
    (UUID, ValueKind.UUID),
)


def kind_of_type(cls: type) -> ValueKind | None:
    """The kind of a declared type's values, of datetimes the one with a zone; None for what is never compared."""
    return next((kind for base, kind in _BY_BASE if issubclass(cls, base)), None)


def plain(value: Any) -> tuple[ValueKind | None, Any]:
    """What a message's value counts as: its kind and comparable value; kind None for what is never compared.

    Members of enums count as their values, times of any zone as the same moment in UTC; NaN is never compared.
    """
    kind = EXACT.get(type(value))
    if kind is not None:
        return kind, value
    if value is None:
        return None, None
    if isinstance(value, Enum):
        return plain(value.value)
    kind = _CAREFUL.get(type(value)) or kind_of_type(type(value))
    if kind is ValueKind.DATETIME:
        return _plain_time(value)
    return (None if kind is ValueKind.NUMBER and _is_nan(value) else kind), value


def _is_nan(value: Any) -> bool:
    return value.is_nan() if isinstance(value, Decimal) else isinstance(value, float) and math.isnan(value)


def _is_endless(value: Any) -> bool:
    return value.is_infinite() if isinstance(value, Decimal) else isinstance(value, float) and math.isinf(value)


def _plain_time(value: datetime) -> tuple[ValueKind | None, Any]:
    if value.utcoffset() is None:
        return ValueKind.LOCAL_DATETIME, value.replace(tzinfo=None, fold=0)
    try:
        return ValueKind.DATETIME, value if value.tzinfo is UTC else value.astimezone(UTC)
    except OverflowError:  # within a day of the first or the last year
        return None, value


def constant_of(value: Any, place: str) -> tuple[ValueKind, Any]:
    """A rule's constant with its kind. Raises ContractError for what rules can't hold; `place` says where."""
    kind, found = plain(value)
    if kind is None or _is_endless(found):
        raise ContractError(
            f"{place}: {reprlib.repr(value)} can't be compared with.",
            remedy="Give text, a finite number, true or false, bytes, a date, a time, a duration or a UUID; whether "
            "there is a value at all asks `.exists()`.",
        )
    if isinstance(found, str | bytes) and len(found) > TEXT_MAX:
        raise ContractError(
            f"{place}: a constant of {len(found)} characters.",
            remedy=f"Use up to {TEXT_MAX:,}.",
        )
    if isinstance(found, str) and not _is_unicode(found):
        raise ContractError(f"{place}: {found!r:.80} is no Unicode text.", remedy="Use valid text.")
    if isinstance(found, int) and not isinstance(found, bool) and found.bit_length() > _INTEGER_BITS_MAX:
        raise ContractError(
            f"{place}: an integer of {found.bit_length()} bits.", remedy=f"Use up to {_INTEGER_BITS_MAX}."
        )
    return kind, found


_INTEGER_BITS_MAX = 4_096


def _is_unicode(text: str) -> bool:
    try:
        return text.encode() is not None
    except UnicodeEncodeError:
        return False


#: What JSON has no values for is an object of one of these names and its text.
_TAGS: dict[type, tuple[str, Callable[[Any], str]]] = {
    Decimal: ("decimal", str),
    datetime: ("datetime", datetime.isoformat),
    date: ("date", date.isoformat),
    timedelta: ("microseconds", lambda value: str(value // timedelta(microseconds=1))),
    UUID: ("uuid", str),
    bytes: ("bytes", lambda value: base64.b64encode(value).decode()),
}
_READERS: dict[str, Callable[[str], Any]] = {
    "decimal": Decimal,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "microseconds": lambda text: timedelta(microseconds=int(text)),
    "uuid": UUID,
    "bytes": lambda text: base64.b64decode(text, validate=True),
}


def constant_to_data(value: Any) -> Any:
    """A constant as plain JSON data."""
    for base, (tag, write) in _TAGS.items():
        if isinstance(value, base):
            return {tag: write(value)}
    return value


def constant_from_data(data: Any, place: str) -> Any:
    """The constant of plain JSON data. Raises ContractError."""
    if not isinstance(data, dict):
        return data
    ((tag, text),) = data.items() if len(data) == 1 else ((None, None),)
    read = _READERS.get(tag) if isinstance(tag, str) else None
    if read is None or not isinstance(text, str) or len(text) > 2 * TEXT_MAX:
        raise ContractError(
            f"{place}: an object that is no constant.",
            remedy=f'Write a value, or text under its kind, {{"date": "2026-01-31"}}; kinds: {", ".join(_READERS)}.',
        )
    try:
        return read(text)
    except (ValueError, ArithmeticError, InvalidOperation, binascii.Error) as error:
        raise ContractError(f"{place}: {text!r:.80} is no {tag}.", remedy=f"Correct it ({error!s:.100}).") from error
