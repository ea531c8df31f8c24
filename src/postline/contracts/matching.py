"""Which of a writer's fields each of a reader's fields is read from: one rule for the checker and for every format."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from postline.contracts.schema import Field, Record

__all__ = ["Match", "absent_value", "matches"]


class Match(NamedTuple):
    """A field of the reader, and the writer's field that it is read from; None where the writer has none for it."""

    ours: Field
    theirs: Field | None


def matches(reader: Record, writer: Record) -> list[Match]:
    """A match for each of the reader's fields, in its order.

    By place, where the reader is positional; else by name, else by the first alias that the writer has. What a field
    of the reader is called now is free for nobody's alias: that field takes it.
    """
    if reader.positional:
        places = zip_longest(reader.fields, writer.fields[: len(reader.fields)])
        return [Match(*place) for place in places]
    written = {field.name: field for field in writer.fields}
    own = {field.name for field in reader.fields}
    return [
        Match(field, written.get(next((name for name in _names(field, own) if name in written), "")))
        for field in reader.fields
    ]


def _names(field: Field, own: set[str]) -> list[str]:
    return [field.name, *(alias for alias in field.aliases if alias not in own)]


def absent_value(ours: Field, theirs: Field | None) -> Any:
    """What the absence of the writer's field means, as JSON has it, where its reader would take it for another value.

    Who wrote it left out its own default. UNSET where nothing has to be said: the field is always there, or both have
    the same default, or only the writer's class can make it.
    """
    if theirs is None or theirs.required or theirs.default is UNSET:
        return UNSET
    if not ours.required and _same(ours.default, theirs.default):
        return UNSET
    return theirs.default


def _same(one: Any, other: Any) -> bool:
    # As JSON, where 1 is not True.
    return one is not UNSET and msgspec.json.encode(one) == msgspec.json.encode(other)
