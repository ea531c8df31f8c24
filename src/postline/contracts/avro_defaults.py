"""Defaults of fields between JSON, as the model has them, and Avro's JSON, as an `.avsc` file has them.

Source: Apache Avro 1.12, "Complex Types: Records", default values of fields. Bytes are text there, a character
for each, and a logical type is what it is written as: a date is a number of days.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import math
import uuid
from typing import Any

import msgspec

from postline.contracts.avro_names import INTEGERS, field_names, symbol_names
from postline.contracts.schema import (
    Enumeration,
    ListOf,
    MapOf,
    Record,
    Reference,
    Scalar,
    Schema,
    TupleOf,
    Type,
    UnionOf,
)

__all__ = ["alternative_of", "from_avro", "to_avro"]

_DAY_ZERO = datetime.date(1970, 1, 1)
_MOMENT_ZERO = datetime.datetime(1970, 1, 1)  # noqa: DTZ001 - taken as UTC, or as local, as the value is
_MICROSECOND = datetime.timedelta(microseconds=1)


def alternative_of(schema: Schema, union: UnionOf, default: Any) -> int:
    """Which alternative of a union a default is of: the first that it can be. Raises ValueError if it is of none."""
    for number, option in enumerate(union.options):
        try:
            to_avro(schema, option, default)
        except ValueError:
            continue
        return number
    raise _other(default)


def to_avro(schema: Schema, part: Type, value: Any) -> Any:
    """A default in Avro's words. Raises ValueError for what Avro can't say as one.

    In a union it is of the first alternative, which is all that older versions of Avro take.
    """
    match part:
        case Scalar():
            return _scalar_to_avro(part, value)
        case ListOf(items=items) if isinstance(value, list):
            return [to_avro(schema, items, each) for each in value]
        case MapOf(values=values) if isinstance(value, dict):
            return {str(key): to_avro(schema, values, each) for key, each in value.items()}
        case TupleOf(items=items) if isinstance(value, list) and len(value) == len(items):
            return {f"item_{n}": to_avro(schema, items[n - 1], each) for n, each in enumerate(value, 1)}
        case UnionOf(options=options) if options:
            return to_avro(schema, options[0], value)
        case Reference(name=name):
            return _definition_to_avro(schema, schema.definitions[name], value)
    raise _other(value)


def _definition_to_avro(schema: Schema, found: Record | Enumeration, value: Any) -> Any:
    if isinstance(found, Enumeration):
        names = symbol_names(found)
        if type(value) in {str, int} and value in names:
            return names[value]
    elif isinstance(value, dict) and not found.positional:
        known = {field.name for field in found.fields} | {found.tag_field}
        if value.keys() <= known and value.get(found.tag_field, found.tag) == found.tag:
            fields = field_names(found)
            return {avro: to_avro(schema, field.type, value.get(field.name, field.default)) for field, avro in fields}
    raise _other(value)


def _scalar_to_avro(part: Scalar, value: Any) -> Any:
    match part.kind:
        case "any":
            return msgspec.json.encode(value).decode()
        case "null" if value is None:
            return None
        case "boolean" if isinstance(value, bool):
            return value
        case "integer" if type(value) is int:
            low, high = INTEGERS[part.bits or 64]
            if low <= value <= high:
                return value
        case "number" if type(value) in {int, float} and math.isfinite(value):
            return value
        case "text" if isinstance(value, str):
            return value
        case "bytes" if isinstance(value, str):
            return _as_characters(base64.b64decode(value, validate=True), part.size)
        case "uuid" if isinstance(value, str):
            found = uuid.UUID(value)
            return _as_characters(found.bytes, part.size) if part.size else str(found)
        case "decimal" if isinstance(value, str | int):
            return _decimal_to_avro(part, str(value))
        case "date" | "time" | "datetime" | "duration" if isinstance(value, str):
            return _time_to_avro(part, value)
    raise _other(value)


def _decimal_to_avro(part: Scalar, text: str) -> Any:
    try:
        found = decimal.Decimal(text)
    except decimal.InvalidOperation:
        raise _other(text) from None
    if not found.is_finite():
        raise _other(text)
    if not part.precision:
        return str(found)
    sign, digits, exponent = found.as_tuple()
    assert isinstance(exponent, int)
    if -exponent > part.scale or len(digits) + exponent + part.scale > part.precision:
        raise _other(text)
    unscaled = int("".join(map(str, digits))) * 10 ** (exponent + part.scale)
    unscaled = -unscaled if sign else unscaled
    size = part.size or unscaled.bit_length() // 8 + 1
    try:
        return unscaled.to_bytes(size, "big", signed=True).decode("latin-1")
    except OverflowError:
        raise _other(text) from None


def _time_to_avro(part: Scalar, text: str) -> Any:
    match part.kind:
        case "date":
            return (datetime.date.fromisoformat(text) - _DAY_ZERO).days
        case "duration":
            span = _converted(text, datetime.timedelta)
        case "time":
            clock = datetime.time.fromisoformat(text)
            span = datetime.datetime.combine(_DAY_ZERO, clock) - _MOMENT_ZERO
        case _:
            moment = _converted(text, datetime.datetime)
            if (moment.tzinfo is None) != part.wire.startswith("local-"):
                raise _other(text)
            span = moment - _MOMENT_ZERO.replace(tzinfo=moment.tzinfo and datetime.UTC)
    number = span // _MICROSECOND
    if not part.wire.endswith("-millis"):
        return number
    if number % 1000:
        raise _other(text)
    return number // 1000


def _converted(text: str, cls: type) -> Any:
    try:
        return msgspec.convert(text, cls)
    except msgspec.ValidationError:
        raise _other(text) from None


def _as_characters(data: bytes, size: int) -> str:
    if size and len(data) != size:
        raise ValueError(f"it has {len(data)} bytes, not {size}")
    return data.decode("latin-1")


def _other(value: Any) -> ValueError:
    return ValueError(f"{value!r:.100} is of another type")


# -- and back -----------------------------------------------------------------------------------------


def from_avro(schema: Schema, part: Type, value: Any) -> Any:
    """A default of an `.avsc` file as JSON has it. Raises ValueError for one that is not of its type."""
    match part:
        case Scalar():
            return _scalar_from_avro(part, value)
        case ListOf(items=items) if isinstance(value, list):
            return [from_avro(schema, items, each) for each in value]
        case MapOf(values=values) if isinstance(value, dict):
            return {key: from_avro(schema, values, each) for key, each in value.items()}
        case UnionOf(options=options) if options:
            return from_avro(schema, options[0], value)
        case Reference(name=name):
            found = schema.definitions[name]
            if isinstance(found, Enumeration) and isinstance(value, str) and value in found.symbols:
                return value
            if isinstance(found, Record) and isinstance(value, dict):
                types = {field.name: field.type for field in found.fields}
                if value.keys() <= types.keys():
                    return {key: from_avro(schema, types[key], each) for key, each in value.items()}
    raise _other(value)


def _scalar_from_avro(part: Scalar, value: Any) -> Any:
    match part.kind:
        case "any" if isinstance(value, str):
            try:
                return msgspec.json.decode(value)
            except msgspec.DecodeError:
                raise _other(value) from None
        case "null" | "boolean" | "integer" | "number" | "text":
            return _scalar_to_avro(part, value)
        case "decimal" if isinstance(value, str) and not part.precision:
            return _decimal_to_avro(part, value)
        case "uuid" if isinstance(value, str) and not part.size:
            return str(uuid.UUID(value))
        case "bytes" | "uuid" | "decimal" if isinstance(value, str):
            return _of_characters(part, value.encode("latin-1"))
        case "date" | "time" | "datetime" | "duration" if type(value) is int:
            return _time_from_avro(part, value)
    raise _other(value)


def _of_characters(part: Scalar, data: bytes) -> str:
    if part.size and len(data) != part.size:
        raise ValueError(f"it has {len(data)} bytes, not {part.size}")
    match part.kind:
        case "bytes":
            return base64.b64encode(data).decode()
        case "uuid":
            return str(uuid.UUID(bytes=data))
    unscaled = int.from_bytes(data, "big", signed=True)
    digits = tuple(map(int, str(abs(unscaled))))
    if len(digits) > part.precision:
        raise ValueError(f"it has more than {part.precision} digits")
    return str(decimal.Decimal((int(unscaled < 0), digits, -part.scale)))


def _time_from_avro(part: Scalar, number: int) -> Any:
    try:
        if part.kind == "date":
            return (_DAY_ZERO + datetime.timedelta(days=number)).isoformat()
        span = number * _MICROSECOND * (1000 if part.wire.endswith("-millis") else 1)
        if part.kind == "duration":
            return msgspec.to_builtins(span)
        moment = _MOMENT_ZERO + span
    except OverflowError:
        raise _other(number) from None
    if part.kind == "time":
        if moment.date() != _DAY_ZERO:
            raise _other(number)
        return moment.time().isoformat()
    return msgspec.to_builtins(moment if part.wire.startswith("local-") else moment.replace(tzinfo=datetime.UTC))
