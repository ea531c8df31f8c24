"""Values of message classes as plain ones (dicts, lists, text, numbers and a format's own types), and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from postline.contracts.schema import Record

__all__ = ["PlainValues", "in_order", "plain_values"]


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
    dumped = partial(cls.__pydantic_serializer__.to_python, by_alias=True, round_trip=True, warnings="error")
    return PlainValues(
        lambda value: msgspec.to_builtins(dumped(value), builtin_types=native, enc_hook=to_jsonable_python),
        cls.__pydantic_validator__.validate_python,
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
