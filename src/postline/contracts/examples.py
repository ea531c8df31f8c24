"""Example values of a schema, always the same: for documents, and for trying consumers before anybody publishes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import msgspec
from msgspec import UNSET

from postline.contracts.examples_scalars import scalar_example
from postline.contracts.schema import (
    Enumeration,
    Field,
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
from postline.errors import ContractError

__all__ = ["examples_of"]

#: How deep what can be left out is filled in, and how much of it there may be.
_DEPTH_MAX = 5
_FILLED_MAX = 500
#: More parts than that are no example of anything.
_PARTS_MAX = 20_000
#: A longer list is not made only to show that it is allowed.
_ITEMS_SHOWN_MAX = 10
#: Numbers that are tried for one more item of a set, or one more key.
_TRIES = 20
_NOTHING = Scalar(kind="null")
_ENDLESS = 1_000_000


def examples_of(schema: Schema, count: int = 3) -> list[Any]:
    """So many values, as JSON has them: the first has every field, the second what must be there, others the edges.

    Values keep the schema's limits. Raises ContractError, with the path, for limits that no value could be made for,
    for records that must contain themselves without end, and for types that are too large.
    """
    heights = _heights(schema)
    return [_Making(schema, heights).value(schema.root, "", 0, number) for number in range(count)]


class _Making:
    """One example. Of what there is several, a number chooses: the example's own, or another one for items of a set."""

    def __init__(self, schema: Schema, heights: dict[str, int]) -> None:
        self._schema, self._heights = schema, heights
        self._parts = 0

    def value(self, part: Type, path: str, depth: int, number: int) -> Any:
        """An example of a type."""
        self._parts += 1
        if self._parts > _PARTS_MAX:
            raise ContractError(f"{path} is too large for an example.", remedy="Nest fewer records in each other.")
        match part:
            case Scalar():
                return self._scalar(part, path, number)
            case ListOf():
                return self._list(part, path, depth, number)
            case TupleOf():
                return [self.value(each, path, depth + 1, number) for each in part.items]
            case MapOf():
                return self._map(part, path, depth, number)
            case UnionOf():
                return self.value(self._option(part, depth, number), path, depth, number)
            case Reference():
                return self._definition(part.name, path, depth, number)

    def _is_sparse(self, depth: int, number: int) -> bool:
        """Whether only what must be there is filled in."""
        return number == 1 or depth > _DEPTH_MAX or self._parts > _FILLED_MAX

    def _option(self, part: UnionOf, depth: int, number: int) -> Type:
        """Something first, nothing second; what comes to an end soonest where it gets deep."""
        if self._is_sparse(depth, number) and _NOTHING in part.options:
            return _NOTHING
        heights = [_height(each, self._heights) for each in part.options]
        if depth > _DEPTH_MAX:
            return part.options[heights.index(min(heights))]
        ending = [each for each, height in zip(part.options, heights, strict=True) if height < _ENDLESS]
        options = [each for each in ending if each != _NOTHING] or list(part.options)
        return options[number % len(options)]

    # -- records ------------------------------------------------------------------------------

    def _definition(self, name: str, path: str, depth: int, number: int) -> Any:
        found = self._schema.definitions[name]
        if isinstance(found, Enumeration):
            return found.symbols[number % len(found.symbols)]
        if self._heights[name] >= _ENDLESS:
            raise ContractError(
                f"{path or name} must contain itself without end.", remedy="Make a field of it optional."
            )
        values: dict[str, Any] = {found.tag_field: found.tag} if found.tag_field else {}
        for field in _fields(found, number):
            if field.required or found.positional or not self._is_left_out(field, depth, number):
                here = f"{path}.{field.name}" if path else field.name
                values[field.name] = self._field(found, field, here, depth, number)
        return list(values.values()) if found.positional else values

    def _is_left_out(self, field: Field, depth: int, number: int) -> bool:
        return self._is_sparse(depth, number) or _height(field.type, self._heights) >= _ENDLESS

    def _field(self, record: Record, field: Field, path: str, depth: int, number: int) -> Any:
        if record.positional and field.default is not UNSET and self._is_left_out(field, depth, number):
            return field.default
        return self.value(field.type, path, depth + 1, number)

    # -- several values -----------------------------------------------------------------------

    def _list(self, part: ListOf, path: str, depth: int, number: int) -> list[Any]:
        least, most = int(part.limits.min_length or 0), part.limits.max_length
        size = self._size(least, most, depth, number, _height(part.items, self._heights))

        def item(which: int) -> Any:
            return self.value(part.items, path + "[]", depth + 1, which)

        if not part.unique:
            return [item(number if each == 0 else number + each + 1) for each in range(size)]
        return self._different(item, least, size, path, number)

    def _map(self, part: MapOf, path: str, depth: int, number: int) -> dict[str, Any]:
        least, most = int(part.limits.min_length or 0), part.limits.max_length
        size = self._size(least, most, depth, number, _height(part.values, self._heights))

        def key(which: int) -> str:
            made = self.value(part.keys, path, depth + 1, which)
            return made if isinstance(made, str) else msgspec.json.encode(made).decode()

        keys = self._different(key, least, size, path, number)
        return {each: self.value(part.values, path + "[]", depth + 1, number) for each in keys}

    def _size(self, least: int, most: int | None, depth: int, number: int, height: int) -> int:
        if self._is_sparse(depth, number) or height >= _ENDLESS:
            return least
        if number == 2:
            return most if most is not None and most <= _ITEMS_SHOWN_MAX else least + 2
        return max(least, 1 if most is None else min(1, most))

    def _different(self, make: Callable[[int], Any], least: int, size: int, path: str, number: int) -> list[Any]:
        """So many that differ from each other, or as many as there are."""
        found = list(islice(_unlike(make(number + each) for each in range(size + _TRIES)), size))
        if len(found) < least:
            raise ContractError(
                f"There is no example of {path or 'the value'}: it takes {least} different ones.",
                remedy="Record examples of it instead.",
            )
        return found

    def _scalar(self, part: Scalar, path: str, number: int) -> Any:
        try:
            return scalar_example(part, number)
        except LookupError as error:
            raise ContractError(
                f"There is no example of {path or 'the value'}: {error.args[0]}.",
                remedy="Record examples of it instead.",
            ) from error


