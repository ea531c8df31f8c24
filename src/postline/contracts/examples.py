"""Example values of a schema, always the same: for documents, and for trying consumers before anybody publishes."""

from __future__ import annotations

import base64
import re
from typing import Any

from msgspec import UNSET

from postline.contracts.schema import (
    NO_LIMITS,
    Enumeration,
    Limits,
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

_DEPTH_MAX = 4
_TEXTS = (
    "text",
    "a",
    "A",
    "1",
    "x-1",
    "ABC",
    "abc",
    "EUR",
    "2026-01-02",
    "a@example.com",
    "https://example.com",
    "123",
)
_PLAIN: dict[str, tuple[Any, ...]] = {
    "null": (None,),
    "boolean": (True, False),
    "decimal": ("12.50", "0", "-0.01"),
    "bytes": ("AQI=", "", "/w=="),
    "date": ("2026-01-02", "1970-01-01", "9999-12-31"),
    "time": ("12:30:00", "00:00:00", "23:59:59.999999"),
    "datetime": ("2026-01-02T12:30:00Z", "1970-01-01T00:00:00Z", "2026-06-30T23:59:59.999999+02:00"),
    "duration": ("PT1H", "PT0S", "-P1DT0.5S"),
    "uuid": ("6ba7b810-9dad-41d1-80b4-00c04fd430c8", "00000000-0000-0000-0000-000000000000"),
    "any": ({"note": "anything"}, None, [1, "two"]),
}


def examples_of(schema: Schema, count: int = 3) -> list[Any]:
    """So many values, as JSON has them: the first has every field, the second what must be there, others the edges.

    Values keep the schema's limits. Raises ContractError for a pattern that none of a few common texts matches, and for
    records that must contain themselves without end.
    """
    return [_Making(schema, number).value(schema.root, "", 0) for number in range(count)]


class _Making:
    """One example; what there are several of is chosen by its number."""

    def __init__(self, schema: Schema, number: int) -> None:
        self._schema, self._number = schema, number

    def value(self, part: Type, path: str, depth: int) -> Any:
        """An example of a type."""
        match part:
            case Scalar():
                return self._scalar(part, path)
            case ListOf():
                return self._list(part, path, depth)
            case TupleOf():
                return [self.value(each, path, depth + 1) for each in part.items]
            case MapOf():
                return self._map(part, path, depth)
            case UnionOf():
                return self.value(self._option(part, depth), path, depth)
            case Reference():
                found = self._schema.resolve(part)
                if isinstance(found, Enumeration):
                    return found.symbols[self._number % len(found.symbols)]
                assert isinstance(found, Record)
                return self._record(found, path, depth)

    def _option(self, part: UnionOf, depth: int) -> Type:
        """Something first, nothing second and where it gets deep, then one after the other."""
        nothing = Scalar(kind="null")
        if nothing in part.options and (self._number == 1 or depth > _DEPTH_MAX):
            return nothing
        options = [each for each in part.options if each != nothing] or [nothing]
        return options[self._number % len(options)]

    def _record(self, record: Record, path: str, depth: int) -> Any:
        if depth > 4 * _DEPTH_MAX:
            raise ContractError(f"{path} must contain itself without end.", remedy="Make a field of it optional.")
        found: dict[str, Any] = {record.tag_field: record.tag} if record.tag_field else {}
        for field in record.fields:
            if not field.required and (self._number == 1 or depth > _DEPTH_MAX) and not record.positional:
                continue
            here = f"{path}.{field.name}" if path else field.name
            if not field.required and depth > _DEPTH_MAX and field.default is not UNSET:
                found[field.name] = field.default
                continue
            found[field.name] = self.value(field.type, here, depth + 1)
        return list(found.values()) if record.positional else found

    def _list(self, part: ListOf, path: str, depth: int) -> list[Any]:
        least, most = part.limits.min_length or 0, part.limits.max_length
        size = least if self._number == 1 or depth > _DEPTH_MAX else max(least, 1 if most is None else min(1, most))
        if self._number == 2 and most is not None:
            size = min(most, least + 3)
        # Items of a set differ by the numbers of their examples.
        makings = (_Making(self._schema, self._number + each) for each in range(size))
        return [making.value(part.items, path + "[]", depth + 1) for making in makings]

    def _map(self, part: MapOf, path: str, depth: int) -> dict[str, Any]:
        least = int(part.limits.min_length or 0)
        size = least if self._number == 1 or depth > _DEPTH_MAX else max(least, 1)
        keys = (str(_Making(self._schema, each).value(part.keys, path, depth + 1)) for each in range(size))
        return {key: self.value(part.values, path + "[]", depth + 1) for key in keys}

    def _scalar(self, part: Scalar, path: str) -> Any:
        match part.kind:
            case "integer":
                return _whole(part.limits, self._number)
            case "number":
                return _number(part.limits, self._number)
            case "text":
                return _text(part.limits, self._number, path)
        if part.size and part.kind == "bytes":
            return base64.b64encode(b"x" * part.size).decode()
        values = _PLAIN[part.kind]
        return values[self._number % len(values)]


def _whole(limits: Limits, number: int) -> int:
    """A whole number within limits: the least, then the greatest, where there are such."""
    step = int(limits.multiple_of) if limits.multiple_of and limits.multiple_of >= 1 else 1
    low = limits.ge if limits.ge is not None else None if limits.gt is None else limits.gt + 1
    high = limits.le if limits.le is not None else None if limits.lt is None else limits.lt - 1
    if number == 2 and high is not None:
        return int(high) // step * step
    if low is not None:
        return -(-int(low) // step) * step
    return int(high) // step * step if high is not None and high < number else number * step


def _number(limits: Limits, number: int) -> float:
    return (1.5, 0.0, -2.25)[number % 3] if limits == NO_LIMITS else float(_whole(limits, number))


def _text(limits: Limits, number: int, path: str) -> str:
    least, most = int(limits.min_length or 0), limits.max_length
    fitting = [each for each in _TEXTS if least <= len(each) and (most is None or len(each) <= most)]
    if limits.pattern is None:
        fitting = fitting or ["x" * least]
    else:
        fitting = [each for each in (*fitting, "x" * least) if re.search(limits.pattern, each)]
    if not fitting:
        raise ContractError(
            f"There is no example of {path or 'the value'}: no common text matches {limits.pattern!r}.",
            remedy="Record examples of it instead.",
        )
    return fitting[number % len(fitting)]
