"""Whether a value, as JSON has it, is of a type of the model: for defaults that documents of others claim."""

from __future__ import annotations

import datetime
import decimal
import functools
import re
import uuid
from collections.abc import Iterable, Iterator, Sized
from fractions import Fraction
from typing import Any

import msgspec

from postline.contracts.schema import (
    Definition,
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

__all__ = ["fits", "is_endless"]

_DEPTH_MAX = 50
#: Records that a default may make; one that contains itself by default makes more.
_RECORDS_MAX = 1000
_PARTS_MAX = 100_000

#: Longer texts are not searched for a pattern, nor patterns that may take long.
_SEARCHED_MAX = 256
_REPETITIONS_MAX = 3
_AMBIGUOUS = frozenset({"BRANCH", "GROUPREF", "GROUPREF_EXISTS"})

_WRITTEN_AS_TEXT: dict[str, type] = {
    "bytes": bytes,
    "date": datetime.date,
    "time": datetime.time,
    "datetime": datetime.datetime,
    "duration": datetime.timedelta,
    "uuid": uuid.UUID,
}


def fits(schema: Schema, part: Type, value: Any) -> bool:
    """Whether a reader of the type takes the value; one that nests deeper than 50 is not looked at, and does not fit.

    A pattern that Python can't read, or that might take it long, refuses nothing.
    """
    return not _is_deep(value) and _Fitting(schema).of(part, value)


def is_endless(schema: Schema, part: Type, value: Any) -> bool:
    """Whether a value that fits becomes one without end, or a huge one, by the defaults of the fields that it omits."""
    waiting: list[tuple[Type, Any]] = [(part, value)]
    records = 0
    while waiting and records <= _RECORDS_MAX and len(waiting) <= _PARTS_MAX:
        part, value = waiting.pop()
        match schema.resolve(part):
            case ListOf(items=inner) | MapOf(values=inner):
                waiting += [(inner, each) for each in (value.values() if isinstance(value, dict) else value)]
            case TupleOf(items=several):
                waiting += zip(several, value, strict=True)
            case UnionOf(options=several):
                waiting += [(each, value) for each in several if fits(schema, each, value)][:1]
            case Record(fields=fields):
                records += 1
                said = (
                    value if isinstance(value, dict) else dict(zip((each.name for each in fields), value, strict=False))
                )
                waiting += [
                    (field.type, said.get(field.name, field.default))
                    for field in fields
                    if fits(schema, field.type, said.get(field.name, field.default))
                ]
    return bool(waiting)


def _is_deep(value: Any) -> bool:
    within = [value]
    for _ in range(_DEPTH_MAX):
        within = [inner for each in within for inner in _contents(each)]
    return bool(within)


def _contents(value: Any) -> Iterable[Any]:
    match value:
        case dict():
            return value.values()
        case list():
            return value
    return ()


class _Fitting:
    """What fits in one schema; each part of a value is compared once with each type, however unions nest."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._known: dict[tuple[int, int], bool] = {}

    def of(self, part: Type, value: Any) -> bool:
        key = id(part), id(value)
        if key not in self._known:
            self._known[key] = self._compared(part, value)
        return self._known[key]

    def _compared(self, part: Type, value: Any) -> bool:
        match part:
            case Scalar():
                return _is_of_kind(part, value) and _is_within(part.limits, _measured(part, value))
            case ListOf():
                return (
                    isinstance(value, list)
                    and _is_within(part.limits, value)
                    and all(self.of(part.items, each) for each in value)
                )
            case TupleOf():
                return (
                    isinstance(value, list) and len(part.items) == len(value) and all(map(self.of, part.items, value))
                )
            case MapOf():
                return (
                    isinstance(value, dict)
                    and _is_within(part.limits, value)
                    and all(self._key(part.keys, key) for key in value)
                    and all(self.of(part.values, each) for each in value.values())
                )
            case UnionOf():
                return any(self.of(each, value) for each in part.options)
            case Reference():
                return self._definition(self._schema.definitions[part.name], value)

    def _definition(self, found: Definition, value: Any) -> bool:
        match found:
            case Enumeration(symbols=symbols):
                return isinstance(value, str | int) and not isinstance(value, bool) and value in symbols
            case Record(positional=True, fields=fields):
                required = sum(field.required for field in fields)
                return (
                    isinstance(value, list)
                    and required <= len(value) <= len(fields)
                    and all(self.of(field.type, each) for field, each in zip(fields, value, strict=False))
                )
            case Record():
                return isinstance(value, dict) and self._record(found, value)

    def _record(self, record: Record, value: dict[str, Any]) -> bool:
        if record.tag_field and value.get(record.tag_field) != record.tag:
            return False
        known = {field.name for field in record.fields} | {record.tag_field}
        if record.closed and value.keys() - known:
            return False
        return all(
            self.of(field.type, value[field.name]) if field.name in value else not field.required
            for field in record.fields
        )

    def _key(self, part: Type, key: str) -> bool:
        """Keys are written as text, also those that are numbers."""
        if isinstance(part, Scalar) and part.kind in {"integer", "number"}:
            try:
                return _Fitting(self._schema).of(part, msgspec.json.decode(key))
            except msgspec.DecodeError:
                return False
        return self.of(part, key)


def _is_of_kind(part: Scalar, value: Any) -> bool:
    match part.kind:
        case "any":
            return True
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "text":
            return isinstance(value, str)
        case "decimal":
            return isinstance(value, str | int | float) and not isinstance(value, bool) and _is_decimal(str(value))
        case kind:
            return isinstance(value, str) and _is_written(value, _WRITTEN_AS_TEXT[kind])


def _measured(part: Scalar, value: Any) -> Any:
    return msgspec.convert(value, bytes) if part.kind == "bytes" else value


def _is_decimal(value: str) -> bool:
    try:
        return decimal.Decimal(value).is_finite()
    except decimal.InvalidOperation:
        return False


def _is_written(value: str, cls: type) -> bool:
    try:
        msgspec.convert(value, cls)
    except (msgspec.ValidationError, OverflowError):
        return False
    return True


def _is_within(limits: Limits, value: Any) -> bool:
    if isinstance(value, int | float):
        return isinstance(value, bool) or _is_in_range(limits, value)
    if isinstance(value, Sized):
        size = len(value)
        if size < (limits.min_length or 0) or (limits.max_length is not None and size > limits.max_length):
            return False
    return limits.pattern is None or not isinstance(value, str) or _is_found(limits.pattern, value)


def _is_in_range(limits: Limits, value: int | float) -> bool:
    return (
        (limits.ge is None or value >= limits.ge)
        and (limits.gt is None or value > limits.gt)
        and (limits.le is None or value <= limits.le)
        and (limits.lt is None or value < limits.lt)
        and (not limits.multiple_of or _exactly(value) % _exactly(limits.multiple_of) == 0)
    )


def _exactly(value: int | float) -> Fraction:
    """A number as it was written, in decimal digits."""
    return Fraction(value) if isinstance(value, int) else Fraction(str(value))


def _is_found(pattern: str, value: str) -> bool:
    try:
        return len(value) > _SEARCHED_MAX or not _is_quick(pattern) or re.search(pattern, value) is not None
    except (re.error, OverflowError, RecursionError):
        return True


@functools.lru_cache(maxsize=256)
def _is_quick(pattern: str) -> bool:
    """Whether a search ends soon, whatever the text: repetitions in repetitions take time without end (`^(a+)+$`)."""
    # What is not anchored is searched for from each character on.
    starts = 0 if pattern.startswith("^") else 1
    return starts + _repetitions(re._parser.parse(pattern), within=False) <= _REPETITIONS_MAX  # type: ignore[attr-defined]


def _repetitions(parsed: Any, within: bool) -> int:
    """How many parts may be of several lengths; too many where one lies, or a choice does, in one that repeats."""
    found = 0
    for operation, content in parsed:
        is_repeated = str(operation).endswith("REPEAT")
        varies = is_repeated and content[0] != content[1]
        if within and (varies or str(operation) in _AMBIGUOUS):
            return _REPETITIONS_MAX + 1
        found += varies
        for part in _parts_in(content):
            found += _repetitions(part, within or (is_repeated and content[1] > 1))
    return found


def _parts_in(content: Any) -> Iterator[Any]:
    if isinstance(content, re._parser.SubPattern):  # type: ignore[attr-defined]
        yield content
    elif isinstance(content, tuple | list):
        for each in content:
            yield from _parts_in(each)
