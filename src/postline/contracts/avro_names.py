"""What Avro allows: names, also of fields and symbols that are called otherwise in the schema, and integers."""

from __future__ import annotations

import re
from collections.abc import Iterator

from postline.contracts.schema import Enumeration, Field, Record

__all__ = ["INTEGERS", "avro_name", "field_names", "symbol_names"]

#: The least and the greatest, by their bits.
INTEGERS = {32: (-(1 << 31), (1 << 31) - 1), 64: (-(1 << 63), (1 << 63) - 1)}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def avro_name(name: str) -> str:
    """The nearest name that Avro allows."""
    found = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return found if _NAME.fullmatch(found) else f"_{found}"


def field_names(record: Record) -> Iterator[tuple[Field, str]]:
    """A record's fields with their names in Avro."""
    taken: set[str] = set()
    for field in record.fields:
        name = avro_name(field.name)
        while name in taken:
            name += "_"
        taken.add(name)
        yield field, name


def symbol_names(found: Enumeration) -> dict[str | int, str]:
    """Each symbol's name in Avro."""
    names: dict[str | int, str] = {}
    for symbol in found.symbols:
        name = avro_name(str(symbol))
        while name in names.values():
            name += "_"
        names[symbol] = name
    return names