def _unlike(values: Iterator[Any]) -> Iterator[Any]:
    seen = set()
    for each in values:
        if (written := msgspec.json.encode(each, order="sorted")) not in seen:
            seen.add(written)
            yield each


def _fields(record: Record, number: int) -> Iterator[Field]:
    """The fields that one value can have: of those that exclude each other, one."""
    groups: dict[str, list[Field]] = {}
    for field in record.fields:
        groups.setdefault(field.oneof, []).append(field)
    for field in record.fields:
        group = groups[field.oneof]
        if not field.oneof or field is group[number % len(group)]:
            yield field


def _heights(schema: Schema) -> dict[str, int]:
    """How deep the smallest value of each definition is; endless where a record can't do without itself."""
    heights = dict.fromkeys(schema.definitions, _ENDLESS)
    changed = True
    while changed:
        changed = False
        for name, found in schema.definitions.items():
            fields = found.fields if isinstance(found, Record) else ()
            needed = [field.type for field in fields if field.required]
            height = 1 + max((_height(each, heights) for each in needed), default=0)
            if height < heights[name]:
                heights[name], changed = height, True
    return heights


def _height(part: Type, heights: dict[str, int]) -> int:
    match part:
        case Reference():
            return heights[part.name]
        case UnionOf():
            return min(_height(each, heights) for each in part.options)
        case TupleOf():
            return max((_height(each, heights) for each in part.items), default=0)
        case ListOf(items=inner) | MapOf(values=inner) if part.limits.min_length:
            return _height(inner, heights)
    return 0
