"""Values of message classes as plain ones (dicts, lists, text, numbers and a format's own types), and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from postline.contracts.pydantic_faults import without_values
from postline.contracts.schema import ListOf, MapOf, Record, Reference, Scalar, Schema, Type, UnionOf

__all__ = ["PlainValues", "in_order", "natively", "plain_values"]

_ANY = Scalar(kind="any")


class PlainValues(NamedTuple):
    """How values of a class become plain ones and back; both raise what msgspec, pydantic or the class itself raise."""

    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]


def plain_values(cls: Any, native: tuple[type, ...]) -> PlainValues:
    """For a Struct, dataclass or pydantic model; values of the types in `native` stay as they are."""
    if hasattr(cls, "__pydantic_validator__"):
        return _of_pydantic(cls, native)
    return PlainValues(
        partial(msgspec.to_builtins, builtin_types=native),
        partial(msgspec.convert, type=cls, builtin_types=native),
    )


def _of_pydantic(cls: Any, native: tuple[type, ...]) -> PlainValues:
    from pydantic_core import to_jsonable_python

    # By alias and without computed fields, as the model itself reads it; and an assigned value of another type than
    # declared is an error, which its lax reading alone would let through.
    dumped = without_values(
        partial(cls.__pydantic_serializer__.to_python, by_alias=True, round_trip=True, warnings="error")
    )
    return PlainValues(
        lambda value: msgspec.to_builtins(dumped(value), builtin_types=native, enc_hook=to_jsonable_python),
        without_values(cls.__pydantic_validator__.validate_python),
    )


def in_order(plain: Mapping[str, Any], record: Record) -> list[Any]:
    """The values of a record that is written as a list; what can be left out is so at the end only."""
    values: list[Any] = [record.tag] if record.tag_field else []
    for field in record.fields:
        value = plain.get(field.name, field.default)
        if value is UNSET:
            return values
        values.append(value)
    return values


def natively(schema: Schema, part: Type, value: Any, native_of: Mapping[str, type]) -> Any:
    """A default, which schemas have as JSON has it, as a plain value; kinds in `native_of` are as themselves."""
    match part:
        case Scalar(kind=kind) if kind in native_of:
            return msgspec.convert(value, native_of[kind], strict=False)
        case ListOf(items=items) if isinstance(value, list):
            return [natively(schema, items, each, native_of) for each in value]
        case MapOf(values=values) if isinstance(value, dict):
            return {key: natively(schema, values, each, native_of) for key, each in value.items()}
        case UnionOf(options=options) if value is not None:
            natives = [each for each in options if isinstance(each, Scalar) and each.kind in native_of]
            texts = any(each == Scalar(kind="text") for each in options)
            return natively(schema, natives[0], value, native_of) if len(natives) == 1 and not texts else value
        case Reference(name=name):
            found = schema.definitions[name]
            if isinstance(found, Record) and isinstance(value, dict):
                types = {field.name: field.type for field in found.fields}
                return {key: natively(schema, types.get(key, _ANY), each, native_of) for key, each in value.items()}
    return value
