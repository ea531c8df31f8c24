"""What message classes say of their fields that types alone can't: sensitive ones, former names, numbers.

All of it works for Structs, dataclasses and pydantic models, and changes nothing of how values are read or written.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec

__all__ = ["Sensitive", "marks_of", "number", "was"]

ValueT = TypeVar("ValueT")

#: What keys of `msgspec.Meta.extra` begin with. One key for each mark: msgspec lets the last one of a key win.
_PREFIX = "postline."

#: `email: Sensitive[str]`: people who look at messages are shown a mask instead of the value.
Sensitive = Annotated[ValueT, msgspec.Meta(extra={_PREFIX + "sensitive": True})]


def was(*names: str) -> msgspec.Meta:
    """Names on the wire that a field had before: `total: Annotated[Decimal, was("amount")]`.

    Records that older versions wrote under one of them are read into the field. In a class that renames its fields, to
    `someField` say, `was("some_field")` stands for both.
    """
    return msgspec.Meta(extra={_PREFIX + "was": list(names)})


def number(value: int) -> msgspec.Meta:
    """The number that a field has on the wire, in a format that has numbers: `note: Annotated[str, number(7)] = ""`.

    Protobuf numbers fields in their order where nothing is said; say it where a field was taken out or put between.
    """
    return msgspec.Meta(extra={_PREFIX + "number": value})


def marks_of(metadata: Any) -> dict[str, Any]:
    """What one piece of annotation metadata says; {} if it is none of ours."""
    extra = getattr(metadata, "extra", None)
    said = extra.items() if isinstance(extra, dict) else ()
    return {key.removeprefix(_PREFIX): value for key, value in said if key.startswith(_PREFIX)}
