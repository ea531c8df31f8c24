"""Defaults, which schemas have as JSON, as plain values of types that a format writes itself."""

from __future__ import annotations

from typing import Any

import msgspec

from postline.contracts.fitting import fits
from postline.contracts.schema import ListOf, MapOf, Record, Scalar, ScalarKind, Schema, TupleOf, Type, UnionOf

__all__ = ["native_default"]


def native_default(schema: Schema, part: Type, value: Any, native: dict[ScalarKind, type]) -> Any:
    """A default of a type; kinds in `native` become values of those types, and all else stays as it is."""
    match schema.resolve(part):
        case Scalar(kind=kind) if kind in native:
            return msgspec.convert(value, native[kind])
        case UnionOf(options=options):
            option = next((each for each in options if fits(schema, each, value)), None)
            return value if option is None else native_default(schema, option, value, native)
        case ListOf(items=items) if isinstance(value, list):
            return [native_default(schema, items, each, native) for each in value]
        case TupleOf(items=several) if isinstance(value, list):
            return [native_default(schema, *pair, native) for pair in zip(several, value, strict=True)]
        case MapOf(values=values) if isinstance(value, dict):
            return {key: native_default(schema, values, each, native) for key, each in value.items()}
        case Record(positional=False) as record if isinstance(value, dict):
            named = record.named
            return {
                key: native_default(schema, named[key].type, each, native) if key in named else each
                for key, each in value.items()
            }
    return value
