"""Defaults of fields between JSON, as the model has them, and Avro's JSON, as an `.avsc` file has them.

Source: Apache Avro 1.12, "Complex Types: Records", field default values. Bytes are text there whose characters are the
bytes, and logical types are what they are written as: a date is a number of days.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import uuid
from collections.abc import Iterable
from typing import Any

import msgspec

from postline.contracts.avro_names import symbol_names
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
_MOMENT_ZERO = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)
_MILLISECONDS = {"time-millis", "timestamp-millis", "local-timestamp-millis"}


def alternative_of(schema: Schema, part: UnionOf, default: Any) -> int:
    """Which alternative of a union a default is of: the first that it can be. Raises ValueError if it is of none."""
    for number, option in enumerate(part.options):
        try:
            to_avro(schema, option, default)
        except ValueError:
            continue
        return number
    raise ValueError("no alternative takes it")


def to_avro(schema: Schema, part: Type, value: Any) -> Any:
    """A default in Avro's words. Raises ValueError for what Avro can't say as one."""
    match part:
        case Scalar():
            return _scalar_to_avro(part, value)
        case ListOf(items=items) if isinstance(value, list):
            return [to_avro(schema, items, each) for each in value]
        case MapOf(values=values) if isinstance(value, dict):
            return {str(key): to_avro(schema, values, each) for key, each in value.items()}
        case TupleOf(items=items) if isinstance(value, list) and len(value) == len(items):
            pairs = enumerate(zip(items, value, strict=True), 1)
            return {f"item_{n}": to_avro(schema, each, inner) for n, (each, inner) in pairs}
        case UnionOf(options=options) if options:
            # Only the first, as all versions of Avro take it; a field's own union is put in that order.
            return to_avro(schema, options[0], value)
        case Reference(name=name):
            return _definition_to_avro(schema, schema.definitions[name], value)
    raise ValueError("it is of another type")


def _definition_to_avro(schema: Schema, found: Record | Enumeration, value: Any) -> Any:
    if isinstance(found, Enumeration):
        names = symbol_names(found)
        if isinstance(value, str | int) and value in names:
            return names[value]
    elif not found.positional and isinstance(value, dict):
        return {avro: to_avro(schema, field.type, value.get(field.name, field.default)) for field, avro in _of(found)}
    raise ValueError("it is of another type")


def _of(record: Record) -> Iterable[Any]:
    from postline.contracts.avro_names import field_names

    return field_names(record)
